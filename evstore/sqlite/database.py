"""One file in this process: its writing connection, its readers, and the lock between them.

Nothing else opens a store file. SQLite's locks belong to the process, and opening and closing the
file by any other means would drop them, so all handles of a file share one `Database`.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import apsw

from evstore.errors import Busy, Closed, NotAStore, ReadOnly, Unavailable, Unsupported
from evstore.sqlite import schema
from evstore.sqlite.failures import is_fatal, translate
from evstore.sqlite.files import check_place, create_private, sync_folder
from evstore.sqlite.pages import CHECKSUM_BYTES, checksum_vfs

Cursor = schema.Cursor
Columns = schema.Columns
Durability = Literal["full", "normal"]
MEMORY = ":memory:"
WAIT_S = 30.0  # one deadline for everything a write may wait for
WAL_PAGES = 1000  # the log is copied into the file from here on
WAL_BYTES_MAX = 16 << 20  # and cut back to this once it was larger
_READERS_KEPT = 8

_HARDENING = (
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
)
_LIMITS = (
    (apsw.SQLITE_LIMIT_SQL_LENGTH, 100_000),
    (apsw.SQLITE_LIMIT_LENGTH, 1 << 30),
    (apsw.SQLITE_LIMIT_ATTACHED, 0),
    (apsw.SQLITE_LIMIT_EXPR_DEPTH, 100),
    (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 10),
)


class Database:
    """The connections of one file, shared by every handle that this process has on it."""

    def __init__(self, path: str, *, writable: bool) -> None:
        self.path = path
        self.position = 0  # of the newest batch that the caches below have seen
        self.caches: dict[str, dict[Any, Any]] = {}
        self._lock = threading.Lock()
        self._idle: list[Cursor] = []
        self._writer: Cursor | None = None
        self._synchronous = ""
        self._deadline = 0.0
        self._users = 0
        self._closed: str | None = None
        self._failed: str | None = None
        self._immutable = False
        if writable:
            self.make_writable()
        else:
            self._open_first_reader()

    # What a handle does.

    @contextmanager
    def reading(self) -> Iterator[Cursor]:
        """Yield a cursor for short reads; every statement of it sees the newest commit."""
        if self.path == MEMORY:
            with self._held(), self._translated():
                yield self._checked_writer()
            return
        self._check()
        with self._translated():
            cursor = self._idle_reader() or self._connect(writable=False)
            try:
                yield cursor
            finally:
                self._give_back(cursor)

    @contextmanager
    def snapshot(self) -> Iterator[Cursor]:
        """Yield a cursor whose statements all see the same moment."""
        with self.reading() as cursor:
            cursor.execute("begin")
            try:
                yield cursor
            finally:
                if cursor.connection.in_transaction:  # Some errors have already ended it.
                    cursor.execute("rollback")

    @contextmanager
    def writing(self, durability: Durability) -> Iterator[Cursor]:
        """Yield the writing cursor inside one transaction; it commits unless the block raises."""
        with self._held(), self._translated():
            cursor = self._checked_writer()
            self._set_synchronous(cursor, durability)
            cursor.execute("begin immediate")
            try:
                yield cursor
                cursor.execute("commit")
            except BaseException as error:
                self._abandon(cursor, error)
                raise

    def flush(self) -> None:
        """Make every commit so far survive a power cut: a full commit carries the others along."""
        with self.writing("full") as cursor:
            # Writing the same number dirties a page, and so makes a commit that is synced.
            cursor.execute(f"pragma user_version={schema.version()}")

    def cache(self, name: str, entries_max: int = 10_000) -> dict[Any, Any]:
        """Return a cache that is dropped whenever a transaction is abandoned, and when full."""
        cache = self.caches.setdefault(name, {})
        if len(cache) > entries_max:
            cache.clear()
        return cache

    # How it comes to be, and ends.

    def make_writable(self) -> None:
        """Open the writing connection, creating the format in a blank file."""
        with self._held(), self._translated():
            if self._writer is None:
                self._writer = self._connect(writable=True)

    def acquire(self) -> None:
        """Count one more handle."""
        self._users += 1

    def release(self) -> None:
        """Count one handle less; the last one leaves a single file behind."""
        self._users -= 1
        if self._users == 0 and self._closed is None:
            self._close("the store is closed")

    def cross_fork(self) -> None:
        """Make this object unusable in a forked child, without touching the parent's locks."""
        self._closed = "this handle belongs to the parent process"

    @property
    def usable(self) -> bool:
        """Whether another handle may share this object."""
        return self._closed is None and self._failed is None

    def _close(self, reason: str) -> None:
        with self._held():
            self._closed = reason
            self._close_idle()
            if self._writer is not None:  # It comes last: it folds the WAL into the file.
                self._writer.connection.close()
            self._writer = None

    def _idle_reader(self) -> Cursor | None:
        with suppress(IndexError):  # Another thread may take the last one at any moment.
            return self._idle.pop()
        return None

    def _close_idle(self) -> None:
        while (cursor := self._idle_reader()) is not None:
            cursor.connection.close()

    def _check(self) -> None:
        if self._failed is not None:
            raise Unavailable(self.path, self._failed)
        if self._closed is not None:
            raise Closed(self._closed)

    def _checked_writer(self) -> Cursor:
        self._check()
        if self._writer is None:
            raise ReadOnly(self.path)
        return self._writer

    @contextmanager
    def _held(self) -> Iterator[None]:
        # A lock that a thread of the parent held at a process fork is never released: look first.
        self._check()
        started = time.monotonic()
        if not self._lock.acquire(timeout=WAIT_S):
            raise Busy(round(1000 * WAIT_S))
        try:
            self._deadline = started + WAIT_S
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise translate(error, self.path, WAIT_S) from error

    def _abandon(self, cursor: Cursor, error: BaseException) -> None:
        """Roll back; where the outcome of a commit is unknown, close every handle of the file."""
        self.caches.clear()
        self.position = 0
        with suppress(apsw.Error):
            if cursor.connection.in_transaction:
                cursor.execute("rollback")
        if is_fatal(error):
            self._failed = f"writing to it failed ({error}): check the disk, then open it again"
            with suppress(apsw.Error):
                cursor.connection.close(force=True)

    def _set_synchronous(self, cursor: Cursor, durability: Durability) -> None:
        if self._synchronous != durability:
            cursor.execute(f"pragma synchronous={durability}")
            self._synchronous = durability

    def _keep_waiting(self, attempt: int) -> bool:
        """Wait a moment for another process; SQLite asks after every refusal."""
        if time.monotonic() >= self._deadline:
            return False
        time.sleep(random.uniform(0.2, 1.0) * min(0.0005 * (attempt + 1), 0.01))  # noqa: S311 - jitter
        return True

    # Connections.

    def _connect(self, *, writable: bool) -> Cursor:
        if self.path == MEMORY:
            connection = apsw.Connection(MEMORY)
            connection.cursor().execute("begin immediate")
            schema.create(connection.cursor())
            connection.cursor().execute("commit")
            return self._harden(connection)
        if writable:
            return self._connect_writer()
        flags = apsw.SQLITE_OPEN_READONLY
        name = self.path
        if self._immutable:
            flags |= apsw.SQLITE_OPEN_URI
            name = f"file:{_quoted(self.path)}?immutable=1"
        connection = apsw.Connection(name, flags=flags, vfs=checksum_vfs())
        connection.set_busy_timeout(round(1000 * WAIT_S))
        return self._harden(connection)

    def _connect_writer(self) -> Cursor:
        connection = apsw.Connection(
            self.path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=checksum_vfs()
        )
        connection.set_busy_handler(self._keep_waiting)
        cursor = connection.cursor()
        # EXTRA until the switch to WAL is done: it syncs the folder after deleting a rollback
        # journal, without which a power cut could bring an older, empty file back.
        cursor.execute("pragma synchronous=extra")
        if sys.platform == "darwin":  # fsync alone does not reach the disk there
            cursor.execute("pragma fullfsync=on; pragma checkpoint_fullfsync=on")
        if schema.is_blank(cursor):
            self._create(connection, cursor)
        schema.check(cursor, self.path)
        if checksum_vfs() == "" and connection.reserve_bytes("main", -1) == CHECKSUM_BYTES:
            capability = "page checksums, without which a write would damage the file"
            raise Unsupported("this build of apsw", f"{capability}: install apsw from PyPI")
        if cursor.execute("pragma journal_mode=wal").get != "wal":
            raise Unavailable(self.path, "its folder does not allow write-ahead logging")
        cursor.execute(f"pragma journal_size_limit={WAL_BYTES_MAX}").fetchall()
        connection.wal_autocheckpoint(WAL_PAGES)
        return self._harden(connection)

    def _create(self, connection: apsw.Connection, cursor: Cursor) -> None:
        if checksum_vfs():
            connection.reserve_bytes("main", CHECKSUM_BYTES)
        cursor.execute("begin immediate")
        try:
            if schema.is_blank(cursor):  # Nobody else was faster.
                schema.create(cursor)
            cursor.execute("commit")
        except BaseException:
            if connection.in_transaction:  # Some errors have already ended it.
                cursor.execute("rollback")
            raise
        sync_folder(self.path)

    def _open_first_reader(self) -> None:
        """Open for reading only; media that allow no shared memory are read as they lie there."""
        try:
            with self._translated():
                cursor = self._connect(writable=False)
                schema.check(cursor, self.path)
        except Unavailable:
            if os.path.exists(f"{self.path}-wal") and os.path.getsize(f"{self.path}-wal"):
                reason = "it was not closed cleanly: open it once where it can be written"
                raise Unavailable(self.path, reason) from None
            self._immutable = True
            with self._translated():
                cursor = self._connect(writable=False)
                schema.check(cursor, self.path)
        self._give_back(cursor)

    def _harden(self, connection: apsw.Connection) -> Cursor:
        for option, setting in _HARDENING:
            connection.config(option, setting)
        for limit, bound in _LIMITS:
            connection.limit(limit, bound)
        cursor = connection.cursor()
        cursor.execute("pragma cell_size_check=on; pragma mmap_size=0").fetchall()
        return cursor

    def _give_back(self, cursor: Cursor) -> None:
        if self._closed is None and self._failed is None and len(self._idle) < _READERS_KEPT:
            self._idle.append(cursor)
            if self._closed is not None:  # Meanwhile, in another thread.
                self._close_idle()
        elif self._closed is None or "parent" not in self._closed:
            cursor.connection.close()


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


_open: dict[tuple[int, int], Database] = {}
_opening = threading.Lock()
_inherited: list[Database] = []  # kept alive in a forked child: closing would disturb the parent


def open_database(path: str, *, read_only: bool, create: bool) -> Database:
    """Return the database of a path, shared with all other handles of this process.

    Raises Unavailable, Unsupported, NotAStore, FromTheFuture and Corrupt.
    """
    if path == MEMORY:
        database = Database(MEMORY, writable=True)
        database.acquire()
        return database
    path = os.path.realpath(path)
    with _opening:
        check_place(path)
        if not os.path.exists(path):
            if read_only or not create:
                raise Unavailable(path, "there is no such file: check the path, or create it")
            create_private(path)
        elif os.path.getsize(path) == 0 and (read_only or not create):
            raise NotAStore(path)
        found = os.stat(path)
        if found.st_nlink > 1:
            reason = f"it has {found.st_nlink} hard links, and each would get a log of its own"
            raise Unavailable(path, reason)
        identity = (found.st_dev, found.st_ino)
        known = _open.get(identity)
        if known is None or not known.usable:
            database = _open[identity] = Database(path, writable=not read_only)
        else:
            database = known
            if not read_only:
                database.make_writable()
        database.acquire()
        return database


def _after_fork_in_child() -> None:
    global _opening  # noqa: PLW0603 - the parent's lock may be held for ever
    _opening = threading.Lock()
    for database in _open.values():
        database.cross_fork()
        _inherited.append(database)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
