"""Rows: how the payload of an event lies in the file, and the text it stands for."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import orjson

from evstore.errors import Corrupt
from evstore.sqlite import payload
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.lives import SEQ_BITS, SEQ_MAX


class Row(NamedTuple):
    """The payload of one event."""

    id: int
    encoding: int
    delta: int | None
    size: int
    data: str | bytes


_DELTAS_MAX = 64  # more than any writer stacks, so a longer path is an attack
_LEAF = 32
SELECT_ROW = "select id, encoding, delta, size, data from event where "


def kind_name(database: Database, cursor: Cursor, number: int) -> str:
    """Return the name of a kind."""
    kinds: dict[int, str] = database.cache("kinds")
    name = kinds.get(number)
    if name is None:
        found: dict[int, str] = dict(cursor.execute("select number, name from kind").fetchall())
        kinds.update(found)
        name = found.get(number)
    if name is None:
        raise Corrupt(database.path, f"there is no kind number {number}")
    return name


def text_of(cursor: Cursor, row: Row) -> str | None:
    """Return the text of an event from its row, or None where it was forgotten."""
    if row.encoding == payload.TEXT and type(row.data) is str:
        return row.data
    try:
        return _decoded(cursor, row)
    except Corrupt as error:
        path = str(cursor.connection.filename)
        raise Corrupt(path, error.reason, None, row.id & SEQ_MAX) from error


def _decoded(cursor: Cursor, row: Row) -> str | None:
    """Return the text of an event that is not stored as text; a delta builds on older ones."""
    deltas: list[Row] = []
    while row.encoding == payload.DELTA:
        deltas.append(row)
        if not 0 < (row.delta or 0) < row.id & SEQ_MAX or len(deltas) > _DELTAS_MAX:
            raise Corrupt("", f"a delta is against sequence {row.delta}")
        row = _row_at(cursor, (row.id >> SEQ_BITS << SEQ_BITS) + (row.delta or 0))
    text = _whole(row)
    for delta in reversed(deltas):
        if text is None or type(delta.data) is not bytes:
            raise Corrupt("", "a delta has nothing to build on")
        text = payload.expand(delta.data, delta.size, text)
    return None if text is None else payload.decode(text)


def _whole(row: Row) -> bytes | None:
    if row.encoding == payload.TEXT and type(row.data) is str:
        return row.data.encode()
    if row.encoding == payload.ZSTD and type(row.data) is bytes:
        return payload.expand(row.data, row.size)
    if row.encoding == payload.FORGOTTEN and type(row.data) is bytes and len(row.data) == _LEAF:
        return None
    raise Corrupt("", f"its data does not fit its encoding {row.encoding}")


def _row_at(cursor: Cursor, event_id: int) -> Row:
    row = cursor.execute(SELECT_ROW + "id = ?", (event_id,)).fetchone()
    if row is None:
        path = str(cursor.connection.filename)
        raise Corrupt(path, "an event is missing", None, event_id & SEQ_MAX)
    return Row(*row)


def text_at(cursor: Cursor, event_id: int) -> str | None:
    """Return the text of the event with this id."""
    return text_of(cursor, _row_at(cursor, event_id))


def texts_at(cursor: Cursor, ids: Iterable[int]) -> dict[int, str | None]:
    """Return the texts of many events by id."""
    wanted = sorted(ids)
    return dict(zip(wanted, texts_of(cursor, wanted), strict=True))


def texts_of(cursor: Cursor, ids: Sequence[int]) -> list[str | None]:
    """Return the texts of many events, in the order of their ids."""
    rows = cursor.execute(
        "select iif(encoding, null, data) from json_each(?) as wanted"
        " left join event on event.id = wanted.value",
        (orjson.dumps(ids).decode(),),
    ).fetchall()
    return [
        text if type(text) is str else text_at(cursor, event_id)
        for event_id, (text,) in zip(ids, rows, strict=True)
    ]
