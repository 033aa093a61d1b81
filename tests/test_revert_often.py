"""Taking back again and again: what a list comes to, and what it costs to find out."""

from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.events import BODIES, Event, operand
from evstore.folding import fold
from evstore.sqlite import insert
from evstore.state import MessageList, Tail
from tests.histories import said
from tests.test_state import event, logs


class Ordinals:
    """A past that is asked which message an event carries, and never for an older list."""

    def __init__(self, bodies: list[int]) -> None:
        self.ordinal = bodies.index

    def ranges_at(self, seq: int) -> list[tuple[int, int]]:
        raise AssertionError(seq)


def list_at(events: list[Event], seq: int) -> MessageList:
    """The list of messages after that many events, all of them folded."""
    return fold(events[:seq]).outline.messages


@given(logs(), st.integers(0, 30))
def test_what_was_taken_back_counts_no_more(log: list[Any], after: int):
    """The events that count from a moment on make the list that all events make."""
    events = [event(seq, *each) for seq, each in enumerate(log, 1)]
    after = min(after, len(log))
    about = [(each.seq, each.kind, operand(each)) for each in events if "message" in each.kind]
    tail = Tail(after, list_at(events, after).bodies, [each for each in about if each[0] > after])
    assert 0 <= tail.base <= after
    past = Ordinals([seq for seq, kind, _ in about if kind in BODIES])
    assert list_at(events, len(log)) == tail.carried_on(list_at(events, tail.base), past)


@contextmanager
def statements_at_most(store: evstore.Store, count: int) -> Any:
    """Refuse what takes more statements than that."""
    with store.engine.database.writing("normal") as cursor:
        connection = cursor.connection
    left = iter(range(count))
    connection.exec_trace = lambda *_: next(left, None) is not None
    try:
        yield
    finally:
        connection.exec_trace = None


def test_what_cannot_be_taken_back_is_passed_over_quickly(memory: evstore.Store):
    """One statement passes over a batch that says nothing of variables or messages."""
    session, turns = memory.session("s"), 200
    session.variables["a"] = 1
    for number in range(turns):
        session.record("app.step", number)
    with statements_at_most(memory, turns + 20):
        assert "undo:1" == session.undo()[0].cause
    assert {} == session.variables


@pytest.mark.parametrize("checkpoint_events", [7, 1000])
@pytest.mark.parametrize("back", [3, 6])
def test_taking_back_again_and_again_stays_quick(
    memory: evstore.Store, monkeypatch: pytest.MonkeyPatch, checkpoint_events: int, back: int
):
    """A list that was taken back many times is read with one look for each stretch at most."""
    monkeypatch.setattr(insert, "CHECKPOINT_EVENTS", checkpoint_events)
    session, turns = memory.session("s"), 40
    for number in range(turns):
        with statements_at_most(memory, 6 * turns):
            session.messages.extend([said(number)] * 3)
            session.revert(max(session.head - back, 0))
    expected = list(session.messages)
    memory.engine.database.forget()
    with statements_at_most(memory, 3 * turns):
        assert len(expected) == len(session.messages)
    assert expected == list(session.messages)
    assert expected == [each.data["message"] for each in fold(session.events()).messages]
    assert [] == list(replay.verify(memory, level="full"))
