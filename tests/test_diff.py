"""A difference is what a comparison of two dicts and two lists would say, message by message."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore.diff import subtract
from evstore.errors import NoSuchMoment, Refused
from evstore.events import ABSENT
from tests.histories import (
    CHECKPOINTS,
    HISTORIES,
    LONG,
    VALUES,
    fresh_store,
    live_through,
    said,
    states,
    take,
    value_in,
)
from tests.values_strategy import fingerprint

WHERE = st.tuples(st.integers(0, 6), st.integers(0, 40))


def unordered(value: Any) -> Any:
    """What is the same for values that are the same but for the order of keys."""
    match value:
        case dict():
            return sorted((fingerprint(key), unordered(inner)) for key, inner in value.items())
        case list() | tuple():
            return type(value).__name__, [unordered(inner) for inner in value]
    return fingerprint(value)


def compared(a: evstore.Session, x: int, b: evstore.Session, y: int) -> tuple[Any, ...]:
    """What is other in `b` at `y` than in `a` at `x`, by a scan of the events of both."""
    before, after = states(a)[x], states(b)[y]
    named = [
        {
            name: (value_in(old, name), value_in(new, name))
            for name in {*old, *new}
            if unordered(value_in(old, name)) != unordered(value_in(new, name))
        }
        for old, new in ((before.variables, after.variables), (before.metadata, after.metadata))
    ]
    uids = [[event.uid for event in session.events()] for session in (a, b)]
    old = {(uids[0][seq - 1], seq): message for seq, message in before.messages}
    new = {(uids[1][seq - 1], seq): message for seq, message in after.messages}
    added = [message for event, message in new.items() if event not in old]
    removed = [message for event, message in old.items() if event not in new]
    return *map(exact, named), added, removed


def exact(pairs: dict[str, tuple[Any, Any]]) -> dict[str, list[str]]:
    """The pairs as texts that are the same for the same values only."""
    return {name: list(map(fingerprint, pair)) for name, pair in pairs.items()}


def shown(diff: evstore.Diff) -> tuple[Any, ...]:
    """A Diff as `compared` tells it."""
    return exact(diff.variables), exact(diff.metadata), diff.added, diff.removed


@given(HISTORIES, HISTORIES, CHECKPOINTS, st.lists(st.tuples(WHERE, WHERE), min_size=5, max_size=9))
def test_a_diff_is_a_comparison(
    history: list[Any], other: list[Any], checkpoint: int, places: list[Any]
):
    """Between any moments of a session, its forks and a stranger a diff is what dicts say."""
    with fresh_store(checkpoint) as store:
        sessions = live_through(store, history)
        stranger = store.session("stranger")
        for step in other[:5]:
            if step[1][0] in ("set", "say", "batch", "mark"):
                take(stranger, step[1])
        sessions.append(stranger)
        for (i, x), (j, y) in places:
            a, b = sessions[i % len(sessions)], sessions[j % len(sessions)]
            x, y = x % (a.head + 1), y % (b.head + 1)  # noqa: PLW2901 - now moments that are there
            diff = a.at(x).diff(b.at(y))
            expected = compared(a, x, b, y)
            assert expected == shown(diff)
            assert sorted(diff.variables) == list(diff.variables)
            assert any(expected) == bool(diff)
            assert expected == shown(a.diff(x, b.at(y))) == shown(b.diff(a.at(x), y))
            assert mirrored(expected) == shown(b.at(y).diff(a.at(x)))
            assert not a.diff(x, x)


def mirrored(shown_diff: tuple[Any, ...]) -> tuple[Any, ...]:
    """How the difference looks from the other side."""
    variables, metadata, added, removed = shown_diff
    turned = [{name: pair[::-1] for name, pair in pairs.items()} for pairs in (variables, metadata)]
    return *turned, removed, added


def test_what_a_diff_shows(session: evstore.Session):
    """Names with what they were and are, ABSENT for nothing, and the messages that differ."""
    session.variables.update(a=1, b=2)
    session.metadata["title"] = "Rome"
    session.messages.append(said(1))
    before = session.head
    session.variables["a"] = 5
    session.variables["c"] = 3
    del session.variables["b"]
    session.messages.replace(0, said(2))
    session.messages.append(said(3))
    diff = session.diff(before, session.head)
    assert {"a": (1, 5), "b": (2, ABSENT), "c": (ABSENT, 3)} == diff.variables
    assert ({}, [said(2), said(3)], [said(1)]) == (diff.metadata, diff.added, diff.removed)
    assert {"title": (ABSENT, "Rome")} == session.diff(0, before).metadata
    assert bool(diff)


def test_nothing_differs_from_itself(session: evstore.Session):
    """A diff of a moment with itself, or with one that looks the same, is empty and falsy."""
    for moment in (0, session.view()):
        assert not session.diff(moment, moment)
    session.variables["a"] = float("nan")
    session.messages.append(said(1))
    session.variables["a"] = float("nan")
    session.record("app.note")
    session.label("x")
    session.messages.append(said(2))
    session.messages.pop()
    diff = session.diff(2, session.head)
    assert evstore.Diff({}, {}, [], []) == diff
    assert not diff
    assert not session.diff(session.view(), session.fork("child").view())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        ([{"x": {"p": 1, "q": 2}}], [{"x": {"q": 2, "p": 1}}]),
        ({1: "x", 2: "y"}, {2: "y", 1: "x"}),
        ({1: {"p": (1,), 3: 4}, "z": 0}, {"z": 0, 1: {3: 4, "p": (1,)}}),
        ({"$tuple": 1, "z": 2}, {"z": 2, "$tuple": 1}),
        ({(1, 2): {"x": 1, "y": 2}}, {(1, 2): {"y": 2, "x": 1}}),
        ({1, 2, 3}, {3, 2, 1}),
        (LONG, LONG),
        (float("nan"), float("nan")),
        ((), ()),
    ],
    ids=str,
)
def test_what_is_no_difference(session: evstore.Session, before: Any, after: Any):
    """Dicts do not compare by the order of keys, sets have none, and nan is still nan."""
    session.variables["a"] = before
    session.variables["a"] = after
    assert {} == session.diff(1, 2).variables


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (1.0, True),
        (0.0, -0.0),
        (0, None),
        ([1], (1,)),
        ({1}, frozenset({1})),
        ([1, 2], [2, 1]),
        ({1: 2}, {"1": 2}),
        ({"a": 1}, {"a": True}),
        ({1: "x"}, {True: "x"}),
        ({"$dict": [[2, 1]]}, {"$dict": [[1, 2]]}),
        ({"$dict": [[1, 0], [2, 0]]}, {"$dict": [[2, 0], [1, 0]]}),
        ("1", 1),
        (b"a", "a"),
        (1 << 64, (1 << 64) + 1),
        ({}, []),
        (None, "erased"),
        (LONG, LONG + "."),
    ],
    ids=str,
)
def test_what_is_a_difference(session: evstore.Session, before: Any, after: Any):
    """Values of other types differ, however equal Python finds them."""
    session.variables["a"] = before
    session.variables["a"] = after
    found = session.diff(1, 2).variables
    assert exact({"a": (before, after)}) == exact(found)
    assert exact({"a": (after, before)}) == exact(session.diff(2, 1).variables)


@given(st.lists(VALUES, min_size=2, max_size=6))
def test_any_values_compare(values: list[Any]):
    """For all that can be stored, two values differ or do not as a deep comparison says."""
    with fresh_store() as store:
        session = store.session("s")
        for value in values:
            session.variables["a"] = value
        for before, one in enumerate(values, 1):
            for after, two in enumerate(values, 1):
                differ = unordered(one) != unordered(two)
                assert differ == bool(session.diff(before, after))


@pytest.mark.parametrize("keys", ["text", "numbers", "list", "tuple"])
def test_deep_values_compare(session: evstore.Session, keys: str):
    """What is nested as deeply as can be stored is compared to its end."""
    for leaf in (0, 1):
        value: Any = leaf
        for _ in range(100):
            wrapped = {"text": {"x": value}, "numbers": {1: value}, "list": [value]}
            value = wrapped.get(keys, (value,))
        session.variables["a"] = value
    assert ["a"] == list(session.diff(1, 2).variables)
    assert {} == session.diff(2, 2).variables


def test_a_message_is_the_same_where_it_is_the_same_event(session: evstore.Session):
    """Equal words said twice are two messages; one that is taken back and comes back is one."""
    session.messages.append(said(1))
    session.messages.clear()
    session.messages.append(said(1))
    assert ([said(1)], [said(1)]) == (session.diff(1, 3).added, session.diff(1, 3).removed)
    session.revert(1)
    assert not session.diff(1, session.head)
    assert session.diff(3, session.head)


def test_forks_share_their_messages(session: evstore.Session):
    """Between two forks only what was said after the nearest fork point differs."""
    session.messages.extend(map(said, range(5)))
    session.variables["a"] = 1
    one, two = session.fork("one"), session.fork("two", at=4)
    one.messages.append(said("same"))
    two.messages.append(said("same"))
    two.messages.remove(0)
    session.messages.append(said("parent"))
    diff = one.diff(one.head, two.view())
    assert {"a": (1, ABSENT)} == diff.variables
    assert ([said("same")], [said(0), said(4), said("same")]) == (diff.added, diff.removed)
    diff = session.diff(session.head, one.view())
    assert ([said("same")], [said("parent")]) == (diff.added, diff.removed)
    assert not session.diff(3, two.at(3))
    deep = two
    for level in range(8):
        deep = deep.fork(f"deep{level}")
        deep.messages.append(said(level))
    diff = deep.diff(two.view(), deep.view())
    assert ([said(level) for level in range(8)], []) == (diff.added, diff.removed)
    diff = deep.diff(one.view(), deep.view())
    assert [said(0), said(4), said("same")] == diff.removed
    assert [said("same"), *map(said, range(8))] == diff.added


def test_strangers_share_nothing(store: evstore.Store, session: evstore.Session):
    """Between unrelated sessions every message differs; variables compare by their values."""
    other = store.session("other")
    for doors in (session, other):
        doors.messages.append(said(1))
        doors.variables["a"] = 1
    other.variables["b"] = 2
    diff = session.diff(session.view(), other.view())
    assert ({"b": (ABSENT, 2)}, [said(1)], [said(1)]) == (
        diff.variables,
        diff.added,
        diff.removed,
    )
    unborn = store.session("unborn")
    assert ([], [said(1)]) == (session.diff(2, unborn.view()).added, session.diff(2, 0).removed)


def test_moments_of_a_diff(session: evstore.Session):
    """Both sides may be a seq, a label, a time or a View; one that is not there is an error."""
    session.variables["a"] = 1
    time = session.updated_at
    assert time is not None
    session.label("one", at=1)
    session.variables["a"] = 2
    for before in (1, "one", time, session.at(1)):
        for after in (3, time + timedelta(days=1), session.view()):
            assert {"a": (1, 2)} == session.diff(before, after).variables
    with pytest.raises(NoSuchMoment):
        session.diff(0, 4)
    with pytest.raises(NoSuchMoment):
        session.diff("two", 1)


def test_views_of_ended_lives(store: evstore.Store, session: evstore.Session):
    """What a life was before it ended can be compared ever after, also with the next life."""
    session.variables["a"] = 1
    session.messages.append(said(1))
    view, uid = session.view(), session.uid
    child = session.fork("child")
    store.delete("trip")
    again = store.session("trip")
    again.variables["a"] = 2
    assert {"a": (1, 2)} == view.diff(again.view()).variables
    assert [said(1)] == again.diff(view, 1).removed
    ended = store.session(uid=uid)
    assert {"a": (ABSENT, 1)} == ended.diff(0, ended.head).variables
    assert not ended.diff(view, ended.head)
    assert not view.diff(child.view())


def test_views_outlive_what_follows(session: evstore.Session):
    """A diff of Views tells of their moments, whatever was written since."""
    session.variables["a"] = 1
    session.messages.append(said(1))
    before = session.view()
    session.messages.clear()
    session.variables["a"] = 2
    after = session.view()
    session.variables.clear()
    session.revert(0)
    diff = before.diff(after)
    assert ({"a": (1, 2)}, [], [said(1)]) == (diff.variables, diff.added, diff.removed)


def test_a_view_of_another_store(path: Path, session: evstore.Session):
    """Sessions of two stores do not compare; two handles on one file do."""
    session.variables["a"] = 1
    with evstore.open(path.with_name("other.db"), durability="normal") as other:
        with pytest.raises(Refused, match="one store"):
            session.diff(0, other.session("trip").view())
        with pytest.raises(Refused, match="one store"):
            other.session("trip").view().diff(session.view())
    for read_only in (False, True):
        with evstore.open(path, durability="normal", read_only=read_only) as twin:
            diff = session.diff(0, twin.session("trip").view())
            assert {"a": (ABSENT, 1)} == diff.variables


def test_what_a_diff_gives_is_fresh(session: evstore.Session):
    """Changing what a diff gave changes nothing else."""
    session.variables["a"] = [1]
    session.messages.append({"role": "user", "parts": [1]})
    diff = session.diff(0, 2)
    diff.variables["a"][1].append(2)
    diff.added[0]["parts"].append(2)
    assert ([1], [1]) == (session.variables["a"], session.messages[0]["parts"])
    assert {"a": (ABSENT, [1])} == session.diff(0, 2).variables


def covered(ranges: list[tuple[int, int]]) -> list[int]:
    """The numbers in ranges, in order."""
    return [number for start, end in ranges for number in range(start, end)]


CUTS = st.lists(st.integers(0, 60), unique=True, max_size=20).map(sorted)
DISJOINT = CUTS.map(
    lambda cuts: list(zip(cuts[::2], cuts[1::2], strict=False)),
)


@given(DISJOINT.flatmap(st.permutations), DISJOINT.flatmap(st.permutations))
def test_ranges_subtract_like_sets(ranges: list[Any], minus: list[Any]):
    """What is left of ranges is what sets of numbers would leave, in the order of the ranges."""
    gone = set(covered(minus))
    left = subtract(ranges, minus)
    assert [number for number in covered(ranges) if number not in gone] == covered(left)
    assert all(start < end for start, end in left)
