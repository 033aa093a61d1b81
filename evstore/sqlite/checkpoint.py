"""Checkpoints: how a state lies in the file, as compressed references, and which one is nearest."""

from itertools import repeat, starmap
from typing import NamedTuple

import orjson

from evstore.errors import Corrupt
from evstore.sqlite import payload
from evstore.sqlite.database import Columns, Cursor
from evstore.sqlite.lives import SEQ_MAX, Life
from evstore.state import MessageList, Names, Outline, Reference


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


def anchors_around(
    cursor: Cursor, life: Life, seq: int, ordinal: int
) -> tuple[Anchor, Anchor | None]:
    """Return the newest checkpoint up to `seq` with at most `ordinal` messages, and the next one.

    The next one is None where the same stretch of the log has none, up to `seq`.
    """
    for segment in reversed(life.until(seq)):
        found, following = _search(cursor, *segment.ids, ordinal)
        if found is not None:
            return _anchor(found), _anchor(following) if following else None
    return START, None


def _anchor(row: Columns) -> Anchor:
    return Anchor(row[0] & SEQ_MAX, *row[1:])


def _search(
    cursor: Cursor, low: int, high: int, ordinal: int
) -> tuple[Columns | None, Columns | None]:
    """Return the rows of those two checkpoints among those with id low … high.

    Most sessions grow evenly, so every other guess is where the ordinal would be then; the halves
    in between bound what an uneven one can cost.
    """
    found = following = None
    guess = high
    few, many = 0, ordinal + 1
    evenly = False
    while low <= high:
        row = cursor.execute(f"{_BETWEEN} desc limit 1", (low, guess)).fetchone()
        if row is None:
            low = guess + 1
        elif row[1] > ordinal:
            following, high, many = row, row[0] - 1, row[1]
        else:
            found, low, few = row, guess + 1, row[1]
            row = cursor.execute(f"{_BETWEEN} limit 1", (low, high)).fetchone()
            if row is None:
                break
            if row[1] > ordinal:
                following = row
                break
        evenly = not evenly
        share = (ordinal - few) / (many - few) if evenly else 0.5
        guess = low + int((high - low) * share)
    return found, following


def read_message_list(anchor: Anchor) -> MessageList:
    """Return the message list that a checkpoint holds."""
    if anchor.seq == 0:
        return MessageList()
    try:
        ranges = [(start, end) for start, end in orjson.loads(payload.expand_frame(anchor.ranges))]
        if not all(map(_is_range, ranges, repeat(anchor.messages))):
            raise ValueError("a range of messages that were never recorded")
    except (ValueError, TypeError) as error:
        raise _unreadable(anchor) from error
    return MessageList(anchor.messages, ranges)


def _is_range(stored: tuple[object, object], messages: int) -> bool:
    start, end = stored
    return type(start) is type(end) is int and 0 <= start < end <= messages


def newest_names(cursor: Cursor, life: Life, seq: int) -> tuple[int, Names]:
    """Return the seq of the newest checkpoint of a life at or before `seq`, and its names."""
    anchor = newest_anchor(cursor, life, seq)
    if anchor.seq == 0:
        return 0, Outline().names
    frame = cursor.execute(
        "select names from checkpoint where id = ?", (life.event_id(anchor.seq),)
    ).get
    return anchor.seq, _read_names(anchor, frame)


def read_outline(anchor: Anchor, frame: bytes) -> Outline:
    """Return the state that a checkpoint holds."""
    return Outline(anchor.seq, _read_names(anchor, frame), read_message_list(anchor))


def _read_names(anchor: Anchor, frame: bytes) -> Names:
    try:
        stored = orjson.loads(payload.expand_frame(frame))
        return {
            int(family): dict(zip(named, starmap(Reference, named.values()), strict=True))
            for family, named in stored.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(anchor) from error


def _unreadable(anchor: Anchor) -> Corrupt:
    return Corrupt("", "a checkpoint cannot be read, which a rebuild mends", None, anchor.seq)


def write_outline(outline: Outline) -> tuple[int, bytes, bytes]:
    """Return (messages, ranges, names) as a checkpoint holds them."""
    names = {str(family): named for family, named in outline.names.items()}
    ranges = payload.compress(orjson.dumps(outline.messages.ranges))
    return outline.messages.bodies, ranges, payload.compress(orjson.dumps(names, default=tuple))
