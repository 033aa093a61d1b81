"""What one writes who keeps a conversation in sqlite3 by hand: a table, json, and no history."""

import json
import sqlite3
from pathlib import Path
from typing import Any


class Peer:
    """A table of messages and one of variables, whose events are kept beside it."""

    version = sqlite3.sqlite_version
    durability = "write-ahead log, flushed in each commit"

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "store.db", isolation_level=None)
        self._connection.execute("pragma journal_mode=wal").fetchall()
        self._connection.execute("pragma synchronous=full")
        self._connection.executescript(
            "create table message(id integer primary key, session text, data text);"
            "create index by_session on message(session, id);"
            "create table event(id integer primary key, name text, data text);"
            "create table variable(name text primary key, data text) without rowid;"
        )

    def append(self, message: dict[str, Any]) -> None:
        """Insert one row."""
        self._insert([("short", json.dumps(message))])

    def _insert(self, rows: list[tuple[str, str]]) -> None:
        self._connection.execute("begin immediate")
        self._connection.executemany("insert into message(session, data) values(?, ?)", rows)
        self._connection.execute("commit")

    def set(self, name: str, value: Any) -> None:
        """Insert the change and replace the present in one transaction."""
        row = (name, json.dumps(value))
        self._connection.execute("begin immediate")
        self._connection.execute("insert into event(name, data) values(?, ?)", row)
        self._connection.execute("insert or replace into variable values(?, ?)", row)
        self._connection.execute("commit")

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Insert many rows."""
        self._insert([("long", json.dumps(message)) for message in messages])

    def load(self) -> list[Any]:
        """Read and decode the rows of the long conversation."""
        query = "select data from message where session = 'long' order by id"
        return [json.loads(text) for (text,) in self._connection.execute(query)]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
