"""The rows of a commit: every row of log and projection enters the file here, inside a transaction."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


from evstore.chain import ZERO, Birth
from evstore.events import METADATA, METADATA_SET, VARIABLE_SET, Body, value_text
from evstore.sqlite import payload
from evstore.sqlite.database import Columns, Cursor, Database
from evstore.sqlite.lives import SEQ_BITS, Life, Tip, tip
from evstore.sqlite.read import Moment, write_outline
from evstore.state import Outline, Reference

CHECKPOINT_EVENTS = 1000  # at least so many events lie between two checkpoints of a lineage
INLINE_BYTES_MAX = payload.ZSTD_FROM_BYTES - 1


class Newest(NamedTuple):
    """The newest batch of the whole store."""

    position: int
    time_us: int


class Named(NamedTuple):
    """A name that a batch touches: where it stood, where it stands then, and by which body."""

    before: Reference | None
    now: Reference
    body: Body

    @property
    def was_there(self) -> bool:
        """Whether the name had a value before the batch."""
        return self.before is not None and self.before.created is not None

    @property
    def is_there(self) -> bool:
        """Whether the name has a value after the batch."""
        return self.now.created is not None

    @property
    def value(self) -> bytes | None:
        """The text of the value, where there is one."""
        if self.body.kind not in (VARIABLE_SET, METADATA_SET):
            return None
        return value_text(self.body.text, self.body.operand)


def newest(database: Database, cursor: Cursor) -> Newest:
    """Return the newest batch; what was cached before somebody else wrote is dropped."""
    row = cursor.execute(
        "select position, time from batch order by position desc limit 1"
    ).fetchone()
    found = Newest(*row) if row else Newest(0, 0)
    if found.position != database.position:
        database.cache("tips").clear()
        database.cache("checkpoints").clear()
        database.position = found.position
    return found


def cached_tip(database: Database, cursor: Cursor, life: Life) -> Tip:
    """Return the newest end of a life's log; valid after `newest` in the same transaction."""
    tips = database.cache("tips")
    if life.number not in tips:
        tips[life.number] = tip(cursor, life)
    return tips[life.number]


def remember_tip(database: Database, life: Life, position: int, end: Tip) -> None:
    """Keep what the transaction made of a life; an abandoned transaction drops all caches."""
    database.cache("tips")[life.number] = end
    database.position = position


def kind_number(database: Database, cursor: Cursor, kind: str) -> int:
    """Return the number of a kind; an application's new kind gets the next one."""
    numbers = database.cache("kind_numbers")
    if kind not in numbers:
        number = cursor.execute("select number from kind where name = ?", (kind,)).get
        if number is None:
            cursor.execute("insert into kind(name) values(?)", (kind,))
            number = cursor.connection.last_insert_rowid()
        numbers[kind] = number
    return numbers[kind]


def insert_session(cursor: Cursor, birth: Birth, parent: int | None, position: int) -> int:
    """Insert a birth record and return its number."""
    cursor.execute(
        "insert into session(uid, id, created, parent, fork, salt, leaf, position)"
        " values(?, ?, ?, ?, ?, ?, ?, ?)",
        (birth.uid, birth.id, birth.created_us, parent, birth.fork, birth.salt, birth.leaf, position),
    )
    return cursor.connection.last_insert_rowid()


def insert_batch(cursor: Cursor, row: Columns) -> None:
    """Insert a batch: position, session, first, last, time, actor, cause, key, link."""
    cursor.execute("insert into batch values(?, ?, ?, ?, ?, ?, ?, ?, ?)", row)


def insert_events(cursor: Cursor, life: Life, rows: Iterable[Columns]) -> None:
    """Insert events: seq, kind, version, name, base, operand, encoding, size, position, salt, data."""
    start = life.number << SEQ_BITS
    cursor.executemany(
        "insert into event(id, kind, version, name, base, operand, encoding, size, position, salt,"
        " data) values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((start + row[0], *row[1:]) for row in rows),
    )


def project(cursor: Cursor, life: Life, projected: Mapping[tuple[int, str], Named]) -> None:
    """Bring the present of the names that a batch touched up to date."""
    for (family, name), named in projected.items():
        put_variable(cursor, life.number, family, name, named.now, inline_text(named.value))


def inline_text(value: bytes | None) -> str | None:
    """Return what `variable.value` holds of a value: its text if it is short, else nothing."""
    return None if value is None or len(value) > INLINE_BYTES_MAX else value.decode()


def put_variable(
    cursor: Cursor, number: int, family: int, name: str, now: Reference, value: str | None
) -> None:
    """Write where one name stands."""
    cursor.execute(
        "insert or replace into variable values(?, ?, ?, ?, ?, ?, ?)",
        (number, family, name, *now, value),
    )


def copy_metadata(database: Database, cursor: Cursor, life: Life) -> None:
    """Give a fork rows for the metadata it shares, so that one index finds sessions by metadata."""
    shared = Moment(database, cursor, life.parent, life.fork)
    references = shared.references(METADATA)
    for name, found in shared.variables(METADATA).items():
        inline = inline_text(found.text and found.text.encode())
        put_variable(cursor, life.number, METADATA, name, references[name], inline)


def insert_checkpoint(database: Database, cursor: Cursor, life: Life, seq: int) -> None:
    """Write the state at `seq` down, if the last time is long enough ago.

    The distance grows with the number of names, so that checkpoints stay about a byte per event.
    """
    due = database.cache("checkpoints")
    if life.number not in due:
        due[life.number] = Moment(database, cursor, life, seq).anchored + CHECKPOINT_EVENTS
    if seq < due[life.number]:
        return
    moment = Moment(database, cursor, life, seq)
    outline = moment.outline()
    distance = max(CHECKPOINT_EVENTS, 2 * sum(map(len, outline.names.values())))
    due[life.number] = moment.anchored + distance
    if seq >= due[life.number]:
        put_checkpoint(cursor, life.number, outline)
        due[life.number] = seq + distance


def put_checkpoint(cursor: Cursor, number: int, outline: Outline) -> None:
    """Write a state down as the checkpoint at its seq."""
    cursor.execute(
        "insert or replace into checkpoint values(?, ?, ?, ?)",
        ((number << SEQ_BITS) + outline.seq, *write_outline(outline)),
    )


def set_ended(cursor: Cursor, life: Life, kind: int | None) -> None:
    """Note that a life is over, or lives again, so that its id is free, or taken."""
    cursor.execute("update session set ended = ? where number = ?", (kind, life.number))


def tip_at(cursor: Cursor, life: Life, seq: int) -> Tip:
    """Return the time and link of the batch that holds the event at `seq`."""
    if seq == 0:
        return Tip(0, 0, ZERO)
    time_us, hashed = cursor.execute(
        "select time, link from batch where position = (select position from event where id = ?)",
        (life.event_id(seq),),
    ).fetchone()
    return Tip(seq, time_us, hashed)
