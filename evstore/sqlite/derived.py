"""What the log says that derived rows must be: folded anew, beside what is stored of it."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import orjson

from evstore.events import ENDINGS, KINDS, METADATA, SESSION_RESTORED, SETS, value_text
from evstore.sqlite.checkpoint import newest_anchor, read_message_list
from evstore.sqlite.database import Columns, Cursor, Database
from evstore.sqlite.finding import Finding
from evstore.sqlite.found import Found
from evstore.sqlite.insert import INLINE_BYTES_MAX, inline_text
from evstore.sqlite.lives import SEQ_BITS, Life
from evstore.sqlite.read import Moment
from evstore.sqlite.rows import kind_name, texts_at
from evstore.state import MessageList, Outline, Reference

Step = tuple[int, str, str | None, int | None]
_RESTORED = KINDS.index(SESSION_RESTORED) + 1
_STRAYS = (
    "select number, 'variable' from (select distinct session as number from variable)"
    " where number not in (select number from session)"
    f" union select distinct id >> {SEQ_BITS}, 'checkpoint' from checkpoint"
    f" where id >> {SEQ_BITS} not in (select number from session)"
)
_TURNS = (_RESTORED, *(KINDS.index(kind) + 1 for kind in sorted(ENDINGS)))
_NAMES_PAGE = 1000  # whose values are read together
_SET_BYTES_MAX = INLINE_BYTES_MAX + len('{"value":,"expires_at":-9223372036854775808}')


class Refolded(Moment):
    """A moment that believes the log and its checkpoints, and not what was cached of them."""

    @cached_property
    def _list(self) -> MessageList:
        if self._life is None:
            return MessageList()
        anchor = newest_anchor(self._cursor, self._life, self.seq)
        return self._carry_on(read_message_list(anchor), anchor.seq)


def steps(database: Database, cursor: Cursor, ids: tuple[int, int]) -> list[Step]:
    """Return (seq, kind, name, operand) of some events."""
    kinds = database.cache("kinds")
    return [
        (seq, kinds.get(kind) or kind_name(database, cursor, kind), name, operand)
        for seq, kind, name, operand in cursor.execute(
            "select id & 0xffffffff, kind, name, operand from event where id between ? and ?", ids
        ).fetchall()
    ]


def ended(cursor: Cursor, ids: tuple[int, int], before: int | None) -> int | None:
    """Return by which kind of event a life is over after some events, if it is."""
    kind: int | None = cursor.execute(
        f"select kind from event where id between ? and ? and kind in {_TURNS}"
        " order by id desc limit 1",
        ids,
    ).get
    return before if kind is None else None if kind == _RESTORED else kind


def strays(cursor: Cursor) -> Iterator[tuple[int, Finding]]:
    """Yield the sessions that are not there and have derived rows, each of their tables once."""
    for number, table in cursor.execute(_STRAYS).fetchall():
        what = f"rows of session number {number}, of no session"
        yield number, Finding(None, None, table, what)


def batch_end(cursor: Cursor, life: Life, seq: int) -> int:
    """Return the seq of the last event in the batch that holds the event at `seq`."""
    last: int | None = cursor.execute(
        "select last from event join batch on batch.position = event.position where event.id = ?",
        (life.event_id(seq),),
    ).get
    return max(last or 0, seq)


# The rows of names.


class Difference(NamedTuple):
    """A row of a name that is not what the log says: (seq, created, operand, value), or None."""

    family: int
    name: str
    found: Columns | None
    wanted: Columns | None

    @property
    def seq(self) -> int:
        """The event that the row is about."""
        row = self.wanted or self.found or (0,)
        return int(row[0])

    @property
    def what(self) -> str:
        """What is wrong with the row, as a person reads it."""
        if self.found is None:
            return f"{self.name!r} is missing"
        return f"{self.name!r} is {self.found} where the log says {self.wanted}"


class Shared:
    """The names that a fork shares with its parent, of which it has rows for the metadata."""

    def __init__(self, database: Database, cursor: Cursor, life: Life) -> None:
        self._life = life
        past = Refolded(database, cursor, life.parent, life.fork)
        self.outline = past.outline()
        found = past.variables(METADATA) if life.parent else {}
        self._metadata = {name: _copied(each) for name, each in found.items()}

    def copies(self, outline: Outline) -> dict[str, Columns]:
        """Return the fork's own rows of the shared metadata that it has not written since."""
        names = outline.names[METADATA]
        return {
            name: row for name, row in self._metadata.items() if names[name].seq <= self._life.fork
        }


def _copied(found: Found) -> Columns:
    reference = (found.seq, found.created, found.operand)
    return (*reference, inline_text((found.text or "").encode()))


def wrong_names(
    cursor: Cursor, life: Life, outline: Outline, shared: Shared
) -> Iterator[Difference]:
    """Yield the rows of a life's names that are not what its whole log says, missing ones too."""
    rows = cursor.execute(
        "select family, name, seq, created, operand, value from variable where session = ?",
        (life.number,),
    ).fetchall()
    stored: dict[tuple[int, str], Columns] = {row[:2]: row[2:] for row in rows}
    for family, name, wanted in _own_rows(cursor, life, outline):
        found = stored.pop((family, name), None)
        if found != wanted:
            yield Difference(family, name, found, wanted)
    for name, wanted in shared.copies(outline).items():
        found = stored.pop((METADATA, name), None)
        if found != wanted:
            yield Difference(METADATA, name, found, wanted)
    for (family, name), found in stored.items():
        yield Difference(family, name, found, None)


def wrong_among(
    cursor: Cursor, life: Life, outline: Outline, shared: Shared, names: list[tuple[int, str]]
) -> Iterator[Difference]:
    """Yield those rows among some (family, name) that are not what a life's whole log says."""
    copies = shared.copies(outline)
    own = [
        (family, name, reference)
        for family, name in names
        if (reference := outline.names.get(family, {}).get(name)) and reference.seq > life.fork
    ]
    written = {(family, name): row for family, name, row in _rows_of(cursor, life, own)}
    for family, name in names:
        found = cursor.execute(
            "select seq, created, operand, value from variable"
            " where session = ? and family = ? and name = ?",
            (life.number, family, name),
        ).fetchone()
        wanted = written.get((family, name)) or (copies.get(name) if family == METADATA else None)
        if found != wanted:
            yield Difference(family, name, found, wanted)


def _own_rows(cursor: Cursor, life: Life, outline: Outline) -> Iterator[tuple[int, str, Columns]]:
    """Yield (family, name, row) of all names that a life wrote itself."""
    own = (
        (family, name, reference)
        for family, names in outline.names.items()
        for name, reference in names.items()
        if reference.seq > life.fork
    )
    while some := list(islice(own, _NAMES_PAGE)):
        yield from _rows_of(cursor, life, some)


def _rows_of(
    cursor: Cursor, life: Life, some: list[tuple[int, str, Reference]]
) -> Iterator[tuple[int, str, Columns]]:
    ids = [life.event_id(reference.seq) for _, _, reference in some]
    texts = _short_texts(cursor, ids)
    for (family, name, reference), event_id in zip(some, ids, strict=True):
        text = texts.get(event_id) if family in SETS and reference.created else None
        value = value_text(text, reference.operand).encode() if text else None
        yield family, name, (*reference, inline_text(value))


def _short_texts(cursor: Cursor, ids: list[int]) -> dict[int, str | None]:
    """Return the texts of those among some events whose value may be short."""
    short = cursor.execute(
        "select id from event where id in (select value from json_each(?)) and size < ?",
        (orjson.dumps(ids).decode(), _SET_BYTES_MAX),
    ).fetchall()
    return texts_at(cursor, [event_id for (event_id,) in short])
