"""Observing: the one place where whoever measures evstore is told what it does, if anybody does."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Observed(Protocol):
    """An append that is watched from its beginning until it is known what came of it."""

    def joining(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return the same work, so that the group that does it can say so."""

    def end(self, recorded: Sequence[Any], error: BaseException | None, took_ns: int) -> None:
        """Take in what came of it; may wait for the disk."""

    def took_ns(self) -> int:
        """Return how long it has taken so far."""


class Observer(Protocol):
    """What is told; it must not raise, and must not keep what it is told longer than it needs."""

    def serialize(self, direction: str, act: Callable[[], Result]) -> Result:
        """Return what `act` returns: it makes a value its text ("encode"), or again a value."""

    def read(self, family: int, name: object, find: Callable[[], Result]) -> Result:
        """Return what `find` finds under a name."""

    def append(self, engine: Any, drafts: Sequence[Any]) -> list[Any]:
        """Have an engine append drafts in one transaction; return what was recorded."""

    def begin(self, engine: Any, drafts: Sequence[Any]) -> Observed:
        """Watch an append whose caller has to await it."""

    def fork(self, session_id: str, act: Callable[[], Result]) -> Result:
        """Return what `act` returns: it forks a session, which gets this id."""

    def group(self, members: Sequence[Any]) -> None:
        """Take in who goes into one transaction together, before any of their work is done."""


# Whoever asks for it looks once and keeps what it sees: another thread may end it at any moment.
observer: Observer | None = None
