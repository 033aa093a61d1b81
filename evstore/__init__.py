"""The flight recorder for AI agents: an event-sourced session store in one SQLite file."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from evstore import errors
from evstore.batch import Batch
from evstore.events import ABSENT, ANY, ERASED, Event
from evstore.evolution import upcast
from evstore.limits import Limits
from evstore.messages import MessageInfo, Messages
from evstore.registry import Unregistered, register
from evstore.session import Session
from evstore.state import VariableInfo
from evstore.store import Store, open
from evstore.variables import Variables
from evstore.view import View

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
    from evstore.diff import Diff
    from evstore.folding import VariableStore
    from evstore.merge import Merge
    from evstore.results import Gain, Hit, Parent, SessionInfo, Stats
    from evstore.watch import Watch
else:
    _PACKAGES = ("agent", "aio", "replay", "telemetry")
    _CLASSES = {
        "Diff": "diff",
        "Gain": "results",
        "Hit": "results",
        "Merge": "merge",
        "Parent": "results",
        "SessionInfo": "results",
        "Stats": "results",
        "VariableStore": "folding",
        "Watch": "watch",
    }

    def __getattr__(name: str) -> Any:
        """Load what not everyone needs: aio (with asyncio) for example, or what a merge returns."""
        if name in _PACKAGES:
            return import_module(f"{__name__}.{name}")
        if name in _CLASSES:
            module = import_module(f"{__name__}.{_CLASSES[name]}")
            found = globals()[name] = getattr(module, name)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Return all names, loaded or not."""
        return sorted({*globals(), *__all__, *_PACKAGES})
