"""A backup is the whole store as it was, made while others write, or there is no backup at all."""

import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from struct import unpack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore import aio, replay
from evstore.chain import Batch
from evstore.errors import Corrupt, Refused, Unavailable
from evstore.sqlite import backup
from evstore.transfer import export_lines, import_lines
from tests.crash.audit import all_batches
from tests.crash.kill import Writer
from tests.event_loops import LOOPS, EventLoop
from tests.histories import HISTORIES, live_through
from tests.test_failures import small_disk

PAGE_BYTES = 4096
SAID = {"role": "user", "content": "hello " * 100}


def fill(store: evstore.Store) -> evstore.Session:
    """Let a session have a past, a fork, large values, an ended life, and a deadline."""
    trip = store.session("trip", metadata={"owner": "ada"})
    for number in range(40):
        trip.variables[f"name{number % 3}"] = {"large": "x" * 3000, "number": number}
        trip.messages.append(SAID)
    trip.fork("what-if", at=30).variables["city"] = "Rome"
    store.session("gone").variables["x"] = 1
    store.delete("gone")
    store.session("soon", ttl=3600).variables["x"] = 1
    return trip


def deadlines(store: evstore.Store) -> dict[str | None, Any]:
    """When each living session expires."""
    return {info.id: info.expires_at for info in store.sessions()}


def checked(path: Path) -> list[Batch]:
    """The whole log of a copy, which is sound down to each page, and alone in its file."""
    assert [path] == list(path.parent.glob(f"{path.name}*"))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [] == wrong_pages(path.read_bytes())
    with evstore.open(path, create=False) as copy:
        assert [] == list(replay.verify(copy, level="full"))
        return all_batches(copy)


def wrong_pages(content: bytes) -> list[int]:
    """The pages of a file whose last 8 bytes are not the checksum of the others."""
    wrong = []
    for start in range(0, len(content), PAGE_BYTES):
        *words, one, two = unpack("<1024I", content[start : start + PAGE_BYTES])
        sums = [0, 0]
        for even, odd in zip(words[::2], words[1::2], strict=True):
            sums[0] = (sums[0] + even + sums[1]) & 0xFFFFFFFF
            sums[1] = (sums[1] + odd + sums[0]) & 0xFFFFFFFF
        if sums != [one, two]:
            wrong.append(start // PAGE_BYTES + 1)
    return wrong


def test_a_copy_has_everything(store, tmp_path):
    """A copy has the log, the present, the deadlines, and what a search has indexed."""
    fill(store)
    assert store.search("hello", limit=1)
    copied = tmp_path / "copy.db"
    assert store.engine.position() == store.backup(copied)
    assert all_batches(store) == checked(copied)
    with evstore.open(copied, read_only=True) as copy:
        assert replay.fingerprint(store) == replay.fingerprint(copy)
        assert deadlines(store) == deadlines(copy)
        assert store.search("hello") == copy.search("hello")


def test_a_copy_goes_on_as_a_store_of_its_own(store, tmp_path):
    """What is written to a copy stays in it, and the other way round."""
    trip = fill(store)
    store.backup(tmp_path / "copy.db")
    trip.variables["where"] = "in the store"
    with evstore.open(tmp_path / "copy.db") as copy:
        copy.session("trip").variables["where"] = "in the copy"
    assert "in the store" == trip.variables["where"]
    checked(tmp_path / "copy.db")


def test_a_read_only_handle_can_copy(store, path, tmp_path):
    """Whoever may read a store may copy it, as a whole or up to a moment."""
    fill(store)
    with evstore.open(path, read_only=True) as reader:
        reader.backup(tmp_path / "whole.db")
        reader.backup(tmp_path / "part.db", at=7)
    assert all_batches(store) == checked(tmp_path / "whole.db")
    assert 7 == len(checked(tmp_path / "part.db"))


@contextmanager
def writers(path: Path, count: int) -> Iterator[list[Writer]]:
    """Processes that write to a store all the while."""
    running = [Writer(path, f"writer {number}", number) for number in range(count)]
    try:
        for writer in running:
            writer.listen()
        yield running
    finally:
        for writer in running:
            writer.kill()


def test_writers_go_on_and_the_copying_never_begins_again(store, path, tmp_path, monkeypatch):
    """However much others commit between the steps, each step is nearer to the end.

    Pages that are in the write-ahead log only get their checksums in the copy.
    """
    monkeypatch.setattr(backup, "PAGES", 8)
    for _ in range(10):
        fill(store)
        store.delete("trip")
        store.delete("what-if")
    done: list[int] = []
    written: list[int] = []

    def look(pages: int, total: int) -> None:
        assert pages <= total
        done.append(pages)
        written.append(store.engine.position())
        while store.engine.position() == written[-1]:  # until somebody has written more
            store.engine.wait(written[-1], 1, lambda: False)

    with writers(path, 2):
        before = store.engine.position()
        position = store.backup(tmp_path / "copy.db", progress=look)
    assert all(some < more for some, more in pairwise(done))
    assert before <= position <= written[0]
    assert all(some < more for some, more in pairwise(written))
    assert all_batches(store)[:position] == checked(tmp_path / "copy.db")


def test_a_copy_of_each_moment_is_the_log_up_to_there(store, tmp_path):
    """At each position, the copy is what the store was then, links and all."""
    fill(store)
    whole = all_batches(store)
    for position in (0, 1, 2, 45, len(whole) - 4, len(whole)):
        copied = tmp_path / f"{position}.db"
        assert position == store.backup(copied, at=position)
        assert whole[:position] == checked(copied)
    with evstore.open(tmp_path / f"{len(whole) - 4}.db") as copy:
        assert "gone" not in copy
        assert {"trip": None, "what-if": None} == deadlines(copy)
    with evstore.open(tmp_path / f"{len(whole)}.db") as copy:
        assert deadlines(store) == deadlines(copy)


@pytest.mark.parametrize("swept", [False, True])
def test_a_session_that_has_expired_since_lives_in_the_past(tmp_path, swept):
    """A copy of a moment has what lived then, whatever has expired since, swept or not."""
    clock = [datetime(2024, 1, 1, tzinfo=UTC)]
    for path in (tmp_path / "store.db", ":memory:"):
        with evstore.open(path, clock=lambda: clock[0]) as store:
            store.session("brief", ttl=10).variables["x"] = 1
            store.session("long", ttl=100).variables["x"] = 1
            clock[0] += timedelta(seconds=20)
            past, now = (tmp_path / f"{store.engine.path[-8:]} {at}.db" for at in ("past", "now"))
            if swept:
                assert 1 == store.sweep()
            store.backup(past, at=2)
            store.backup(now)
            with evstore.open(past, clock=lambda: clock[0]) as copy:
                assert {"brief": None, **deadlines(store)} == deadlines(copy)
            with evstore.open(now, clock=lambda: clock[0]) as copy:
                assert deadlines(store) == deadlines(copy)
                assert "brief" not in copy


def test_a_life_that_was_over_has_no_deadline(store, tmp_path):
    """A session that was deleted at that moment is over in the copy, whatever it is today."""
    session = store.session("back")
    session.variables["x"] = 1
    uid = session.uid or ""
    store.delete("back")
    at = store.engine.position()
    store.restore(uid)
    store.session("back", ttl=3600).touch()
    store.backup(tmp_path / "copy.db", at=at)
    with evstore.open(tmp_path / "copy.db") as copy:
        assert "back" not in copy
        life, is_over = copy.engine.find_uid(bytes.fromhex(uid))
        assert is_over
        assert life is not None
        assert copy.engine.lease(life) is None


@settings(max_examples=30)
@given(HISTORIES, st.floats(0, 1))
def test_any_history_can_be_copied_up_to_any_moment(tmp_path_factory, history, share):
    """A copy of random sessions and forks up to a position verifies, and has the lines up to it."""
    copied = tmp_path_factory.mktemp("copies") / "copy.db"
    with evstore.open(":memory:") as store:
        live_through(store, history)
        until = int(share * store.engine.position())
        assert until == store.backup(copied, at=until)
        assert all_batches(store)[:until] == checked(copied)


def test_a_time_means_all_that_was_recorded_by_then(path, tmp_path):
    """A datetime stands for the log before its first batch that is later."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with evstore.open(path, durability="normal", clock=lambda: now) as store:
        session = store.session("s")
        for number in range(5):
            session.variables["n"] = number
            now += timedelta(hours=1)
        for hours, expected in ((-1, 0), (0, 1), (2.5, 3), (100, 5)):
            at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
            assert expected == store.backup(tmp_path / f"{expected}.db", at=at)


def test_what_was_imported_later_is_not_in_an_earlier_copy(path, tmp_path):
    """Old conversations that came in later count from when they came, not from when they were."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with (
        evstore.open(":memory:", clock=lambda: now - timedelta(days=300)) as other,
        evstore.open(path, durability="normal", clock=lambda: now) as store,
    ):
        other.session("old").variables["x"] = 1
        store.session("s").variables["n"] = 1
        now += timedelta(hours=2)
        store.session("s").variables["n"] = 2
        import_lines(store, export_lines(other))
        assert 1 == store.backup(tmp_path / "1.db", at=now - timedelta(hours=1))
        assert 3 == store.backup(tmp_path / "2.db", at=now)


@pytest.mark.parametrize("at", [-1, 6, True, 2.0, "label", datetime(2026, 1, 1)])  # noqa: DTZ001
def test_a_moment_that_is_not_there_is_refused(store, tmp_path, at):
    """What is no position and no aware datetime is Refused, and nothing is made."""
    for number in range(5):
        store.session("s").variables["n"] = number
    with pytest.raises(Refused, match=r"give a position from 0 to 5|naive"):
        store.backup(tmp_path / "copy.db", at=at)
    assert not (tmp_path / "copy.db").exists()


def test_a_store_in_memory_can_be_kept(memory, tmp_path):
    """A store without a file becomes one, with everything."""
    fill(memory)
    memory.backup(tmp_path / "copy.db")
    assert all_batches(memory) == checked(tmp_path / "copy.db")
    with evstore.open(tmp_path / "copy.db") as copy:
        assert deadlines(memory) == deadlines(copy)


# Nothing half.


def test_an_existing_file_is_left_alone(store, path, tmp_path):
    """What has the name already, be it a file, a folder, a link or the store itself, stays."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked").symlink_to("nowhere-else")
    (tmp_path / "nowhere-else").write_text("theirs")
    before = sorted(os.listdir(tmp_path))
    for name in ("file", "folder", "linked", path.name):
        with pytest.raises((Refused, Unavailable)):
            store.backup(tmp_path / name)
    assert "mine" == (tmp_path / "file").read_text()
    assert before == sorted(os.listdir(tmp_path))


def test_who_comes_first_has_the_name(store, tmp_path):
    """A file that appears while the copy is made is left alone, and the copy is dropped."""
    fill(store)
    copied = tmp_path / "copy.db"
    with pytest.raises(Refused, match="is there already"):
        store.backup(copied, progress=lambda *_: copied.write_text("mine") and None)
    assert "mine" == copied.read_text()
    assert [] == list(tmp_path.glob(".backup*"))


@pytest.mark.parametrize("at", [None, 50])
def test_an_interrupted_backup_leaves_nothing(store, tmp_path, at):
    """Whoever stops it in the midst finds no file, and the store as it was."""
    fill(store)
    before = sorted(os.listdir(tmp_path))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.backup(tmp_path / "copy.db", at=at, progress=stop)
    assert before == sorted(os.listdir(tmp_path))
    assert store.engine.position() == store.backup(tmp_path / "copy.db")


def test_a_folder_that_is_not_there_is_told(store, tmp_path):
    """Where there is no folder the backup is Unavailable."""
    with pytest.raises(Unavailable, match="does not exist"):
        store.backup(tmp_path / "nowhere" / "copy.db")


def test_a_disk_that_fails_at_the_end_leaves_nothing(store, tmp_path, monkeypatch):
    """A copy that cannot be synced does not get its name."""
    fill(store)

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unavailable, match=r"copy.db.*check the disk"):
        store.backup(tmp_path / "copy.db", at=0)
    assert {"agents.db"} == {name.partition("-")[0] for name in os.listdir(tmp_path)}


def test_a_full_disk_is_told_by_the_name_of_the_copy(store, tmp_path):
    """Where there is no room for the copy, that is Unavailable, and the store goes on."""
    trip = fill(store)
    for _ in range(10):
        trip.messages.append({"role": "user", "content": os.urandom(90_000).hex()})
    with small_disk(tmp_path / "small"):
        with pytest.raises(Unavailable, match=r"small/copy.db.*full"):
            store.backup(tmp_path / "small" / "copy.db")
        assert [] == os.listdir(tmp_path / "small")
    trip.variables["goes"] = "on"


def test_a_damaged_store_has_no_backup(path, tmp_path):
    """A page that cannot be read, or a log with a gap, is Corrupt, and there is no copy."""
    with evstore.open(path) as store:
        fill(store)
    content = bytearray(path.read_bytes())
    content[-PAGE_BYTES * 3 + 100] ^= 1
    path.write_bytes(content)
    with evstore.open(path) as store, pytest.raises(Corrupt):
        store.backup(tmp_path / "copy.db")
    assert [path.name] == [name for name in os.listdir(tmp_path) if "-" not in name]


def test_a_store_without_checksums_is_copied_as_it_is(path, tmp_path, monkeypatch):
    """A file that was created where pages could have none has a copy without them."""
    monkeypatch.setattr("evstore.sqlite.connect.CHECKSUM_BYTES", 0)
    with evstore.open(path) as store:
        fill(store)
        store.backup(tmp_path / "copy.db")
        whole = all_batches(store)
    with evstore.open(tmp_path / "copy.db") as copy:
        assert whole == all_batches(copy)
        assert [] == list(replay.verify(copy, level="full"))


@pytest.mark.parametrize("at", [None, 2, 12])
@pytest.mark.parametrize("missing", [2, 10])
def test_a_log_with_a_gap_has_no_backup(store, tmp_path, at, missing):
    """Where a batch is missing no copy is made of what is left, also if no link tells of it."""
    for name in ("a", "alone", "b"):
        store.session(name).variables["x"] = 1
    if at == 2 < missing:
        pytest.skip("what is missing comes later")
    fill(store)
    with store.engine.database.writing("normal") as cursor:
        triggers = cursor.execute("select name, sql from sqlite_schema where type='trigger'")
        definitions = triggers.fetchall()
        for name, _ in definitions:
            cursor.execute(f"drop trigger {name}")
        cursor.execute("delete from batch where position = ?", (missing,))
        for _, definition in definitions:
            cursor.execute(definition)
    with pytest.raises(Corrupt):
        store.backup(tmp_path / "copy.db", at=at)
    assert not (tmp_path / "copy.db").exists()


BACKING_UP = """
import sys, evstore
store = evstore.open(sys.argv[1])
print("ready", flush=True)
for number in range(10_000):
    store.backup(f"{sys.argv[2]}/{number}.db", at=None if number % 2 else 60)
"""


def test_a_killed_backup_leaves_no_half_file_under_a_name(store, path, tmp_path):
    """After SIGKILL at any moment, every file that has its name is whole."""
    fill(store)
    whole, chance = all_batches(store), random.Random(1)
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", BACKING_UP, str(path), str(folder)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert b"ready\n" == child.stdout.readline()
            time.sleep(chance.uniform(0, 0.15))
            child.send_signal(signal.SIGKILL)
        for copied in folder.glob("[0-9]*.db"):
            batches = checked(copied)
            assert whole[: len(batches)] == batches
            assert len(batches) in (60, len(whole))


# Awaited.


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_a_task_can_make_a_backup(loop: EventLoop, path, tmp_path):
    """`await store.backup()` copies and tells how far it came, as the plain call does."""
    with evstore.open(path) as plain:
        fill(plain)
        whole = all_batches(plain)
    told: list[tuple[int, int]] = []

    async def main() -> None:
        async with aio.open(path) as store:
            copied = tmp_path / "copy.db"
            assert len(whole) == await store.backup(copied, progress=lambda *far: told.append(far))
            assert 3 == await store.backup(tmp_path / "part.db", at=3)

    loop.run(main)
    assert whole == checked(tmp_path / "copy.db")
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_a_cancelled_backup_stops(loop: EventLoop, path, tmp_path):
    """A task that is cancelled in the midst leaves no file, and the store goes on."""
    with evstore.open(path) as plain:
        fill(plain)
    steps: list[int] = []
    cancelled = threading.Event()

    def slow(done: int, total: int) -> None:
        steps.append(done)
        cancelled.wait(30)

    async def main() -> None:
        async with aio.open(path) as store:

            async def copy() -> None:
                await store.backup(tmp_path / "copy.db", at=80, progress=slow)

            async def cancel() -> None:
                while not steps:  # It may be cancelled before it has begun.
                    assert not await loop.within(0.05, copy)

            async def let_go() -> None:
                while not steps:
                    await loop.sleep(0.01)
                await loop.sleep(0.1)  # until after the cancellation, which came first
                cancelled.set()

            assert [None, None] == await loop.together(cancel, let_go)
            await (await store.session("trip")).variables.set("goes", "on")

    loop.run(main)
    assert len(steps) == 1
    assert ["agents.db"] == os.listdir(tmp_path)
