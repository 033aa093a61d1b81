"""Merging: branches come together as a three-way merge of dicts and lists would have it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.errors import Refused

NAMES = "abcd"
ABSENT = evstore.ABSENT
changes = st.lists(
    st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 3) | st.just("gone")), max_size=5
)
sides = st.sampled_from([None, "ours", "theirs"])


def said(text):
    """Return a message."""
    return {"role": "user", "content": text}


def change(session, changes, text):
    """Set or delete variables and say something, one step after the other."""
    for name, value in changes:
        if value == "gone":
            session.variables.pop(name, None)
        else:
            session.variables[name] = value
    session.messages.append(said(text))


def three_way(base, ours, theirs, prefer):
    """Return the merged dict and the names in conflict, by the book."""
    merged, contested = dict(ours), []
    for name in NAMES:
        was, mine, other = (side.get(name, ABSENT) for side in (base, ours, theirs))
        if other in (mine, was):
            continue
        if mine == was or prefer == "theirs":
            if other is ABSENT:
                merged.pop(name, None)
            else:
                merged[name] = other
        elif prefer is None:
            contested.append((name, was, mine, other))
    return (dict(ours), contested) if contested else (merged, [])


@given(changes, changes, changes, sides)
def test_a_merge_is_a_three_way_merge(common, mine, other, prefer):
    """Variables are merged by the common ancestor, and conflicts are told or decided."""
    with evstore.open(":memory:") as store:
        ours = store.session("ours")
        change(ours, common, "common")
        theirs = ours.fork("theirs")
        base = dict(ours.variables)
        change(ours, mine, "mine")
        change(theirs, other, "other")
        expected, contested = three_way(base, dict(ours.variables), dict(theirs.variables), prefer)
        head = ours.head

        merged = ours.merge(theirs, prefer=prefer)

        assert contested == [tuple(conflict) for conflict in merged.conflicts]
        assert expected == ours.variables
        if contested:
            assert ((), head) == (merged.events, ours.head)
            assert [said("common"), said("mine")] == ours.messages
        else:
            assert [said("common"), said("mine"), said("other")] == ours.messages
            assert () == ours.merge(theirs, prefer=prefer).events
        assert [] == list(replay.verify(store, level="full"))


@given(st.lists(st.tuples(changes, changes), max_size=4), st.sampled_from(["ours", "theirs"]))
def test_a_later_merge_starts_from_what_was_last_merged(rounds, prefer):
    """Merging again and again brings each change of the other side once."""
    with evstore.open(":memory:") as store:
        ours = store.session("ours")
        ours.messages.append(said("common"))
        theirs = ours.fork("theirs")
        base: dict[str, object] = {}
        messages = [said("common")]
        for number, (mine, other) in enumerate(rounds):
            change(ours, mine, f"mine {number}")
            change(theirs, other, f"other {number}")
            expected, _ = three_way(base, dict(ours.variables), dict(theirs.variables), prefer)
            ours.merge(theirs, prefer=prefer)
            base = dict(theirs.variables)
            messages += [said(f"mine {number}"), said(f"other {number}")]
            assert (expected, messages) == (dict(ours.variables), list(ours.messages))


@given(st.lists(st.tuples(st.booleans(), changes), max_size=6))
def test_branches_that_merge_both_ways_agree(steps):
    """What came from the other side does not come back, and after both merges both sides agree."""
    with evstore.open(":memory:") as store:
        one = store.session("one")
        one.variables["a"] = 0
        two = one.fork("two")
        for count, (first, changed) in enumerate(steps, 1):
            side, other = (one, two) if first else (two, one)
            change(side, changed, f"step {count}")
            other.merge(side, prefer="theirs")
            assert dict(one.variables) == dict(two.variables)
            assert count == len(one.messages) == len(two.messages)
            assert () == one.merge(two).events == two.merge(one).events


def test_a_merge_says_where_it_comes_from(store):
    """A merge is one batch, and its cause names the life and the sequence that it brought in."""
    ours = store.session("ours")
    ours.variables["a"] = 1
    theirs = ours.fork("theirs")
    theirs.variables.update(a=2, b=3)
    theirs.messages.append(said("hello"))
    merged = ours.merge(theirs)
    assert [f"merge:{theirs.uid}:{theirs.head}"] * 3 == [event.cause for event in merged.events]
    assert 1 == len({event.position for event in merged.events})
    assert ({"a": 2, "b": 3}, [said("hello")]) == (ours.variables, ours.messages)
    ours.undo()
    assert ({"a": 1}, []) == (ours.variables, ours.messages)


def test_forks_of_forks_merge_from_their_nearest_ancestor(store):
    """Two branches at any depth are merged by the newest state that both share."""
    root = store.session("root")
    root.variables["a"] = 1
    branch = root.fork("branch")
    branch.variables["b"] = 2
    one, two = branch.fork("one"), branch.fork("two")
    one.variables["c"] = 3
    two.variables["b"] = 4
    assert () == one.merge(two).conflicts
    assert {"a": 1, "b": 4, "c": 3} == one.variables
    root.merge(one)
    assert {"a": 1, "b": 4, "c": 3} == root.variables


def test_a_view_can_be_merged(store):
    """A moment of another branch is brought in as it was, whatever happened after it."""
    ours = store.session("ours")
    ours.variables["a"] = 1
    theirs = ours.fork("theirs")
    theirs.variables["a"] = 2
    theirs.variables["a"] = 3
    ours.merge(theirs.at(2))
    assert {"a": 2} == ours.variables
    ours.merge(theirs)
    assert {"a": 3} == ours.variables


def test_what_was_removed_does_not_come(store):
    """A message that the other side took back, or replaced, comes as it now stands there."""
    ours = store.session("ours")
    ours.messages.append(said("common"))
    theirs = ours.fork("theirs")
    theirs.messages.extend([said("one"), said("two"), said("three")])
    theirs.messages.remove(1)
    theirs.messages.replace(1, said("TWO"))
    ours.merge(theirs)
    assert [said("common"), said("TWO"), said("three")] == ours.messages


def branches_with_a_merge(store):
    """Return two branches of which the first merged the second: a variable and three messages."""
    ours = store.session("ours")
    ours.variables["a"] = 1
    theirs = ours.fork("theirs")
    theirs.messages.extend([said("one"), said("two"), said("three")])
    theirs.variables["b"] = 2
    ours.merge(theirs)
    return ours, theirs


def test_a_fork_that_begins_inside_a_merge_loses_nothing(store):
    """All that such a fork says itself comes with it, though the merge went on elsewhere."""
    ours, theirs = branches_with_a_merge(store)
    fork = ours.fork("fork", at=ours.head - 2)
    assert [said("one")] == fork.messages
    fork.messages.extend([said("four"), said("five"), said("six")])
    theirs.merge(fork)
    assert [said(text) for text in ("one", "two", "three", "four", "five", "six")] == [
        *theirs.messages
    ]


def test_a_fork_that_begins_inside_a_merge_counts_it_as_done(store):
    """What the fork did not share of the merge does not come when it merges that side again."""
    ours, theirs = branches_with_a_merge(store)
    fork = ours.fork("fork", at=ours.head - 2)
    assert () == fork.merge(theirs).events
    theirs.messages.append(said("four"))
    fork.merge(theirs)
    assert [said("one"), said("four")] == fork.messages


def test_strangers_are_not_merged(store, memory):
    """Sessions without a common ancestor, unborn ones, and those of other stores are refused."""
    ours, other = store.session("ours"), store.session("other")
    for stranger in (other, memory.session("ours")):
        with pytest.raises(Refused):
            ours.merge(stranger)
    other.variables["a"] = 1
    with pytest.raises(Refused):
        ours.merge(other)
    ours.variables["a"] = 2
    with pytest.raises(Refused):
        ours.merge(other)
    with pytest.raises(Refused, match="'ours' or 'theirs'"):
        ours.merge(ours.fork("fork"), prefer="mine")
    assert {"a": 2} == ours.variables


@pytest.mark.parametrize("other", ["fork", None, 5, {}])
def test_what_is_no_session_is_not_merged(store: evstore.Store, other: Any):
    """An id or anything else in the place of a session is refused, and told what to give."""
    session = store.session("trip")
    session.variables["a"] = 1
    with pytest.raises(Refused, match="only a session can be merged: give the session itself"):
        session.merge(other)


def test_what_was_merged_before_brings_nothing(store: evstore.Store):
    """A moment older than what was last merged has nothing new, however it was decided then."""
    ours = store.session("ours")
    ours.variables["budget"] = 1200
    theirs = ours.fork("theirs")
    ours.variables["budget"] = 900
    theirs.variables.update(budget=700, city="Rome")
    older = theirs.view()
    theirs.variables["budget"] = 800
    ours.merge(theirs, prefer="ours")
    assert ((), ()) == (ours.merge(older).events, ours.merge(older).conflicts)
    assert {"budget": 900, "city": "Rome"} == dict(ours.variables)
