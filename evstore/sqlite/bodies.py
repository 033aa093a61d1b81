"""The messages that a life ever recorded, by ordinal: the n-th of them has the ordinal n - 1."""

from itertools import islice
from typing import Any

import orjson

from evstore.errors import Corrupt
from evstore.events import BODIES, KINDS, message_of
from evstore.sqlite.checkpoint import anchors_around, newest_anchor
from evstore.sqlite.database import Columns, Cursor, Database
from evstore.sqlite.lives import SEQ_MAX, Life, Segment
from evstore.sqlite.rows import text_at

_BODY_NUMBERS = tuple(KINDS.index(kind) + 1 for kind in sorted(BODIES))
_BODY = f"kind in {_BODY_NUMBERS}"
_TOGETHER = 100  # messages that are fetched before they are decoded
_FEW = 500  # messages, up to which a reading is expected to be carried on after them


class Bodies:
    """The messages of one life, as of one sequence, as one cursor sees them."""

    def __init__(self, database: Database, cursor: Cursor, life: Life, seq: int) -> None:
        self._places = database.cache("places")  # up to where the messages of a life were read
        self._cursor = cursor
        self._life = life
        self._seq = seq

    def recorded(self, first: int, end: int) -> list[tuple[int, str | None]]:
        """Return (seq, text of the event) of those with ordinal first … end - 1."""
        rows = self._rows(first, end)
        if rows:
            self._places[self._life.number] = (first + len(rows), rows[-1][0] & SEQ_MAX)
        cursor = self._cursor
        return [
            (event_id & SEQ_MAX, text if type(text) is str else text_at(cursor, event_id))
            for event_id, text in rows
        ]

    def contents(self, first: int, end: int) -> list[Any]:
        """Return those with ordinal first … end - 1, decoded."""
        if end - first > _FEW:
            before, _ = anchors_around(self._cursor, self._life, self._seq, first)
            stretches = self._life.until(self._seq, before.seq)
            if len(stretches) == 1:
                return self._decoded(stretches[0], first - before.messages, end - first)
        return [message_of(text) for _, text in self.recorded(first, end)]

    def _decoded(self, stretch: Segment, skip: int, limit: int) -> list[Any]:
        """Return many of one stretch, decoded as they come.

        Some are fetched, and then they are decoded: to do both in turns for each takes a fifth
        more, since the processor has to load the code of either anew.
        """
        # What is not stored as text comes as `$` and its id, since no JSON text begins like that.
        rows = self._cursor.execute(
            f"select iif(encoding, '$' || id, data) from event where id between ? and ? and {_BODY}"
            " order by id limit ? offset ?",
            (*stretch.ids, limit, skip),
        )
        others = self._cursor.connection.cursor()

        def message(text: str) -> Any:
            return message_of(text_at(others, int(text[1:])) if text.startswith("$") else text)

        loads, decoded = orjson.loads, list[Any]()
        try:
            while texts := [text for (text,) in islice(rows, _TOGETHER)]:
                # Text without a `$` is plain JSON, and its value needs no second look.
                if "$" not in "".join(texts):
                    decoded += [loads(text)["message"] for text in texts]
                else:
                    decoded += [message(t) if "$" in t else loads(t)["message"] for t in texts]
        except (ValueError, TypeError, KeyError) as error:
            path = str(self._cursor.connection.filename)
            raise Corrupt(path, f"an event carries no message ({error})") from error
        return decoded

    def ordinal(self, seq: int) -> int:
        """Return how many were recorded before the one that event `seq` carries."""
        anchor = newest_anchor(self._cursor, self._life, seq - 1)
        segments = self._life.until(seq - 1, anchor.seq)
        return anchor.messages + sum(self._count(segment) for segment in segments)

    def _rows(self, first: int, end: int) -> list[Columns]:
        """Return (event.id, text where it is stored as such) of some, in order."""
        ordinal, after = self._places.get(self._life.number, (None, 0))
        if ordinal == first:
            return self._after(after, 0, end - first)
        before, beyond = anchors_around(self._cursor, self._life, self._seq, first)
        if beyond is not None and 0 <= beyond.messages - end < first - before.messages:
            # They are nearer to the checkpoint after them, which lies in the same stretch.
            (stretch,) = self._life.until(beyond.seq, before.seq)
            return self._select(stretch, "desc", end - first, beyond.messages - end)[::-1]
        return self._after(before.seq, first - before.messages, end - first)

    def _after(self, after: int, skip: int, limit: int) -> list[Columns]:
        """Return the rows of up to `limit` of them, `skip` after those up to a sequence."""
        found: list[Columns] = []
        for segment in self._life.until(self._seq, after):
            rows = self._select(segment, "asc", limit - len(found), skip)
            found += rows
            if len(found) == limit:
                break
            if rows:
                skip = 0
            elif skip:
                skip -= self._count(segment)
        return found

    def _select(self, segment: Segment, order: str, limit: int, skip: int) -> list[Columns]:
        rows: list[Columns] = self._cursor.execute(
            "select id, iif(encoding, null, data) from event where id between ? and ?"
            f" and {_BODY} order by id {order} limit ? offset ?",
            (*segment.ids, limit, skip),
        ).fetchall()
        return rows

    def _count(self, segment: Segment) -> int:
        count: int = self._cursor.execute(
            f"select count(*) from event where id between ? and ? and {_BODY}", segment.ids
        ).get
        return count
