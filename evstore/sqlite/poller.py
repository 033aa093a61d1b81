"""The poller of a file: while anybody waits for it to grow, one thread looks how far it is."""

import threading
import time
from collections.abc import Callable

from evstore.errors import Busy
from evstore.sqlite.schema import Cursor

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
        self._moved = threading.Condition()
        self._position = 0  # the newest that was seen
        self._waiting = 0
        self._failures = 0
        self._thread: threading.Thread | None = None

    def wait(self, position: int, timeout_s: float | None, is_over: Callable[[], bool]) -> None:
        """Wait until the file has come beyond a position, it `is_over`, or the time has passed.

        It ends early where the thread could not look: whoever then reads learns why.
        """
        if timeout_s is not None:
            timeout_s = min(timeout_s, threading.TIMEOUT_MAX)
        with self._moved:
            failures = self._failures
            self._waiting += 1
            try:
                if self._thread is None:
                    self._start()
                self._moved.wait_for(
                    lambda: self._position > position or self._failures > failures or is_over(),
                    timeout_s,
                )
            finally:
                self._waiting -= 1

    def wake(self) -> None:
        """Let all who wait look again whether it is over for them."""
        with self._moved:
            self._moved.notify_all()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="evstore-poller", daemon=True)
        thread.start()
        self._thread = thread

    def _run(self) -> None:
        pause_s = PAUSE_S_MIN
        while True:
            position = self._look()
            with self._moved:
                if position is None:
                    self._failures += 1
                    self._moved.notify_all()
                elif position > self._position:
                    self._position, pause_s = position, PAUSE_S_MIN
                    self._moved.notify_all()
                if position is None or not self._waiting:
                    self._thread = None
                    return
            time.sleep(pause_s)
            pause_s = min(pause_s * _GROWTH, PAUSE_S_MAX)

    def _look(self) -> int | None:
        """Return the newest position, or None where the file cannot be read any more."""
        try:
            return self._ask(newest_position)
        except Busy:  # A store in memory, in the middle of a write: later, then.
            return self._position
        except Exception:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            return None
