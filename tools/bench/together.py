"""Many at once: how much threads and tasks append together, and what becomes of each message."""

import asyncio
import gc
import random
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import evstore
from evstore import aio
from evstore.errors import Conflict, NotStorable
from tools.bench import groups
from tools.bench.bench import MESSAGE, Bench
from tools.bench.by_hand import Rows
from tools.bench.measured import Spread, Work, quantile, spread
from tools.bench.targets import Figure, Point

THREADS = 64
TASKS = 1000
SESSIONS = 8
FAILING_SHARE = 0.1


def threads(bench: Bench) -> Iterator[Figure | Point]:
    """Measure threads that append durably against one caller, in turns."""
    with (
        evstore.open(bench.folder / "threads.db") as store,
        closing(Rows(bench.folder / "threads-rows.db", "full", MESSAGE)) as rows,
    ):
        one = _appending(store.session("one"))
        many = [_appending(store.session(f"session-{number}")) for number in range(THREADS)]
        by_hand = groups.Threads(rows)
        races: dict[str, Sequence[Work]] = {
            "threads_rows_one": [partial(by_hand.append, 1)] * THREADS,
            "threads_rows_many": [partial(by_hand.append, 2 + n) for n in range(THREADS)],
            "threads_one": [one] * THREADS,
            "threads_many": many,
        }
        ratios: dict[str, list[float]] = {name: [] for name in races}
        for turn in range(_turns(bench) + 1):
            alone = _race([one], _turn_s(bench))
            for name, works in races.items():
                rate = _race(works, _turn_s(bench))
                if turn:  # the first turn warms up
                    ratios[name].append(rate / alone)
    for name, found in ratios.items():
        yield Figure(name, spread(found))


def _appending(session: evstore.Session) -> Work:
    return lambda: session.messages.append(MESSAGE)


def _turns(bench: Bench) -> int:
    return min(5, bench.rounds)


def _turn_s(bench: Bench) -> float:
    return bench.seconds(0.5)


def _race(works: Sequence[Work], duration_s: float) -> float:
    """Return how often a second the works are done, each by a thread of its own."""
    counts: list[int] = []
    barrier = threading.Barrier(len(works) + 1)

    def run(work: Work) -> None:
        barrier.wait()
        end, count = time.perf_counter() + duration_s, 0
        while time.perf_counter() < end:
            work()
            count += 1
        counts.append(count)

    runners = [threading.Thread(target=run, args=(work,)) for work in works]
    for runner in runners:
        runner.start()
    barrier.wait()
    start = time.perf_counter()
    for runner in runners:
        runner.join()
    return sum(counts) / (time.perf_counter() - start)


def tasks(bench: Bench) -> Iterator[Figure | Point]:
    """Measure tasks that append durably against one caller, in turns."""
    path, count = bench.folder / "tasks.db", bench.sized(TASKS, 10)
    on_one, on_many, late_ms, latest_ms = [], [], [], []
    floors: list[list[float]] = [[], []]
    rows = Rows(bench.folder / "tasks-rows.db", "full", MESSAGE)
    for turn in range(_turns(bench) + 1):
        with evstore.open(path) as store:
            alone = _race([_appending(store.session("one"))], _turn_s(bench))
        together, _ = asyncio.run(_race_tasks(path, ["one"] * count, _turn_s(bench)))
        ids = [f"session-{number}" for number in range(count)]
        apart, lags_ms = asyncio.run(_race_tasks(path, ids, _turn_s(bench)))
        with _no_garbage_collected():
            _, own_lags_ms = asyncio.run(_race_tasks(path, ids, _turn_s(bench)))
        sessions = [1] * count, range(2, count + 2)
        by_hand = [asyncio.run(_race_rows(rows, each, _turn_s(bench))) for each in sessions]
        if turn:
            for floor, rate in zip(floors, by_hand, strict=True):
                floor.append(rate / alone)
            on_one.append(together / alone)
            on_many.append(apart / alone)
            late_ms.append(quantile(lags_ms, 0.99))
            latest_ms.append(max(own_lags_ms))
    rows.close()
    yield Figure("tasks_rows_one", spread(floors[0]), count)
    yield Figure("tasks_rows_many", spread(floors[1]), count)
    yield Figure("tasks_one", spread(on_one), count)
    yield Figure("tasks_many", spread(on_many), count)
    yield Figure("tasks_lag", spread(late_ms), count)
    yield Figure("tasks_lag_own", spread(latest_ms), count)


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Keep Python's collector from stopping all threads while it looks at whatever there is."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def _race_tasks(path: Path, ids: list[str], duration_s: float) -> tuple[float, list[float]]:
    """Return how many appends a second the tasks make, and how late the loop was, in order."""
    async with aio.open(path) as store:
        sessions = [await store.session(each) for each in ids]
        beating = asyncio.create_task(_lags_ms(duration_s))
        steps = [partial(_append, session) for session in sessions]
        return await _race_steps(steps, duration_s), await beating


async def _append(session: aio.Session) -> None:
    await session.messages.append(MESSAGE)


async def _race_rows(rows: Rows, sessions: Sequence[int], duration_s: float) -> float:
    """Return how many appends a second tasks make that only share commits of rows."""
    by_hand = groups.Tasks(rows)
    return await _race_steps([partial(by_hand.append, each) for each in sessions], duration_s)


async def _race_steps(steps: Sequence[Callable[[], Awaitable[None]]], duration_s: float) -> float:
    """Return how often a second the steps are awaited, each by a task of its own."""
    start = time.perf_counter()

    async def run(step: Callable[[], Awaitable[None]]) -> int:
        count = 0
        while time.perf_counter() < start + duration_s:
            await step()
            count += 1
        return count

    counts = await asyncio.gather(*map(run, steps))
    return sum(counts) / (time.perf_counter() - start)


async def _lags_ms(duration_s: float) -> list[float]:
    """Return how much later than asked for a task goes on, each time, the least first.

    It begins when the tasks have been made, for which their loop is busy once, with no append.
    """
    lags_ms, end = [], time.perf_counter() + duration_s
    await asyncio.sleep(duration_s / 10)
    while (before := time.perf_counter()) < end:
        await asyncio.sleep(0.001)
        lags_ms.append(1e3 * (time.perf_counter() - before) - 1)
    return sorted(lags_ms)


class Member:
    """One of many that append their numbered messages, and now and then fail at it.

    What fails must not be recorded; what was acknowledged has to be there once, in its order.
    """

    def __init__(self, number: int, session: Any) -> None:
        self.number = number
        self.session = session
        self.acknowledged = 0
        self.waits_us: list[float] = []
        self._chance = random.Random(number)

    def message(self, number: int) -> dict[str, Any]:
        """Return a message that says whose it is and which."""
        return {"role": "user", "content": "", "member": self.number, "number": number}

    def is_to_fail(self) -> bool:
        """Whether the next step is one that fails."""
        return self._chance.random() < FAILING_SHARE

    def failing(self) -> tuple[Any, ...]:
        """Return a step that fails: at the door, or under the lock amid others."""
        bad = {"role": "user", "content": object(), "member": self.number, "number": -1}
        if self._chance.random() < 0.5:
            return self.session.messages.append, (bad,), {}
        return self.session.variables.set, ("taken", self.number), {"expect": 1 << 30}

    def append(self, duration_s: float) -> None:
        """Append until the time is over."""
        end = time.perf_counter() + duration_s
        while (start := time.perf_counter()) < end:
            if self.is_to_fail():
                function, arguments, named = self.failing()
                try:
                    function(*arguments, **named)
                except (Conflict, NotStorable):
                    continue
            self.session.messages.append(self.message(self.acknowledged))
            self.saw(start)

    async def append_awaited(self, duration_s: float) -> None:
        """Append until the time is over, awaiting each step."""
        end = time.perf_counter() + duration_s
        while (start := time.perf_counter()) < end:
            if self.is_to_fail():
                function, arguments, named = self.failing()
                try:
                    await function(*arguments, **named)
                except (Conflict, NotStorable):
                    continue
            await self.session.messages.append(self.message(self.acknowledged))
            self.saw(start)

    def saw(self, start: float) -> None:
        """Count a message that was acknowledged."""
        self.acknowledged += 1
        self.waits_us.append((time.perf_counter() - start) * 1e6)


def endurance(bench: Bench) -> Iterator[Figure | Point]:
    """Let many append for ten seconds, and then look whether all is as it was acknowledged."""
    duration_s, path = bench.seconds(10), bench.folder / "endurance-threads.db"
    with evstore.open(path) as store:
        sessions = [store.session(f"session-{number}") for number in range(SESSIONS)]
        members = [Member(number, sessions[number % SESSIONS]) for number in range(THREADS)]
        runners = [threading.Thread(target=each.append, args=(duration_s,)) for each in members]
        for runner in runners:
            runner.start()
        for runner in runners:
            runner.join()
        yield from _judged(store, members, "threads")
    path = bench.folder / "endurance-tasks.db"
    members = asyncio.run(_endure(path, bench.sized(TASKS, 10), duration_s))
    with evstore.open(path) as store:
        yield from _judged(store, members, "tasks")


async def _endure(path: Path, count: int, duration_s: float) -> list[Member]:
    async with aio.open(path) as store:
        sessions = [await store.session(f"session-{number}") for number in range(SESSIONS)]
        members = [Member(number, sessions[number % SESSIONS]) for number in range(count)]
        await asyncio.gather(*(each.append_awaited(duration_s) for each in members))
        return members


def _judged(store: evstore.Store, members: list[Member], who: str) -> Iterator[Figure]:
    wrong = float(count_wrong(store, members))
    yield Figure(f"{who}_wrong", Spread(wrong, wrong, wrong))
    waits = sorted(wait for member in members for wait in member.waits_us)
    ratio = quantile(waits, 0.999) / quantile(waits, 0.5)
    yield Figure(f"{who}_wait", Spread(ratio, ratio, ratio))


def count_wrong(store: evstore.Store, members: Sequence[Member]) -> int:
    """Return how many messages are not where their members were told they are."""
    found: dict[int, list[int]] = defaultdict(list)
    for number in range(SESSIONS):
        for message in store.session(f"session-{number}").messages:
            found[message["member"]].append(message["number"])
    wrong = 0
    for member in members:
        expected, numbers = list(range(member.acknowledged)), found.pop(member.number, [])
        wrong += sum(a != b for a, b in zip(expected, numbers, strict=False))
        wrong += abs(len(expected) - len(numbers))
    return wrong + sum(map(len, found.values()))
