"""The tables of another program's SQLite file, read record by record without changing anything.

Whoever reads a table asks for the numbers of its rows first, and then for one row after the other.
So no more than one record is in memory, one that is broken is alone in being lost, and no lock is
held for longer than a record takes: the other program may go on writing meanwhile.
"""

import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar
from urllib.parse import quote

import apsw

from evstore.errors import Unavailable
from evstore.transfer import records
from evstore.transfer.conversations import Reported

BEGINNING = b"SQLite format 3\0"
_VERSIONS = slice(18, 20)  # of the header: how the file is written and read
_WITH_LOG = b"\2\2"
_PAGE_BYTES = slice(16, 18)
_PAGE_BYTES_MAX = 65536  # which is told as 1
_HEADER_BYTES = 100
_WAIT_MS = 5000
_HARDENING = (
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
    # What another program left in its log stays there for that program to fold in.
    (apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1),
)

Found = TypeVar("Found")


class Tables:
    """The tables of an open file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._open()

    @cached_property
    def columns(self) -> Mapping[str, frozenset[str]]:
        """The columns of each table that holds rows itself, so of no view and no module."""
        return self._read(self._columns)

    def has(self, table: str, *columns: str) -> bool:
        """Tell whether a table is there, with at least these columns."""
        return table in self.columns and self.columns[table].issuperset(columns)

    def numbers(self, sql: str, *values: Any) -> "array[int]":
        """Return what a query finds, whole numbers all, one row after another.

        Raises Unavailable.
        """
        return self._read(
            lambda: array("q", chain.from_iterable(self._connection.execute(sql, values)))
        )

    def row(self, where: str, sql: str, *values: Any) -> dict[str, Any] | Reported:
        """Return the one row that a query finds, by the names of its columns."""
        try:
            found = self._read(lambda: self._row(sql, values))
        except Unavailable as error:
            return Reported(where, "a record", error.reason)
        return found or Reported(where, "a record", "it is not there any more: import again")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _open(self) -> None:
        self._seen = _state(self.path)
        address, self._is_still = _address(self.path)
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        try:
            self._connection = apsw.Connection(address, flags=flags)
        except apsw.Error as error:
            raise _unreadable(self.path, error) from error
        for option, value in _HARDENING:
            self._connection.config(option, value)
        self._connection.limit(apsw.SQLITE_LIMIT_LENGTH, records.RECORD_BYTES_MAX)
        self._connection.set_busy_timeout(_WAIT_MS)

    def _read(self, find: Callable[[], Found]) -> Found:
        """Return what is found, in a file that did not change meanwhile where nothing locks it.

        Raises Unavailable.
        """
        while True:
            try:
                found = find()
            except (apsw.Error, TypeError, UnicodeError, OverflowError) as error:
                if self._is_as_opened():
                    raise _unreadable(self.path, error) from error
            else:
                if self._is_as_opened():
                    return found
            self.close()
            self._open()

    def _is_as_opened(self) -> bool:
        return not self._is_still or self._seen == _state(self.path)

    def _row(self, sql: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
        cursor = self._connection.execute(sql, values)
        for row in cursor:
            return dict(zip((column[0] for column in cursor.description), row, strict=True))
        return None

    def _columns(self) -> dict[str, frozenset[str]]:
        names: dict[str, set[str]] = {}
        sql = (
            "select t.name, c.name from pragma_table_list t, pragma_table_info(t.name) c"
            " where t.schema = 'main' and t.type = 'table' and not t.wr"
        )
        for table, column in self._connection.execute(sql):
            names.setdefault(table, set()).add(column)
        return {table: frozenset(columns) for table, columns in names.items()}


@contextmanager
def opened(path: str) -> Iterator[Tables]:
    """Open a file for reading; raises Unavailable for one that is no SQLite database."""
    if not is_database(path):
        raise Unavailable(path, "it is no SQLite database: name the file that the program writes")
    if os.path.getsize(path) % _page_bytes(_header(path)):
        # SQLite would take what is missing of the last page to be empty, and say nothing of it.
        raise Unavailable(path, "it is cut off: copy it again")
    with closing(Tables(path)) as found:
        yield found


def quoted(name: str) -> str:
    """Return the name of a table as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def is_database(path: str) -> bool:
    """Tell whether a file begins as SQLite databases do; raises Unavailable."""
    return _header(path).startswith(BEGINNING)


def decoded(where: str, value: Any) -> Any | Reported:
    """Return the JSON value in a column of text."""
    if type(value) is str:
        value = value.encode()
    if type(value) is not bytes:
        return Reported(where, "a record", "it is no JSON: repair it, or drop it")
    return records.decoded(where, value)


def _header(path: str) -> bytes:
    with records.opened(path) as file:
        return file.read(_HEADER_BYTES)


def _page_bytes(header: bytes) -> int:
    told = int.from_bytes(header[_PAGE_BYTES], "big")
    return told if told > 1 else _PAGE_BYTES_MAX


def _state(path: str) -> tuple[int, int, int]:
    """Return what is another when somebody has written to a file, or begins to."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_mtime_ns, found.st_size, _log_bytes(path)


def _log_bytes(path: str) -> int:
    try:
        return os.path.getsize(f"{path}-wal")
    except OSError:
        return 0


def _address(path: str) -> tuple[str, bool]:
    """Return the name under which SQLite opens a file without leaving anything beside it.

    And whether it then takes it to stand still: a reader of a file that is written with a log would
    make an empty log for it, and locks nothing without one.
    """
    is_still = _header(path)[_VERSIONS] == _WITH_LOG and not _log_bytes(path)
    how = "immutable=1" if is_still else "mode=ro"
    return f"file:{quote(os.path.abspath(path))}?{how}", is_still


def _unreadable(path: str, error: Exception) -> Unavailable:
    return Unavailable(path, f"it cannot be read ({error}): repair it, or copy it again")
