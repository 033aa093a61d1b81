"""The log as it was recorded: events in pages, and batches in commit order."""

from collections.abc import Iterator
from typing import NamedTuple

from evstore.chain import Batch, Birth, Entry
from evstore.events import KINDS, SESSION_EXPIRED, Event
from evstore.sqlite import payload
from evstore.sqlite.database import Columns, Cursor, Database
from evstore.sqlite.lives import SEQ_BITS, Life, by_number, tip
from evstore.sqlite.rows import Row, kind_name, text_at, text_of

PAGE_EVENTS = 256
PAGE_BYTES = 1 << 17  # of text, after which a page of batches ends
_EXPIRED = KINDS.index(SESSION_EXPIRED) + 1
_COLUMNS = (
    "select event.id, encoding, delta, size, data, event.position, batch.time, kind, name, actor,"
    " cause, version from "
)
_EVENT = _COLUMNS + "event join batch on batch.position = event.position"
# All sessions in commit order, begun in the middle of a batch if need be.
_COMMITTED = (
    _COLUMNS + "batch cross join event on event.id between"
    f" (session << {SEQ_BITS}) + iif(batch.position = :position, max(first, :seq + 1), first)"
    f" and (session << {SEQ_BITS}) + last where batch.position >= :position"
)


def event_page(
    database: Database,
    cursor: Cursor,
    life: Life,
    after: int,
    until: int,
    *,
    name: str | None = None,
    kind: str | None = None,
    reverse: bool = False,
    limit: int,
) -> list[Event]:
    """Return up to `limit` events with `after` < seq <= `until`, the newest first if `reverse`.

    A name and a kind leave only those that are about it, or of it.
    """
    conditions, parameters = [" where event.id between ? and ?"], []
    if name is not None:
        conditions.append("name = ?")
        parameters.append(name)
    if kind is not None:
        conditions.append("kind = (select number from kind where kind.name = ?)")
        parameters.append(kind)
    order = " order by event.id desc limit ?" if reverse else " order by event.id limit ?"
    query = _EVENT + " and ".join(conditions) + order
    found: list[Event] = []
    segments = life.until(until, after)
    for segment in reversed(segments) if reverse else segments:
        bounds = (*segment.ids, *parameters, limit - len(found))
        try:
            rows = cursor.execute(query, bounds).fetchall()
        except UnicodeEncodeError:  # A lone surrogate is in no name and in no kind.
            return []
        recorder = by_number(database, cursor, segment.number)
        found += [_event(database, cursor, recorder, row) for row in rows]
        if len(found) == limit:
            break
    return found


def history_page(
    database: Database, cursor: Cursor, life: Life, seq: int, limit: int
) -> tuple[list[Event], int | None]:
    """Return up to `limit` events of the name that event `seq` is about, the newest first.

    Each event knows its `base`, the one before it of the same name, through forks too. The second
    thing returned is the seq at which the next page begins, or None.
    """
    found: list[Event] = []
    following: int | None = seq
    while following is not None and len(found) < limit:
        recorder = life.recorder(following)
        event_id = life.event_id(following)
        row = cursor.execute(_EVENT + " where event.id = ?", (event_id,)).fetchone()
        found.append(_event(database, cursor, recorder, row))
        following = cursor.execute("select base from event where id = ?", (event_id,)).get
    return found, following


def _event(database: Database, cursor: Cursor, recorder: Life, row: Columns) -> Event:
    *stored, position, time_us, kind, name, actor, cause, version = row
    return Event(
        stored[0] - (recorder.number << SEQ_BITS),
        position,
        time_us,
        kind_name(database, cursor, kind),
        name,
        text_of(cursor, Row(*stored)),
        actor,
        cause,
        recorder.id,
        recorder.uid.hex(),
        version,
    )


def batch_events(database: Database, cursor: Cursor, life: Life, position: int) -> list[Event]:
    """Return the events of one batch of a life."""
    first, last = cursor.execute(
        "select first, last from batch where position = ?", (position,)
    ).fetchone()
    return event_page(database, cursor, life, first - 1, last, limit=last - first + 1)


# All sessions in commit order.


def committed(
    database: Database, cursor: Cursor, position: int, seq: int, limit: int
) -> list[Event]:
    """Return up to `limit` events of the store after event `seq` of the batch at `position`."""
    query = _COMMITTED + " order by batch.position, event.id limit :limit"
    return _committed(database, cursor, query, position, seq, limit)


def newest_events(database: Database, cursor: Cursor, limit: int) -> list[Event]:
    """Return the newest `limit` events of the store, the oldest of them first."""
    query = _COMMITTED + " order by batch.position desc, event.id desc limit :limit"
    return _committed(database, cursor, query, 0, 0, limit)[::-1]


def _committed(
    database: Database, cursor: Cursor, query: str, position: int, seq: int, limit: int
) -> list[Event]:
    bounds = {"position": position, "seq": seq, "limit": limit}
    return [
        _event(database, cursor, by_number(database, cursor, row[0] >> SEQ_BITS), row)
        for row in cursor.execute(query, bounds).fetchall()
    ]


def first_batch(
    database: Database, cursor: Cursor, session_id: str, position: int
) -> tuple[Life, int] | None:
    """Return the life of the first batch after a position whose session has this id, and its first.

    A batch that only records that a life has expired is passed over: that life was over before.
    """
    row = cursor.execute(
        "select session, first from batch cross join session on number = session"
        " where batch.position > ? and id = ? and not exists (select 1 from event"
        f" where first <= last and event.id = (session << {SEQ_BITS}) + first"
        f" and kind = {_EXPIRED})"
        " order by batch.position limit 1",
        (position, session_id),
    ).fetchone()
    return row and (by_number(database, cursor, row[0]), row[1])


# Batches, with all that the chain covers.

_BATCH = "select position, session, first, last, time, actor, cause, key, link from batch"


def batches(
    database: Database, cursor: Cursor, after: int, limit: int = PAGE_EVENTS
) -> Iterator[Batch]:
    """Yield up to `limit` batches with a position greater than `after`, fewer if they are large."""
    rows = cursor.execute(
        _BATCH + " where position > ? order by position limit ?", (after, limit)
    ).fetchall()
    size_bytes = 0
    for row in rows:
        batch = _batch(database, cursor, row)
        yield batch
        size_bytes += sum([len(entry[3] or b"") for entry in batch.entries])
        if size_bytes > PAGE_BYTES:
            break


def position_at(cursor: Cursor, time_us: int) -> int:
    """Return where the log was at a time: before its first batch that is later, or at its end.

    What was imported counts from when it came, as far as the times of the batches around it tell.
    """
    position: int = cursor.execute(
        "select coalesce((select min(position) - 1 from batch where time > ?), max(position), 0)"
        " from batch",
        (time_us,),
    ).get
    return position


def links(cursor: Cursor, after: int, limit: int) -> list[bytes]:
    """Return the links of up to `limit` batches with a position greater than `after`, in order."""
    rows = cursor.execute(
        "select link from batch where position > ? order by position limit ?", (after, limit)
    )
    return [link for (link,) in rows.fetchall()]


def keyed(database: Database, cursor: Cursor, life: Life, key: str) -> Batch | None:
    """Return the batch that a life recorded itself under a key, or None."""
    row = cursor.execute(_BATCH + " where session = ? and key = ?", (life.number, key)).fetchone()
    return row and _batch(database, cursor, row)


def newest_batches(database: Database, cursor: Cursor, life: Life, count: int) -> list[Batch]:
    """Return the newest batches that a life recorded itself, the newest first."""
    found: list[Batch] = []
    last = tip(cursor, life).head
    while len(found) < count and last > life.fork:
        row = cursor.execute(
            "select batch.position, session, first, last, time, actor, cause, key, link from batch"
            " join event on batch.position = event.position where event.id = ?",
            (life.event_id(last),),
        ).fetchone()
        found.append(_batch(database, cursor, row))
        last = found[-1].first - 1
    return found


def _batch(database: Database, cursor: Cursor, row: Columns) -> Batch:
    position, number, first, last, time_us, actor, cause, key, link = row
    life = by_number(database, cursor, number)
    start = number << SEQ_BITS
    entries = tuple(_entries(database, cursor, start + first, start + last, position))
    birth = birth_of(cursor, life) if life.position == position else None
    return Batch(life.uid, first, time_us, actor, cause, key, link, entries, position, birth)


def _entries(
    database: Database, cursor: Cursor, first: int, last: int, position: int
) -> Iterator[Entry]:
    """Yield what the chain covers of the events with these ids.

    One that names another batch is left out: it would be shown with the time and actor of that.
    """
    kinds, plain = database.cache("kinds"), payload.TEXT
    rows = cursor.connection.cursor().execute(
        "select id, encoding, data, kind, version, name, salt from event where id between ? and ?"
        " and position = ?",
        (first, last, position),
    )
    for event_id, encoding, data, kind, version, name, salt in rows:
        named = kinds.get(kind) or kind_name(database, cursor, kind)
        if encoding == plain and type(data) is str:
            yield Entry(named, version, name, data.encode(), salt)
            continue
        text = text_at(cursor, event_id)
        if text is None:
            yield Entry(named, version, None, None, None, data)
        else:
            yield Entry(named, version, name, text.encode(), salt)


def link_at(cursor: Cursor, life: Life, seq: int) -> bytes | None:
    """Return the link of the batch that holds the event at `seq`, or None without it."""
    link: bytes | None = cursor.execute(
        "select link from batch where position = (select position from event where id = ?)",
        (life.event_id(seq),),
    ).get
    return link


def birth_of(cursor: Cursor, life: Life) -> Birth:
    """Return the birth record of a life."""
    session_id, salt, leaf = cursor.execute(
        "select id, salt, leaf from session where number = ?", (life.number,)
    ).fetchone()
    parent_uid = life.parent.uid if life.parent else None
    fork = life.fork if life.parent else None
    return Birth(life.uid, session_id, life.created_us, parent_uid, fork, salt, leaf)


# How much there is.


class Counts(NamedTuple):
    """How much a file holds; sizes in bytes. A life whose deadline has passed has ended."""

    sessions: int
    ended: int
    batches: int
    events: int
    text_bytes: int
    stored_bytes: int
    page_bytes: int
    free_bytes: int


def counts(cursor: Cursor, now_us: int) -> Counts:
    """Return how much a file holds at a time; reads all of its log once."""
    sessions, ended = cursor.execute(
        "select count(*), count(ended) + (select count(*) from lease where expires <= ?)"
        " from session",
        (now_us,),
    ).fetchone()
    batches, events = cursor.execute(
        "select count(*), coalesce(sum(last - first + 1), 0) from batch"
    ).fetchone()
    texts, stored = cursor.execute(
        "select coalesce(sum(size), 0), coalesce(sum(octet_length(data)), 0) from event"
    ).fetchone()
    page, pages, free = cursor.execute(
        "select page_size, page_count, freelist_count from pragma_page_size, pragma_page_count,"
        " pragma_freelist_count"
    ).fetchone()
    return Counts(
        sessions - ended, ended, batches, events, texts, stored, page * pages, page * free
    )
