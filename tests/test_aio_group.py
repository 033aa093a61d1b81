"""What tasks write goes into groups with all others, and what came of it is known to each."""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

import evstore
from evstore import aio, replay
from evstore.aio.hands import Hands
from evstore.aio.workers import Workers
from evstore.errors import Busy, Closed, Conflict, NotStorable
from evstore.sqlite import database as database_module
from evstore.sqlite.engine import Engine
from evstore.sqlite.group import Group
from tests.event_loops import LOOPS, EventLoop, Step
from tests.test_group import at_once


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.name)
def loop(request) -> EventLoop:
    """Each of the event loops in turn."""
    found: EventLoop = request.param
    return found


@contextmanager
def slowed(monkeypatch, pause_s: float) -> Iterator[Counter[str]]:
    """Commits that take some time longer; how many there were of each durability."""
    transactions = Counter[str]()
    real = database_module.Database._set_synchronous

    def slow(self: Any, cursor: Any, durability: Any) -> None:
        transactions[durability] += 1
        time.sleep(pause_s)
        real(self, cursor, durability)

    with monkeypatch.context() as patch:
        patch.setattr(database_module.Database, "_set_synchronous", slow)
        yield transactions


def test_tasks_lose_double_and_reorder_nothing(loop, path: Path):
    """Of 100 tasks, some failing at random, all that returned is there once, and in order."""
    sessions = 8

    async def act(store: aio.Store, number: int) -> list[int]:
        chance = random.Random(number)
        handle = await store.session(f"s-{number % sessions}", actor=f"task-{number}")
        kept = []
        for step in range(30):
            if chance.random() < 0.2:
                with pytest.raises(Conflict):
                    await handle.variables.set("none", 1, expect=10**6)
            elif chance.random() < 0.1:
                with pytest.raises(KeyError):
                    await handle.variables.delete("missing")
            elif chance.random() < 0.1:
                with pytest.raises(NotStorable):
                    await handle.messages.append({"role": "user", "content": object()})
            else:
                await handle.messages.append({"role": "user", "step": step})
                kept.append(step)
        return kept

    async def main() -> list[Any]:
        async with aio.open(path, durability="normal") as store:
            found = await loop.together(*(partial(act, store, number) for number in range(100)))
            return list(found)

    kept = loop.run(main)
    with evstore.open(path) as store:
        for number in range(sessions):
            said: dict[str, list[int]] = {}
            for event in store.session(f"s-{number}").events():
                said.setdefault(event.actor or "", []).append(event.data["message"]["step"])
            mine = range(number, 100, sessions)
            assert {f"task-{index}": kept[index] for index in mine} == said
        assert [] == list(replay.verify(store, level="full"))


def test_a_group_wakes_an_event_loop_once(loop, path: Path, monkeypatch):
    """However many tasks wait for a commit, their loop is told of all of them by one call."""
    calls = Counter[str]()
    real_lead, real_call = Group._lead, asyncio.BaseEventLoop.call_soon_threadsafe
    token = trio.lowlevel.TrioToken
    real_run = token.run_sync_soon

    def lead(self: Any, *members: Any) -> None:
        calls["groups"] += 1
        real_lead(self, *members)

    def call_soon(self: Any, function: Any, *arguments: Any, **named: Any) -> Any:
        if threading.current_thread().name == "evstore-group":
            calls["woken"] += 1
        return real_call(self, function, *arguments, **named)

    def run_soon(self: Any, function: Any, *arguments: Any, **named: Any) -> Any:
        if threading.current_thread().name == "evstore-group":
            calls["woken"] += 1
        return real_run(self, function, *arguments, **named)

    monkeypatch.setattr(Group, "_lead", lead)
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", call_soon)
    monkeypatch.setattr(token, "run_sync_soon", run_soon)

    async def main() -> None:
        async with aio.open(path) as one, aio.open(path) as other:
            handles = [await store.session(f"s-{n}") for store in (one, other) for n in range(100)]
            for _ in range(3):
                steps = [partial(handle.variables.set, "a", 1) for handle in handles]
                assert all(await loop.together(*steps))

    loop.run(main)
    assert calls["groups"] == calls["woken"]
    assert 3 <= calls["groups"] <= 30


def test_tasks_and_threads_share_groups(loop, path: Path, monkeypatch):
    """While a commit is on its way tasks and threads gather, and go together."""

    async def act(store: aio.Store, number: int) -> None:
        await (await store.session(f"task-{number}")).variables.set("a", number)

    async def main() -> None:
        async with aio.open(path) as store:
            await loop.together(*(partial(act, store, number) for number in range(100)))

    with evstore.open(path) as plain, slowed(monkeypatch, 0.05) as transactions:

        def run(number: int) -> None:
            if number:
                plain.session(f"thread-{number}").variables["a"] = number
            else:
                loop.run(main)

        assert [None] * 16 == at_once(16, run)
        assert 115 == len(list(plain.sessions()))
    assert 1 <= transactions["full"] <= 12


@pytest.mark.parametrize("stores", [1, 2])
def test_what_is_cancelled_is_known(loop, path: Path, stores: int):
    """When a cancelled task goes on, what it wrote is there for good, or will never be."""
    chance = random.Random(stores)
    known: dict[str, bool] = {}
    batches: dict[str, evstore.Batch] = {}

    async def act(session: aio.Session, who: int) -> None:
        for step in range(12):
            name = f"{who}-{step}"
            write: Step = partial(session.variables.set, name, "x" * chance.choice([1, 40_000]))
            if chance.random() < 0.3:
                write = partial(in_batch, session, name)
            ended = await loop.within(chance.choice([0, 0, 0.0005, 0.002, 0.01, 5]), write)
            there = name in session.plain.variables
            assert there or not ended
            known[name] = there
            if name in batches:
                assert there == bool(batches[name].events)

    async def in_batch(session: aio.Session, name: str) -> None:
        async with session.batch(expect=evstore.ANY) as batch:
            batches[name] = batch
            batch.variables[name] = 1

    def disturb() -> None:
        with evstore.open(path) as plain:
            while not over.is_set():
                plain.session("other").messages.append({"role": "user"})

    async def main() -> None:
        async with aio.open(path) as one, aio.open(path) as other:
            handles = [await store.session("trip") for store in (one, other)[:stores]]
            steps = [partial(act, handles[who % stores], who) for who in range(40)]
            assert [None] * 40 == await loop.together(*steps)

    over = threading.Event()
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        loop.run(main)
    finally:
        over.set()
        thread.join()
    with evstore.open(path) as store:
        variables = store.session("trip").variables
        assert known == {name: name in variables for name in known}
        assert {True, False} == set(known.values())
        names = [event.name for event in store.session("trip").events()]
        assert len(names) == len(set(names))
        assert [] == list(replay.verify(store, level="full"))


def test_a_task_that_waits_for_another_process_can_be_cancelled(loop, path: Path):
    """As long as nothing has begun, a cancelled task does not wait for the lock of the file."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.set("a", 0)
            other = apsw.Connection(str(path), vfs="cksmvfs")
            other.execute("begin immediate")
            started_s = time.monotonic()
            steps = [partial(trip.variables.set, "a", number) for number in range(1, 5)]
            cut = [partial(loop.within, 0.1, step) for step in steps]
            patient = partial(trip.variables.set, "b", 5)

            async def release() -> None:
                await loop.sleep(0.4)
                assert 5 > time.monotonic() - started_s
                other.execute("rollback")

            *outcomes, events, _ = await loop.together(*cut, patient, release)
            assert [False] * 4 == outcomes
            assert 2 == events[0].seq
            other.close()
            assert [("a", 0), ("b", 5)] == list(await trip.variables.items())

    loop.run(main)


def test_tasks_that_wait_too_long_are_told(loop, path: Path, monkeypatch):
    """Tasks that wait behind another process are Busy after one deadline, and wrote nothing."""
    monkeypatch.setattr(database_module, "WAIT_S", 0.3)

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.set("a", 0)
            other = apsw.Connection(str(path), vfs="cksmvfs")
            other.execute("begin immediate")
            started_s = time.monotonic()
            steps = [partial(trip.variables.set, "a", number) for number in range(1, 9)]
            assert {Busy} == {*map(type, await loop.together(*steps))}
            assert 3 > time.monotonic() - started_s
            other.execute("rollback")
            other.close()
            await trip.variables.set("b", 1)
            assert [("a", 0), ("b", 1)] == list(await trip.variables.items())

    loop.run(main)


def test_closing_ends_what_tasks_wait_for(loop, path: Path):
    """Tasks that come too late for a store that closes are told so; what returned is there."""

    async def main() -> list[Any]:
        async with aio.open(path, durability="normal") as store:

            async def act(number: int) -> int:
                session, done = await store.session(f"s-{number}"), 0
                with suppress(Closed):
                    while True:
                        await session.messages.append({"role": "user"})
                        done += 1
                return done

            async def close() -> None:
                await loop.sleep(0.1)
                await store.close()

            *counts, _ = await loop.together(*(partial(act, number) for number in range(8)), close)
            return list(counts)

    counts = loop.run(main)
    with evstore.open(path) as again:
        assert counts == [len(again.session(f"s-{number}").messages) for number in range(8)]


def test_where_no_thread_can_be_started_tasks_are_told(loop, path: Path, monkeypatch):
    """With too many threads in the process a step fails, is not done, and can be taken again."""

    def refuse(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        store = aio.Store(Hands(plain.engine, Workers(1)), plain)
        trip = await store.session("trip")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for step in (partial(trip.variables.set, "a", 1), partial(trip.label, "now")):
                with pytest.raises(RuntimeError):
                    await step()
            with pytest.raises(RuntimeError):
                await store.close()
        await trip.variables.set("a", 2)
        await store.flush()
        view = await trip.view()
        assert ({"a": 2}, {}) == (dict(view.variables), view.labels)
        await store.close()
        with pytest.raises(Closed):
            await trip.head()

    with evstore.open(path) as plain:
        loop.run(main)


def test_nobody_waits_in_the_event_loop(loop, path: Path, monkeypatch):
    """Where each commit takes 100 ms, and a read 50, the loop goes on as if there were none."""
    lags_s: list[float] = []
    real = Engine.moment

    def slow(self: Any, *arguments: Any) -> Any:
        time.sleep(0.05)
        return real(self, *arguments)

    monkeypatch.setattr(Engine, "moment", slow)

    async def act(session: aio.Session) -> None:
        for _ in range(6):
            await session.messages.append({"role": "user", "content": "x" * 2000})
            await session.messages.count()

    async def main() -> None:
        async with aio.open(path) as store:
            is_over = False

            async def beat() -> None:
                while not is_over:
                    before_s = time.perf_counter()
                    await loop.sleep(0.001)
                    lags_s.append(time.perf_counter() - before_s - 0.001)

            async def work() -> None:
                nonlocal is_over
                handles = [await store.session(f"s-{number}") for number in range(12)]
                assert [None] * 12 == await loop.together(*(partial(act, each) for each in handles))
                is_over = True

            await loop.together(beat, work)

    with slowed(monkeypatch, 0.1):
        loop.run(main)
    lags_s.sort()
    assert len(lags_s) > 100
    assert 0.005 > lags_s[len(lags_s) // 2]
    assert 0.4 > sum(lag_s for lag_s in lags_s if lag_s > 0.02)


def test_a_burst_of_tasks_leaves_the_event_loop_some_turns(loop, path: Path, monkeypatch):
    """Hundreds of tasks that write at once are served in turns, between which others go on."""
    turns: list[int] = [0]  # how many tasks prepared what they write, in each turn of the loop
    real = Engine.prepare

    def prepare(self: Any, drafts: Any) -> Any:
        turns[-1] += 1
        return real(self, drafts)

    monkeypatch.setattr(Engine, "prepare", prepare)

    async def main() -> None:
        async with aio.open(path, durability="normal") as store:
            handle = await store.session("trip")
            message = {"role": "user", "content": [{"n": n} for n in range(100)]}

            async def act() -> None:
                for _ in range(2):
                    await handle.messages.append(message)

            async def beat() -> None:
                while sum(turns) < 1600:
                    turns.append(0)
                    await loop.sleep(0)

            await loop.together(beat, *[act] * 800)

    loop.run(main)
    assert 1600 == sum(turns)
    assert 500 > max(turns)


def test_a_job_that_is_cancelled_is_not_begun_or_ends_first(loop):
    """Of work in threads, reading is abandoned, writing waited for, and finishing done at all."""
    done: list[str] = []

    async def main() -> None:
        workers = Workers(1)

        def work(name: str) -> str:
            time.sleep(0.1)
            done.append(name)
            return name

        async def cut(seconds: float, do: Any, name: str) -> float:
            started_s = time.monotonic()
            await loop.within(seconds, partial(do, partial(work, name)))
            return time.monotonic() - started_s

        async def behind(do: Any, name: str) -> None:
            await loop.sleep(0.03)
            await cut(0.01, do, name)

        assert "a" == await workers.read(partial(work, "a"))
        assert 0.09 > await cut(0.01, workers.read, "abandoned")
        assert 0.05 < await cut(0.15, workers.write, "begun")
        for do, name in ((workers.write, "withdrawn"), (workers.finish, "finished")):
            await loop.together(partial(cut, 1, workers.write, "before"), partial(behind, do, name))
        with pytest.raises(ZeroDivisionError):
            await workers.read(lambda: 1 // 0)
        workers.close()
        with pytest.raises(Closed):
            await workers.read(partial(work, "late"))

    loop.run(main)
    assert ["a", "abandoned", "begun", "before", "before", "finished"] == done


def test_an_event_loop_that_is_gone_harms_nobody(path: Path):
    """Where the loop of a task has ended before its commit, the commit and all others go on."""
    with evstore.open(path) as plain:
        session = plain.session("trip")
        trip = aio.Session(Hands(plain.engine, Workers(1)), session)
        gone = asyncio.new_event_loop()
        with plain.engine.database.writing("full"):
            task = gone.create_task(trip.variables.set("a", 1))
            gone.run_until_complete(asyncio.sleep(0.02))
            gone.close()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        session.variables["b"] = 2
        assert {"a": 1, "b": 2} == session.variables
