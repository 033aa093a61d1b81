"""What threads do for tasks: in their context, once, and known to whoever has to know of it."""

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore import aio, observing
from evstore.aio.hands import HERE_BYTES_MAX
from evstore.errors import Closed, ReadOnly, SessionNotFound
from evstore.sqlite.database import Database
from evstore.sqlite.group import Group
from evstore.sqlite.wal import Wal
from evstore.view import PAGE_EVENTS
from tests.event_loops import LOOPS, EventLoop

USER = {"role": "user"}
Errors = list[type[BaseException] | None]


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.name)
def loop(request) -> EventLoop:
    """Each of the event loops in turn."""
    found: EventLoop = request.param
    return found


class Observer:
    """Who is told of appends, and keeps what they failed with; it is its own Observed."""

    def __init__(self) -> None:
        self.errors: Errors = []

    def serialize(self, _direction: str, act: Callable[[], Any]) -> Any:
        return act()

    def read(self, _family: int, _name: object, find: Callable[[], Any]) -> Any:
        return find()

    def begin(self, _engine: Any, _drafts: Sequence[Any]) -> "Observer":
        return self

    def group(self, members: Sequence[Any]) -> None:
        pass

    def joining(self, work: Any) -> Any:
        return work

    def took_ns(self) -> int:
        return 0

    def end(self, _recorded: Any, error: BaseException | None, _took_ns: int) -> None:
        self.errors.append(None if error is None else type(error))


@pytest.fixture
def observer(monkeypatch) -> Observer:
    """An observer that is told of everything."""
    told = Observer()
    monkeypatch.setattr(observing, "observer", told)
    return told


def test_threads_see_the_context_of_the_task(loop, path: Path):
    """Functions that are called in another thread have the context variables of the task."""
    turn = ContextVar("turn", default="nobody's")
    seen: list[str] = []

    def see(*_: Any) -> Any:
        seen.append(turn.get())
        return 1

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.messages.append(USER)
            turn.set("mine")
            await trip.messages.tail(max_bytes=90, size=see)
            assert ["mine"] == seen
            await store.backup(path.with_name("copy.db"), at=1, progress=see)

    loop.run(main)
    assert {"mine"} == {*seen[1:]}


def test_a_thread_may_run_event_loops_in_turn(path: Path):
    """A step goes on in its own event loop, whichever one ran in that thread meanwhile."""
    with closing(asyncio.new_event_loop()) as one, closing(asyncio.new_event_loop()) as two:
        opening = aio.open(path)
        store = one.run_until_complete(opening.__aenter__())
        trip = one.run_until_complete(store.session("trip"))
        write = one.create_task(trip.variables.set("large", "x" * HERE_BYTES_MAX))
        one.run_until_complete(asyncio.sleep(0))  # It has begun.
        two.run_until_complete(trip.head())
        ended, _ = one.run_until_complete(asyncio.wait([write], timeout=5))
        assert {write} == ended
        one.run_until_complete(opening.__aexit__(None, None, None))


@pytest.mark.parametrize("is_observed", [False, True])
def test_a_step_that_is_cancelled_too_late_binds_its_handle(
    path: Path, monkeypatch, request, *, is_observed: bool
):
    """A handle whose first step was recorded belongs to that life, cancelled or not."""
    committed, cancelled = threading.Event(), threading.Event()
    real_care, real_withdraw = Wal.care, Group.withdraw

    def care(self: Any, *, durable: bool) -> None:
        committed.set()
        cancelled.wait(5)
        real_care(self, durable=durable)

    def withdraw(self: Any, member: Any) -> bool:
        cancelled.set()
        return real_withdraw(self, member)

    monkeypatch.setattr(Group, "withdraw", withdraw)
    if is_observed:
        request.getfixturevalue("observer")

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            monkeypatch.setattr(Wal, "care", care)
            writing = asyncio.create_task(trip.variables.set("a", 1))
            assert await asyncio.to_thread(committed.wait, 5)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            monkeypatch.setattr(observing, "observer", None)
            await store.delete("trip")
            with pytest.raises(SessionNotFound):
                await trip.variables.set("b", 2)

    asyncio.run(main())


def test_what_fails_before_it_is_queued_is_told(loop, path: Path, observer: Observer):
    """Whoever observes learns of awaited writes that are refused at once, as of all that fail."""

    async def main() -> None:
        async with aio.open(path) as store:
            await (await store.session("trip")).variables.set("a", 1)
        async with aio.open(path, read_only=True) as store:
            trip = await store.session("trip")
            for value in (1, "x" * HERE_BYTES_MAX):
                with pytest.raises(ReadOnly):
                    await trip.variables.set("a", value)
        with pytest.raises(Closed):
            await trip.variables.set("a", 1)

    loop.run(main)
    assert [None, ReadOnly, ReadOnly, Closed] == observer.errors


def test_whoever_closes_a_store_waits_until_it_is_closed(loop, path: Path, monkeypatch):
    """Of tasks that close the same store, none goes on before it is closed."""
    may_close = threading.Event()
    real = Database.close

    def close(self: Any) -> None:
        assert may_close.wait(5)
        real(self)

    monkeypatch.setattr(Database, "close", close)

    async def main() -> None:
        async with aio.open(path) as store:
            await (await store.session("trip")).variables.set("a", 1)

            async def end() -> bool:
                await store.close()
                return may_close.is_set()

            async def let_close() -> None:
                for _ in range(5):
                    await loop.sleep(0)
                may_close.set()

            assert [True, True, True, None] == await loop.together(end, end, end, let_close)
            assert [path] == list(path.parent.iterdir())

    loop.run(main)


def test_pages_are_read_whole_whoever_gives_up(loop, path: Path, monkeypatch):
    """An iteration may be left; and one whose step was cancelled goes on where it was."""
    may_go_on = threading.Event()
    may_go_on.set()
    real = evstore.view.events

    def slow(*arguments: Any, **named: Any) -> Any:
        for event in real(*arguments, **named):
            assert may_go_on.wait(5)
            yield event

    monkeypatch.setattr(evstore.view, "events", slow)

    async def main() -> None:
        async with aio.open(path, durability="normal") as store:
            trip = await store.session("trip")
            await trip.messages.extend([USER] * (PAGE_EVENTS + 9))
            async for event in trip.events():
                assert 1 == event.seq
                break
            events = trip.events()
            may_go_on.clear()
            assert not await loop.within(0.01, partial(anext, events))
            may_go_on.set()
            assert [*range(1, PAGE_EVENTS + 10)] == [event.seq async for event in events]

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        loop.run(main)
        gc.collect()
    assert [] == [str(warning.message) for warning in warned]


def test_a_batch_of_a_transaction_that_nobody_got_is_dropped(loop, path: Path, monkeypatch):
    """A task that was cancelled while its batch was begun may begin another one."""
    may_go_on = threading.Event()
    real = evstore.session.Session.batch

    def slow(*arguments: Any, **named: Any) -> Any:
        assert may_go_on.wait(5)
        return real(*arguments, **named)

    monkeypatch.setattr(evstore.session.Session, "batch", slow)

    async def main() -> None:
        async with aio.open(path, durability="normal") as store:
            trip = await store.session("trip")
            async with store.transaction() as both:

                async def let_go() -> None:
                    await loop.sleep(0.05)
                    may_go_on.set()

                given = list[evstore.Batch]()

                async def begin() -> None:
                    given.append(await both.batch(trip))

                await loop.together(partial(loop.within, 0.01, begin), let_go)
                if not given:  # Under trio a task gets what was done for it, and is cancelled then.
                    await begin()
                given[0].variables["city"] = "Rome"
            assert {"city": "Rome"} == dict(await trip.variables.items())

    loop.run(main)
