"""The stores that take long to make: one long session, or many short ones."""

import random
from pathlib import Path

import evstore

BATCH_EVENTS = 1000
LARGE_BYTES = 8000
MESSAGES_OF_TEN = 3  # of ten events, so many are messages and the rest set variables


def lengthen(path: Path, events: int, names: int = 100) -> None:
    """Make the session "long" of a store have that many events."""
    with evstore.open(path, durability="normal") as store:
        session = store.session("long")
        for start in range(session.head, events, BATCH_EVENTS):
            with session.batch() as batch:
                for number in range(start, min(start + BATCH_EVENTS, events)):
                    if number % 10 < MESSAGES_OF_TEN:
                        message = {"role": "user", "content": f"message {number}"}
                        batch.messages.append(message)
                    else:
                        turn = number // 10 * (10 - MESSAGES_OF_TEN) + number % 10 - MESSAGES_OF_TEN
                        batch.variables[f"name{turn % names}"] = number


def converse(path: Path, messages: int) -> None:
    """Make the session "talk" of a store have that many messages."""
    with evstore.open(path, durability="normal") as store:
        session = store.session("talk")
        for start in range(session.head, messages, BATCH_EVENTS):
            numbers = range(start, min(start + BATCH_EVENTS, messages))
            session.messages.extend(
                {"role": "user", "content": f"message {number}"} for number in numbers
            )


def populate(path: Path, start: int, stop: int) -> None:
    """Add sessions of one message each to a store, numbered from start up to stop."""
    with evstore.open(path, durability="normal") as store:
        for first in range(start, stop, BATCH_EVENTS):
            with store.transaction() as both:
                for number in range(first, min(first + BATCH_EVENTS, stop)):
                    batch = both.batch(store.session(f"session-{number}"))
                    batch.messages.append({"role": "user", "content": f"message {number}"})


def fill(path: Path, size_bytes: int) -> None:
    """Fill a store with messages until its file has about that size."""
    chance = random.Random(size_bytes)
    with evstore.open(path, durability="normal") as store:
        session = store.session("talk")
        while path.stat().st_size < size_bytes:
            with session.batch() as batch:
                for _ in range(100):
                    # Hexadecimal digits of random bytes: compression saves no more than half.
                    digits = chance.randbytes(LARGE_BYTES // 2).hex()
                    batch.messages.append({"role": "user", "content": digits})
