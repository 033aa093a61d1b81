"""A watch of tasks shows every event once and in order, without a thread for each of them."""

import subprocess
import sys
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore import aio
from evstore import watch as plain_watch
from evstore.errors import Closed, Refused
from evstore.watch import PAGE_EVENTS
from tests.event_loops import LOOPS, EventLoop

USER = {"role": "user"}


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.name)
def loop(request) -> EventLoop:
    """Each of the event loops in turn."""
    found: EventLoop = request.param
    return found


async def read(watch: aio.Watch, count: int) -> list[evstore.Event]:
    """So many events of a watch."""
    return [await anext(watch) for _ in range(count)]


def test_a_watch_shows_what_comes(loop, path: Path):
    """Every event comes once and in order, from the call on, or from any place on."""

    async def main() -> None:
        async with aio.open(path, durability="normal") as store:
            trip, other = await store.session("trip"), await store.session("other")
            await trip.variables.set("a", 1)
            now, own, whole = store.watch(), trip.watch(), store.watch(after=0)
            count = 2 * PAGE_EVENTS + 10

            async def write() -> None:
                await other.messages.append(USER)
                for _ in range(count // 10):
                    await trip.messages.extend([USER] * 10)

            new, mine, all_of_it, _ = await loop.together(
                partial(read, now, count + 1 - count % 10),
                partial(read, own, count - count % 10),
                partial(read, whole, count + 2 - count % 10),
                write,
            )
            assert all_of_it[1:] == new
            assert [event for event in new if event.session == "trip"] == mine
            places = [(event.position, event.seq) for event in all_of_it]
            assert all(before < after for before, after in pairwise(places))
            assert mine[7:] == await read(trip.watch(after=mine[6]), len(mine) - 7)
            with pytest.raises(Refused):
                store.watch(after=-1)

    loop.run(main)


def test_a_watch_sees_other_processes(loop, path: Path):
    """What another process records arrives, soon after."""
    program = (
        "import evstore, sys, time\n"
        "with evstore.open(sys.argv[1]) as store:\n"
        "    for number in range(20):\n"
        "        store.session('trip').variables['n'] = number\n"
        "        time.sleep(0.01)\n"
    )

    async def main() -> None:
        async with aio.open(path) as store:
            command = [sys.executable, "-c", program, str(path)]
            async with store.watch() as watch:
                child = subprocess.Popen(command)  # noqa: ASYNC220 - it is not waited for here
                events = await read(watch, 20)
            assert list(range(20)) == [event.data["value"] for event in events]
            child.wait(10)

    loop.run(main)


def test_many_watches_share_one_poller(loop, path: Path):
    """A hundred tasks that watch cost no thread each, and each of them sees all."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            watches = [store.watch() for _ in range(100)]

            async def write() -> None:
                poller = store.plain.engine.database.poller
                while len(poller._listening) < 100:
                    await loop.sleep(0.001)
                names = [thread.name for thread in threading.enumerate()]
                assert 1 == names.count("evstore-poller")
                assert 8 > len([name for name in names if name.startswith("evstore")])
                await trip.messages.extend([USER] * 3)

            *seen, failed = await loop.together(
                *(partial(read, each, 3) for each in watches), write
            )
            assert failed is None
            assert [[1, 2, 3]] * 100 == [[event.seq for event in events] for events in seen]

    loop.run(main)


def test_a_step_that_is_cancelled_takes_no_event(loop, path: Path):
    """Who gives up waiting leaves nothing behind, and sees all that comes when it waits again."""

    async def main() -> None:
        async with aio.open(path, durability="normal") as store:
            trip = await store.session("trip")
            seen: list[int] = []
            poller = store.plain.engine.database.poller

            async def follow() -> None:
                async with trip.watch() as watch:
                    while len(seen) < 200:
                        await loop.within(0.0005, partial(step, watch))

            async def step(watch: aio.Watch) -> None:
                seen.append((await anext(watch)).seq)

            async def write() -> None:
                for _ in range(50):
                    await trip.messages.extend([USER] * 4)
                    await loop.sleep(0.001)

            assert [None, None] == await loop.together(follow, write)
            assert list(range(1, 201)) == seen
            assert not await loop.within(0.05, partial(anext, store.watch()))
            assert {} == poller._listening

    loop.run(main)


def test_tasks_share_a_watch(loop, path: Path):
    """Tasks that read from one watch get each event once, between them."""

    async def main() -> None:
        async with aio.open(path, durability="normal") as store:
            trip = await store.session("trip")
            await trip.messages.extend([USER] * 600)
            watch, seen = store.watch(after=0), list[int]()

            async def follow() -> None:
                async for event in watch:
                    seen.append(event.seq)
                    await loop.sleep(0)
                    if len(seen) >= 700:
                        watch.close()

            async def write() -> None:
                await trip.messages.extend([USER] * 100)

            assert [None] * 6 == await loop.together(*[follow] * 5, write)
            assert list(range(1, 701)) == sorted(seen)
            one_each = store.watch(after=0)
            found = await loop.together(*[partial(anext, one_each)] * (PAGE_EVENTS + 44))
            assert list(range(1, PAGE_EVENTS + 45)) == sorted(event.seq for event in found)

    loop.run(main)


def test_a_watch_ends(loop, path: Path):
    """Closed, a watch ends the iteration of whoever waits; a store that closes is Closed to it."""

    async def main() -> None:
        async with aio.open(path) as store:
            own, other = store.watch(), store.watch()

            async def follow(watch: aio.Watch) -> list[Any]:
                return [event async for event in watch]

            async def close() -> None:
                await loop.sleep(0.05)
                own.close()
                await store.close()

            started_s = time.monotonic()
            ended, failed, _ = await loop.together(
                partial(follow, own), partial(follow, other), close
            )
            assert [] == ended
            assert isinstance(failed, Closed)
            assert 5 > time.monotonic() - started_s

    loop.run(main)


def test_a_watch_that_is_closed_while_it_looks_ends(loop, path: Path, monkeypatch):
    """Closed while a step is reading, a watch ends that step too, though nothing is recorded."""
    looking, closed = threading.Event(), threading.Event()
    real = plain_watch.Watch.page

    def page(self: Any) -> plain_watch.Page:
        looking.set()
        assert closed.wait(5)
        return real(self)

    monkeypatch.setattr(plain_watch.Watch, "page", page)

    async def main() -> None:
        async with aio.open(path) as store:
            watch = store.watch()

            async def follow() -> None:
                assert [] == [event async for event in watch]

            async def close() -> None:
                while not looking.is_set():
                    await loop.sleep(0.001)
                watch.close()
                closed.set()

            assert [True, None] == await loop.together(partial(loop.within, 2, follow), close)

    loop.run(main)
