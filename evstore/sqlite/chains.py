"""Chains: which earlier versions of a variable the next one may build on, as the log has it.

What was decided before the lock stands only if it is still right under the lock. A delta builds on
a version of the same name in the same life; what a fork shares, it never builds on.
"""

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import NamedTuple

from evstore.errors import Corrupt
from evstore.events import VARIABLE_SET, Body
from evstore.sqlite import payload
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.deltas import (
    CACHE_BYTES_MAX,
    LEVELS,
    PATIENCE,
    RADIX,
    VERSIONS_MAX,
    Chain,
    Encoded,
    Load,
    Version,
    choose,
)
from evstore.sqlite.lives import Life
from evstore.sqlite.rows import text_at

_WALK_MAX = 4 * VERSIONS_MAX  # rows looked at to find the newest full copy


def is_large(body: Body) -> bool:
    """Tell whether a body may be stored as a delta: a variable's value that is compressed."""
    return len(body.text) >= payload.ZSTD_FROM_BYTES and body.kind == VARIABLE_SET


def encode(database: Database, life: Life | None, body: Body) -> Encoded:
    """Return the stored form of a long body as far as it can be known before the lock."""
    if life is not None and is_large(body):
        chain = _chains(database).get(life, body.name)
        if chain is not None:
            return choose(chain, body.text)
    return Encoded(*payload.pack(body.text))


def settle(
    database: Database,
    cursor: Cursor,
    life: Life,
    base: int | None,
    seq: int,
    body: Body,
    encoded: Encoded,
) -> Encoded:
    """Return the stored form of a large body under the lock, where the event before it is known.

    What was decided before stays if the log is as it was then, or if the text that it builds on is
    still the one to build on: in memory it is the same object unless something was taken back.
    """
    chains = _chains(database)
    chain = chains.current(cursor, life, body.name, base)
    if encoded.chain is not chain:
        prefix = encoded.prefix
        if prefix is None or prefix is not chain.prefix(len(body.text)):
            full = encoded if prefix is None else None
            encoded = choose(chain, body.text, loader(cursor, life), full)
    chains.put(life, body.name, chain.followed_by(seq, body.text, encoded))
    return encoded


def loader(cursor: Cursor, life: Life) -> Load:
    """Return what reads the text of a version; None where it was forgotten or is damaged."""

    def load(version: Version) -> bytes | None:
        try:
            text = text_at(cursor, life.event_id(version.seq))
        except Corrupt:  # It does not keep anybody from writing; `verify` reports it.
            return None
        return None if text is None else text.encode()

    return load


class Chains:
    """The chains of the variables written last, as many as fit into memory.

    Only who holds the write lock puts one in; anybody may look.
    """

    def __init__(self) -> None:
        self._chains: dict[tuple[int, str | None], Chain] = {}
        self._held_bytes = 0

    def get(self, life: Life, name: str | None) -> Chain | None:
        """Return the chain of a name as it was known last, if it was."""
        return self._chains.get((life.number, name))

    def current(self, cursor: Cursor, life: Life, name: str | None, base: int | None) -> Chain:
        """Return the chain of a name whose newest event is `base`; what is not known is read."""
        chain = self.get(life, name)
        if chain is not None and chain.newest == base:
            return chain
        rows = _versions(cursor, life, base)
        newest = next(rows, None)
        if newest is None:
            return Chain()
        if chain is not None and chain.newest == newest.seq:
            return chain
        return _derived([newest, *_group(newest, rows)], chain)

    def put(self, life: Life, name: str | None, chain: Chain) -> None:
        """Remember the chain of a name, unless its texts are too large for that."""
        key = (life.number, name)
        self._drop(key)
        if chain.held_bytes > CACHE_BYTES_MAX:
            return
        self._chains[key] = chain  # now the last
        self._held_bytes += chain.held_bytes
        while self._held_bytes > CACHE_BYTES_MAX:
            self._drop(next(iter(self._chains)))

    def _drop(self, key: tuple[int, str | None]) -> None:
        chain = self._chains.pop(key, None)
        if chain is not None:
            self._held_bytes -= chain.held_bytes


def _chains(database: Database) -> Chains:
    cache = database.cache("deltas")
    found: Chains = cache.get("") or cache.setdefault("", Chains())
    return found


# What the rows say.


class _Row(NamedTuple):
    seq: int
    base: int | None
    encoding: int
    delta: int | None
    size: int
    stored_bytes: int


def _versions(cursor: Cursor, life: Life, base: int | None) -> Iterator[_Row]:
    """Yield the large versions of a name that a life recorded, from an event of it backwards."""
    for _ in range(_WALK_MAX):
        if base is None or base <= life.fork:
            return
        columns = cursor.execute(
            "select base, encoding, delta, size, octet_length(data) from event where id = ?",
            (life.event_id(base),),
        ).fetchone()
        if columns is None or columns[1] == payload.FORGOTTEN:
            return
        row = _Row(base, *columns)
        base = row.base
        if row.size >= payload.ZSTD_FROM_BYTES:  # else another value in between, or a deletion
            yield row


def _group(newest: _Row, earlier: Iterator[_Row]) -> Iterator[_Row]:
    """Yield the versions before the newest one down to a full copy.

    Where the newest is one itself, those are the full copies in a row before it.
    """
    if newest.encoding == payload.DELTA:
        for row in earlier:
            yield row
            if row.encoding != payload.DELTA:
                return
    else:
        full_copies = takewhile(lambda row: row.encoding != payload.DELTA, earlier)
        yield from islice(full_copies, PATIENCE - 1)


def _derived(rows: list[_Row], known: Chain | None) -> Chain:
    """Return the chain that rows show, the newest first; texts of a known one are used again."""
    number = next((at for at, row in enumerate(rows) if row.encoding != payload.DELTA), None)
    if number is None:  # There is no full copy among so many rows, so the next is one.
        return Chain(rows[0].seq)
    group = rows[number::-1]
    paths = _paths(group)
    steps = [RADIX ** (level + 1) for level in range(LEVELS)]
    anchors = [group[number // step * step] for step in steps]
    versions = {row.seq: Version(row.seq, row.size, paths[row.seq]) for row in anchors}
    versions |= {version.seq: version for version in known.anchors} if known else {}
    return Chain(
        rows[0].seq,
        number,
        tuple(versions[row.seq] for row in anchors),
        group[0].stored_bytes / group[0].size,
        0 if number else len(rows),
    )


def _paths(group: list[_Row]) -> dict[int, int]:
    """Return how many bytes of deltas lie on the read path of each version, the oldest first."""
    paths: dict[int, int] = {}
    for row in group:
        if row.delta is None:
            paths[row.seq] = 0
        else:  # A prefix from before the group is never built on, so that paths do not grow.
            paths[row.seq] = row.stored_bytes + paths.get(row.delta, payload.SIZE_BYTES_MAX)
    return paths
