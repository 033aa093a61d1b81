"""eventsourcing: aggregates whose events are kept in SQLite, and replayed when they are loaded."""

from importlib import metadata
from pathlib import Path
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class Talk(Aggregate):  # type: ignore[misc] # where the checks run, the library is not installed
    """A conversation with its variables."""

    @event("Begun")  # type: ignore[untyped-decorator]
    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.variables: dict[str, Any] = {}

    @event("Appended")  # type: ignore[untyped-decorator]
    def append(self, message: dict[str, Any]) -> None:
        """Append one message."""
        self.messages.append(message)

    @event("Set")  # type: ignore[untyped-decorator]
    def set(self, name: str, value: dict[str, Any]) -> None:
        """Set one variable."""
        self.variables[name] = value


class Peer:
    """An aggregate that stays in memory for appends, and one that is loaded."""

    version = metadata.version("eventsourcing")
    durability = "write-ahead log, flushed in each commit"

    def __init__(self, folder: Path) -> None:
        environment = {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": str(folder / "store.db"),
        }
        self._application: Any = Application(env=environment)
        self._talk, self._long = Talk(), Talk()
        self._application.save(self._talk, self._long)

    def append(self, message: dict[str, Any]) -> None:
        """Save one event."""
        self._talk.append(message)
        self._application.save(self._talk)

    def set(self, name: str, value: dict[str, Any]) -> None:
        """Save one event."""
        self._talk.set(name, value)
        self._application.save(self._talk)

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Save many events."""
        for message in messages:
            self._long.append(message)
        self._application.save(self._long)

    def load(self) -> Any:
        """Replay the events of the long conversation."""
        return self._application.repository.get(self._long.id).messages

    def close(self) -> None:
        """Close the file."""
        self._application.close()
