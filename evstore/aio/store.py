"""Stores, for tasks: what you open to await what `evstore.open` gives threads."""

import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from evstore import session, store
from evstore.aio.hands import Hands
from evstore.aio.running import current
from evstore.aio.session import Session
from evstore.aio.transaction import Transaction
from evstore.aio.watch import Watch
from evstore.aio.workers import Workers
from evstore.deadlines import Ttl
from evstore.events import Event
from evstore.limits import Limits
from evstore.listings import PAGE_SESSIONS, Order, Scalar
from evstore.moments import When
from evstore.results import Gain, Hit, SessionInfo, Stats
from evstore.sqlite.database import Durability

WRITERS = 2  # threads for verbs that read and write, so that reads need not wait behind them


@asynccontextmanager
async def open(
    target: str | os.PathLike[str],
    *,
    durability: Durability = "full",
    read_only: bool = False,
    create: bool = True,
    limits: Limits = Limits(),
    ttl: Ttl | None = None,
    actor: str | None = None,
    clock: Callable[[], datetime] | None = None,
    fallback: Callable[[Any], Any] | None = None,
) -> AsyncIterator["Store"]:
    """Open a store for the tasks of asyncio or trio: `async with evstore.aio.open(path) as store`.

    Everything is as in `evstore.open`; several event loops and threads may have the file open.
    `clock` and `fallback` may be called in any thread.
    """
    writing, opened = Workers(WRITERS), list[store.Store]()

    def begin() -> None:
        plain = store.open(
            target,
            durability=durability,
            read_only=read_only,
            create=create,
            limits=limits,
            ttl=ttl,
            actor=actor,
            clock=clock,
            fallback=fallback,
        )
        opened.append(plain)

    try:
        await writing.finish(begin)
    except BaseException:
        for plain in opened:
            plain.close()
        writing.close()
        raise
    ours = Store(Hands(opened[0].engine, writing), opened[0])
    try:
        yield ours
    finally:
        await ours.close()


class _Stopped(Exception):
    """The task that wanted a backup was cancelled."""


class Store:
    """One file that holds many sessions, as `evstore.Store` is one, for tasks."""

    def __init__(self, hands: Hands, plain: store.Store) -> None:
        self._hands = hands
        self._plain = plain

    @property
    def plain(self) -> store.Store:
        """The same store for threads, and for `evstore.replay` and `evstore.transfer`."""
        return self._plain

    async def session(
        self,
        id: str | None = None,
        *,
        uid: str | None = None,
        create: bool = True,
        ttl: Ttl | None = None,
        metadata: Mapping[str, Any] | None = None,
        actor: str | None = None,
    ) -> Session:
        """Return a handle on a session; all is as in `evstore.Store.session`."""

        def begin() -> session.Session:
            return self._plain.session(
                id, uid=uid, create=create, ttl=ttl, metadata=metadata, actor=actor
            )

        asks_disk = uid is not None or not create
        return Session(self._hands, await self._hands.read(begin) if asks_disk else begin())

    def sessions(
        self,
        prefix: str = "",
        *,
        where: Mapping[str, Scalar] | None = None,
        order: Order = "id",
        after: SessionInfo | None = None,
        limit: int | None = None,
        deleted: bool = False,
    ) -> AsyncIterator[SessionInfo]:
        """Yield the living sessions (or the lives that are over) whose id has a prefix.

        All is as in `evstore.Store.sessions`, whose errors are raised by the first step.
        """
        return self._hands.pages(
            lambda: self._plain.sessions(
                prefix, where=where, order=order, after=after, limit=limit, deleted=deleted
            ),
            PAGE_SESSIONS,
        )

    async def contains(self, id: str) -> bool:
        """Tell whether a session with this id lives."""
        return await self._hands.read(lambda: id in self._plain)

    async def delete(self, id: str) -> Event:
        """End the life of a session and free its id; its log stays, readable by uid.

        Raises SessionNotFound.
        """
        return await self._hands.write(lambda: self._plain.delete(id))

    async def restore(self, uid: str) -> Session:
        """Bring an ended life back and return its session.

        Raises SessionNotFound, and Taken where its id lives again by now.
        """
        plain = await self._hands.write(lambda: self._plain.restore(uid))
        return Session(self._hands, plain)

    async def sweep(self) -> int:
        """Record the expiry of every session whose deadline has passed; return how many."""
        return await self._hands.write(self._plain.sweep)

    def transaction(self) -> Transaction:
        """Return a transaction: batches of several sessions that are recorded all or none.

        `async with store.transaction() as both:` and in it `await both.batch(session)` for each.
        """
        return Transaction(self._hands, self._plain.transaction())

    def watch(self, after: int | Event | None = None) -> Watch:
        """Return an async iterator of all events from now on, in commit order.

        "Now" is the moment of this call, for which it looks at one row. `after` is a position, or
        an event of this store, to go on right after it. Raises Refused for what is not there.
        """
        return Watch(self._hands, self._plain.watch(after))

    async def search(
        self,
        text: str,
        *,
        session: str | Session | None = None,
        at: When | None = None,
        limit: int = 20,
    ) -> list[Hit]:
        """Return up to `limit` messages that hold all words of a text, the best first.

        All is as in `evstore.Store.search`.
        """
        asked = session.plain if isinstance(session, Session) else session
        return await self._hands.write(
            lambda: self._plain.search(text, session=asked, at=at, limit=limit)
        )

    async def stats(self) -> Stats:
        """Return how much the store holds; reads the whole log once."""
        return await self._hands.read(self._plain.stats)

    async def backup(
        self,
        path: str | os.PathLike[str],
        *,
        at: int | datetime | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Copy the store into a new file while others go on writing; return its newest position.

        All is as in `evstore.Store.backup`. A task that is cancelled waits until the copying has
        stopped. `progress` is called in another thread.
        """
        stopped = threading.Event()

        def advance(done: int, total: int) -> None:
            if stopped.is_set():
                raise _Stopped
            if progress is not None:
                progress(done, total)

        def copy() -> int:
            with suppress(_Stopped):
                return self._plain.backup(path, at=at, progress=advance)
            return 0

        position = await self._hands.write(copy, stopped.set)
        if stopped.is_set():
            await current().pause(0)  # Trio tells of a cancellation at the next place to wait.
        return position

    async def compact(self) -> Gain:
        """Encode the log anew as tightly as it goes, and make the file smaller by what that saves.

        All is as in `evstore.Store.compact`.
        """
        return await self._hands.write(self._plain.compact)

    async def flush(self) -> None:
        """Make every commit so far survive a power cut, whatever its durability."""
        await self._hands.write(self._plain.flush)

    async def close(self) -> None:
        """Close the store; its sessions and views raise Closed from then on.

        Of several tasks that close it, each waits until it is closed.
        """
        await self._hands.close()

    def __repr__(self) -> str:
        """Return which store this is."""
        return f"<evstore.aio.Store {self._plain.engine.path!r}>"
