"""Caches: what was read once needs no second look, until it may have changed."""

from typing import Any

ENTRIES_MAX = 10_000  # a cache that holds more begins anew


class Current:
    """What the next write changes: it is true inside a write transaction."""

    def __init__(self) -> None:
        self.edges: dict[int, Any] = {}  # where each life ends, by its number
        # Where names stand, by the number of a life, the family and the name.
        self.names: dict[tuple[int, int, str], Any] = {}
        self.position: int | None = None  # of the newest batch of the store
        self.time_us = 0  # of the latest of those that were written since it was looked up

    def outdate(self) -> None:
        """Drop it all, because another process has written."""
        self.edges.clear()
        self.names.clear()
        self.position = None


class Caches:
    """What one process knows of a file; all of it is dropped when a transaction is taken back."""

    def __init__(self) -> None:
        self.current = Current()
        self._kept: dict[str, dict[Any, Any]] = {}

    def kept(self, name: str, entries_max: int = ENTRIES_MAX) -> dict[Any, Any]:
        """Return a cache of what never changes once it is committed."""
        cache = self._kept.get(name)
        if cache is None:
            cache = self._kept[name] = {}
        return bounded(cache, entries_max)

    def forget(self) -> None:
        """Drop everything, because changes were taken back."""
        self.current.outdate()
        for cache in self._kept.values():
            cache.clear()


def bounded(cache: dict[Any, Any], entries_max: int = ENTRIES_MAX) -> dict[Any, Any]:
    """Return a cache to which something is to be added, emptied if it has grown too large."""
    if len(cache) > entries_max:
        cache.clear()
    return cache
