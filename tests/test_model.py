"""Whatever is done to a store, in any order, it means what the plain model means, ever after."""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

import evstore
from evstore import replay
from evstore.errors import Closed, EvstoreError
from evstore.events import ABSENT, ANY
from evstore.sqlite import insert, sharing
from evstore.state import fold
from tests.event_schemas import check_events
from tests.model import Handle, Life, ModelBatch, ModelStore

IDS = st.sampled_from(["a", "b", "ü"])
NAMES = st.sampled_from(["a", "b", "cfg.x", "cfg.y", "ü"])
LONG = st.integers(0, 99).map(lambda number: f"{number} " + "long " * 120)  # stored compressed
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | LONG
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.tuples(SCALARS, SCALARS)
    | st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": st.integers(0, 99) | LONG}
)
LABELS = st.sampled_from(["here", "there"])
INDEX = st.integers(-4, 4)
BOUND = st.none() | st.integers(-5, 5)
SLICES = st.builds(slice, BOUND, BOUND, st.sampled_from([None, 1, 2, -1, -3]))
REASON = st.none() | st.text(max_size=3)

# A step: which door, which method, with what; `act` takes it on a session, a batch or a draft.
READS = ("__getitem__", "__contains__", "__len__", "get", "match", "tail")
TELLING = (*READS, "pop", "popitem", "setdefault")  # what they return is compared


def step(doors: list[str], method: str, *arguments: st.SearchStrategy[Any]) -> Any:
    return st.tuples(st.sampled_from(doors), st.just(method), st.tuples(*arguments))


NAMED = ["variables", "variables", "metadata"]
WRITING = st.one_of(
    step(NAMED, "__setitem__", NAMES, VALUES),
    step(NAMED, "__setitem__", NAMES, VALUES),
    step(NAMED, "set", NAMES, VALUES, st.just(ABSENT) | st.integers(1, 12)),
    step(NAMED, "__delitem__", NAMES),
    step(NAMED, "pop", NAMES),
    step(NAMED, "pop", NAMES, VALUES),
    step(NAMED, "popitem"),
    step(NAMED, "setdefault", NAMES, VALUES),
    step(NAMED, "update", st.dictionaries(NAMES, VALUES, max_size=3)),
    step(NAMED, "__ior__", st.dictionaries(NAMES, VALUES, max_size=3)),
    step(NAMED, "clear"),
    step(["messages"], "append", MESSAGES),
    step(["messages"], "append", MESSAGES),
    step(["messages"], "extend", st.lists(MESSAGES, max_size=4)),
    step(["messages"], "pop", INDEX),
    step(["messages"], "remove", INDEX, REASON),
    step(["messages"], "replace", INDEX, MESSAGES, REASON),
    step(["messages"], "replace", INDEX, MESSAGES, REASON),
    step(["messages"], "clear"),
    st.tuples(st.just(""), st.just("record"), st.tuples(st.just("app.note"), VALUES)),
)
READING = st.one_of(
    step(NAMED, "__getitem__", NAMES),
    step(NAMED, "__contains__", NAMES),
    step(NAMED, "get", NAMES),
    step(NAMED, "match", st.sampled_from(["*", "cfg.*", "[ab]"])),
    step(["variables", "metadata", "messages"], "__len__"),
    step(["messages"], "__getitem__", INDEX | SLICES),
    step(["messages"], "tail", st.integers(0, 4)),
)
ON_MESSAGES = st.one_of(
    step(["messages"], "append", MESSAGES),
    step(["messages"], "extend", st.lists(MESSAGES, min_size=2, max_size=3)),
    step(["messages"], "remove", st.integers(-3, 2), REASON),
    step(["messages"], "replace", st.integers(-3, 2), MESSAGES, REASON),
)
STEPS = st.lists(ON_MESSAGES, min_size=3, max_size=10) | st.lists(
    WRITING | WRITING | READING, max_size=10
)
WHICH = st.integers(0, 7)


def act(doors: Any, taken: Any) -> Any:
    """Take a step; return what it tells."""
    door, method, arguments = taken
    call = getattr(getattr(doors, door) if door else doors, method)
    if method == "set":
        name, value, expect = arguments
        call(name, value, expect=expect)
        return None
    told = call(*arguments)
    return told if method in TELLING else None


def outcome(take: Callable[[], Any]) -> str:
    """What came of it: a value or an error, as text."""
    try:
        return f"returned {take()!r}"
    except (EvstoreError, KeyError, IndexError) as error:
        return f"raised {type(error).__name__}"


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


class Interruption(Exception):
    """Raised by an application in the middle of its batch."""


@attrs.define
class Pair:
    """A real handle and the model's."""

    real: evstore.Session
    model: Handle


class Machine(RuleBasedStateMachine):
    """A store, seen through two handles that know nothing of each other, beside the model."""

    checkpoint_events = 1000

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(insert, "CHECKPOINT_EVENTS", self.checkpoint_events)
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "agents.db"
        self.model = ModelStore()
        self.open()

    def open(self) -> None:
        self.stores = [open_store(self.path), open_store(self.path, stranger=True)]
        self.pairs = [self.pair(number % 2, name, {}) for number, name in enumerate("aab")]

    def pair(self, which: int, name: str, birth: dict[str, Any]) -> Pair:
        real = self.stores[which % 2].session(name, metadata=birth)
        return Pair(real, Handle(self.model, name, birth=birth))

    def pick(self, which: int) -> Pair:
        return self.pairs[which % len(self.pairs)]

    def pick_life(self, which: int) -> Life | None:
        return self.model.lives[which % len(self.model.lives)] if self.model.lives else None

    def by_uid(self, life: Life, which: int = 0) -> Pair:
        real = self.stores[which % 2].session(uid=self.uid(life))
        return Pair(real, Handle(self.model, life.id, life, life.ended))

    def uid(self, life: Life) -> str:
        """The uid of a life, looked up while it lives."""
        if not life.uid:
            life.uid = self.stores[0].session(life.id).uid or ""
        return life.uid

    def head(self, pair: Pair) -> int:
        return pair.model.life.head if pair.model.life else 0

    def compare_present(self, pair: Pair) -> None:
        """A handle shows what the model shows."""
        expected = outcome(lambda: pair.model.state().plain())
        assert expected == outcome(lambda: plain(pair.real))
        if expected.startswith("returned"):
            life = pair.model.look()
            assert (life.head if life else 0) == pair.real.head
            if life and not life.ended:
                assert pair.real.uid == self.uid(life)

    # What can be done.

    @initialize(steps=st.lists(WRITING, max_size=12))
    def begin(self, steps: list[Any]) -> None:
        self.take_many(0, steps)

    @rule(which=WHICH, steps=st.lists(WRITING, min_size=4, max_size=12))
    def take_many(self, which: int, steps: list[Any]) -> None:
        for taken in steps:
            self.take(which, taken)

    @rule(which=WHICH, taken=WRITING)
    def take(self, which: int, taken: Any) -> None:
        pair = self.pick(which)
        expected = outcome(lambda: pair.model.step(lambda draft: act(draft, taken), writes=True))
        assert expected == outcome(lambda: act(pair.real, taken))
        self.compare_present(pair)

    @rule(which=WHICH, taken=READING)
    def read(self, which: int, taken: Any) -> None:
        pair = self.pick(which)
        expected = outcome(lambda: pair.model.step(lambda draft: act(draft, taken), writes=False))
        assert expected == outcome(lambda: act(pair.real, taken))

    @rule(which=WHICH, name=NAMES, value=VALUES)
    def set_as_expected(self, which: int, name: str, value: Any) -> None:
        """The seq that `info` shows is the one that `set` expects."""
        pair = self.pick(which)
        if "returned" not in outcome(pair.model.state):
            return
        found = pair.model.state().variables.get(name)
        if found is not None:
            assert found[0] == pair.real.variables.info(name).seq
        self.take(which, ("variables", "set", (name, value, found[0] if found else ABSENT)))

    @rule(
        which=WHICH,
        steps=STEPS,
        expect=st.sampled_from(["", "head", "wrong", "any", "any"]),
        key=st.none() | st.sampled_from(["k", "l"]),
        between=st.none() | st.tuples(WHICH, WRITING),
        interrupted=st.sampled_from([False, False, False, True]),
        again=st.booleans(),
    )
    def batch(
        self,
        which: int,
        steps: list[Any],
        expect: str,
        key: str | None,
        between: Any,
        interrupted: bool,
        again: bool,
    ) -> None:
        """A batch sees its entry and its own writes, and is recorded whole or not at all."""
        pair = self.pick(which)
        begun = self.begin_batch(pair, expect, key)
        told = (
            []
            if begun is None
            else [[outcome(partial(act, doors, taken)) for taken in steps] for doors in begun]
        )
        if between is not None:
            self.take(*between)
        if begun is None:
            return
        assert told[0] == told[1]
        model, real = begun
        if interrupted:
            real.__exit__(Interruption, Interruption(), None)
        else:
            expected = outcome(model.commit)
            assert expected == outcome(lambda: leave(real))
            event(f"batch: {expected if 'raised' in expected else 'recorded'}")
        self.compare_present(pair)
        if again and key:
            self.batch(which, steps, expect, key, None, False, False)

    def begin_batch(
        self, pair: Pair, expect: str, key: str | None
    ) -> tuple[ModelBatch, evstore.Batch] | None:
        begun: list[Any] = []
        head = pair.model.life.head if pair.model.life else 0
        wanted = {"": None, "head": head, "wrong": head + 1, "any": ANY}[expect]
        expected = outcome(lambda: begun.append(pair.model.batch(wanted, key)))
        assert expected == outcome(
            lambda: begun.append(pair.real.batch(expect=wanted, key=key).__enter__())
        )
        return (begun[0], begun[1]) if begun else None

    @rule(which=WHICH, steps=STEPS)
    def transact(self, which: int, steps: list[Any]) -> None:
        pair = self.pick(which)

        def run(doors: Any) -> list[str]:
            return [outcome(partial(act, doors, taken)) for taken in steps]

        expected = outcome(lambda: pair.model.step(run, writes=True))
        found = outcome(lambda: pair.real.transact(run, attempts=1))
        if pair.model.read_only and not found.startswith("raised"):
            return  # Nothing was said, so nothing was refused.
        assert expected == found
        self.compare_present(pair)

    @rule(which=WHICH, name=IDS | st.uuids().map(str), back=st.integers(-1, 30))
    def fork(self, which: int, name: str, back: int) -> None:
        """A fork is one more handle, and its past is that of its parent."""
        pair = self.pick(which)
        head = pair.model.life.head if pair.model.life else 0
        at = max(head - back, 0)
        real: list[evstore.Session] = []
        model: list[Life] = []

        def fork_model() -> None:
            model.append(pair.model.fork(name, at))

        expected = outcome(fork_model)
        assert expected == outcome(lambda: real.append(pair.real.fork(name, at)))
        for session, life in zip(real, model, strict=True):
            self.pairs.append(Pair(session, Handle(self.model, name, life)))
            self.compare_present(self.pairs[-1])
            event(f"forks in a row: {depth(self.stores[0], session)}")

    @rule(which=WHICH, name=IDS, birth=st.dictionaries(NAMES, VALUES, max_size=2))
    def open_session(self, which: int, name: str, birth: dict[str, Any]) -> None:
        self.pairs.append(self.pair(which, name, birth))

    @precondition(lambda self: self.model.lives)
    @rule(which=WHICH, store=WHICH)
    def open_life(self, which: int, store: int) -> None:
        life = self.pick_life(which)
        assert life
        self.pairs.append(self.by_uid(life, store))
        self.compare_present(self.pairs[-1])

    @rule(which=WHICH, name=IDS)
    def delete(self, which: int, name: str) -> None:
        life = self.model.living.get(name)
        if life is not None:
            self.uid(life)
            self.model.mark(life, "session.deleted")
        found = outcome(lambda: self.stores[which % 2].delete(name).kind)
        assert found == ("returned 'session.deleted'" if life else "raised SessionNotFound")

    @precondition(lambda self: any(life.ended for life in self.model.lives))
    @rule(which=WHICH, store=WHICH)
    def restore(self, which: int, store: int) -> None:
        ended = [life for life in self.model.lives if life.ended]
        life = ended[which % len(ended)]
        expected = outcome(lambda: self.model.mark(life, "session.restored"))
        assert expected == outcome(lambda: str(self.stores[store % 2].restore(life.uid).uid))

    @rule(which=WHICH, name=LABELS, back=st.none() | st.integers(-1, 30))
    def label(self, which: int, name: str, back: int | None) -> None:
        """A label names a moment, until it is given again."""
        pair = self.pick(which)
        at = None if back is None else self.head(pair) - back
        expected = outcome(lambda: pair.model.label(name, at))
        assert expected == outcome(lambda: pair.real.label(name, at)[-1].data["at"])

    @rule(which=WHICH, back=st.integers(-1, 30))
    def revert(self, which: int, back: int) -> None:
        pair = self.pick(which)
        to = self.head(pair) - back
        expected = outcome(lambda: pair.model.revert(to))
        assert expected == outcome(lambda: len(pair.real.revert(to)))
        event(f"revert: {expected if 'raised' in expected else 'recorded'}")
        self.compare_present(pair)

    @rule(which=WHICH, steps=st.lists(st.sampled_from(["undo", "undo", "redo"]), max_size=6))
    def undo_and_redo(self, which: int, steps: list[str]) -> None:
        """Undo and redo are two stacks, whoever writes and whatever was shared."""
        pair = self.pick(which)
        for name in steps:
            expected = outcome(getattr(pair.model, name))
            assert expected == outcome(partial(count, getattr(pair.real, name)))
            event(f"{name}: {expected if expected < 'returned 1' else 'recorded'}")
            self.compare_present(pair)

    @precondition(lambda self: self.model.lives)
    @rule(which=WHICH, name=NAMES, label=LABELS, back=st.integers(0, 30), other=WHICH)
    def trace(self, which: int, name: str, label: str, back: int, other: int) -> None:
        """Labels, histories, blame and differences are what a look at all events shows."""
        life, theirs = self.pick_life(which), self.pick_life(other)
        assert life
        assert theirs
        session, state = self.by_uid(life, which).real, life.past[-1]
        expected = f"returned {state.labels[label]}" if label in state.labels else "raised NoSuch"
        assert outcome(lambda: session.at(label).seq).startswith(expected)
        kinds = ("variable.set", "variable.deleted")
        about = [seq for seq, fact in enumerate(life.facts, 1) if (fact.name == name)]
        about = [seq for seq in about[::-1] if life.facts[seq - 1].kind in kinds]
        assert about == [found.seq for found in session.history(name)]
        blamed = f"returned {about[0]}" if name in state.variables else "raised KeyError"
        assert blamed == outcome(lambda: session.blame(name).seq)
        seq = max(0, theirs.head - back)
        diff = session.diff(session.head, self.by_uid(theirs, which).real.at(seq))
        assert difference(life, theirs, seq) == repr(
            [diff.variables, diff.metadata, diff.added, diff.removed]
        )

    @precondition(lambda self: self.model.lives)
    @rule(which=WHICH, store=WHICH, back=st.integers(0, 40))
    def look_back(self, which: int, store: int, back: int) -> None:
        """A moment is found by its seq and by its time."""
        life = self.pick_life(which)
        assert life
        seq = max(0, life.head - back)
        session = self.by_uid(life, store).real
        view = session.at(seq)
        assert life.past[seq].plain() == plain(view)
        if view.time is not None:
            same = [
                s
                for s, fact in enumerate(life.facts, 1)
                if fact.position == life.facts[seq - 1].position
            ]
            assert same[-1] == session.at(view.time).seq

    @rule()
    def reopen(self) -> None:
        """What was written is there after closing, for readers and for writers."""
        for life in self.model.living.values():
            self.uid(life)
        old = self.pairs
        for store in self.stores:
            store.close()
        assert outcome(lambda: old[0].real.head) == "raised Closed"
        with open_store(self.path, read_only=True) as store:
            for life in self.model.living.values():
                session = store.session(life.id, create=False)
                assert life.past[-1].plain() == plain(session)
                assert outcome(session.variables.clear) == "raised ReadOnly"
        self.open()

    @rule(which=WHICH)
    def rebuild(self, which: int) -> None:
        before = replay.fingerprint(self.stores[0])
        replay.rebuild(self.stores[which % 2])
        assert before == replay.fingerprint(self.stores[1])

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
            ids = [info.id for info in self.stores[which].sessions()]
            assert ids == sorted(self.model.living)
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
        for fact, event_ in zip(life.facts, events, strict=True):
            expected = (fact.kind, fact.name, fact.data, fact.position, fact.recorder.id)
            found = (event_.kind, event_.name, event_.data, event_.position, event_.session)
            assert repr((*expected, fact.cause)) == repr((*found, event_.cause))
        times = sorted({(event.position, event.time) for event in events})
        assert [time for _, time in times] == sorted({event.time for event in events})
        for seq, state in enumerate(life.past):
            view = session.at(seq)
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


def difference(before: Life, after: Life, seq: int) -> str:
    """What is other in a life at a seq than in another one now, as text."""
    old, new = before.past[-1], after.past[seq]
    named = [
        {
            name: tuple(names[name][1] if name in names else ABSENT for names in pair)
            for name in sorted({*pair[0], *pair[1]})
            if canonical(pair[0].get(name)) != canonical(pair[1].get(name))
        }
        for pair in ((old.variables, new.variables), (old.metadata, new.metadata))
    ]
    sides = [
        [((*recorded(life, known),), message) for known, message in state.messages]
        for life, state in ((before, old), (after, new))
    ]
    ids = [{where for where, _ in side} for side in sides]
    added = [message for where, message in sides[1] if where not in ids[0]]
    removed = [message for where, message in sides[0] if where not in ids[1]]
    return repr([*named, added, removed])


def canonical(found: tuple[int, Any] | None) -> str:
    """A text that is the same for values that differ in the order of keys at most."""
    value = found[1] if found else ABSENT
    return repr(sorted(value.items()) if isinstance(value, dict) else value)


def recorded(life: Life, seq: int) -> tuple[int, int]:
    """Which event of the whole store a life shows at a seq."""
    return id(life.facts[seq - 1].recorder), seq


def depth(store: evstore.Store, session: evstore.Session) -> int:
    """How many forks lie between a session and one that is none."""
    parent = session.parent
    return 0 if parent is None else 1 + depth(store, store.session(uid=parent.uid))


def count(record: Callable[[], Sequence[evstore.Event]]) -> int:
    """How many events a call records."""
    return len(record())


def leave(batch: evstore.Batch) -> list[tuple[int, str]]:
    """What the end of a batch records."""
    batch.__exit__(None, None, None)
    return [(event.seq, event.kind) for event in batch.events]


class CheckpointMachine(Machine):
    """The same with a checkpoint every few events."""

    checkpoint_events = 5


@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("machine", [Machine, CheckpointMachine])
def test_a_store_is_what_the_model_says(machine: type[Machine]):
    """In every order of steps the store shows the model's present and all its past moments."""
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck)))
