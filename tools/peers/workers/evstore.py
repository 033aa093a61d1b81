"""evstore itself, durable."""

from importlib import metadata
from pathlib import Path
from typing import Any

import evstore


class Peer:
    """One session for appends and variables, and one to load."""

    version = metadata.version("evstore")
    durability = "write-ahead log, flushed in each commit"

    def __init__(self, folder: Path) -> None:
        self._store = evstore.open(folder / "store.db")
        self._session = self._store.session("short")
        self._long = self._store.session("long")

    def append(self, message: dict[str, Any]) -> None:
        """Append one message."""
        self._session.messages.append(message)

    def set(self, name: str, value: Any) -> None:
        """Set one variable."""
        self._session.variables[name] = value

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Append many messages."""
        self._long.messages.extend(messages)

    def load(self) -> list[Any]:
        """Read the long conversation."""
        return self._long.messages[:]

    def close(self) -> None:
        """Close the store."""
        self._store.close()
