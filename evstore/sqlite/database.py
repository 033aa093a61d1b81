"""One file in this process: its writing connection, its readers, and the lock between them.

Nothing else opens a store file. SQLite's locks belong to the process, and opening and closing the
file by any other means would drop them, so all handles of a file share one `Database`.
"""

import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import apsw

from evstore.errors import Busy, Closed, NotAStore, ReadOnly, Unavailable
from evstore.sqlite import schema
from evstore.sqlite.connect import open_memory, open_reader, open_writer
from evstore.sqlite.failures import is_fatal, translate
from evstore.sqlite.files import check_place, create_private

Cursor = schema.Cursor
Columns = schema.Columns
Durability = Literal["full", "normal"]
MEMORY = ":memory:"
WAIT_S = 30.0  # one deadline for everything a write may wait for
STILL_S = 1.0  # how long a process fork waits for what is under way
_READERS_KEPT = 8
_HEADER_BYTES = 100  # of every SQLite file


class Database:
    """The connections of one file, shared by every handle that this process has on it."""

    def __init__(self, path: str, *, writable: bool) -> None:
        self.path = path
        self.position = 0  # of the newest batch that the caches below have seen
        self.caches: dict[str, dict[Any, Any]] = {}
        self._lock = threading.Lock()
        self._connecting = threading.Lock()
        self._readers: set[Cursor] = set()
        self._idle: list[Cursor] = []
        self._resting: list[Cursor] = []  # while the process forks
        self._locks_held: list[threading.Lock] = []
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
    def snapshot(self) -> Iterator[Cursor]:
        """Yield a cursor whose statements all see the same moment; for short reads."""
        cursor = self._hold_writer() if self.path == MEMORY else self._take_reader()
        try:
            cursor.execute("begin")
            yield cursor
        except apsw.Error as error:
            raise translate(error, self.path, WAIT_S) from error
        finally:
            if cursor.connection.in_transaction:  # Some errors have already ended it.
                cursor.execute("rollback")
            if self.path == MEMORY:
                self._lock.release()
            else:
                self._give_back(cursor)

    @contextmanager
    def writing(self, durability: Durability) -> Iterator[Cursor]:
        """Yield the writing cursor inside one transaction; it commits unless the block raises."""
        cursor = self._hold_writer()
        try:
            self._set_synchronous(cursor, durability)
            cursor.execute("begin immediate")
            yield cursor
            cursor.execute("commit")
        except apsw.Error as error:
            self._abandon(cursor, error)
            raise translate(error, self.path, WAIT_S) from error
        except BaseException as error:
            self._abandon(cursor, error)
            raise
        finally:
            self._lock.release()

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
        self._hold()
        try:
            if self._writer is None:
                memory = self.path == MEMORY
                self._writer = (
                    open_memory() if memory else open_writer(self.path, self._keep_waiting)
                )
        except apsw.Error as error:
            raise translate(error, self.path, WAIT_S) from error
        finally:
            self._lock.release()

    def acquire(self) -> None:
        """Count one more handle."""
        self._users += 1

    def release(self) -> None:
        """Count one handle less; the last one leaves a single file behind."""
        with _opening:  # so that nobody finds it open while it closes
            self._users -= 1
            if self._users == 0 and self._closed is None:
                _forget(self)
                self._close("the store is closed")

    def hold_still(self) -> None:
        """Wait until nothing is under way, because a forked child would inherit it half done."""
        deadline = time.monotonic() + STILL_S
        for lock in (self._lock, self._connecting):
            if lock.acquire(timeout=STILL_S):
                self._locks_held.append(lock)
        while len(self._resting) < len(self._readers) and time.monotonic() < deadline:
            cursor = self._idle_reader()
            if cursor is not None:
                self._resting.append(cursor)
            else:
                time.sleep(0.0002)

    def move_on(self) -> None:
        """Go on in the parent, where a process fork changes nothing."""
        self._idle += self._resting
        self._resting.clear()
        while self._locks_held:
            self._locks_held.pop().release()

    def cross_fork(self) -> bool:
        """Become unusable in a forked child; tell whether the file may be opened anew there.

        It may, once all that was inherited is closed: SQLite keeps its locks per process and file,
        and a new connection would rely on locks that only the parent holds. Closing them is safe
        only where nothing was under way; it touches neither the log nor the parent's locks.
        """
        self._closed = "this handle belongs to the parent process"
        still = [self._lock, self._connecting] == self._locks_held and self._readers == {
            *self._resting
        }
        if still:
            for cursor in [*self._resting, *([self._writer] if self._writer else [])]:
                cursor.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                cursor.connection.close()
        return still

    @property
    def usable(self) -> bool:
        """Whether another handle may share this object."""
        return self._closed is None and self._failed is None

    def _close(self, reason: str) -> None:
        with self._lock:
            self._closed = reason
            self.caches.clear()
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
            self._close_reader(cursor)

    def _close_reader(self, cursor: Cursor) -> None:
        self._readers.discard(cursor)
        cursor.connection.close()

    def _check(self) -> None:
        if self._failed is not None:
            raise Unavailable(self.path, self._failed)
        if self._closed is not None:
            raise Closed(self._closed)

    def _hold(self) -> None:
        """Take the lock, within the deadline that the wait for other processes shares."""
        # A lock that a thread of the parent held at a process fork is never released: look first.
        self._check()
        started = time.monotonic()
        if not self._lock.acquire(timeout=WAIT_S):
            raise Busy(round(1000 * WAIT_S))
        self._deadline = started + WAIT_S

    def _hold_writer(self) -> Cursor:
        """Take the lock and return the writing cursor; whoever gets it releases the lock."""
        self._hold()
        try:
            self._check()
            if self._writer is None:
                raise ReadOnly(self.path)
        except BaseException:
            self._lock.release()
            raise
        return self._writer

    def _take_reader(self) -> Cursor:
        self._check()
        return self._idle_reader() or self._connect_reader()

    def _abandon(self, cursor: Cursor, error: BaseException) -> None:
        """Roll back; where the outcome of a commit is unknown, close every handle of the file."""
        self.caches.clear()
        self.position = 0
        with suppress(apsw.Error):
            if cursor.connection.in_transaction:
                cursor.execute("rollback")
        if is_fatal(error):
            self._failed = f"writing to it failed ({error}): check the disk, then open it again"
            self._writer = None
            with suppress(apsw.Error):
                # What the log holds is for the next opening to find out: leave it as it is.
                cursor.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                cursor.connection.close(force=True)

    def _set_synchronous(self, cursor: Cursor, durability: Durability) -> None:
        if self._synchronous != durability:
            cursor.execute(f"pragma synchronous={durability}")
            self._synchronous = durability

    def _keep_waiting(self, attempt: int) -> bool:
        """Wait a moment for another process; SQLite asks after every refusal."""
        if time.monotonic() >= self._deadline:
            return False
        jitter = random.uniform(0.2, 1.0)  # noqa: S311 - no secret
        time.sleep(jitter * min(0.0005 * (attempt + 1), 0.01))
        return True

    def _connect_reader(self) -> Cursor:
        with self._connecting:
            try:
                cursor = open_reader(self.path, round(1000 * WAIT_S), immutable=self._immutable)
            except apsw.Error as error:
                raise translate(error, self.path, WAIT_S) from error
            self._readers.add(cursor)
            return cursor

    def _open_first_reader(self) -> None:
        """Open for reading only; media that allow no shared memory are read as they lie there."""
        try:
            self._check_as_reader()
        except (Unavailable, ReadOnly):
            if os.path.exists(f"{self.path}-wal") and os.path.getsize(f"{self.path}-wal"):
                reason = "it was not closed cleanly: open it once where it can be written"
                raise Unavailable(self.path, reason) from None
            self._immutable = True
            self._check_as_reader()

    def _check_as_reader(self) -> None:
        cursor = self._connect_reader()
        try:
            schema.check(cursor, self.path)
        except apsw.Error as error:
            self._close_reader(cursor)
            raise translate(error, self.path, WAIT_S) from error
        except BaseException:
            self._close_reader(cursor)
            raise
        self._give_back(cursor)

    def _give_back(self, cursor: Cursor) -> None:
        if self.usable and len(self._idle) < _READERS_KEPT:
            self._idle.append(cursor)
            if self._closed is not None:  # Meanwhile, in another thread.
                self._close_idle()
        elif cursor in self._readers:
            self._close_reader(cursor)


_open: dict[tuple[int, int], Database] = {}
_memory: "weakref.WeakSet[Database]" = weakref.WeakSet()
_opening = threading.Lock()
_forking: list[int] = []  # the thread that forks this process while all files are still
_inherited: dict[tuple[int, int], Database] = {}  # what was under way when this child was forked


def _forget(closing: Database) -> None:
    for identity, database in list(_open.items()):
        if database is closing:
            del _open[identity]


def open_database(path: str, *, read_only: bool, create: bool) -> Database:
    """Return the database of a path, shared with all other handles of this process.

    Raises Unavailable, Unsupported, NotAStore, FromTheFuture and Corrupt.
    """
    if path == MEMORY:
        database = Database(MEMORY, writable=True)
        database.acquire()
        _memory.add(database)
        return database
    path = os.path.realpath(path)
    with _opening:
        check_place(path)
        if not os.path.exists(path):
            if read_only or not create:
                raise Unavailable(path, "there is no such file: check the path, or create it")
            create_private(path)
        size_bytes = os.path.getsize(path)
        if size_bytes == 0 and (read_only or not create):
            raise NotAStore(path)
        # SQLite would take a file without a whole header for a blank one. Only a creation that was
        # cut short leaves such a file, and its journal to take it back.
        if 0 < size_bytes < _HEADER_BYTES and not os.path.exists(f"{path}-journal"):
            raise NotAStore(path)
        found = os.stat(path)
        if found.st_nlink > 1:
            reason = f"it has {found.st_nlink} hard links, and each would get a log of its own"
            raise Unavailable(path, reason)
        identity = (found.st_dev, found.st_ino)
        if identity in _inherited:
            reason = "this process was forked while the store was in use: fork first, or use spawn"
            raise Unavailable(path, reason)
        known = _open.get(identity)
        if known is None or not known.usable:
            database = _open[identity] = Database(path, writable=not read_only)
        else:
            database = known
            if not read_only:
                database.make_writable()
        database.acquire()
        return database


def _before_fork() -> None:
    if _opening.acquire(timeout=STILL_S):
        _forking.append(threading.get_ident())
        for database in _open.values():
            database.hold_still()


def _after_fork_in_parent() -> None:
    if threading.get_ident() in _forking:
        for database in _open.values():
            database.move_on()
        _forking.clear()
        _opening.release()


def _after_fork_in_child() -> None:
    global _opening  # noqa: PLW0603 - a thread of the parent may hold it for ever
    _opening = threading.Lock()
    still = threading.get_ident() in _forking
    _forking.clear()
    _inherited.update(
        (identity, database)
        for identity, database in _open.items()
        if not (database.cross_fork() and still)
    )
    for database in _memory:
        database.cross_fork()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
