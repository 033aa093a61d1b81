"""Hands: what the tasks of one store have done for them, by the group and by worker threads."""

import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

from evstore import observing
from evstore.aio.running import current
from evstore.aio.workers import Workers
from evstore.batch import Batch, settle
from evstore.errors import Closed
from evstore.events import Event
from evstore.session import Session
from evstore.sqlite.engine import Engine
from evstore.sqlite.group import Member
from evstore.sqlite.write import Draft

Result = TypeVar("Result")
READERS = 4
HERE_BYTES_MAX = 16_384  # of text that is compressed and hashed on the event loop
_BODY_BYTES = 128  # what it costs to prepare an event, as bytes of its text


class Hands:
    """How the tasks of one store read and write: the loop itself never waits for the disk."""

    def __init__(self, engine: Engine, writing: Workers) -> None:
        self.engine = engine
        self._reading = Workers(READERS)
        self._writing = writing
        self._submit, self._withdraw = engine.group.submit, engine.group.withdraw
        self._closing = threading.Lock()
        self._process = os.getpid()

    async def read(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns that only reads; raises Closed, as after a fork."""
        self.engine.check()  # In a forked child no thread of the parent would ever do it.
        return await self._reading.read(function)

    async def write(
        self, function: Callable[[], Result], stop: Callable[[], None] | None = None
    ) -> Result:
        """Return what a function returns that reads and writes; it is done whole or not at all.

        If the task is cancelled meanwhile, `stop` is called, for a function that can end early.
        """
        self.engine.check()
        return await self._writing.write(function, stop)

    async def say(
        self, session: Session, draft: Draft, result: Callable[[Sequence[Event]], Result]
    ) -> Result:
        """Have the draft of a session committed by the next group, and return its result."""
        await current().turn()  # What is said is encoded by now: only the rest can wait.
        member = await self._begin([draft])
        try:
            if member.observed is None:
                # As few objects as possible wait: Python's collector looks at each, now and then.
                await current().until_told(member, self._withdraw)
                self._judge(member)
            else:
                await self._end(member)
        finally:  # The handle belongs to what was recorded, though its task was cancelled.
            if member.decided and member.error is None:
                session.settle(member.result[0])
        return result(member.result[0])

    async def commit(self, batches: Sequence[Batch]) -> None:
        """Have batches committed together by the next group; they settle what was recorded.

        If the task is cancelled, they are withdrawn, or settled before it learns of it.
        """
        member = await self._begin([batch.draft() for batch in batches])
        try:
            await self._end(member)
        finally:
            if member.decided and member.error is None:
                settle(batches, member.result)

    async def _begin(self, drafts: Sequence[Draft]) -> Member:
        """Send drafts off as a member of the next group, and return it."""
        engine = self.engine
        observer = observing.observer
        observed = None if observer is None else observer.begin(engine, drafts)
        try:
            if _is_small(drafts):
                work = engine.prepare(drafts)
            else:
                work = await self.read(lambda: engine.prepare(drafts))
            if observed is not None:
                work = observed.joining(work)
            loop = current()  # Only now: another one may have run in this thread meanwhile.
            member = engine.member(work, engine.durability(drafts), loop.tell_all)
        except Exception as error:
            if observed is not None:  # Nothing was recorded, so this waits for no disk.
                observed.end((), error, observed.took_ns())
            raise
        member.observed = observed
        loop.send(member, self._submit)
        return member

    async def _end(self, member: Member) -> None:
        """Wait until it is known what came of a member; raises its error."""
        try:
            await current().until_told(member, self._withdraw)
        finally:
            if member.observed is not None and member.decided:
                came_of_it = member.result or (), member.error, member.observed.took_ns()
                with suppress(Closed):  # It was closed meanwhile: then nobody is told.
                    await self._reading.finish(partial(member.observed.end, *came_of_it))
        self._judge(member)

    def _judge(self, member: Member) -> None:
        if member.error is not None:
            raise member.error.with_traceback(None)
        self.engine.noted(member.result)

    def pages(self, begin: Callable[[], Iterator[Result]], length: int) -> AsyncIterator[Result]:
        """Return what an iterator yields that reads in pages; it is begun by the first step."""
        return _Pages(self, begin, length)

    async def close(self) -> None:
        """Close the store, whatever becomes of the task; once this returns, it is closed."""
        if os.getpid() != self._process:  # In a forked child there are no threads that could do it.
            self.engine.close()
            return
        with suppress(Closed):  # Somebody else has closed it.
            await self._writing.finish(self._close)

    def _close(self) -> None:
        with self._closing:  # Whoever comes second waits for the first.
            try:
                self.engine.close()
            finally:
                self._reading.close()
                self._writing.close()


class _Pages(AsyncIterator[Result], Generic[Result]):
    """What an iterator yields; a step that is cancelled takes nothing of it away.

    It is no generator, which would be over then, and which trio wants to be closed.
    """

    def __init__(self, hands: Hands, begin: Callable[[], Iterator[Result]], length: int) -> None:
        self._hands = hands
        self._begin = begin
        self._length = length
        self._iterator: Iterator[Result] | None = None
        self._page: deque[Result] = deque()
        self._turning = threading.Lock()

    async def __anext__(self) -> Result:
        while not self._page:
            if not await self._hands.read(self._turn):
                raise StopAsyncIteration
        return self._page.popleft()

    def _turn(self) -> bool:
        """Have a page, as a step that was cancelled may have left it; False where all is read."""
        with self._turning:
            if not self._page:
                self._iterator = self._iterator or self._begin()
                self._page = deque(islice(self._iterator, self._length))
            return bool(self._page)


def _is_small(drafts: Sequence[Draft]) -> bool:
    """Tell whether it takes no time worth speaking of to prepare them."""
    size_bytes = 0
    for draft in drafts:
        for body in () if callable(draft.say) else draft.say:
            size_bytes += _BODY_BYTES if callable(body) else _BODY_BYTES + len(body.text)
    return size_bytes <= HERE_BYTES_MAX
