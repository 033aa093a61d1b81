"""Renumbering: where the events of a source went in a target, kept on disk as long as it is open.

It lies in a temporary database that SQLite deletes on its own, since a log may have more events
than there is memory.
"""

from typing import Any, NamedTuple

import apsw

from evstore.sqlite.failures import translate

_TABLES = """
pragma journal_mode=off; pragma synchronous=off;
create table life(
  uid blob primary key, session text, head integer, parent blob, fork integer, touched integer
) without rowid;
create table moved(
  uid blob, old integer, new integer, carries integer, primary key(uid, old, new)
) without rowid;
begin;
"""


class Written(NamedTuple):
    """A life in the target: its id and head, where it was forked, and whether it was changed."""

    uid: bytes
    session: str | None
    head: int
    parent: bytes | None
    fork: int
    touched: bool


class Renumbering:
    """The lives of a target, and for each event of the source the seqs that it has there."""

    def __init__(self) -> None:
        self._connection = apsw.Connection("")
        self._cursor: Any = self._connection.cursor()
        self._cursor.execute(_TABLES).fetchall()

    def close(self) -> None:
        """Give its space back."""
        self._connection.close()

    def life(self, uid: bytes) -> Written | None:
        """Return a life as it was written so far, if it was."""
        row = self._cursor.execute("select * from life where uid = ?", (uid,)).fetchone()
        if row is None:
            return None
        uid, session, head, parent, fork, touched = row
        return Written(uid, session, head, parent, fork, bool(touched))

    def put_life(self, life: Written) -> None:
        """Remember how a life was written."""
        self._write("insert or replace into life values(?, ?, ?, ?, ?, ?)", life)

    def untouched(self) -> int:
        """Return how many lives are just as they were."""
        count: int = self._cursor.execute("select count(*) from life where not touched").get
        return count

    def put_event(self, uid: bytes, old: int, new: int, *, carries: bool) -> None:
        """Remember which seq an event got, and whether it carries a message."""
        self._write("insert into moved values(?, ?, ?, ?)", (uid, old, new, carries))

    def moment(self, uid: bytes, old: int) -> int | None:
        """Return the newest seq of what a life recorded up to an old one; None before any."""
        query = "select new from moved where uid = ? and old <= ? order by old desc, new desc"
        new: int | None = self._cursor.execute(query + " limit 1", (uid, old)).get
        return new

    def messages(self, uid: bytes, old: int) -> list[int]:
        """Return the seqs of the messages that came of an old event."""
        query = "select new from moved where uid = ? and old = ? and carries order by new"
        return [new for (new,) in self._cursor.execute(query, (uid, old)).fetchall()]

    def _write(self, statement: str, row: tuple[object, ...]) -> None:
        try:
            self._cursor.execute(statement, row)
        except apsw.Error as error:  # The folder for temporary files is full.
            raise translate(error, "a temporary file", 0) from error
