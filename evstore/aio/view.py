"""Views, for tasks: a session at one moment, whose variables are in memory."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from evstore.aio.doors import Messages
from evstore.aio.hands import Hands
from evstore.diff import Diff
from evstore.events import Event
from evstore.variables import Variables
from evstore.view import PAGE_EVENTS
from evstore.view import View as PlainView


class View:
    """A session at one moment: variables and metadata are plain, all else is awaited.

    They were read when it was made; only their `info` asks the disk, for one row or two.
    """

    def __init__(self, hands: Hands, plain: PlainView) -> None:
        self._hands = hands
        self._plain = plain

    @property
    def plain(self) -> PlainView:
        """The same moment for threads."""
        return self._plain

    @property
    def id(self) -> str | None:
        """The id of the session, or None where it was not born yet or is forgotten."""
        return self._plain.id

    @property
    def uid(self) -> str | None:
        """The uid of the life, or None where the session was not born yet."""
        return self._plain.uid

    @property
    def seq(self) -> int:
        """The sequence of the newest event that this view shows."""
        return self._plain.seq

    @property
    def time(self) -> datetime | None:
        """When the newest event that this view shows was recorded, or None at sequence 0."""
        return self._plain.time

    @property
    def labels(self) -> dict[str, int]:
        """The labels given by then, and the sequences they name."""
        return self._plain.labels

    @property
    def variables(self) -> Variables:
        """The variables: a mapping in memory."""
        return self._plain.variables

    @property
    def metadata(self) -> Variables:
        """The metadata: a mapping in memory."""
        return self._plain.metadata

    @property
    def messages(self) -> Messages:
        """The messages, awaited."""
        return Messages(self._hands, self._plain, self._plain)

    async def diff(self, other: "View | PlainView") -> Diff:
        """Return what changed from this view to another one; raises Refused."""
        plain = other.plain if isinstance(other, View) else other
        return await self._hands.read(lambda: self._plain.diff(plain))

    def events(
        self, after: int = 0, until: int | None = None, **wanted: Any
    ) -> AsyncIterator[Event]:
        """Yield the events up to this moment; takes what `Session.events` takes."""
        return self._hands.pages(lambda: self._plain.events(after, until, **wanted), PAGE_EVENTS)

    def __repr__(self) -> str:
        """Return which moment of which session this is."""
        return f"<evstore.aio.View of {self.id!r} at {self.seq}>"
