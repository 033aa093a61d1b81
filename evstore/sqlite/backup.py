"""Backup: a copy of a store while others write, whole under its name or not there at all.

The pages of one snapshot are copied in steps. With write-ahead logging a snapshot stays what it is,
however much is written meanwhile; so no writer waits, and the copying never begins again. A copy of
an earlier moment is adopted batch by batch, as an import would be, with every link checked.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import chain

import apsw

from evstore.errors import Corrupt, Refused, Unavailable
from evstore.sqlite import log, verify
from evstore.sqlite.adopt import adopt
from evstore.sqlite.database import MEMORY, Database
from evstore.sqlite.files import check_free, create_private, place, put_in_place
from evstore.sqlite.leases import copy_leases
from evstore.sqlite.pages import CHECKSUM_BYTES, checksum_vfs
from evstore.sqlite.poller import newest_position
from evstore.sqlite.sharing import open_database, release

PAGES = 256  # copied between two calls of `progress`: 1 MiB
_COMPANIONS = ("", "-journal", "-wal", "-shm")
Progress = Callable[[int, int], None]


def backup(
    database: Database, path: str, until: int | None, progress: Progress | None, now_us: int
) -> int:
    """Copy a store, or its batches up to a position, into a new file; return its newest position.

    A copy of the past has no deadline that is over by `now_us`: the session still lived then.

    The file gets its name once it is verified and on the disk. Raises Refused where there is one,
    Unavailable, Unsupported, and Corrupt where what was copied does not verify.
    """
    path = place(path)
    check_free(path)
    # The name of the copy may be as long as the file system allows: this one is short.
    partial = os.path.join(os.path.dirname(path), f".backup-{os.urandom(8).hex()}.partial")
    create_private(partial)
    try:
        deadlines_after_us = 0 if until is None else now_us
        in_pages = until is None and database.path != MEMORY
        if in_pages:
            until = _copy_pages(database, partial, path, progress)
        elif until is None:
            until = _newest(database)
        copy = open_database(partial, read_only=False, create=not in_pages)
        try:
            if not in_pages:
                _copy_batches(database, copy, until, progress)
                copy_leases(database, copy, deadlines_after_us)
            _check(database, copy)
        finally:
            release(copy)
        check_free(path)
        put_in_place(partial, path)
    except OSError as error:
        raise Unavailable(path, f"{error.strerror}: check the disk, then try again") from error
    finally:
        for companion in _COMPANIONS:
            with suppress(FileNotFoundError):
                os.unlink(partial + companion)
    return until


def _newest(database: Database) -> int:
    with database.snapshot() as cursor:
        return newest_position(cursor)


def _copy_pages(database: Database, partial: str, path: str, progress: Progress | None) -> int:
    """Copy the pages of the newest snapshot, and return its newest position.

    Nothing is synced on the way: that is done once the file is whole.
    """
    target = apsw.Connection(partial, flags=apsw.SQLITE_OPEN_READWRITE, vfs=checksum_vfs())
    try:
        target.execute("pragma journal_mode=off; pragma synchronous=off").fetchall()
        with database.snapshot() as cursor:
            position = newest_position(cursor)  # From this first read on the snapshot stays.
            if cursor.connection.reserve_bytes("main", -1) == CHECKSUM_BYTES:
                # Pages get their checksums when they leave the log. For those that are still in it
                # this is done here, by a file that says from its first page on that it has some.
                target.reserve_bytes("main", CHECKSUM_BYTES)
                target.execute("pragma user_version=1")
            with target.backup("main", cursor.connection, "main") as copying:
                while not copying.done:
                    copying.step(PAGES)
                    if progress is not None:
                        pages = copying.page_count
                        progress(pages - copying.remaining, pages)
    except Unavailable as error:
        is_full = isinstance(error.__cause__, apsw.FullError)  # which only the copy can be
        raise Unavailable(path if is_full else error.target, error.reason) from error
    finally:
        target.close()
    return position


def _copy_batches(
    database: Database, copy: Database, until: int, progress: Progress | None
) -> None:
    """Adopt the batches up to a position; raises Corrupt where one is not what its link says."""
    position = 0
    while position < until:
        with database.snapshot() as cursor:
            page = list(log.batches(database, cursor, position, until - position))
        if page[-1].position != position + len(page):
            raise Corrupt(database.path, f"after position {position} a batch is missing")
        try:
            adopt(copy, page, "normal", position)
        except (Refused, Corrupt) as error:
            raise Corrupt(database.path, f"a copy of it does not verify: {error}") from error
        position = page[-1].position
        if progress is not None:
            progress(position, until)


def _check(database: Database, copy: Database) -> None:
    """Raise Corrupt unless a copy is sound."""
    with copy.snapshot() as cursor:
        pages: str = cursor.execute("pragma integrity_check(1)").get
    wrong = [] if pages == "ok" else [pages]
    wrong += [f.what for f in chain(verify.check_rows(copy), verify.check_heads(copy))]
    if wrong:
        raise Corrupt(database.path, f"a copy of it does not verify: {wrong[0]}")
