"""diskcache: a Deque and a Cache, durable here, of which none keeps a history."""

from importlib import metadata
from pathlib import Path
from typing import Any

from diskcache import Cache, Deque

FLUSHED = {"sqlite_synchronous": 2}  # its own choice is 1, which a power cut may shorten


class Peer:
    """A deque for each conversation, and a cache for the variables."""

    version = metadata.version("diskcache")
    durability = "write-ahead log, flushed in each commit (set by us)"

    def __init__(self, folder: Path) -> None:
        kept: dict[str, Any] = {"eviction_policy": "none"} | FLUSHED
        self._short: Any = Deque.fromcache(Cache(str(folder / "short"), **kept))
        self._long: Any = Deque.fromcache(Cache(str(folder / "long"), **kept))
        self._variables: Any = Cache(str(folder / "variables"), **kept)

    def append(self, message: dict[str, Any]) -> None:
        """Append one message."""
        self._short.append(message)

    def set(self, name: str, value: Any) -> None:
        """Set one variable; what it was is lost."""
        self._variables[name] = value

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Append many messages in one transaction."""
        with self._long.transact():
            self._long.extend(messages)

    def load(self) -> list[Any]:
        """Read all messages."""
        return list(self._long)
