"""Whatever is done to a store, in any order, it means what the plain model means, ever after."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

import evstore
from evstore import replay
from evstore.events import ABSENT, ANY
from tests.model import branches
from tests.model.machine import BACK, WHENS, WHICH, Pair, StoreMachine, open_store, plain
from tests.model.readers import (
    Watcher,
    found_anywhere,
    found_in,
    watch_life,
    watch_store,
)
from tests.model.steps import (
    IDS,
    LABELS,
    NAMES,
    QUERIES,
    READING,
    SAYING,
    STEPS,
    TTLS_S,
    VALUES,
    WRITING,
    act,
    outcome,
)
from tests.model.store import Life, ModelBatch, ModelTransaction, time_of

EXPECTED = st.sampled_from(["", "head", "wrong", "any", "any"])
KEYS = st.none() | st.sampled_from(["k", "l"])
PASSING_S = st.sampled_from([1, 4, 20, 100])
MEANWHILE = st.none() | st.tuples(WHICH, WRITING) | PASSING_S
PREFERRED = st.sampled_from([None, "ours", "theirs"])
MERGED = st.none() | st.none() | st.none() | st.integers(0, 6)  # the newest moment, or so far back
BREAKS = st.sampled_from([False, False, False, True])
HITS_MAX = 1000
SCALARS = (str, int, float, bool, type(None))  # what a listing can be asked for


@st.composite
def parts(draw: st.DrawFn) -> list[Any]:
    """For each batch of a transaction: whose it is, its steps, its condition, its key."""
    part = st.tuples(WHICH, STEPS, EXPECTED, KEYS)
    return draw(st.lists(part, min_size=2, max_size=3))


class Interruption(Exception):
    """Raised by an application in the middle of its batch."""


def has_lives(machine: StoreMachine) -> bool:
    return bool(machine.model.lives)


class Machine(StoreMachine):
    """All that can be done."""

    # Writing.

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
        self.alike(
            lambda: pair.model.step(lambda draft: act(draft, taken), writes=True),
            lambda: act(pair.real, taken),
        )
        self.compare_present(pair)

    @rule(which=WHICH, taken=READING)
    def read(self, which: int, taken: Any) -> None:
        pair = self.pick(which)
        self.alike(
            lambda: pair.model.step(lambda draft: act(draft, taken), writes=False),
            lambda: act(pair.real, taken),
        )
        self.use(pair)

    @rule(which=WHICH, name=NAMES, value=VALUES)
    def set_as_expected(self, which: int, name: str, value: Any) -> None:
        """The seq that `info` shows is the one that `set` expects."""
        pair = self.pick(which)
        if "returned" not in outcome(pair.model.state):
            return
        state = pair.model.state()
        found = state.variables.get(name)
        if found is not None:
            info, deadline_us = pair.real.variables.info(name), state.deadlines.get(name)
            expected = (found[0], None if deadline_us is None else time_of(deadline_us))
            assert expected == (info.seq, info.expires_at)
        self.take(which, ("variables", "set", (name, value, found[0] if found else ABSENT)))

    @rule(
        which=WHICH,
        steps=STEPS,
        expect=EXPECTED,
        key=KEYS,
        meanwhile=MEANWHILE,
        interrupted=BREAKS,
        again=st.booleans(),
    )
    def batch(
        self,
        which: int,
        steps: list[Any],
        expect: str,
        key: str | None,
        meanwhile: Any,
        interrupted: bool,
        again: bool,
    ) -> None:
        """A batch sees its entry and its own writes, and is recorded whole or not at all."""
        pair = self.pick(which)
        begun: list[tuple[ModelBatch, evstore.Batch]] = []
        wanted = self.wanted(pair, expect)
        self.begin_batch(
            begun,
            steps,
            lambda: pair.model.batch(wanted, key),
            lambda: pair.real.batch(expect=wanted, key=key).__enter__(),
        )
        self.pass_meanwhile(meanwhile)
        for model, real in begun:
            if interrupted:
                real.__exit__(Interruption, Interruption(), None)
            else:
                came = self.alike(partial(together, model), partial(leave, real, [real]))
                event(f"batch: {came if 'raised' in came else 'recorded'}")
            self.compare_present(pair)
            if again and key:
                self.batch(which, steps, expect, key, None, False, False)

    @rule(
        store=st.integers(0, 1),
        parts=parts(),
        meanwhile=MEANWHILE,
        interrupted=BREAKS,
    )
    def transaction(self, store: int, parts: Any, meanwhile: Any, interrupted: bool) -> None:
        """Batches of several sessions are recorded all or none."""
        pairs = [pair for pair in self.pairs if pair.which == store]
        model, real = ModelTransaction(self.model), self.stores[store].transaction().__enter__()
        begun: list[tuple[ModelBatch, evstore.Batch]] = []
        for which, steps, expect, key in parts:
            pair = pairs[which % len(pairs)]
            wanted = self.wanted(pair, expect)
            self.begin_batch(
                begun,
                steps,
                partial(model.batch, pair.model, wanted, key),
                partial(real.batch, pair.real, expect=wanted, key=key),
            )
        self.pass_meanwhile(meanwhile)
        if interrupted:
            real.__exit__(Interruption, Interruption(), None)
        else:
            batches = [batch for _, batch in begun]
            came = self.alike(model.commit, lambda: leave(real, batches))
            event(f"transaction: {came if 'raised' in came else len(begun)}")
        for pair in pairs:
            self.compare_present(pair)

    def wanted(self, pair: Pair, expect: str) -> Any:
        return {"": None, "head": pair.head, "wrong": pair.head + 1, "any": ANY}[expect]

    def begin_batch(
        self,
        begun: list[tuple[ModelBatch, evstore.Batch]],
        steps: list[Any],
        model: Callable[[], ModelBatch],
        real: Callable[[], evstore.Batch],
    ) -> None:
        """Begin a batch on both sides, and write to it."""
        batches: list[Any] = []
        self.alike(lambda: batches.append(model()), lambda: batches.append(real()))
        if batches:
            told = [[outcome(partial(act, batch, taken)) for taken in steps] for batch in batches]
            assert told[0] == told[1]
            begun.append((batches[0], batches[1]))

    def pass_meanwhile(self, meanwhile: Any) -> None:
        if isinstance(meanwhile, int):
            self.pass_by(meanwhile)
        elif meanwhile is not None:
            self.take(*meanwhile)

    @rule(which=WHICH, steps=STEPS)
    def transact(self, which: int, steps: list[Any]) -> None:
        pair = self.pick(which)

        def run(doors: Any) -> list[str]:
            return [outcome(partial(act, doors, taken)) for taken in steps]

        def run_model() -> list[str]:
            batch = pair.model.batch(None, None)
            told = run(batch)
            batch.commit()
            return told

        self.alike(run_model, lambda: pair.real.transact(run, attempts=1))
        self.compare_present(pair)

    # Beginnings and ends.

    @rule(
        which=WHICH,
        name=IDS | st.uuids().map(str),
        when=WHENS,
        watched=st.sampled_from(["", "from now", "whole"]),
    )
    def fork(self, which: int, name: str, when: Any, watched: str) -> None:
        """A fork is one more handle, and its past is that of its parent."""
        pair = self.pick(which)
        if watched:
            self.watch_by(self.pair(pair.which, name), 0 if watched == "whole" else None)
        self.branch(pair, name, when)

    def branch(self, pair: Pair, name: str, when: Any) -> bool:
        """Fork on both sides; tell whether there is a fork now."""
        forks: list[Any] = []
        at = pair.when(when)
        self.alike(
            lambda: forks.append(pair.model.fork(name, at)),
            lambda: forks.append(pair.real.fork(name, at)),
        )
        self.use(pair)
        if forks:
            child = self.by_uid(forks[0], pair.which)
            child.real, child.model.ttl = forks[1], pair.model.ttl
            self.pairs.append(child)
            self.compare_present(child)
        return bool(forks)

    @rule(
        which=WHICH,
        name=IDS,
        birth=st.dictionaries(NAMES, VALUES, max_size=2),
        ttl_s=st.none() | TTLS_S,
        fixed=st.booleans(),
    )
    def open_session(self, which: int, name: str, birth: Any, ttl_s: Any, fixed: bool) -> None:
        until = time_of(self.model.now_us + (ttl_s or 0) * 1_000_000)
        self.pairs.append(self.pair(which, name, birth, until if fixed and ttl_s else ttl_s))

    @precondition(has_lives)
    @rule(which=WHICH, store=WHICH)
    def open_life(self, which: int, store: int) -> None:
        self.pairs.append(self.by_uid(self.pick_life(which), store))
        self.compare_present(self.pairs[-1])

    @rule(which=WHICH, name=IDS)
    def delete(self, which: int, name: str) -> None:
        store = self.stores[which % 2]
        self.alike(lambda: self.model.delete(name), lambda: store.delete(name).kind)

    @precondition(has_lives)
    @rule(which=WHICH, store=WHICH)
    def restore(self, which: int, store: int) -> None:
        over = [life for life in self.model.lives if life.over(self.model.now_us)]
        life = over[which % len(over)] if over else self.pick_life(which)
        opened = self.by_uid(life, store)
        store_ttl, real = opened.model.store_ttl, self.stores[opened.which]
        self.alike(
            lambda: self.model.restore(life, store_ttl), lambda: str(real.restore(life.uid).uid)
        )

    @rule(duration_s=PASSING_S)
    def wait(self, duration_s: int) -> None:
        self.pass_by(duration_s)

    @rule(which=WHICH)
    def touch(self, which: int) -> None:
        pair = self.pick(which)
        self.alike(pair.model.touch, pair.real.touch)
        self.compare_present(pair)

    @rule(which=WHICH)
    def sweep(self, which: int) -> None:
        """A sweep records what has expired, and nobody sees a difference."""
        event(self.alike(self.model.sweep, self.stores[which % 2].sweep))

    # Time travel.

    @rule(which=WHICH, name=LABELS, when=WHENS)
    def label(self, which: int, name: str, when: Any) -> None:
        """A label names a moment, until it is given again."""
        pair = self.pick(which)
        at = pair.when(when)
        self.alike(
            lambda: pair.model.label(name, at), lambda: pair.real.label(name, at)[-1].data["at"]
        )
        self.use(pair)

    @rule(which=WHICH, when=WHENS)
    def revert(self, which: int, when: Any) -> None:
        pair = self.pick(which)
        to = pair.when(when)
        if to is not None:
            came = self.alike(lambda: pair.model.revert(to), lambda: len(pair.real.revert(to)))
            event(f"revert: {came if 'raised' in came else 'recorded'}")
            self.compare_present(pair)

    @rule(which=WHICH, steps=st.lists(st.sampled_from(["undo", "undo", "redo"]), max_size=6))
    def undo_and_redo(self, which: int, steps: list[str]) -> None:
        """Undo and redo are two stacks, whoever writes and whatever was shared."""
        for name in steps:
            self.undo_by(self.pick(which), name)

    def undo_by(self, pair: Pair, name: str) -> None:
        came = self.alike(getattr(pair.model, name), partial(count, getattr(pair.real, name)))
        event(f"{name}: {came if came < 'returned 1' else 'recorded'}")
        self.compare_present(pair)

    @precondition(has_lives)
    @rule(which=WHICH, other=WHICH, when=MERGED | WHENS, prefer=PREFERRED)
    def merge(self, which: int, other: int, when: Any, prefer: Any) -> None:
        """A merge brings in what is new in another branch."""
        ours = self.pick(which)
        self.bring(ours, self.by_uid(self.related(ours, other), ours.which), when, prefer)

    @precondition(has_lives)
    @rule(
        which=WHICH,
        said=st.tuples(*[st.lists(SAYING | WRITING, max_size=3)] * 3),
        merges=st.lists(st.tuples(WHICH, WHICH, MERGED, PREFERRED), min_size=4, max_size=9),
        undone=st.booleans(),
    )
    def branch_and_merge(self, which: int, said: Any, merges: Any, undone: bool) -> None:
        """Forks of a fork, and what was said there, come together in any order, also twice."""
        root = self.pick(which)
        branch = [root]
        for level, steps in enumerate(said):
            name = f"{level} of {len(self.model.lives)}"
            if level == 0 or self.branch(branch[-1], name, None):
                branch += [self.pairs.pop()] if level else []
                for taken in steps:
                    self.take_by(branch[-1], taken)
        for into, source, when, prefer in merges:
            ours, theirs = branch[into % len(branch)], branch[source % len(branch)]
            self.bring(ours, theirs, when, prefer)
            if undone:
                self.undo_by(ours, "undo")

    def bring(self, ours: Pair, theirs: Pair, when: Any, prefer: Any) -> None:
        """Merge on both sides, unless there is nothing to merge, or nothing to merge it with."""
        self.pass_by(1)  # What was merged later is later by the clock, too.
        self.use(theirs)
        at = theirs.when(when)
        if ours.head and outcome(lambda: theirs.model.moment(at)) != "returned 0":
            came = self.alike(
                lambda: branches.merge(ours.model, theirs.model, at, prefer),
                lambda: merged(ours.real, theirs.real, at, prefer),
            )
            event(f"merge: {came[:12] if 'returned' in came else came}")
        self.use(theirs)
        self.compare_present(ours)

    def related(self, pair: Pair, which: int) -> Life:
        """A life that shares its beginning with another one, if there is any."""
        lives = [
            life
            for life in self.model.lives
            if pair.model.life and life is not pair.model.life
            if branches.shared(life.facts, pair.model.life.facts)
        ]
        return lives[which % len(lives)] if lives else self.pick_life(which)

    def take_by(self, pair: Pair, taken: Any) -> None:
        self.pass_by(1)
        self.pairs.append(pair)
        self.take(len(self.pairs) - 1, taken)
        self.pairs.pop()

    # Looking.

    @precondition(has_lives)
    @rule(which=WHICH, name=NAMES, label=LABELS)
    def trace(self, which: int, name: str, label: str) -> None:
        """Labels, history and blame are what a look at all events shows."""
        life = self.pick_life(which)
        pair = self.by_uid(life, which)
        state, session = pair.model.state(), pair.real
        expected = f"returned {state.labels[label]}" if label in state.labels else "raised NoSuch"
        assert outcome(lambda: session.at(label).seq).startswith(expected)
        kinds = ("variable.set", "variable.deleted")
        about = [seq for seq, fact in enumerate(life.facts, 1) if fact.name == name]
        about = [seq for seq in about[::-1] if life.facts[seq - 1].kind in kinds]
        assert about == [found.seq for found in session.history(name)]
        blamed = f"returned {about[0]}" if name in state.variables else "raised KeyError"
        assert blamed == outcome(lambda: session.blame(name).seq)
        self.use(pair)

    @precondition(has_lives)
    @rule(which=WHICH, other=WHICH, before=WHENS, after=WHENS)
    def diff(self, which: int, other: int, before: Any, after: Any) -> None:
        """A difference is that of two states, of one session or of two."""
        old = self.by_uid(self.pick_life(which), which)
        new = self.by_uid(self.pick_life(other), which)
        a, b = old.when(before), new.when(after)
        self.alike(
            lambda: branches.difference(
                (old.model.life, old.model.at(a)), (new.model.life, new.model.at(b))
            ),
            lambda: told_of(old.real.diff(moment_of(old.real, a), moment_of(new.real, b))),
        )
        self.use(old, new)

    @precondition(has_lives)
    @rule(which=WHICH, store=WHICH, when=WHENS)
    def look_back(self, which: int, store: int, when: Any) -> None:
        """A moment is found by its seq, its time and its label, and shows what was there then."""
        pair = self.by_uid(self.pick_life(which), store)
        at = pair.when(when)

        def look() -> tuple[int, str]:
            view = moment_of(pair.real, at)
            return view.seq, plain(view)

        self.alike(lambda: (pair.model.moment(at), pair.model.at(at).plain()), look)
        self.use(pair)

    @rule(
        which=WHICH,
        prefix=st.sampled_from(["", "", "a", "ü"]),
        order=st.sampled_from(["id", "updated"]),
        deleted=st.booleans(),
        name=st.none() | NAMES,
        other=WHICH,
    )
    def list_sessions(
        self, which: int, prefix: str, order: str, deleted: bool, name: Any, other: int
    ) -> None:
        """A listing is what filtering and sorting all lives would be."""
        metadata = self.pick_life(other).past[-1].metadata if self.model.lives else {}
        where = {name: metadata.get(name, (0, None))[1]} if name else {}
        if all(type(value) in SCALARS for value in where.values()):
            self.compare_listing(which, prefix, deleted, order=order, where=where)

    @rule(which=WHICH, query=QUERIES, when=WHENS, everywhere=st.booleans())
    def search(self, which: int, query: str, when: Any, everywhere: bool) -> None:
        """A search finds what a scan of the messages would find."""
        pair = self.pick(which)
        store, at = self.stores[pair.which], pair.when(when)
        if everywhere:
            self.alike(
                lambda: found_anywhere(self.model, query),
                lambda: places(store.search(query, limit=HITS_MAX)),
            )
            return
        self.alike(
            lambda: found_in(pair.model.look(), pair.model.moment(at), query),
            lambda: places(store.search(query, session=pair.real, at=at, limit=HITS_MAX)),
        )
        self.use(pair)

    @rule(which=WHICH, back=st.none() | BACK, whole=st.booleans())
    def watch(self, which: int, back: int | None, whole: bool) -> None:
        """A watch of the store or of a session begins anywhere."""
        pair = self.pick(which)
        after = None if back is None else (self.model.position if whole else pair.head) - back
        store = self.stores[pair.which]
        if whole:
            self.begin_watch(lambda: watch_store(self.model, after), lambda: store.watch(after))
        else:
            self.watch_by(pair, after)

    def watch_by(self, pair: Pair, after: int | None) -> None:
        self.begin_watch(lambda: watch_life(pair.model, after), lambda: pair.real.watch(after))
        self.use(pair)

    def begin_watch(self, model: Callable[[], Watcher], real: Callable[[], evstore.Watch]) -> None:
        found: list[Any] = []
        self.alike(lambda: found.append(model()), lambda: found.append(real()))
        if found:
            self.watches.append((found[1], found[0]))
            self.follow(found[1], found[0])

    @precondition(lambda self: self.watches)
    @rule(which=WHICH, resumed=st.booleans())
    def follow_on(self, which: int, resumed: bool) -> None:
        """A watch yields all that came since, and another one goes on where it ended."""
        which %= len(self.watches)
        real, model = self.watches[which]
        newest = self.follow(real, model)
        if resumed and newest is not None and model.life is None:
            self.watches[which] = (self.stores[which % 2].watch(after=newest), model)
        elif resumed and newest is not None and model.life is not None:
            pair = self.by_uid(model.life, which)
            self.watches[which] = (pair.real.watch(after=newest), model)
            pair.model.look()

    # The file.

    @rule()
    def reopen(self) -> None:
        """What was written is there after closing, for readers and for writers."""
        self.pass_by(0)
        old = self.pairs
        for store in self.stores:
            store.close()
        assert "raised Closed" == outcome(lambda: old[0].real.head)
        assert all("raised Closed" == outcome(watch.poll) for watch, _ in self.watches)
        with open_store(self.path, read_only=True, clock=self.clock) as store:
            for life in self.model.lives:
                if not life.over(self.model.now_us):
                    session = store.session(life.id, create=False)
                    assert life.past[-1].by(self.model.now_us).plain() == plain(session)
                    assert "raised ReadOnly" == outcome(session.variables.clear)
        self.open()

    @rule(which=WHICH)
    def rebuild(self, which: int) -> None:
        for life in self.model.lives:
            self.by_uid(life).model.look()  # A fingerprint is taken of all that live.
        before = replay.fingerprint(self.stores[0])
        replay.rebuild(self.stores[which % 2])
        assert before == replay.fingerprint(self.stores[1])


def moment_of(session: evstore.Session, when: Any) -> evstore.View:
    return session.view() if when is None else session.at(when)


def told_of(diff: evstore.Diff) -> str:
    return repr([diff.variables, diff.metadata, diff.added, diff.removed])


def places(hits: list[evstore.Hit]) -> list[tuple[Any, int, int]]:
    """Where hits are, in order of place, after a look at their own order."""
    assert hits == sorted(hits, key=lambda hit: -hit.score)
    return sorted((hit.session, hit.index, hit.seq) for hit in hits)


def merged(ours: evstore.Session, theirs: evstore.Session, when: Any, prefer: Any) -> Any:
    found = ours.merge(theirs if when is None else theirs.at(when), prefer)
    return len(found.events), list(map(tuple, found.conflicts))


def count(record: Callable[[], Sequence[evstore.Event]]) -> int:
    """How many events a call records."""
    return len(record())


def written(batch: evstore.Batch) -> list[tuple[int, str]]:
    return [(event.seq, event.kind) for event in batch.events]


def leave(block: Any, batches: list[evstore.Batch]) -> list[list[tuple[int, str]]]:
    """What the end of a block records."""
    block.__exit__(None, None, None)
    return list(map(written, batches))


def together(batch: ModelBatch) -> list[list[tuple[int, str]]]:
    return [batch.commit()]


class CheckpointMachine(Machine):
    """The same with a checkpoint every few events."""

    checkpoint_events = 5


@pytest.mark.timeout(24 * 3600)
@pytest.mark.parametrize("machine", [Machine, CheckpointMachine])
def test_a_store_is_what_the_model_says(machine: type[Machine]):
    """In every order of steps the store shows the model's present and all its past moments."""
    run_state_machine_as_test(machine, settings=settings(suppress_health_check=list(HealthCheck)))
