"""A fork shares the past up to one event and owns its future."""

import inspect
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore import replay
from evstore.errors import BadName, NoSuchMoment, SessionNotFound, Taken


def said(number: int) -> dict[str, Any]:
    return {"role": "user", "content": number}


def shown(doors: Any) -> tuple[Any, ...]:
    return dict(doors.variables), dict(doors.metadata), list(doors.messages)


def test_a_fork_shares_the_past_and_owns_its_future(session: evstore.Session):
    """What parent and child write after the fork is their own."""
    session.variables.update(a=1, b=2)
    session.metadata["m"] = 1
    session.messages.extend([said(1), said(2)])
    child = session.fork("child")
    assert shown(session) == shown(child)
    session.variables["a"] = 10
    session.messages.append(said(3))
    del session.metadata["m"]
    child.variables["c"] = 30
    del child.variables["b"]
    child.messages.replace(0, said(20))
    assert ({"a": 1, "c": 30}, {"m": 1}, [said(20), said(2)]) == shown(child)
    assert ({"a": 10, "b": 2}, {}, [said(1), said(2), said(3)]) == shown(session)
    assert [1, 2, 3, 4, 5, 6, 7, 8] == [event.seq for event in child.events()]
    assert ["trip"] * 5 + ["child"] * 3 == [event.session for event in child.events()]
    assert [session.uid] * 5 + [child.uid] * 3 == [event.uid for event in child.events()]


def test_a_fork_is_born_at_once(store: evstore.Store, session: evstore.Session):
    """Forking is one commit without an event; the head is the fork point until the child writes."""
    session.variables.update(a=1, b=2)
    child = session.fork("child", at=1)
    assert ("child" in store, 1, 2, 2) == (
        True,
        child.head,
        store.stats().batches,
        store.stats().events,
    )
    parent = child.parent
    assert parent is not None
    assert ("trip", session.uid, 1) == (parent.id, parent.uid, parent.seq)
    assert session.parent is None
    born, before = child.created_at, session.updated_at
    assert born is not None
    assert before is not None
    assert born == child.updated_at
    assert born > before
    assert session.uid != child.uid
    assert child.variables.set("a", 5)[0].seq == 2


@pytest.mark.parametrize("at", range(7))
def test_any_moment_can_be_forked(session: evstore.Session, at: int):
    """A fork begins at any seq, also 0, and in the middle of a batch."""
    with session.batch() as batch:
        batch.variables["a"] = 1
        batch.messages.append(said(1))
        batch.messages.replace(0, said(2))
    with session.batch() as batch:
        batch.messages.append(said(3))
        batch.messages.remove(0)
        del batch.variables["a"]
    child = session.fork("child", at=at)
    assert shown(session.at(at)) == shown(child)
    assert at == child.head
    child.messages.append(said(4))
    child.variables["a"] = 5
    variables, _, messages = shown(session.at(at))
    assert ({**variables, "a": 5}, {}, [*messages, said(4)]) == shown(child)
    for seq in range(at + 1):
        assert shown(session.at(seq)) == shown(child.at(seq))
    assert list(session.events(until=at)) == list(child.events(until=at))
    grandchild = child.fork("grandchild", at=max(at - 1, 0))
    assert shown(session.at(max(at - 1, 0))) == shown(grandchild)


def test_thirty_forks_deep(store: evstore.Store):
    """Through any number of forks the past reads as it was written, at every moment."""
    session = store.session("0")
    expected: list[tuple[Any, ...]] = [shown(session)]
    for level in range(30):
        session.variables[f"v{level}"] = level
        expected.append(shown(session))
        session.messages.append(said(level))
        expected.append(shown(session))
        session.variables["same"] = level
        expected.append(shown(session))
        if level % 3 == 0:
            session.messages.pop(0)
            expected.append(shown(session))
        before, session = session, session.fork(f"{level + 1}")
        before.variables["later"] = level
        before.messages.clear()
    assert expected == [shown(session.at(seq)) for seq in range(session.head + 1)]
    assert [f"{level}" for level in range(30)] == list(
        dict.fromkeys(event.session for event in session.events())
    )
    assert 29 == session.variables["same"]
    times = [event.time for event in session.events()]
    assert times == sorted(set(times))
    assert list(session.events())[::-1] == list(session.events(reverse=True))
    assert list(session.events(name="same")) == [
        event for event in session.events() if event.name == "same"
    ]
    assert list(range(30)) == [event.data["value"] for event in session.events(name="same")]


def test_a_fork_of_a_fork_before_its_birth(session: evstore.Session):
    """A fork point in the shared past belongs to the ancestor that recorded it."""
    session.variables.update(a=1, b=2, c=3)
    child = session.fork("child", at=2)
    grandchild = child.fork("grandchild", at=1)
    parent = grandchild.parent
    assert parent is not None
    assert ("trip", 1) == (parent.id, parent.seq)
    assert {"a": 1} == grandchild.variables
    twin = child.fork("twin")
    parent = twin.parent
    assert parent is not None
    assert ("trip", 2) == (parent.id, parent.seq)


def test_times_run_over_the_shared_past(session: evstore.Session):
    """A moment by time finds the parent's batch before the fork point and the child's after it."""
    session.variables["a"] = 1
    session.variables["a"] = 2
    child = session.fork("child", at=1)
    session.variables["a"] = 3
    child.variables["a"] = 4
    times = [event.time for event in child.events()]
    assert all(before < after for before, after in pairwise(times))
    assert [1, 2] == [child.at(time).seq for time in times]
    between = next(iter(session.events(after=1))).time  # of an event that the child never saw
    assert 1 == child.at(between).seq
    assert 0 == child.at(times[0] - timedelta(microseconds=1)).seq
    assert 2 == session.fork("second", at=between).head


def test_a_variable_keeps_its_history(session: evstore.Session):
    """Seq and times of what was set before the fork point are those of the parent."""
    session.variables["a"] = 1
    child = session.fork("child")
    assert session.variables.info("a") == child.variables.info("a")
    created = session.created_at
    child.variables.set("a", 2, expect=1)
    info = child.variables.info("a")
    assert (2, created, child.updated_at) == (info.seq, info.created_at, info.time)
    assert ("a", 2) == child.variables.popitem()
    assert {"a": 1} == session.variables


def test_the_parent_may_end(store: evstore.Store, session: evstore.Session):
    """A fork reads its past also after the parent was deleted and lives anew."""
    session.variables["a"] = 1
    session.messages.append(said(1))
    child = session.fork("child")
    store.delete("trip")
    store.session("trip").variables["a"] = 9
    assert ({"a": 1}, {}, [said(1)]) == shown(child)
    child.messages.append(said(2))
    ended = store.session(uid=session_uid(store, "trip"))
    again = ended.fork("again", at=1)
    assert {"a": 1} == again.variables
    assert {"a": 1} == child.at(1).variables


def session_uid(store: evstore.Store, session_id: str) -> str:
    return next(info.uid for info in store.sessions(deleted=True) if info.id == session_id)


def test_forking_what_cannot_be_forked(store: evstore.Store, session: evstore.Session):
    """A living id is Taken, a moment beyond the head is none, and an unborn session has no past."""
    with pytest.raises(SessionNotFound):
        session.fork("child")
    session.variables["a"] = 1
    with pytest.raises(Taken) as taken:
        session.fork("trip")
    assert "trip" == taken.value.session
    child = session.fork("child")
    with pytest.raises(Taken):
        session.fork("child", at=0)
    for moment in (-1, 2):
        with pytest.raises(NoSuchMoment):
            session.fork("new", at=moment)
    with pytest.raises(BadName):
        session.fork("")
    store.delete("trip")
    with pytest.raises(SessionNotFound):
        session.fork("new")
    assert 2 == child.fork("trip").variables.set("a", 2)[0].seq
    assert "new" not in store


def test_metadata_is_shared(store: evstore.Store):
    """A fork has the metadata of its fork point, and changes its own."""
    session = store.session("s", metadata={"title": "A", "long": "x" * 2000})
    session.variables["a"] = 1
    session.metadata["title"] = "B"
    child = session.fork("child", at=3)
    assert {"title": "A", "long": "x" * 2000} == child.metadata
    child.metadata["title"] = "C"
    del child.metadata["long"]
    grandchild = child.fork("grandchild")
    assert ({"title": "C"}, {"title": "B", "long": "x" * 2000}) == (
        dict(grandchild.metadata),
        dict(session.metadata),
    )
    assert {"title": "A", "long": "x" * 2000} == grandchild.at(3).metadata


class Emptied(dict[Any, Any]):
    """A cache that another thread empties after some steps."""

    steps = 0

    def stepped(self, result: Any) -> Any:
        """Return the result of a step, and be emptied if it was the last one."""
        self.steps -= 1
        if self.steps == 0:
            self.clear()
        return result

    def get(self, *arguments: Any) -> Any:
        return self.stepped(super().get(*arguments))

    def setdefault(self, *arguments: Any) -> Any:
        return self.stepped(super().setdefault(*arguments))

    def update(self, *arguments: Any, **named: Any) -> None:
        self.stepped(super().update(*arguments, **named))

    def __contains__(self, key: Any) -> bool:
        found: bool = self.stepped(super().__contains__(key))
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        self.stepped(super().__setitem__(key, value))


@pytest.mark.parametrize("known", [True, False], ids=["known", "not known"])
@pytest.mark.parametrize("steps", range(1, 9))
def test_caches_may_be_emptied_at_any_time(
    store: evstore.Store, monkeypatch: pytest.MonkeyPatch, steps: int, known: bool
):
    """A fork is read right whenever another thread drops what this process knows of the file."""
    store.session("0").variables["a"] = 1
    store.session("0").fork("1").record("app.note")
    store.session("1").fork("2").fork("3").variables["b"] = 2
    database, caches = store.engine.database, dict[str, Emptied]()

    def cache(name: str, _entries_max: int = 0) -> Emptied:
        return caches.setdefault(name, Emptied())

    def read() -> tuple[dict[str, Any], list[str]]:
        session = store.session("3")
        return dict(session.variables), [event.kind for event in session.events()]

    monkeypatch.setattr(database, "cache", cache)
    expected = {"a": 1, "b": 2}, ["variable.set", "app.note", "variable.set"]
    assert expected == read()
    for each in caches.values():
        each.steps = steps
        if not known:
            each.clear()
    assert expected == read()


def test_forks_of_forks_go_as_deep_as_anyone_likes(path: Path):
    """A chain of forks is no chain of calls: it is read and written however long it is."""
    depth = 300
    with evstore.open(path, durability="normal") as store:
        level = store.session("0")
        level.messages.append({"role": "user", "content": 0})
        for number in range(1, depth):
            level = level.fork(str(number))
            level.messages.append({"role": "user", "content": number})
            if number % 50 == 0:
                level.revert(level.head - 20)
        built = [message["content"] for message in level.messages]
        assert depth - 6 * 20 < len(built) < depth
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        with evstore.open(path, durability="normal") as store:
            deepest = store.session(str(depth - 1))
            contents = [message["content"] for message in deepest.messages]
            assert built == contents
            assert [0, 1, 2] == [message["content"] for message in deepest.at(3).messages]
            assert depth == len({event.session for event in deepest.events()})
            deepest.fork("deeper").variables["a"] = 1
            assert [] == list(replay.verify(store, level="full"))
            replay.rebuild(store)
            assert contents == [message["content"] for message in deepest.messages]
    finally:
        sys.setrecursionlimit(limit)
