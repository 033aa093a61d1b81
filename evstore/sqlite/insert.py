"""The rows of a commit: every row of log and projection enters the file here."""

from collections.abc import Sequence
from typing import NamedTuple

from evstore.chain import ZERO, Birth
from evstore.deadlines import Lease
from evstore.errors import Taken
from evstore.events import (
    ANY,
    ENDINGS,
    FAMILY,
    KINDS,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    METADATA,
    METADATA_SET,
    SESSION_RESTORED,
    VARIABLE_SET,
    Body,
    value_text,
)
from evstore.sqlite import chains, payload
from evstore.sqlite.caches import bounded
from evstore.sqlite.checkpoint import newest_anchor, write_outline
from evstore.sqlite.database import Columns, Cursor, Database
from evstore.sqlite.deltas import Encoded
from evstore.sqlite.lives import SEQ_BITS, Life, Standing, Tip, by_uid, holder, standing, tip
from evstore.sqlite.read import Moment
from evstore.state import Outline, Reference, is_there, step

CHECKPOINT_EVENTS = 1000  # at least so many events lie between two checkpoints of a lineage
NUMBERS = {kind: number for number, kind in enumerate(KINDS, 1)}
_TURNS = ENDINGS | {SESSION_RESTORED}
_TARGETING = frozenset({MESSAGE_REMOVED, MESSAGE_REPLACED})
_INSERT_EVENT = (
    "insert into event(id, kind, version, name, base, operand, encoding, delta, size, position,"
    " salt, data) values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_BATCH = "insert into batch values(?, ?, ?, ?, ?, ?, ?, ?, ?)"
INLINE_BYTES_MAX = payload.ZSTD_FROM_BYTES - 1


# A body with all that can be computed before the lock: how it is encoded (None is a short text,
# which is stored as it is), its salt, and what the link of its batch says of it.
Prepared = tuple[Body, Encoded | None, bytes | None, bytes]
Who = tuple[str | None, str | None, str | None]  # the actor, cause and key of a batch


class Edge:
    """Where a life ends and how it stands: what its next batch continues."""

    __slots__ = ("due", "head", "link", "standing", "time_us")

    def __init__(self, head: int, time_us: int, hashed: bytes) -> None:
        self.head = head
        self.time_us = time_us
        self.link = hashed
        self.standing: Standing | None = None  # which nobody has asked for yet
        self.due = 0  # the seq from which on the next checkpoint is, as far as we know


class Named(NamedTuple):
    """A name that a batch touches: where it stood, where it stands then, and by which body."""

    before: Reference | None
    now: Reference
    body: Body

    @property
    def value(self) -> bytes | None:
        """The text of the value, where there is one."""
        if self.body.kind not in (VARIABLE_SET, METADATA_SET):
            return None
        return value_text(self.body.text, self.body.operand)


class Layout:
    """The rows that a batch becomes: its events, and where the names it touches stand then.

    Without a life, which is about to be born, the rows are numbered by seq alone.
    """

    __slots__ = (
        "_known",
        "expecting",
        "first",
        "life",
        "moment",
        "named",
        "position",
        "rows",
        "targets",
        "turns",
    )

    def __init__(self, database: Database, moment: Moment, position: int, first: int) -> None:
        self._known = database.current.names
        self.moment = moment  # just before it
        self.life = moment.life
        self.position = position
        self.first = first
        self.rows: list[Columns] = []
        self.named: dict[tuple[int, str], Named] = {}
        self.targets: list[int] = []  # the messages that it removes or replaces
        self.expecting: list[tuple[Body, Reference | None]] = []  # and where their names stood
        self.turns: list[str] = []  # its kinds that end a life, or bring it back

    def growth(self, family: int, now_us: int) -> int:
        """Return how many more names of a family are there after the batch, at a time."""
        growth = 0
        for (known, _), named in self.named.items():
            if known == family:
                growth += is_there(family, named.now, now_us)
                growth -= is_there(family, named.before, now_us)
        return growth

    def place(self, seq: int, body: Body) -> int | None:
        """Note where a name stands from `seq` on; return the seq of the event before of its own."""
        name, family = body.name, FAMILY.get(body.kind)
        if family is None or name is None:
            return None
        known = self.named.get((family, name))
        before = known.now if known else self._before(family, name)
        if body.expected is not ANY:
            self.expecting.append((body, before))
        now = step(before, seq, body.kind, body.operand)
        self.named[family, name] = Named(known.before if known else before, now, body)
        return before.seq if before else None

    def _before(self, family: int, name: str) -> Reference | None:
        if self.life is None:
            return None
        known: Reference | None = self._known.get((self.life.number, family, name))
        return known or self.moment.newest(family, name)


def lay_out(
    database: Database,
    cursor: Cursor,
    moment: Moment,
    position: int,
    first: int,
    prepared: Sequence[Prepared],
) -> Layout:
    """Return the rows of a batch that begins at `first`."""
    layout = Layout(database, moment, position, first)
    life, rows = layout.life, layout.rows
    start = 0 if life is None else life.number << SEQ_BITS
    for seq, (body, encoded, salt, _) in enumerate(prepared, first):
        kind, name, text, operand = body.kind, body.name, body.text, body.operand
        stored, base = encoded, None
        if name is not None:
            base = layout.place(seq, body)
            if life is not None and encoded is not None and chains.is_large(body):
                stored = chains.settle(database, cursor, life, base, seq, body, encoded)
        elif kind in _TARGETING and operand is not None:
            layout.targets.append(operand)
        elif kind in _TURNS:
            layout.turns.append(kind)
        number = NUMBERS.get(kind) or kind_number(database, cursor, kind)
        said = (start + seq, number, body.version, name, base, operand)
        form: Columns = (payload.TEXT, None)
        data: str | bytes
        if stored is None:
            data = text.decode()
        else:
            form, data = (stored.encoding, stored.delta), stored.data
        rows.append((*said, *form, len(text), position, salt, data))
    return layout


def insert(
    database: Database,
    cursor: Cursor,
    life: Life,
    layout: Layout,
    time_us: int,
    who: Who,
    hashed: bytes,
) -> None:
    """Insert a batch and its events, and bring all that is derived from them up to date."""
    current, rows, number, position = database.current, layout.rows, life.number, layout.position
    last = layout.first + len(rows) - 1
    row = (position, number, layout.first, last, time_us, *who, hashed)
    cursor.execute(_INSERT_BATCH, row)
    if layout.life is None:
        start = number << SEQ_BITS
        rows = [(start + event[0], *event[1:]) for event in rows]
    cursor.executemany(_INSERT_EVENT, rows)
    for (family, name), named in layout.named.items():
        put_variable(cursor, number, family, name, named.now, inline_text(named.value))
        bounded(current.names)[number, family, name] = named.now
    edge = current.edges.get(number)
    if edge is None:
        edge = bounded(current.edges)[number] = Edge(last, time_us, hashed)
    else:
        edge.head, edge.time_us, edge.link = last, time_us, hashed
    for kind in layout.turns:
        _follow_life(database, cursor, life, kind)
    if rows and last >= edge.due:
        insert_checkpoint(cursor, life, Moment(database, cursor, life, last), edge)
    current.position, current.time_us = position, max(current.time_us, time_us)


def newest_position(database: Database, cursor: Cursor) -> int:
    """Return the position of the newest batch, inside a write transaction."""
    current = database.current
    if current.position is None:
        query = "select position, time from batch order by position desc limit 1"
        current.position, current.time_us = cursor.execute(query).fetchone() or (0, 0)
    return current.position


def cached_edge(database: Database, cursor: Cursor, life: Life) -> Edge:
    """Return where a life ends, inside a write transaction."""
    found: Edge | None = database.current.edges.get(life.number)
    if found is None:
        found = bounded(database.current.edges)[life.number] = Edge(*tip(cursor, life))
    return found


def cached_standing(database: Database, cursor: Cursor, life: Life) -> Standing:
    """Return how a life stands, inside a write transaction."""
    found = cached_edge(database, cursor, life)
    if found.standing is None:
        found.standing = standing(cursor, life)
    return found.standing


def kind_number(database: Database, cursor: Cursor, kind: str) -> int:
    """Return the number of a kind; an application's new kind gets the next one."""
    numbers: dict[str, int] = database.cache("kind_numbers")
    if kind not in numbers:
        number = cursor.execute("select number from kind where name = ?", (kind,)).get
        if number is None:
            cursor.execute("insert into kind(name) values(?)", (kind,))
            number = cursor.connection.last_insert_rowid()
        numbers[kind] = number
    return numbers[kind]


def insert_session(
    database: Database, cursor: Cursor, birth: Birth, parent: Life | None, position: int
) -> Life:
    """Insert a birth record and return the life; raises Taken where its id lives already."""
    if birth.id is not None and holder(database, cursor, birth.id) is not None:
        raise Taken(birth.id)
    number = parent.number if parent else None
    cursor.execute(
        "insert into session(uid, id, created, parent, fork, salt, leaf, position)"
        " values(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            birth.uid,
            birth.id,
            birth.created_us,
            number,
            birth.fork,
            birth.salt,
            birth.leaf,
            position,
        ),
    )
    life = by_uid(database, cursor, birth.uid)
    assert life is not None
    copy_metadata(database, cursor, life)
    return life


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
    if life.parent is None:
        return
    if _unchanged_since(cursor, life.parent, life.fork):
        rows = cursor.execute(
            "select name, seq, created, operand, value from variable"
            " where session = ? and family = ? and created is not null",
            (life.parent.number, METADATA),
        ).fetchall()
        for name, seq, created, operand, value in rows:
            now = Reference(seq, created, operand)
            put_variable(cursor, life.number, METADATA, name, now, value)
        return
    for name, found in Moment(database, cursor, life).variables(METADATA).items():
        now = Reference(found.seq, found.created, found.operand)
        inline = inline_text((found.text or "").encode())
        put_variable(cursor, life.number, METADATA, name, now, inline)


def _unchanged_since(cursor: Cursor, life: Life, seq: int) -> bool:
    """Tell whether the metadata of a life is what it was at `seq`, tombstones included."""
    newest: int | None = cursor.execute(
        "select max(seq) from variable where session = ? and family = ?", (life.number, METADATA)
    ).get
    return newest is None or newest <= seq


def insert_checkpoint(cursor: Cursor, life: Life, moment: Moment, edge: Edge) -> None:
    """Write the state at a moment down, if the last time is long enough ago."""
    seq = moment.seq
    if not edge.due:
        edge.due = newest_anchor(cursor, life, seq).seq + CHECKPOINT_EVENTS
    if seq < edge.due:
        return
    outline = moment.outline()
    distance = checkpoint_distance(outline)
    edge.due = newest_anchor(cursor, life, seq).seq + distance
    if seq >= edge.due:
        put_checkpoint(cursor, life.event_id(seq), write_outline(outline))
        edge.due = seq + distance


def checkpoint_distance(outline: Outline) -> int:
    """Return how many events the next checkpoint must be away from the last one.

    It grows with the number of names, so that checkpoints stay about a byte per event.
    """
    return max(CHECKPOINT_EVENTS, 2 * outline.name_count)


def is_checkpoint_due(outline: Outline, since: int) -> bool:
    """Tell whether a state is far enough from the last checkpoint to be written down."""
    distance = outline.seq - since
    return distance >= CHECKPOINT_EVENTS and distance >= checkpoint_distance(outline)


def put_checkpoint(cursor: Cursor, event_id: int, written: Columns) -> None:
    """Write down what `write_outline` made of a state, as the checkpoint at its newest event."""
    cursor.execute("insert or replace into checkpoint values(?, ?, ?, ?)", (event_id, *written))


def _follow_life(database: Database, cursor: Cursor, life: Life, kind: str) -> None:
    """Note that a life is over, or lives again, so that its id is free, or taken."""
    if kind in ENDINGS:
        ended = kind_number(database, cursor, kind)
        cursor.execute("delete from lease where session = ?", (life.number,))
    elif kind != SESSION_RESTORED:
        return
    elif holder(database, cursor, life.shown) is not None:
        raise Taken(life.shown, "delete the living one first")
    else:
        ended = None
    set_ended(database, cursor, life, ended)


def set_ended(database: Database, cursor: Cursor, life: Life, kind: int | None) -> None:
    """Write down by which kind of event a life is over, if it is."""
    cursor.execute("update session set ended = ? where number = ?", (kind, life.number))
    _stands_anew(database, life)


def put_lease(database: Database, cursor: Cursor, life: Life, lease: Lease) -> None:
    """Write down how long a session lives."""
    cursor.execute("insert or replace into lease values(?, ?, ?)", (life.number, *lease))
    _stands_anew(database, life)


def _stands_anew(database: Database, life: Life) -> None:
    known: Edge | None = database.current.edges.get(life.number)
    if known is not None:
        known.standing = None


def tip_at(cursor: Cursor, life: Life, seq: int) -> Tip:
    """Return the time and link of the batch that holds the event at `seq`."""
    if seq == 0:
        return Tip(0, 0, ZERO)
    time_us, hashed = cursor.execute(
        "select time, link from batch where position = (select position from event where id = ?)",
        (life.event_id(seq),),
    ).fetchone()
    return Tip(seq, time_us, hashed)
