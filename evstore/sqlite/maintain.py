"""Care for a file: makes anew what is derived from the log; the log itself it never changes."""

from collections.abc import Iterator

from evstore.events import (
    ENDINGS,
    SESSION_RESTORED,
    SETS,
    value_text,
)
from evstore.sqlite import search
from evstore.sqlite.checkpoint import newest_anchor
from evstore.sqlite.database import Cursor, Database, Durability
from evstore.sqlite.insert import (
    copy_metadata,
    inline_text,
    is_checkpoint_due,
    kind_number,
    put_checkpoint,
    put_variable,
    set_ended,
)
from evstore.sqlite.lives import Life, by_number, tip
from evstore.sqlite.read import Moment
from evstore.sqlite.rows import kind_name, texts_at
from evstore.state import Outline

Occurrence = tuple[int, int, str, str | None, int | None]


def rebuild(database: Database, durability: Durability) -> None:
    """Drop the present and the checkpoints, and make them anew, parents before their forks.

    An index of words that was there is made anew as well, after that and in steps of its own.
    """
    with database.writing(durability) as cursor:
        database.forget()
        cursor.execute("delete from variable")
        cursor.execute("delete from checkpoint")
        for number in session_numbers(cursor):
            life = by_number(database, cursor, number)
            outline = replay(database, cursor, life)
            _project(database, cursor, life, outline)
        had_index = search.clear(cursor)
        database.forget()
    if had_index:
        search.catch_up(database)


def session_numbers(cursor: Cursor) -> list[int]:
    """Return the numbers of all lives, parents before their forks."""
    return [number for (number,) in cursor.execute("select number from session order by number")]


def own_steps(database: Database, cursor: Cursor, life: Life) -> Iterator[Occurrence]:
    """Yield (seq, position, kind, name, operand) of the events that a life recorded itself."""
    kinds = dict(cursor.execute("select number, name from kind").fetchall())
    events = cursor.connection.cursor().execute(
        "select id & 0xffffffff, position, kind, name, operand from event where id between ? and ?",
        life.lineage[-1].ids,
    )
    for seq, position, kind, name, operand in events:
        yield seq, position, kinds.get(kind) or kind_name(database, cursor, kind), name, operand


def replay(database: Database, cursor: Cursor, life: Life) -> Outline:
    """Fold a life's own events over the past it shares, with the checkpoints that belong to it."""
    moment = Moment(database, cursor, life, tip(cursor, life).head)
    outline = Moment(database, cursor, life.parent, life.fork).outline()
    written = newest_anchor(cursor, life, life.fork).seq
    batch, ended = 0, None
    for seq, position, kind, name, operand in own_steps(database, cursor, life):
        if batch not in (0, position) and is_checkpoint_due(outline, written):
            put_checkpoint(cursor, life.number, outline)
            written = outline.seq
        batch = position
        outline.apply(seq, kind, name, operand, moment)
        if kind in ENDINGS:
            ended = kind_number(database, cursor, kind)
        elif kind == SESSION_RESTORED:
            ended = None
    if batch and is_checkpoint_due(outline, written):
        put_checkpoint(cursor, life.number, outline)
    set_ended(database, cursor, life, ended)
    return outline


def _project(database: Database, cursor: Cursor, life: Life, outline: Outline) -> None:
    """Write the rows of the names that a life touched itself."""
    copy_metadata(database, cursor, life)
    touched = {
        (family, name): reference
        for family, names in outline.names.items()
        for name, reference in names.items()
        if reference.seq > life.fork
    }
    ids = {key: life.event_id(reference.seq) for key, reference in touched.items()}
    texts = texts_at(cursor, ids.values())
    for (family, name), reference in touched.items():
        text = texts[ids[family, name]]
        has_value = family in SETS and reference.created is not None and text is not None
        value = value_text(text, reference.operand).encode() if has_value and text else None
        put_variable(cursor, life.number, family, name, reference, inline_text(value))
