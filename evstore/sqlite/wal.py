"""The write-ahead log: copied into the file in time, and warm, so that a sync has little to do.

A commit that overwrites a part of the log that is already on the disk costs half of one that makes
the log longer, since the file system has no new length to write down. So after a few commits the
log is made longer ahead of them: a large transaction spills into it and is rolled back. What it
leaves behind belongs to no commit, and the next ones overwrite it; the store itself does not grow.
"""

import os

import apsw

from evstore.sqlite.schema import Cursor

PAGES = 1000  # the log is copied into the file from here on
BYTES_MAX = 16 << 20  # and cut back to this once it was larger
WARM_AFTER_COMMITS = 8  # who opens a store for a moment has nothing of a warm log
_PIECE_BYTES = 1_000_000
_FRAME_BYTES = 4096 + 24
_SPARE_PAGES = 16  # more than most commits take
_NO_ROW = (1 << 63) - 1


class Wal:
    """The write-ahead log of a file, as its writing connection sees it."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._pages = 0  # in use, as of the newest commit
        self._warm_pages = 0  # on the disk already, as far as we know
        self._commits = 0
        self._path: str = f"{cursor.connection.filename}-wal"
        cursor.connection.set_wal_hook(self._committed)

    def _committed(self, _connection: object, _database: str, pages: int) -> int:
        self._pages = pages
        return int(apsw.SQLITE_OK)

    def care(self, *, durable: bool) -> None:
        """Do after a commit what the log needs by now; raises apsw.Error where the disk fails."""
        try:
            if self._pages >= PAGES:  # As far as readers allow; then the log begins anew.
                self._size_bytes()
                self._cursor.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            elif durable and self._pages + _SPARE_PAGES > self._warm_pages:
                self._commits += 1
                if self._commits > WARM_AFTER_COMMITS:
                    self._warm()
        except (apsw.BusyError, apsw.LockedError):
            pass  # Another process is at it.

    def _size_bytes(self) -> int:
        """Return how long the log is; SQLite itself would not notice that it was removed."""
        try:
            return os.path.getsize(self._path)
        except FileNotFoundError as error:
            raise apsw.IOError("its log was removed") from error

    def _warm(self) -> None:
        self._warm_pages = self._size_bytes() // _FRAME_BYTES
        if self._pages + _SPARE_PAGES <= self._warm_pages or self._warm_pages >= PAGES:
            return
        cursor = self._cursor
        cache_size = cursor.execute("pragma cache_size").get
        try:
            cursor.execute("pragma cache_size=16")
            cursor.execute("begin immediate")
            cursor.execute(
                "insert into checkpoint values(?, 0, zeroblob(?), x'')",
                (_NO_ROW, _PIECE_BYTES),
            )
        finally:
            if cursor.connection.in_transaction:
                cursor.execute("rollback")
            cursor.execute(f"pragma cache_size={cache_size}")
        self._warm_pages = self._size_bytes() // _FRAME_BYTES
