"""A view is a session at one moment: it never changes, and holds nothing back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import apsw
import pytest

import evstore
from evstore.errors import NoSuchMoment, ReadOnly, Refused


def said(number: int) -> dict[str, Any]:
    return {"role": "user", "content": number}


def shown(doors: Any) -> tuple[Any, ...]:
    return dict(doors.variables), dict(doors.metadata), list(doors.messages)


def write_all(session: evstore.Session) -> None:
    session.variables.update(a=1, b="long " * 500)
    session.metadata["m"] = 1
    session.messages.extend([said(1), {"role": "user", "content": "long " * 500}])


def test_a_view_never_changes(store: evstore.Store, session: evstore.Session):
    """Later writes, the end of the life and a new life under the same id leave a view as it is."""
    write_all(session)
    views = [session.view(), session.at(session.head), session.at(3)]
    before = [shown(view) for view in views]
    events = [list(view.events()) for view in views]
    session.variables.clear()
    session.metadata.clear()
    session.messages.replace(0, said(9))
    session.messages.clear()
    assert before == [shown(view) for view in views]
    store.delete("trip")
    assert before == [shown(view) for view in views]
    store.session("trip").messages.append(said(5))
    assert before == [shown(view) for view in views]
    assert events == [list(view.events()) for view in views]
    assert [5, 5, 3] == [view.seq for view in views]


def test_a_view_survives_other_handles(path: Path):
    """Closing and opening other handles on the file does not touch a view."""
    with evstore.open(path, durability="normal") as store:
        session = store.session("s")
        write_all(session)
        view = session.view()
        before = shown(view)
        with evstore.open(path) as other:
            other.session("s").messages.clear()
            other.session("s").variables.clear()
        assert before == shown(view)
    with evstore.open(path) as store:
        assert before == shown(store.session("s").at(5))


def test_a_view_holds_no_transaction(path: Path):
    """While views live and are being iterated over, the whole log can be copied into the file."""
    with evstore.open(path, durability="normal") as store:
        session = store.session("s")
        session.messages.extend(map(said, range(2000)))
        views = [session.view(), session.at(3)]
        iterations = [iter(views[0].messages), iter(views[0].events()), iter(session.messages)]
        assert all(next(iteration) for iteration in iterations)
        session.variables["a"] = 1
        connection = apsw.Connection(str(path), vfs="cksmvfs")
        connection.set_busy_timeout(1000)
        connection.execute("pragma user_version").fetchall()  # From here on it knows of the log.
        frames, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        connection.close()
        assert (0, 0) == (frames, copied)
        assert 2000 == len(views[0].messages)
        assert [1999, 1999, 1999] == [len(list(iteration)) for iteration in iterations]


WRITES: list[Callable[[Any], Any]] = [
    lambda view: view.variables.update(a=1),
    lambda view: view.variables.set("a", 1),
    lambda view: view.variables.pop("a"),
    lambda view: view.variables.pop("no", None),
    lambda view: view.variables.popitem(),
    lambda view: view.variables.setdefault("a", 1),
    lambda view: view.variables.clear(),
    lambda view: view.variables.__delitem__("a"),
    lambda view: view.metadata.__setitem__("a", 1),
    lambda view: view.metadata.__ior__({"a": 1}),
    lambda view: view.messages.append(said(1)),
    lambda view: view.messages.extend([]),
    lambda view: view.messages.pop(),
    lambda view: view.messages.remove(0),
    lambda view: view.messages.replace(0, said(1)),
    lambda view: view.messages.clear(),
    lambda view: view.messages.__iadd__([said(1)]),
]


@pytest.mark.parametrize("number", range(len(WRITES)))
def test_a_view_is_read_only(session: evstore.Session, number: int):
    """Every way to write to a view is ReadOnly, and the session stays as it is."""
    write_all(session)
    for view in (session.view(), session.at(0)):
        with pytest.raises(ReadOnly):
            WRITES[number](view)
    assert 5 == session.head


def test_a_view_knows_its_moment(session: evstore.Session, store: evstore.Store):
    """Seq, time, id, uid and events of a view are those of its moment."""
    with session.batch() as batch:
        batch.variables["a"] = 1
        batch.variables["a"] = 2
    session.variables["a"] = 3
    view = session.at(2)
    assert (2, "trip", session.uid) == (view.seq, view.id, view.uid)
    assert session.created_at == view.time
    assert [1, 2] == [event.seq for event in view.events()]
    assert [2] == [event.seq for event in view.events(after=1)]
    assert [1] == [event.seq for event in view.events(until=1)]
    assert [1, 2] == [event.seq for event in view.events(0, 99)]
    assert [2] == [event.seq for event in view.events(reverse=True, limit=1)]
    assert [] == list(view.events(name="b"))
    assert [] == list(view.events(kind="message.added"))
    assert session.updated_at == session.view().time
    assert "<evstore.View of 'trip' at 2>" == repr(view)
    child = session.fork("child")
    assert ("child", child.uid) == (child.at(1).id, child.at(1).uid)
    assert ("child", child.uid) == (child.at(0).id, child.view().uid)


def test_the_beginning(session: evstore.Session):
    """Moment 0 is there, born or not, and empty."""
    for _ in range(2):
        view = session.at(0)
        assert ({}, {}, []) == shown(view)
        assert (0, None) == (view.seq, view.time)
        assert [] == list(view.events())
        session.variables["a"] = 1
    assert ("trip", None) == (session.at(0).id, session.at(0).time)


def test_an_unborn_session_has_a_present(session: evstore.Session):
    """A view of a session that is not born is empty, and stays so after the birth."""
    view = session.view()
    assert (0, None, None) == (view.seq, view.uid, view.time)
    session.variables["a"] = 1
    assert ({}, {}, []) == shown(view)


def test_info_is_that_of_the_moment(session: evstore.Session):
    """What is known of a variable and a message is known as of the view."""
    session.variables["a"] = 1
    view = session.view()
    before = view.variables.info("a")
    del session.variables["a"]
    session.variables["a"] = 2
    assert before == view.variables.info("a") == session.at(1).variables.info("a")
    assert (3, 3) == ((info := session.view().variables.info("a")).seq, session.head)
    assert info.created_at == info.time


@pytest.mark.parametrize("moment", [-1, 3, 1 << 40, True, "x", None, 1.0], ids=repr)
def test_a_moment_that_is_not_there(session: evstore.Session, moment: Any):
    """Beyond the head, before the beginning, or of another type: NoSuchMoment with the head."""
    session.variables.update(a=1, b=2)
    with pytest.raises(NoSuchMoment) as caught:
        session.at(moment)
    assert ("trip", moment, 2) == (
        caught.value.session,
        caught.value.moment,
        caught.value.head,
    )
    assert isinstance(caught.value, LookupError)


def test_moments_by_time(path: Path):
    """A datetime means the last batch at or before it: 0 before birth, the head in the future."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    now = [start]
    with evstore.open(path, clock=lambda: now[0]) as store:
        session = store.session("s")
        for hour in range(4):
            now[0] = start + timedelta(hours=hour)
            session.messages.extend([said(hour), said(hour)])
        microsecond = timedelta(microseconds=1)
        assert [0, 2, 2, 4, 6, 8, 8] == [
            session.at(start + after).seq
            for after in (
                -microsecond,
                timedelta(0),
                timedelta(hours=1) - microsecond,
                timedelta(hours=1),
                timedelta(hours=2, minutes=30),
                timedelta(hours=3),
                timedelta(days=99999),
            )
        ]
        east = timezone(timedelta(hours=5))
        assert 4 == session.at((start + timedelta(hours=1)).astimezone(east)).seq
        assert 0 == store.session("unborn").at(start).seq
        with pytest.raises(Refused):
            session.at(datetime(2030, 1, 1))  # noqa: DTZ001 - that is what is refused


def test_events_are_paged_and_filtered(session: evstore.Session):
    """Bounds, name, kind, direction and limit choose among the events, over many pages."""
    for number in range(3):
        session.variables.update({str(index): number for index in range(200)})
        session.messages.extend(map(said, range(100)))
    events = list(session.events())
    assert list(range(1, 901)) == [event.seq for event in events]
    assert events[::-1] == list(session.events(reverse=True))
    assert events[10:20] == list(session.events(10, 20))
    assert events[10:20][::-1] == list(session.events(10, 20, reverse=True))
    assert events[850:] == list(session.events(850, 9999))
    assert events[:700] == list(session.events(limit=700))
    assert events[::-1][:700] == list(session.events(limit=700, reverse=True))
    assert [] == list(session.events(limit=0))
    assert [] == list(session.events(20, 10))
    named = [event for event in events if event.name == "7"]
    assert named == list(session.events(name="7"))
    kind = [event for event in events if event.kind == "message.added"]
    assert 300 == len(kind)
    assert kind == list(session.events(kind="message.added"))
    assert kind[::-1][:290] == list(session.events(kind="message.added", reverse=True, limit=290))
    assert named == list(session.events(name="7", kind="variable.set"))
    assert [] == list(session.events(kind="app.never"))
