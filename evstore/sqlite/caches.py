"""Caches: what was read once needs no second look, until it may have changed."""

from typing import Any

ENTRIES_MAX = 10_000  # a cache that holds more begins anew


class Caches:
    """What one process knows of a file; all of it is dropped when a transaction is taken back."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[Any, Any]] = {}
        self._current: dict[str, dict[Any, Any]] = {}

    def kept(self, name: str, entries_max: int = ENTRIES_MAX) -> dict[Any, Any]:
        """Return a cache of what never changes once it is committed."""
        return _bounded(self._kept, name, entries_max)

    def current(self, name: str, entries_max: int = ENTRIES_MAX) -> dict[Any, Any]:
        """Return a cache of what the next write changes: it is true inside a write transaction."""
        return _bounded(self._current, name, entries_max)

    def outdate(self) -> None:
        """Drop what changes, because another process has written."""
        for cache in self._current.values():
            cache.clear()

    def forget(self) -> None:
        """Drop everything, because changes were taken back."""
        self.outdate()
        for cache in self._kept.values():
            cache.clear()


def _bounded(caches: dict[str, dict[Any, Any]], name: str, entries_max: int) -> dict[Any, Any]:
    cache = caches.get(name)
    if cache is None:
        cache = caches[name] = {}
    elif len(cache) > entries_max:
        cache.clear()
    return cache
