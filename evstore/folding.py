"""The meaning of a whole log: a projection in any engine is only a cache of what `fold` returns."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import attrs

from evstore import values
from evstore.errors import TooLarge, TooMany
from evstore.events import (
    LABELS,
    METADATA,
    VARIABLES,
    Event,
    from_microseconds,
    operand,
    value_text,
)
from evstore.limits import Limits
from evstore.state import MessageList, Outline, Range, VariableInfo


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
