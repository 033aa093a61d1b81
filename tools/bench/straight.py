"""The second floor: all that one append owes, in one function and without a single object of ours.

Beside the rows and the hashes (`by_hand`) that is to check and encode what comes, to join the queue
of those who wait and to leave it, to hold the lock, to look whether another process has written, to
know whether the session lives and where it ends, to keep times in order and limits kept, and to
look after the log. It is no code to live in: it says what is left for everything else.
"""

import os
import threading
import time
from collections import deque
from hashlib import sha256
from math import inf
from pathlib import Path
from struct import Struct
from typing import Any

import apsw
import orjson

import evstore
from evstore.events import MESSAGE_ADDED, VARIABLE_SET
from evstore.limits import Limits
from evstore.sqlite.insert import NUMBERS
from evstore.sqlite.pages import checksum_vfs
from tools.bench.by_hand import INSERT_BATCH, INSERT_EVENT, envelope

_VARIABLE = "insert or replace into variable values(?, 1, ?, ?, ?, ?, ?)"
_LOG_PAGES = 1000
_WAIT_S = 30.0
_LIMITS = Limits()
_length = Struct(">BI").pack


def _field(text: str) -> bytes:
    return _length(1, len(text)) + text.encode()


class Straight:
    """The tables of a store, written to as evstore must, in the straightest way."""

    def __init__(self, path: Path, synchronous: str) -> None:
        evstore.open(path).close()
        self.connection = apsw.Connection(str(path), vfs=checksum_vfs())
        self.execute = self.connection.cursor().execute
        self.execute(f"pragma synchronous={synchronous}")
        self.connection.set_wal_hook(self._committed)
        self.data_version = self.connection.data_version
        self.version = self.data_version()
        self.gate, self.lock = threading.Lock(), threading.Lock()
        self.waiting: deque[object] = deque()
        self.led = False
        self.failed: str | None = None
        self.pages = self.position = self.time_us = 0
        # By session: how it stands, and where it ends: head, time, link, and the next checkpoint.
        self.standings: dict[int, tuple[int | None, int | None]] = {}
        self.edges: dict[int, tuple[int, int, bytes, float]] = {}
        self.names: dict[tuple[int, str], tuple[int, int, int | None]] = {}
        self.uid = os.urandom(16)

    def append(self, number: int, message: Any) -> tuple[Any, ...]:
        """Append a message to a session."""
        if type(message) is not dict or type(message.get("role")) is not str:
            raise TypeError
        text = b'{"message":%b}' % self._encoded(message)
        return self._append(number, MESSAGE_ADDED, None, text, None)

    def set(self, number: int, name: str, value: Any) -> tuple[Any, ...]:
        """Set a variable of a session."""
        if type(name) is not str or len(name.encode()) > _LIMITS.name_bytes_max:
            raise TypeError
        value = self._encoded(value)
        return self._append(number, VARIABLE_SET, name, b'{"value":%b}' % value, value.decode())

    @staticmethod
    def _encoded(value: dict[Any, Any]) -> bytes:
        for key, item in value.items():
            if type(key) is not str or type(item) not in (str, int):
                raise TypeError
        text = orjson.dumps(value)
        if len(text) > _LIMITS.message_bytes_max:
            raise ValueError
        return text

    def _append(
        self, number: int, kind: str, name: str | None, text: bytes, value: str | None
    ) -> tuple[Any, ...]:
        salt, told = os.urandom(16), _field(kind)
        named = b"\0" if name is None else _field(name)
        leaf = sha256(
            b"".join((b"\0", salt, told, named, _length(1, len(text)), text, b"\0\0\0"))
        ).digest()
        if self.failed is not None:
            raise ValueError(self.failed)
        since_s = time.monotonic()
        with self.gate:
            if self.led:
                self.waiting.append(self)
            self.led = True
        try:
            if not self.lock.acquire(blocking=False):
                self.lock.acquire(timeout=since_s + _WAIT_S - time.monotonic())
            try:
                self.execute("begin immediate")
                if self.data_version() != self.version:
                    self.edges.clear()
                now_us = time.time_ns() // 1000
                ended, lease_us = self.standings.get(number, (None, None))
                if ended is not None or (lease_us is not None and lease_us < now_us):
                    raise ValueError
                head, ended_us, previous, due = self.edges.get(number, (0, 0, bytes(32), inf))
                seq, position = head + 1, self.position + 1
                now_us = max(now_us, self.time_us, ended_us + 1)
                link = sha256(
                    b"".join(
                        (b"\1", previous, self.uid, envelope(seq, 1, now_us), b"\0", told, leaf)
                    )
                ).digest()
                before = None
                if name is not None:
                    before = self.names.get((number, name))
                    if before is None and len(self.names) > _LIMITS.variables_max:
                        raise ValueError
                base, created = before[:2] if before else (None, seq)
                self.execute(
                    INSERT_BATCH, (position, number, seq, seq, now_us, None, None, None, link)
                )
                event = (NUMBERS[kind], 1, name, base, None, 0, None, len(text), position, salt)
                self.execute(INSERT_EVENT, ((number << 32) + seq, *event, text.decode()))
                if name is not None:
                    self.execute(_VARIABLE, (number, name, seq, created, None, value))
                    self.names[number, name] = seq, created, None
                if seq >= due:
                    raise ValueError
                self.edges[number] = seq, now_us, link, due
                self.position, self.time_us = position, now_us
                self.execute("commit")
                self.version = self.data_version()
            except BaseException:
                self.edges.clear()
                self.execute("rollback")
                raise
            if self.pages >= _LOG_PAGES:
                self.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        finally:
            self.lock.release()
            with self.gate:
                self.led = bool(self.waiting)
        return number, position, now_us, seq, kind, name, text

    def _committed(self, _connection: object, _database: str, pages: int) -> int:
        self.pages = pages
        return 0

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
