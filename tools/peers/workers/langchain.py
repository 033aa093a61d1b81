"""LangChain: SQLChatMessageHistory, which keeps messages and knows no variables."""

import sqlite3
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

from langchain_community.chat_message_histories import SQLChatMessageHistory
from langchain_core.messages import HumanMessage


class Peer:
    """Two conversations in one file, which was given a write-ahead log beforehand."""

    version = metadata.version("langchain-community")
    durability = "write-ahead log (set by us), flushed in each commit"

    def __init__(self, folder: Path) -> None:
        path = folder / "store.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("pragma journal_mode=wal").fetchall()
        self._short: Any = SQLChatMessageHistory("short", connection=f"sqlite:///{path}")
        self._long: Any = SQLChatMessageHistory("long", connection=f"sqlite:///{path}")

    def append(self, message: dict[str, Any]) -> None:
        """Add one message."""
        self._short.add_message(HumanMessage(message["content"]))

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Add many messages."""
        self._long.add_messages([HumanMessage(message["content"]) for message in messages])

    def load(self) -> Any:
        """Get all messages."""
        return self._long.messages
