"""Sessions, for tasks: the same verbs, awaited where the disk is."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import cached_property
from inspect import isawaitable
from typing import Any, TypeVar, overload

from evstore.aio.batches import Block
from evstore.aio.doors import Messages, Telling, Variables
from evstore.aio.hands import Hands
from evstore.aio.running import current
from evstore.aio.view import View
from evstore.aio.watch import Watch
from evstore.attempts import pauses
from evstore.batch import Batch
from evstore.diff import Diff
from evstore.errors import Busy, Conflict
from evstore.events import METADATA, VARIABLES, Event, Sentinel
from evstore.merge import Merge, Prefer
from evstore.moments import When
from evstore.results import Parent
from evstore.session import Session as PlainSession
from evstore.sides import recorded
from evstore.view import PAGE_EVENTS
from evstore.view import View as PlainView

Result = TypeVar("Result")


class Session:
    """A handle on one session, as `evstore.Session` is one, for the tasks of any event loop.

    What single steps write goes into one commit with what other tasks and threads write at the
    same time. A task that is cancelled while it waits for that learns of it once its own share is
    surely not written, or surely written.
    """

    def __init__(self, hands: Hands, plain: PlainSession) -> None:
        self._hands = hands
        self._plain = plain
        self._telling = Telling(hands, plain)

    @property
    def plain(self) -> PlainSession:
        """The same session for threads."""
        return self._plain

    @property
    def hands(self) -> Hands:
        """What its steps are done by, for those who add steps of their own."""
        return self._hands

    # The doors.

    @cached_property
    def variables(self) -> Variables:
        """The variables: named values, awaited."""
        return Variables(self._hands, self._plain, self._telling.as_side(), VARIABLES)

    @cached_property
    def metadata(self) -> Variables:
        """The metadata, awaited: to find sessions by."""
        return Variables(self._hands, self._plain, self._telling.as_side(), METADATA)

    @cached_property
    def messages(self) -> Messages:
        """The messages, awaited: objects with a role, in order."""
        return Messages(self._hands, self._plain, self._telling.as_side())

    # Who it is.

    @property
    def id(self) -> str:
        """The id under which it was opened."""
        return self._plain.id

    async def uid(self) -> str | None:
        """Return the uid of its life, 32 hexadecimal digits, or None before its birth."""
        return await self._hands.read(lambda: self._plain.uid)

    async def head(self) -> int:
        """Return the sequence of its newest event; 0 before its birth."""
        return await self._hands.read(lambda: self._plain.head)

    async def created_at(self) -> datetime | None:
        """Return when it was born, or None before that."""
        return await self._hands.read(lambda: self._plain.created_at)

    async def updated_at(self) -> datetime | None:
        """Return when its newest batch was recorded, or None before its birth."""
        return await self._hands.read(lambda: self._plain.updated_at)

    async def expires_at(self) -> datetime | None:
        """Return when it will have expired, if it has a deadline; reading it may move that."""
        return await self._hands.read(lambda: self._plain.expires_at)

    async def parent(self) -> Parent | None:
        """Return where it was forked from, if it was."""
        return await self._hands.read(lambda: self._plain.parent)

    # Writing.

    def batch(
        self,
        *,
        actor: str | None = None,
        expect: int | Sentinel | None = None,
        key: str | None = None,
        cause: str | None = None,
    ) -> Block:
        """Return what `async with session.batch() as batch:` begins: a plain Batch.

        It is begun when the block is entered. All else is as in `evstore.Session.batch`.
        """
        how = {"actor": actor, "expect": expect, "key": key, "cause": cause}
        return Block(self._hands, self._plain, how)

    @overload
    async def transact(
        self, function: Callable[[Batch], Awaitable[Result]], attempts: int = 8
    ) -> Result: ...
    @overload
    async def transact(self, function: Callable[[Batch], Result], attempts: int = 8) -> Result: ...
    async def transact(self, function: Callable[[Batch], Any], attempts: int = 8) -> Any:
        """Run `function(batch)` and commit; on Conflict or Busy run it again, up to `attempts`.

        The function, which may be async, may run several times and must do nothing but write to
        its batch.
        """
        for pause_s in pauses(attempts):
            try:
                return await self._attempt(function)
            except (Conflict, Busy):
                await current().pause(pause_s)
        return await self._attempt(function)

    async def _attempt(self, function: Callable[[Batch], Any]) -> Any:
        async with self.batch() as batch:
            result = function(batch)
            return await result if isawaitable(result) else result

    async def record(
        self, kind: str, data: Any = None, *, version: int | None = None
    ) -> Sequence[Event]:
        """Record an event of a kind of your own, `app.order.placed`, in its newest version."""
        return await self._telling.say([self._plain.writer.record(kind, data, version)], recorded)

    # The past.

    async def view(self) -> View:
        """Return the session as it is now, frozen."""
        return View(self._hands, await self._hands.read(self._plain.view))

    async def at(self, moment: When) -> View:
        """Return the session at a sequence (0 is before its birth), a datetime, or a label.

        Raises NoSuchMoment for what is not there, and Refused for a naive datetime.
        """
        return View(self._hands, await self._hands.read(lambda: self._plain.at(moment)))

    def events(
        self,
        after: int = 0,
        until: int | None = None,
        *,
        name: str | None = None,
        kind: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[Event]:
        """Yield the events with `after` < seq <= `until`, the oldest first unless `reverse`.

        The head is the one at the first step.
        """
        plain = self._plain
        return self._hands.pages(
            lambda: plain.events(after, until, name=name, kind=kind, reverse=reverse, limit=limit),
            PAGE_EVENTS,
        )

    def history(self, name: str) -> AsyncIterator[Event]:
        """Yield all events about a variable, the newest first, deletions included."""
        return self._hands.pages(lambda: self._plain.history(name), PAGE_EVENTS)

    async def blame(self, name: str) -> Event:
        """Return the event that set a variable; raises KeyError where it is absent."""
        return await self._hands.read(lambda: self._plain.blame(name))

    async def diff(self, a: "When | View | PlainView", b: "When | View | PlainView") -> Diff:
        """Return what changed from moment `a` to `b`; either may be a View of any session."""
        before = a.plain if isinstance(a, View) else a
        after = b.plain if isinstance(b, View) else b
        return await self._hands.read(lambda: self._plain.diff(before, after))

    def watch(self, after: int | Event | None = None) -> Watch:
        """Return an async iterator of the events from now on, or after a seq or an event.

        "Now" is the moment of this call, for which it looks at a row or two. Raises Refused.
        """
        return Watch(self._hands, self._plain.watch(after))

    # Taking back, and branches.

    async def label(self, name: str, at: When | None = None) -> Sequence[Event]:
        """Give a name to a moment (now), by which `at` finds it; a name given again moves.

        Raises BadName for what is empty, or reads as a number or a date.
        """
        return await self._hands.write(lambda: self._plain.label(name, at))

    async def revert(self, to: When) -> Sequence[Event]:
        """Make variables and messages what they were at a moment, as new events."""
        return await self._hands.write(lambda: self._plain.revert(to))

    async def undo(self) -> Sequence[Event]:
        """Take back the newest batch that is not undone yet."""
        return await self._hands.write(self._plain.undo)

    async def redo(self) -> Sequence[Event]:
        """Take back the newest undo, until another batch is appended."""
        return await self._hands.write(self._plain.redo)

    async def merge(
        self, other: "Session | View | PlainSession | PlainView", prefer: Prefer = None
    ) -> Merge:
        """Bring in what another branch of the same past changed, as one batch.

        All is as in `evstore.Session.merge`; raises Refused without a common ancestor.
        """
        theirs = other.plain if isinstance(other, Session | View) else other
        return await self._hands.write(lambda: self._plain.merge(theirs, prefer))

    async def fork(self, id: str, at: When | None = None) -> "Session":
        """Return a new session that shares the past up to a moment (now) and owns its future.

        Raises Taken where the id lives already, and SessionNotFound before the birth.
        """
        plain = await self._hands.write(lambda: self._plain.fork(id, at))
        return Session(self._hands, plain)

    async def touch(self) -> None:
        """Renew the deadline of the session now, or give it the one this handle was opened with.

        Raises SessionExpired and SessionNotFound; a session without a deadline stays without one.
        """
        await self._hands.write(self._plain.touch)

    def __repr__(self) -> str:
        """Return which session this is."""
        return f"<evstore.aio.Session {self.id!r}>"
