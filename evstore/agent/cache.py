"""The cache of hot sessions: texts of variables within a bound in bytes, the coldest go first."""

import sys
from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from evstore.deadlines import Lease

# What an entry takes besides its strings, by tracemalloc on CPython 3.11: a little more than that,
# since what a dict takes for each of its members depends on how many they are.
SESSION_BYTES = 550
VARIABLE_BYTES = 45


class Reading(NamedTuple):
    """One variable as it was read, and what says how long that holds.

    `stamp_ns` is a time (`time.monotonic_ns`) before the reading; `life` and `head` are the number
    of the life and its newest sequence. A text of None stands for an absent variable.
    """

    stamp_ns: int
    life: int | None
    head: int
    lease: Lease | None
    text: str | None


class _Hot:
    """One session: the texts that its variables have at `head`, true as of `stamp_ns`."""

    __slots__ = ("head", "lease", "life", "size_bytes", "stamp_ns", "texts")

    def __init__(self) -> None:
        self.stamp_ns = 0
        self.life: int | None = None
        self.head = -1
        self.lease: Lease | None = None
        self.texts: dict[str, str | None] = {}
        self.size_bytes = 0


class VariableCache:
    """Texts by session and name; thread-safe."""

    def __init__(self, size_bytes_max: int) -> None:
        self._size_bytes_max = size_bytes_max
        self._lock = Lock()
        self._sessions: OrderedDict[str, _Hot] = OrderedDict()
        self.size_bytes = 0

    def find(self, session_id: str, name: str, since_ns: int, now_us: int) -> Reading | None:
        """Return what is known of a variable if it was read at some time or later, else None.

        A session that has expired is not known, nor is one whose lease is due for renewal.
        """
        with self._lock:
            hot = self._sessions.get(session_id)
            if hot is None or hot.stamp_ns < since_ns or name not in hot.texts:
                return None
            lease = hot.lease
            if lease is not None and (lease.expires_us <= now_us or lease.is_due(now_us)):
                return None
            self._sessions.move_to_end(session_id)
            return Reading(hot.stamp_ns, hot.life, hot.head, lease, hot.texts[name])

    def keep(self, session_id: str, name: str, reading: Reading) -> None:
        """Keep what was read, unless something newer is known."""
        with self._lock:
            hot = self._sessions.pop(session_id, None) or _Hot()
            self._sessions[session_id] = hot
            if reading.stamp_ns < hot.stamp_ns:
                return
            self.size_bytes -= hot.size_bytes
            if (hot.life, hot.head) != (reading.life, reading.head):
                hot.texts = {}
                hot.size_bytes = SESSION_BYTES + sys.getsizeof(session_id)
            if name not in hot.texts:
                hot.size_bytes += VARIABLE_BYTES + sys.getsizeof(name) + sys.getsizeof(reading.text)
            hot.stamp_ns, hot.life, hot.head, hot.lease, hot.texts[name] = reading
            self.size_bytes += hot.size_bytes
            while self.size_bytes > self._size_bytes_max:
                _, cold = self._sessions.popitem(last=False)
                self.size_bytes -= cold.size_bytes

    def __len__(self) -> int:
        """Return how many sessions it holds."""
        return len(self._sessions)
