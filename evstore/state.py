"""The law: what a log means. A projection in any engine is only a cache of what `fold` returns.

A state is a set of references into the log: for every name the seq of its newest event, and for the
message list a few ranges over the messages ever recorded. `Outline.apply_all` alone knows what an
event does; it looks at (seq, kind, name, operand) and never at stored data.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import attrs

from evstore import values
from evstore.errors import TooLarge, TooMany
from evstore.events import (
    DELETIONS,
    FAMILY,
    LABELS,
    MESSAGE_ADDED,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    MESSAGES_CLEARED,
    MESSAGES_REVERTED,
    METADATA,
    VARIABLES,
    Event,
    from_microseconds,
    operand,
    value_text,
)
from evstore.limits import Limits

_DELETIONS = frozenset(DELETIONS.values())
Range = tuple[int, int]


class Reference(NamedTuple):
    """Where a name stands: `created` is None for a tombstone.

    `created` is the seq of the set since which the name was never deleted; `operand` is the
    deadline (µs) of a variable, or the seq that a label points at.
    """

    seq: int
    created: int | None
    operand: int | None


def step(before: Reference | None, seq: int, kind: str, operand: int | None) -> Reference:
    """Return where a name stands after one more event about it."""
    if kind in _DELETIONS:
        return Reference(seq, None, None)
    created = before.created if before else None
    # Millions are made where a log is folded, and this takes half the time of Reference(…).
    return tuple.__new__(Reference, (seq, created or seq, operand))


def is_there(family: int, reference: Reference | None, now_us: int) -> bool:
    """Tell whether a name has a value at a time: it was set, and its deadline is still to come."""
    if reference is None or reference.created is None:
        return False
    return family != VARIABLES or reference.operand is None or reference.operand > now_us


class Past(Protocol):
    """What applying an event may ask about the log before it."""

    def ordinal(self, seq: int) -> int:
        """Return how many messages were recorded before the one that event `seq` carries."""

    def ranges_at(self, seq: int) -> list[Range]:
        """Return the ranges of the message list as of `seq`."""


@attrs.define
class MessageList:
    """The list of messages as ranges [from, to) of ordinals, in the order of the list.

    The n-th message ever recorded, added or as a replacement, has the ordinal n - 1. Appending
    grows the last range; everything else splices ranges, and no message is ever copied.
    """

    bodies: int = 0
    ranges: list[Range] = attrs.field(factory=list)

    def __len__(self) -> int:
        """Return how many messages the list holds."""
        return sum(end - start for start, end in self.ranges)

    def copy(self) -> "MessageList":
        """Return a list that can change on its own."""
        return MessageList(self.bodies, self.ranges.copy())

    def apply(self, kind: str, operand: int | None, past: Past) -> None:
        """Take in one event."""
        if kind == MESSAGE_ADDED:
            self._append()
        elif kind == MESSAGE_REMOVED:
            self._splice(past.ordinal(operand or 0), None)
        elif kind == MESSAGE_REPLACED:
            self._splice(past.ordinal(operand or 0), self.bodies)
            self.bodies += 1
        elif kind == MESSAGES_CLEARED:
            self.ranges = []
        elif kind == MESSAGES_REVERTED:
            self.ranges = past.ranges_at(operand or 0)

    def _append(self) -> None:
        new = self.bodies
        self.bodies += 1
        if self.ranges and self.ranges[-1][1] == new:
            self.ranges[-1] = (self.ranges[-1][0], new + 1)
        else:
            self.ranges.append((new, new + 1))

    def _splice(self, old: int, new: int | None) -> None:
        for index, (start, end) in enumerate(self.ranges):
            if start <= old < end:
                pieces = [
                    (start, old),
                    *([(new, new + 1)] if new is not None else []),
                    (old + 1, end),
                ]
                self.ranges[index : index + 1] = [piece for piece in pieces if piece[0] < piece[1]]
                return

    def ordinals(self, start: int, stop: int) -> list[Range]:
        """Return the ranges of ordinals that hold the messages with index start … stop - 1."""
        found, index = [], 0
        for first, end in self.ranges:
            low, high = max(start - index, 0), min(stop - index, end - first)
            if low < high:
                found.append((first + low, first + high))
            index += end - first
        return found

    def holds(self, ordinal: int) -> bool:
        """Tell whether the message with this ordinal is in the list."""
        return any(start <= ordinal < end for start, end in self.ranges)


def subtract(ranges: Iterable[Range], minus: Iterable[Range]) -> list[Range]:
    """Return what of some ranges is in none of the others, in their order."""
    gone = sorted(minus)
    left: list[Range] = []
    for first, end in ranges:
        start = first
        for low, high in gone[max(bisect_right(gone, (first, first)) - 1, 0) :]:
            if low >= end:
                break
            if start < low:
                left.append((start, low))
            start = max(start, high)
        if start < end:
            left.append((start, end))
    return left


Names = dict[int, dict[str, Reference]]  # where the names of each family stand


def _no_names() -> Names:
    return {VARIABLES: {}, METADATA: {}, LABELS: {}}


@attrs.define
class Outline:
    """A state as references into the log, at `seq`; `names` keeps tombstones."""

    seq: int = 0
    names: Names = attrs.field(factory=_no_names)
    messages: MessageList = attrs.field(factory=MessageList)

    def apply(self, seq: int, kind: str, name: str | None, operand: int | None, past: Past) -> None:
        """Take in one event; a kind that changes no state only moves `seq`."""
        self.apply_all(((seq, kind, name, operand),), past)

    def apply_all(
        self, events: Iterable[tuple[int, str, str | None, int | None]], past: Past
    ) -> None:
        """Take in events in order, each as (seq, kind, name, operand)."""
        names, apply_to_messages = self.names, self.messages.apply
        seq = self.seq
        for seq, kind, name, number in events:
            family = FAMILY.get(kind)
            if family is None or name is None:
                apply_to_messages(kind, number, past)
            else:
                known = names[family]
                known[name] = step(known.get(name), seq, kind, number)
        self.seq = seq

    @property
    def name_count(self) -> int:
        """How many names it keeps, tombstones included."""
        return sum(map(len, self.names.values()))

    def living(self, family: int) -> dict[str, Reference]:
        """Return the names of a family that are not deleted, in order of name."""
        names = self.names[family]
        return {name: names[name] for name in sorted(names) if names[name].created is not None}


@attrs.frozen
class VariableInfo:
    """What is known about a variable without its value; sizes in bytes of the stored text."""

    seq: int
    time: datetime | None
    created_at: datetime | None
    actor: str | None
    size_bytes: int
    type: str
    expires_at: datetime | None


@attrs.frozen
class StoredVariable:
    """One variable inside a VariableStore: the text of its value, and when it came to be."""

    text: bytes
    seq: int = 0
    time: datetime | None = None
    created_at: datetime | None = None
    actor: str | None = None
    expires_at: datetime | None = None

    @property
    def info(self) -> VariableInfo:
        """The facts without the value."""
        return VariableInfo(
            self.seq,
            self.time,
            self.created_at,
            self.actor,
            len(self.text),
            values.type_name(self.text),
            self.expires_at,
        )


@attrs.frozen
class VariableStore:
    """The variables of one session as a value: every change returns a new store."""

    variables: Mapping[str, StoredVariable] = attrs.field(factory=dict)
    limits: Limits = Limits()

    def set(
        self, name: str, value: Any, *, time: datetime | None = None, actor: str | None = None
    ) -> "VariableStore":
        """Return a store in which the variable has this value.

        Raises NotStorable, TooLarge, TooMany and BadName by the store's limits.
        """
        self.limits.check_name("name", name)
        text = values.encode(value)
        if len(text) > self.limits.value_bytes_max:
            raise TooLarge(f"the value of {name!r}", len(text), self.limits.value_bytes_max)
        before = self.variables.get(name)
        if before is None and len(self.variables) >= self.limits.variables_max:
            raise TooMany("variables", len(self.variables) + 1, self.limits.variables_max)
        created_at = before.created_at if before else time
        stored = StoredVariable(text, 0, time, created_at, actor)
        return attrs.evolve(self, variables={**self.variables, name: stored})

    def get(self, name: str, default: Any = None) -> Any:
        """Return a fresh copy of the value, or the default."""
        stored = self.variables.get(name)
        return default if stored is None else values.decode(stored.text)

    def delete(self, name: str) -> "VariableStore":
        """Return a store without the variable; raises KeyError where there is none."""
        if name not in self.variables:
            raise KeyError(name)
        rest = {known: stored for known, stored in self.variables.items() if known != name}
        return attrs.evolve(self, variables=rest)

    def merge(self, other: "VariableStore") -> "VariableStore":
        """Return a store with the variables of both; where both have one, the other's."""
        merged = {**self.variables, **other.variables}
        if len(merged) > self.limits.variables_max:
            raise TooMany("variables", len(merged), self.limits.variables_max)
        return attrs.evolve(self, variables=merged)

    def to_map(self) -> dict[str, Any]:
        """Return a fresh dict of all values, in order of name."""
        return {name: values.decode(self.variables[name].text) for name in sorted(self.variables)}

    def info(self, name: str) -> VariableInfo:
        """Return the facts about a variable; raises KeyError where there is none."""
        return self.variables[name].info

    def __len__(self) -> int:
        """Return how many variables there are."""
        return len(self.variables)


@attrs.frozen
class State:
    """What a log means at its last event."""

    seq: int
    variables: VariableStore
    metadata: VariableStore
    labels: Mapping[str, int]
    messages: tuple[Event, ...]
    outline: Outline = attrs.field(repr=False)


class _Log:
    """The events folded so far, as `Outline.apply` may ask about them."""

    def __init__(self) -> None:
        self.events: dict[int, Event] = {}
        self.bodies: list[int] = []
        self._ordinals: dict[int, int] = {}
        self._ranges: dict[int, list[Range]] = {0: []}

    def remember(self, event: Event, messages: MessageList) -> None:
        self.events[event.seq] = event
        if messages.bodies > len(self.bodies):
            self._ordinals[event.seq] = len(self.bodies)
            self.bodies.append(event.seq)
        self._ranges[event.seq] = messages.ranges.copy()

    def ordinal(self, seq: int) -> int:
        return self._ordinals[seq]

    def ranges_at(self, seq: int) -> list[Range]:
        return self._ranges[seq].copy()


def fold(events: Iterable[Event]) -> State:
    """Return the state that a session's events, from the first one on, add up to."""
    outline, log = Outline(), _Log()
    for event in events:
        outline.apply(event.seq, event.kind, event.name, operand(event), log)
        log.remember(event, outline.messages)
    return State(
        seq=outline.seq,
        variables=_variables(outline, VARIABLES, log),
        metadata=_variables(outline, METADATA, log),
        labels={name: ref.operand or 0 for name, ref in outline.living(LABELS).items()},
        messages=tuple(
            log.events[log.bodies[ordinal]]
            for start, end in outline.messages.ranges
            for ordinal in range(start, end)
        ),
        outline=outline,
    )


def _variables(outline: Outline, family: int, log: _Log) -> VariableStore:
    stored = {}
    for name, reference in outline.living(family).items():
        event, created = log.events[reference.seq], log.events[reference.created or 0]
        if event.text is None:  # Forgotten: the name is all that is left.
            continue
        deadline = reference.operand
        stored[name] = StoredVariable(
            value_text(event.text, deadline).encode(),
            event.seq,
            event.time,
            created.time,
            event.actor,
            None if deadline is None else from_microseconds(deadline),
        )
    return VariableStore(stored)
