"""Recorded turns run again, to find where a changed agent first does something else.

Nothing is asked and nothing is called. The log answers for both, a store in memory takes what the
agent writes down, and that is compared with what was recorded, event by event.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from typing import Any

import attrs

from evstore import store, values
from evstore.agent import turns
from evstore.agent.effects import Ask, Call, Effect, Keep, Running, Steps
from evstore.agent.journal import (
    MODEL_REPLIED,
    RUN_ENDED,
    RUN_STARTED,
    TOOL_CALLED,
    TOOL_RETURNED,
    Happened,
    StoreJournal,
)
from evstore.agent.loop import CANCELLED, CUT_OFF, MODEL_ERROR, NOT_STORABLE, Agent
from evstore.agent.stored import SqliteStorage
from evstore.agent.turns import AgentResult
from evstore.errors import Refused
from evstore.events import ERASED, MESSAGE_ADDED, Event
from evstore.evolution import is_application_kind
from evstore.session import Session

_FROM_OUTSIDE = frozenset({CANCELLED, CUT_OFF, NOT_STORABLE})  # ends that no agent has chosen
_SCRATCH = "rerun"


@attrs.frozen
class Divergence:
    """Where an agent first did something else: what was recorded as event `seq`, and what it did.

    It wrote something else down, asked the model once more (Ask), or called another tool (Call).
    """

    seq: int
    expected: Happened
    actual: Happened | Ask | Call


def rerun(session: Session, agent: Agent, *, started: int | None = None) -> Divergence | None:
    """Run an agent through a turn that was recorded, and return where it first does another thing.

    The turn is the newest, or the one that begins with event `started`. The model's replies and the
    outcomes of tools come from the log, an error as one of the same name and text; so it does not
    count by which model the agent has. None means that it does all that was recorded, up to where
    the turn was stopped from outside, if it was. The session is only read.

    Raises Refused where no such turn is recorded, or parts of it were forgotten.
    """
    recording = _Recording(session, _start(session, started))
    said = recording.begun
    with store.open(":memory:", limits=session.writer.limits) as memory:
        storage = SqliteStorage(memory)
        scratch = storage.session(_SCRATCH)
        scratch.messages.extend(recording.past)
        journal = StoreJournal(storage, _SCRATCH)
        turn = turns.send(journal, agent, said["text"], said["max_iterations"], said["key"])
        with closing(turn):
            return _driven(turn, recording, scratch)


def _start(session: Session, started: int | None) -> Event:
    """Return the event that the turn wanted began with."""
    if started is None:
        found = list(session.events(kind=RUN_STARTED, reverse=True, limit=1))
        where = "in"
    else:
        is_seq = type(started) is int
        found = list(session.events(started - 1, started, kind=RUN_STARTED)) if is_seq else []
        where = f"as event {started} of"
    if not found:
        raise Refused(
            f"no turn of an agent begins {where} session {session.id!r}: give the sequence of an "
            f"event of the kind {RUN_STARTED!r}"
        )
    return found[0]


class _Recording:
    """A turn in the log as it is gone through: its events are met, its answers handed out."""

    def __init__(self, session: Session, start: Event) -> None:
        self.past = list(session.at(start.seq - 1).messages)
        events = _turn(session, start)
        if ERASED in self.past or any(event.text is None for event in events):
            what = f"parts of the turn that event {start.seq} began were forgotten"
            raise Refused(f"{what}: run another turn again")
        self.begun = start.data
        self._left = deque(events)  # what the agent has not come to yet
        self._ended = events[-1] if events[-1].kind == RUN_ENDED else None
        self._replies, self._called, self._returned = (
            deque(event for event in events if event.kind == kind)
            for kind in (MODEL_REPLIED, TOOL_CALLED, TOOL_RETURNED)
        )

    def meet(self, actual: Event) -> Divergence | None:
        """Take what the agent writes down; return where that is something else."""
        expected = self._left.popleft()
        is_same = _compared(expected) == _compared(actual)
        return None if is_same else _divergence(expected, _happened(actual))

    def outcome(self, effect: Ask | Call) -> str | Exception | Divergence | None:
        """Return what came of an effect, or where the log has none; None if it goes no further."""
        if isinstance(effect, Ask):
            if self._replies:
                return str(self._replies.popleft().data["reply"])
            if self._ends_with({MODEL_ERROR}):
                return _retold(self._end["result"].split(": ", 2)[2])
        elif self._called:
            called = self._called.popleft()
            if not _is_call(called.data, effect):
                return _divergence(called, effect)
            if self._returned:
                data = self._returned.popleft().data
                error = data.get("error")
                return str(data["result"]) if error is None else _retold(error.split(": ", 1)[1])
        return None if self.is_over else _divergence(self._left[0], effect)

    @property
    def is_over(self) -> bool:
        """Whether all is met that the agent did, up to where it was stopped from outside."""
        return not self._left or self._ends_with(_FROM_OUTSIDE)

    @property
    def is_met(self) -> bool:
        """Whether the agent came to the end of all that was recorded."""
        return not self._left

    @property
    def _end(self) -> dict[str, Any]:
        return {} if self._ended is None else self._ended.data

    def _ends_with(self, reasons: Collection[str]) -> bool:
        """Tell whether only the end is left, and has one of these reasons."""
        is_last = self._ended is not None and self._left[0].position == self._ended.position
        return is_last and self._end["reason"] in reasons


def _turn(session: Session, start: Event) -> list[Event]:
    """Return the events of a turn, from its start to its end, or to where it was cut off."""
    found = []
    for event in _written(session.events(start.seq - 1)):
        if event.cause == start.cause:
            found.append(event)
            if event.kind == RUN_ENDED:
                break
    return found


def _written(events: Iterable[Event]) -> Iterator[Event]:
    """Yield those events that journals write."""
    for event in events:
        if event.kind == MESSAGE_ADDED or is_application_kind(event.kind):
            yield event


def _driven(turn: Steps[AgentResult], recording: _Recording, scratch: Session) -> Divergence | None:
    """Drive a turn by a recording until it does something else, or there is no more of either."""
    running, head = Running(turn), scratch.head
    while (effect := _next(running, recording)) is not None:
        if not isinstance(effect, Keep):
            came = recording.outcome(effect)
            if isinstance(came, str):
                running.take(came)
            elif isinstance(came, Exception):
                running.fail(effect, came)
            else:
                return came
            continue
        try:
            running.take(effect.act())
        except Refused as error:
            running.fail(effect, error)
        for event in _written(scratch.events(head)):
            if recording.is_over:
                return None
            if (found := recording.meet(event)) is not None:
                return found
            head = event.seq
    return None


def _next(running: Running, recording: _Recording) -> Effect | None:
    try:
        return running.next()
    except Exception:
        if recording.is_met:  # It has failed just as it did when it was recorded.
            return None
        raise


def _compared(event: Event) -> tuple[str, bytes]:
    """Return what counts of an event: not the name of the model, which is not asked."""
    data = event.data
    if event.kind == RUN_STARTED:
        del data["model"]
    return event.kind, values.encode(data)


def _is_call(recorded: dict[str, Any], call: Call) -> bool:
    """Tell whether a call is the one that was recorded."""
    arguments = values.encode(call.arguments, fallback=repr)
    return (recorded["name"], values.encode(recorded["arguments"])) == (call.tool.name, arguments)


def _divergence(expected: Event, actual: Happened | Ask | Call) -> Divergence:
    return Divergence(expected.seq, _happened(expected), actual)


def _happened(event: Event) -> Happened:
    return Happened(event.kind, event.data)


def _retold(text: str) -> Exception:
    """Return an error that reads like the one that was recorded."""
    name, _, said = text.partition(": ")
    error: Exception = type(name.replace("\0", "?"), (Exception,), {})(said)
    return error
