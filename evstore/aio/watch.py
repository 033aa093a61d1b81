"""Watching, for tasks: what is recorded from some moment on, without a thread that waits."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Self

from evstore import watch
from evstore.aio.hands import Hands
from evstore.aio.running import current
from evstore.events import Event


class Watch(AsyncIterator[Event]):
    """Every event from some moment on, once and in order; `anext` waits for the one to come.

    Whoever wants to go on later keeps the last event: `watch(after=event)`. A step that is
    cancelled takes no event away. It may be shared by tasks of one event loop, which then share
    the events. A context manager that closes it.
    """

    def __init__(self, hands: Hands, plain: watch.Watch) -> None:
        self._hands = hands
        self._plain = plain
        self._events: deque[Event] = deque()
        self._closed = False

    async def __anext__(self) -> Event:
        """Return the next event, once there is one; raises Closed when the store is closed."""
        while not self._closed:
            if self._events:
                return self._events.popleft()
            self._hands.engine.check()
            page, is_empty = await self._hands.read(self._look)
            self._events = page.events
            if is_empty:
                await self._until_beyond(page.newest)
        raise StopAsyncIteration

    def _look(self) -> tuple[watch.Page, bool]:
        """Return what is there, and whether that is nothing: other tasks may take it meanwhile."""
        page = self._plain.page()
        return page, not page.events

    async def _until_beyond(self, position: int) -> None:
        """Wait until the store has come beyond a position, or it is to look again."""
        engine, loop, ticket = self._hands.engine, current(), object()
        engine.listen(ticket, position, loop.tell_all)
        try:
            engine.check()  # It may have been closed just before it was listened to.
            if not self._closed:  # And so may the watch.
                await loop.until_told(ticket, lambda _: True)
        finally:
            engine.unlisten(ticket)

    def only(self, wanted: Callable[[Event], bool]) -> "Watch":
        """Return a watch that goes on from here with the events that are wanted."""
        return Watch(self._hands, self._plain.only(wanted))

    def close(self) -> None:
        """End the watch: whoever waits in it finds that it is over."""
        self._closed = True
        self._plain.close()

    async def __aenter__(self) -> Self:
        """Return the watch."""
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the watch."""
        self.close()
