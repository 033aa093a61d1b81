"""The plain model of looking at a whole store: listings, searches, and watching what comes."""

from collections.abc import Sequence
from typing import Any

import attrs

from evstore.errors import Refused
from tests.model.state import Fact
from tests.model.store import Handle, Life, ModelStore

Found = tuple[str, int, int]  # session, index, seq
Seen = tuple[int, int, str]  # position, seq, kind


# Listings.


def listed(store: ModelStore, prefix: str, where: Any, order: str, *, deleted: bool) -> list[Any]:
    """What a listing tells, of the lives in their order."""
    found = [
        (number, life)
        for number, life in enumerate(store.lives)
        if life.over(store.now_us) == deleted and life.id.startswith(prefix)
        if all(holds(life, name, value) for name, value in where.items())
    ]
    if order == "updated":
        found.sort(key=lambda each: (each[1].changed_us, each[0]), reverse=True)
    else:
        found.sort(key=lambda each: (each[1].id, each[0]))
    return [told(life, store.now_us) for _, life in found]


def holds(life: Life, name: str, value: Any) -> bool:
    """Whether a life has a piece of metadata, of this very type and value."""
    metadata = life.past[-1].metadata
    return name in metadata and repr(metadata[name][1]) == repr(value)


def told(life: Life, now_us: int) -> tuple[Any, ...]:
    state = life.at(life.head) if life.over(now_us) else life.past[-1].by(now_us)
    deadline_us = life.lease.expires_us if life.lease else None
    counts = len(state.messages), len(state.variables)
    return (life.id, life.uid, life.head, life.born_us, life.changed_us, *counts, deadline_us)


# Searches.


def matches(query: str, message: Any) -> bool:
    """Whether a message holds the words asked for: all of them, as a phrase, or as beginnings."""
    words = str(message["content"]).split() if isinstance(message["content"], str) else []
    if query.startswith('"'):
        return f" {query[1:-1]} " in f" {' '.join(words)} "
    return all(
        any(word.startswith(asked[:-1]) if asked.endswith("*") else word == asked for word in words)
        for asked in query.split()
    )


def found_in(life: Life | None, seq: int, query: str) -> list[Found]:
    """Where a scan of the messages at a moment finds what is asked for."""
    if life is None:
        return []
    return [
        (life.id, index, number)
        for index, (number, message) in enumerate(life.past[seq].messages)
        if matches(query, message)
    ]


def found_anywhere(store: ModelStore, query: str) -> list[Found]:
    """The same in all living sessions; each message once, in the oldest that shows it."""
    found: dict[Any, Found] = {}
    for life in store.lives:
        if not life.over(store.now_us):
            for place in found_in(life, life.head, query):
                fact = life.facts[place[2] - 1]
                found.setdefault((id(fact.recorder), place[2]), place)
    return sorted(found.values())


# Watches.


@attrs.define
class Watcher:
    """Who follows a store, or a life of it, and how much of it was seen.

    Of a life that is yet to come it knows the id, since when it waits, and whether it wants what
    that life shares as well.
    """

    store: ModelStore
    life: Life | None = None
    seen: int = 0
    session_id: str | None = None
    whole: bool = False

    @property
    def log(self) -> Sequence[Fact]:
        """All that there is to see."""
        if self.life is not None:
            return self.life.facts
        return [fact for commit in self.store.commits for fact in commit.facts]

    def poll(self) -> list[Seen]:
        """What came since the last time."""
        if self.session_id is not None and self.life is None:
            self._begin()
            if self.life is None:
                return []
        news = self.log[self.seen :]
        self.seen += len(news)
        return [(fact.position, fact.seq, fact.kind) for fact in news]

    def _begin(self) -> None:
        """Find the first batch of a life with the id; that one has expired is no beginning."""
        for commit in self.store.commits[self.seen :]:
            kinds = [fact.kind for fact in commit.facts]
            if commit.life.id == self.session_id and kinds != ["session.expired"]:
                self.life, self.seen = commit.life, 0 if self.whole else commit.first - 1
                return


def watch_store(store: ModelStore, after: int | None) -> Watcher:
    """Follow a store after a position, or now."""
    if after is None:
        after = store.position
    if not 0 <= after <= store.position:
        raise Refused(f"there is no position {after}")
    return Watcher(store, seen=sum(commit.count for commit in store.commits[:after]))


def watch_life(handle: Handle, after: int | None) -> Watcher:
    """Follow a life after a seq, or now; or the next life that has the id."""
    life = handle.look()
    head = life.head if life else 0
    if after is not None and not 0 <= after <= head:
        raise Refused(f"there is no seq {after}")
    if life is None:
        whole = after is not None
        return Watcher(handle.store, None, handle.store.position, handle.id, whole)
    return Watcher(handle.store, life, head if after is None else after)
