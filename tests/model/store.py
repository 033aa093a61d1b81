"""The plain model of a store: lives, how they begin and end, and what is written to them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from evstore.errors import (
    Conflict,
    NoSuchMoment,
    ReadOnly,
    Refused,
    SessionExpired,
    SessionNotFound,
    Taken,
)
from evstore.events import ABSENT, ANY
from tests.model.state import SECOND_US, Draft, Fact, State

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Ttl = int | datetime | None  # seconds since the last use, or a fixed end
When = int | str | datetime | None


def time_of(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


@attrs.frozen
class Stacks:
    """The moments before each batch, and where redo leads with what can be undone there."""

    undos: tuple[int, ...] = ()
    redos: tuple[tuple[tuple[int, ...], int], ...] = ()


@attrs.frozen
class Lease:
    """Until when a session lives; where it has a length, each use begins it anew."""

    expires_us: int
    length_us: int | None

    @classmethod
    def of(cls, ttl: int | datetime, now_us: int) -> "Lease":
        """What a ttl means now."""
        if isinstance(ttl, int):
            return cls(now_us + ttl * SECOND_US, ttl * SECOND_US)
        expires_us = (ttl - EPOCH) // timedelta(microseconds=1)
        if expires_us <= now_us:
            raise Refused("a deadline is still to come")
        return cls(expires_us, None)

    def used(self, now_us: int) -> "Lease":
        """What it is after a use: only a twentieth of its length after the last time it moves."""
        if self.length_us is None:
            return self
        passed_us = now_us - (self.expires_us - self.length_us)
        return self if passed_us < self.length_us // 20 else self.renewed(now_us)

    def renewed(self, now_us: int) -> "Lease":
        return self if self.length_us is None else Lease(now_us + self.length_us, self.length_us)


@attrs.define(eq=False, slots=False)
class Life:
    """One life of a session: its events, and the state after every one of them."""

    id: str
    uid: str = ""
    born_us: int = 0
    changed_us: int = 0
    facts: Sequence[Fact] = ()
    past: Sequence[State] = (State(),)
    keys: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    stacks: Sequence[Stacks] = (Stacks(),)
    ended: str | None = None  # by which kind of event
    lease: Lease | None = None

    @property
    def head(self) -> int:
        return len(self.facts)

    def time_us(self, seq: int) -> int:
        """When an event was recorded."""
        return self.facts[seq - 1].time_us if seq else 0

    def at(self, seq: int) -> State:
        """The state at a moment, which shows what had not expired by then, for ever."""
        return self.past[seq].by(self.time_us(seq))

    def expired(self, now_us: int) -> bool:
        """Whether its deadline has passed, on record or not."""
        if self.ended is not None:
            return self.ended == "session.expired"
        return self.lease is not None and self.lease.expires_us <= now_us

    def over(self, now_us: int) -> bool:
        return self.ended is not None or self.expired(now_us)

    def check(self, now_us: int) -> None:
        """Raise what says how it ended, if it did."""
        if self.expired(now_us):
            raise SessionExpired(self.id)
        if self.ended is not None:
            raise SessionNotFound(self.id)

    def append(self, facts: Sequence[Fact], commit: "Commit", stacks: Stacks | None) -> None:
        """Record all facts, or none; `stacks` are those after an undo or redo."""
        past, first = list(self.past), self.head + 1
        for seq, fact in enumerate(facts, first):
            fact.recorder, fact.seq, fact.position = self, seq, commit.position
            fact.time_us, fact.cause = commit.time_us, commit.cause
            state = past[-1].by(commit.time_us)
            names = state.metadata if fact.kind == "metadata.set" else state.variables
            found = names[fact.name][0] if fact.name in names else ABSENT
            if fact.expected not in (ANY, found):
                raise Conflict(self.id, fact.expected, found)
            target = fact.data.get("seq") if fact.kind.startswith("message.") else None
            if target and target not in [known for known, _ in state.messages]:
                raise Conflict(self.id, target, "gone")
            past.append(past[-1].after(seq, fact, past))
        after = stacks or Stacks((*self.stacks[-1].undos, first - 1))
        self.stacks = (*self.stacks, *[after] * len(facts))
        self.facts, self.past = (*self.facts, *facts), tuple(past)
        self.changed_us = commit.time_us


@attrs.frozen
class Commit:
    """One batch in the order of the store; a fork is born with one that holds no event."""

    position: int
    time_us: int
    cause: str | None
    life: Life
    first: int
    count: int

    @property
    def facts(self) -> Sequence[Fact]:
        return self.life.facts[self.first - 1 : self.first - 1 + self.count]


def contents(facts: Sequence[Fact]) -> str:
    """What idempotency compares: all but deadlines."""
    return repr(
        [
            (fact.kind, fact.name, fact.data.get("value"))
            if fact.kind == "variable.set"
            else (fact.kind, fact.name, fact.data)
            for fact in facts
        ]
    )


@attrs.define(slots=False)
class ModelStore:
    """All lives there ever were, in the order of their births, and all batches."""

    now_us: int
    lives: Sequence[Life] = ()
    commits: Sequence[Commit] = ()

    @property
    def position(self) -> int:
        return len(self.commits)

    @contextmanager
    def all_or_none(self, *handles: "Handle") -> Iterator[None]:
        """Forget all that was done inside where it raised."""
        before = [(thing, dict(vars(thing))) for thing in (self, *self.lives, *handles)]
        try:
            yield
        except Exception:
            for thing, known in before:
                vars(thing).update(known)
            raise

    def living(self, session_id: str) -> Life | None:
        """The life that has an id now."""
        found = [life for life in self.lives if life.id == session_id]
        return next((life for life in found if not life.over(self.now_us)), None)

    def commit(
        self,
        life: Life,
        facts: Sequence[Fact],
        cause: str | None = None,
        stacks: Stacks | None = None,
    ) -> None:
        """Append to a life; time never runs back, and in a session it always goes on."""
        newest_us = self.commits[-1].time_us if self.commits else 0
        time_us = max(self.now_us, newest_us, life.changed_us + 1)
        commit = Commit(self.position + 1, time_us, cause, life, life.head + 1, len(facts))
        life.append(facts, commit, stacks)
        self.commits = (*self.commits, commit)

    def end(self, life: Life, kind: str) -> None:
        """Record that a life is over."""
        self.commit(life, [Fact(kind, None, {})])
        life.ended, life.lease = kind, None

    def vacate(self, session_id: str) -> None:
        """Whoever writes to an id records first that its life has expired, if it has."""
        for life in self.lives:
            if life.id == session_id and life.ended is None and life.expired(self.now_us):
                self.end(life, "session.expired")

    def delete(self, session_id: str) -> str:
        life = self.living(session_id)
        if life is None:
            raise SessionNotFound(session_id)
        self.end(life, "session.deleted")
        return "session.deleted"

    def restore(self, life: Life, ttl: Ttl) -> str:
        """Let a life go on, with the deadline of the store; return its uid."""
        if not life.over(self.now_us):
            raise SessionNotFound(life.id)
        with self.all_or_none():
            self.vacate(life.id)
            if self.living(life.id):
                raise Taken(life.id)
            self.commit(life, [Fact("session.restored", None, {})])
            life.ended, life.lease = None, None if ttl is None else Lease.of(ttl, self.now_us)
        return life.uid

    def sweep(self) -> int:
        """Record the end of every life that has expired, the first to do so first."""
        expired = [
            (life.lease.expires_us, number, life)
            for number, life in enumerate(self.lives)
            if life.ended is None and life.lease and life.expired(self.now_us)
        ]
        for _, _, life in sorted(expired, key=lambda each: each[:2]):
            self.end(life, "session.expired")
        return len(expired)

    def fork(self, origin: Life, session_id: str, at: int, ttl: Ttl) -> Life:
        """A life that shares the past of another, and nothing that comes later."""
        with self.all_or_none():
            self.vacate(session_id)
            if self.living(session_id):
                raise Taken(session_id)
            child = Life(session_id, facts=origin.facts[:at], past=origin.past[: at + 1])
            child.stacks, child.changed_us = origin.stacks[: at + 1], origin.time_us(at)
            self.commit(child, [])
            self.bear(child)
            child.lease = None if ttl is None else Lease.of(ttl, self.now_us)
        return child

    def bear(self, life: Life) -> None:
        life.born_us = life.changed_us
        self.lives = (*self.lives, life)


@attrs.define(slots=False)
class Handle:
    """A handle on a session, bound to a life at its first use."""

    store: ModelStore
    id: str
    life: Life | None = None
    read_only: bool = False  # opened by uid when the life was over
    birth: dict[str, Any] = attrs.field(factory=dict)
    ttl: Ttl = None
    store_ttl: Ttl = None

    def look(self) -> Life | None:
        """The life it is bound to, if that is still to be had; a look is a use."""
        now_us = self.store.now_us
        if self.read_only:
            return self.life
        if self.life is None:
            self.life = self.store.living(self.id)
        if self.life is not None:
            self.life.check(now_us)
            self.life.lease = self.life.lease and self.life.lease.used(now_us)
        return self.life

    def state(self) -> State:
        """The present; of a life that is over, its last moment."""
        life = self.look()
        if life is None:
            return State()
        return life.at(life.head) if self.read_only else life.past[-1].by(self.store.now_us)

    def expires_us(self) -> int | None:
        life = self.look()
        return life.lease.expires_us if life and life.lease else None

    def touch(self) -> None:
        life = self.look()
        if life is None:
            raise SessionNotFound(self.id)
        life.check(self.store.now_us)
        if self.ttl is not None:
            life.lease = Lease.of(self.ttl, self.store.now_us)
        elif life.lease is not None:
            life.lease = life.lease.renewed(self.store.now_us)

    # Moments.

    def moment(self, when: When) -> int:
        """The seq that a seq, a label or a time means."""
        life = self.look()
        head = life.head if life else 0
        if when is None:
            return head
        if isinstance(when, datetime):
            facts = life.facts if life else ()
            return sum(time_of(fact.time_us) <= when for fact in facts)
        labels = life.past[-1].labels if life else {}
        if isinstance(when, str) and when in labels:
            return labels[when]
        if isinstance(when, str) or not 0 <= when <= head:
            raise NoSuchMoment(self.id, when, head)
        return when

    def at(self, when: When) -> State:
        """The state at a moment; a time also says which deadlines had passed."""
        if when is None:
            return self.state()
        seq = self.moment(when)
        if self.life is None:
            return State()
        if isinstance(when, datetime):
            now_us = min((when - EPOCH) // timedelta(microseconds=1), self.store.now_us)
            return self.life.past[seq].by(now_us)
        return self.life.at(seq)

    def fork(self, session_id: str, when: When) -> Life:
        """Fork the life at a moment."""
        at = self.moment(when)
        if self.life is None:
            raise SessionNotFound(self.id)
        ttl = self.store_ttl if self.ttl is None else self.ttl
        return self.store.fork(self.life, session_id, at, ttl)

    def label(self, name: str, when: When) -> int:
        """Give a name to a moment, and return that."""
        moment = self.moment(when)
        self.record([Fact("label.set", name, {"at": moment})])
        return moment

    # Taking back.

    def revert(self, when: When) -> int:
        """Go back to a moment; return how many events that took."""
        to = self.moment(when)
        return self._take_back(to, f"revert:{to}")

    def undo(self) -> int:
        """Pop the newest moment before a change."""
        life, now_us = self.look(), self.store.now_us
        undos = life.stacks[-1].undos if life else ()
        while life and undos:
            *rest, to = undos
            if life.past[-1].by(now_us).taken_back(life.past[to].by(now_us), to):
                redos = (*life.stacks[-1].redos, (life.stacks[-1].undos, life.head))
                return self._take_back(to, f"undo:{to + 1}", Stacks(tuple(rest), redos))
            undos = tuple(rest)
        return self._take_back(life.head if life else 0)

    def redo(self) -> int:
        """Pop the newest moment before an undo."""
        life = self.look()
        stacks = life.stacks[-1] if life else Stacks()
        if life is None or not stacks.redos:
            return self._take_back(0 if life is None else life.head)
        *redos, (undos, to) = stacks.redos
        return self._take_back(to, f"redo:{to + 1}", Stacks(undos, tuple(redos)))

    def _take_back(self, to: int, cause: str = "", stacks: Stacks | None = None) -> int:
        life, now_us = self.look(), self.store.now_us
        facts: list[Fact] = []
        if life:
            facts = life.past[-1].by(now_us).taken_back(life.past[to].by(now_us), to)
        self.record(facts, cause=cause, stacks=stacks)
        return len(facts)

    # Writing.

    def step(self, act: Callable[[Draft], Any], *, writes: bool) -> Any:
        """Do one step: all that it says is one batch."""
        draft = Draft(self.state(), lambda: self.store.now_us)
        if writes and self.read_only:
            raise ReadOnly(self.id)
        result = act(draft)
        if writes:
            self.record(draft.said)
        return result

    def batch(self, expect: Any, key: str | None) -> "ModelBatch":
        """A batch that sees the present and its own writes."""
        life = self.look()
        head = life.head if life else 0
        if key is None and expect not in (None, ANY, head):
            raise Conflict(self.id, expect, head)
        return ModelBatch(self, head if expect is None else expect, key)

    def record(
        self,
        said: Sequence[Fact],
        *,
        key: str | None = None,
        expect: Any = ANY,
        cause: str | None = None,
        stacks: Stacks | None = None,
    ) -> int:
        """Record what was said, all or nothing; return the seq at which it begins."""
        if self.read_only:
            raise ReadOnly(self.id)
        with self.store.all_or_none(self):
            if self.life is None:
                self.store.vacate(self.id)
            else:
                self.life.check(self.store.now_us)
            life = self.life or self.store.living(self.id) or Life(self.id)
            if key in life.keys:
                self.life = life
                return self._seen(life, key, said)
            if expect not in (ANY, life.head):
                raise Conflict(self.id, expect, life.head)
            return self._write(life, said, key, cause, stacks) if said else 0

    def _seen(self, life: Life, key: Any, said: Sequence[Fact]) -> int:
        """What was recorded under a key before, if that is the same."""
        first, count = life.keys[key]
        recorded = life.facts[first - 1 : first - 1 + count]
        front = recorded[: max(0, count - len(said))]
        # Metadata at the front of a birth is ignored, whoever said it.
        ignored = first == 1 and all(fact.kind == "metadata.set" for fact in front)
        same = contents(recorded[len(front) :]) == contents(
            [fact.at(first + len(front)) for fact in said]
        )
        if not same or (front and not ignored):
            raise Conflict(self.id, key, "other events")
        return first

    def _write(
        self,
        life: Life,
        said: Sequence[Fact],
        key: str | None,
        cause: str | None,
        stacks: Stacks | None,
    ) -> int:
        newborn, first = life not in self.store.lives, life.head + 1
        birth = self.birth.items() if newborn else ()
        front = [Fact("metadata.set", name, {"value": value}) for name, value in birth]
        facts = [*front, *(fact.at(first + len(front)) for fact in said)]
        self.store.commit(life, facts, cause, stacks)
        if newborn:
            self.store.bear(life)
        if key is not None:
            life.keys = {**life.keys, key: (first, len(facts))}
        life.lease = self._lease_after(life.lease, newborn=newborn)
        self.life = life
        return first

    def _lease_after(self, before: Lease | None, *, newborn: bool) -> Lease | None:
        """How long a life lives after a write: as the handle asks, or as before."""
        now_us = self.store.now_us
        ttl = self.store_ttl if self.ttl is None and newborn else self.ttl
        # A deadline of this handle that has passed was moved by another, since the session lives.
        if ttl is None or (before and isinstance(ttl, datetime) and ttl <= time_of(now_us)):
            return before and before.used(now_us)
        asked = Lease.of(ttl, now_us)
        alike = before is not None and asked.length_us == before.length_us is not None
        return before.used(now_us) if before and alike else asked


class ModelBatch(Draft):
    """A draft that is recorded at its end."""

    def __init__(self, handle: Handle, expect: Any, key: str | None) -> None:
        super().__init__(handle.state(), lambda: handle.store.now_us)
        self.handle, self.expect, self.key = handle, expect, key

    def commit(self) -> list[tuple[int, str]]:
        """Record all that was said; return the (seq, kind) of the events."""
        if not self.said:
            return []
        first = self.handle.record(self.said, key=self.key, expect=self.expect)
        facts = self.handle.life.facts if self.handle.life else ()
        position = facts[first - 1].position
        return [(seq, fact.kind) for seq, fact in enumerate(facts, 1) if fact.position == position]


class ModelTransaction:
    """Batches that are recorded all or none."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.batches: dict[str, ModelBatch] = {}

    def batch(self, handle: Handle, expect: Any, key: str | None) -> ModelBatch:
        if handle.id in self.batches:
            raise Refused(f"{handle.id} has a batch already")
        self.batches[handle.id] = handle.batch(expect, key)
        return self.batches[handle.id]

    def commit(self) -> list[list[tuple[int, str]]]:
        batches = list(self.batches.values())
        if any(batch.said and batch.handle.read_only for batch in batches):
            raise ReadOnly("a life that is over")
        with self.store.all_or_none(*(batch.handle for batch in batches)):
            return [batch.commit() for batch in batches]
