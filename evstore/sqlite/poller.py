"""The poller of a file: while anybody waits for it to grow, one thread looks how far it is."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from evstore.errors import Busy
from evstore.sqlite.schema import Cursor, Tell

PAUSE_S_MIN = 0.002  # after it has moved, because it may well do so again
PAUSE_S_MAX = 0.019  # while all is quiet
_GROWTH = 1.25


def newest_position(cursor: Cursor) -> int:
    """Return the position of the newest batch, or 0."""
    position: int = cursor.execute("select coalesce(max(position), 0) from batch").get
    return position


class Poller:
    """Who waits for a file, and the thread that looks on behalf of all of them.

    SQLite tells nobody of a commit of another process, so somebody has to look; and since one
    thread does, a writer pays nothing. It is there from the first who waits until nobody does.
    """

    def __init__(self, ask: Callable[[Callable[[Cursor], int]], int]) -> None:
        self._ask = ask
        self._position = 0  # the newest that was seen
        # Each who waits has a lock, released to wake it. A Condition would do the same, but fails
        # with a RuntimeError where Ctrl-C comes just as it gives its own lock up.
        self._waiting: set[threading.Lock] = set()
        self._listening: dict[Any, Tell] = {}  # tasks, and how their event loops are told
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def wait(self, position: int, timeout_s: float | None, is_over: Callable[[], bool]) -> None:
        """Wait until the file has come beyond a position, it `is_over`, or the time has passed.

        It may end early: where somebody else is woken, and where the thread could not look, so that
        whoever then reads learns why.
        """
        timeout_s = -1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX)
        alarm = threading.Lock()
        alarm.acquire()
        try:
            self._waiting.add(alarm)  # Only then look: whoever moves on from now on, wakes it.
            self._start()
            if self._position <= position and not is_over():
                alarm.acquire(timeout=timeout_s)
        finally:
            self._waiting.discard(alarm)

    def wake(self) -> None:
        """Let all who wait look again whether it is over for them."""
        with suppress(KeyError):  # Somebody else may take the last one.
            while self._waiting:
                self._waiting.pop().release()
        told: dict[Tell, list[Any]] = {}
        with suppress(KeyError):
            while self._listening:
                listener, tell = self._listening.popitem()
                told.setdefault(tell, []).append(listener)
        for tell, listeners in told.items():
            tell(listeners)

    def listen(self, listener: Any, position: int, tell: Tell) -> None:
        """Have the event loop of a task told of it, once, where a thread's `wait` would end."""
        self._listening[listener] = tell
        self._start()
        if self._position > position and self.forget(listener):
            tell([listener])

    def forget(self, listener: Any) -> bool:
        """Let a listener not be told any more; False where it is, or was."""
        return self._listening.pop(listener, None) is not None

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="evstore-poller", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        pause_s = PAUSE_S_MIN
        while True:
            position = self._look()
            if position is None:
                self.wake()
            elif position > self._position:
                self._position, pause_s = position, PAUSE_S_MIN
                self.wake()
            time.sleep(pause_s)
            pause_s = min(pause_s * _GROWTH, PAUSE_S_MAX)
            with self._starting:
                if not (self._waiting or self._listening):
                    self._thread = None
                    return

    def _look(self) -> int | None:
        """Return the newest position, or None where the file cannot be read any more."""
        try:
            return self._ask(newest_position)
        except Busy:  # A store in memory, in the middle of a write: later, then.
            return self._position
        except Exception:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            return None
