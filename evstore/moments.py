"""Moments: a sequence, a datetime or a label, and the one sequence that it means."""

from datetime import datetime

from evstore.errors import NoSuchMoment
from evstore.events import LABELS, to_microseconds
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
