"""Hands: what the tasks of one store have done for them, by the group and by worker threads."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TypeVar

from evstore import observing
from evstore.aio.running import current
from evstore.aio.workers import Workers
from evstore.batch import Batch, settle
from evstore.errors import Closed, EvstoreError
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
        self._closing = False

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
        member = await self._begin([draft])
        if member.observed is None:
            # As few objects as possible wait here: Python's collector looks at each, now and then.
            await current().until_told(member, self._withdraw)
            self._judge(member)
        else:
            await self._end(member)
        return result(session.settle(member.result[0]))

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
        engine, loop = self.engine, current()
        observer = observing.observer
        observed = None if observer is None else observer.begin(engine, drafts)
        if _is_small(drafts):
            work = engine.prepare(drafts)
        else:
            work = await self._reading.read(lambda: engine.prepare(drafts))
        if observed is not None:
            work = observed.joining(work)
        member = engine.member(work, drafts[0].terms.durability, loop.tell_all)
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

    async def pages(
        self, begin: Callable[[], Iterator[Result]], length: int
    ) -> AsyncIterator[Result]:
        """Yield what an iterator yields that reads in pages; it is begun by the first step."""
        iterator = await self.read(begin)
        page_length = length
        while page_length == length:
            page = await self.read(lambda: list(islice(iterator, length)))
            page_length = len(page)
            for each in page:
                yield each

    async def close(self) -> None:
        """Close the store, whatever becomes of the task; once it is closed, nothing happens."""
        if self._closing:
            return
        self._closing = True
        try:
            self.engine.check()
        except EvstoreError:  # In a forked child there are no threads that could do it.
            self.engine.close()
            return
        try:
            await self._writing.finish(self.engine.close)
        finally:
            self._reading.close()
            self._writing.close()


def _is_small(drafts: Sequence[Draft]) -> bool:
    """Tell whether it takes no time worth speaking of to prepare them."""
    size_bytes = 0
    for draft in drafts:
        for body in () if callable(draft.say) else draft.say:
            size_bytes += _BODY_BYTES if callable(body) else _BODY_BYTES + len(body.text)
    return size_bytes <= HERE_BYTES_MAX
