"""Readers: the connections of a file that read, lent to one caller at a time."""

import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress

import apsw

from evstore.errors import Busy, ReadOnly, Unavailable
from evstore.sqlite import schema
from evstore.sqlite.connect import open_reader
from evstore.sqlite.failures import translate
from evstore.sqlite.schema import Cursor

_KEPT = 8  # that wait for the next caller
_MOMENT_S = 0.0002


class Readers:
    """What reads one file; `check` raises where its store is not usable any more.

    Media that allow no shared memory are read as they lie there, until somebody writes to them.
    """

    def __init__(self, path: str, wait_s: float, check: Callable[[], None]) -> None:
        self._path = path
        self._wait_s = wait_s
        self._check = check
        # One that is lost, because Ctrl-C came while it was handed over, closes itself.
        self._all: weakref.WeakSet[Cursor] = weakref.WeakSet()
        self._idle: list[Cursor] = []
        self._resting: list[Cursor] = []  # while the process forks
        self._rests = False  # all of them do
        self._forking = 0  # the thread that forks the process, or waits to
        self._outdated: set[Cursor] = set()  # those in use that read the file as it lay there
        self._untouched: tuple[int, ...] | None = None  # its marks, where it is read as it lies
        self._changing = threading.Lock()  # held while one is opened, closed or interrupted
        self._ended = False

    def take(self) -> Cursor:
        """Return a cursor that nobody else uses; `give_back` has to follow."""
        self._check()
        if self._forking:
            self._let_fork()
        if self._untouched is not None and self._untouched != _marks(self._path):
            self.look_anew()
            self.find_out()
        return self._idle_one() or self._connect()

    def give_back(self, cursor: Cursor) -> None:
        """Take a cursor back, for the next caller or to be closed."""
        if self._ended or len(self._idle) >= _KEPT or cursor in self._outdated:
            self._close(cursor)
            return
        self._idle.append(cursor)
        if self._ended:  # Meanwhile, in another thread.
            self._close_idle()

    def find_out(self) -> None:
        """Find out how the file is to be read; raises Unavailable, NotAStore and others."""
        try:
            self._try()
        except (Unavailable, ReadOnly):
            marks = _marks(self._path)
            if marks[-1]:
                reason = "it was not closed cleanly: open it once where it can be written"
                raise Unavailable(self._path, reason) from None
            self._untouched = marks
            self._try()

    def look_anew(self) -> None:
        """Forget how the file lay there, since somebody writes to it from now on."""
        if self._untouched is not None:
            self._untouched = None
            self._close_idle()
            self._outdated.update(self._all)

    def end(self, wait_s: float) -> None:
        """Close them all; those in use are interrupted, and waited for for some time."""
        self._ended = True
        self._close_idle()
        deadline = time.monotonic() + wait_s
        while self._all and time.monotonic() < deadline:
            with self._changing:
                for cursor in self._all:
                    cursor.connection.interrupt()
            time.sleep(_MOMENT_S)

    # Around a process fork.

    def rest(self, deadline: float) -> None:
        """Wait until none is in use, opened or closed, at most until a time of `time.monotonic`."""
        self._forking = threading.get_ident()
        while time.monotonic() < deadline:
            while (cursor := self._idle_one()) is not None:
                self._resting.append(cursor)
            if self._changing.acquire(blocking=False):
                self._rests = {*self._all} == {*self._resting}
                if self._rests:
                    return
                self._changing.release()
            time.sleep(_MOMENT_S)
        self._forking = 0

    @property
    def resting(self) -> list[Cursor] | None:
        """All of them, or None where not all of them rest."""
        return self._resting if self._rests else None

    def go_on(self) -> None:
        """Go on after a rest."""
        self._idle += self._resting
        self._resting.clear()
        self._forking = 0
        if self._rests:
            self._rests = False
            self._changing.release()

    def _let_fork(self) -> None:
        """Wait until the process has forked: whoever begins to read now would hold that up."""
        while self._forking:
            if self._forking == threading.get_ident():
                if self._rests:  # It would wait for itself.
                    raise Busy(0)
                return
            time.sleep(_MOMENT_S)
        self._check()

    # One by one.

    def _idle_one(self) -> Cursor | None:
        try:
            return self._idle.pop()
        except IndexError:  # Another thread may take the last one at any moment.
            return None

    def _close_idle(self) -> None:
        while (cursor := self._idle_one()) is not None:
            self._close(cursor)

    def _close(self, cursor: Cursor) -> None:
        with self._changing:
            self._all.discard(cursor)
            self._outdated.discard(cursor)
            cursor.connection.close()

    def _connect(self) -> Cursor:
        with self._changing:
            try:
                wait_ms = round(1000 * self._wait_s)
                cursor = open_reader(self._path, wait_ms, immutable=self._untouched is not None)
            except apsw.Error as error:
                raise translate(error, self._path, self._wait_s) from error
            self._all.add(cursor)
            return cursor

    def _try(self) -> None:
        cursor = self._connect()
        try:
            schema.check(cursor, self._path)
        except (apsw.Error, UnicodeDecodeError) as error:
            self._close(cursor)
            raise translate(error, self._path, self._wait_s) from error
        except BaseException:
            self._close(cursor)
            raise
        self.give_back(cursor)


def _marks(path: str) -> tuple[int, ...]:
    """Return what changes as soon as somebody writes to a file; the size of its log comes last."""
    marks: tuple[int, ...] = ()
    with suppress(FileNotFoundError):
        found = os.stat(path)
        marks = (found.st_ino, found.st_size, found.st_mtime_ns)
    log = f"{path}-wal"
    return (*marks, os.path.getsize(log) if os.path.exists(log) else 0)
