"""Compaction: the file says the same in less space, whoever writes and whatever stops it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

import evstore
from evstore import replay
from evstore.errors import ReadOnly
from evstore.sqlite import compact, deltas, payload
from evstore.transfer import export_lines
from tests.command_line import run
from tests.test_deltas import calls_of, count_deltas, edited, rows, text, wrong_deltas

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="needs SIGKILL")
VERSIONS = 60

# Compacts in small steps, and says when it begins.
COMPACTS = """
import sys, evstore
from evstore.sqlite import compact
compact.STEP_BYTES, compact._BATCHES = 20_000, 10
with evstore.open(sys.argv[1], durability="normal") as store:
    print("ready", flush=True)
    store.compact()
"""

# Writes large versions.
WRITES = """
import sys, evstore
with evstore.open(sys.argv[1], durability="normal") as store:
    session, base = store.session(sys.argv[2]), sys.stdin.read()
    for number in range(120):
        session.variables["large"] = base[:number] + str(number) + base[number:]
"""


@pytest.fixture
def loose(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose values lie there as earlier versions wrote them, all of them full copies."""
    numbers = random.Random(1)
    with monkeypatch.context() as patch, evstore.open(path, durability="normal") as store:
        patch.setattr(deltas, "TEXT_BYTES_MAX", 0)
        session, value = store.session("s"), text(numbers, 6000)
        for number in range(VERSIONS):
            with session.batch() as batch:
                batch.variables["large"] = value = edited(numbers, value)
                batch.variables["small"] = number
            session.messages.append({"role": "user", "content": text(numbers, 3000)})
        session.record("app.note", {"text": text(numbers, 2000)})
        fork = session.fork("fork", at=90)
        fork.variables["large"] = value
        fork.variables["large"] = value + "!"
        del session.variables["large"]
        store.session("gone").variables["x"] = numbers.randbytes(4000)
        store.delete("gone")
    return path


def said(store: evstore.Store) -> tuple[list[bytes], list[Any]]:
    """All that a store says: its log, and its moments."""
    moments = [
        (view.seq, dict(view.variables), list(view.messages))
        for name in ("s", "fork")
        for view in map(store.session(name).at, range(0, store.session(name).head + 1, 7))
    ]
    return list(export_lines(store)), moments


def test_a_compact_store_says_the_same_in_less_space(loose):
    """Log, moments, links and seqs stay, the file shrinks, and a second time changes nothing."""
    with evstore.open(loose) as store:
        before = said(store)
        gain = store.compact()
        assert gain.after_bytes == os.path.getsize(loose)
        assert before == said(store)
        assert 2 * VERSIONS < gain.events
        assert gain.after_bytes < gain.before_bytes / 2
        assert gain.after_bytes == store.stats().file_bytes
        assert VERSIONS == count_deltas(store)
        assert [] == wrong_deltas(store)
        assert [] == list(replay.verify(store, level="full"))
        size = store.stats().file_bytes
        assert evstore.Gain(0, size, size) == store.compact()
        replay.rebuild(store)
        assert before == said(store)
        with store.engine.database.writing("normal") as cursor:
            assert 0 == cursor.connection.limit(apsw.SQLITE_LIMIT_ATTACHED)
    with evstore.open(loose) as store:
        assert before == said(store)
        assert [] == list(replay.verify(store, level="full"))


def test_what_was_written_since_is_compacted_next(loose, monkeypatch):
    """A compaction takes up where the last one ended, and builds on what that left."""
    with evstore.open(loose) as store:
        store.compact()
        planned = calls_of(monkeypatch, compact, "_planned")
        session = store.session("s")
        for number in range(3):
            session.messages.append({"role": "user", "content": "word " * 500 + str(number)})
            session.variables["large"] = text(random.Random(number), 5000)
        before = said(store)
        assert 6 == store.compact().events == len(planned)
        assert before == said(store)
        assert [] == list(replay.verify(store, level="full"))


def test_a_read_only_store_is_not_compacted(loose):
    """A handle that only reads refuses."""
    with evstore.open(loose, read_only=True) as store, pytest.raises(ReadOnly):
        store.compact()


def test_those_who_read_are_not_disturbed(loose):
    """A snapshot that began before goes on to see what it saw, and the file shrinks later."""
    size_bytes = os.path.getsize(loose)
    with evstore.open(loose) as store:
        view = store.session("s").at(5)
        with store.engine.database.snapshot() as cursor:
            before = cursor.execute("select id, data from event").fetchall()
            store.compact()
            assert before == cursor.execute("select id, data from event").fetchall()
        assert 5 == view.seq
        assert dict(view.variables) == dict(store.session("s").at(5).variables)
    assert os.path.getsize(loose) < size_bytes / 2


def test_a_killed_compaction_has_changed_nothing(loose):
    """Wherever SIGKILL strikes, the store is whole and says the same, and the next one ends it."""
    with evstore.open(loose) as store:
        before = said(store)
    numbers = random.Random(2)
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", COMPACTS, loose], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(numbers.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with evstore.open(loose) as store:
            assert before[0] == list(export_lines(store))
    with evstore.open(loose) as store:
        store.compact()
        assert before == said(store)
        assert [] == list(replay.verify(store, level="full"))


def test_others_write_meanwhile(loose, monkeypatch):
    """What several processes write while the file is compacted is there, all of it and exact."""
    monkeypatch.setattr(compact, "STEP_BYTES", 20_000)
    monkeypatch.setattr(compact, "_BATCHES", 10)
    base = text(random.Random(3), 12_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITES, loose, name], stdin=subprocess.PIPE)
        for name in ("s", "other")
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(base.encode())
        writer.stdin.close()
    with evstore.open(loose) as store:
        gains: list[int] = []
        while any(writer.poll() is None for writer in writers):
            gains.append(store.compact().events)
        assert [0, 0] == [writer.returncode for writer in writers]
        for name in ("s", "other"):
            events = store.session(name).events(name="large", kind="variable.set")
            expected = [base[:number] + str(number) + base[number:] for number in range(120)]
            assert expected == [event.data["value"] for event in events][-120:]
        assert 1 < len([events for events in gains if events])
        assert [] == wrong_deltas(store)
        assert [] == list(replay.verify(store, level="full"))


def test_what_was_written_before_it_ended_is_known_after_it(loose):
    """What another process writes while the file is written anew, the next append goes on from."""
    statements: list[str] = []

    def trace(_cursor: Any, statement: str, _bindings: Any) -> bool:
        statements.append(statement)
        if statement == "begin immediate" and "vacuum" in statements:
            statements.clear()
            arguments = [sys.executable, "-c", WRITES, loose, "s"]
            subprocess.run(arguments, input=b"x", check=True)
        return True

    with evstore.open(loose) as store:
        session = store.session("s")
        session.variables["large"] = "before"
        with store.engine.database.writing("normal") as cursor:
            cursor.connection.exec_trace = trace
        store.compact()
        with store.engine.database.writing("normal") as cursor:
            cursor.connection.exec_trace = None
        head = session.head
        session.variables["large"] = "after"
        assert (head + 1, "after") == (session.head, session.variables["large"])
        assert [] == list(replay.verify(store, level="full"))


def test_nothing_is_encoded_against_what_was_forgotten_meanwhile(loose, monkeypatch):
    """An event, or its prefix, that is forgotten before its new form is written stays as it is."""
    forget = (
        "update event set encoding = 3, delta = null, data = zeroblob(32), salt = null, name = null"
        " where id in (select min(id) from event where name = 'large'"
        " union select max(id) from event where name = 'large')"
    )
    real = compact._apply
    applied: list[int] = []

    def apply(cursor: Any, change: Any) -> int:
        if not applied:
            cursor.execute(forget)
        applied.append(real(cursor, change))
        return applied[-1]

    monkeypatch.setattr(compact, "_apply", apply)
    monkeypatch.setattr(compact, "STEP_BYTES", 20_000)  # the last event is planned after that
    with evstore.open(loose) as store:
        value = store.session("s").at(4).variables["large"]
        store.compact()
        assert 0 in applied
        assert evstore.ERASED is next(store.session("s").events()).data
        assert value == store.session("s").at(4).variables["large"]


def test_what_was_forgotten_before_stays_forgotten(loose):
    """A forgotten event has nothing to encode, and what comes after it begins anew."""
    with evstore.open(loose) as store:
        with store.engine.database.writing("normal") as cursor:
            cursor.execute(
                "update event set encoding = 3, delta = null, data = zeroblob(32), salt = null,"
                " name = null where name = 'large' and id & 0xffffffff < 30"
            )
        store.compact()
        assert evstore.ERASED is next(store.session("s").events()).data
        assert payload.ZSTD == rows(store, "encoding")[10][0]


def test_a_store_in_memory_is_compacted(memory):
    """A store without a file is encoded anew as well."""
    memory.session("s").messages.append({"role": "user", "content": text(random.Random(1), 9000)})
    assert 1 == memory.compact().events


def test_the_verb_says_what_it_gained(loose, monkeypatch):
    """`evstore compact` says how many events it encoded, and the size before and after."""
    monkeypatch.setattr("evstore.cli.terminal.is_terminal", lambda: True)
    result = run("compact", str(loose))
    assert (0, "") == (result.exit_code, result.stderr)
    assert result.stdout.startswith("compacted: 1")
    assert " KiB before, " in result.stdout
