"""Rows that evstore did not write, behind page checksums that fit, are told as damage in time."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import evstore
from evstore import replay
from evstore.errors import BadFile, Corrupt

SOON_S = 10
LOOKS: dict[str, Callable[[evstore.Store], Any]] = {
    "variables": lambda store: dict(store.session("a").variables),
    "messages": lambda store: list(store.session("b").messages),
    "events": lambda store: list(store.session("b").events()),
    "sessions": lambda store: list(store.sessions()),
    "changes": lambda store: store.engine.changes(0),
    "set": lambda store: store.session("b").variables.set("short", 3),
    "undo": lambda store: store.session("b").undo(),
    "fork": lambda store: store.session("b").fork("c"),
    "search": lambda store: list(store.search("hello")),
    "verify": lambda store: list(replay.verify(store, level="heads")),
    "rebuild": replay.rebuild,
}


@pytest.fixture
def path(path: Path) -> Path:
    """A small store that was closed cleanly."""
    with evstore.open(path) as store:
        session = store.session("a", metadata={"title": "trip"})
        session.variables["short"] = 1
        session.messages.append({"role": "user", "content": "hello"})
        fork = session.fork("b")
        fork.variables["short"] = 2
        fork.messages.append({"role": "user", "content": "hello again"})
    return path


def forge(path: Path, statement: str) -> None:
    """Change rows as only someone with a shell can, past the triggers."""
    connection = apsw.Connection(str(path), vfs="cksmvfs")
    triggers = connection.execute("select name, sql from sqlite_schema where type = 'trigger'")
    kept = triggers.fetchall()
    for name, _ in kept:
        connection.execute(f"drop trigger {name}")
    connection.execute(statement)
    assert connection.changes() > 0
    for _, made in kept:
        connection.execute(str(made))
    connection.close()


def told(path: Path) -> list[Exception]:
    """What is raised by all that can be done with a store, each within some seconds."""
    errors: list[Exception] = []

    def look(act: Callable[[evstore.Store], Any]) -> None:
        try:
            with evstore.open(path) as store:
                act(store)
        except Exception as error:  # noqa: BLE001 - the caller looks at it
            errors.append(error)

    for name, act in LOOKS.items():
        thread = threading.Thread(target=look, args=(act,), daemon=True)
        thread.start()
        thread.join(SOON_S)
        assert not thread.is_alive(), name
    return errors


@pytest.mark.parametrize(
    "place",
    [
        "event set data = {}",
        "event set name = {} where name = 'short'",
        "variable set value = {}",
        "variable set name = {} where name = 'short'",
        "session set id = {} where id = 'a'",
        "batch set actor = {}",
        "batch set cause = {}",
        "kind set name = {} where number = 1",
    ],
)
def test_a_text_that_is_not_utf_8_is_damage(path: Path, place: str):
    """Whatever comes upon it is told that the file is damaged, and nothing else."""
    forge(path, "update " + place.format("cast(x'61ff' as text)"))
    errors = told(path)
    assert any("not UTF-8" in str(error) for error in errors)
    assert [] == [error for error in errors if not isinstance(error, (BadFile, LookupError))]


def test_what_an_application_cannot_decode_is_its_own_error(path: Path):
    """Bytes of its own that are no UTF-8, met while it reads or writes, are no damage."""
    with evstore.open(path) as store:
        database = store.engine.database
        for block in (database.snapshot(), database.writing("normal")):
            with pytest.raises(UnicodeDecodeError), block:
                b"\xff".decode()


@pytest.mark.parametrize(
    "birth", ["parent = number", "parent = 3", "fork = 4294967296", "fork = -1"]
)
def test_a_birth_out_of_its_past_is_damage(path: Path, birth: str):
    """A fork of itself, of a later one, or at no sequence is Corrupt, and nobody looks for ever."""
    with evstore.open(path) as store:
        store.session("b").fork("d")
    forge(path, f"update session set {birth} where id = 'b'")
    assert any(isinstance(error, Corrupt) for error in told(path))
