"""What a file of ours contains: the numbered SQL files, and the check that a file has just that."""

from functools import cache
from pathlib import Path
from typing import Any

import apsw

from evstore.errors import Corrupt, FromTheFuture, NotAStore

APPLICATION_ID = 0x65767374  # "evst"
# apsw types every column as a union of all that SQLite can hold, which would say nothing here.
Cursor = Any
Columns = tuple[Any, ...]
Catalog = frozenset[tuple[str, str, str | None]]


def folder() -> Path:
    """Return the schema folder: inside an installed package, beside it in a checkout."""
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


def create(cursor: Cursor) -> None:
    """Write the format into a blank file, inside the caller's transaction."""
    for script in scripts():
        cursor.execute(script).fetchall()
    cursor.execute(f"pragma application_id={APPLICATION_ID}")
    cursor.execute(f"pragma user_version={version()}")


def check(cursor: Cursor, path: str) -> None:
    """Raise NotAStore, FromTheFuture or Corrupt unless the file is one of ours."""
    application_id, file_version = cursor.execute(
        "select * from pragma_application_id, pragma_user_version"
    ).get
    if application_id != APPLICATION_ID:
        raise NotAStore(path)
    if file_version > version():
        raise FromTheFuture(path, file_version, version())
    unexpected = _catalog(cursor) ^ _expected()
    if unexpected:
        names = ", ".join(sorted({f"{kind} {name}" for kind, name, _ in unexpected}))
        raise Corrupt(path, f"its schema is not the one evstore wrote (see {names})")


def _catalog(cursor: Cursor) -> Catalog:
    # sqlite_stat tables are what ANALYZE leaves behind: harmless, and no part of the format.
    return frozenset(
        cursor.execute(
            "select type, name, sql from sqlite_schema where name not like 'sqlite_stat%'"
        ).fetchall()
    )


@cache
def _expected() -> Catalog:
    cursor = apsw.Connection(":memory:").cursor()
    create(cursor)
    return _catalog(cursor)
