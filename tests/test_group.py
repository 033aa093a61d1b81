"""Group commit: callers at the same time share a commit, and each has its own outcome."""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import apsw
import pytest

import evstore
from evstore import replay
from evstore.errors import Busy, Closed, Conflict, TooMany, Unavailable
from evstore.sqlite import database as database_module


def at_once(count: int, act: Any) -> list[Any]:
    """Let threads act at the same time; return what each returned, or the error that it raised."""
    outcomes: list[Any] = [None] * count
    begin = threading.Barrier(count)

    def run(number: int) -> None:
        begin.wait()
        try:
            outcomes[number] = act(number)
        except Exception as error:  # noqa: BLE001 - it is what came of it
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return outcomes


@pytest.mark.parametrize("sessions", [1, 16])
def test_threads_lose_double_and_reorder_nothing(store: evstore.Store, sessions: int):
    """Of 64 threads, some failing at random, all that returned is there once, and in order."""

    def act(number: int) -> list[int]:
        chance = random.Random(number)
        handle = store.session(f"s-{number % sessions}", actor=f"thread-{number}")
        kept = []
        for step in range(40):
            if chance.random() < 0.2:
                with pytest.raises(Conflict):
                    handle.variables.set("none", 1, expect=10**6)
            elif chance.random() < 0.1:
                with pytest.raises(KeyError):
                    del handle.variables["missing"]
            else:
                handle.messages.append({"role": "user", "step": step})
                kept.append(step)
        return kept

    kept = at_once(64, act)
    for number in range(sessions):
        said: dict[str, list[int]] = {}
        for event in store.session(f"s-{number}").events():
            said.setdefault(event.actor or "", []).append(event.data["message"]["step"])
        mine = range(number, 64, sessions)
        assert {f"thread-{index}": kept[index] for index in mine} == said
    assert [] == list(replay.verify(store, level="full"))


def test_callers_at_the_same_time_share_commits(path: Path, monkeypatch):
    """While one commit is on its way to the disk the others gather, and go together."""
    transactions = Counter[str]()
    real = database_module.Database._set_synchronous

    def counted(self: Any, cursor: Any, durability: Any) -> None:
        transactions[durability] += 1
        time.sleep(0.01)
        real(self, cursor, durability)

    monkeypatch.setattr(database_module.Database, "_set_synchronous", counted)
    with evstore.open(path) as store:
        at_once(32, lambda number: store.session(f"s-{number}").variables.update(a=1))
        assert 32 == len(list(store.sessions()))
    assert 1 <= transactions["full"] <= 8


def test_a_group_that_holds_a_full_commit_is_committed_full(path: Path, monkeypatch):
    """The strictest member says how durable the commit of all of them is."""
    asked: list[str] = []
    real = database_module.Database._set_synchronous

    def slow(self: Any, cursor: Any, durability: Any) -> None:
        asked.append(durability)
        time.sleep(0.05)
        real(self, cursor, durability)

    monkeypatch.setattr(database_module.Database, "_set_synchronous", slow)
    with evstore.open(path, durability="normal") as loose, evstore.open(path) as strict:
        stores = [loose] * 15 + [strict]
        at_once(16, lambda number: stores[number].session(f"s-{number}").variables.update(a=1))
        assert 16 == len(list(strict.sessions()))
    assert "full" in asked
    assert len(asked) < 16


@pytest.mark.parametrize("opened", ["full", "normal"])
@pytest.mark.parametrize("order", [("full", "normal"), ("normal", "full"), ("normal", "normal")])
def test_a_transaction_is_as_durable_as_its_strictest_handle(path: Path, opened, order):
    """The store of the transaction and the stores of all its sessions have a say, in any order."""
    with (
        evstore.open(path, durability="full") as full,
        evstore.open(path, durability="normal") as normal,
    ):
        stores = {"full": full, "normal": normal}
        with stores[opened].transaction() as both:
            for number, durability in enumerate(order):
                session = stores[durability].session(f"s-{number}")
                both.batch(session).variables["x"] = 1
        assert (
            "full" if "full" in (opened, *order) else "normal"
        ) == full.engine.database._synchronous


def test_members_fail_alone(path: Path):
    """A member that is refused takes back its own changes, also what it wrote before."""
    limits = evstore.Limits(variables_max=1)
    with evstore.open(path, limits=limits, durability="normal") as store:

        def act(number: int) -> None:
            with store.transaction() as both:
                both.batch(store.session(f"good-{number}")).variables["a"] = 1
                bad = both.batch(store.session(f"bad-{number}"))
                bad.variables.update(a=1, b=2) if number % 2 else bad.variables.update(a=1)

        outcomes = at_once(32, act)
        assert [TooMany if number % 2 else type(None) for number in range(32)] == [
            *map(type, outcomes)
        ]
        named = {f"{kind}-{number}" for number in range(0, 32, 2) for kind in ("good", "bad")}
        assert named == {info.id for info in store.sessions()}
        assert [] == list(replay.verify(store, level="full"))


def test_what_is_done_again_comes_to_what_that_comes_to(path: Path):
    """Where one fails that has changed rows, all are done again, and only that counts."""
    with evstore.open(path) as store:
        engine, told, tries = store.engine, SimpleQueue[Any](), list[int]()

        def wavering(_: Any) -> str:
            tries.append(1)
            if len(tries) == 1:
                raise KeyError("the first time")
            return "the second time"

        def failing(cursor: Any) -> None:
            bad = store.session("bad")
            engine.prepare([bad.drafted([bad.writer.add({"role": "user"})])])(cursor)
            raise ValueError("too late")

        members = [engine.member(work, "full", told.put) for work in (wavering, failing)]
        engine.group.submit(members)
        assert members == told.get(timeout=10)
        assert ("the second time", None) == (members[0].result, members[0].error)
        assert isinstance(members[1].error, ValueError)
        assert "bad" not in store


WRITES_ELSEWHERE = """
import sys, evstore
with evstore.open(sys.argv[1]) as store:
    store.session("shared").messages.append({"role": "user", "step": "elsewhere"})
"""


def test_others_may_write_before_a_group_is_done_again(path: Path):
    """What another process records while a group is taken back goes before the group, unharmed."""
    with evstore.open(path) as store:
        engine, told, shared = store.engine, SimpleQueue[Any](), store.session("shared")
        shared.messages.append({"role": "user", "step": "before"})
        connection = engine.database._writer.connection  # type: ignore[union-attr]
        head = shared.head

        def write_elsewhere() -> None:
            connection.set_rollback_hook(None)
            command = [sys.executable, "-c", WRITES_ELSEWHERE, str(path)]
            subprocess.run(command, check=True, timeout=60)

        def failing(cursor: Any) -> None:
            bad = store.session("bad")
            engine.prepare([bad.drafted([bad.writer.add({"role": "user"})])])(cursor)
            raise ValueError("too late")

        connection.set_rollback_hook(write_elsewhere)
        message = shared.writer.add({"role": "user", "step": "after"})
        works = (engine.prepare([shared.drafted([message])]), failing)
        members = [engine.member(work, "full", told.put) for work in works]
        engine.group.submit(members)
        assert members == told.get(timeout=60)
        assert head + 2 == members[0].result[0].first
        assert ["before", "elsewhere", "after"] == [each["step"] for each in shared.messages]
        assert "bad" not in store
        assert [] == list(replay.verify(store, level="full"))


def test_a_disk_that_fails_fails_the_group(path: Path, monkeypatch):
    """Where the commit fails, every member is told, and none of their changes is there."""
    store = evstore.open(path)
    store.session("before").variables["a"] = 1
    database = store.engine._shared

    def failing(self: Any, cursor: Any) -> None:
        self.give_up(cursor, apsw.IOError("the disk is gone"))

    monkeypatch.setattr(database.group, "_finish", failing.__get__(database))
    outcomes = at_once(16, lambda number: store.session(f"s-{number}").variables.update(a=1))
    assert {Unavailable} == {*map(type, outcomes)}
    store.close()
    with evstore.open(path) as again:
        assert ["before"] == [info.id for info in again.sessions()]


def test_who_waits_too_long_is_told_and_has_written_nothing(path: Path, monkeypatch):
    """Callers that wait behind another process are Busy after one deadline, all of them."""
    monkeypatch.setattr(database_module, "WAIT_S", 0.3)
    with evstore.open(path) as store:
        store.session("s").variables["a"] = 0
        other = apsw.Connection(str(path), vfs="cksmvfs")
        other.execute("begin immediate")
        started_s = time.monotonic()
        outcomes = at_once(8, lambda number: store.session("s").variables.update(a=number))
        assert {Busy} == {*map(type, outcomes)}
        assert 2 > time.monotonic() - started_s
        other.execute("rollback")
        other.close()
        assert 0 == store.session("s").variables["a"]
        store.session("s").variables["a"] = 1
        assert 1 == store.session("s").variables["a"]


def test_closing_ends_what_waits(path: Path):
    """Callers that come too late for a store that closes are told so; what returned is there."""
    store = evstore.open(path, durability="normal")

    def act(number: int) -> int:
        done = 0
        try:
            while True:
                store.session(f"s-{number}").messages.append({"role": "user"})
                done += 1
        except Closed:
            return done

    def close() -> None:
        time.sleep(0.2)
        store.close()

    closing = threading.Thread(target=close)
    closing.start()
    counts = at_once(8, act)
    closing.join()
    with evstore.open(path) as again:
        there = [len(again.session(f"s-{number}").messages) for number in range(8)]
    assert counts == there


def test_each_waits_for_another_process_as_long_as_it_may(path: Path):
    """Where a leader's time is up, those whom it took along go on waiting, and then are done."""
    with evstore.open(path) as store, ThreadPoolExecutor(3) as threads:
        database, group = store.engine.database, store.engine.group
        other = apsw.Connection(str(path)).cursor()
        other.execute("begin immediate")
        with database._lock:
            leader = threads.submit(group.commit, lambda _: "led", "full", 0.5)
            while group._leader is None:
                time.sleep(0.001)
            followers = [
                threads.submit(group.commit, lambda _: "done", "full", 30.0) for _ in range(2)
            ]
            while len(group._waiting) < 2:
                time.sleep(0.001)
        with pytest.raises(Busy) as told:
            leader.result(10)
        assert 500 <= told.value.waited_ms < 5000
        other.execute("rollback")
        assert ["done", "done"] == [follower.result(10) for follower in followers]
