"""Moments: a sequence, a datetime or a label of a session, a position or datetime of a store."""

from datetime import datetime

from evstore.errors import NoSuchMoment, Refused
from evstore.events import LABELS, to_microseconds
from evstore.sqlite.engine import Engine
from evstore.sqlite.read import Moment

When = int | datetime | str  # a sequence, an aware datetime, or a label


def seq_of(present: Moment, session_id: str, when: When) -> int:
    """Return the sequence of a moment of a session; raises NoSuchMoment for what is not there.

    A datetime means the last batch at or before it; a naive one is Refused.
    """
    if type(when) is int and 0 <= when <= present.seq:
        return when
    if isinstance(when, datetime):
        return present.seq_at(to_microseconds(when))
    label = present.newest(LABELS, when) if isinstance(when, str) else None
    if label is None or label.operand is None:
        raise NoSuchMoment(session_id, when, present.seq)
    return label.operand


def position_of(engine: Engine, when: int | datetime) -> int:
    """Return the position of a moment of a whole store; raises Refused for what is not there.

    A datetime means all batches before the first that is later; a naive one is Refused.
    """
    newest = engine.position()
    if type(when) is int and 0 <= when <= newest:
        return when
    if isinstance(when, datetime):
        return engine.position(to_microseconds(when))
    raise Refused(
        f"the store has no moment {when!r}: give a position from 0 to {newest}, or an aware "
        "datetime"
    )


def of_all(when: When) -> datetime:
    """Return a moment that all sessions have; raises Refused for another, or a naive datetime."""
    if not isinstance(when, datetime):
        raise Refused(
            f"{when!r} is a moment of one session: name the session, or give an aware datetime"
        )
    to_microseconds(when)
    return when
