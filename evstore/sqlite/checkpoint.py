"""Checkpoints: how a state lies in the file, as compressed references, and which one is nearest."""

from typing import NamedTuple

import orjson

from evstore.errors import Corrupt
from evstore.sqlite import payload
from evstore.sqlite.database import Columns, Cursor
from evstore.sqlite.lives import SEQ_MAX, Life
from evstore.state import MessageList, Outline, Reference


class Anchor(NamedTuple):
    """A checkpoint without its names: messages recorded up to `seq`, and the list's ranges."""

    seq: int
    messages: int
    ranges: bytes


START = Anchor(0, 0, b"")
_BETWEEN = "select id, messages, ranges from checkpoint where id between ? and ? order by id"


def newest_anchor(cursor: Cursor, life: Life, seq: int) -> Anchor:
    """Return the newest checkpoint of a life at or before `seq`."""
    for segment in reversed(life.until(seq)):
        row = cursor.execute(
            "select id & 0xffffffff, messages, ranges from checkpoint"
            " where id between ? and ? order by id desc limit 1",
            segment.ids,
        ).fetchone()
        if row is not None:
            return Anchor(*row)
    return START


def anchor_of(cursor: Cursor, life: Life, seq: int, ordinal: int) -> Anchor:
    """Return the newest checkpoint up to `seq` with at most `ordinal` messages."""
    for segment in reversed(life.until(seq)):
        found = _search(cursor, *segment.ids, ordinal)
        if found is not None:
            return Anchor(found[0] & SEQ_MAX, *found[1:])
    return START


def _search(cursor: Cursor, low: int, high: int, ordinal: int) -> Columns | None:
    """Return the row of that checkpoint among those with id low … high.

    Most sessions grow evenly, so every other guess is where the ordinal would be then; the halves
    in between bound what an uneven one can cost.
    """
    found, guess = None, high
    few, many = 0, ordinal + 1
    evenly = False
    while low <= high:
        row = cursor.execute(f"{_BETWEEN} desc limit 1", (low, guess)).fetchone()
        if row is None:
            low = guess + 1
        elif row[1] > ordinal:
            high, many = row[0] - 1, row[1]
        else:
            found, low, few = row, guess + 1, row[1]
            following = cursor.execute(f"{_BETWEEN} limit 1", (low, high)).fetchone()
            if following is None or following[1] > ordinal:
                break
        evenly = not evenly
        share = (ordinal - few) / (many - few) if evenly else 0.5
        guess = low + int((high - low) * share)
    return found


def read_message_list(anchor: Anchor) -> MessageList:
    """Return the message list that a checkpoint holds."""
    if anchor.seq == 0:
        return MessageList()
    try:
        ranges = [(start, end) for start, end in orjson.loads(payload.expand_frame(anchor.ranges))]
    except (ValueError, TypeError) as error:
        raise _unreadable(anchor) from error
    return MessageList(anchor.messages, ranges)


def read_outline(anchor: Anchor, frame: bytes) -> Outline:
    """Return the state that a checkpoint holds."""
    try:
        stored = orjson.loads(payload.expand_frame(frame))
        names = {
            int(family): {name: Reference(*reference) for name, reference in named.items()}
            for family, named in stored.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(anchor) from error
    return Outline(anchor.seq, names, read_message_list(anchor))


def _unreadable(anchor: Anchor) -> Corrupt:
    return Corrupt("", "a checkpoint cannot be read, which a rebuild mends", None, anchor.seq)


def write_outline(outline: Outline) -> tuple[int, bytes, bytes]:
    """Return (messages, ranges, names) as a checkpoint holds them."""
    names = {str(family): named for family, named in outline.names.items()}
    ranges = payload.compress(orjson.dumps(outline.messages.ranges))
    return outline.messages.bodies, ranges, payload.compress(orjson.dumps(names, default=tuple))
