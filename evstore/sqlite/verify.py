"""The check of a file against its log: every row that the chain does not cover is recomputed."""

from collections.abc import Callable, Iterator

import orjson

from evstore.chain import ZERO
from evstore.errors import BadFile, Corrupt
from evstore.events import ENDINGS, FAMILY, KINDS, OPERANDS, SESSION_RESTORED
from evstore.sqlite import payload, search
from evstore.sqlite.checkpoint import Anchor, read_outline
from evstore.sqlite.database import Columns, Cursor, Database
from evstore.sqlite.derived import Refolded, Shared, strays, wrong_names
from evstore.sqlite.finding import Finding
from evstore.sqlite.insert import tip_at
from evstore.sqlite.lives import SEQ_BITS, SEQ_MAX, Life, by_number
from evstore.sqlite.log import newest_batches
from evstore.sqlite.rows import Row, text_of
from evstore.state import Outline

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
_FORGOTTEN_BIRTHS = """
select lower(hex(uid)), 'its id, salt and leaf do not fit each other' from session
where (id is null) <> (salt is null) or (salt is null) = (leaf is null)
"""
_FORK_KEYS = """
select null, 'position ' || position || ' has a key and no events' from batch
where last < first and key is not null
"""
_EVENTS = f"""
select id, encoding, delta, size, data, kind, name, base, operand, case
  when (salt is null) <> (encoding = {payload.FORGOTTEN}) then 'its salt does not fit its encoding'
  when encoding = {payload.FORGOTTEN} and name is not null then 'it is forgotten and has a name'
  when (delta is null) = (encoding = {payload.DELTA}) then 'its delta does not fit its encoding'
  when (session = id >> {SEQ_BITS} and id & {SEQ_MAX} between first and last) is not true
  then 'it is not in batch ' || event.position end
from event left join batch on batch.position = event.position where id between ? and ?
"""
_CHECKPOINTS = f"""
select id & {SEQ_MAX}, messages, ranges, names from checkpoint where id between ? and ? order by id
"""
_ROW_CHECKS = {
    "position": _GAPS,
    "birth": _BIRTHS,
    "session": _FORGOTTEN_BIRTHS,
    "batch": _STRAY_BATCHES,
    "event": _STRAY_EVENTS,
    "key": _FORK_KEYS,
}


def check_rows(database: Database) -> Iterator[Finding]:
    """Yield gaps in the positions, and rows that belong to no batch or no session."""
    yield from _at_once(database, _check_rows)


def _check_rows(cursor: Cursor) -> Iterator[Finding]:
    for kind, query in _ROW_CHECKS.items():
        for session, what in cursor.execute(query).fetchall():
            yield Finding(session, None, kind, what)


def _check_kinds(cursor: Cursor) -> Iterator[Finding]:
    stored = dict(cursor.execute("select number, name from kind"))
    numbered = dict(enumerate(KINDS, 1))
    for number in sorted(stored.keys() | numbered):
        name, wanted = stored.get(number), numbered.get(number)
        if number <= len(KINDS) and name != wanted:
            yield Finding(None, None, "kind", f"number {number} is {name!r}")


def _check_strays(cursor: Cursor) -> Iterator[Finding]:
    for _, finding in strays(cursor):
        yield finding


def _check_index(cursor: Cursor) -> Iterator[Finding]:
    for number, seq, what in search.differences(cursor):
        yield Finding(_id_of(cursor, number), seq, "search", what)


def check_heads(database: Database) -> Iterator[Finding]:
    """Yield the lives whose newest batch does not continue the one before it."""
    yield from _each_life(database, _check_head)


def check_derived(database: Database) -> Iterator[Finding]:
    """Yield what the log does not bear out of columns, projections, checkpoints and the index."""
    yield from _at_once(database, _check_kinds)
    yield from _each_life(
        database, lambda database, cursor, life: _Deriving(database, cursor, life).run()
    )
    yield from _at_once(database, _check_strays)
    yield from _at_once(database, _check_index)


def _at_once(
    database: Database, check: Callable[[Cursor], Iterator[Finding]], number: int | None = None
) -> Iterator[Finding]:
    """Yield what a check of the whole file finds, or of the life with a number, and any damage.

    No transaction is open while the caller looks.
    """
    try:
        with database.snapshot() as cursor:
            found = list(check(cursor))
    except BadFile as error:
        found = [Finding(_shown(database, number), _seq(error), "damage", str(error))]
    yield from found


def _shown(database: Database, number: int | None) -> str | None:
    """Return what to call the life with a number, if that can be read."""
    try:
        with database.snapshot() as cursor:
            return _id_of(cursor, number)
    except BadFile:
        return None


def _each_life(
    database: Database, check: Callable[[Database, Cursor, Life], Iterator[Finding]]
) -> Iterator[Finding]:
    """Yield what a check finds in each life, and go on after a damaged one."""
    try:
        with database.snapshot() as cursor:
            numbers = [number for (number,) in cursor.execute("select number from session")]
    except BadFile as error:
        yield Finding(None, None, "damage", str(error))
        return
    for number in sorted(numbers):

        def check_life(cursor: Cursor, number: int = number) -> Iterator[Finding]:
            return check(database, cursor, by_number(database, cursor, number))

        yield from _at_once(database, check_life, number)


def _id_of(cursor: Cursor, number: int | None) -> str | None:
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
        self._shared = Shared(database, cursor, life)
        self._moment = Refolded(database, cursor, life)
        self._outline = self._shared.outline
        self._ended: str | None = None
        self._checkpoints = cursor.connection.cursor()
        self._checkpoints.execute(_CHECKPOINTS, life.lineage[-1].ids)
        self._checkpoint = self._checkpoints.fetchone()  # the next one that is to be reached

    def run(self) -> Iterator[Finding]:
        kinds, plain, outline = self._database.cache("kinds"), payload.TEXT, self._outline
        events = self._cursor.connection.cursor().execute(_EVENTS, self._life.lineage[-1].ids)
        for event_id, encoding, delta, size, data, kind, name, base, operand, misfit in events:
            seq = event_id & SEQ_MAX
            named = kinds.get(kind) or self._moment.kind(kind)
            text: str | None = data
            if encoding != plain or type(data) is not str:
                text = text_of(self._cursor, Row(event_id, encoding, delta, size, data))
            stored = (base, operand, size)
            # Of what was forgotten nothing is left to compare with.
            expected = stored if text is None else self._expected(named, name, text)
            if stored != expected or misfit is not None:
                yield from self._compare(seq, expected, stored, misfit)
            outline.apply(seq, named, name, operand, self._moment)
            if named in ENDINGS:
                self._ended = named
            elif named == SESSION_RESTORED:
                self._ended = None
            if self._checkpoint is not None and self._checkpoint[0] <= seq:
                yield from self._check_checkpoints(seq)
        yield from self._check_checkpoints(SEQ_MAX + 1)
        yield from self._check_names()
        yield from self._check_session()

    def _expected(
        self, kind: str, name: str | None, text: str
    ) -> tuple[int | None, int | None, int]:
        """Return what base, operand and size of an event must be."""
        family = FAMILY.get(kind)
        before = self._outline.names[family].get(name or "") if family else None
        operand, key = None, OPERANDS.get(kind)
        if key is not None and (key in text or "\\" in text):  # where it may be written escaped
            operand = _member(text, key)
        size_bytes = len(text) if text.isascii() else len(text.encode())
        return before.seq if before else None, operand, size_bytes

    def _compare(
        self, seq: int, expected: Columns, stored: Columns, misfit: str | None
    ) -> Iterator[Finding]:
        for column, wanted, found in zip(
            ("base", "operand", "size"), expected, stored, strict=True
        ):
            if wanted != found:
                what = f"{column} is {found} where the log says {wanted}"
                yield Finding(self._life.shown, seq, "event", what)
        if misfit is not None:
            yield Finding(self._life.shown, seq, "event", misfit)

    def _check_checkpoints(self, seq: int) -> Iterator[Finding]:
        """Compare the checkpoint at a sequence with the state, after those that are of none."""
        while self._checkpoint is not None and self._checkpoint[0] <= seq:
            *anchor, names = self._checkpoint
            what = None
            if anchor[0] < seq:
                what = "it is of a moment that is not there"
            elif not _same_outline(read_outline(Anchor(*anchor), names), self._outline):
                what = "it is not the state at its sequence"
            if what is not None:
                yield Finding(self._life.shown, anchor[0], "checkpoint", what)
            self._checkpoint = self._checkpoints.fetchone()

    def _check_names(self) -> Iterator[Finding]:
        for wrong in wrong_names(self._cursor, self._life, self._outline, self._shared):
            yield Finding(self._life.shown, wrong.seq, "variable", wrong.what)

    def _check_session(self) -> Iterator[Finding]:
        ended = self._cursor.execute(
            "select kind.name from session left join kind on kind.number = session.ended"
            " where session.number = ?",
            (self._life.number,),
        ).get
        if ended != self._ended:
            what = f"its end is {ended} where the log says {self._ended}"
            yield Finding(self._life.shown, None, "session", what)


def _member(text: str, key: str) -> int | None:
    """Return the member of an object that a text should be, or None where it is none."""
    try:
        data = orjson.loads(text)
    except ValueError:
        return None
    return data.get(key) if type(data) is dict else None


def _same_outline(stored: Outline, folded: Outline) -> bool:
    return (stored.names, stored.messages) == (folded.names, folded.messages)
