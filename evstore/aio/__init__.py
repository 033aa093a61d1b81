"""The same nouns, awaited: stores, sessions and doors for the tasks of asyncio and of trio."""

from evstore.aio.batches import Block
from evstore.aio.doors import Messages, Variables
from evstore.aio.session import Session
from evstore.aio.store import Store, open
from evstore.aio.transaction import Transaction
from evstore.aio.view import View
from evstore.aio.watch import Watch

__all__ = [
    "Block",
    "Messages",
    "Session",
    "Store",
    "Transaction",
    "Variables",
    "View",
    "Watch",
    "open",
]
