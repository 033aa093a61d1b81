"""Differences: what is other in one moment than in another, of one session or of two."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import orjson

from evstore.events import ABSENT
from evstore.sides import Found
from evstore.sqlite.read import Moment
from evstore.state import Range
from evstore.variables import value_of


@attrs.frozen
class Diff:
    """What changed: (before, after) by name, ABSENT where there was nothing; and the messages."""

    variables: dict[str, tuple[Any, Any]]
    metadata: dict[str, tuple[Any, Any]]
    added: list[Any]
    removed: list[Any]

    def __bool__(self) -> bool:
        """Tell whether anything changed at all."""
        return bool(self.variables or self.metadata or self.added or self.removed)


def names(before: Mapping[str, Found], after: Mapping[str, Found]) -> dict[str, tuple[Any, Any]]:
    """Return (value before, value after) of the names whose values differ, in order."""
    return {
        name: (value_or_absent(before.get(name)), value_or_absent(after.get(name)))
        for name in sorted({*before, *after})
        if canonical(before.get(name)) != canonical(after.get(name))
    }


def value_or_absent(found: Found | None) -> Any:
    """Return the value of what was found, or ABSENT where nothing was."""
    return ABSENT if found is None else value_of(found)


def canonical(found: Found | None) -> str | None:
    """Return a value as text without the order of keys, which dicts do not compare by."""
    if found is None:
        return None
    return "" if found.text is None else repr(_ordered(orjson.loads(found.text)))


def _ordered(stored: Any) -> Any:
    if type(stored) is list:
        return list(map(_ordered, stored))
    if type(stored) is not dict:
        return stored
    pairs = stored.get("$dict") if len(stored) == 1 else None
    if type(pairs) is list:  # A dict whose keys are not all plain text.
        return {"$dict": sorted(map(_ordered, pairs), key=repr)}
    return {key: _ordered(stored[key]) for key in sorted(stored)}


def messages(before: Moment, after: Moment) -> tuple[list[Range], list[Range]]:
    """Return the ordinals of the messages that only `after` has, and of those only `before` has.

    A message is the same where it is the same event: up to the common ancestor the ordinals of both
    sides mean the same messages, and beyond it none.
    """
    shared = before.at(common_seq(before, after)).message_list().bodies
    old, new = before.message_list().ranges, after.message_list().ranges
    return subtract(new, _below(old, shared)), subtract(old, _below(new, shared))


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


def _below(ranges: list[Range], bound: int) -> list[Range]:
    return [(start, min(end, bound)) for start, end in ranges if start < bound]


def common_seq(one: Moment, other: Moment) -> int:
    """Return the newest sequence that both moments share, or 0."""
    common = 0
    if one.life is None or other.life is None:
        return common
    lineages = (one.life.until(one.seq), other.life.until(other.seq))
    for mine, theirs in zip(*lineages, strict=False):
        if mine[:2] != theirs[:2]:
            break
        common = min(mine[2], theirs[2])
        if mine[2] != theirs[2]:
            break
    return common
