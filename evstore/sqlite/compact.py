"""Compaction: the log is encoded anew as tightly as it goes, and says the same as before.

It follows the log batch by batch and writes in short transactions, each of which leaves a file that
is whole; so others write meanwhile, and what was cut short goes on where it stopped.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import apsw

from evstore.events import VARIABLE_SET
from evstore.sqlite import payload
from evstore.sqlite.chains import Chains, loader
from evstore.sqlite.database import Cursor, Database, Durability
from evstore.sqlite.deltas import Effort, Encoded, choose
from evstore.sqlite.lives import SEQ_BITS, SEQ_MAX, by_number
from evstore.sqlite.poller import newest_position
from evstore.sqlite.rows import kind_name, text_at

STEP_BYTES = 1 << 20  # of text, encoded anew between two looks at the file
_BATCHES = 1000  # looked at together
_TRYING_HARD = Effort(15, 9, thorough=True)
_FOLLOWER = "compact"
_WORTH_IT = 50  # the file is written anew where a 50th of it can be saved


class Gain(NamedTuple):
    """How many events were encoded anew, and the size of the file before and after."""

    events: int
    before_bytes: int
    after_bytes: int


class _Place(NamedTuple):
    """An event that may be encoded anew, and the position of its batch."""

    position: int
    event_id: int
    size: int


class _Change(NamedTuple):
    """Another form for an event; `saved_bytes` may be negative where others save the more."""

    event_id: int
    encoded: Encoded
    saved_bytes: int


def compact(database: Database, durability: Durability) -> Gain:
    """Encode anew what was written since the last time, and give back the space it saves."""
    with database.snapshot() as cursor:
        until, before_bytes = newest_position(cursor), _file_bytes(cursor)
        position = _position(cursor)
    chains = Chains()
    events = saved_bytes = 0
    while position < until:
        last = min(position + _BATCHES, until)
        for step in _steps(database, position, last):
            changes = _plan(database, chains, step)
            with database.writing(durability) as cursor:
                events += sum(_apply(cursor, change) for change in changes)
            saved_bytes += sum(change.saved_bytes for change in changes)
        position = last
        with database.writing(durability) as cursor:
            last = max(last, _position(cursor))  # Another process may do the same.
            cursor.execute("insert or replace into follower values(?, ?)", (_FOLLOWER, last))
    _give_back(database, saved_bytes)
    with database.snapshot() as cursor:
        return Gain(events, before_bytes, _file_bytes(cursor))


def _position(cursor: Cursor) -> int:
    """Return the position of the newest batch that was done, or 0."""
    position: int | None = cursor.execute(
        "select position from follower where name = ?", (_FOLLOWER,)
    ).get
    return position or 0


def _steps(database: Database, after: int, last: int) -> Iterator[list[_Place]]:
    """Yield the large events of some batches in order, as many at a time as are done together."""
    with database.snapshot() as cursor:
        rows = cursor.execute(
            "select batch.position, event.id, event.size from batch cross join event"
            f" on event.id between (batch.session << {SEQ_BITS}) + batch.first"
            f" and (batch.session << {SEQ_BITS}) + batch.last"
            " where batch.position > ? and batch.position <= ?"
            f" and event.size >= {payload.ZSTD_FROM_BYTES} and event.encoding < {payload.FORGOTTEN}"
            " order by batch.position, event.id",
            (after, last),
        ).fetchall()
    step: list[_Place] = []
    for row in rows:
        place = _Place(*row)
        if step and sum(known.size for known in step) + place.size > STEP_BYTES:
            yield step
            step = []
        step.append(place)
    if step:
        yield step


def _plan(database: Database, chains: Chains, step: list[_Place]) -> list[_Change]:
    """Return the forms that some events should have instead of theirs."""
    with database.snapshot() as cursor:
        planned = (_planned(database, cursor, chains, place.event_id) for place in step)
        return [change for change in planned if change is not None]


def _planned(database: Database, cursor: Cursor, chains: Chains, event_id: int) -> _Change | None:
    """Return the form that one event should have, or None where it has it."""
    kind, name, base, encoding, delta, data = cursor.execute(
        "select kind, name, base, encoding, delta, data from event where id = ?", (event_id,)
    ).fetchone()
    known = text_at(cursor, event_id)
    if known is None:  # It has been forgotten since.
        return None
    text = known.encode()
    stored_bytes = len(text) if encoding == payload.TEXT else len(data)
    if kind_name(database, cursor, kind) != VARIABLE_SET:
        encoded = Encoded(*payload.pack(text, _TRYING_HARD.full_level))
    else:
        life = by_number(database, cursor, event_id >> SEQ_BITS)
        chain = chains.current(cursor, life, name, base)
        encoded = choose(chain, text, loader(cursor, life), effort=_TRYING_HARD)
        chains.put(life, name, chain.followed_by(event_id & SEQ_MAX, text, encoded))
    if (encoded.encoding, encoded.delta, encoded.data) == (encoding, delta, data):
        return None
    return _Change(event_id, encoded, stored_bytes - encoded.stored_bytes)


def _apply(cursor: Cursor, change: _Change) -> int:
    """Write a form down; return 1, or 0 where one of the two events was forgotten meanwhile."""
    event_id, encoded, _ = change
    prefix_id = None if encoded.delta is None else event_id - (event_id & SEQ_MAX) + encoded.delta
    cursor.execute(
        "update event set encoding = ?1, delta = ?2, data = ?3 where id = ?4"
        f" and encoding < {payload.FORGOTTEN} and (?5 is null or exists ("
        f"select 1 from event where id = ?5 and encoding < {payload.FORGOTTEN}))",
        (encoded.encoding, encoded.delta, encoded.data, event_id, prefix_id),
    )
    changes: int = cursor.connection.changes()
    return changes


def _file_bytes(cursor: Cursor) -> int:
    pages: int = cursor.execute("pragma page_count").get
    return pages * _page_bytes(cursor)


def _page_bytes(cursor: Cursor) -> int:
    size_bytes: int = cursor.execute("pragma page_size").get
    return size_bytes


def _give_back(database: Database, saved_bytes: int) -> None:
    """Write the file anew without its empty pages, in one transaction, where that is worth it."""
    with database.writing("full") as cursor:
        free: int = cursor.execute("pragma freelist_count").get
        free_bytes = free * _page_bytes(cursor)
        if _WORTH_IT * (free_bytes + saved_bytes) < _file_bytes(cursor):
            return
        connection = cursor.connection
        cursor.execute("commit")  # SQLite does this in a transaction of its own,
        connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)  # by way of a second, temporary database.
        try:
            cursor.execute("vacuum")
        finally:
            connection.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        with suppress(apsw.BusyError):  # Whoever reads an older state keeps the file long for now.
            connection.wal_checkpoint()
        cursor.execute("begin immediate")
        database.current.outdate()  # Others may have written since the commit.
