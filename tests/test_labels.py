"""A label is a name for a moment: given, moved, shared by forks, and found by `at`."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.errors import BadName, NoSuchMoment, ReadOnly, Refused, SessionNotFound, TooLarge
from evstore.folding import fold
from tests.event_schemas import check_events
from tests.histories import CHECKPOINTS, HISTORIES, fresh_store, live_through, states


def said(number: int) -> dict[str, Any]:
    return {"role": "user", "content": number}


@given(HISTORIES, CHECKPOINTS)
def test_labels_are_what_events_say(history: list[Any], checkpoint: int):
    """In every fork and moment the labels are those given by then, and a rebuild keeps them."""
    with fresh_store(checkpoint) as store:
        sessions = live_through(store, history)
        for _ in range(2):
            for session in sessions:
                past = states(session)
                assert past[-1].labels == session.view().labels == fold(session.events()).labels
                for seq, state in enumerate(past):
                    assert state.labels == session.at(seq).labels
                for name, seq in past[-1].labels.items():
                    assert seq == session.at(name).seq
                for name in {"here", "there"} - {*past[-1].labels}:
                    with pytest.raises(NoSuchMoment):
                        session.at(name)
            replay.rebuild(store)


def test_a_label_names_a_moment(session: evstore.Session):
    """Without a moment a label names the head before it; `at`, revert and fork go by it."""
    session.variables["a"] = 1
    session.messages.append(said(1))
    (event,) = session.label("booked")
    assert ("label.set", "booked", {"at": 2}, 3) == (event.kind, event.name, event.data, event.seq)
    session.variables["a"] = 2
    assert 2 == session.at("booked").seq
    assert ({"a": 1}, [said(1)]) == (
        dict(session.at("booked").variables),
        list(session.at("booked").messages),
    )
    assert {"a": 1} == session.fork("child", at="booked").variables
    session.revert("booked")
    assert {"a": 1} == session.variables
    assert {"label.set"} == check_events(session.events(kind="label.set"))


def test_a_label_at_another_moment(session: evstore.Session):
    """A label can be given to any moment, by seq, time or another label; 0 is one too."""
    session.variables["a"] = 1
    time = session.updated_at
    assert time is not None
    session.variables["a"] = 2
    session.label("seq", at=1)
    session.label("time", at=time)
    session.label("label", at="time")
    session.label("beginning", at=0)
    session.label("end", at=time + timedelta(days=1))
    expected = {"seq": 1, "time": 1, "label": 1, "beginning": 0, "end": 6}
    assert expected == session.view().labels
    assert expected == {name: session.at(name).seq for name in expected}
    assert sorted(expected) == list(session.view().labels)


def test_a_label_inside_a_batch(session: evstore.Session):
    """A moment in the middle of a batch can have a name."""
    with session.batch() as batch:
        batch.variables.update(a=1, b=2, c=3)
    session.label("middle", at=2)
    assert {"a": 1, "b": 2} == session.at("middle").variables


def test_a_label_moves(session: evstore.Session):
    """A label given again names another moment from then on; views of before show the old one."""
    session.variables["a"] = 1
    session.label("x")
    session.variables["a"] = 2
    session.label("x")
    assert (3, {"x": 3}) == (session.at("x").seq, session.view().labels)
    assert {"x": 1} == session.at(2).labels == session.at(3).labels
    assert {} == session.at(1).labels
    session.label("x", at=1)
    assert 1 == session.at("x").seq
    view = session.view()
    session.label("y")
    assert {"x": 1} == view.labels
    view.labels["z"] = 9
    assert {"x": 1} == view.labels


def test_labels_of_forks(session: evstore.Session):
    """Labels are shared up to the fork point; then each side gives its own."""
    session.variables["a"] = 1
    session.label("x")
    session.label("y")
    child = session.fork("child")
    early = session.fork("early", at=2)
    session.label("later")
    session.label("x")
    child.variables["a"] = 2
    child.label("y")
    child.label("mine")
    assert {"x": 4, "y": 2, "later": 3} == session.view().labels
    assert {"x": 1, "y": 4, "mine": 5} == child.view().labels
    assert ({"x": 1}, 1) == (early.view().labels, early.at("x").seq)
    for fork, name in ((child, "later"), (early, "y"), (session, "mine")):
        with pytest.raises(NoSuchMoment):
            fork.at(name)
    deep = child
    for level in range(6):
        deep = deep.fork(f"deep{level}")
    assert child.view().labels == deep.view().labels
    assert 4 == deep.at("y").seq
    assert {"x": 1, "y": 2} == deep.at(3).labels


@pytest.mark.parametrize(
    "name",
    [
        *("", "0", "12", "007", "\uff12", "²", "2024-01-31", "20240131", "2024-01-31T12:00"),
        *("2024-01-31T12:00:00.5+02:00", "2024-01-31 12:00Z", "2024-W05-3", "a\0b", "\ud800"),
    ],
)
def test_what_cannot_be_a_label(session: evstore.Session, name: str):
    """What is empty, reads as a number or a date, or is no storable name is BadName."""
    session.variables["a"] = 1
    with pytest.raises(BadName):
        session.label(name)
    with pytest.raises(BadName):
        session.label(name, at=0)
    if name.isprintable():
        with pytest.raises(NoSuchMoment):
            session.at(name)
    assert 1 == session.head


def test_labels_of_other_types(session: evstore.Session):
    """A label is text of a bounded length."""
    names: list[Any] = [None, 1, b"x", True, ("x",)]
    for name in names:
        with pytest.raises(BadName):
            session.label(name)
    with pytest.raises(TooLarge):
        session.label("x" * 513)
    assert 0 == session.head
    session.label("x" * 512)
    assert ["x" * 512] == list(session.view().labels)


@pytest.mark.parametrize(
    "name", ["x", "ü", "1a", "-1", "1.5", "v2024", "2024-01", "release 2024-01-31", "now", "None"]
)
def test_what_can_be_a_label(session: evstore.Session, name: str):
    """Any other name is one, also where it holds digits."""
    session.variables["a"] = 1
    session.label(name)
    session.variables["a"] = 2
    assert ({name: 1}, 1) == (session.view().labels, session.at(name).seq)


@given(st.text(max_size=12))
def test_any_text_is_a_label_or_bad(name: str):
    """A text is refused before anything is written, or found again."""
    with fresh_store() as store:
        session = store.session("s")
        session.variables["a"] = 1
        try:
            session.label(name)
        except BadName:
            assert 1 == session.head
        else:
            assert (2, 1) == (session.head, session.at(name).seq)


def test_moments_that_are_not_there(store: evstore.Store, session: evstore.Session):
    """An unknown label, or a label at no moment, is NoSuchMoment and writes nothing."""
    session.variables["a"] = 1
    with pytest.raises(NoSuchMoment) as caught:
        session.at("x")
    assert ("trip", "x", 1) == (caught.value.session, caught.value.moment, caught.value.head)
    for moment in (-1, 2, "y"):
        with pytest.raises(NoSuchMoment):
            session.label("x", at=moment)
    with pytest.raises(Refused):
        session.label("x", at=session.updated_at.replace(tzinfo=None))  # type: ignore[union-attr]
    assert (1, {}) == (session.head, session.view().labels)
    uid = session.uid
    store.delete("trip")
    with pytest.raises(SessionNotFound):
        session.label("x")
    with pytest.raises(ReadOnly):
        store.session(uid=uid).label("x")


def test_a_label_changes_nothing_else(session: evstore.Session):
    """Variables, metadata and messages are as before, also those of the label's name."""
    session.variables["x"] = 1
    session.metadata["x"] = 2
    session.messages.append(said(1))
    before = [dict(session.variables), dict(session.metadata), list(session.messages)]
    session.label("x", at=1)
    assert before == [dict(session.variables), dict(session.metadata), list(session.messages)]
    assert not session.diff(3, 4)
    del session.variables["x"]
    del session.metadata["x"]
    session.messages.clear()
    session.revert(0)
    session.undo()
    assert {"x": 1} == session.view().labels
    assert 1 == session.at("x").seq


def test_a_label_on_a_session_not_born(store: evstore.Store):
    """A label may be the first event; it names the beginning, and metadata comes before it."""
    session = store.session("s", metadata={"title": "Rome"})
    assert {} == session.view().labels
    assert ["metadata.set", "label.set"] == [event.kind for event in session.label("start")]
    assert ({"start": 0}, 0) == (session.view().labels, session.at("start").seq)


def test_who_gave_a_label(store: evstore.Store):
    """A label is said by the actor of the handle, now and at a moment."""
    session = store.session("s", actor="keeper")
    session.label("x")
    session.label("y", at=0)
    assert ["keeper", "keeper"] == [event.actor for event in session.events()]


def test_labels_survive(store: evstore.Store, session: evstore.Session):
    """Verify finds nothing wrong with labels, and a rebuild from the log makes the same of them."""
    for number in range(20):
        session.variables["a"] = number
        session.label(f"label {number % 7}", at=number // 2)
    child = session.fork("child", at=21)
    child.label("own")
    before = replay.fingerprint(store)
    labels, uid = (session.view().labels, child.view().labels), session.uid
    assert [] == list(replay.verify(store, level="full"))
    replay.rebuild(store)
    assert before == replay.fingerprint(store)
    assert labels == (session.view().labels, child.view().labels)
    assert [] == list(replay.verify(store, level="full"))
    store.delete("trip")
    store.restore(uid or "")
    assert labels[0] == store.session("trip").view().labels
