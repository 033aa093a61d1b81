"""Event loops: how a task waits for what threads do, the same under asyncio and trio.

Whoever does the work in a thread knows a ticket and how to `tell` of it: once, with all tickets
that are done and belong to that loop. The loop wakes the tasks that wait for them.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

TURN_S = 0.002  # how long tasks may prepare what they write before others have their turn
WOKEN_MAX = 32  # tasks in one turn of the loop, so that it stays short
HELD_S_MAX = 0.1  # how long what is to be sent may wait for tasks that have more to send
Send = Callable[[list[Any]], None]


class Loop(ABC):
    """What a task needs of its event loop: to send tickets off, and to wait until they are told of.

    A loop that wakes many tasks sends what they say once all have said it. So threads work while
    the loop is idle, where both would else be in each other's way, and groups are large.
    """

    def __init__(self) -> None:
        self.tell_all = self.tell  # always the same object, by which threads know the loop
        self._outbox: dict[Send, dict[Any, None]] = {}
        self._sends_by_s: float | None = None  # when the outbox is emptied at the latest
        self._woken: deque[Any] = deque()  # tickets whose tasks are still to be woken
        self._is_waking = False
        self._turn_began_s: float | None = None

    @abstractmethod
    def tell(self, tickets: list[Any]) -> None:
        """Have the tasks woken that wait for these tickets; called by any thread."""

    @abstractmethod
    async def until_told(self, ticket: Any, withdraw: Callable[[Any], bool]) -> None:
        """Wait until a ticket is told of.

        Where the task is cancelled and the ticket cannot be withdrawn any more, what comes of it
        is known before the task goes on.
        """

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Let some time pass."""

    @abstractmethod
    def _soon(self, function: Callable[[], None]) -> None:
        """Call a function in the next turn, after the tasks that are ready by now."""

    @abstractmethod
    def _wake(self, ticket: Any) -> None:
        """Wake the task that waits for a ticket, if one does."""

    # Sending.

    async def turn(self) -> None:
        """Wait for another turn of the loop, where this one has taken long already."""
        now_s = time.perf_counter()
        if self._turn_began_s is None:
            self._turn_began_s = now_s
            self._soon(self._end_turn)
        elif now_s > self._turn_began_s + TURN_S:
            ticket = object()
            self._woken.append(ticket)
            if not self._is_waking:
                self._is_waking = True
                self._soon(self._wake_some)
            await self.until_told(ticket, lambda _: True)

    def _end_turn(self) -> None:
        self._turn_began_s = None

    def send(self, ticket: Any, send: Send) -> None:
        """Have a ticket sent off, together with others that go the same way."""
        self._outbox.setdefault(send, {})[ticket] = None
        if self._sends_by_s is None:
            self._sends_by_s = time.perf_counter() + HELD_S_MAX
            self._soon(self._empty)

    def _empty(self) -> None:
        assert self._sends_by_s is not None
        if self._is_waking and time.perf_counter() < self._sends_by_s:
            self._soon(self._empty)
            return
        outbox, self._outbox, self._sends_by_s = self._outbox, {}, None
        for send, tickets in outbox.items():
            send(list(tickets))

    def _take_back(self, ticket: Any) -> bool:
        """Take a ticket out of the outbox; False where it was sent, or never was there."""
        return any(tickets.pop(ticket, self) is None for tickets in self._outbox.values())

    # Waking.

    def _told(self, tickets: list[Any]) -> None:
        self._woken += tickets
        if not self._is_waking:
            self._is_waking = True
            self._wake_some()

    def _wake_some(self) -> None:
        """Wake some tasks in this turn, which run in the next one; then the others."""
        self._is_waking = bool(self._woken)
        for _ in range(min(len(self._woken), WOKEN_MAX)):
            self._wake(self._woken.popleft())
        if self._is_waking:
            self._soon(self._wake_some)


class AsyncioLoop(Loop):
    """A running loop of asyncio; cancellation reaches the task once the outcome is known."""

    def __init__(self, running: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.running = running
        self._waiting: dict[Any, asyncio.Future[None]] = {}

    def tell(self, tickets: list[Any]) -> None:
        """Have the tasks woken that wait for these tickets; called by any thread."""
        with suppress(RuntimeError):  # The loop is closed: nobody waits there any more.
            self.running.call_soon_threadsafe(self._told, tickets)

    async def until_told(self, ticket: Any, withdraw: Callable[[Any], bool]) -> None:
        """Wait until a ticket is told of, or can be withdrawn as the task is cancelled."""
        cancelled = None
        while True:
            future = self._waiting[ticket] = self.running.create_future()
            try:
                await future
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                is_told = self._waiting.pop(ticket, None) is None
                if not is_told and not self._take_back(ticket) and not withdraw(ticket):
                    continue
            break
        if cancelled is not None:
            raise cancelled

    async def pause(self, seconds: float) -> None:
        """Let some time pass."""
        await asyncio.sleep(seconds)

    def _soon(self, function: Callable[[], None]) -> None:
        self.running.call_soon(function)

    def _wake(self, ticket: Any) -> None:
        future = self._waiting.pop(ticket, None)
        if future is not None and not future.done():
            future.set_result(None)
