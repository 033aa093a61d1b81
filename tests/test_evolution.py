"""What was recorded in an older form is read in the newest, and stays in the file as it was."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import aio, evolution, registry, replay, transfer, values
from evstore.errors import BadName, FromTheFuture, NotUpcast, Refused
from evstore.events import LABEL_SET, VARIABLE_SET
from evstore.folding import fold
from tests.histories import fresh_store
from tests.test_upgrade import old, user_version
from tests.values_strategy import fingerprint, storable

__all__ = ["old"]

PLACED = "app.order.placed"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins in a program that knows no upcasters and no classes."""
    monkeypatch.setattr(evolution, "_steps", {})
    for name in ("by_class", "by_name"):
        monkeypatch.setattr(registry, name, {})
        monkeypatch.setattr(values, name, vars(registry)[name])


def add_currency(data: Any) -> Any:
    return data | {"currency": "EUR"}


def in_cents(data: Any) -> Any:
    return {"cents": data["price"] * 100, "currency": data["currency"]}


def know_three_versions() -> None:
    evstore.upcast(PLACED, 1)(add_currency)
    evstore.upcast(PLACED, 2)(in_cents)


def newest(session: evstore.Session) -> evstore.Event:
    (event,) = session.events(reverse=True, limit=1)
    return event


def test_older_events_are_read_in_the_newest_form(session: evstore.Session):
    """Every version goes through the steps that it lacks, and the stored text stays as it was."""
    session.record(PLACED, {"price": 5})
    session.record(PLACED, {"price": 6, "currency": "USD"}, version=2)
    know_three_versions()
    session.record(PLACED, {"cents": 7, "currency": "CHF"})
    expected = [
        (1, {"cents": 500, "currency": "EUR"}, '{"price":5}'),
        (2, {"cents": 600, "currency": "USD"}, '{"price":6,"currency":"USD"}'),
        (3, {"cents": 7, "currency": "CHF"}, '{"cents":7,"currency":"CHF"}'),
    ]
    assert expected == [(event.version, event.data, event.text) for event in session.events()]
    assert expected == [
        (event.version, event.data, event.text) for event in session.view().events()
    ]


def test_versions_are_told_by_every_way_of_recording(store: evstore.Store):
    """A session, a batch and an awaited session record the newest version, or the one given."""
    know_three_versions()
    session = store.session("s")
    recorded = [*session.record(PLACED, 1), *session.record(PLACED, {"price": 1}, version=1)]
    with session.batch() as batch:
        batch.record(PLACED, 1)
        batch.record(PLACED, 1, version=2)
        batch.record("app.other", 1)
    recorded += batch.events
    assert [3, 1, 3, 2, 1] == [event.version for event in recorded]
    assert recorded == list(session.events())


def test_awaited_sessions_record_versions_too():
    """What is awaited takes a version as well, and reads older events in the newest form."""

    async def told() -> list[tuple[int, Any]]:
        async with aio.open(":memory:") as store:
            session = await store.session("s")
            await session.record(PLACED, {"price": 1}, version=1)
            await session.record(PLACED, {"cents": 1, "currency": "EUR"})
            return [(event.version, event.data) async for event in session.events()]

    know_three_versions()
    first = (1, {"cents": 100, "currency": "EUR"})
    assert [first, (3, {"cents": 1, "currency": "EUR"})] == asyncio.run(told())


STEPS: tuple[Callable[[Any], Any], ...] = (
    lambda data: [data],
    lambda data: (data, 1),
    lambda data: {"was": data},
    lambda data: data,
    lambda _data: None,
)


@given(storable, st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.data())
def test_chains_are_their_steps_one_after_the_other(value, steps, drawn):
    """The newest form is what the steps make of the data in turn, from whichever version it has."""
    with fresh_store() as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(evolution, "_steps", {})
        version = drawn.draw(st.integers(1, len(steps) + 1))
        session = store.session("s")
        session.record(PLACED, value, version=version)
        stored = newest(session)
        assert fingerprint(value) == fingerprint(stored.data)
        order = drawn.draw(st.permutations(range(1, len(steps) + 1)))
        for number in order:
            evstore.upcast(PLACED, number)(steps[number - 1])
        for step in steps[version - 1 :]:
            value = step(value)
        assert stored == newest(session)
        assert fingerprint(value) == fingerprint(newest(session).data)


def test_classes_and_events_evolve_together(session: evstore.Session):
    """An object inside of an event is lifted by its class, then the event by its kind."""

    @attrs.frozen
    class Point:
        x: int
        tags: tuple[str, ...] = ()

    evstore.register(Point)
    session.record(PLACED, Point(1))
    evstore.register(Point, version=2, upcast=lambda data, _version: data | {"tags": ("old",)})
    evstore.upcast(PLACED, 1)(lambda point: {"at": point})
    assert {"at": Point(1, ("old",))} == newest(session).data


def test_what_reads_the_stored_form_knows_no_upcasters(store: evstore.Store, tmp_path: Path):
    """Folding, verifying, exporting and keys look at what is stored, and call no upcaster."""
    session = store.session("s")
    with session.batch(key="k") as batch:
        batch.record(PLACED, {"price": 5})

    @evstore.upcast(PLACED, 1)
    def failing(_data: Any) -> Any:
        raise AssertionError("an upcaster was called")

    assert [] == list(replay.verify(store, level="full"))
    assert session.head == fold(session.events()).seq
    assert 1 == len(list(replay.walk(session)))
    with session.batch(key="k") as batch:
        batch.record(PLACED, {"price": 5}, version=1)
    assert 1 == batch.events[0].seq == session.head
    lines = list(transfer.export_lines(store))
    with evstore.open(tmp_path / "copy.db") as copy:
        transfer.import_lines(copy, lines)
        (event,) = copy.session("s").events()
        assert (1, '{"price":5}') == (event.version, event.text)
        assert lines == list(transfer.export_lines(copy))


def test_a_newer_version_is_told_when_it_is_read(session: evstore.Session):
    """Newer data than the program knows is an error once it is asked for, and the rest is shown."""
    session.record(PLACED, {"amount": 5}, version=4)
    assert {"amount": 5} == newest(session).data  # Nothing is known of this kind's versions.
    know_three_versions()
    event = newest(session)
    assert (4, PLACED, '{"amount":5}') == (event.version, event.kind, event.text)
    with pytest.raises(NotUpcast, match=r"version 4 of 'app.order.placed'.* up to 3: .*update"):
        _ = event.data


def test_a_missing_step_is_told(session: evstore.Session):
    """A version that no step leads on from is an error that names it."""
    session.record(PLACED, {"price": 5})
    evstore.upcast(PLACED, 2)(in_cents)
    with pytest.raises(NotUpcast, match=r"version 1 of .* no step leads from version 1"):
        _ = newest(session).data


def test_a_broken_upcaster_is_told(session: evstore.Session):
    """A step that raises, or returns what cannot be stored, is named with its kind and version."""
    session.record(PLACED, {"price": 5})
    evstore.upcast(PLACED, 1)(lambda data: data | {"tags": [object()]})
    with pytest.raises(NotUpcast, match=r"data\['tags'\]\[0\] \(object\) has a type") as refused:
        _ = newest(session).data
    assert (PLACED, 1) == (refused.value.kind, refused.value.version)
    session.record("app.other", {"price": 5})
    evstore.upcast("app.other", 1)(add_currency)
    evstore.upcast("app.other", 2)(lambda data: data["weight"])
    with pytest.raises(NotUpcast, match=r"version 2 of 'app.other'.*KeyError\('weight'\)"):
        _ = next(session.events(kind="app.other")).data


def test_data_read_is_nobody_elses(session: evstore.Session):
    """What an upcaster gets and gives is a fresh object, so changing it changes nothing."""
    session.record(PLACED, {"price": 5})
    shared = ["a"]

    @evstore.upcast(PLACED, 1)
    def tagged(data: Any) -> Any:
        data["tags"] = shared
        return data

    event = newest(session)
    event.data["tags"].append("b")
    assert {"price": 5, "tags": ["a"]} == event.data


def test_what_cannot_be_an_upcaster_is_refused():
    """Kinds that are evstore's own, strange versions, and a second function for one step."""
    for kind in (VARIABLE_SET, "placed", "app.", None):
        with pytest.raises(BadName, match=r"app\.order\.placed"):
            evstore.upcast(kind, 1)  # type: ignore[arg-type]
    for version in (0, -1, True, 1.0, 1 << 31):
        with pytest.raises(Refused, match="give a number from 1"):
            evstore.upcast(PLACED, version)  # type: ignore[arg-type]
    know_three_versions()
    know_three_versions()  # as a notebook does
    with pytest.raises(Refused, match=r"add_currency takes 'app\.order\.placed' from version 1"):
        evstore.upcast(PLACED, 1)(in_cents)


def test_a_version_that_could_not_be_read_is_refused(session: evstore.Session):
    """A version is a number from 1 up to the one known, and nothing is recorded under another."""
    know_three_versions()
    for version in (0, 4, True, "1"):
        with pytest.raises(Refused, match="give a number from 1 to 3"):
            session.record(PLACED, 1, version=version)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="from 1 to 2147483647"):
        session.record("app.other", 1, version=1 << 31)
    assert 0 == session.head


def test_kinds_of_evstore_evolve_the_same_way(session: evstore.Session, monkeypatch):
    """An older version of a kind of evstore's own is lifted by its chain; a newer is an error."""
    session.variables["a"] = 1
    session.label("here")
    monkeypatch.setitem(evolution._steps, LABEL_SET, {1: lambda data: data | {"by": None}})
    assert {"at": 1, "by": None} == newest(session).data
    with pytest.raises(NotUpcast, match=r"version 2 of 'variable\.set'.* up to 1"):
        _ = attrs.evolve(next(session.events()), version=2).data


def test_newer_kinds_of_evstore_do_not_come_in(memory: evstore.Store, store: evstore.Store):
    """An import that says what this evstore does not know of its own kinds is refused whole."""
    memory.session("s").variables["a"] = 1
    lines = [line.replace(b'"version":1', b'"version":2') for line in transfer.export_lines(memory)]
    with pytest.raises(FromTheFuture, match="upgrade evstore"):
        transfer.import_lines(store, lines)
    assert [] == list(store.sessions())


# The file itself.

DYING = """
import os, signal, sys
import evstore
from evstore.sqlite import schema

upgrade = schema.upgrade

def dying(cursor):
    upgrade(cursor)
    os.kill(os.getpid(), signal.SIGKILL)

schema.upgrade = dying
evstore.open(sys.argv[1])
"""


def test_an_upgrade_that_is_killed_has_not_happened(old: Path):
    """A process that dies in the midst of an upgrade leaves a file of the older version, whole."""
    died = subprocess.run([sys.executable, "-c", DYING, os.fspath(old)], check=False)
    assert -signal.SIGKILL == died.returncode
    assert 1 == user_version(old)
    with evstore.open(old) as store:
        assert [] == list(replay.verify(store, level="full"))
        assert 1 == len(store.session("old").messages)


def test_a_newer_file_is_refused_however_it_is_opened(path: Path, monkeypatch):
    """A file of a newer version is refused for reading and for writing, with both versions."""
    from evstore.sqlite import schema

    evstore.open(path).close()
    known = schema.version()
    monkeypatch.setattr(schema, "scripts", lambda: ("",) * (known - 1))
    content = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(FromTheFuture, match="upgrade evstore") as refused:
            evstore.open(path, read_only=read_only)
        assert (known, known - 1) == (refused.value.file_version, refused.value.known_version)
    assert content == path.read_bytes()
