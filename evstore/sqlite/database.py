"""One file in this process: its writing connection, its readers, and the lock between writers.

Ctrl-C may interrupt the main thread anywhere, between any two calls. What a write has begun is then
told from facts: a lock that can be released was held, and a transaction that is open was not
committed. `take_back` undoes both.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import NoReturn, TypeVar

import apsw

from evstore.errors import Busy, Closed, EvstoreError, ReadOnly, Unavailable
from evstore.sqlite import schema
from evstore.sqlite.caches import Caches
from evstore.sqlite.connect import open_memory, open_writer
from evstore.sqlite.failures import Foreign, is_fatal, is_foreign, translate
from evstore.sqlite.group import Group, Member, Work
from evstore.sqlite.poller import Poller
from evstore.sqlite.readers import Readers
from evstore.sqlite.wal import Wal

Cursor = schema.Cursor
Columns = schema.Columns
Durability = schema.Durability
Result = TypeVar("Result")
MEMORY = ":memory:"
WAIT_S = 30.0  # one deadline for everything a write may wait for
STILL_S = 1.0  # how long a process fork, or the end, waits for what is under way


class Database:
    """The connections of one file, shared by every handle that this process has on it."""

    def __init__(self, path: str, *, writable: bool) -> None:
        self.path = path
        caches = Caches()
        self.cache, self.current, self.forget = caches.kept, caches.current, caches.forget
        self._outdate = caches.current.outdate
        self._version = -1  # of the file, as of the newest commit of this process
        self._lock = threading.RLock()  # which knows its thread; nobody takes it twice
        self.readers = Readers(path, WAIT_S, self.check)
        self._rests = False  # while the process forks
        self._writer: Cursor | None = None
        self._wal: Wal | None = None
        self._synchronous = ""
        self._deadline = 0.0
        self.poller = Poller(self.ask)
        self.group = Group(self.begin, self.finish, self.give_up, self.take_back, self.forget)
        self.users = 0  # handles, counted by who opens and closes them
        self._closed: str | None = None
        self._failed: str | None = None
        if writable:
            self.make_writable()
        else:
            self.readers.find_out()

    # What a handle does.

    def snapshot(self) -> AbstractContextManager[Cursor]:
        """Return a cursor for a with block whose statements all see the same moment."""
        return self._snapshot_in_memory() if self.path == MEMORY else Snapshot(self)

    @contextmanager
    def _snapshot_in_memory(self) -> Iterator[Cursor]:
        """Yield the only cursor there is, while nobody writes."""
        try:
            cursor = self._hold_writer(WAIT_S, time.monotonic())
        except BaseException as error:
            self._undo_interrupted(error)
            raise
        try:
            cursor.execute("begin")
            yield cursor
        except (apsw.Error, UnicodeDecodeError) as error:
            if is_foreign(error):
                raise translate(error, self.path, WAIT_S) from error
            raise
        finally:
            try:
                if cursor.connection.in_transaction:  # Some errors have already ended it.
                    cursor.execute("rollback")
            finally:
                self._lock.release()

    def ask(self, question: Callable[[Cursor], Result]) -> Result:
        """Return the answer to a question of one statement; it costs less than a snapshot."""
        if self.path == MEMORY:
            with self.snapshot() as cursor:
                return question(cursor)
        cursor = self.readers.take()
        try:
            return question(cursor)
        except (apsw.Error, UnicodeDecodeError) as error:
            raise self.translated(error) from error
        finally:
            self.readers.give_back(cursor)

    @contextmanager
    def writing(
        self, durability: Durability | Callable[[], Durability], wait_s: float | None = None
    ) -> Iterator[Cursor]:
        """Yield the writing cursor inside one transaction; it commits unless the block raises.

        A function that says the durability is asked once the lock is held. Raises Busy where others
        hold that for longer than `wait_s`, by default `WAIT_S`.
        """
        wait_s = WAIT_S if wait_s is None else wait_s
        try:
            cursor = self.begin(durability, wait_s, time.monotonic())
            try:
                yield cursor
            except Exception as error:  # noqa: BLE001 - it is raised again
                self.give_up(cursor, error)
            self.finish(cursor)
        except BaseException as error:
            self._undo_interrupted(error)
            raise

    def commit(self, work: Callable[[Cursor], Result], durability: Durability) -> Result:
        """Do some work in a transaction that callers at the same time share; return its result.

        Work that raises takes its own changes back and nobody else's. It may be done more than
        once, and by another thread. Raises Busy, Unavailable, and what the work raises.
        """
        self.check()
        result: Result = self.group.commit(work, durability, WAIT_S)
        return result

    def member(self, work: Work, durability: Durability, tell: schema.Tell) -> Member:
        """Return the work of a task as a member for the group; its event loop is told by `tell`."""
        self.check()
        return Member(work, durable=durability == "full", wait_s=WAIT_S, tell=tell)

    def flush(self) -> None:
        """Make every commit so far survive a power cut: a full commit carries the others along."""
        with self.writing("full") as cursor:
            # Writing the same number dirties a page, and so makes a commit that is synced.
            version = cursor.execute("pragma user_version").get
            cursor.execute(f"pragma user_version={version}")

    # How it comes to be, and ends.

    def make_writable(self) -> None:
        """Open the writing connection, creating the format in a blank file."""
        self._hold(WAIT_S, time.monotonic())
        try:
            self.readers.look_anew()
            if self._writer is None:
                if self.path == MEMORY:
                    self._writer = open_memory()
                else:
                    self._writer = open_writer(self.path, self._keep_waiting)
                    self._wal = Wal(self._writer)
                self._data_version = self._writer.connection.data_version
        except (apsw.Error, UnicodeDecodeError) as error:
            raise translate(error, self.path, WAIT_S) from error
        finally:
            self._lock.release()

    def close(self) -> None:
        """Give up all connections; the last process to do so leaves a single file behind."""
        if self._closed is not None:  # In a forked child nobody releases the lock.
            return
        with self._lock:
            self._closed = "the store is closed"
            self.forget()
            self.group.end()
            self.readers.end(STILL_S)
            if self._writer is not None:  # It comes last: it folds the WAL into the file.
                self._writer.connection.close()
            self._writer = None

    def hold_still(self) -> None:
        """Wait until nothing is under way, because a forked child would inherit it half done."""
        deadline = time.monotonic() + STILL_S
        self._rests = self._lock.acquire(timeout=STILL_S)
        self.readers.rest(deadline)

    def move_on(self) -> None:
        """Go on in the parent, where a process fork changes nothing."""
        self.readers.go_on()
        if self._rests:
            self._rests = False
            self._lock.release()

    def cross_fork(self) -> bool:
        """Become unusable in a forked child; tell whether the file may be opened anew there.

        It may, once all that was inherited is closed: SQLite keeps its locks per process and file,
        and a new connection would rely on locks that only the parent holds. Closing them is safe
        only where nothing was under way; it touches neither the log nor the parent's locks.
        """
        self._closed = "this handle belongs to the parent process"
        self.poller = Poller(self.ask)  # Threads of the parent may hold the lock of the old.
        readers = self.readers.resting
        if not self._rests or readers is None or self._is_writing():
            return False
        for cursor in [*readers, *([self._writer] if self._writer else [])]:
            cursor.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            cursor.connection.close()
        return True

    @property
    def usable(self) -> bool:
        """Whether another handle may share this object."""
        return self._closed is None and self._failed is None

    def check(self) -> None:
        """Raise Closed or Unavailable where it is not usable any more."""
        if self._failed is not None:
            raise Unavailable(self.path, self._failed)
        if self._closed is not None:
            raise Closed(self._closed)

    def _hold(self, wait_s: float, since_s: float) -> None:
        """Take the lock, within the deadline that the wait for other processes shares."""
        if not self._lock.acquire(blocking=False):
            # What a thread of the parent held at a process fork is never released: look first.
            self.check()
            left_s = since_s + wait_s - time.monotonic()
            if not self._lock.acquire(timeout=max(left_s, 0.0)):
                raise Busy(round(1000 * (time.monotonic() - since_s)))
        if self._closed is None and self._is_writing():  # This very thread, and waits for itself.
            self._lock.release()
            raise Busy(0)
        self._deadline = since_s + wait_s

    def _is_writing(self) -> bool:
        return self._writer is not None and self._writer.connection.in_transaction

    def _hold_writer(self, wait_s: float, since_s: float) -> Cursor:
        """Take the lock and return the writing cursor; whoever gets it releases the lock."""
        self._hold(wait_s, since_s)
        if self._writer is None or self._closed is not None or self._failed is not None:
            self._lock.release()
            self.check()
            raise ReadOnly(self.path)
        return self._writer

    def _abandon(self, cursor: Cursor, error: BaseException) -> None:
        """Roll back; where the outcome of a commit is unknown, close every handle of the file."""
        self.forget()
        with suppress(apsw.Error):
            if cursor.connection.in_transaction:
                cursor.execute("rollback")
        if is_fatal(error):
            self._failed = f"writing to it failed ({error}): check the disk, then open it again"
            self._writer = None
            self.readers.end(0.0)
            with suppress(apsw.Error):
                # What the log holds is for the next opening to find out: leave it as it is.
                cursor.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                cursor.connection.close(force=True)

    def begin(
        self, durability: Durability | Callable[[], Durability], wait_s: float, since_s: float
    ) -> Cursor:
        """Take the lock and begin a write transaction; `finish` or `give_up` has to follow.

        It waits for `wait_s` from `since_s` on, a time of `time.monotonic`.
        """
        cursor = self._hold_writer(wait_s, since_s)
        try:
            self._set_synchronous(cursor, durability() if callable(durability) else durability)
            cursor.execute("begin immediate")
            if self._data_version() != self._version:
                self._outdate()
        except apsw.BusyError as error:  # Nothing has changed.
            self._lock.release()
            raise translate(error, self.path, time.monotonic() - since_s) from error
        except Exception as error:  # noqa: BLE001 - it is raised again
            self.give_up(cursor, error)
        return cursor

    def finish(self, cursor: Cursor) -> None:
        """Commit and release the lock; raises Unavailable where the disk fails."""
        try:
            cursor.execute("commit")
        except Exception as error:  # noqa: BLE001 - it is raised again
            self.give_up(cursor, error)
        try:
            self._version = self._data_version()
            self._deadline = 0.0  # What the log needs after a commit is worth no waiting.
            if self._wal is not None:
                self._wal.care(durable=self._synchronous == "full")
        except (apsw.Error, OSError) as error:  # The commit holds; what follows will be told.
            self._abandon(cursor, error)
        finally:
            self._lock.release()

    def give_up(self, cursor: Cursor, error: Exception) -> NoReturn:
        """Roll back, release the lock, and raise the error, SQLite's translated."""
        self._abandon(cursor, error)
        self._lock.release()
        if is_foreign(error):
            raise translate(error, self.path, WAIT_S) from error
        raise error

    def take_back(self, error: BaseException) -> bool:
        """Roll back what this thread has begun and not ended, and release the lock if it holds it.

        It was interrupted by the error somewhere on its way. Tell whether anything was rolled back.
        """
        rolls_back = False
        if self._lock.acquire(blocking=False):
            if self._writer is not None and self._is_writing():
                rolls_back = True
                self._abandon(self._writer, error)
            with suppress(RuntimeError):  # It is not held any more.
                while True:
                    self._lock.release()
        return rolls_back

    def _undo_interrupted(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # What raised one of those has cleared up.
            self.take_back(error)

    def translated(self, error: Foreign) -> EvstoreError:
        """Return the error of ours for one of a read; the end of the store interrupts it."""
        if isinstance(error, apsw.InterruptError) and self._closed is not None:
            return Closed(self._closed)
        return translate(error, self.path, WAIT_S)

    def _set_synchronous(self, cursor: Cursor, durability: Durability) -> None:
        if self._synchronous != durability:
            self._synchronous = ""  # Nobody knows, should this be interrupted.
            cursor.execute(f"pragma synchronous={durability}")
            self._synchronous = durability

    def _keep_waiting(self, attempt: int) -> bool:
        """Wait a moment for another process; SQLite asks after every refusal."""
        if time.monotonic() >= self._deadline:
            return False
        import random  # Few programs ever wait for another.

        jitter = random.uniform(0.2, 1.0)  # noqa: S311 - no secret
        time.sleep(jitter * min(0.0005 * (attempt + 1), 0.01))
        return True


class Snapshot:
    """A with block that reads one moment; a class, since reads are too short for a generator."""

    __slots__ = ("_cursor", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> Cursor:
        self._cursor = cursor = self._database.readers.take()
        try:
            cursor.execute("begin")
        except BaseException as error:
            self.__exit__(None, error, None)
            raise
        return cursor

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        cursor = self._cursor
        try:
            if cursor.connection.in_transaction:  # Some errors have already ended it.
                cursor.execute("rollback")
        except apsw.InterruptError:
            pass  # The store is being closed, and the connection with it.
        self._database.readers.give_back(cursor)
        if is_foreign(error):
            raise self._database.translated(error) from error
