"""The law: what an event does to a state. `folding.fold` applies it to a whole log.

A state is a set of references into the log: for every name the seq of its newest event, and for the
message list a few ranges over the messages ever recorded. `Outline.apply_all` alone knows what an
event does; it looks at (seq, kind, name, operand) and never at stored data. `Tail` spares what was
taken back from being applied at all.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple, Protocol

import attrs

from evstore.events import (
    BODIES,
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
)

_DELETIONS = frozenset(DELETIONS.values())
_ANEW = frozenset({MESSAGES_CLEARED, MESSAGES_REVERTED})  # with which a list begins anew
Range = tuple[int, int]
ListEvent = tuple[int, str, int | None]  # seq, kind and operand of an event about messages


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


class MessageList:
    """The list of messages as ranges [from, to) of ordinals, in the order of the list.

    The n-th message ever recorded, added or as a replacement, has the ordinal n - 1. Appending
    grows the last range; everything else splices ranges, and no message is ever copied.
    """

    __slots__ = ("_counted", "_counts", "bodies", "ranges")

    def __init__(self, bodies: int = 0, ranges: list[Range] | None = None) -> None:
        self.bodies = bodies
        self.ranges = [] if ranges is None else ranges
        self._counts: list[int] = []  # how many messages there are up to the end of each range
        self._counted: int | None = None  # how many bodies there were when those were counted

    def __eq__(self, other: object) -> bool:
        """Tell whether the other lists the same messages, of as many recorded."""
        if not isinstance(other, MessageList):
            return NotImplemented
        return (self.bodies, self.ranges) == (other.bodies, other.ranges)

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        """Return how many messages the list holds."""
        return self._counted_up()[-1] if self.ranges else 0

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
            self._become([])
        elif kind == MESSAGES_REVERTED:
            self._become(past.ranges_at(operand or 0))

    def _append(self) -> None:
        new = self.bodies
        self.bodies += 1
        if self.ranges and self.ranges[-1][1] == new:
            self.ranges[-1] = (self.ranges[-1][0], new + 1)
        else:
            self.ranges.append((new, new + 1))

    def _become(self, ranges: list[Range]) -> None:
        self.ranges = ranges
        self._counted = None

    def _splice(self, old: int, new: int | None) -> None:
        place = self._place(old)
        if place is not None:
            start, end = self.ranges[place]
            pieces = [
                (start, old),
                *([(new, new + 1)] if new is not None else []),
                (old + 1, end),
            ]
            self.ranges[place : place + 1] = [piece for piece in pieces if piece[0] < piece[1]]
            self._counted = None

    def _place(self, ordinal: int) -> int | None:
        """Return which range holds an ordinal, or None where it is not in the list.

        Ranges are in order but for replacements and what was reverted, so a guess comes first.
        """
        guess = bisect_right(self.ranges, ordinal, key=itemgetter(0)) - 1
        if guess >= 0 and self.ranges[guess][0] <= ordinal < self.ranges[guess][1]:
            return guess
        for place, (start, end) in enumerate(self.ranges):
            if start <= ordinal < end:
                return place
        return None

    def _counted_up(self) -> list[int]:
        if self._counted != self.bodies:
            self._counts = [*accumulate(end - start for start, end in self.ranges)]
            self._counted = self.bodies
        return self._counts

    def ordinals(self, start: int, stop: int) -> list[Range]:
        """Return the ranges of ordinals that hold the messages with index start … stop - 1."""
        found, counts = [], self._counted_up()
        for place in range(bisect_right(counts, start), len(counts)):
            first, end = self.ranges[place]
            index = counts[place] - (end - first)
            if index >= stop:
                break
            found.append((first + max(start - index, 0), min(end, first + stop - index)))
        return found

    def holds(self, ordinal: int) -> bool:
        """Tell whether the message with this ordinal is in the list."""
        return self._place(ordinal) is not None


class Tail:
    """The events about messages after a moment, and which of them count at their end.

    What was taken back counts no more: the newest event with which the list begins anew decides,
    then the newest up to the moment that it names, and so on, down to `base`, the moment whose list
    is carried on. That lies before all of them where they go back further.
    """

    __slots__ = ("_bodies", "_stretches", "base")

    def __init__(self, after: int, bodies: int, events: Sequence[ListEvent]) -> None:
        counts = [*accumulate((kind in BODIES for _, kind, _ in events), initial=bodies)]
        self._bodies = counts[-1]
        self._stretches: list[tuple[int, Sequence[ListEvent]]] = []  # the newest first
        self.base = after
        end = len(events)
        for place in reversed(range(len(events))):
            _, kind, to = events[place]
            if kind in _ANEW and place < end:
                self._stretches.append((counts[place + 1], events[place + 1 : end]))
                to = 0 if kind == MESSAGES_CLEARED else to or 0
                end = bisect_right(events, to, 0, place, key=itemgetter(0))
                if to < after:
                    self.base = to
                    break
        else:
            self._stretches.append((bodies, events[:end]))

    def carried_on(self, base: MessageList, past: Past) -> MessageList:
        """Return the list after all of the events, by the list at `base`."""
        ranges = base.ranges.copy()
        for bodies, events in reversed(self._stretches):
            messages = MessageList(bodies, ranges)
            for _, kind, operand in events:
                messages.apply(kind, operand, past)
            ranges = messages.ranges
        return MessageList(self._bodies, ranges)


Names = dict[int, dict[str, Reference]]  # where the names of each family stand


class Outline:
    """A state as references into the log, at `seq`; `names` keeps tombstones."""

    __slots__ = ("messages", "names", "seq")

    def __init__(
        self, seq: int = 0, names: Names | None = None, messages: MessageList | None = None
    ) -> None:
        self.seq = seq
        self.names = {VARIABLES: {}, METADATA: {}, LABELS: {}} if names is None else names
        self.messages = MessageList() if messages is None else messages

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
