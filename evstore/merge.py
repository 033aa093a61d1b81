"""Bringing branches together: a three-way merge, decided by what both sides had in common."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import attrs

from evstore.diff import canonical, common_seq, value_or_absent
from evstore.errors import Refused
from evstore.events import (
    VARIABLES,
    Body,
    Event,
    Said,
    Writer,
    merge_cause,
    message_of,
    set_again,
)
from evstore.sides import Found
from evstore.sqlite.lives import Life
from evstore.sqlite.read import Moment

Prefer = Literal["ours", "theirs"] | None
_UNWRITTEN = "a session that was never written has nothing to merge: write to it first"


class Contested(NamedTuple):
    """A variable that both sides changed, differently; ABSENT where one has none."""

    name: str
    base: Any
    ours: Any
    theirs: Any


@attrs.frozen
class Merge:
    """What a merge recorded, and what it could not decide; with conflicts left, nothing is."""

    events: tuple[Event, ...]
    conflicts: tuple[Contested, ...]


class Decision:
    """What a merge of a life up to a sequence records; with conflicts, known once called, nothing.

    Raises Refused for an unknown preference, and for a session that was never written.
    """

    def __init__(self, writer: Writer, life: Life | None, seq: int, prefer: Prefer) -> None:
        if prefer not in (None, "ours", "theirs"):
            raise Refused(f"prefer={prefer!r} is unknown: give 'ours' or 'theirs', or nothing")
        if life is None:
            raise Refused(_UNWRITTEN)
        self._writer = writer
        self._life = life
        self._seq = seq
        self._prefer = prefer
        self.conflicts: tuple[Contested, ...] = ()

    @property
    def cause(self) -> str:
        """The cause of the batch that records it, which names what was merged."""
        return merge_cause(self._life.uid, self._seq)

    def __call__(self, ours: Moment) -> Said:
        """Return what to record, as things stand under the lock."""
        theirs = ours.of(self._life, self._seq)
        said, self.conflicts = decide(self._writer, ours, theirs, self._prefer)
        return said


def decide(
    writer: Writer, ours: Moment, theirs: Moment, prefer: Prefer
) -> tuple[Said, tuple[Contested, ...]]:
    """Return what merges `theirs` into `ours`, and the conflicts; raises Refused for strangers.

    A variable that only one side changed since the common base is taken from it. Messages that the
    other side recorded since then, and still has, are appended in their order.
    """
    base, since = _base(ours, theirs)
    if theirs.seq <= since:  # All of it was merged before, or is shared.
        return (), ()
    contested = []
    said: list[Body] = []
    mine, other, common = (side.variables(VARIABLES) for side in (ours, theirs, base))
    for name in sorted({*mine, *other, *common}):
        sides = Sides(common.get(name), mine.get(name), other.get(name))
        if sides.only_theirs or (sides.differ and prefer == "theirs"):
            said.append(_taken(writer, name, sides.theirs))
        elif sides.differ and prefer is None:
            contested.append(Contested(name, *(value_or_absent(found) for found in sides)))
    if contested:
        return (), tuple(contested)
    said += [writer.add(message) for message in _new_messages(ours, theirs, since)]
    return said, ()


class Sides(NamedTuple):
    """One variable in the common base and on both sides."""

    base: Found | None
    ours: Found | None
    theirs: Found | None

    @property
    def only_theirs(self) -> bool:
        """Whether the other side alone changed it."""
        base, ours, theirs = map(canonical, self)
        return ours == base != theirs

    @property
    def differ(self) -> bool:
        """Whether both sides changed it, and not alike."""
        base, ours, theirs = map(canonical, self)
        return ours != theirs and base not in (ours, theirs)


def _taken(writer: Writer, name: str, found: Found | None) -> Body:
    if found is None or found.text is None:
        return writer.delete(VARIABLES, name)
    return set_again(name, found.text, found.operand)


def _base(ours: Moment, theirs: Moment) -> tuple[Moment, int]:
    """Return the newest state that both sides come from, and the sequence of theirs it covers.

    That is what was last merged, either way, or the nearest common ancestor.
    """
    if ours.life is None or theirs.life is None:
        raise Refused(_UNWRITTEN)
    ancestor = common_seq(ours, theirs)
    if not _related(ours.life, theirs.life):
        raise Refused("the sessions have no common ancestor: merge forks of one session")
    since = max([ancestor, *(known for known, _ in _known(ours, theirs))])
    given = max((known for known, _ in _known(theirs, ours)), default=0)
    return max(theirs.at(since), ours.at(given), key=lambda state: state.position), since


def _known(into: Moment, other: Moment) -> list[tuple[int, range]]:
    """Return up to where each merge knows another side, and its seqs where it knew no more."""
    found: list[tuple[int, range]] = []
    for seqs, source in into.merged():
        known = common_seq(source, other)
        found.append((known, seqs if known == source.seq else range(0)))
    return found


def _related(one: Life, other: Life) -> bool:
    return one.lineage[0].number == other.lineage[0].number


def _new_messages(ours: Moment, theirs: Moment, since: int) -> list[Mapping[str, Any]]:
    """Return what the other side recorded after `since` and still has, but for what it got here."""
    assert ours.life is not None
    got_here = {seq for _, seqs in _known(theirs, ours) for seq in seqs}
    first_new = theirs.at(since).message_list().bodies
    return [
        message_of(text)
        for first, end in theirs.message_list().ranges
        if end > first_new
        for seq, text in theirs.recorded(max(first, first_new), end)
        if seq not in got_here and text is not None
    ]
