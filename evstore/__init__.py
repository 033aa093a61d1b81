"""The flight recorder for AI agents: an event-sourced session store in one SQLite file."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from evstore import errors
from evstore.batch import Batch
from evstore.diff import Diff
from evstore.events import ABSENT, ANY, ERASED, Event
from evstore.evolution import upcast
from evstore.limits import Limits
from evstore.merge import Merge
from evstore.messages import MessageInfo, Messages
from evstore.registry import Unregistered, register
from evstore.results import Gain, Hit, Parent, SessionInfo, Stats
from evstore.session import Session
from evstore.state import VariableInfo, VariableStore
from evstore.store import Store, open
from evstore.variables import Variables
from evstore.view import View
from evstore.watch import Watch

logging.getLogger("evstore").addHandler(logging.NullHandler())

__all__ = [
    "ABSENT",
    "ANY",
    "ERASED",
    "Batch",
    "Diff",
    "Event",
    "Gain",
    "Hit",
    "Limits",
    "Merge",
    "MessageInfo",
    "Messages",
    "Parent",
    "Session",
    "SessionInfo",
    "Stats",
    "Store",
    "Unregistered",
    "VariableInfo",
    "VariableStore",
    "Variables",
    "View",
    "Watch",
    "errors",
    "open",
    "register",
    "upcast",
]

if TYPE_CHECKING:
    from evstore import agent as agent
    from evstore import aio as aio
    from evstore import replay as replay
    from evstore import telemetry as telemetry
else:

    def __getattr__(name: str) -> Any:
        """Load what not everyone needs: agent, aio (with asyncio), replay, telemetry."""
        if name not in ("agent", "aio", "replay", "telemetry"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f"{__name__}.{name}")
