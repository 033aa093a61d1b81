"""Taking back makes variables and messages what they were, as new events, and loses nothing."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.errors import Conflict, NoSuchMoment, ReadOnly, Refused, SessionNotFound, TooMany
from evstore.events import ABSENT
from evstore.sqlite import insert
from tests.event_schemas import check_events
from tests.histories import (
    CHECKPOINTS,
    HISTORIES,
    STEPS,
    fresh_store,
    live_through,
    said,
    shown,
    take,
    values_of,
)
from tests.model.state import states_of
from tests.values_strategy import fingerprint

RIPE = HISTORIES.filter(lambda history: len(history) > 3)
MANY = 300


def ids(doors: Any) -> list[int]:
    """The seqs of the messages that are there."""
    return [doors.messages.info(index).seq for index in range(len(doors.messages))]


def everything(session: evstore.Session) -> Any:
    """What undo brings back: values, messages, and which events carry those."""
    return *shown(session), ids(session)


def is_well(store: evstore.Store) -> bool:
    """Whether nothing in the file contradicts the log, nor after a rebuild."""
    before = replay.fingerprint(store)
    replay.rebuild(store)
    return not list(replay.verify(store, level="full")) and before == replay.fingerprint(store)


def revert_and_check(session: evstore.Session, to: int) -> None:
    """Revert to a moment, and hold what comes of it against a scan of the events."""
    events = list(session.events())
    past, head = states_of(events), session.head
    now, then = past[-1], past[to]
    before, after = values_of(now.variables), values_of(then.variables)
    differing = {
        name for name in {*before, *after} if before.get(name, ABSENT) != after.get(name, ABSENT)
    }
    recorded = list(session.revert(to))
    lists_differ = now.messages != then.messages
    assert len(differing) + lists_differ == len(recorded)
    assert differing == {event.name for event in recorded if event.name is not None}
    assert head + len(recorded) == session.head
    if recorded:
        assert {(f"revert:{to}", recorded[0].position)} == {
            (event.cause, event.position) for event in recorded
        }
        assert [{"to": to}] * lists_differ == [
            event.data for event in recorded if event.kind == "messages.reverted"
        ]
    check_events(recorded)
    view = session.at(to)
    assert shown(view) == shown(session) == shown(session.at(session.head))
    assert ids(view) == ids(session) == [seq for seq, _ in then.messages]
    assert now.labels == session.view().labels
    assert values_of(now.metadata) == {
        name: fingerprint(value) for name, value in session.metadata.items()
    }
    assert events == list(session.events(until=head))


@given(RIPE, CHECKPOINTS, st.integers(0, 5), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_a_revert_goes_back_to_any_moment(
    history: list[Any], checkpoint: int, which: int, moments: list[int]
):
    """After `revert(to)` all is as at `to`, in forks and batches, for as many events as differ."""
    with fresh_store(checkpoint) as store:
        sessions = live_through(store, history)
        session = sessions[which % len(sessions)]
        others = [shown(other) for other in sessions if other is not session]
        for moment in moments:
            revert_and_check(session, moment % (session.head + 1))
        assert others == [shown(other) for other in sessions if other is not session]
        assert is_well(store)


@given(RIPE, CHECKPOINTS)
def test_every_moment_can_be_reached(history: list[Any], checkpoint: int):
    """From the present of the newest fork every moment comes back, one after the other."""
    with fresh_store(checkpoint) as store:
        session = live_through(store, [*history, (0, ("fork", 2, None))])[-1]
        for moment in range(min(session.head, 12), -1, -1):
            revert_and_check(session, moment)


def test_a_revert_by_label_and_time(session: evstore.Session):
    """A moment has three names: seq, label and time; the cause says the seq."""
    session.variables["a"] = 1
    session.messages.append(said(1))
    session.label("good")
    time = session.updated_at
    assert time is not None
    for moment, seq in ((2, 2), ("good", 2), (time, 3)):
        session.variables["a"] = 2
        session.messages.append(said(2))
        events = session.revert(moment)
        assert [f"revert:{seq}"] * 2 == [event.cause for event in events]
        assert ({"a": 1}, [said(1)]) == (dict(session.variables), list(session.messages))
    assert {"good": 2} == session.view().labels


def test_nothing_differing_records_nothing(session: evstore.Session):
    """A revert to the present, or to what looks like it, appends no event and bears no session."""
    assert [] == list(session.revert(0))
    assert (0, None) == (session.head, session.uid)
    session.variables["a"] = 1
    session.messages.append(said(1))
    session.metadata["m"] = 1
    session.label("x")
    session.record("app.note")
    for moment in (2, 3, 4, 5, "x"):
        assert [] == list(session.revert(moment))
    session.variables["a"] = 2
    session.variables["a"] = 1
    assert [] == list(session.revert(5))
    assert 7 == session.head


def test_a_revert_copies_no_message(session: evstore.Session):
    """A thousand messages come back by one event, with their own seqs, times and actors."""
    with session.batch(actor="user") as batch:
        batch.messages.extend(map(said, range(1000)))
    infos = [session.messages.info(index) for index in (0, 500, 999)]
    with session.batch(actor="other") as batch:
        batch.messages.replace(3, said("x"))
        batch.messages.remove(7)
        batch.messages.append(said("y"))
    session.messages.clear()
    (event,) = session.revert(1000)
    assert ("messages.reverted", {"to": 1000}) == (event.kind, event.data)
    assert infos == [session.messages.info(index) for index in (0, 500, 999)]
    assert list(map(said, range(1000))) == list(session.messages)
    (event,) = session.revert(1003)
    assert said("x") == session.messages[3]
    assert (1001, "other") == (session.messages.info(3).seq, session.messages.info(3).actor)
    assert (1000, 1003) == (len(session.messages), session.messages.info(999).seq)


def test_a_revert_costs_what_differs(session: evstore.Session):
    """Of hundreds of variables only those that differ are written."""
    session.variables.update({f"v{number}": number for number in range(MANY)})
    to = session.head
    session.variables["v7"] = "x"
    session.variables["new"] = 1
    del session.variables["v9"]
    events = session.revert(to)
    assert [
        ("variable.deleted", "new"),
        ("variable.set", "v7"),
        ("variable.set", "v9"),
    ] == [(event.kind, event.name) for event in events]
    assert {f"v{number}": number for number in range(MANY)} == session.variables


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("-inf"),
        -0.0,
        1,
        1.0,
        True,
        None,
        1 << 200,
        -(1 << 64),
        (1, (2, [3])),
        {1, "a", (2, 3)},
        frozenset({b"x"}),
        {1: "x", (2, 3): "y"},
        {"$tuple": [1]},
        "long " * 5000,
        b"\0\xff" * 500,
    ],
    ids=map(str, range(16)),
)
def test_values_come_back_exactly(session: evstore.Session, value: Any):
    """Types, signs and nan of a value are those it had, by revert, undo and redo."""
    session.variables["a"] = value
    for other in (0, "x", [value]):
        session.variables["a"] = other
        session.revert(1)
        assert fingerprint(value) == fingerprint(session.variables["a"])
        session.undo()
        assert fingerprint(other) == fingerprint(session.variables["a"])
        session.redo()
        assert fingerprint(value) == fingerprint(session.variables["a"])
    del session.variables["a"]
    session.revert(1)
    assert fingerprint(value) == fingerprint(session.variables["a"])


def test_a_variable_that_comes_back_is_new(session: evstore.Session):
    """What a revert sets was set then: its seq, its time and its actor are those of the revert."""
    session.variables["a"] = 1
    del session.variables["a"]
    before = list(session.events())
    (event,) = session.revert(1)
    info = session.variables.info("a")
    assert (event.seq, event.time) == (info.seq, info.time)
    assert event.time == info.created_at
    assert before == list(session.events(until=2))
    session.variables.set("a", 2, expect=event.seq)


def test_who_takes_back(store: evstore.Store):
    """Revert, undo and redo are said by the actor of the handle."""
    session = store.session("s", actor="keeper")
    session.variables["a"] = 1
    for call in (lambda: session.revert(0), session.undo, session.redo):
        assert ["keeper"] == [event.actor for event in call()]


def test_moments_that_are_not_there(store: evstore.Store, session: evstore.Session):
    """A revert to no moment is an error and records nothing; so is any on an ended session."""
    session.variables["a"] = 1
    moments: list[Any] = [-1, 2, "nowhere", True, None]
    for moment in moments:
        with pytest.raises(NoSuchMoment):
            session.revert(moment)
    with pytest.raises(Refused):
        session.revert(session.updated_at.replace(tzinfo=None))  # type: ignore[union-attr]
    assert 1 == session.head
    uid = session.uid
    store.delete("trip")
    calls = (lambda doors: doors.revert(0), lambda doors: doors.undo(), lambda doors: doors.redo())
    for call in calls:
        with pytest.raises(SessionNotFound):
            call(session)
        with pytest.raises(ReadOnly):
            call(store.session(uid=uid))


def test_a_revert_keeps_to_the_limits(path: Path):
    """A handle that allows fewer variables than there were refuses to bring them back."""
    with evstore.open(path, durability="normal") as store:
        session = store.session("s")
        session.variables.update(a=1, b=2, c=3)
        session.messages.append(said(1))
        session.variables.clear()
        session.messages.clear()
    with evstore.open(path, durability="normal", limits=evstore.Limits(variables_max=2)) as store:
        session = store.session("s")
        with pytest.raises(TooMany):
            session.revert(4)
        assert (8, {}, []) == (session.head, dict(session.variables), list(session.messages))
        session.revert(2)
        assert {"a": 1, "b": 2} == session.variables


@pytest.mark.parametrize("cause", ["undo:1", "redo:", "revert:x", "merge:"])
def test_causes_are_reserved(session: evstore.Session, cause: str):
    """No application can say that its batch is an undo."""
    with pytest.raises(Refused, match="reserved"):
        session.batch(cause=cause)


# Undo and redo.


class Stack:
    """Undo as everybody knows it: a stack of what was, and a stack of what was taken back."""

    def __init__(self, state: Any) -> None:
        self.state, self.undone, self.done = state, [], []  # type: ignore[var-annotated]

    def happen(self, state: Any) -> None:
        self.undone = []
        if state != self.state:
            self.done.append(self.state)
        self.state = state

    def undo(self) -> bool:
        return self._move(self.done, self.undone)

    def redo(self) -> bool:
        return self._move(self.undone, self.done)

    def _move(self, source: list[Any], target: list[Any]) -> bool:
        if not source:
            return False
        target.append(self.state)
        self.state = source.pop()
        return True


TURNS = st.one_of(
    st.just(("undo", None, None)),
    st.just(("redo", None, None)),
    STEPS.filter(lambda step: step[0] != "fork"),
)


@given(st.lists(st.tuples(TURNS, st.booleans()), max_size=25), CHECKPOINTS)
def test_undo_is_a_stack(turns: list[Any], checkpoint: int):
    """Any sequence of batches, undo and redo by two handles does what two stacks would do."""
    with fresh_store(checkpoint) as store:
        handles = [store.session("s"), store.session("s")]
        stack = Stack(everything(handles[0]))
        for turn, which in turns:
            session = handles[which]
            head = session.head
            if turn[0] in ("undo", "redo"):
                moved = getattr(stack, turn[0])()
                events = getattr(session, turn[0])()
                assert moved == bool(events)
                assert all((event.cause or "").startswith(f"{turn[0]}:") for event in events)
                assert len({event.position for event in events}) <= 1
            else:
                take(session, turn)
                if turn[0] not in ("undo", "redo") and session.head > head:
                    stack.happen(everything(session))
            assert stack.state == everything(handles[0]) == everything(handles[1])
        assert is_well(store)


def splits_an_undo(store: evstore.Store, fork: evstore.Session) -> bool:
    """Tell whether a fork begins inside an undo or redo, which it then counts as done."""
    if fork.parent is None:
        return False
    events = list(store.session(uid=fork.parent.uid).events(after=fork.parent.seq - 1))[:2]
    one_batch = len({event.position for event in events}) < len(events)
    return one_batch and (events[0].cause or "").startswith(("undo:", "redo:"))


@given(RIPE, CHECKPOINTS)
def test_undo_goes_back_to_the_beginning(history: list[Any], checkpoint: int):
    """A fork of forks can be undone through all it shares, and then redone to where it was."""
    with fresh_store(checkpoint) as store:
        sessions = live_through(store, history)
        others = [everything(session) for session in sessions]
        session = sessions[-1].fork("end") if sessions[-1].head else sessions[-1]
        assume(not any(splits_an_undo(store, each) for each in sessions))
        states = [everything(session)]
        while session.undo():
            states.append(everything(session))
        assert ({}, [], []) == states[-1]
        for state in states[-2::-1]:
            assert session.redo()
            assert state == everything(session)
        while session.redo():
            pass
        while session.undo():
            pass
        assert ({}, [], []) == everything(session)
        if sessions[-1] is not session:
            assert others == [everything(other) for other in sessions]
        assert is_well(store)


def test_undo_of_a_shared_past(session: evstore.Session):
    """A fork takes back what its parent did, for itself; what the parent does later is unseen."""
    session.variables["a"] = 1
    session.variables["a"] = 2
    session.messages.append(said(1))
    child = session.fork("child")
    session.variables["a"] = 9
    (event,) = child.undo()
    assert ("undo:3", "child", 4) == (event.cause, event.session, event.seq)
    assert ("undo:2", {"a": 1}) == (child.undo()[0].cause, dict(child.variables))
    assert ("undo:1", {}) == (child.undo()[0].cause, dict(child.variables))
    assert [] == list(child.undo())
    assert ({"a": 9}, [said(1)]) == (dict(session.variables), list(session.messages))
    grandchild = child.fork("grandchild")
    assert "redo:6" == grandchild.redo()[0].cause
    assert {"a": 1} == grandchild.variables


def test_undo_of_half_a_batch(session: evstore.Session):
    """A fork that begins inside a batch takes back that part of it which it shares."""
    session.variables["z"] = 0
    with session.batch() as batch:
        batch.variables["a"] = 1
        batch.variables["b"] = 2
        batch.variables["a"] = 0
        batch.variables.clear()
    child = session.fork("child", at=3)
    assert "undo:2" == child.undo()[0].cause
    assert {"z": 0} == child.variables
    again = session.fork("again", at=3)
    again.variables["z"] = 1
    again.variables.update(a=5)
    expected = [{"a": 1, "b": 2, "z": 1}, {"a": 1, "b": 2, "z": 0}, {"z": 0}, {}]
    for state in expected:
        assert again.undo()
        assert state == again.variables
    for state in [*expected[-2::-1], {"a": 5, "b": 2, "z": 1}]:
        assert again.redo()
        assert state == again.variables


def test_a_part_that_is_undone_by_later_writes(session: evstore.Session):
    """The shared part of a batch is taken back though what follows in the fork hides it."""
    with session.batch() as batch:
        batch.variables["a"] = 1
        batch.variables["b"] = 2
    child = session.fork("child", at=1)
    del child.variables["a"]
    assert child.undo()
    assert {"a": 1} == child.variables
    assert child.undo()
    assert {} == child.variables
    assert [] == list(child.undo())


def test_a_fork_inside_an_undo(session: evstore.Session):
    """A fork that begins inside an undo counts it as done, and goes back from what it has."""
    session.variables["a"] = 0
    session.messages.append(said(1))
    session.revert(0)
    session.undo()
    child = session.fork("child", at=5)
    assert ({"a": 0}, []) == (dict(child.variables), list(child.messages))
    assert ["undo:1"] == [event.cause for event in child.undo()]
    assert [] == list(child.undo())
    assert ({}, []) == (dict(child.variables), list(child.messages))
    assert child.redo()
    assert ({"a": 0}, []) == (dict(child.variables), list(child.messages))


def test_redo_ends_with_another_batch(session: evstore.Session):
    """Whatever is appended after an undo, even a label, ends what redo can do."""
    session.variables["a"] = 1
    appending = (
        lambda: session.variables.update(b=1),
        lambda: session.metadata.update(m=1),
        lambda: session.messages.append(said(1)),
        lambda: session.label("x"),
        lambda: session.record("app.note"),
    )
    for append in appending:
        session.variables["a"] = 2
        assert session.undo()
        append()
        assert [] == list(session.redo())
        assert 1 == session.variables["a"]


def test_what_redo_passes_over(path: Path):
    """An undo whose taking back changes nothing any more hides no older one."""
    clock = [datetime(2024, 1, 1, tzinfo=UTC)]
    with evstore.open(path, clock=lambda: clock[0]) as store:
        session = store.session("s")
        session.variables["a"] = 1
        session.variables.set("b", 2, ttl=10)
        session.variables["a"] = 3
        assert session.undo()
        assert session.undo()
        clock[0] += timedelta(seconds=20)
        assert "redo:4" == session.redo()[0].cause
        assert {"a": 3} == session.variables
        assert [] == list(session.redo())
        assert "undo:3" == session.undo()[0].cause
        assert {"a": 1} == session.variables


def test_what_undo_passes_over(session: evstore.Session):
    """Labels, metadata, an application's events and what changed nothing are passed over."""
    session.variables["a"] = 1
    session.variables["a"] = 2
    session.variables["a"] = 2
    session.metadata["m"] = 1
    session.label("x")
    session.record("app.note")
    session.revert(3)
    with session.batch() as batch:
        batch.variables["b"] = 1
        del batch.variables["b"]
    assert "undo:2" == session.undo()[0].cause
    assert ({"a": 1}, {"m": 1}) == (dict(session.variables), dict(session.metadata))
    assert {"x": 4} == session.view().labels


def test_a_revert_can_be_undone(session: evstore.Session):
    """A revert is a batch like any other."""
    session.variables["a"] = 1
    session.messages.append(said(1))
    session.variables["a"] = 2
    assert session.revert(0)
    (set_, reverted) = session.undo()
    assert ({"a": 2}, 1) == (dict(session.variables), session.messages.info(0).seq - 1)
    assert ("undo:4", "undo:4", {"to": 3}) == (set_.cause, reverted.cause, reverted.data)
    assert session.redo()
    assert ({}, []) == (dict(session.variables), list(session.messages))


def test_undo_beside_another_writer(session: evstore.Session, monkeypatch: pytest.MonkeyPatch):
    """Where somebody writes while undo makes up its mind, it thinks again, about what is there."""
    session.variables["a"] = 1
    other = session._engine
    twin = evstore.Session(other, "trip", session.writer)
    written = iter(range(3))
    look = evstore.Session._look

    @contextmanager
    def interrupted(self: evstore.Session) -> Any:
        with look(self) as moment:
            yield moment
        number = next(written, None)
        if number is not None:
            with monkeypatch.context() as patch:
                patch.setattr(evstore.Session, "_look", look)
                twin.variables[f"b{number}"] = number

    monkeypatch.setattr(evstore.Session, "_look", interrupted)
    (event,) = session.undo()
    monkeypatch.undo()
    assert ("undo:4", {"a": 1, "b0": 0, "b1": 1}) == (event.cause, dict(session.variables))


def test_undo_gives_up(session: evstore.Session, monkeypatch: pytest.MonkeyPatch):
    """Where somebody writes every time, undo is Conflict at last and has recorded nothing."""
    session.variables["a"] = 1
    attempts = []

    def contested(*args: Any, **how: Any) -> None:
        attempts.append(how["expect"])
        raise Conflict("trip", how["expect"], how["expect"] + 1)

    monkeypatch.setattr(session, "_append", contested)
    with pytest.raises(Conflict):
        session.undo()
    assert [1] * 8 == attempts


@pytest.mark.parametrize("checkpoint_events", [4, 1000])
def test_a_long_way_back(path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_events: int):
    """Hundreds of batches are undone and redone, over reopening, and the file stays sound."""
    monkeypatch.setattr(insert, "CHECKPOINT_EVENTS", checkpoint_events)
    with evstore.open(path, durability="normal") as store:
        session = store.session("s")
        for number in range(120):
            session.variables["n"] = number
        for _ in range(60):
            session.undo()
        assert 59 == session.variables["n"]
    with evstore.open(path, durability="normal") as store:
        session = store.session("s")
        for _ in range(60):
            session.undo()
        assert {} == session.variables
        for number in range(120):
            session.redo()
            assert number == session.variables["n"]
        assert [] == list(session.redo())
        assert is_well(store)
