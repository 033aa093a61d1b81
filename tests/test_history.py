"""The history of a variable is what a look at all events shows, and blame is its newest set."""

from itertools import islice
from typing import Any

import pytest
from hypothesis import given

import evstore
from evstore.errors import ReadOnly, SessionNotFound
from evstore.sqlite import log
from tests.event_schemas import check_events
from tests.histories import CHECKPOINTS, HISTORIES, NAMES, fresh_store, live_through, states

KINDS = ("variable.set", "variable.deleted")
VERSIONS = 700  # more than two pages


def scanned(session: evstore.Session, name: str) -> list[evstore.Event]:
    """The events about a variable, the newest first, found by reading them all."""
    return [
        event
        for event in reversed(list(session.events()))
        if event.name == name and event.kind in KINDS
    ]


@given(HISTORIES, CHECKPOINTS)
def test_a_history_is_a_scan(history: list[Any], checkpoint: int):
    """In every session and fork, history and blame are what all events together say."""
    with fresh_store(checkpoint) as store:
        for session in live_through(store, history):
            now = states(session)[-1].variables
            for name in NAMES:
                expected = scanned(session, name)
                assert expected == list(session.history(name))
                if name in now:
                    assert expected[0] == session.blame(name)
                    assert now[name][0] == session.blame(name).seq
                else:
                    with pytest.raises(KeyError):
                        session.blame(name)


def test_what_a_history_tells(store: evstore.Store):
    """All that happened to a variable: what it was, when, by whom, and that it was deleted."""
    session = store.session("s")
    with session.batch(actor="planner", cause="plan") as batch:
        batch.variables["city"] = "Rome"
        batch.variables["other"] = 1
        batch.variables["city"] = "Paris"
    session.messages.append({"role": "user"})
    del session.variables["city"]
    assert [
        (5, "variable.deleted", None, {}),
        (3, "variable.set", "planner", {"value": "Paris"}),
        (1, "variable.set", "planner", {"value": "Rome"}),
    ] == [(event.seq, event.kind, event.actor, event.data) for event in session.history("city")]
    with pytest.raises(KeyError):
        session.blame("city")
    session.variables["city"] = None
    blamed = session.blame("city")
    assert (6, {"value": None}, session.uid) == (blamed.seq, blamed.data, blamed.uid)
    info = session.variables.info("city")
    assert (info.seq, info.time, info.actor) == (blamed.seq, blamed.time, blamed.actor)
    assert {"variable.set", "variable.deleted"} == check_events(session.history("city"))


def test_what_was_never_there(session: evstore.Session):
    """A name that was never set has no history and nobody to blame, born or not."""
    for _ in range(2):
        assert [] == list(session.history("a"))
        with pytest.raises(KeyError, match="a"):
            session.blame("a")
        session.variables["b"] = 1


def test_other_families_keep_out(session: evstore.Session):
    """Metadata and labels of the same name have no part in the history of a variable."""
    session.metadata["a"] = 1
    session.label("a")
    assert [] == list(session.history("a"))
    with pytest.raises(KeyError):
        session.blame("a")
    session.variables["a"] = 2
    session.metadata["a"] = 3
    del session.metadata["a"]
    session.label("a", at=1)
    session.variables["a"] = 4
    assert [7, 3] == [event.seq for event in session.history("a")]
    assert 7 == session.blame("a").seq


def test_a_history_is_that_of_the_moment_it_was_asked_for(
    store: evstore.Store, session: evstore.Session
):
    """A history shows what was there when it was asked for, and whose life was over by then."""
    session.variables["a"] = 1
    history, events = session.history("a"), session.events()
    session.variables["a"] = 2
    store.delete("trip")
    assert [1] == [event.seq for event in history] == [event.seq for event in events]
    for ask in (session.history, lambda name: session.events(name=name)):
        with pytest.raises(SessionNotFound):
            ask("a")


@pytest.mark.parametrize("name", [5, None, b"5", ("5",), []], ids=repr)
def test_only_a_text_names_a_variable(session: evstore.Session, name: Any):
    """What cannot be a name has no history and nobody to blame."""
    session.variables["5"] = 1
    assert [] == list(session.history(name))
    with pytest.raises(KeyError):
        session.blame(name)


def test_a_long_history(session: evstore.Session):
    """Hundreds of versions are read in pages, lazily, while the session moves on."""
    assert VERSIONS > 2 * log.PAGE_EVENTS
    with session.batch() as batch:
        for number in range(VERSIONS):
            batch.variables["a"] = number
            batch.variables["b"] = -number
    expected = list(range(2 * VERSIONS - 1, 0, -2))
    assert expected == [event.seq for event in session.history("a")]
    history = session.history("a")
    begun = [event.seq for event in islice(history, 300)]
    session.variables["a"] = "later"
    del session.variables["a"]
    assert expected == begun + [event.seq for event in history]
    assert 2 + VERSIONS == len(list(session.history("a")))


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_the_end_of_a_page(session: evstore.Session, more: int):
    """A history that ends with a page, or near to that, is complete."""
    count = log.PAGE_EVENTS + more
    with session.batch() as batch:
        for number in range(count):
            batch.variables["a"] = number
    assert list(range(count, 0, -1)) == [event.seq for event in session.history("a")]


def test_a_history_through_forks(session: evstore.Session):
    """A history reads through the shared past, and shows nothing of what others did after it."""
    session.variables["a"] = 0
    expected = [("trip", 1)]
    newest = session
    for level in range(1, 12):
        child = newest.fork(f"fork{level}")
        newest.variables["a"] = "unseen"
        newest = child
        if level % 3:
            newest.variables["a"] = level
            expected.insert(0, (f"fork{level}", newest.head))
        if level % 4 == 0:
            del newest.variables["a"]
            expected.insert(0, (f"fork{level}", newest.head))
    assert expected == [(event.session, event.seq) for event in newest.history("a")]
    assert expected[0] == (newest.blame("a").session, newest.blame("a").seq)
    quiet = newest.fork("quiet", at=1)
    assert [("trip", 1)] == [(event.session, event.seq) for event in quiet.history("a")]
    assert "trip" == quiet.blame("a").session
    deleted = quiet.fork("deleted")
    del deleted.variables["a"]
    assert ["deleted", "trip"] == [event.session for event in deleted.history("a")]
    with pytest.raises(KeyError):
        deleted.blame("a")
    assert "trip" == quiet.blame("a").session


def test_a_history_with_long_values(session: evstore.Session):
    """Values that are stored compressed are part of the history like others."""
    texts = ["long " * 1000, 1, "longer " * 5000]
    for text in texts:
        session.variables["a"] = text
    assert texts[::-1] == [event.data["value"] for event in session.history("a")]
    assert texts[-1] == session.blame("a").data["value"]


def test_a_history_after_taking_back(session: evstore.Session):
    """Revert and undo are part of the history, with their causes."""
    session.variables["a"] = 1
    session.variables["a"] = 2
    session.revert(1)
    session.undo()
    session.redo()
    causes = [event.cause for event in session.history("a")]
    assert ["redo:4", "undo:3", "revert:1", None, None] == causes
    assert "redo:4" == session.blame("a").cause


def test_the_history_of_a_life_that_ended(store: evstore.Store, session: evstore.Session):
    """What ended is read by uid; the next life under the id has a history of its own."""
    session.variables["a"] = 1
    uid = session.uid
    store.delete("trip")
    for call in (session.blame, lambda name: list(session.history(name))):
        with pytest.raises(SessionNotFound):
            call("a")
    ended = store.session(uid=uid)
    assert [1] == [event.seq for event in ended.history("a")]
    assert next(ended.history("a")) == ended.blame("a")
    with pytest.raises(ReadOnly):
        ended.variables["a"] = 2
    again = store.session("trip")
    assert [] == list(again.history("a"))
    again.variables["a"] = 2
    assert again.uid == again.blame("a").uid != uid
