"""A look at a session as it is now: who has its id, and what it sees, from one snapshot."""

from types import TracebackType

from evstore.deadlines import Lease
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.found import Found
from evstore.sqlite.leases import renew_if_free
from evstore.sqlite.lives import Life, holder, standing
from evstore.sqlite.read import Moment


def living(
    database: Database, cursor: Cursor, session_id: str, life: Life | None, now_us: int
) -> tuple[Life | None, Lease | None]:
    """Return the life that has an id now, if any, and its lease.

    Where a life is given it has to be that one: raises SessionExpired and SessionNotFound.
    """
    found = life or holder(database, cursor, session_id)
    if found is None:
        return None, None
    now = standing(cursor, found)
    if life is None and now.is_over(now_us):
        return None, None
    now.check(session_id, now_us)
    return found, now.lease


_GLANCE = (
    "select seq, variable.created, operand, value from session"
    " join variable on variable.session = number where number = ? and ended is null"
    " and not exists (select 1 from lease where lease.session = number)"
    " and family = ? and name = ? and operand is null and value is not null"
)


def glance(cursor: Cursor, life: Life, family: int, name: str) -> Found | None:
    """Return a short value without a deadline of a life that lives without one, by one statement.

    None says only that it takes a whole look.
    """
    try:
        row = cursor.execute(_GLANCE, (life.number, family, name)).fetchone()
    except UnicodeEncodeError:  # A lone surrogate is in no name.
        return None
    return row and Found(*row)


class Looking:
    """A with block that sees a session as it is now, all from one snapshot.

    It is a class, since most looks are too short for a generator.
    """

    __slots__ = ("_database", "_id", "_lease", "_life", "_now_us", "_renews", "_snapshot")

    def __init__(
        self, database: Database, session_id: str, life: Life | None, now_us: int, *, renews: bool
    ) -> None:
        self._database = database
        self._snapshot = database.snapshot()
        self._id = session_id
        self._life = life
        self._now_us = now_us
        self._renews = renews
        self._lease: Lease | None = None

    @property
    def lease(self) -> Lease | None:
        """The lease of the session as it was seen, if it has one."""
        return self._lease

    def __enter__(self) -> Moment:
        cursor = self._snapshot.__enter__()
        try:
            found = living(self._database, cursor, self._id, self._life, self._now_us)
        except BaseException as error:
            self._snapshot.__exit__(type(error), error, error.__traceback__)
            raise
        self._life, self._lease = found
        return Moment(self._database, cursor, self._life, None, self._now_us)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._snapshot.__exit__(kind, error, traceback)
        if self._life is None or self._lease is None or error is not None:
            return
        if self._renews and self._lease.is_due(self._now_us):
            renew_if_free(self._database, self._life, self._now_us)
