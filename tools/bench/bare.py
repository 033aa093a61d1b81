"""The baselines: what the same work costs without evstore, on the same disk in the same run."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import apsw
import orjson

PAGE_BYTES = 4096 + 24  # a page as the write-ahead log holds it, with its frame
_FLOOR_PAGES = 256


class Bare:
    """APSW, one table, and rows that are encoded already, on a write-ahead log.

    `warm` inserts come first, until the log has stopped growing and overwrites itself, as it does
    in a long life: a log that grows costs nearly twice as much to flush.
    """

    def __init__(self, path: Path, synchronous: str, value: Any, warm: int) -> None:
        self.path = path
        self.synchronous = synchronous
        self.text = orjson.dumps(value).decode()
        self._open()
        for _ in range(warm):
            self.insert()

    def _open(self) -> None:
        self.connection = apsw.Connection(str(self.path))
        self.cursor = self.connection.cursor()
        self.cursor.execute("pragma journal_mode=wal").fetchall()
        self.cursor.execute(f"pragma synchronous={self.synchronous}")
        self.cursor.execute("create table if not exists event(id integer primary key, data text)")

    def insert(self) -> None:
        """Insert one row in a transaction of its own."""
        self.cursor.execute("insert into event(data) values(?)", (self.text,))

    def insert_many(self, count: int) -> None:
        """Insert many rows in one transaction."""
        rows = [(self.text,)] * count
        self.cursor.execute("begin immediate")
        self.cursor.executemany("insert into event(data) values(?)", rows)
        self.cursor.execute("commit")

    def load(self, count: int) -> list[Any]:
        """Read and decode the first rows."""
        query = "select data from event order by id limit ?"
        return [orjson.loads(text) for (text,) in self.cursor.execute(query, (count,))]

    def renew(self) -> None:
        """Begin a new log, which the next inserts make grow."""
        self.connection.close()
        self._open()
        self.insert()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


class ByHand:
    """What people write who keep their messages in sqlite3 themselves, with a durable commit."""

    def __init__(self, path: Path, value: Any, warm: int) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("pragma journal_mode=wal").fetchall()
        self.connection.execute("pragma synchronous=full")
        self.connection.execute("create table event(id integer primary key, data text)")
        self.value = value
        for _ in range(warm):
            self.insert()

    def insert(self) -> None:
        """Encode and insert one row."""
        with self.connection:
            self.connection.execute("begin immediate")
            text = json.dumps(self.value)
            self.connection.execute("insert into event(data) values(?)", (text,))

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


class Floor:
    """The least that a durable commit can cost here: one page over another, and a flush."""

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDWR | os.O_CREAT)
        self.page = b"p" * PAGE_BYTES
        self.turn = 0
        os.pwrite(self.handle, b"\0" * PAGE_BYTES * _FLOOR_PAGES, 0)
        os.fsync(self.handle)
        self.flush = getattr(os, "fdatasync", os.fsync)  # which macOS does not have

    def write(self) -> None:
        """Write a page in place and flush it."""
        os.pwrite(self.handle, self.page, self.turn % _FLOOR_PAGES * PAGE_BYTES)
        self.flush(self.handle)
        self.turn += 1

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)
