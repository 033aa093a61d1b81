"""Agents and their conversations, awaited: the same nouns for the tasks of asyncio and of trio."""

from typing import TYPE_CHECKING, Any

from evstore.agent.aio.context import SessionContext
from evstore.agent.aio.sessions import AgentSession, create_session

__all__ = [
    "AgentSession",
    "OpenAIModel",
    "SessionContext",
    "create_session",
]

if TYPE_CHECKING:
    from evstore.agent.aio.http import OpenAIModel
else:

    def __getattr__(name: str) -> Any:
        """Load the model that needs httpx; raises MissingExtra where that is not installed."""
        if name != "OpenAIModel":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from evstore.agent.aio.http import OpenAIModel

        return OpenAIModel
