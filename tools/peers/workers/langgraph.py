"""LangGraph: SqliteSaver, which keeps the whole state of a thread in every checkpoint."""

import sqlite3
from importlib import metadata
from pathlib import Path
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.sqlite import SqliteSaver


class Peer:
    """A thread for each work; a step records its write and the checkpoint after it."""

    version = metadata.version("langgraph-checkpoint-sqlite")
    durability = "write-ahead log, flushed in each commit"

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "store.db", check_same_thread=False)
        self._saver: Any = SqliteSaver(self._connection)
        self._saver.setup()
        self._steps = {thread: _Step(self._saver, thread) for thread in ("short", "named", "long")}

    def append(self, message: dict[str, Any]) -> None:
        """Save the conversation with one message more."""
        step = self._steps["short"]
        step.values.setdefault("messages", []).append(message)
        step.save([("messages", message)])

    def set(self, name: str, value: Any) -> None:
        """Save the state with one variable changed."""
        step = self._steps["named"]
        step.values[name] = value
        step.save([(name, value)])

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Save a conversation with many messages more."""
        step = self._steps["long"]
        step.values.setdefault("messages", []).extend(messages)
        step.save([("messages", messages)])

    def load(self) -> Any:
        """Get the newest checkpoint of the long conversation."""
        found = self._saver.get_tuple({"configurable": {"thread_id": "long", "checkpoint_ns": ""}})
        return found.checkpoint["channel_values"]["messages"]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class _Step:
    """The state of one thread, and how its next checkpoint is saved."""

    def __init__(self, saver: Any, thread: str) -> None:
        self._saver = saver
        self._config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        self._number = 0
        self.values: dict[str, Any] = {}

    def save(self, writes: list[tuple[str, Any]]) -> None:
        self._number += 1
        checkpoint: Any = empty_checkpoint()
        checkpoint["id"] = str(uuid6(clock_seq=self._number))
        checkpoint["channel_values"] = self.values
        checkpoint["channel_versions"] = dict.fromkeys(self.values, self._number)
        metadata_of_step = {"source": "loop", "step": self._number, "parents": {}}
        changed = {name: self._number for name, _ in writes}
        if "checkpoint_id" in self._config["configurable"]:
            self._saver.put_writes(self._config, writes, f"task-{self._number}")
        self._config = self._saver.put(self._config, checkpoint, metadata_of_step, changed)
