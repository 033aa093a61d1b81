"""The check of a file against its log: every row that the chain does not cover is recomputed."""

from collections.abc import Callable, Iterator

import attrs
import orjson

from evstore.chain import ZERO
from evstore.errors import BadFile, Corrupt
from evstore.events import ENDINGS, FAMILY, KINDS, OPERANDS, SESSION_RESTORED, SETS, value_text
from evstore.sqlite import payload
from evstore.sqlite.checkpoint import Anchor, read_outline
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.insert import inline_text, tip_at
from evstore.sqlite.lives import SEQ_BITS, Life, by_number
from evstore.sqlite.log import newest_batches
from evstore.sqlite.maintain import session_numbers
from evstore.sqlite.read import Moment
from evstore.sqlite.rows import Row, text_of
from evstore.state import Outline, Reference


@attrs.frozen
class Finding:
    """Something that is not as it was recorded: where, which kind of thing, and what about it."""

    session: str | None
    seq: int | None
    kind: str
    what: str


_GAPS = """
select null, 'positions run from ' || min(position) || ' to ' || max(position) || ' in '
  || count(*) || ' batches'
from batch having count(*) > 0 and (min(position) <> 1 or max(position) <> count(*))
"""
_BIRTHS = """
select lower(hex(uid)), 'its life begins at position ' || position from session where not exists (
  select 1 from batch where batch.position = session.position and batch.session = session.number
    and batch.first = coalesce(session.fork, 0) + 1)
"""
_STRAY_BATCHES = """
select null, 'position ' || position || ' names session number ' || session from batch
where session not in (select number from session)
"""
_STRAY_EVENTS = """
select null, (select count(*) from event) || ' events where the batches hold '
  || coalesce(sum(last - first + 1), 0)
from batch having (select count(*) from event) <> coalesce(sum(last - first + 1), 0)
"""
_FORK_KEYS = """
select null, 'position ' || position || ' has a key and no events' from batch
where last < first and key is not null
"""
_ROW_CHECKS = {
    "position": _GAPS,
    "birth": _BIRTHS,
    "batch": _STRAY_BATCHES,
    "event": _STRAY_EVENTS,
    "key": _FORK_KEYS,
}


def check_rows(database: Database) -> Iterator[Finding]:
    """Yield gaps in the positions, and rows that belong to no batch or no session."""
    try:
        with database.snapshot() as cursor:
            found = [
                Finding(session, None, kind, what)
                for kind, query in _ROW_CHECKS.items()
                for session, what in cursor.execute(query).fetchall()
            ]
    except BadFile as error:
        found = [Finding(None, None, "damage", str(error))]
    yield from found


def check_heads(database: Database) -> Iterator[Finding]:
    """Yield the lives whose newest batch does not continue the one before it."""
    yield from _each_life(database, _check_head)


def check_derived(database: Database) -> Iterator[Finding]:
    """Yield the columns, projections and checkpoints that the log does not bear out."""
    with database.snapshot() as cursor:
        kinds = cursor.execute("select number, name from kind order by number").fetchall()
    for number, name in kinds[: len(KINDS)]:
        if name != KINDS[number - 1]:
            yield Finding(None, None, "kind", f"number {number} is {name!r}")
    yield from _each_life(
        database, lambda database, cursor, life: _Deriving(database, cursor, life).run()
    )


def _each_life(
    database: Database, check: Callable[[Database, Cursor, Life], Iterator[Finding]]
) -> Iterator[Finding]:
    """Yield what a check finds in each life; no transaction is open while the caller looks."""
    with database.snapshot() as cursor:
        numbers = session_numbers(cursor)
    for number in numbers:
        with database.snapshot() as cursor:
            try:
                found = list(check(database, cursor, by_number(database, cursor, number)))
            except BadFile as error:
                session, seq = _id_of(cursor, number), _seq(error)
                found = [Finding(session, seq, "damage", str(error))]
        yield from found


def _id_of(cursor: Cursor, number: int) -> str | None:
    session_id: str | None = cursor.execute(
        "select coalesce(id, lower(hex(uid))) from session where number = ?", (number,)
    ).get
    return session_id


def _seq(error: BadFile) -> int | None:
    """Return the sequence that an error names, if it names one."""
    return error.seq if isinstance(error, Corrupt) else None


def _check_head(database: Database, cursor: Cursor, life: Life) -> Iterator[Finding]:
    newest = newest_batches(database, cursor, life, 2)
    if not newest:
        return
    if len(newest) > 1:
        previous = newest[1].link
    else:
        previous = tip_at(cursor, life.parent, life.fork).link if life.parent else ZERO
        has_birth = life.parent is not None and newest[0].birth is None
        if has_birth:  # A fork's own first batch follows the one that holds its birth alone.
            previous = cursor.execute(
                "select link from batch where position = ?", (life.position,)
            ).get
    if newest[0].continues(previous) != newest[0].link:
        what = "the newest batch does not continue the one before it"
        yield Finding(life.shown, newest[0].first, "link", what)


class _Deriving:
    """The present of one life, derived once more from its log and compared with what is stored."""

    def __init__(self, database: Database, cursor: Cursor, life: Life) -> None:
        self._database = database
        self._cursor = cursor
        self._life = life
        self._outline = Moment(database, cursor, life.parent, life.fork).outline()
        self._moment = Moment(database, cursor, life)
        self._values: dict[tuple[int, str], str | None] = {}
        self._ended: str | None = None
        self._checkpoints = {
            row[0]: row
            for row in cursor.execute(
                "select id & 0xffffffff, messages, ranges, names from checkpoint"
                " where id between ? and ?",
                life.lineage[-1].ids,
            ).fetchall()
        }

    def run(self) -> Iterator[Finding]:
        events = self._cursor.connection.cursor().execute(
            "select id, encoding, delta, size, data, kind, name, base, operand, position, salt"
            " from event where id between ? and ?",
            self._life.lineage[-1].ids,
        )
        positions = self._positions()
        for *stored, kind, name, base, operand, position, salt in events:
            row = Row(*stored)
            seq = row.id - (self._life.number << SEQ_BITS)
            named = self._moment.kind(kind)
            text = text_of(self._cursor, row)
            expected = self._expected(named, name, text, operand)
            found = (base, operand, row.size, row.encoding == payload.FORGOTTEN)
            yield from self._compare(seq, "event", expected, found)
            if (salt is None) != (row.encoding == payload.FORGOTTEN):
                yield Finding(self._life.shown, seq, "event", "its salt does not fit its encoding")
            if (row.delta is None) != (row.encoding != payload.DELTA):
                yield Finding(self._life.shown, seq, "event", "its delta does not fit its encoding")
            if not any(first <= seq <= last for first, last in positions.get(position, ())):
                yield Finding(self._life.shown, seq, "event", f"it is not in batch {position}")
            self._apply(seq, named, name, operand, text)
            yield from self._check_checkpoint(seq)
        yield from self._check_names()
        yield from self._check_session()
        for seq in self._checkpoints:
            yield Finding(
                self._life.shown, seq, "checkpoint", "it is of a moment that is not there"
            )

    def _positions(self) -> dict[int, list[tuple[int, int]]]:
        found: dict[int, list[tuple[int, int]]] = {}
        for position, first, last in self._cursor.execute(
            "select position, first, last from batch where session = ?", (self._life.number,)
        ).fetchall():
            found.setdefault(position, []).append((first, last))
        return found

    def _expected(
        self, kind: str, name: str | None, text: str | None, operand: int | None
    ) -> tuple[int | None, int | None, int | None, bool]:
        """Return what base, operand, size and forgottenness of an event must be."""
        if text is None:
            return None, operand, None, True
        family = FAMILY.get(kind)
        before = self._outline.names[family].get(name or "") if family else None
        number = None
        if kind in OPERANDS:
            number = orjson.loads(text).get(OPERANDS[kind])
        return before.seq if before else None, number, len(text.encode()), False

    def _compare(
        self, seq: int, kind: str, expected: tuple[object, ...], found: tuple[object, ...]
    ) -> Iterator[Finding]:
        columns = ("base", "operand", "size", "forgotten")
        for column, wanted, stored in zip(columns, expected, found, strict=True):
            if wanted != stored and not (expected[-1] and column in ("base", "size")):
                what = f"{column} is {stored} where the log says {wanted}"
                yield Finding(self._life.shown, seq, kind, what)

    def _apply(
        self, seq: int, kind: str, name: str | None, operand: int | None, text: str | None
    ) -> None:
        self._outline.apply(seq, kind, name, operand, self._moment)
        family = FAMILY.get(kind)
        if family is not None and name is not None:
            is_set = kind in SETS.values() and text is not None
            value = value_text(text, operand).encode() if is_set and text else None
            self._values[family, name] = inline_text(value)
        if kind in ENDINGS:
            self._ended = kind
        elif kind == SESSION_RESTORED:
            self._ended = None

    def _check_checkpoint(self, seq: int) -> Iterator[Finding]:
        stored = self._checkpoints.pop(seq, None)
        if stored is None:
            return
        *anchor, names = stored
        if not _same_outline(read_outline(Anchor(*anchor), names), self._outline):
            what = "it is not the state at its sequence"
            yield Finding(self._life.shown, seq, "checkpoint", what)

    def _check_names(self) -> Iterator[Finding]:
        expected: dict[tuple[int, str], tuple[object, ...]] = {
            (family, name): (*self._outline.names[family][name], value)
            for (family, name), value in self._values.items()
        }
        rows = self._cursor.execute(
            "select family, name, seq, created, operand, value from variable where session = ?",
            (self._life.number,),
        ).fetchall()
        for family, name, *found in rows:
            wanted = expected.pop((family, name), None)
            if wanted is None and found[0] <= self._life.fork:
                wanted = self._copied(family, name)
            if wanted != tuple(found):
                what = f"{name!r} is {tuple(found)} where the log says {wanted}"
                yield Finding(self._life.shown, found[0], "variable", what)
        for family, name in expected:
            seq = self._outline.names[family][name].seq
            yield Finding(self._life.shown, seq, "variable", f"{name!r} is missing")

    def _copied(self, family: int, name: str) -> tuple[object, ...] | None:
        """Return what a fork's own row of shared metadata must be."""
        shared = Moment(self._database, self._cursor, self._life.parent, self._life.fork)
        reference: Reference | None = shared.references(family).get(name)
        found = shared.variable(family, name)
        if reference is None or found is None:
            return None
        return (*reference, inline_text((found.text or "").encode()))

    def _check_session(self) -> Iterator[Finding]:
        ended = self._cursor.execute(
            "select kind.name from session left join kind on kind.number = session.ended"
            " where session.number = ?",
            (self._life.number,),
        ).get
        if ended != self._ended:
            what = f"its end is {ended} where the log says {self._ended}"
            yield Finding(self._life.shown, None, "session", what)


def _same_outline(stored: Outline, folded: Outline) -> bool:
    return (stored.names, stored.messages) == (folded.names, folded.messages)
