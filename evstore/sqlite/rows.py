"""Rows: how the payload of an event lies in the file, and the text it stands for."""

from collections.abc import Iterable
from typing import NamedTuple

import orjson

from evstore.errors import Corrupt
from evstore.sqlite import payload
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.lives import SEQ_MAX


class Row(NamedTuple):
    """The payload of one event."""

    id: int
    encoding: int
    delta: int | None
    size: int
    data: str | bytes


SELECT_ROW = "select id, encoding, delta, size, data from event where "


def kind_name(database: Database, cursor: Cursor, number: int) -> str:
    """Return the name of a kind."""
    kinds: dict[int, str] = database.cache("kinds")
    if number not in kinds:
        kinds.update(cursor.execute("select number, name from kind").fetchall())
    return kinds[number]


def text_of(cursor: Cursor, row: Row) -> str | None:
    """Return the text of an event from its row, or None where it was forgotten.

    A delta is expanded against the text it was made from, which is never newer than itself.
    """
    try:
        if row.encoding == payload.TEXT:
            if type(row.data) is not str:
                raise Corrupt("", "a text is not stored as text")
            return row.data
        if row.encoding == payload.FORGOTTEN:
            return None
        if type(row.data) is not bytes:
            raise Corrupt("", "compressed data is not binary")
        if row.delta is None:
            return payload.expand(row.data, row.size)
        if not 0 < row.delta < row.id & SEQ_MAX:
            raise Corrupt("", f"a delta is against sequence {row.delta}")
        prefix = text_at(cursor, row.id - (row.id & SEQ_MAX) + row.delta)
        if prefix is None:
            raise Corrupt("", "a delta is against a forgotten event")
        return payload.expand(row.data, row.size, prefix)
    except Corrupt as error:
        reason = error.reason
        raise Corrupt(str(cursor.connection.filename), reason, None, row.id & SEQ_MAX) from error


def text_at(cursor: Cursor, event_id: int) -> str | None:
    """Return the text of the event with this id."""
    row = cursor.execute(SELECT_ROW + "id = ?", (event_id,)).fetchone()
    if row is None:
        path = str(cursor.connection.filename)
        raise Corrupt(path, "an event is missing", None, event_id & SEQ_MAX)
    return text_of(cursor, Row(*row))


def texts_at(cursor: Cursor, ids: Iterable[int]) -> dict[int, str | None]:
    """Return the texts of many events by id."""
    wanted = orjson.dumps(sorted(ids)).decode()
    rows = cursor.execute(
        SELECT_ROW + "id in (select value from json_each(?))", (wanted,)
    ).fetchall()
    return {
        row[0]: row[4] if row[1] == payload.TEXT else text_of(cursor, Row(*row)) for row in rows
    }
