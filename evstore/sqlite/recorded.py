"""What an append gives back: the events of one batch, built when somebody looks at them."""

from collections.abc import Iterator, Sequence
from typing import overload

from evstore.events import Event
from evstore.sqlite.insert import Prepared
from evstore.sqlite.lives import Life


class Recorded(Sequence[Event]):
    """What one batch left in the log, as its Events, which are built when looked at.

    Without a `life` nothing was recorded; with `seen` it had been before, under the same key.
    """

    __slots__ = (
        "_events",
        "actor",
        "cause",
        "first",
        "life",
        "position",
        "prepared",
        "seen",
        "time_us",
    )

    def __init__(
        self,
        life: Life | None,
        position: int = 0,
        time_us: int = 0,
        first: int = 0,
        actor: str | None = None,
        cause: str | None = None,
        prepared: Sequence[Prepared] = (),
        seen: Sequence[Event] = (),
    ) -> None:
        self.life = life
        self.position = position
        self.time_us = time_us
        self.first = first
        self.actor = actor
        self.cause = cause
        self.prepared = prepared
        self.seen = seen
        self._events: list[Event] | None = None

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        """Return an event, or the list of events of a slice."""
        return self._all()[index]

    def __len__(self) -> int:
        """Return how many events there are."""
        return len(self._all())

    def __repr__(self) -> str:
        """Return the events as a list would show them."""
        return repr(self._all())

    def _all(self) -> list[Event]:
        if self._events is None:
            self._events = [*self.seen, *self._built()]
        return self._events

    def _built(self) -> Iterator[Event]:
        life = self.life
        for seq, (body, *_) in enumerate(self.prepared, self.first):
            assert life is not None
            yield Event(
                seq,
                self.position,
                self.time_us,
                body.kind,
                body.name,
                body.text.decode(),
                self.actor,
                self.cause,
                life.id,
                life.uid.hex(),
                body.version,
            )
