"""Lives: who a session is, and through which rows its log is read when it was forked."""

from functools import cached_property
from typing import NamedTuple

from evstore.chain import ZERO
from evstore.deadlines import Lease
from evstore.errors import Corrupt, SessionExpired, SessionNotFound
from evstore.events import KINDS, SESSION_EXPIRED
from evstore.sqlite.database import Columns, Cursor, Database

SEQ_BITS = 32
SEQ_MAX = (1 << SEQ_BITS) - 1


class Segment(NamedTuple):
    """A stretch of a lineage, `first` to `last`, recorded by the session with this number."""

    number: int
    first: int
    last: int

    @property
    def ids(self) -> tuple[int, int]:
        """The first and last event.id that this stretch can have."""
        start = self.number << SEQ_BITS
        return start + self.first, start + self.last


class Life:
    """The birth record of a session, as rows of this file: it never changes.

    `parent` is the life that recorded the event at `fork`, the last one shared; `position` is that
    of the batch that brought the life into being.
    """

    def __init__(
        self,
        number: int,
        uid: bytes,
        id: str | None,
        created_us: int,
        parent: "Life | None",
        fork: int,
        position: int,
    ) -> None:
        self.number = number
        self.uid = uid
        self.id = id
        self.created_us = created_us
        self.parent = parent
        self.fork = fork
        self.position = position

    @cached_property
    def lineage(self) -> tuple[Segment, ...]:
        """All stretches of the log as this session sees it, oldest first."""
        # A loop, because forks of forks go deeper than Python's stack.
        life, last = self, SEQ_MAX
        segments = [Segment(self.number, self.fork + 1, SEQ_MAX)]
        while life.parent is not None:
            last, life = min(last, life.fork), life.parent
            if life.fork < last:
                segments.append(Segment(life.number, life.fork + 1, last))
        return tuple(reversed(segments))

    def until(self, seq: int, after: int = 0) -> tuple[Segment, ...]:
        """Return the stretches that hold the events after `after` up to `seq`, oldest first."""
        return tuple(
            Segment(number, max(first, after + 1), min(last, seq))
            for number, first, last in self.lineage
            if first <= seq and last > after
        )

    def recorder(self, seq: int) -> "Life":
        """Return the life that recorded the event at `seq`; for 0 the oldest ancestor."""
        life = self
        while life.parent is not None and seq <= life.fork:
            life = life.parent
        return life

    def event_id(self, seq: int) -> int:
        """Return the event.id of the event at `seq`."""
        if self.parent is None:
            return (self.number << SEQ_BITS) + seq
        return (self.recorder(seq).number << SEQ_BITS) + seq

    @property
    def shown(self) -> str:
        """What to call this session in an error."""
        return self.id if self.id is not None else self.uid.hex()


class Tip(NamedTuple):
    """The newest end of a log: what the next batch continues."""

    head: int
    time_us: int
    link: bytes


_EXPIRED = KINDS.index(SESSION_EXPIRED) + 1
UNBORN = Tip(0, 0, ZERO)
_SELECT = "select number, uid, id, created, parent, coalesce(fork, 0), position from session where "


def holder(database: Database, cursor: Cursor, session_id: str) -> Life | None:
    """Return the life that has this id, if any; its deadline may have passed."""
    row = cursor.execute(_SELECT + "id = ? and ended is null", (session_id,)).fetchone()
    return row and _life(database, cursor, row)


def by_uid(database: Database, cursor: Cursor, uid: bytes) -> Life | None:
    """Return the life with this uid, living or ended, if any."""
    row = cursor.execute(_SELECT + "uid = ?", (uid,)).fetchone()
    return row and _life(database, cursor, row)


def by_number(database: Database, cursor: Cursor, number: int) -> Life:
    """Return the life with this internal number."""
    life: Life | None = database.cache("lives").get(number)
    if life is None:
        life = _life(database, cursor, _row(database, cursor, number))
    return life


def _row(database: Database, cursor: Cursor, number: int) -> Columns:
    row: Columns | None = cursor.execute(_SELECT + "number = ?", (number,)).fetchone()
    if row is None:
        raise Corrupt(database.path, f"there is no session number {number}")
    return row


def _life(database: Database, cursor: Cursor, row: Columns) -> Life:
    """Return the life of a row; its ancestors are looked up in a loop, however many there are."""
    lives: dict[int, Life] = database.cache("lives")
    rows: list[Columns] = []
    number, life = row[0], None
    # What is found is held here, since another thread may empty the cache at any time.
    while number is not None and (life := lives.get(number)) is None:
        rows.append(_row(database, cursor, number) if rows else row)
        number = _parent(database, rows[-1])
    for number, uid, session_id, created_us, _, fork, position in reversed(rows):
        life = lives[number] = Life(number, uid, session_id, created_us, life, fork, position)
    assert life is not None
    return life


def _parent(database: Database, row: Columns) -> int | None:
    """Return the number of the life that a birth continues; a circle of those has no end."""
    number: int = row[0]
    parent: int | None = row[4]
    fork: int = row[5]
    if (parent is not None and parent >= number) or not 0 <= fork <= SEQ_MAX:
        raise Corrupt(database.path, f"session number {number} continues what is not in its past")
    return parent


class Standing(NamedTuple):
    """How a life stands: by which kind of event it ended, if it did, and its lease, if any."""

    ended: int | None
    lease: Lease | None

    def has_expired(self, now_us: int) -> bool:
        """Tell whether its deadline has passed, be it recorded or not."""
        if self.ended is not None:
            return self.ended == _EXPIRED
        return self.lease is not None and self.lease.expires_us <= now_us

    def is_over(self, now_us: int) -> bool:
        """Tell whether the life is over: deleted, erased, or past its deadline."""
        return self.ended is not None or self.has_expired(now_us)

    def check(self, session_id: str, now_us: int) -> None:
        """Raise SessionExpired or SessionNotFound where the life is over."""
        if self.has_expired(now_us):
            raise SessionExpired(session_id)
        if self.ended is not None:
            raise SessionNotFound(session_id)


def standing(cursor: Cursor, life: Life) -> Standing:
    """Return how a life stands."""
    # Two subqueries cost a sixth of what a left join does.
    ended, expires_us, ttl_us = cursor.execute(
        "select ended, (select expires from lease where session = number),"
        " (select ttl from lease where session = number) from session where number = ?",
        (life.number,),
    ).fetchone()
    return Standing(ended, None if expires_us is None else Lease(expires_us, ttl_us))


def tip(cursor: Cursor, life: Life) -> Tip:
    """Return the newest end of a life's log; that of a fork without events is its birth."""
    row = cursor.execute(
        "select event.id & 0xffffffff, batch.time, batch.link"
        " from event join batch on batch.position = event.position"
        " where event.id between ? and ? order by event.id desc limit 1",
        life.lineage[-1].ids,
    ).fetchone()
    if row is None:
        row = cursor.execute(
            "select last, time, link from batch where position = ?", (life.position,)
        ).fetchone()
    if row is None:
        path = str(cursor.connection.filename)
        raise Corrupt(path, "the batch that holds its birth is missing", life.shown)
    return Tip(*row)
