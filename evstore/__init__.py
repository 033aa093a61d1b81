"""The flight recorder for AI agents: an event-sourced session store in one SQLite file."""

import logging

from evstore import errors
from evstore.batch import Batch
from evstore.diff import Diff
from evstore.events import ABSENT, ANY, ERASED, Event
from evstore.limits import Limits
from evstore.merge import Merge
from evstore.messages import MessageInfo, Messages
from evstore.registry import Unregistered, register
from evstore.results import Hit, Parent, SessionInfo, Stats
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
]
