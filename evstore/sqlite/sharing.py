"""Sharing: all handles that this process has on a file share one Database, also across a fork.

Nothing else opens a store file. SQLite's locks belong to the process, and opening and closing the
file by any other means would drop them.
"""

import os
import threading
import weakref

from evstore.errors import NotAStore, Unavailable
from evstore.sqlite.database import MEMORY, STILL_S, Database
from evstore.sqlite.files import create_private, place

_HEADER_BYTES = 100  # of every SQLite file
_open: dict[tuple[int, int], Database] = {}
_memory: "weakref.WeakSet[Database]" = weakref.WeakSet()
_opening = threading.Lock()
_forking: list[int] = []  # the thread that forks this process while all files are still
_inherited: dict[tuple[int, int], Database] = {}  # what was under way when this child was forked


def open_database(path: str, *, read_only: bool, create: bool) -> Database:
    """Return the database of a path, shared with all other handles of this process.

    Raises Unavailable, Unsupported, NotAStore, FromTheFuture and Corrupt.
    """
    if path == MEMORY:
        database = Database(MEMORY, writable=True)
        database.users += 1
        _memory.add(database)
        return database
    path = place(path)
    with _opening:
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
            reason = f"each of its {found.st_nlink} hard links would get a log of its own"
            raise Unavailable(path, f"{reason}: remove all but one, or use symbolic links")
        identity = (found.st_dev, found.st_ino)
        if identity in _inherited:
            reason = "this process was forked while the store was in use: fork first, or use spawn"
            raise Unavailable(path, reason)
        known = _open.get(identity)
        if known is None and any(kept.path == path and kept.usable for kept in _open.values()):
            reason = "it was replaced while this process had it open: close that, then remove"
            raise Unavailable(path, f"{reason} {path}-wal")
        if known is None or not known.usable:
            database = _open[identity] = Database(path, writable=not read_only)
        else:
            database = known
            if not read_only:
                database.make_writable()
        database.users += 1
        return database


def release(database: Database) -> None:
    """Count one handle less; with the last one the database is closed."""
    with _opening:  # so that nobody finds it open while it closes
        database.users -= 1
        if database.users == 0:
            for identity in [known for known, shared in _open.items() if shared is database]:
                del _open[identity]
            database.close()


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
