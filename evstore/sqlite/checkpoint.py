"""Checkpoints: how a state lies in the file, as compressed references, and which one is nearest."""

from typing import NamedTuple

import orjson

from evstore.errors import Corrupt
from evstore.sqlite import payload
from evstore.sqlite.database import Cursor
from evstore.sqlite.lives import SEQ_MAX, Life
from evstore.state import MessageList, Outline, Reference


class Anchor(NamedTuple):
    """A checkpoint without its names: messages recorded up to `seq`, and the list's ranges."""

    seq: int
    messages: int
    ranges: bytes


START = Anchor(0, 0, b"")


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
    """Return the newest checkpoint up to `seq` with at most `ordinal` messages, by bisection."""
    for segment in reversed(life.until(seq)):
        low, high = segment.ids
        found = None
        while low <= high:
            middle = (low + high) // 2
            row = cursor.execute(
                "select id, messages, ranges from checkpoint"
                " where id between ? and ? order by id limit 1",
                (middle, high),
            ).fetchone()
            if row is None or row[1] > ordinal:
                high = middle - 1
            else:
                found, low = Anchor(row[0] & SEQ_MAX, *row[1:]), row[0] + 1
        if found is not None:
            return found
    return START


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
