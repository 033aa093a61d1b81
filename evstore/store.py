"""Stores: what you open, one file that holds many sessions."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from evstore import later
from evstore.deadlines import Ttl, lease
from evstore.errors import BadName, Refused, SessionNotFound, Unsupported
from evstore.events import (
    METADATA,
    SESSION_DELETED,
    SESSION_RESTORED,
    Event,
    Writer,
    mark,
    to_microseconds,
)
from evstore.limits import Limits
from evstore.moments import When, position_of
from evstore.session import Session
from evstore.sqlite.database import MEMORY, Durability
from evstore.sqlite.engine import Engine
from evstore.sqlite.lives import Life
from evstore.sqlite.write import Draft
from evstore.transaction import Transaction
from evstore.view import Still

if TYPE_CHECKING:
    from evstore.sqlite.listing import Place

_SCHEMES = ("sqlite", "memory", "files", "redis", "rediss", "redis+cluster", "grpc", "grpcs")
_UID_DIGITS = 32
_UNKNOWN_UID = (
    "is not in this store",
    "look its uid up with 'evstore ls --json', and with --deleted as well",
)


def open(
    target: str | os.PathLike[str],
    *,
    durability: Durability = "full",
    read_only: bool = False,
    create: bool = True,
    limits: Limits = Limits(),
    ttl: Ttl | None = None,
    actor: str | None = None,
    clock: Callable[[], datetime] | None = None,
    fallback: Callable[[Any], Any] | None = None,
) -> "Store":
    """Open a store: a path, `sqlite:path`, or `:memory:`.

    `durability="full"`: what a call has returned survives a power cut; `"normal"`: it survives a
    crash of the process, and a power cut may take the newest suffix. `ttl` is how long sessions
    live that are born here: seconds or a timedelta slide with every use, an aware datetime stays.
    `actor` is who writes unless said otherwise, `clock` returns an aware datetime, and `fallback`
    turns a value that cannot be stored into one that can.

    Raises Unavailable, Unsupported, NotAStore, FromTheFuture and Corrupt.
    """
    if durability not in ("full", "normal"):
        raise Refused(f"durability {durability!r} is unknown: give 'full' or 'normal'")
    if actor is not None:
        limits.check_name("actor", actor)
    now = _system_time if clock is None else lambda: to_microseconds(clock())
    if ttl is not None:
        lease(ttl, now())
    engine = Engine(
        path_of(target),
        durability=durability,
        read_only=read_only,
        create=create,
        limits=limits,
        clock=now,
        ttl=ttl,
    )
    return Store(engine, Writer(limits, fallback, engine.clock), actor)


def _system_time() -> int:
    return time.time_ns() // 1000


def path_of(target: str | os.PathLike[str]) -> str:
    """Return the path that `open` takes a target for, or `:memory:`.

    Raises Unsupported for another scheme.
    """
    if not isinstance(target, str):
        from pathlib import Path  # Whoever gives a path has loaded it.

        return os.path.abspath(Path(target))  # so that no name is mistaken for `:memory:`
    if target in (MEMORY, "memory:"):
        return MEMORY
    scheme, colon, rest = target.partition(":")
    if not colon or scheme not in _SCHEMES:
        return target
    if scheme == "memory":
        raise Unsupported("this version of evstore", "names of stores in memory; give 'memory:'")
    if scheme != "sqlite":
        raise Unsupported("this version of evstore", f"{scheme}: stores; give a path")
    return rest.removeprefix("//")


class Store:
    """One file that holds many sessions; thread-safe, and a context manager that closes it."""

    def __init__(self, engine: Engine, writer: Writer, actor: str | None) -> None:
        self._engine = engine
        self._writer = writer
        self._actor = actor

    # Sessions.

    def session(
        self,
        id: str | None = None,
        *,
        uid: str | None = None,
        create: bool = True,
        ttl: Ttl | None = None,
        metadata: Mapping[str, Any] | None = None,
        actor: str | None = None,
    ) -> Session:
        """Return a handle on a session; nothing is written before its first event.

        Without an id it gets a new one, a UUIDv7. With `create=False` it has to live, or it is
        SessionNotFound. `uid` opens any life, an ended one for reading only. `ttl` is how long it
        lives, told at the next write or `touch`: seconds or a timedelta from its last use on, or an
        aware datetime. `metadata` is recorded with its birth, ahead of what brings that about,
        which does not see it yet; later it is ignored. Raises Refused where it is no mapping.
        """
        if actor is not None:
            self._writer.limits.check_name("actor", actor)
        if ttl is not None:
            lease(ttl, self._engine.clock())
        if uid is not None:
            return self._by_uid(uid, actor, ttl)
        session_id = _uuid7() if id is None else id
        self._writer.limits.check_session_id(session_id)
        if not create and self._engine.find(session_id) is None:
            raise SessionNotFound(session_id)
        metadata = {} if metadata is None else metadata
        if not isinstance(metadata, Mapping):
            raise Refused(f"metadata={metadata!r} is no mapping: give names and their values")
        birth = [self._writer.set(METADATA, *item) for item in metadata.items()]
        return self._handle(session_id, actor, birth=birth, ttl=ttl)

    def _by_uid(self, uid: str, actor: str | None, ttl: Ttl | None) -> Session:
        life, ended = self._engine.find_uid(_uid(uid))
        if life is None:
            raise SessionNotFound(uid, *_UNKNOWN_UID)
        return self._handle(life.shown, actor, life=life, ended=ended, ttl=ttl)

    def _handle(self, session_id: str, actor: str | None, **more: Any) -> Session:
        said_by = self._actor if actor is None else actor
        return Session(self._engine, session_id, self._writer, actor=said_by, **more)

    def sessions(
        self,
        prefix: str = "",
        *,
        where: "Mapping[str, later.listings.Scalar] | None" = None,
        order: "later.listings.Order" = "id",
        after: "later.results.SessionInfo | None" = None,
        limit: int | None = None,
        deleted: bool = False,
    ) -> "Iterator[later.results.SessionInfo]":
        """Yield the living sessions (or the lives that are over) whose id has a prefix.

        They have all the metadata that `where` gives: texts, numbers, truth values and None, as
        they are stored, so 1 is neither True nor 1.0 nor "1". `order` is that of their ids, or
        "updated": the one that changed last comes first, as things stand when the listing begins.
        `after` is the last one seen before, and `limit` how many to yield at most.

        Details are read in pages, and what is no longer wanted by then is passed over; ahead of
        them a listing holds 8 bytes for each session. Raises Refused for another order or value,
        and SessionNotFound where `after` is of another store.
        """
        listings = later.listings
        asked = listings.wanted(prefix, where, order, over=deleted)
        place = None if after is None else self._place(after)
        return iter(()) if asked is None else listings.listing(self._engine, asked, place, limit)

    def _place(self, seen: "later.results.SessionInfo") -> "Place":
        life, _ = self._engine.find_uid(_uid(seen.uid))
        if life is None:
            raise SessionNotFound(seen.uid, *_UNKNOWN_UID)
        return later.listings.place(seen, life)

    def __contains__(self, id: object) -> bool:
        """Tell whether a session with this id lives."""
        return self._living(id) is not None

    def _living(self, id: object) -> Life | None:
        """Return the life that now has this id; what cannot be an id has none."""
        try:
            return self._engine.find(self._writer.limits.check_session_id(id))
        except BadName:
            return None

    def delete(self, id: str) -> Event:
        """End the life of a session and free its id; its log stays, readable by uid.

        Raises SessionNotFound.
        """
        life = self._living(id)
        if life is None:
            raise SessionNotFound(id)
        return self._mark(id, life, SESSION_DELETED)

    def restore(self, uid: str) -> Session:
        """Bring an ended life back and return its session.

        Raises SessionNotFound, and Taken where its id lives again by now.
        """
        life, ended = self._engine.find_uid(_uid(uid))
        if life is None:
            raise SessionNotFound(uid, *_UNKNOWN_UID)
        if not ended:
            raise SessionNotFound(uid, "lives, and needs no restoring", "open it")
        self._mark(life.shown, life, SESSION_RESTORED, revives=True)
        return self._handle(life.shown, None, life=life)

    def _mark(self, session_id: str, life: Life, kind: str, *, revives: bool = False) -> Event:
        terms = self._engine.terms(session_id, self._actor)
        draft = Draft(terms, life, [mark(kind)], revives=revives)
        (recorded,) = self._engine.append([draft])
        return recorded[0]

    def sweep(self) -> int:
        """Record the expiry of every session whose deadline has passed; return how many.

        Nothing needs it: such a session is absent from its deadline on. It puts that on record.
        """
        return self._engine.sweep(self._actor)

    def transaction(self) -> Transaction:
        """Return a transaction: batches of several sessions that are recorded all or none.

        `with store.transaction() as both:` and in it `both.batch(session)` for each session.
        """
        return Transaction(self._engine)

    def watch(self, after: int | Event | None = None) -> "later.watch.Watch":
        """Return an iterator of all events from now on, in commit order, which waits for more.

        `after` is a position, for all batches after it (0 for the whole log), or an event of this
        store, to go on right after it. Raises Refused for what is not there.
        """
        return later.watch.of_store(self._engine, after)

    def search(
        self,
        text: str,
        *,
        session: str | Session | None = None,
        at: When | None = None,
        limit: int = 20,
    ) -> "list[later.results.Hit]":
        """Return up to `limit` messages that hold all words of a text, the best first.

        A session (or its id) is searched as it is now, or was at a moment; without one, all living
        sessions, where each message is found once: in the session that recorded it or, where that
        shows it no more, in the first fork that does. Words with only signs in between, and "words
        in quotes", stand one after the other; a `*` at the end of a word stands for any ending.

        Raises SessionNotFound, NoSuchMoment, and Refused for more than 64 words.
        """
        if type(text) is not str:
            raise Refused(f"{type(text).__name__} cannot be searched for: give text")
        if session is None:
            if at is not None:
                raise Refused(f"at={at!r} is a moment of one session: give session= as well")
            return self._hits(text, None, 0, limit)
        handle = session
        if not isinstance(handle, Session):
            handle = self.session(handle, create=False)
        still = handle.still() if at is None else handle.at(at).place
        assert isinstance(still, Still)  # A session has no other side that stays.
        if still.engine.identity != self._engine.identity:
            raise Refused("only a session of this store can be searched: ask its own store")
        return [] if still.life is None else self._hits(text, still.life, still.seq, limit)

    def _hits(
        self, text: str, life: Life | None, seq: int, limit: int
    ) -> "list[later.results.Hit]":
        found = self._engine.search(text, life, seq, limit)
        return [
            later.results.Hit(match.life.id, match.seq, match.index, match.snippet, match.score)
            for match in found
        ]

    # The file.

    def stats(self) -> "later.results.Stats":
        """Return how much the store holds; reads the whole log once.

        A session counts as ended from its deadline on, swept or not.
        """
        counts = self._engine.counts()
        path = self._engine.path
        wal = f"{path}-wal"
        return later.results.Stats(
            path=path,
            sessions=counts.sessions,
            ended=counts.ended,
            batches=counts.batches,
            events=counts.events,
            text_bytes=counts.text_bytes,
            data_bytes=counts.stored_bytes,
            file_bytes=counts.page_bytes,
            free_bytes=counts.free_bytes,
            wal_bytes=os.path.getsize(wal) if os.path.exists(wal) else 0,
        )

    def backup(
        self,
        path: str | os.PathLike[str],
        *,
        at: int | datetime | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Copy the store into a new file while others go on writing; return its newest position.

        The copy has everything as it was when the copying began; with `at`, a position or an aware
        datetime, the log up to there, and of the deadlines of sessions those of today. It gets its
        name when it has been checked (as by `verify`, and page by page) and is on the disk; cut
        short at any time, nothing is there. `progress` is told how much is done, and of how much.

        Raises Refused where the file exists or the moment does not, Unavailable, Unsupported, and
        Corrupt where the store is damaged.
        """
        until = None if at is None else position_of(self._engine, at)
        return self._engine.backup(os.path.abspath(os.fspath(path)), until, progress)

    def compact(self) -> "later.results.Gain":
        """Encode the log anew as tightly as it goes, and make the file smaller by what that saves.

        It goes on where the last one stopped. Events, seqs, links and every moment of the past stay
        as they are. Others may read and write meanwhile; only at the end, where the file is written
        anew, writers have to wait: about 5 seconds for a GB. Raises ReadOnly, Busy and Unavailable.
        """
        return later.results.Gain(*self._engine.compact())

    def flush(self) -> None:
        """Make every commit so far survive a power cut, whatever its durability."""
        self._engine.flush()

    def close(self) -> None:
        """Close the store; its sessions and views raise Closed from then on."""
        self._engine.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the store."""
        self.close()

    def __repr__(self) -> str:
        """Return which store this is."""
        return f"<evstore.Store {self._engine.path!r}>"

    @property
    def engine(self) -> Engine:
        """The engine below, for `evstore.replay` and `evstore.transfer`."""
        return self._engine

    @property
    def writer(self) -> Writer:
        """What makes bodies within the limits of this store, for `evstore.transfer`."""
        return self._writer


def _uid(uid: str) -> bytes:
    if type(uid) is str and len(uid) == _UID_DIGITS:
        try:
            return bytes.fromhex(uid)
        except ValueError:
            pass
    raise BadName("uid", uid, f"give the {_UID_DIGITS} hexadecimal digits that Session.uid shows")


def _uuid7() -> str:
    """Return a UUIDv7 (RFC 9562): 48 bits of ms since 1970, then version, variant and chance."""
    chance = int.from_bytes(os.urandom(10))
    value = (time.time_ns() // 1_000_000) << 80 | chance
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value & (1 << 128) - 1))
