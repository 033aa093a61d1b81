"""Statistics: what grows, what is written most and of which types, as the log has it."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from evstore import values
from evstore.events import VARIABLES, value_text
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.lives import SEQ_BITS, Life, by_number
from evstore.sqlite.log import position_at
from evstore.sqlite.payload import ZSTD_FROM_BYTES
from evstore.sqlite.read import Moment
from evstore.sqlite.rows import text_at

_OWN = f"event.id between number << {SEQ_BITS} and (number << {SEQ_BITS}) + 0xffffffff"
_SET = "(select number from kind where name = 'variable.set')"
_LIVING = (
    "ended is null and not exists (select 1 from lease"
    " where lease.session = number and lease.expires <= :now)"
)


class Growth(NamedTuple):
    """How much a life recorded itself, and how much of that lately; sizes before encoding."""

    session: str | None
    uid: bytes
    events: int
    text_bytes: int
    stored_bytes: int
    new_events: int
    new_bytes: int


class Writes(NamedTuple):
    """How often a life set a variable, and how many bytes of text it took."""

    session: str | None
    name: str
    sets: int
    text_bytes: int


def growth(cursor: Cursor, since_us: int, limit: int) -> list[Growth]:
    """Return the lives that recorded most bytes, the largest first; reads the whole log once."""
    rows = cursor.execute(
        "select session.id, uid, count(*), sum(size) as bytes, sum(octet_length(data)),"
        " count(*) filter (where event.position > :since),"
        " coalesce(sum(size) filter (where event.position > :since), 0)"
        f" from session cross join event on {_OWN} group by number"
        " order by bytes desc, number limit :limit",
        {"since": position_at(cursor, since_us), "limit": limit},
    )
    return [Growth(*row) for row in rows]


def most_written(cursor: Cursor, limit: int) -> list[Writes]:
    """Return the variables that were set most often, in any life; reads the whole log once."""
    rows = cursor.execute(
        "select session.id, event.name, count(*) as writes, sum(size) as bytes"
        f" from session cross join event on {_OWN}"
        f" where event.kind = {_SET} and event.name is not null group by number, event.name"
        " order by writes desc, bytes desc, number, event.name limit :limit",
        {"limit": limit},
    )
    return [Writes(*row) for row in rows]


def types(database: Database, cursor: Cursor, now_us: int) -> Counter[str]:
    """Return how many variables of living sessions are of each type, as things stand.

    Short values are told by the projection; long ones are read, one after the other. What was
    forgotten has no type.
    """
    counts = Counter(values.type_name(text) for text in _own(cursor, now_us) if text is not None)
    forks = cursor.execute(
        f"select number from session where parent is not null and {_LIVING}", {"now": now_us}
    ).fetchall()
    for (number,) in forks:
        moment = Moment(database, cursor, by_number(database, cursor, number), now_us=now_us)
        found = moment.variables(VARIABLES)
        texts = (found[name].text for name in found)
        counts.update(values.type_name(text) for text in texts if text is not None)
    return counts


def _own(cursor: Cursor, now_us: int) -> Iterator[str | None]:
    """Yield the texts of the variables of the sessions that share no past."""
    rows = cursor.connection.cursor().execute(
        "select session.number, variable.seq, variable.operand, variable.value from session"
        f" join variable on variable.session = number and family = {VARIABLES}"
        f" where parent is null and {_LIVING} and variable.created is not null"
        " and (variable.operand is null or variable.operand > :now)",
        {"now": now_us},
    )
    for number, seq, operand, value in rows:
        if value is not None:
            yield value
        else:
            text = text_at(cursor, (number << SEQ_BITS) + seq)
            yield None if text is None else value_text(text, operand)


def compression(cursor: Cursor, life: Life, first: int, last: int) -> float:
    """Return which part is left of the texts of some events that are long enough to compress."""
    ratio: float = cursor.execute(
        "select total(octet_length(data)) / max(total(size), 1) from event"
        f" where id between ? and ? and size >= {ZSTD_FROM_BYTES}",
        (life.event_id(first), life.event_id(last)),
    ).get
    return ratio
