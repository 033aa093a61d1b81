"""A walk shows every event between the session before it and the session after it."""

import weakref
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.errors import NoSuchMoment, Refused
from tests.histories import CHECKPOINTS, HISTORIES, NAMES, fresh_store, live_through, shown


def seen(view: evstore.View) -> tuple[Any, ...]:
    """All that a view shows, values exact, names in their order."""
    facts = [(name, view.variables.info(name)) for name in view.variables]
    place = view.id, view.uid, view.seq, view.time, view.labels
    return place, facts, list(view.metadata.items()), *shown(view)


@given(HISTORIES, CHECKPOINTS, st.integers(0, 9))
def test_a_walk_passes_every_moment(history, checkpoint_events, after):
    """Before and after each event the session is as `at` shows it, in forks as well."""
    with fresh_store(checkpoint_events) as store:
        for session in live_through(store, history):
            after = min(after, session.head)
            changes = list(replay.walk(session, after))
            assert list(session.events(after)) == [change.event for change in changes]
            for before, event, then in changes:
                assert repr(seen(session.at(event.seq - 1))) == repr(seen(before))
                assert repr(seen(session.at(event.seq))) == repr(seen(then))
            for left, right in pairwise(changes):
                assert left.after is right.before


KINDS = st.sets(st.sampled_from(["variable.set", "message.added", "app.note", "label.set"]))


@given(
    HISTORIES,
    KINDS | st.none(),
    st.lists(st.sampled_from(NAMES)) | st.none(),
    st.tuples(st.integers(0, 9), st.integers(0, 20) | st.none()),
)
def test_a_walk_is_filtered_and_bounded(history, kinds, names, bounds):
    """Only events that are wanted are shown, each between the moments right beside it."""
    with fresh_store() as store:
        session = live_through(store, history)[-1]
        after, until = min(bounds[0], session.head), bounds[1]
        expected = [
            event.seq
            for event in session.events(after, until)
            if (kinds is None or event.kind in kinds) and (names is None or event.name in names)
        ]
        changes = list(replay.walk(session, after, until, kinds=kinds, names=names))
        assert expected == [change.event.seq for change in changes]
        for before, event, then in changes:
            assert repr(seen(session.at(event.seq - 1))) == repr(seen(before))
            assert repr(seen(session.at(event.seq))) == repr(seen(then))


def test_deadlines_pass_on_the_way():
    """A variable is absent from the first event at or after its deadline on, and may come back."""
    start = datetime(2026, 11, 21, tzinfo=UTC)
    now = [start]
    with evstore.open(":memory:", clock=lambda: now[0]) as store:
        session = store.session("trip")
        session.variables.set("a", 1, ttl=timedelta(seconds=10))
        session.variables["b"] = 2
        for second in (5, 10, 11):
            now[0] = start + timedelta(seconds=second)
            session.record("app.tick", second)
        session.variables["a"] = 3
        names = [sorted(change.after.variables) for change in replay.walk(session)]
        assert [["a"], ["a", "b"], ["a", "b"], ["b"], ["b"], ["a", "b"]] == names
        for after in range(session.head + 1):
            for change in replay.walk(session, after):
                assert seen(session.at(change.event.seq)) == seen(change.after)
        assert start == next(replay.walk(session)).after.time


def test_views_of_a_walk_stay(session: evstore.Session):
    """What a walk has shown stays as it was while it goes on, and while the session does."""
    session.variables["a"] = [1]
    session.messages.append({"role": "user", "content": "x"})
    walk = replay.walk(session)
    first = next(walk)
    session.variables["a"] = 2
    assert ["message.added"] == [change.event.kind for change in walk]  # up to the head of then
    session.messages.clear()
    assert ({}, {"a": [1]}) == (dict(first.before.variables), dict(first.after.variables))
    assert [] == list(first.after.messages)
    assert {"a": (evstore.ABSENT, [1])} == first.before.diff(first.after).variables


def test_names_come_in_their_order(session: evstore.Session):
    """Names that were given later stand where their letters belong, labels too."""
    for name in ("b", "c", "a"):
        session.variables[name] = session.metadata[name] = 1
        session.label(f"label-{name}", at=1)
    *_, last = replay.walk(session)
    assert ["a", "b", "c"] == list(last.after.variables) == list(last.after.metadata)
    assert ["label-a", "label-b", "label-c"] == list(last.after.labels)
    assert seen(session.view()) == seen(last.after)


def test_a_walk_keeps_nothing_of_what_it_has_shown(session: evstore.Session):
    """Views that nobody keeps are gone, however long the walk."""
    with session.batch() as batch:
        for number in range(1000):
            batch.variables["a"] = number
            batch.messages.append({"role": "user", "content": "x"})
    views = [weakref.ref(change.after) for change in replay.walk(session)]
    assert 2000 == len(views)
    assert 2 >= sum(view() is not None for view in views)


def test_a_walk_through_the_log_of_an_ended_life(store: evstore.Store, session: evstore.Session):
    """The log of a life that has ended is walked through by its uid, to its end."""
    session.variables["a"] = 1
    uid = session.uid
    store.delete("trip")
    walked = replay.walk(store.session(uid=uid))
    assert ["variable.set", "session.deleted"] == [change.event.kind for change in walked]
    assert [] == list(replay.walk(store.session("unborn")))


def test_what_cannot_be_walked_is_refused(session: evstore.Session):
    """A moment that is not there and a text in the place of a collection are refused at once."""
    with pytest.raises(NoSuchMoment):
        replay.walk(session, 1)
    with pytest.raises(Refused, match=r"give a collection, as in \['a'\]"):
        replay.walk(session, names="a")
