"""salamander-db: an event log with views, which commits and flushes each append here."""

from importlib import metadata
from pathlib import Path
from typing import Any

import salamander


class Peer:
    """A namespace for each work, and a view that holds the present of the variables."""

    version = metadata.version("salamander-db")
    durability = "a log of its own, flushed in each commit"

    def __init__(self, folder: Path) -> None:
        self._database: Any = salamander.open(str(folder / "store"))
        self._database.register_view("variables", "name", where_field="kind", where_value="set")

    def append(self, message: dict[str, Any]) -> None:
        """Append one message and commit."""
        self._database.append("short", message)
        self._database.commit()

    def set(self, name: str, value: Any) -> None:
        """Append one change, which the view follows, and commit."""
        self._database.append("named", {"kind": "set", "name": name, "value": value})
        self._database.commit()

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Append many messages and commit once."""
        for message in messages:
            self._database.append("long", message)
        self._database.commit()

    def load(self) -> list[Any]:
        """Read the long conversation."""
        return [event["body"] for event in self._database.history("long")]

    def close(self) -> None:
        """Close the log."""
        self._database.close()
