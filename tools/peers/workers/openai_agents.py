"""The OpenAI Agents SDK: SQLiteSession, which keeps items and knows no variables."""

from importlib import metadata
from pathlib import Path
from typing import Any

from agents import SQLiteSession


class Peer:
    """Two sessions in one file, as the library sets it up."""

    version = metadata.version("openai-agents")
    durability = "write-ahead log, flushed in each commit"

    def __init__(self, folder: Path) -> None:
        path = folder / "store.db"
        self._session: Any = SQLiteSession("short", path)
        self._long: Any = SQLiteSession("long", path)

    async def append(self, message: dict[str, Any]) -> None:
        """Add one item."""
        await self._session.add_items([message])

    async def fill(self, messages: list[dict[str, Any]]) -> None:
        """Add many items."""
        await self._long.add_items(messages)

    async def load(self) -> Any:
        """Get all items."""
        return await self._long.get_items()
