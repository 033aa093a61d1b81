"""The embedded engine's verbs: a page of delegations, which is all that the face knows of it."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from evstore.chain import Batch
from evstore.errors import Closed, ReadOnly, SessionNotFound
from evstore.events import Event, Said
from evstore.limits import Limits
from evstore.sqlite import adopt, lives, log, maintain, verify, write
from evstore.sqlite.database import Database, Durability, open_database
from evstore.sqlite.lives import Life, Tip
from evstore.sqlite.log import Counts, Filter, Listed
from evstore.sqlite.read import Moment
from evstore.sqlite.verify import Finding
from evstore.sqlite.write import Decision, Draft, Recorded

_log = logging.getLogger("evstore")


class Engine:
    """One handle on a file: what is bound to the handle, on top of what the process shares."""

    name = "sqlite"

    def __init__(
        self,
        path: str,
        *,
        durability: Durability,
        read_only: bool,
        create: bool,
        limits: Limits,
        clock: Callable[[], int] | None,
    ) -> None:
        self._shared = open_database(path, read_only=read_only, create=create)
        self._durability = durability
        self._read_only = read_only
        self._limits = limits
        self._clock = clock or _microseconds
        self._closed = False
        _log.debug("opened %s, durability %s", self.path, durability)

    @property
    def path(self) -> str:
        """The file, or `:memory:`."""
        return self._shared.path

    @property
    def _database(self) -> Database:
        """The database that this handle shares with others, until it is closed."""
        if self._closed:
            raise Closed
        return self._shared

    # Writing.

    def append(self, drafts: Sequence[Draft]) -> list[Recorded]:
        """Append batches in one transaction, at consecutive positions."""
        recorded = write.append(self._database, drafts)
        for batch in recorded:
            _log.debug("appended at position %d, sequence %d", batch.position, batch.first)
        return recorded

    def fork(self, session_id: str, origin: Life, at: int, actor: str | None) -> Life:
        """Bring a session into being that shares the past of another up to `at`."""
        return write.fork(self._database, self.draft(session_id, None, (), actor), origin, at)

    def adopt(self, batches: Iterable[Batch]) -> tuple[int, int]:
        """Append batches recorded elsewhere as they are; return how many batches and events."""
        if self._read_only:
            raise ReadOnly(self.path)
        return adopt.adopt(self._database, batches, self._durability)

    def draft(
        self, session_id: str, life: Life | None, say: Said | Decision, actor: str | None
    ) -> Draft:
        """Return a draft within the limits of this handle; raises ReadOnly and Closed."""
        if self._read_only:
            raise ReadOnly(self.path)
        draft = Draft(session_id, life, say, self._limits, self._durability, self._clock)
        draft.actor = actor
        return draft

    def flush(self) -> None:
        """Make all that was committed survive a power cut."""
        if not self._read_only:
            self._database.flush()

    # Reading.

    @contextmanager
    def moment(
        self, session_id: str, life: Life | None = None, seq: int | None = None
    ) -> Iterator[Moment]:
        """Yield one session at one moment, all from one snapshot.

        Without a life it is the one that now has the id, or the unborn one. A life that has ended
        is SessionNotFound; use `past` for it.
        """
        with self._database.snapshot() as cursor:
            if life is None:
                life = lives.living(self._database, cursor, session_id)
            elif lives.has_ended(cursor, life):
                raise SessionNotFound(session_id)
            yield Moment(self._database, cursor, life, seq)

    @contextmanager
    def past(self, life: Life | None, seq: int | None) -> Iterator[Moment]:
        """Yield a life at one moment, whether it has ended or not."""
        with self._database.snapshot() as cursor:
            yield Moment(self._database, cursor, life, seq)

    def find(self, session_id: str) -> Life | None:
        """Return the life that now has this id."""
        with self._database.snapshot() as cursor:
            return lives.living(self._database, cursor, session_id)

    def find_uid(self, uid: bytes) -> tuple[Life | None, bool]:
        """Return the life with this uid, and whether it has ended."""
        with self._database.snapshot() as cursor:
            life = lives.by_uid(self._database, cursor, uid)
            return life, life is not None and lives.has_ended(cursor, life)

    def tip(self, life: Life) -> Tip:
        """Return the newest end of a life's log."""
        with self._database.snapshot() as cursor:
            return lives.tip(cursor, life)

    def events(
        self,
        life: Life,
        after: int,
        until: int,
        *,
        name: str | None = None,
        kind: str | None = None,
        reverse: bool = False,
        limit: int = log.PAGE_EVENTS,
    ) -> list[Event]:
        """Return a page of events with `after` < seq <= `until`."""
        with self._database.snapshot() as cursor:
            wanted = Filter(name, kind)
            return log.event_page(
                self._database, cursor, life, after, until, wanted, reverse=reverse, limit=limit
            )

    def history(
        self, life: Life, seq: int, limit: int = log.PAGE_EVENTS
    ) -> tuple[list[Event], int | None]:
        """Return a page of the events of one name, from `seq` backwards, and where it goes on."""
        with self._database.snapshot() as cursor:
            return log.history_page(self._database, cursor, life, seq, limit)

    @property
    def identity(self) -> int:
        """The same number for all handles of a file in this process."""
        return id(self._shared)

    def sessions(
        self, prefix: str, after: tuple[str, int] | None, limit: int, *, ended: bool
    ) -> list[Listed]:
        """Return a page of lives in order of id."""
        with self._database.snapshot() as cursor:
            return log.session_page(self._database, cursor, prefix, after, limit, ended=ended)

    def changes(self, after: int, limit: int = log.PAGE_EVENTS) -> list[Batch]:
        """Return a page of batches in commit order, with all that the chain covers."""
        with self._database.snapshot() as cursor:
            return list(log.batches(self._database, cursor, after, limit))

    def link_at(self, uid: bytes, seq: int) -> bytes | None:
        """Return the link of the batch that holds an event of a life, or None without it."""
        with self._database.snapshot() as cursor:
            life = lives.by_uid(self._database, cursor, uid)
            return None if life is None else log.link_at(cursor, life, seq)

    def position(self) -> int:
        """Return the position of the newest batch, or 0."""
        with self._database.snapshot() as cursor:
            return log.newest_position(cursor)

    # Care.

    def rebuild(self) -> None:
        """Make the present and the checkpoints anew from the log, in one transaction."""
        if self._read_only:
            raise ReadOnly(self.path)
        maintain.rebuild(self._database, self._durability)

    def check_rows(self) -> Iterator[Finding]:
        """Yield what the rows around the log should not be: gaps, strays, wrong pointers."""
        return verify.check_rows(self._database)

    def check_heads(self) -> Iterator[Finding]:
        """Yield the sessions whose newest batch does not continue the one before it."""
        return verify.check_heads(self._database)

    def check_derived(self) -> Iterator[Finding]:
        """Yield what is derived from the log and differs from it."""
        return verify.check_derived(self._database)

    def counts(self) -> Counts:
        """Return how much the file holds."""
        with self._database.snapshot() as cursor:
            return log.counts(cursor)

    def close(self) -> None:
        """Give the file up; the last handle leaves a single file behind."""
        if not self._closed:
            self._closed = True
            self._shared.release()
            _log.debug("closed %s", self.path)


def _microseconds() -> int:
    return time.time_ns() // 1000
