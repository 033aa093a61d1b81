"""Care for a file: makes right what is derived from the log; the log itself it never changes.

Each life is folded anew beside its readers and writers, in short snapshots, and what is stored is
compared with that. Only what differs is written, row by row and a few rows at a time, under the
lock and up to the newest event by then; so a sound file costs no write, and the present is never
away. Parents come before their forks, because a fork is folded from what it shares.
"""

import attrs

from evstore.errors import BadFile, Corrupt
from evstore.events import KINDS
from evstore.sqlite import search
from evstore.sqlite.checkpoint import Anchor, newest_anchor, read_outline, write_outline
from evstore.sqlite.database import Columns, Cursor, Database, Durability
from evstore.sqlite.derived import (
    Difference,
    Refolded,
    Shared,
    batch_end,
    ended,
    steps,
    strays,
    wrong_among,
    wrong_names,
)
from evstore.sqlite.finding import Finding
from evstore.sqlite.insert import (
    checkpoint_distance,
    is_checkpoint_due,
    put_checkpoint,
    put_variable,
    set_ended,
)
from evstore.sqlite.lives import SEQ_BITS, SEQ_MAX, Life, by_number, tip
from evstore.state import Outline, Reference

PIECE_NAMES = 25  # whose rows are looked at under one lock
_TAIL_EVENTS_MAX = 200  # that are folded under the lock; more are folded before it


def rebuild(database: Database, life: Life | None, durability: Durability) -> list[Finding]:
    """Make the derived rows of all lives, or of one and its ancestors, what their log says.

    Returns what was not. An index of words that is not of the log's messages is made anew as well,
    in steps of its own, where all lives are rebuilt.
    """
    found: list[Finding] = []
    number = 0
    while (number := _following(database, life, number)) > 0:
        found += _mended(database, number)
    if life is None:
        found += _strays(database)
        found += _mend_index(database)
    if found and durability == "full":
        database.flush()
    return found


def _following(database: Database, life: Life | None, number: int) -> int:
    """Return the number of the life after another, or 0; also of one that was born meanwhile."""
    if life is not None:
        lineage = [segment.number for segment in life.lineage]
        return min((each for each in lineage if each > number), default=0)
    with database.snapshot() as cursor:
        return (
            cursor.execute("select min(number) from session where number > ?", (number,)).get or 0
        )


def _mended(database: Database, number: int) -> list[Finding]:
    found: list[Finding] = []
    shown = None
    try:
        with database.snapshot() as cursor:
            life = by_number(database, cursor, number)
            shown = life.shown
            mending = _Mending(database, cursor, life, found)
        mending.run()
    except BadFile as error:  # Its log is damaged, which no rebuild mends; the others go on.
        seq = error.seq if isinstance(error, Corrupt) else None
        found.append(Finding(shown, seq, "damage", str(error)))
    return found


@attrs.frozen
class _Wrong:
    """A checkpoint that is not as it must be: where, what is to be there, and what is wrong."""

    seq: int
    written: Columns
    what: str


class _Mending:
    """One life, folded from the start of its own log up to its newest event."""

    def __init__(
        self, database: Database, cursor: Cursor, life: Life, found: list[Finding]
    ) -> None:
        self._database = database
        self._life = life
        self._found = found
        self._shared = Shared(database, cursor, life)
        self._outline = self._shared.outline
        self._written = newest_anchor(cursor, life, life.fork).seq
        self._ended: int | None = None

    def run(self) -> None:
        """Go on until a snapshot shows nothing that differs."""
        while True:
            with self._database.snapshot() as cursor:
                head = tip(cursor, self._life).head
                wrong = self._fold_on(cursor, head) if self._outline.seq < head else None
                at_head = wrong is None and self._outline.seq == head
                names = self._wrong_names(cursor) if at_head else []
                is_right = at_head and not names and not self._wrong_session(cursor, head)
            if is_right:
                return
            if wrong is not None:
                self._put(wrong)
            elif at_head:
                self._correct(names)

    def _fold_on(self, cursor: Cursor, head: int) -> _Wrong | None:
        """Fold up to the next place of a checkpoint, and return that where it is wrong."""
        outline, life = self._outline, self._life
        # Names only become more, so that none is due before the end of this batch.
        due = max(self._written + checkpoint_distance(outline), outline.seq + 1)
        stop = batch_end(cursor, life, min(due, head))
        stored = cursor.execute(
            "select id & 0xffffffff, messages, ranges, names from checkpoint"
            " where id between ? and ? order by id limit 1",
            (life.event_id(outline.seq + 1), life.event_id(stop)),
        ).fetchone()
        self._apply(cursor, stored[0] if stored else stop)
        if stored is None and not is_checkpoint_due(outline, self._written):
            return None
        self._written = outline.seq
        written = write_outline(outline)
        if stored is None:
            return _Wrong(outline.seq, written, "it is missing")
        if stored[1:] == written or _says(stored, outline):
            return None
        return _Wrong(outline.seq, written, "it is not the state at its sequence")

    def _apply(self, cursor: Cursor, seq: int) -> None:
        ids = self._life.event_id(self._outline.seq + 1), self._life.event_id(seq)
        past = Refolded(self._database, cursor, self._life, seq)
        self._ended = ended(cursor, ids, self._ended)
        self._outline.apply_all(steps(self._database, cursor, ids), past)

    def _wrong_names(self, cursor: Cursor) -> list[Difference]:
        return list(wrong_names(cursor, self._life, self._outline, self._shared))

    def _wrong_session(self, cursor: Cursor, head: int) -> list[Finding]:
        """Return what is wrong about the life itself: its end, and checkpoints of no moment."""
        life, found = self._life, []
        is_ended: int | None = cursor.execute(
            "select ended from session where number = ?", (life.number,)
        ).get
        if is_ended != self._ended:
            what = f"its end is {_kind(is_ended)} where the log says {_kind(self._ended)}"
            found.append(Finding(life.shown, None, "session", what))
        for (seq,) in cursor.execute(
            "select id & 0xffffffff from checkpoint where id between ? and ? or id between ? and ?",
            self._nowhere(head),
        ).fetchall():
            what = "it is of a moment that is not there"
            found.append(Finding(life.shown, seq, "checkpoint", what))
        return found

    def _nowhere(self, head: int) -> tuple[int, int, int, int]:
        """Return between which ids this life has no events: up to its fork, and after its head."""
        start = self._life.number << SEQ_BITS
        return start, start + self._life.fork, start + head + 1, start + SEQ_MAX

    # Under the lock.

    def _put(self, wrong: _Wrong) -> None:
        with self._database.writing("normal") as cursor:
            put_checkpoint(cursor, self._life.event_id(wrong.seq), wrong.written)
            self._database.forget()
        self._found.append(Finding(self._life.shown, wrong.seq, "checkpoint", wrong.what))

    def _correct(self, wrong: list[Difference]) -> None:
        """Write the rows that differ, some at a time; what others write meanwhile is folded in."""
        as_of = self._outline.seq
        for start in range(0, max(len(wrong), 1), PIECE_NAMES):
            piece = wrong[start : start + PIECE_NAMES]
            with self._database.writing("normal") as cursor:
                head = tip(cursor, self._life).head
                if not self._keep_up(cursor, head):
                    return
                found = self._correct_session(cursor, head) if start == 0 else []
                if head != as_of:
                    piece = self._wrong_among(cursor, piece)
                self._correct_names(cursor, piece)
                self._database.forget()
            shown = self._life.shown
            self._found += found
            self._found += [Finding(shown, each.seq, "variable", each.what) for each in piece]

    def _wrong_among(self, cursor: Cursor, before: list[Difference]) -> list[Difference]:
        names = [(each.family, each.name) for each in before]
        return list(wrong_among(cursor, self._life, self._outline, self._shared, names))

    def _keep_up(self, cursor: Cursor, head: int) -> bool:
        """Fold what was written meanwhile, unless it is much, or has a checkpoint to look at."""
        after = self._outline.seq
        if after < head:
            ids = self._life.event_id(after + 1), self._life.event_id(head)
            query = "select count(*) from checkpoint where id between ? and ?"
            if head - after > _TAIL_EVENTS_MAX or cursor.execute(query, ids).get:
                return False
            self._apply(cursor, head)
        return True

    def _correct_session(self, cursor: Cursor, head: int) -> list[Finding]:
        found = self._wrong_session(cursor, head)
        if found:
            set_ended(self._database, cursor, self._life, self._ended)
            cursor.execute(
                "delete from checkpoint where id between ? and ? or id between ? and ?",
                self._nowhere(head),
            )
        return found

    def _correct_names(self, cursor: Cursor, wrong: list[Difference]) -> None:
        number = self._life.number
        for each in wrong:
            if each.wanted is None:
                cursor.execute(
                    "delete from variable where session = ? and family = ? and name = ?",
                    (number, each.family, each.name),
                )
            else:
                *reference, value = each.wanted
                put_variable(cursor, number, each.family, each.name, Reference(*reference), value)


def _says(stored: Columns, outline: Outline) -> bool:
    """Tell whether a stored checkpoint, however it is encoded, is a state."""
    *anchor, names = stored
    try:
        said = read_outline(Anchor(*anchor), names)
    except Corrupt:
        return False
    return (said.names, said.messages) == (outline.names, outline.messages)


def _kind(number: int | None) -> str | None:
    return None if number is None else KINDS[number - 1] if number <= len(KINDS) else str(number)


def _strays(database: Database) -> list[Finding]:
    """Drop the rows of sessions that are not there."""
    with database.snapshot() as cursor:
        found = list(strays(cursor))
    absent = "not exists (select 1 from session where number = ?1)"  # It may be born meanwhile.
    for number in dict(found):
        with database.writing("normal") as cursor:
            cursor.execute(f"delete from variable where session = ?1 and {absent}", (number,))
            cursor.execute(
                f"delete from checkpoint where id between ?2 and ?3 and {absent}",
                (number, number << SEQ_BITS, (number << SEQ_BITS) + SEQ_MAX),
            )
    return [finding for _, finding in found]


def _mend_index(database: Database) -> list[Finding]:
    """Make the index of words anew where it is not of the messages in the log."""
    found = []
    with database.snapshot() as cursor:
        for number, seq, what in search.differences(cursor):
            query = "select coalesce(id, lower(hex(uid))) from session where number = ?"
            shown = cursor.execute(query, (number,)).get
            found.append(Finding(shown, seq, "search", what))
    if found:
        with database.writing("normal") as cursor:
            search.clear(cursor)
        search.catch_up(database)
    return found
