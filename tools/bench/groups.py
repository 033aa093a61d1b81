"""The floor of many at once: threads and tasks that share commits of rows written by hand.

Nothing is checked, and nothing but the queue and the waking comes on top of `by_hand`: what is left
is what Python takes to let so many wait for one commit and go on after it.
"""

import asyncio
import threading

from tools.bench.by_hand import Rows


class Threads:
    """Rows of callers at the same time, in one commit: whoever comes first writes for all."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._gate = threading.Lock()
        self._waiting: list[tuple[int, threading.Lock]] = []
        self._is_led = False

    def append(self, session: int) -> None:
        """Append a message to a session, and return once it is on the disk."""
        turn = threading.Lock()
        turn.acquire()
        with self._gate:
            self._waiting.append((session, turn))
            leads, self._is_led = not self._is_led, True
        if leads:
            self._lead()
        turn.acquire()

    def _lead(self) -> None:
        while True:
            with self._gate:
                members, self._waiting = self._waiting, []
                self._is_led = bool(members)
            if not members:
                return
            self._rows.append_together([session for session, _ in members])
            for _, turn in members:
                turn.release()


class Tasks:
    """Rows of tasks at the same time, in one commit that a thread makes for them."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._is_led = False

    async def append(self, session: int) -> None:
        """Append a message to a session, and return once it is on the disk."""
        future = self._loop.create_future()
        self._waiting.append((session, future))
        if not self._is_led:
            self._is_led = True
            self._loop.call_soon(self._begin)
        await future

    def _begin(self) -> None:
        members, self._waiting = self._waiting, []
        self._is_led = bool(members)
        if members:
            self._loop.run_in_executor(None, self._commit, members)

    def _commit(self, members: list[tuple[int, "asyncio.Future[None]"]]) -> None:
        self._rows.append_together([session for session, _ in members])
        self._loop.call_soon_threadsafe(self._wake, members)

    def _wake(self, members: list[tuple[int, "asyncio.Future[None]"]]) -> None:
        for _, future in members:
            future.set_result(None)
        self._loop.call_soon(self._begin)
