"""Connections: each is hardened before its first statement; creation survives a power cut."""

import sys
from collections.abc import Callable
from itertools import count

import apsw

from evstore.errors import Unavailable, Unsupported
from evstore.sqlite import schema, wal
from evstore.sqlite.files import sync_folder
from evstore.sqlite.pages import CHECKSUM_BYTES, checksum_vfs

_HARDENING = (
    (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
    (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DDL, 0),
    (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0),
    (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
    # A plan holds whatever is bound: SQLite would compile a statement anew for each value that it
    # compares with the condition of a partial index, which takes three times as long as its work.
    (apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1),
)
_CACHE_KIB = 8192  # room for the pages that a group of a thousand sessions changes
_LIMITS = (
    (apsw.SQLITE_LIMIT_SQL_LENGTH, 100_000),
    (apsw.SQLITE_LIMIT_LENGTH, 1 << 30),
    (apsw.SQLITE_LIMIT_ATTACHED, 0),
    (apsw.SQLITE_LIMIT_EXPR_DEPTH, 100),
    (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, 10),
)


def open_memory() -> schema.Cursor:
    """Return the cursor of a new store without a file."""
    cursor = _hardened(apsw.Connection(":memory:"))
    cursor.execute("begin immediate")
    schema.create(cursor)
    cursor.execute("commit")
    return cursor


def open_reader(path: str, wait_ms: int, *, immutable: bool) -> schema.Cursor:
    """Return a cursor that reads; `immutable` for media on which nothing can change."""
    flags, name = apsw.SQLITE_OPEN_READONLY, path
    if immutable:
        flags |= apsw.SQLITE_OPEN_URI
        name = f"file:{_quoted(path)}?immutable=1"
    connection = apsw.Connection(name, flags=flags, vfs=checksum_vfs())
    connection.set_busy_timeout(wait_ms)
    # Folding the log into the file is for those who may write; a reader's attempt could only fail.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return _hardened(connection)


def open_writer(path: str, keep_waiting: Callable[[int], bool]) -> schema.Cursor:
    """Return a cursor that writes, creating the format in a blank file, or upgrading an old one."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE, vfs=checksum_vfs())
    try:
        if connection.readonly("main"):  # SQLite does so without a word.
            raise apsw.ReadOnlyError
        connection.set_busy_handler(keep_waiting)
        cursor = _hardened(connection)
        # Where the journal changes, and where another process closes the file just then, SQLite
        # refuses at once and asks nobody whether to wait.
        for refusals in count():
            try:
                _make_ready(connection, cursor, path)
                break
            except apsw.BusyError:
                if not keep_waiting(refusals):
                    raise
    except apsw.ReadOnlyError as error:
        connection.close()
        reason = "it may not be written: change its permissions, or open it with read_only=True"
        raise Unavailable(path, reason) from error
    except BaseException:
        connection.close()
        raise
    return cursor


def _make_ready(connection: apsw.Connection, cursor: schema.Cursor, path: str) -> None:
    # EXTRA until the switch to WAL is done: it syncs the folder after deleting a rollback journal,
    # without which a power cut could bring an older, empty file back.
    cursor.execute("pragma synchronous=extra")
    if sys.platform == "darwin":  # fsync alone does not reach the disk there
        cursor.execute("pragma fullfsync=on; pragma checkpoint_fullfsync=on").fetchall()
    if schema.is_blank(cursor):
        _create(connection, cursor, path)
    file_version = schema.file_version(cursor, path)
    if checksum_vfs() is None and connection.reserve_bytes("main", -1) == CHECKSUM_BYTES:
        capability = "page checksums, without which a write would damage the file"
        raise Unsupported("this build of apsw", f"{capability}: install apsw from PyPI")
    if file_version < schema.version():
        _change(connection, cursor, schema.upgrade)
    if cursor.execute("pragma journal_mode=wal").get != "wal":
        reason = "its folder does not allow write-ahead logging: move it to a local disk"
        raise Unavailable(path, reason)
    cursor.execute(f"pragma journal_size_limit={wal.BYTES_MAX}").fetchall()
    cursor.execute(f"pragma cache_size=-{_CACHE_KIB}")
    # Who has read nothing since the switch does not open the log, and would leave it behind.
    cursor.execute("select 1 from sqlite_schema limit 1").fetchall()


def _create(connection: apsw.Connection, cursor: schema.Cursor, path: str) -> None:
    if checksum_vfs():
        connection.reserve_bytes("main", CHECKSUM_BYTES)
    _change(connection, cursor, _fill)
    sync_folder(path)


def _fill(cursor: schema.Cursor) -> None:
    if schema.is_blank(cursor):  # Nobody else was faster.
        schema.create(cursor)


def _change(
    connection: apsw.Connection, cursor: schema.Cursor, step: Callable[[schema.Cursor], None]
) -> None:
    cursor.execute("begin immediate")
    try:
        step(cursor)
        cursor.execute("commit")
    except BaseException:
        if connection.in_transaction:  # Some errors have already ended it.
            cursor.execute("rollback")
        raise


def _hardened(connection: apsw.Connection) -> schema.Cursor:
    for option, setting in _HARDENING:
        connection.config(option, setting)
    for limit, bound in _LIMITS:
        connection.limit(limit, bound)
    cursor = connection.cursor()
    cursor.execute("pragma cell_size_check=on; pragma mmap_size=0").fetchall()
    return cursor


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
