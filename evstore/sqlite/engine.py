"""The embedded engine's verbs: a page of delegations, which is all that the face knows of it."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evstore import observing
from evstore.chain import Batch
from evstore.deadlines import Lease, Ttl
from evstore.errors import Closed, ReadOnly
from evstore.events import Body, Event
from evstore.limits import Limits
from evstore.sqlite import leases, lives, log, write
from evstore.sqlite.database import Database, Durability
from evstore.sqlite.found import Found
from evstore.sqlite.group import Group, Member, Work
from evstore.sqlite.lives import Life, Tip
from evstore.sqlite.log import Counts
from evstore.sqlite.looking import Looking, glance, living
from evstore.sqlite.poller import newest_position
from evstore.sqlite.quiet import Quiet
from evstore.sqlite.read import Moment
from evstore.sqlite.recorded import Recorded
from evstore.sqlite.schema import Tell
from evstore.sqlite.sharing import open_database, release
from evstore.sqlite.write import Draft, Terms

if TYPE_CHECKING:  # What is needed now and then is imported then, for a quick start.
    from evstore.sqlite.backup import Progress
    from evstore.sqlite.compact import Gain
    from evstore.sqlite.finding import Finding
    from evstore.sqlite.listing import Listed, Place, Wanted
    from evstore.sqlite.search import Match

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
        clock: Callable[[], int],
        ttl: Ttl | None,
    ) -> None:
        self._shared = open_database(path, read_only=read_only, create=create)
        self._durability = durability
        self._read_only = read_only
        self._limits = limits
        self.clock = clock
        self._ttl = ttl
        self._quiet = Quiet()
        self._closed = False
        _log.debug("opened a store, durability %s", durability)

    @property
    def path(self) -> str:
        """The file, or `:memory:`."""
        return self._shared.path

    @property
    def database(self) -> Database:
        """The database that this handle shares with others, until it is closed."""
        if self._closed:
            raise Closed
        return self._shared

    # Writing.

    def terms(
        self,
        session_id: str,
        actor: str | None = None,
        birth: Sequence[Body] = (),
        ttl: Ttl | None = None,
    ) -> Terms:
        """Return what all drafts of one session have in common that go through this handle."""
        limits, durability, clock = self._limits, self._durability, self.clock
        return Terms(session_id, limits, durability, clock, actor, birth, self._ttl, ttl)

    def append(self, drafts: Sequence[Draft]) -> list[Recorded]:
        """Append batches in one transaction, at consecutive positions."""
        if (observer := observing.observer) is not None:
            return observer.append(self, drafts)
        database = self.writable()
        work = write.prepare(database, drafts)
        return self.noted(database.commit(work, self.durability(drafts)))

    def prepare(self, drafts: Sequence[Draft]) -> Work:
        """Do what can be done before the lock; return what is left to do once it is held."""
        return write.prepare(self.writable(), drafts)

    def writable(self) -> Database:
        """Return the database to write to; raises Closed and ReadOnly."""
        if self._closed:
            raise Closed
        if self._read_only:
            raise ReadOnly(self.path)
        return self._shared

    def durability(self, drafts: Sequence[Draft]) -> Durability:
        """Return how durable a commit of drafts has to be: as their strictest handle wants it."""
        if self._durability == "full":
            return "full"
        for draft in drafts:
            if draft.terms.durability == "full":
                return "full"
        return "normal"

    def member(self, work: Work, durability: Durability, tell: Tell) -> Member:
        """Return some work as a member for `submit`; `tell` is told once it is decided."""
        return self.database.member(work, durability, tell)

    @property
    def group(self) -> Group:
        """The group of those who write, to `submit` members to; one for all handles of a file."""
        return self._shared.group

    def noted(self, recorded: list[Recorded]) -> list[Recorded]:
        """Return what was recorded, once it has been logged."""
        if _log.isEnabledFor(logging.DEBUG):
            for batch in recorded:
                _log.debug("appended at position %d, sequence %d", batch.position, batch.first)
        return recorded

    def fork(
        self, session_id: str, origin: Life, at: int, actor: str | None, ttl: Ttl | None
    ) -> Life:
        """Bring a session into being that shares the past of another up to `at`."""
        draft = Draft(self.terms(session_id, actor, ttl=ttl), None, ())
        return write.fork(self.writable(), draft, origin, at)

    def adopt(self, batches: Iterable[Batch], after: int | None = None) -> tuple[int, int]:
        """Append batches recorded elsewhere, after a position if told; return (batches, events)."""
        database = self.writable()
        if after is None:
            self.sweep(None)  # so that an id whose session has expired is free
        from evstore.sqlite import adopt

        return adopt.adopt(database, batches, self._durability, after)

    def touch(self, life: Life, ttl: Ttl | None) -> None:
        """Renew the lease of a session, or give it one."""
        leases.touch(self.writable(), life, ttl, self.clock(), self._durability)

    def sweep(self, actor: str | None) -> int:
        """Record the expiry of every session whose deadline has passed; return how many."""
        return leases.sweep(self.writable(), self.terms("", actor))

    def flush(self) -> None:
        """Make all that was committed survive a power cut."""
        if not self._read_only:
            self.database.flush()

    # Reading.

    def moment(self, session_id: str, life: Life | None = None, *, renews: bool = True) -> Looking:
        """Return a with block that sees one session as it is now, all from one snapshot.

        Without a life it is the one that now has the id, or the unborn one. A life that has ended
        is SessionNotFound, or SessionExpired; use `past` for it. A lease that slides is renewed
        now and then, if it `renews` at all.
        """
        renews = renews and not self._read_only
        return Looking(self.database, session_id, life, self.clock(), renews=renews)

    def glance(self, life: Life, family: int, name: str) -> Found | None:
        """Return a short value without a deadline, where one statement finds it."""
        return self.database.ask(lambda cursor: glance(cursor, life, family, name))

    @contextmanager
    def past(
        self, life: Life | None, seq: int | None, now_us: int | None = None
    ) -> Iterator[Moment]:
        """Yield a life at one moment, whether it has ended or not.

        Variables are absent from their deadlines on: at `now_us`, or at the time of that moment.
        """
        with self.database.snapshot() as cursor:
            yield Moment(self.database, cursor, life, seq, now_us)

    def find(self, session_id: str) -> Life | None:
        """Return the life that now has this id."""
        with self.database.snapshot() as cursor:
            return living(self.database, cursor, session_id, None, self.clock())[0]

    def find_uid(self, uid: bytes) -> tuple[Life | None, bool]:
        """Return the life with this uid, and whether it has ended."""
        with self.database.snapshot() as cursor:
            life = lives.by_uid(self.database, cursor, uid)
            return life, life is not None and lives.standing(cursor, life).is_over(self.clock())

    def lease(self, life: Life) -> Lease | None:
        """Return the lease of a life, if it has one."""
        with self.database.snapshot() as cursor:
            return lives.standing(cursor, life).lease

    def tip(self, life: Life) -> Tip:
        """Return the newest end of a life's log."""
        with self.database.snapshot() as cursor:
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
        with self.database.snapshot() as cursor:
            place = (self.database, cursor, life, after, until)
            return log.event_page(*place, name=name, kind=kind, reverse=reverse, limit=limit)

    def history(
        self, life: Life, seq: int, limit: int = log.PAGE_EVENTS
    ) -> tuple[list[Event], int | None]:
        """Return a page of the events of one name, from `seq` backwards, and where it goes on."""
        with self.database.snapshot() as cursor:
            return log.history_page(self.database, cursor, life, seq, limit)

    @property
    def identity(self) -> int:
        """The same number for all handles of a file in this process."""
        return id(self._shared)

    def session_numbers(
        self, wanted: "Wanted", after: "Place | None", limit: int
    ) -> "tuple[Sequence[int], Place | None]":
        """Return sessions in the order wanted, by id up to `limit`, and where to go on, or None."""
        from evstore.sqlite import listing

        with self.database.snapshot() as cursor:
            return listing.numbers(self.database, cursor, wanted, after, limit, self.clock())

    def session_details(self, wanted: "Wanted", page: Sequence[int]) -> "list[Listed]":
        """Return what is told of a page of sessions, without those no longer wanted."""
        from evstore.sqlite import listing

        with self.database.snapshot() as cursor:
            return listing.details(self.database, cursor, wanted, page, self.clock())

    def changes(self, after: int, limit: int = log.PAGE_EVENTS) -> list[Batch]:
        """Return a page of batches in commit order, with all that the chain covers."""
        with self.database.snapshot() as cursor:
            return list(log.batches(self.database, cursor, after, limit))

    def links(self, after: int, limit: int) -> list[bytes]:
        """Return a page of the links of all batches, in commit order."""
        with self.database.snapshot() as cursor:
            return log.links(cursor, after, limit)

    def keyed(self, life: Life, key: str) -> Batch | None:
        """Return the batch that a life recorded under a key, with all that the chain covers."""
        with self.database.snapshot() as cursor:
            return log.keyed(self.database, cursor, life, key)

    def link_at(self, uid: bytes, seq: int) -> bytes | None:
        """Return the link of the batch that holds an event of a life, or None without it."""
        with self.database.snapshot() as cursor:
            life = lives.by_uid(self.database, cursor, uid)
            return None if life is None else log.link_at(cursor, life, seq)

    def position(self, by_us: int | None = None) -> int:
        """Return the position of the newest batch, or where the log was at a time; 0 without."""
        with self.database.snapshot() as cursor:
            return newest_position(cursor) if by_us is None else log.position_at(cursor, by_us)

    def unchanged_since(self) -> int:
        """Return a time (`time.monotonic_ns`) since when nobody has committed.

        What was read at that time or later is what would be read now.
        """
        return self.database.ask(self._quiet.since)

    # Following.

    def committed(
        self, position: int, seq: int, limit: int = log.PAGE_EVENTS
    ) -> tuple[list[Event], int]:
        """Return a page of the store's events after `seq` of a batch, and the newest position."""
        with self.database.snapshot() as cursor:
            page = log.committed(self.database, cursor, position, seq, limit)
            return page, newest_position(cursor)

    def newest_events(self, limit: int) -> list[Event]:
        """Return the newest events of the store, the oldest of them first."""
        with self.database.snapshot() as cursor:
            return log.newest_events(self.database, cursor, limit)

    def continued(
        self, life: Life, seq: int, limit: int = log.PAGE_EVENTS
    ) -> tuple[list[Event], int]:
        """Return a page of a life's events after `seq`, and the newest position of the store."""
        with self.database.snapshot() as cursor:
            page = log.event_page(self.database, cursor, life, seq, lives.SEQ_MAX, limit=limit)
            return page, newest_position(cursor)

    def first_batch(self, session_id: str, position: int) -> tuple[tuple[Life, int] | None, int]:
        """Return the first life and seq that an id has after a position, and the newest one."""
        with self.database.snapshot() as cursor:
            found = log.first_batch(self.database, cursor, session_id, position)
            return found, newest_position(cursor)

    def wait(self, position: int, timeout_s: float | None, is_over: Callable[[], bool]) -> None:
        """Wait until the store is beyond a position, it `is_over` or closed, or time has passed."""
        self.database.poller.wait(position, timeout_s, lambda: self._closed or is_over())

    def listen(self, listener: Any, position: int, tell: Tell) -> None:
        """Have a listener told once the store is beyond a position, or it has to look again."""
        self.database.poller.listen(listener, position, tell)

    def unlisten(self, listener: Any) -> bool:
        """Let a listener not be told any more; False where it has been."""
        return self._shared.poller.forget(listener)

    def wake(self) -> None:
        """Let all who wait look again whether it is over for them."""
        self._shared.poller.wake()

    def check(self) -> None:
        """Raise Closed or Unavailable where the store cannot be used any more."""
        self.database.check()

    def search(self, text: str, life: Life | None, seq: int, limit: int) -> list["Match"]:
        """Return the best matches in a life at `seq`, or without one in all living sessions."""
        from evstore.sqlite import search, wording

        database, query = self.database, wording.expression(text)
        if not query or limit < 1:
            return []
        if not self._read_only:
            search.catch_up(database)
        return search.search(database, query, life, seq, limit, self.clock())

    # Care.

    def rebuild(self, life: Life | None = None) -> "list[Finding]":
        """Make what is derived what the log says, of all lives or of one; return what was not."""
        from evstore.sqlite import maintain

        return maintain.rebuild(self.writable(), life, self._durability)

    def compact(self) -> "Gain":
        """Encode the log anew, and give back the space that it saves."""
        from evstore.sqlite import compact

        return compact.compact(self.writable(), self._durability)

    def backup(self, path: str, until: int | None, progress: "Progress | None") -> int:
        """Copy the store, or its batches up to a position, into a new file; return its end."""
        from evstore.sqlite import backup

        return backup.backup(self.database, path, until, progress, self.clock())

    def check_rows(self) -> "Iterator[Finding]":
        """Yield what the rows around the log should not be: gaps, strays, wrong pointers."""
        from evstore.sqlite import verify

        return verify.check_rows(self.database)

    def check_heads(self) -> "Iterator[Finding]":
        """Yield the sessions whose newest batch does not continue the one before it."""
        from evstore.sqlite import verify

        return verify.check_heads(self.database)

    def check_derived(self) -> "Iterator[Finding]":
        """Yield what is derived from the log and differs from it."""
        from evstore.sqlite import verify

        return verify.check_derived(self.database)

    def counts(self) -> Counts:
        """Return how much the file holds."""
        with self.database.snapshot() as cursor:
            return log.counts(cursor, self.clock())

    def close(self) -> None:
        """Give the file up; the last handle leaves a single file behind."""
        if not self._closed:
            self._closed = True
            self.wake()
            release(self._shared)
            _log.debug("closed a store")
