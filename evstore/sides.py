"""Sides: what the doors `variables`, `metadata` and `messages` belong to, and ask.

A Session (live), a View (frozen) and a Batch (pending) have the same doors. A door holds nothing:
it asks its side what is there (`look`) and tells it what happened (`say`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, TypeGuard, TypeVar

from evstore.events import Event, Said, Writer, from_microseconds

Result = TypeVar("Result")


def recorded(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events: what most steps result in."""
    return events


def nothing(_events: Sequence[Event]) -> None:
    """Return nothing, where a step results in nothing that its caller could want."""


def shown_time(time_us: int | None) -> datetime | None:
    """Return the datetime of some µs since 1970, where there are any yet."""
    return None if time_us is None else from_microseconds(time_us)


def is_name(name: object) -> TypeGuard[str]:
    """Tell whether something can be a name, for what is only asked for."""
    return isinstance(name, str)


class Decided:
    """What is decided on by what is there, and the kind of what it records if it does."""

    __slots__ = ("decide", "kind")

    def __init__(self, kind: str, decide: "Callable[[Present], Said]") -> None:
        self.kind = kind
        self.decide = decide

    def __call__(self, present: "Present") -> Said:
        """Return what is to be recorded."""
        return self.decide(present)


class Found(Protocol):
    """A variable as found."""

    @property
    def seq(self) -> int:
        """The seq of the event that set it."""

    @property
    def created(self) -> int:
        """The seq of the set since which it was never deleted."""

    @property
    def operand(self) -> int | None:
        """Its deadline in µs, if it has one."""

    @property
    def text(self) -> str | None:
        """The text of its value, or None where it was forgotten."""


class Facts(Protocol):
    """What is known of an event besides its data."""

    @property
    def time_us(self) -> int | None:
        """When it was recorded, or None where it is not yet."""

    @property
    def actor(self) -> str | None:
        """Who said it."""


class Present(Protocol):
    """What a side lets its doors see; the text of a message is that of its event."""

    def variable(self, family: int, name: str) -> Found | None:
        """Return what a name stands for, or None where it is absent."""

    def variables(self, family: int) -> Mapping[str, Found]:
        """Return all names of a family that are there, in order."""

    def count(self, family: int) -> int:
        """Return how many names of a family are there."""

    def message_count(self) -> int:
        """Return how many messages are in the list."""

    def messages(self, start: int, stop: int) -> list[tuple[int, str | None]]:
        """Return (seq, text) of the messages with index start … stop - 1."""

    def contents(self, start: int, stop: int) -> list[Any]:
        """Return the messages with index start … stop - 1 themselves."""

    def facts(self, seq: int) -> Facts:
        """Return what is known of an event besides its data."""


class Side(Protocol):
    """What a door belongs to: a Session, a View or a Batch."""

    @property
    def writer(self) -> Writer:
        """What makes bodies, within the limits of the store."""

    def look(self) -> AbstractContextManager[Present]:
        """Look at what is there."""

    def variable(self, family: int, name: str) -> Found | None:
        """Return what a name stands for, as a look at nothing else would."""

    def still(self) -> "Side":
        """Return a side that does not move while it is read."""

    def say(
        self,
        said: Said | Callable[[Present], Said],
        result: Callable[[Sequence[Event]], Result],
    ) -> Result:
        """Let something happen, or let it be decided on by what is there; return its result.

        That is asked for once it is recorded. A side whose answer has to be awaited returns what
        gives it.
        """
