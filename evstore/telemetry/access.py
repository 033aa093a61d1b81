"""Access: which variables are read most, counted in memory that does not grow with their number."""

import threading
from collections import Counter

NAMES_MAX = 10_000


class Accesses:
    """How often each name was read; once there are too many names, the rarest are forgotten."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, name: str) -> None:
        """Count a read."""
        with self._lock:
            self._counts[name] += 1
            if len(self._counts) > NAMES_MAX:
                self._counts = Counter(dict(self._counts.most_common(NAMES_MAX // 2)))

    def clear(self) -> None:
        """Begin anew."""
        with self._lock:
            self._counts.clear()

    def most_common(self, limit: int) -> list[tuple[str, int]]:
        """Return the names that were read most, and how often."""
        with self._lock:
            return self._counts.most_common(limit)


ACCESSES = Accesses()  # of this process, while telemetry is on
