"""Google ADK: SqliteSessionService, whose events carry messages and changes of the state."""

from importlib import metadata
from pathlib import Path
from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

WHERE = {"app_name": "bench", "user_id": "user"}


class Peer:
    """A session for each work, in a file as the library sets it up."""

    version = metadata.version("google-adk")
    durability = "rollback journal, flushed in each commit (its own choice)"

    def __init__(self, folder: Path) -> None:
        self._service: Any = SqliteSessionService(str(folder / "store.db"))
        self._sessions: dict[str, Any] = {}

    async def begin(self) -> None:
        """Create the sessions."""
        for name in ("short", "named", "long"):
            self._sessions[name] = await self._service.create_session(**WHERE, session_id=name)

    async def append(self, message: dict[str, Any]) -> None:
        """Append an event that carries one message."""
        await self._say("short", message)

    async def _say(self, session: str, message: dict[str, Any]) -> None:
        content = types.Content(role="user", parts=[types.Part(text=message["content"])])
        event = Event(author=message["role"], invocation_id="turn", content=content)
        await self._service.append_event(self._sessions[session], event)

    async def set(self, name: str, value: Any) -> None:
        """Append an event that changes one variable."""
        actions = EventActions(state_delta={name: value})
        event = Event(author="user", invocation_id="turn", actions=actions)
        await self._service.append_event(self._sessions["named"], event)

    async def fill(self, messages: list[dict[str, Any]]) -> None:
        """Append many messages, for which there is no other way."""
        for message in messages:
            await self._say("long", message)

    async def load(self) -> Any:
        """Get the session with its events."""
        session = await self._service.get_session(**WHERE, session_id="long")
        return session.events
