"""Batches: events that happen together, one commit, all or nothing, reading what they wrote."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from typing import Any, NamedTuple, Self

from evstore import doors
from evstore.errors import Closed
from evstore.events import (
    DELETIONS,
    FAMILY,
    METADATA,
    VARIABLES,
    Body,
    Event,
    Later,
    Said,
    Writer,
    message_of,
    value_text,
)
from evstore.sides import Facts, Found, Present, Result, Side, nothing
from evstore.sqlite.engine import Engine
from evstore.sqlite.recorded import Recorded
from evstore.sqlite.write import Draft
from evstore.state import MessageList
from evstore.view import Still


class Pending(NamedTuple):
    """A variable as this batch sets it: its events are numbered -1, -2, … until they have a seq."""

    seq: int
    created: int
    operand: int | None
    text: str


class PendingFacts(NamedTuple):
    """What is known of an event that is not recorded yet."""

    time_us: None
    actor: str | None


class _Overlay:
    """What the doors of a batch see: the session at entry, and over it what the batch says.

    What is said becomes part of what is seen once somebody looks.
    """

    def __init__(self, entry: Still, actor: str | None) -> None:
        self.said: list[Body | Later] = []
        self._entry = entry
        self._actor = actor
        self._names: dict[tuple[int, str], Pending | None] = {}
        self._fetched: dict[int, Mapping[str, Found]] = {}  # what the families were at entry
        self._messages: MessageList | None = None
        self._first = 0  # the ordinal that the first message of this batch gets
        self._bodies: list[int] = []  # which of what was said carries each message of this batch
        self._seen = 0  # how much of what was said

    def part(self) -> None:
        """Share nothing that changes with the one of which it is a copy."""
        self.said, self._bodies = self.said.copy(), self._bodies.copy()
        self._names, self._messages = self._names.copy(), self._list().copy()

    def looked(self) -> "_Overlay":
        """Return it with all that was said so far."""
        while self._seen < len(self.said):
            body = self.said[self._seen]
            self._seen += 1
            shown = body(1) if callable(body) else body  # as if the batch began at seq 1
            family = FAMILY.get(shown.kind)
            if family is not None and shown.name is not None:
                self._take_name(family, shown.name, shown)
            else:
                self._take_message(shown, own=callable(body))
        return self

    def _take_name(self, family: int, name: str, body: Body) -> None:
        if body.kind in DELETIONS.values():
            self._names[family, name] = None
            return
        before = self.variable(family, name)
        seq = -self._seen
        text = value_text(body.text, body.operand).decode()
        created = before.created if before else seq
        self._names[family, name] = Pending(seq, created, body.operand, text)

    def _take_message(self, body: Body, *, own: bool) -> None:
        messages = self._list()
        bodies = messages.bodies
        target = -body.operand if own and body.operand else body.operand
        messages.apply(body.kind, target, self)
        if messages.bodies > bodies:
            self._bodies.append(self._seen)

    def _list(self) -> MessageList:
        if self._messages is None:
            with self._entry.look() as present:
                self._messages = present.message_list().copy()
            self._first = self._messages.bodies
        return self._messages

    # What `MessageList.apply` asks.

    def ordinal(self, seq: int) -> int:
        if seq < 0:
            return self._first + self._bodies.index(-seq)
        with self._entry.look() as present:
            return present.ordinal(seq)

    def ranges_at(self, seq: int) -> list[tuple[int, int]]:
        with self._entry.look() as present:
            return present.ranges_at(seq)

    # What the doors ask.

    def variable(self, family: int, name: str) -> Found | None:
        if (family, name) in self._names:
            return self._names[family, name]
        if family in self._fetched:
            return self._fetched[family].get(name)
        with self._entry.look() as present:
            return present.variable(family, name)

    def variables(self, family: int) -> Mapping[str, Found]:
        found: dict[str, Found | None] = {**self._before(family)}
        found |= {name: kept for (known, name), kept in self._names.items() if known == family}
        return {name: kept for name, kept in sorted(found.items()) if kept is not None}

    def _before(self, family: int) -> Mapping[str, Found]:
        if family in self._fetched:
            return self._fetched[family]
        with self._entry.look() as present:
            return present.variables(family)

    def fetch(self) -> None:
        self._fetched = {family: self._before(family) for family in (VARIABLES, METADATA)}
        self._list()

    def count(self, family: int) -> int:
        return len(self.variables(family))

    def message_count(self) -> int:
        return len(self._list())

    def messages(self, start: int, stop: int) -> list[tuple[int, str | None]]:
        return [
            message
            for first, end in self._list().ordinals(start, stop)
            for message in self._recorded(first, end)
        ]

    def contents(self, start: int, stop: int) -> list[Any]:
        return [message_of(text) for _, text in self.messages(start, stop)]

    def _recorded(self, first: int, end: int) -> Iterator[tuple[int, str | None]]:
        if first < self._first:
            with self._entry.look() as present:
                yield from present.recorded(first, min(end, self._first))
        for ordinal in range(max(first, self._first), end):
            said = self._bodies[ordinal - self._first]
            body = self.said[said - 1]
            yield -said, (body(1) if callable(body) else body).text.decode()

    def facts(self, seq: int) -> Facts:
        if seq < 0:
            return PendingFacts(None, self._actor)
        with self._entry.look() as present:
            return present.facts(seq)


def to_commit(batches: "Sequence[Batch]", raised: object) -> "list[Batch]":
    """Return the batches that have anything to commit; none where their block has raised."""
    return [batch for batch in batches if batch.has_said] if raised is None else []


def commit(engine: Engine, batches: "Sequence[Batch]") -> None:
    """Commit batches together, if there are any."""
    if batches:
        settle(batches, engine.append([batch.draft() for batch in batches]))


def settle(batches: "Sequence[Batch]", recorded: Sequence[Recorded]) -> None:
    """Let each batch take in what was recorded of it."""
    for batch, written in zip(batches, recorded, strict=True):
        batch.settle(written)


class Batch:
    """Events that happen together: a context manager that commits them when its block ends well.

    It sees the session as it was at entry and what it wrote itself. Where somebody else wrote in
    between, the commit is a Conflict and nothing is written, unless it was begun with `expect=ANY`.
    What it wrote has no sequence before the commit: `info` counts it -1, -2, … without a time.
    """

    variables = doors.variables
    metadata = doors.metadata
    messages = doors.messages

    def __init__(
        self,
        entry: Still,
        writer: Writer,
        actor: str | None,
        drafted: Callable[[Said], Draft],
        settle: Callable[[Recorded], Sequence[Event]],
    ) -> None:
        self._entry = entry
        self._writer = writer
        self._overlay = _Overlay(entry, actor)
        self._drafted = drafted
        self._settle = settle
        self._entered = False
        self._open = False
        self._commits = True
        self._events: Sequence[Event] = ()

    @property
    def seq(self) -> int:
        """The head of the session when the batch was begun."""
        return self._entry.seq

    @property
    def events(self) -> Sequence[Event]:
        """The recorded events, once the block has ended."""
        return self._events

    @property
    def engine(self) -> Engine:
        """The handle through which it is recorded."""
        return self._entry.engine

    def record(self, kind: str, data: Any = None, *, version: int | None = None) -> None:
        """Add an event of a kind of your own, `app.order.placed`, in its newest version."""
        self.say([self._writer.record(kind, data, version)], nothing)

    def __enter__(self) -> Self:
        """Begin; raises Closed for a batch that had its block."""
        if self._entered:
            raise Closed("the batch had its block", "begin another one for another block")
        self._entered = self._open = True
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Commit all that was said, or nothing where the block raised."""
        self.end()
        if self._commits:
            commit(self.engine, to_commit([self], kind))

    def join(self) -> None:
        """Leave the commit to a transaction, which takes the draft and settles it."""
        self._open, self._commits = True, False

    def end(self) -> None:
        """Take no more."""
        self._entered, self._open = True, False

    def fetch(self) -> Self:
        """Read all names and the list of messages now, so that the block waits for no disk."""
        self._overlay.fetch()
        return self

    @property
    def has_said(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._overlay.said)

    def draft(self) -> Draft:
        """Return what was said as a draft."""
        return self._drafted(self._overlay.said)

    def settle(self, recorded: Recorded) -> None:
        """Take in what was recorded."""
        self._events = self._settle(recorded)

    # What the doors ask for.

    @property
    def writer(self) -> Writer:
        """What makes bodies, within the limits of the store."""
        return self._writer

    def look(self) -> AbstractContextManager[Present]:
        """Look at the session at entry, with what this batch wrote over it."""
        return nullcontext(self._overlay.looked())

    def variable(self, family: int, name: str) -> Found | None:
        """Return what a name stands for."""
        return self._overlay.looked().variable(family, name)

    def still(self) -> Side:
        """Return a side that stays where this batch is now."""
        still = copy(self)
        still.part()
        return still

    def part(self) -> None:
        """Take no more, and go on showing what is there now: this is a copy of a batch."""
        self.end()
        self._overlay = copy(self._overlay.looked())
        self._overlay.part()

    def say(
        self,
        said: Said | Callable[[Present], Said],
        result: Callable[[Sequence[Event]], Result],
    ) -> Result:
        """Keep what is said until the block ends; raises Closed outside of it."""
        if not self._open:
            raise Closed("the batch is not open", "write to it inside its with block")
        self._overlay.said += said(self._overlay.looked()) if callable(said) else said
        return result(())
