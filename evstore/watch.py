"""Watching: an iterator of what is recorded from some moment on, by this and by other processes."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple, Self

from evstore.errors import Refused
from evstore.events import Event
from evstore.sqlite.engine import Engine
from evstore.sqlite.lives import SEQ_MAX, Life

PAGE_EVENTS = 256


class Page(NamedTuple):
    """Events in their order, the newest position when they were read, and how to read on."""

    events: deque[Event]
    newest: int
    following: "Callable[[], Page]"


class Watch(Iterator[Event]):
    """Every event from some moment on, once and in order; `next` waits for the one to come.

    Whoever wants to go on later keeps the last event: `watch(after=event)`. It may be shared by
    threads, which then share the events. A context manager that closes it.
    """

    def __init__(self, engine: Engine, following: Callable[[], Page]) -> None:
        self._engine = engine
        self._lock = threading.RLock()
        self._page = Page(deque(), 0, following)
        self._closed = False

    def __next__(self) -> Event:
        """Return the next event, once there is one; raises Closed when the store is closed."""
        while not self._closed:
            self._engine.check()  # A forked child must not wait for locks of its parent.
            with self._lock:
                page = self.page()
                if page.events:
                    return page.events.popleft()
            self._engine.wait(page.newest, None, self._is_closed)
        raise StopIteration

    def poll(self, timeout_s: float = 0.0) -> list[Event]:
        """Return what is there, or comes within some seconds; else, or once closed, nothing.

        It may be a part of what is there: read on until nothing comes. Raises Closed, and Refused
        for less than 0 seconds.
        """
        if not timeout_s >= 0:
            raise Refused(f"nobody can wait for {timeout_s!r} seconds: give 0 or more")
        deadline = time.monotonic() + timeout_s
        while not self._closed:
            self._engine.check()
            with self._lock:
                page = self.page()
                events = list(page.events)
                page.events.clear()
            left_s = deadline - time.monotonic()
            if events or left_s <= 0:
                return events
            self._engine.wait(page.newest, left_s, self._is_closed)
        return []

    def only(self, wanted: Callable[[Event], bool]) -> "Watch":
        """Return a watch that goes on from here with the events that are wanted."""
        return Watch(self._engine, partial(_wanted_page, self.page, wanted))

    def close(self) -> None:
        """End the watch, from any thread: whoever waits in it finds that it is over."""
        self._closed = True
        self._engine.wake()

    def page(self) -> Page:
        """Return what is there; without events there is nothing beyond its newest position yet.

        It waits for nobody, and takes nothing away.
        """
        with self._lock:
            if not self._page.events:
                self._page = self._page.following()
            return self._page

    def _is_closed(self) -> bool:
        return self._closed

    def __enter__(self) -> Self:
        """Return the watch."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the watch."""
        self.close()


def _wanted_page(following: Callable[[], Page], wanted: Callable[[Event], bool]) -> Page:
    page = following()
    events = deque(filter(wanted, page.events))
    while page.events and not events:
        page = page.following()
        events = deque(filter(wanted, page.events))
    return Page(events, page.newest, partial(_wanted_page, page.following, wanted))


# A store, in commit order.


def of_store(engine: Engine, after: int | Event | None) -> Watch:
    """Return a watch of all sessions after a position, an event, or now.

    Raises Refused for what is not there.
    """
    newest = engine.position()
    if isinstance(after, Event) and _is_recorded(engine, after):
        place = (after.position, after.seq)
    elif after is None:
        place = (newest, SEQ_MAX)
    elif type(after) is int and 0 <= after <= newest:
        place = (after, SEQ_MAX)
    else:
        raise Refused(
            f"the store cannot be watched after {after!r}: "
            f"give a position from 0 to {newest}, an event of this store, or None for now"
        )
    return Watch(engine, partial(_store_page, engine, *place))


def _is_recorded(engine: Engine, event: Event) -> bool:
    life = None
    with suppress(ValueError):
        life, _ = engine.find_uid(bytes.fromhex(event.uid))
    if life is None or not life.fork < event.seq <= engine.tip(life).head:
        return False
    (found,) = engine.events(life, event.seq - 1, event.seq)
    return found.position == event.position


def _store_page(engine: Engine, position: int, seq: int) -> Page:
    events, newest = engine.committed(position, seq, PAGE_EVENTS)
    position, seq = newest, SEQ_MAX
    if len(events) == PAGE_EVENTS:
        position, seq = events[-1].position, events[-1].seq
    return Page(deque(events), newest, partial(_store_page, engine, position, seq))


# A session, in the order of its sequence.


def of_session(
    engine: Engine,
    session_id: str,
    life: Life | None,
    head: int,
    after: int | Event | None,
    position: int,
) -> Watch:
    """Return a watch of a life that is at `head`, after a sequence, an event, or now.

    Without a life it is the first one that has the id after a position of the store. Raises Refused
    for what is not there.
    """
    if isinstance(after, Event) and _is_shown(life, head, after):
        seq = after.seq
    elif after is None:
        seq = head
    elif type(after) is int and 0 <= after <= head:
        seq = after
    else:
        raise Refused(
            f"session {session_id!r} cannot be watched after {after!r}: "
            f"give a sequence from 0 to {head}, an event that it shows, or None for now"
        )
    if life is not None:
        return Watch(engine, partial(_life_page, engine, life, seq))
    whole = after is not None
    return Watch(engine, partial(_unborn_page, engine, session_id, position, whole=whole))


def _is_shown(life: Life | None, head: int, event: Event) -> bool:
    if life is None or not 0 < event.seq <= head:
        return False
    return life.recorder(event.seq).uid.hex() == event.uid


def _life_page(engine: Engine, life: Life, seq: int) -> Page:
    events, newest = engine.continued(life, seq, PAGE_EVENTS)
    seq = events[-1].seq if events else seq
    return Page(deque(events), newest, partial(_life_page, engine, life, seq))


def _unborn_page(engine: Engine, session_id: str, position: int, *, whole: bool) -> Page:
    found, newest = engine.first_batch(session_id, position)
    if found is None:
        following = partial(_unborn_page, engine, session_id, newest, whole=whole)
        return Page(deque(), newest, following)
    life, first = found
    # What a fork shares, and what a life recorded that has come back, is older than "now".
    return _life_page(engine, life, 0 if whole else first - 1)
