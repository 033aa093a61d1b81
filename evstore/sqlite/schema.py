"""What a file of ours contains: the numbered SQL files, and the check that a file has just that."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import apsw

from evstore.errors import Corrupt, FromTheFuture, NotAStore, Unavailable

if TYPE_CHECKING:  # The first store that is opened brings it, and `import evstore` does without.
    from pathlib import Path

APPLICATION_ID = 0x65767374  # "evst"
# apsw types every column as a union of all that SQLite can hold, which would say nothing here.
Cursor = Any
Columns = tuple[Any, ...]
Durability = Literal["full", "normal"]
Tell = Callable[[list[Any]], None]  # how an event loop is told what its tasks wait for
Catalog = frozenset[tuple[str, str, str | None]]


def folder() -> "Path":
    """Return the schema folder: inside an installed package, beside it in a checkout."""
    from pathlib import Path

    package = Path(__file__).parents[1]
    inside = package / "schema"
    return inside if inside.is_dir() else package.parent / "schema"


@cache
def scripts() -> tuple[str, ...]:
    """Return the SQL files in order; the format's version is their number."""
    return tuple(path.read_text("utf-8") for path in sorted((folder() / "sqlite").glob("*.sql")))


def version() -> int:
    """Return the format that this evstore writes."""
    return len(scripts())


def is_blank(cursor: Cursor) -> bool:
    """Tell whether the file holds nothing at all, of ours or of anyone."""
    marks = cursor.execute("select * from pragma_application_id, pragma_user_version").get
    objects: int = cursor.execute("select count(*) from sqlite_schema").get
    return objects == 0 and marks == (0, 0)


def create(cursor: Cursor, wanted: int | None = None) -> None:
    """Write a version of the format into a blank file, the newest without one.

    It happens inside the caller's transaction.
    """
    wanted = version() if wanted is None else wanted
    cursor.execute(f"pragma application_id={APPLICATION_ID}")
    _run(cursor, 0, wanted)


def upgrade(cursor: Cursor) -> None:
    """Bring an older file to the newest version, inside the caller's transaction."""
    found: int = cursor.execute("pragma user_version").get  # by now; others may have been faster
    _run(cursor, found, version())


def _run(cursor: Cursor, found: int, wanted: int) -> None:
    for script in scripts()[found:wanted]:
        cursor.execute(script).fetchall()
    cursor.execute(f"pragma user_version={wanted}")


def check(cursor: Cursor, path: str) -> None:
    """Raise unless the file is one of ours, and of the version that this evstore reads.

    Raises NotAStore, FromTheFuture and Corrupt, and Unavailable for an older version.
    """
    found = file_version(cursor, path)
    if found < version():
        reason = (
            f"it has format {found}, which is read as format {version()}: open it once for writing"
        )
        raise Unavailable(path, reason)


def file_version(cursor: Cursor, path: str) -> int:
    """Return the version of a file of ours, of which it has the tables and no other.

    Raises NotAStore, FromTheFuture and Corrupt.
    """
    cursor.execute("begin")  # One moment, because another process may be upgrading the file.
    try:
        return _checked_version(cursor, path)
    finally:
        if cursor.connection.in_transaction:
            cursor.execute("rollback")


def _checked_version(cursor: Cursor, path: str) -> int:
    application_id, found = cursor.execute(
        "select * from pragma_application_id, pragma_user_version"
    ).get
    if application_id != APPLICATION_ID:
        raise NotAStore(path)
    if found > version():
        raise FromTheFuture(path, found, version())
    if found < 1:
        raise Corrupt(path, f"it claims to have format {found}")
    unexpected = _catalog(cursor) ^ _expected(found)
    if unexpected:
        names = ", ".join(sorted({f"{kind} {name}" for kind, name, _ in unexpected}))
        raise Corrupt(path, f"its schema is not the one evstore wrote (see {names})")
    return int(found)


def _catalog(cursor: Cursor) -> Catalog:
    # sqlite_stat tables are what ANALYZE leaves behind: harmless, and no part of the format. The
    # tables behind `search` are made by SQLite, in words that may differ between its versions.
    return frozenset(
        cursor.execute(
            "select type, name, case when name not glob 'search_*' then sql end"
            " from sqlite_schema where not (type = 'table' and name glob 'sqlite_stat*')"
        ).fetchall()
    )


@cache
def _expected(wanted: int) -> Catalog:
    cursor = apsw.Connection(":memory:").cursor()
    create(cursor, wanted)
    return _catalog(cursor)
