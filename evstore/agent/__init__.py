"""Agents that keep their conversations and variables: storages, managers, and agents themselves."""

from typing import TYPE_CHECKING, Any

from evstore.agent.context import SessionContext
from evstore.agent.decisions import Step
from evstore.agent.effects import Ask, Call
from evstore.agent.files import FileSystemStorage
from evstore.agent.journal import Happened
from evstore.agent.loop import Agent, Ending, ReAct, Turn
from evstore.agent.manager import ManagedSession, SessionManager
from evstore.agent.models import ANEW
from evstore.agent.moving import Migrated, migrate_sessions
from evstore.agent.offline import OfflineModel
from evstore.agent.persistence import (
    NoPersistence,
    Persistence,
    SavedSession,
    StorePersistence,
)
from evstore.agent.rerunning import Divergence, rerun
from evstore.agent.session import AgentSession, create_session
from evstore.agent.spoken import Spoken
from evstore.agent.storage import ConversationStorage, InMemoryStorage
from evstore.agent.stored import SqliteStorage
from evstore.agent.tools import Tool, tool
from evstore.agent.turns import AgentResult

__all__ = [
    "ANEW",
    "Agent",
    "AgentResult",
    "AgentSession",
    "Ask",
    "Call",
    "ConversationStorage",
    "Divergence",
    "Ending",
    "FileSystemStorage",
    "Happened",
    "InMemoryStorage",
    "ManagedSession",
    "Migrated",
    "NoPersistence",
    "OfflineModel",
    "OpenAIModel",
    "Persistence",
    "ReAct",
    "SavedSession",
    "SessionContext",
    "SessionManager",
    "Spoken",
    "SqliteStorage",
    "Step",
    "StorePersistence",
    "Tool",
    "Turn",
    "create_session",
    "migrate_sessions",
    "rerun",
    "tool",
]

if TYPE_CHECKING:
    from evstore.agent.http import OpenAIModel
else:

    def __getattr__(name: str) -> Any:
        """Load the model that needs httpx; raises MissingExtra where that is not installed."""
        if name != "OpenAIModel":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from evstore.agent.http import OpenAIModel

        return OpenAIModel
