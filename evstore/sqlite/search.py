"""Search: a full-text index that follows the log, and what of it a session shows.

The index is no part of an append. A search first takes in the batches since the last one, and what
it may not write down, on a handle that only reads, it indexes in memory for itself.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from heapq import merge
from math import log
from weakref import WeakSet

import apsw
import attrs
import orjson

from evstore.events import BODIES, KINDS
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.lives import SEQ_BITS, SEQ_MAX, Life, by_number
from evstore.sqlite.poller import newest_position
from evstore.sqlite.read import Moment
from evstore.sqlite.rows import SELECT_ROW, Row, text_of, texts_at
from evstore.sqlite.wording import prose

SNIPPET_WORDS = 12
STEP_BATCHES = 1000  # one transaction of the index takes in so many batches at most,
STEP_BYTES = 512 << 10  # and ends with the batch that reaches so much text
_RANGES_MAX = 16  # from more ranges of messages on, their hull is looked through
_HITS_PAGE = 100
_PAGE_MIN, _PAGE_MAX, _PAGE_GROWTH = 20, 1000, 4
_ID_MAX = (1 << 63) - 1
_FOLLOWER = "search"
_K1, _B, _WEIGHT_MIN = 1.2, 0.75, 1e-6  # the constants of bm25(), as SQLite has them
_BODY = f"kind in {tuple(KINDS.index(kind) + 1 for kind in sorted(BODIES))}"
_MATCHES = (
    "select rank, search.rowid from json_each(?) as stretch cross join search"
    " where search match ? and search.rowid between stretch.value ->> 0 and stretch.value ->> 1"
    " order by rank, search.rowid desc limit ? offset ?"
)
# What the index lacks, and what it holds and should not; FTS5 keeps a row of `search_docsize` for
# each text.
_DIFFERENCES = {
    "in the log and not in the search index": "from event where ?1 > 0 and "
    + _BODY
    + " and position <= ?1"
    " and not exists (select 1 from search_docsize where search_docsize.id = event.id)",
    "in the search index and not in the log": "from search_docsize where not exists (select 1"
    " from event where event.id = search_docsize.id and " + _BODY + " and position <= ?)",
}
# A life and all that was forked from it, each with the seq up to which it shares what that life
# recorded: those of them that live. A union ends, also where a damaged file has a circle.
_BRANCHES = (
    "with recursive branch(number, shared) as (select ?, ? union"
    " select session.number, min(session.fork, shared)"
    " from session join branch on session.parent = branch.number)"
    " select number, shared from branch join session using(number)"
    " left join lease on session = number"
    " where ended is null and coalesce(expires > ?, true) order by number"
)
# The file's index keeps no texts; this one does, because a snippet is made of them.
_SHOWN = 'create virtual table search using fts5(text, tokenize="unicode61 remove_diacritics 2")'
_counting: WeakSet[apsw.Connection] = WeakSet()
Ranked = tuple[float, int]  # FTS5's rank, where less is better, and event.id
Stretch = tuple[int, int]  # the first and last event.id


@attrs.frozen
class Match:
    """A message that was found: of which life, at which index of its list, and how good it is."""

    life: Life
    seq: int
    index: int
    snippet: str
    score: float


@attrs.frozen
class _Place:
    rank: float
    event_id: int
    life: Life
    index: int


# The index, as a follower of the log.


def catch_up(database: Database) -> None:
    """Bring the index up to the newest batch, in short transactions; many may do so at once."""
    with database.snapshot() as cursor:
        wanted, position = newest_position(cursor), _position(cursor)
    while position < wanted:
        with database.writing("normal") as cursor:
            position = _take_in(cursor, cursor, _position(cursor))
            cursor.execute("insert or replace into follower values(?, ?)", (_FOLLOWER, position))


def clear(cursor: Cursor) -> bool:
    """Empty the index, inside the caller's transaction; tell whether there was one."""
    had_begun = _position(cursor) > 0
    cursor.execute("insert into search(search) values('delete-all')")
    cursor.execute("delete from follower where name = ?", (_FOLLOWER,))
    return had_begun


def differences(cursor: Cursor) -> Iterator[tuple[int, int, str]]:
    """Yield (session number, seq, what) where log and index differ, up to where this follows."""
    for where, rows in _DIFFERENCES.items():
        for number, seq, count in cursor.execute(
            f"select id >> {SEQ_BITS}, min(id) & {SEQ_MAX}, count(*) {rows} group by 1",
            (_position(cursor),),
        ).fetchall():
            yield number, seq, f"messages {where}: {count}"


def _position(cursor: Cursor) -> int:
    """Return the position of the newest batch that the index holds, or 0."""
    position: int | None = cursor.execute(
        "select position from follower where name = ?", (_FOLLOWER,)
    ).get
    return position or 0


def _take_in(cursor: Cursor, index: Cursor, position: int) -> int:
    """Index some batches after a position; return the position of the last one."""
    bytes_left = STEP_BYTES
    reading = cursor.connection.cursor()
    for batch in cursor.execute(
        "select position, session, first, last from batch where position > ?"
        " order by position limit ?",
        (position, STEP_BATCHES),
    ).fetchall():
        position, number, first, last = batch
        start = number << SEQ_BITS
        for row in reading.execute(
            f"{SELECT_ROW} id between ? and ? and {_BODY}", (start + first, start + last)
        ):
            text = prose(text_of(cursor, Row(*row)))
            index.execute("insert into search(rowid, text) values(?, ?)", (row[0], text))
            bytes_left -= row[3]
        if bytes_left <= 0:
            break
    return position


def _private(cursor: Cursor, query: str, connection: apsw.Connection) -> Cursor:
    """Return an index like that of the file, of the batches that the file's does not hold."""
    index = connection.cursor()
    index.execute(cursor.execute("select sql from sqlite_schema where name = 'search'").get)
    position, newest = _position(cursor), newest_position(cursor)
    index.execute("begin")
    while position < newest:
        position = _take_in(cursor, index, position)
    index.execute("commit")
    _rank_alike(cursor, query, index)
    return index


# How good a match is. Rare words count for more, and in a few texts indexed apart every word is
# common; so they are ranked by the file's numbers, with the formula of FTS5's own bm25().


def _rank_alike(cursor: Cursor, query: str, index: Cursor) -> None:
    if cursor.connection not in _counting:
        cursor.connection.register_fts5_function("how_common", _how_common)
        _counting.add(cursor.connection)
    common = cursor.execute(
        "select how_common(search) from search where search match ? limit 1", (query,)
    ).get
    if common is None:  # Nothing that the file's index holds has to be compared.
        return
    rows, words, *counts = orjson.loads(common)
    weights = [log((rows - count + 0.5) / (count + 0.5)) for count in counts]
    weights = [weight if weight > 0 else _WEIGHT_MIN for weight in weights]

    def rank(text: apsw.FTS5ExtensionApi) -> float:
        length = _K1 * (1 - _B + _B * text.column_size(0) / (words / rows))
        score = 0.0
        for phrase, weight in enumerate(weights):
            (places,) = text.phrase_locations(phrase)
            score += weight * (len(places) * (_K1 + 1) / (len(places) + length))
        return -score

    index.connection.register_fts5_function("rank_alike", rank)
    index.execute("insert into search(search, rank) values('rank', 'rank_alike()')")


def _how_common(text: apsw.FTS5ExtensionApi) -> str:
    """Return, as JSON, the texts and words of an index, and how many texts hold each phrase."""
    counts = [0] * text.phrase_count

    def count(_text: apsw.FTS5ExtensionApi, phrase: int) -> None:
        counts[phrase] += 1

    for phrase in range(text.phrase_count):
        text.query_phrase(phrase, count, phrase)
    return orjson.dumps([text.row_count, text.column_total_size(0), *counts]).decode()


# What is shown where.


class _Session:
    """One life at one moment: where its messages are in the log, and at which index they stand."""

    def __init__(self, moment: Moment, life: Life) -> None:
        self._moment = moment
        self._life = life
        self._ranges = moment.message_list().ranges

    def stretches(self) -> list[Stretch]:
        """Return stretches of the log that hold all messages shown, and few others."""
        recorder, ranges = self._moment.life, self._ranges
        if recorder is None or not ranges:
            return []
        spans = [self._hull]
        if len(ranges) <= _RANGES_MAX:
            spans = [(self._seq(first), self._seq(end - 1)) for first, end in ranges]
        return [segment.ids for first, last in spans for segment in recorder.until(last, first - 1)]

    @cached_property
    def _hull(self) -> tuple[int, int]:
        """The first and last seq of all messages shown."""
        first, end = min(self._ranges)[0], max(end for _, end in self._ranges)
        return self._seq(first), self._seq(end - 1)

    def _seq(self, ordinal: int) -> int:
        ((seq, _),) = self._moment.recorded(ordinal, ordinal + 1)
        return seq

    def place(self, rank: float, event_id: int) -> _Place | None:
        """Return where a message stands, or None where it is not in the list."""
        seq, index = event_id & SEQ_MAX, 0
        if self._ranges and self._hull[0] <= seq <= self._hull[1]:
            ordinal = self._moment.ordinal(seq)
            for first, end in self._ranges:
                if first <= ordinal < end:
                    return _Place(rank, event_id, self._life, index + ordinal - first)
                index += end - first
        return None


class _Everywhere:
    """All living sessions now: a message stands where it was recorded, or in a fork of that."""

    def __init__(self, database: Database, cursor: Cursor, now_us: int) -> None:
        self._database = database
        self._cursor = cursor
        self._now_us = now_us
        self._branches: dict[int, list[tuple[int, int]]] = {}
        self._sessions: dict[int, _Session] = {}

    def stretches(self) -> list[Stretch]:
        """Return the whole log."""
        return [(0, _ID_MAX)]

    def place(self, rank: float, event_id: int) -> _Place | None:
        """Return where a message stands, or None where no living session shows it."""
        for number, shared in self._branches_of(event_id >> SEQ_BITS):
            if event_id & SEQ_MAX <= shared:
                place = self._session(number).place(rank, event_id)
                if place is not None:
                    return place
        return None

    def _branches_of(self, number: int) -> list[tuple[int, int]]:
        if number not in self._branches:
            self._branches[number] = self._cursor.execute(
                _BRANCHES, (number, SEQ_MAX, self._now_us)
            ).fetchall()
        return self._branches[number]

    def _session(self, number: int) -> _Session:
        if number not in self._sessions:
            life = by_number(self._database, self._cursor, number)
            self._sessions[number] = _Session(Moment(self._database, self._cursor, life), life)
        return self._sessions[number]


# The search.


def search(
    database: Database, query: str, life: Life | None, seq: int, limit: int, now_us: int
) -> list[Match]:
    """Return the best matches in a life at `seq`, or without one in all living sessions.

    `query` is an FTS5 expression. The best come first, among equals the newest.
    """
    with database.snapshot() as cursor, closing(apsw.Connection(":memory:")) as memory:
        scope: _Session | _Everywhere = _Everywhere(database, cursor, now_us)
        if life is not None:
            scope = _Session(Moment(database, cursor, life, seq), life)
        indices = [cursor]
        if _position(cursor) < newest_position(cursor):
            indices.append(_private(cursor, query, memory))
        stretches = orjson.dumps(scope.stretches()).decode()
        pages = [_ranked(index, query, stretches, limit) for index in indices]
        places: list[_Place] = []
        for rank, event_id in merge(*pages, key=lambda ranked: (ranked[0], -ranked[1])):
            place = scope.place(rank, event_id)
            if place is not None:
                places.append(place)
            if len(places) == limit:
                break
        return [
            match
            for start in range(0, len(places), _HITS_PAGE)
            for match in _matches(cursor, query, places[start : start + _HITS_PAGE])
        ]


def _ranked(cursor: Cursor, query: str, stretches: str, limit: int) -> Iterator[Ranked]:
    """Yield what matches, best first, in pages that grow as long as more is asked for."""
    skip, count = 0, min(max(limit, _PAGE_MIN), _PAGE_MAX)
    reading = cursor.connection.cursor()
    while True:
        page = reading.execute(_MATCHES, (stretches, query, count, skip)).fetchall()
        yield from page
        if len(page) < count:
            return
        skip, count = skip + count, count * _PAGE_GROWTH


def _matches(cursor: Cursor, query: str, places: list[_Place]) -> Iterator[Match]:
    """Yield matches with the words around: an index of those few texts marks what it finds."""
    texts = texts_at(cursor, (place.event_id for place in places))
    with closing(apsw.Connection(":memory:")) as memory:
        shown: Cursor = memory.cursor()
        shown.execute(_SHOWN)
        shown.executemany(
            "insert into search(rowid, text) values(?, ?)",
            ((event_id, prose(text)) for event_id, text in texts.items()),
        )
        found = shown.execute(
            "select rowid, snippet(search, 0, '[', ']', '…', ?) from search where search match ?",
            (SNIPPET_WORDS, query),
        ).fetchall()
    snippets: dict[int, str] = dict(found)
    for place in places:
        snippet = snippets.get(place.event_id)
        if snippet is not None:  # What was forgotten since it was indexed is found no more.
            seq = place.event_id & SEQ_MAX
            yield Match(place.life, seq, place.index, snippet, -place.rank)
