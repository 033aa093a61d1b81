"""What a migration leaves out takes nothing else along: what refers to it finds what is left."""

from typing import Any

import attrs
import pytest

import evstore
from evstore import replay
from evstore.errors import Refused, Unavailable
from evstore.replay import changed
from tests.crash.audit import audit
from tests.histories import said


@pytest.fixture
def source():
    with evstore.open(":memory:") as store:
        yield store


def migrated(source, tmp_path, transform):
    replay.migrate(source, tmp_path / "target.db", transform)
    return evstore.open(tmp_path / "target.db", create=False)


def test_a_fork_keeps_the_past_of_a_parent_that_is_gone(source, tmp_path):
    """However many lives between are left out, what they shared stays the past of the fork."""
    trip = source.session("trip")
    trip.variables["a"] = 1
    trip.messages.append(said("one"))
    between = trip
    for number in range(30):
        between = between.fork(f"between {number}")
        between.record("app.noise")
    leaf = between.fork("leaf")
    leaf.messages.append(said("two"))
    leaf.messages.remove(0)
    leaf.revert(to=33)
    early = between.fork("early", at=1)
    early.variables["b"] = 2

    with migrated(source, tmp_path, lambda c: None if "between" in c.session else c) as target:
        leaf = target.session("leaf")
        assert [said("one"), said("two")] == list(leaf.messages)
        assert ("trip", 2) == (leaf.parent.id, leaf.parent.seq)
        assert ("trip", 1) == (
            target.session("early").parent.id,
            target.session("early").parent.seq,
        )
        assert {"a": 1, "b": 2} == target.session("early").variables
        audit(target)


def test_what_was_merged_of_a_life_that_is_gone_is_told_as_before(source, tmp_path):
    """A cause that names a life which the target has not stays as it is."""
    trip = source.session("trip")
    trip.record("app.noise")
    trip.variables["a"] = 1
    fork = trip.fork("fork")
    fork.variables["b"] = 2
    trip.merge(fork)

    def quiet(commit):
        if commit.session == "fork":
            return None
        return commit.having(event for event in commit.events if event.kind != "app.noise")

    with migrated(source, tmp_path, quiet) as target:
        *_, merge = target.session("trip").events()
        assert f"merge:{fork.uid}:3" == merge.cause


def test_the_turns_of_an_agent_are_renumbered(source, tmp_path):
    """The cause of a turn names the event it began with; what only looks like one stays."""
    trip = source.session("trip")
    trip.record("app.noise")
    others = ["run:40", "run:0", "run:x", "run:" + "9" * 500]
    for cause in ("run:2", "run:2", *others):
        with trip.batch(cause=cause) as batch:
            batch.record("app.step")
    fork = trip.fork("fork", at=2)
    with fork.batch(cause="run:2") as batch:
        batch.record("app.step")

    def quiet(commit):
        return commit.having(event for event in commit.events if event.kind != "app.noise")

    with migrated(source, tmp_path, quiet) as target:
        causes = [event.cause for event in target.session("trip").events()]
        assert ["run:1", "run:1", *others] == causes
        assert ["run:1", "run:1"] == [event.cause for event in target.session("fork").events()]


def deep(levels: int) -> Any:
    value: Any = {1: 1}
    for _ in range(levels - 1):
        value = {1: value}
    return value


@pytest.mark.parametrize("left_out", ["app.noise", "message.added", "nothing"])
def test_values_as_deep_as_they_may_be_come_over(source, tmp_path, left_out):
    """What the log holds can be changed into itself, and what refers to it is renumbered."""
    trip = source.session("trip")
    trip.record("app.noise")
    trip.messages.append(said("one"))
    trip.messages.replace(0, {"role": "user", "content": deep(99)})
    trip.variables["deep"] = deep(100)
    trip.record("app.deep", deep(100))

    def same(commit):
        return commit.having(changed(e, e.data) for e in commit.events if e.kind != left_out)

    with migrated(source, tmp_path, same) as target:
        moved = target.session("trip")
        assert deep(99) == moved.messages[0]["content"]
        assert deep(100) == moved.variables["deep"]
        assert trip.head - (left_out != "nothing") == moved.head


def each(**changes):
    return lambda commit: commit.having(changed(event, **changes) for event in commit.events)


REFUSED = {
    "the version 'x'": each(version="x"),
    "the version -1": each(version=-1),
    "the version True": each(version=True),
    "the version 2147483648": each(version=1 << 31),
    "the kind 5": each(kind=5),
    "the kind \\[": each(kind=["app.x"]),
    "a text that UTF-8 cannot hold": each(text='"\ud800"'),
    "gave an event a text": each(text=b"{}"),
    "neither data nor a leaf": each(text=None),
    "events in a NoneType": lambda commit: attrs.evolve(commit, events=None),
    "events in a tuple_iterator": lambda commit: attrs.evolve(commit, events=iter(commit.events)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_no_event_can_be_is_refused(source, tmp_path, words):
    """The refusal says what the transform gave, and where."""
    source.session("trip").record("app.x", 1)
    with pytest.raises(Refused, match=words):
        replay.migrate(source, tmp_path / "target.db", REFUSED[words])


def test_a_file_that_appears_meanwhile_is_left_alone(source, tmp_path):
    """What takes the name of the target while a migration runs is not overwritten by it."""
    source.session("trip").variables["a"] = 1
    target = tmp_path / "target.db"
    with pytest.raises(Refused, match="is there already"):
        replay.migrate(source, target, progress=lambda *_: target.write_text("precious"))
    assert "precious" == target.read_text()
    target.unlink()
    assert 1 == replay.migrate(source, target, resume=True).events


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "nowhere/target.db"])
def test_a_name_that_no_file_can_have_is_unavailable(source, tmp_path, name):
    """Before anything is written, and in a dry run as well."""
    for dry_run in (True, False):
        with pytest.raises(Unavailable):
            replay.migrate(source, f"{tmp_path}/{name}", dry_run=dry_run)
