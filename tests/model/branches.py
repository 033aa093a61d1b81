"""The plain model of two moments side by side: what differs, and what a merge of them takes."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from evstore.errors import Refused
from evstore.events import ABSENT
from tests.model.state import Fact, State
from tests.model.store import Handle, Life, ModelStore, When

Named = dict[str, tuple[int, Any]]
Shown = tuple[Life | None, State]
MERGE = "merge:"


def value_in(names: Named, name: str) -> Any:
    return names[name][1] if name in names else ABSENT


def canonical(names: Named, name: str) -> str:
    """A text that is the same for values that differ in the order of keys at most."""
    value = value_in(names, name)
    return f"dict {sorted(value.items())}" if isinstance(value, dict) else repr(value)


# What differs.


def changed(before: Named, after: Named) -> dict[str, tuple[Any, Any]]:
    """The values before and after, of the names where they differ."""
    return {
        name: (value_in(before, name), value_in(after, name))
        for name in sorted({*before, *after})
        if canonical(before, name) != canonical(after, name)
    }


def new_in(old: Shown, new: Shown) -> list[Any]:
    """The messages that one state has and another has not; each is the event that it came by."""
    known = [id(fact) for fact, _ in carried(*old)]
    return [message for fact, message in carried(*new) if id(fact) not in known]


def carried(life: Life | None, state: State) -> list[tuple[Fact, Any]]:
    """The messages of a state, with the events that carried them."""
    return [(life.facts[seq - 1], message) for seq, message in state.messages if life]


def difference(before: Shown, after: Shown) -> str:
    """What is other after than before, as text."""
    (_, old), (_, new) = before, after
    named = [changed(old.variables, new.variables), changed(old.metadata, new.metadata)]
    return repr([*named, new_in(before, after), new_in(after, before)])


# A merge.


def shared(one: Sequence[Fact], other: Sequence[Fact]) -> int:
    """How many events two logs begin with together."""
    return len(list(takewhile(lambda pair: pair[0] is pair[1], zip(one, other, strict=False))))


def merge(ours: Handle, theirs: Handle, when: When, prefer: str | None) -> tuple[int, list[Any]]:
    """Bring in what is new in another branch; return how many events, and the conflicts."""
    seq, store = theirs.moment(when), ours.store
    with store.all_or_none(ours):
        if theirs.life is None:
            raise Refused("never written")
        ours.record([])
        life = ours.life or store.living(ours.id)
        if life is None:
            raise Refused("never written")
        facts, conflicts = taken(store, life, theirs.life, seq, prefer)
        ours.record(facts, cause=f"{MERGE}{theirs.life.uid}:{seq}")
    return len(facts), conflicts


def taken(
    store: ModelStore, ours: Life, theirs: Life, seq: int, prefer: str | None
) -> tuple[list[Fact], list[Any]]:
    """What one life takes from another at a seq, and what both changed in their own way."""
    base, since = common(store, ours, theirs, seq)
    sides = [side.by(store.now_us) for side in (base, ours.past[-1], theirs.past[seq])]
    was, mine, other = (side.variables for side in sides)
    facts, conflicts = [], []
    for name in sorted({*was, *mine, *other}):
        before, here, there = (canonical(side, name) for side in (was, mine, other))
        if there in (before, here):
            continue
        if here == before or prefer == "theirs":
            facts.append(sides[2].setting(name))
        elif prefer is None:
            conflicts.append((name, *(value_in(side, name) for side in (was, mine, other))))
    if conflicts:
        return [], conflicts
    known = brought(store, ours, theirs.facts[:seq])
    for number, message in sides[2].messages:
        if number > since and number not in known:
            facts.append(Fact("message.added", None, {"message": message}))
    return facts, []


def common(store: ModelStore, ours: Life, theirs: Life, seq: int) -> tuple[State, int]:
    """The newest state that both sides know, and up to where ours knows theirs.

    A side knows its own past, and all that it merged.
    """
    past = theirs.facts[:seq]
    if ours is not theirs and shared(ours.facts, past) == 0:
        raise Refused("no common ancestor")
    since = max(shared(known, past) for known in (ours.facts, *merged(store, ours.facts).values()))
    given = max((shared(known, ours.facts) for known in merged(store, past).values()), default=0)
    places = [(position(theirs, since), since, theirs), (position(ours, given), given, ours)]
    _, at, life = max(places, key=lambda place: place[:2])
    return life.past[at], since


def position(life: Life, seq: int) -> int:
    """The place of a moment in the order of the store."""
    return life.facts[seq - 1].position if seq else 0


def merged(store: ModelStore, facts: Sequence[Fact]) -> dict[int, Sequence[Fact]]:
    """The logs that were merged in a log, up to where they were, by the positions of those."""
    found = {}
    for place, cause in {fact.position: fact.cause or "" for fact in facts}.items():
        if cause.startswith(MERGE):
            _, uid, seq = cause.split(":")
            (source,) = [life for life in store.lives if life.uid == uid]
            found[place] = source.facts[: int(seq)]
    return found


def brought(store: ModelStore, ours: Life, facts: Sequence[Fact]) -> set[int]:
    """The events by which a log got what we have ourselves."""
    places = {
        place
        for place, known in merged(store, facts).items()
        if shared(known, ours.facts) == len(known)
    }
    return {seq for seq, fact in enumerate(facts, 1) if fact.position in places}
