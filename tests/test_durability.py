"""What was written stays, on every connection, under any umask, and with the log kept short."""

import os
import stat
import subprocess
import sys
import threading

import apsw
import pytest

import evstore
import evstore.replay
from evstore.errors import Refused
from evstore.sqlite import schema, wal
from tests.crash.audit import audit


def connections(store: evstore.Store) -> list[apsw.Connection]:
    """All connections that a store has open now: its writer and its readers."""
    database = store.engine.database
    assert database._writer is not None
    return [database._writer.connection, *[cursor.connection for cursor in database.readers._all]]


@pytest.fixture
def store(tmp_path):
    """A store in which a session has one variable, and a reader is open."""
    with evstore.open(tmp_path / "store.db") as store:
        store.session("a").variables["x"] = 1
        assert 1 == store.session("a").variables["x"]
        yield store


def test_files_are_private_under_any_umask(tmp_path):
    """Only the owner may read the file and its companions, even where the umask allows all."""
    umask = os.umask(0)
    try:
        with evstore.open(tmp_path / "store.db") as store:
            store.session("a").variables["x"] = 1
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600} == modes
    assert ["store.db"] == os.listdir(tmp_path)
    assert 0o600 == stat.S_IMODE((tmp_path / "store.db").stat().st_mode)


def test_a_clean_close_leaves_one_file(tmp_path):
    """When the last handle is closed the log is in the file and the companions are gone."""
    first, second = evstore.open(tmp_path / "store.db"), evstore.open(tmp_path / "store.db")
    first.session("a").variables["x"] = 1
    assert 1 == second.session("a").variables["x"]
    first.close()
    first.close()
    assert {"store.db", "store.db-shm", "store.db-wal"} == set(os.listdir(tmp_path))
    second.close()
    assert ["store.db"] == os.listdir(tmp_path)
    with evstore.open(tmp_path / "store.db", create=False) as store:
        assert 1 == store.session("a").variables["x"]


def test_the_log_stays_short(tmp_path):
    """Under 20,000 commits, with readers that come and go, the write-ahead log keeps its bound."""
    bound = 4 * wal.BYTES_MAX  # Some 250 MB are written.
    largest = 0
    stop = threading.Event()
    with evstore.open(tmp_path / "store.db", durability="normal") as store:
        session = store.session("a")

        def read() -> None:
            while not stop.is_set():
                view = session.view()
                assert len(list(view.events(max(0, view.seq - 50)))) == min(view.seq, 50)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(20_000):
                session.variables[f"name{number % 20}"] = number
                if number % 100 == 0:
                    largest = max(largest, store.stats().wal_bytes if number % 2000 == 0 else 0)
                    largest = max(largest, (tmp_path / "store.db-wal").stat().st_size)
        finally:
            stop.set()
            reader.join()
        assert 20_000 == session.head
    assert 0 < largest <= bound


def test_commits_are_as_durable_as_the_handle(tmp_path):
    """At each commit `pragma synchronous` is 2 or 1, as the handle that commits has it."""
    with (
        evstore.open(tmp_path / "store.db", durability="full") as full,
        evstore.open(tmp_path / "store.db", durability="normal") as normal,
    ):
        writer = connections(full)[0]
        seen: list[object] = []

        def look() -> bool:
            seen.append(writer.pragma("synchronous"))
            return False

        writer.set_commit_hook(look)
        for store in (full, normal, normal, full, full, normal):
            store.session("a").variables["x"] = 1
        normal.flush()
        normal.session("a").variables["x"] = 1
        writer.set_commit_hook(None)
    assert [2, 1, 1, 2, 2, 1, 2, 1] == seen
    with pytest.raises(Refused):
        evstore.open(tmp_path / "store.db", durability="off")  # type: ignore[arg-type]


def test_flush_syncs_what_was_committed_before(tmp_path):
    """A flush of a `normal` store really syncs the write-ahead log, where a commit does not."""
    code = """
import sys, evstore
from tests.crash.recorder import Recorder
recorder = Recorder()
recorder.install()
store = evstore.open(sys.argv[1], durability="normal")
store.session("a").variables["x"] = 0
def synced(act):
    before = len(recorder.operations)
    act()
    return [(step.kind, step.name) for step in recorder.operations[before:] if "sync" in step.kind]
assert [] == synced(lambda: store.session("a").variables.update(x=1))
assert ("sync", "store.db-wal") in synced(store.flush)
assert ("sync", "store.db-wal") in synced(store.flush)
full = evstore.open(sys.argv[1], durability="full")
assert ("sync", "store.db-wal") in synced(lambda: full.session("a").variables.update(x=2))
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "store.db"], check=True, timeout=60)


def test_every_connection_is_hardened(store):
    """Writer and readers trust no schema, map no memory, load nothing and attach nothing."""
    expected = {
        apsw.SQLITE_DBCONFIG_DEFENSIVE: 1,
        apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA: 0,
        apsw.SQLITE_DBCONFIG_DQS_DDL: 0,
        apsw.SQLITE_DBCONFIG_DQS_DML: 0,
        apsw.SQLITE_DBCONFIG_ENABLE_VIEW: 0,
        apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION: 0,
    }
    assert len(connections(store)) >= 2
    for connection in connections(store):
        assert expected == {option: connection.config(option, -1) for option in expected}
        assert 1 == connection.pragma("cell_size_check")
        assert 0 == connection.pragma("mmap_size")
        assert "wal" == connection.pragma("journal_mode")
        assert "cksmvfs" == connection.open_vfs
        for statement in (
            'select "x"',
            "select * from events",
            "attach ':memory:' as other",
            "select load_extension('x')",
        ):
            with pytest.raises(apsw.SQLError):
                connection.execute(statement)
        connection.execute("pragma writable_schema=on")  # Defensive: has no effect.
        with pytest.raises((apsw.SQLError, apsw.ReadOnlyError)):
            connection.execute("update sqlite_schema set sql = ''")


def test_a_reader_cannot_write(store):
    """The connections that read are read-only in SQLite itself."""
    assert [False, *[True] * (len(connections(store)) - 1)] == [
        connection.readonly("main") for connection in connections(store)
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "update event set data = replace(data, '1', '2')",
        "update event set size = size + 1",
        "update event set position = position + 1",
        "update event set salt = zeroblob(16)",
        "delete from event",
        "update batch set actor = 'x'",
        "update batch set link = zeroblob(32)",
        "delete from batch",
        "update session set uid = zeroblob(16)",
        "update session set id = 'x'",
        "delete from session",
        "update kind set name = 'x' where number = 1",
        "delete from kind",
    ],
)
def test_the_log_refuses_to_be_rewritten(tmp_path, statement):
    """Whoever has the file in an SQLite shell can neither change nor delete what is in the log."""
    path = tmp_path / "store.db"
    with evstore.open(path) as store:
        store.session("a").variables["x"] = 1
        before = audit(store)
    shell = apsw.Connection(str(path), vfs="cksmvfs")
    with pytest.raises(apsw.ConstraintError):
        shell.execute(statement)
    shell.close()
    with evstore.open(path) as store:
        assert before == audit(store)


@pytest.mark.parametrize(
    "statement",
    [
        (
            "insert or replace into event(id, kind, name, encoding, size, position, salt, data) "
            "select id, kind, name, encoding, size, position, salt, '{\"value\":2}' from event"
        ),
        (
            "insert or replace into batch "
            "select position, session, first, last, time + 1, actor, cause, key, link from batch"
        ),
    ],
)
def test_what_the_log_cannot_refuse_is_found(tmp_path, statement):
    """What SQLite's triggers cannot tell from the engine's own work, the chain can."""
    path = tmp_path / "store.db"
    with evstore.open(path) as store:
        store.session("a").variables["x"] = 1
    with apsw.Connection(str(path), vfs="cksmvfs") as shell:
        shell.execute(statement)
    shell.close()
    with evstore.open(path) as store:
        assert [] != list(evstore.replay.verify(store, level="chain"))


def test_a_store_that_was_never_written_is_whole(tmp_path):
    """Creation alone leaves a file of ours, with page checksums, in write-ahead mode."""
    path = tmp_path / "store.db"
    evstore.open(path).close()
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs="cksmvfs") as found:
        assert schema.APPLICATION_ID == found.pragma("application_id")
        assert schema.version() == found.pragma("user_version")
        assert "wal" == found.pragma("journal_mode")
        assert 8 == found.reserve_bytes("main", -1)
    found.close()
