"""Views: a session at one moment, frozen, holding no transaction open."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from evstore import doors, later
from evstore.errors import ReadOnly, Refused
from evstore.events import LABELS, METADATA, VARIABLES, Event, Said, Writer, from_microseconds
from evstore.limits import Limits
from evstore.sides import Found, Present, Side
from evstore.sqlite.engine import Engine
from evstore.sqlite.found import Facts
from evstore.sqlite.lives import Life
from evstore.sqlite.read import Moment
from evstore.state import Range

PAGE_EVENTS = 256


def events(
    engine: Engine,
    life: Life | None,
    after: int,
    until: int,
    *,
    name: str | None = None,
    kind: str | None = None,
    reverse: bool = False,
    limit: int | None = None,
) -> Iterator[Event]:
    """Yield events with `after` < seq <= `until`, in pages; no page holds the store."""
    left = until if limit is None else limit
    while life is not None and left > 0 and after < until:
        count = min(left, PAGE_EVENTS)
        page = engine.events(life, after, until, name=name, kind=kind, reverse=reverse, limit=count)
        yield from page
        if len(page) < count:
            return
        left -= count
        if reverse:
            until = page[-1].seq - 1
        else:
            after = page[-1].seq


def history(engine: Engine, life: Life | None, seq: int | None) -> Iterator[Event]:
    """Yield the events of the name that event `seq` is about, the newest first, in pages."""
    while life is not None and seq is not None:
        page, seq = engine.history(life, seq)
        yield from page


class Still(NamedTuple):
    """A side that stays at one seq of a life: it looks there, and cannot be told anything.

    Variables are absent there from their deadlines on: at `now_us`, or at the time of that seq.
    """

    engine: Engine
    life: Life | None
    seq: int
    now_us: int | None = None

    @property
    def writer(self) -> Writer:
        """What makes bodies; a door makes them before it finds that nothing can be said."""
        return Writer(Limits())

    def look(self) -> AbstractContextManager[Moment]:
        """Look at the moment."""
        return self.engine.past(self.life, self.seq, self.now_us)

    def variable(self, family: int, name: str) -> Found | None:
        """Return what a name stands for."""
        with self.look() as moment:
            return moment.variable(family, name)

    def still(self) -> "Still":
        """Return itself: it does not move."""
        return self

    def say(self, _said: Said | Callable[[Present], Said], _result: object = None) -> NoReturn:
        """Refuse: the past never changes."""
        raise ReadOnly("the past")


def _read(moment: Moment, ordinals: list[Range]) -> list[Any]:
    return [message for first, end in ordinals for message in moment.bodies.contents(first, end)]


def seen(engine: Engine, life: Life | None, moment: Moment) -> "View":
    """Return the view of a life at a moment, with all of its names."""
    labels = moment.references(LABELS).items()
    return View(
        # Of the shared past of a fork, `moment.life` is the ancestor that recorded it.
        Still(engine, life, moment.seq, moment.now_us),
        moment.time_us,
        {family: moment.variables(family) for family in (VARIABLES, METADATA)},
        {name: reference.operand or 0 for name, reference in labels},
    )


class _Frozen:
    """What the doors of a view see: names as they were read, messages as they are needed."""

    def __init__(self, still: Still, names: Mapping[int, Mapping[str, Found]]) -> None:
        self._still = still
        self._names = names

    def variable(self, family: int, name: str) -> Found | None:
        return self._names[family].get(name)

    def variables(self, family: int) -> Mapping[str, Found]:
        return self._names[family]

    def count(self, family: int) -> int:
        return len(self._names[family])

    def message_count(self) -> int:
        with self._still.look() as present:
            return present.message_count()

    def messages(self, start: int, stop: int) -> list[tuple[int, str | None]]:
        with self._still.look() as present:
            return present.messages(start, stop)

    def contents(self, start: int, stop: int) -> list[Any]:
        with self._still.look() as present:
            return present.contents(start, stop)

    def facts(self, seq: int) -> Facts:
        with self._still.look() as present:
            return present.facts(seq)


class View:
    """A session at one moment: read it as you would the session; it never changes.

    Variables and metadata were read when it was made and are decoded at use; messages are read in
    ranges at use, at its sequence.
    """

    variables = doors.variables
    metadata = doors.metadata
    messages = doors.messages

    def __init__(
        self,
        still: Still,
        time_us: int | None,
        names: Mapping[int, Mapping[str, Found]],
        labels: Mapping[str, int],
    ) -> None:
        self._still = still
        self._time_us = time_us
        self._names = names
        self._frozen = _Frozen(still, names)
        self._labels = labels

    @property
    def id(self) -> str | None:
        """The id of the session, or None where it was not born yet or is forgotten."""
        return self._still.life.id if self._still.life else None

    @property
    def uid(self) -> str | None:
        """The uid of the life, or None where the session was not born yet."""
        return self._still.life.uid.hex() if self._still.life else None

    @property
    def seq(self) -> int:
        """The sequence of the newest event that this view shows."""
        return self._still.seq

    @property
    def time(self) -> datetime | None:
        """When the newest event that this view shows was recorded, or None at sequence 0."""
        return None if self._time_us is None else from_microseconds(self._time_us)

    @property
    def labels(self) -> dict[str, int]:
        """The labels given by then, and the sequences they name."""
        return dict(self._labels)

    def diff(self, other: "View") -> "later.diff.Diff":
        """Return what changed from this view to another one, of this session or any of the store.

        Raises Refused for a view of another store.
        """
        diff, before, after = later.diff, self._still, other.place
        if before.engine.identity != after.engine.identity:
            raise Refused("both moments have to be of one store: import one session there first")
        with other.look() as present:
            names = {family: present.variables(family) for family in (VARIABLES, METADATA)}
        with before.look() as old:
            new = old.of(after.life, after.seq)
            added, removed = diff.messages(old, new)
            return diff.Diff(
                variables=diff.names(self._names[VARIABLES], names[VARIABLES]),
                metadata=diff.names(self._names[METADATA], names[METADATA]),
                added=_read(new, added),
                removed=_read(old, removed),
            )

    def events(self, after: int = 0, until: int | None = None, **wanted: Any) -> Iterator[Event]:
        """Yield the events up to this moment; takes what `Session.events` takes."""
        until = self.seq if until is None else min(until, self.seq)
        return events(self._still.engine, self._still.life, after, until, **wanted)

    @property
    def place(self) -> Still:
        """Where it stands: which sequence of which life."""
        return self._still

    def __repr__(self) -> str:
        """Return which moment of which session this is."""
        return f"<evstore.View of {self.id!r} at {self.seq}>"

    # What the doors ask for.

    @property
    def writer(self) -> Writer:
        """What makes bodies, as the doors need it."""
        return self._still.writer

    def look(self) -> AbstractContextManager[Present]:
        """Look at the moment."""
        return nullcontext(self._frozen)

    def variable(self, family: int, name: str) -> Found | None:
        """Return what a name stands for."""
        return self._names[family].get(name)

    def still(self) -> Side:
        """Return a side that does not move: itself."""
        return self

    def say(self, said: Said | Callable[[Present], Said], _result: object = None) -> NoReturn:
        """Refuse: the past never changes."""
        self._still.say(said)
