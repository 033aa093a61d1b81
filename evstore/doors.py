"""The doors as attributes: written once, and the same on a Session, a View and a Batch."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from evstore.events import METADATA, VARIABLES
from evstore.messages import Messages
from evstore.sides import Side
from evstore.variables import Variables

Kind = TypeVar("Kind", Variables, Messages)


class Door(Generic[Kind]):
    """An attribute that opens a door on whatever side it is asked of.

    `side.variables |= …` and `side.messages += …` assign a door back to where it stood; nothing
    else can be assigned.
    """

    def __init__(self, opened: Callable[[Side], Kind], description: str) -> None:
        self._opened: Callable[[Side], Kind] = opened
        self.__doc__ = description

    @overload
    def __get__(self, side: None, owner: type) -> "Door[Kind]": ...
    @overload
    def __get__(self, side: Any, owner: type) -> Kind: ...
    def __get__(self, side: Any, owner: type) -> "Kind | Door[Kind]":
        """Return the door."""
        return self if side is None else self._opened(side)

    def __set__(self, side: Any, door: Kind) -> None:
        """Take back the door itself; raises AttributeError for anything else."""
        if getattr(door, "place", None) != self._opened(side).place:
            raise AttributeError("a door cannot be replaced: change what is behind it")


variables = Door(
    lambda side: Variables(side, VARIABLES), "The variables: a mapping of names to values."
)
metadata = Door(
    lambda side: Variables(side, METADATA), "The metadata: a mapping, to find sessions by."
)
messages = Door(Messages, "The messages: a sequence of objects with a role.")
