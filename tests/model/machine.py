"""A real store beside the model: both are told the same, and have to show the same."""

import contextlib
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

import evstore
from evstore import replay
from evstore.errors import Closed
from evstore.folding import fold
from evstore.sqlite import insert, sharing
from tests.event_schemas import check_events
from tests.model.readers import Watcher, listed
from tests.model.state import SECOND_US
from tests.model.steps import LABELS, VARIABLES, outcome
from tests.model.store import EPOCH, Handle, Life, ModelStore, Ttl, When, time_of

START_US = (datetime(2026, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
STORE_TTLS_S = (None, 90)  # of the store, and of the stranger to it
WHICH = st.integers(0, 7)
BACK = st.integers(-1, 30)
# A moment: the newest, a seq so far back, a label, or some µs after the event so far back.
WHENS = (
    st.none()
    | BACK
    | BACK
    | LABELS
    | st.tuples(st.integers(0, 30), st.sampled_from([-1, 0, 1, 5 * SECOND_US]))
)


@attrs.define
class Pair:
    """A real handle, of one of the stores, and the model's."""

    real: evstore.Session
    model: Handle
    which: int

    @property
    def head(self) -> int:
        return self.model.life.head if self.model.life else 0

    def when(self, wanted: Any) -> When:
        """A moment of this session, which may not be there."""
        if isinstance(wanted, int):
            return self.head - wanted
        if isinstance(wanted, tuple):
            back, more_us = wanted
            life = self.model.life
            return time_of((life.time_us(max(self.head - back, 0)) if life else 0) + more_us)
        assert wanted is None or isinstance(wanted, str)
        return wanted


def open_store(path: Path, *, stranger: bool = False, **options: Any) -> evstore.Store:
    """Open a store; a stranger shares nothing in memory with the others, like another process."""
    known = dict(sharing._open)
    if stranger:
        sharing._open.clear()
    try:
        return evstore.open(path, durability="normal", **options)
    finally:
        if stranger:
            sharing._open.clear()
            sharing._open.update(known)


class StoreMachine(RuleBasedStateMachine):
    """A store, seen through two handles that know nothing of each other, beside the model."""

    checkpoint_events = 1000

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(insert, "CHECKPOINT_EVENTS", self.checkpoint_events)
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "agents.db"
        self.model = ModelStore(START_US)
        self.open()

    def clock(self) -> datetime:
        return time_of(self.model.now_us)

    def open(self) -> None:
        self.stores = [
            open_store(self.path, stranger=number > 0, clock=self.clock, ttl=ttl)
            for number, ttl in enumerate(STORE_TTLS_S)
        ]
        self.pairs = [self.pair(which, name) for name in "ab" for which in (0, 1)]
        self.watches: list[tuple[evstore.Watch, Watcher]] = []

    # Handles, lives, and time.

    def pair(self, which: int, name: str, birth: Any = None, ttl: Ttl = None) -> Pair:
        which %= 2
        real = self.stores[which].session(name, metadata=birth, ttl=ttl)
        model = Handle(self.model, name, None, birth=birth or {}, ttl=ttl)
        model.store_ttl = STORE_TTLS_S[which]
        return Pair(real, model, which)

    def pick(self, which: int) -> Pair:
        return self.pairs[which % len(self.pairs)]

    def pick_life(self, which: int) -> Life:
        return self.model.lives[which % len(self.model.lives)]

    def by_uid(self, life: Life, which: int = 0) -> Pair:
        which %= 2
        real = self.stores[which].session(uid=self.uid(life))
        over, ttl = life.over(self.model.now_us), STORE_TTLS_S[which]
        return Pair(real, Handle(self.model, life.id, life, over, store_ttl=ttl), which)

    def uid(self, life: Life) -> str:
        """The uid of a life, looked up while it lives."""
        if not life.uid:
            found = self.stores[0].sessions(life.id)
            life.uid = next(info.uid for info in found if info.id == life.id)
        return life.uid

    def pass_by(self, duration_s: int) -> None:
        for life in self.model.lives:
            self.uid(life)
        self.model.now_us += duration_s * SECOND_US

    @invariant()
    def time_goes_on(self) -> None:
        self.pass_by(1)

    # What is compared.

    def alike(self, model: Callable[[], Any], real: Callable[[], Any]) -> str:
        """Take a step on both sides; return what came of it."""
        expected = outcome(model)
        assert expected == outcome(real)
        return expected

    def use(self, *pairs: Pair) -> None:
        """Look at sessions on both sides: a look that failed may have been none for a lease."""
        for pair in pairs:
            self.compare_head(pair)

    def compare_head(self, pair: Pair) -> None:
        """A handle is where the model is, or has ended as the model has."""
        self.alike(lambda: (pair.model.look(), pair.head)[1], lambda: pair.real.head)

    def compare_present(self, pair: Pair) -> None:
        """A handle shows what the model shows."""
        shown = self.alike(lambda: pair.model.state().plain(), lambda: plain(pair.real))
        if shown.startswith("returned"):
            life, there = pair.model.life, pair.model.state().variables
            assert pair.head == pair.real.head
            assert set(there) == {name for name in VARIABLES if name in pair.real.variables}
            assert pair.model.expires_us() == microseconds(pair.real.expires_at)
            assert pair.real.uid == (self.uid(life) if life else None)

    def compare_listing(self, which: int, prefix: str, deleted: bool, **asked: Any) -> None:
        asked = {"where": {}, "order": "id", **asked, "deleted": deleted}
        found = self.stores[which % 2].sessions(prefix, **asked)
        assert listed(self.model, prefix, **asked) == list(map(facts_of, found))

    def follow(self, real: evstore.Watch, model: Watcher) -> evstore.Event | None:
        """What a watch yields is what was recorded since; return the newest of it."""
        found: list[evstore.Event] = []
        while page := real.poll():
            found += page
        assert model.poll() == [(event.position, event.seq, event.kind) for event in found]
        return found[-1] if found else None

    # What must hold in the end.

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.compare_all()
        finally:
            for store in self.stores:
                with contextlib.suppress(Closed):
                    store.close()
            self.patch.undo()
            self.folder.cleanup()

    def compare_all(self) -> None:
        for pair in self.pairs:
            self.compare_present(pair)
        for which in (0, 1):
            self.compare_listing(which, "", deleted=bool(which))
        for real, model in self.watches:
            self.follow(real, model)
        assert self.model.position == self.stores[1].stats().batches
        for number, life in enumerate(self.model.lives):
            self.compare_life(life, self.by_uid(life, number).real)
        for level in ("heads", "chain", "full"):
            assert [] == list(replay.verify(self.stores[0], level=level))

    def compare_life(self, life: Life, session: evstore.Session) -> None:
        """Every event and every moment is as it was."""
        events = list(session.events())
        check_events(events)
        assert list(range(1, life.head + 1)) == [event.seq for event in events]
        assert events[::-1] == list(session.events(reverse=True))
        for fact, event in zip(life.facts, events, strict=True):
            place = (fact.position, fact.recorder.uid, time_of(fact.time_us))
            expected = (fact.kind, fact.name, fact.data, *place, fact.cause)
            place = (event.position, event.uid, event.time)
            assert repr(expected) == repr((event.kind, event.name, event.data, *place, event.cause))
        for seq in range(life.head + 1):
            view, state = session.at(seq), life.at(seq)
            assert state.plain() == plain(view)
            assert state.labels == view.labels
            assert (len(state.variables), len(state.messages)) == (
                len(view.variables),
                len(view.messages),
            )
        folded = fold(events)
        assert life.past[-1].plain() == repr(
            [
                folded.variables.to_map(),
                folded.metadata.to_map(),
                [message.data["message"] for message in folded.messages],
            ]
        )


def plain(doors: Any) -> str:
    """What a session or a view shows."""
    return repr([dict(doors.variables), dict(doors.metadata), list(doors.messages)])


def microseconds(time: datetime | None) -> int | None:
    return None if time is None else (time - EPOCH) // timedelta(microseconds=1)


def facts_of(info: evstore.SessionInfo) -> tuple[Any, ...]:
    """What a listing tells of a session."""
    times = microseconds(info.created_at), microseconds(info.updated_at)
    counts = info.messages, info.variables
    return (info.id, info.uid, info.head, *times, *counts, microseconds(info.expires_at))
