"""A disk that fails loses nothing that was acknowledged; every failure has a name and a remedy."""

import ast
import copy
import inspect
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from typing import Any

import apsw
import pytest

import evstore
import evstore.replay
from evstore import errors
from evstore.errors import (
    Busy,
    Closed,
    Corrupt,
    EvstoreError,
    NotAStore,
    ReadOnly,
    Refused,
    Unavailable,
)
from evstore.sqlite.failures import is_fatal, translate
from tests.crash.audit import audit


def subclasses(cls: type[Exception]) -> list[Any]:
    """A class and all that are made from it."""
    return [cls, *[found for child in cls.__subclasses__() for found in subclasses(child)]]


def ours() -> list[type[EvstoreError]]:
    """The classes of errors that evstore has."""
    return [cls for cls in subclasses(EvstoreError) if cls.__module__ == errors.__name__]


def made(cls: Any) -> Any:
    """An error of a class, with something in every field."""
    if not cls.__match_args__:
        return cls("something is not right: change it")
    return cls(*map(_sample, inspect.signature(cls).parameters.values()))


def _sample(field: inspect.Parameter) -> object:
    return 7 if field.annotation is int else f"some {field.name}"


def is_a_sentence(text: str) -> bool:
    """Whether a text is one line that says something and does not trail off."""
    return len(text) > 15 and "\n" not in text and not text.endswith((".", ":", " "))


# Full disks.


@contextmanager
def small_disk(folder):
    """A file system of 600 KB."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs the rights of root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(session: evstore.Session) -> int:
    """Write until the disk is full; return the newest sequence that was acknowledged."""
    told = [session.head]

    def write_on() -> None:
        while True:
            with session.batch() as batch:
                batch.messages.append({"role": "user", "content": os.urandom(2000).hex()})
                batch.variables["last"] = batch.seq
            told.append(batch.events[-1].seq)

    with pytest.raises(Unavailable, match=r"full.*free some space"):
        write_on()
    return told[-1]


def test_a_full_disk_is_unavailable_until_there_is_space(tmp_path):
    """On a full file system a write is Unavailable, reads go on, and space makes it work again."""
    folder = tmp_path / "small"
    with small_disk(folder):
        (folder / "ballast").write_bytes(bytes(100_000))
        with evstore.open(folder / "store.db") as store:
            session = store.session("a")
            told = fill(session)
            assert told == session.head
            assert told - 2 == session.variables["last"]
            (folder / "ballast").unlink()
            session.variables["last"] = "there is space"
            assert told + 1 == session.head
            audit(store)
        with evstore.open(folder / "store.db") as store:
            assert told + 1 == len(list(store.session("a").events()))
            audit(store)


def test_a_full_disk_at_creation_leaves_nothing_half_made(tmp_path):
    """Where there is no space for a new store it is Unavailable, and can be created later."""
    folder = tmp_path / "small"
    with small_disk(folder):
        ballast = folder / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(bytes(1_000_000))
        with pytest.raises(Unavailable):
            evstore.open(folder / "store.db")
        ballast.unlink()
        with evstore.open(folder / "store.db") as store:
            store.session("a").variables["x"] = 1
            audit(store)


def test_a_file_at_its_largest_is_unavailable(tmp_path):
    """Where SQLite may not take another page the write is Unavailable and the log is as it was."""
    with evstore.open(tmp_path / "store.db") as store:
        session = store.session("a")
        session.variables["x"] = 1
        writer = store.engine.database._writer
        assert writer is not None
        writer.execute("pragma max_page_count=60").fetchall()
        told = fill(session)
        assert told == session.head
        writer.execute("pragma max_page_count=100000").fetchall()
        session.variables["x"] = 2
        assert told + 1 == session.head
        audit(store)
        assert [] == list(evstore.replay.verify(store, level="full"))


# Failing disks, in processes of their own.


@pytest.mark.parametrize("wal_pages", [6, 1000])
@pytest.mark.parametrize("lasting", ["once", "lasting"])
@pytest.mark.parametrize("fault", ["write", "sync", "full", "read"])
def test_a_failing_disk_loses_nothing(tmp_path, fault, lasting, wal_pages):
    """Whichever write, read or fsync fails: it is Unavailable, and what was acknowledged is there.

    Forty places of failure each, in commits and in checkpoints; after a failed fsync no handle of
    the file goes on, and the file can be opened again.
    """
    command = [sys.executable, "-m", "tests.crash.faults", tmp_path / "store.db", fault, lasting]
    found = subprocess.run([*command, str(wal_pages)], capture_output=True, text=True, check=False)
    assert (0, "") == (found.returncode, found.stderr)
    seen = ast.literal_eval(found.stdout)
    assert 40 == sum(seen.values())
    assert seen["Unavailable"] > 0
    assert set(seen) <= {"Unavailable", "nothing", "no fault"}


# Errors.


@pytest.mark.parametrize("cls", subclasses(apsw.Error), ids=lambda cls: cls.__name__)
def test_every_error_of_sqlite_becomes_one_of_ours(cls):
    """Each exception class of apsw turns into a class of ours, with a sentence."""
    error = cls("something happened")
    error.extendedresult = getattr(error, "extendedresult", 0)
    translated = translate(error, "/a/store.db", 30)
    assert type(translated) in ours()
    assert type(translated) is not EvstoreError
    assert is_a_sentence(str(translated)), str(translated)


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (apsw.BusyError, Busy),
        (apsw.FullError, Unavailable),
        (apsw.IOError, Unavailable),
        (apsw.CantOpenError, Unavailable),
        (apsw.NoMemError, Unavailable),
        (apsw.ReadOnlyError, ReadOnly),
        (apsw.NotADBError, NotAStore),
        (apsw.CorruptError, Corrupt),
        (apsw.ConnectionClosedError, Closed),
        (apsw.ThreadingViolationError, Closed),
    ],
    ids=lambda cls: cls.__name__,
)
def test_errors_of_sqlite_say_what_to_do_next(cls, expected):
    """The class that an error of SQLite becomes is the one that names the caller's next step."""
    error = cls("something happened")
    error.extendedresult = getattr(error, "extendedresult", 0)
    assert expected is type(translate(error, "/a/store.db", 30))


def test_a_bad_page_is_damage_and_a_failed_sync_is_the_end():
    """A page that fails its checksum is Corrupt; only failing writes and syncs end all handles."""
    bad_page: Any = apsw.IOError("x")
    failed_sync: Any = apsw.IOError("x")
    bad_page.extendedresult = apsw.SQLITE_IOERR_DATA
    failed_sync.extendedresult = apsw.SQLITE_IOERR_FSYNC
    assert Corrupt is type(translate(bad_page, "/a/store.db", 30))
    assert Unavailable is type(translate(failed_sync, "/a/store.db", 30))
    assert [False, True, False] == [
        is_fatal(error) for error in (bad_page, failed_sync, apsw.FullError("x"))
    ]


@pytest.mark.parametrize("cls", ours(), ids=lambda cls: cls.__name__)
def test_errors_cross_processes(cls):
    """An error keeps its class, its fields and its sentence when it is pickled."""
    error = made(cls)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(error) is type(again)
        assert str(error) == str(again)
        assert vars(error) == vars(again)
        assert error.args == again.args


@pytest.mark.parametrize("cls", ours(), ids=lambda cls: cls.__name__)
def test_an_error_shows_its_fields(cls):
    """Fields are given in their order or by name, and the representation shows all of them."""
    error = made(cls)
    again = cls(**vars(error)) if vars(error) else cls(*error.args)
    assert repr(error) == repr(again)
    assert error != again
    if vars(error):
        told = ", ".join(f"{name}={getattr(error, name)!r}" for name in cls.__match_args__)
        assert f"{cls.__name__}({told})" == repr(error)
        assert error.args == tuple(vars(error).values())


def test_an_error_takes_its_own_fields_only():
    """A field too few, too many or unknown is a mistake of the program, and a TypeError."""
    assert ("the store is closed", "open it again with evstore.open") == Closed().args
    wrong: list[tuple[Any, tuple[int, ...], dict[str, int]]] = [
        (Busy, (), {}),
        (Busy, (1, 2), {}),
        (Busy, (1,), {"waited_ms": 1}),
        (Busy, (), {"ms": 1}),
        (Refused, (), {"ms": 1}),
    ]
    for cls, given, named in wrong:
        with pytest.raises(TypeError):
            cls(*given, **named)


@pytest.mark.parametrize("cls", ours(), ids=lambda cls: cls.__name__)
def test_an_error_is_one_sentence(cls):
    """The text of every error is one sentence that names what it is about and what to do."""
    error = made(cls)
    assert is_a_sentence(str(error)), str(error)
    for name in cls.__match_args__:
        assert str(getattr(error, name)) in str(error)
