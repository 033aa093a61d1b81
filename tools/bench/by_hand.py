"""The floor: what evstore leaves in the file, put there by the straightest Python there can be.

The rows, the two hashes and the page checksums are the same; there are no checks, no limits, no
conflicts and no groups. What evstore takes beyond this is Python that could be spared; what this
takes beyond a bare insert is what a log with a chain costs.
"""

import os
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Any

import apsw
import orjson

import evstore
from evstore.sqlite.pages import checksum_vfs

INSERT_BATCH = "insert into batch values(?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_EVENT = (
    "insert into event(id, kind, version, name, base, operand, encoding, delta, size, position,"
    " salt, data) values(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_NEWEST = "select seq, created, operand from variable where session = 1 and family = 1 and name = ?"
_VARIABLE = "insert or replace into variable values(1, 1, ?, ?, ?, ?, ?)"
_MESSAGE_ADDED, _VARIABLE_SET = 5, 1
envelope = Struct(">QIq").pack


class Rows:
    """The tables of a store, written to without evstore; `warm` appends come first."""

    def __init__(self, path: Path, synchronous: str, value: Any, warm: int = 0) -> None:
        evstore.open(path).close()
        self.connection = apsw.Connection(str(path), vfs=checksum_vfs())
        self.execute = self.connection.cursor().execute
        self.insert_all = self.connection.cursor().executemany
        self.execute(f"pragma synchronous={synchronous}")
        self.value = value
        self.position = 0
        self.link = bytes(32)
        for _ in range(warm):
            self.append()

    def append(self) -> None:
        """Encode, hash and insert one message."""
        text, salt, leaf = self._encoded(b"message.added")
        self.execute("begin immediate")
        self._batch(1, 1, [leaf])
        self.execute(
            INSERT_EVENT, self._event(1, self.position, _MESSAGE_ADDED, None, None, text, salt)
        )
        self.execute("commit")

    def set(self, name: str) -> None:
        """Encode, hash and insert one version of a variable, and where it stands."""
        text, salt, leaf = self._encoded(b"variable.set")
        self.execute("begin immediate")
        before = self.execute(_NEWEST, (name,)).fetchone()
        base, created = before[:2] if before else (None, self.position + 1)
        self._batch(1, 1, [leaf])
        self.execute(
            INSERT_EVENT, self._event(1, self.position, _VARIABLE_SET, name, base, text, salt)
        )
        self.execute(_VARIABLE, (name, self.position, created, None, text.decode()))
        self.execute("commit")

    def append_many(self, count: int) -> None:
        """Encode, hash and insert many messages as one batch."""
        made = [self._encoded(b"message.added") for _ in range(count)]
        first = self.position * count
        self.execute("begin immediate")
        self._batch(1, count, [leaf for _, _, leaf in made])
        self.insert_all(
            INSERT_EVENT,
            [
                self._event(1, seq, _MESSAGE_ADDED, None, None, text, salt)
                for seq, (text, salt, _) in enumerate(made, first)
            ],
        )
        self.execute("commit")

    def append_together(self, sessions: Sequence[int]) -> None:
        """Encode, hash and insert a message for each session, all in one commit."""
        made = [self._encoded(b"message.added") for _ in sessions]
        self.execute("begin immediate")
        for number, (text, salt, leaf) in zip(sessions, made, strict=True):
            self._batch(number, 1, [leaf])
            row = self._event(number, self.position, _MESSAGE_ADDED, None, None, text, salt)
            self.execute(INSERT_EVENT, row)
        self.execute("commit")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _encoded(self, kind: bytes) -> tuple[bytes, bytes, bytes]:
        """Return a text, a salt, and the hash of both."""
        text, salt = orjson.dumps(self.value), os.urandom(16)
        return text, salt, sha256(b"".join((b"\0", salt, kind, text))).digest()

    def _batch(self, number: int, count: int, leaves: list[bytes]) -> None:
        self.position += 1
        time_us = time.time_ns() // 1000
        parts = (b"\1", self.link, envelope(self.position, count, time_us), *leaves)
        self.link = sha256(b"".join(parts)).digest()
        first, last = self.position, self.position + count - 1
        row = (self.position, number, first, last, time_us, None, None, None, self.link)
        self.execute(INSERT_BATCH, row)

    def _event(
        self,
        number: int,
        seq: int,
        kind: int,
        name: str | None,
        base: int | None,
        text: bytes,
        salt: bytes,
    ) -> tuple[Any, ...]:
        told = ((number << 32) + seq, kind, 1, name, base, None)
        return (*told, 0, None, len(text), self.position, salt, text.decode())
