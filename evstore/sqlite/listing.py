"""Listings: which sessions there are, by id or by their newest change, and what is told of each."""

import sys
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from evstore.events import METADATA, VARIABLES
from evstore.sqlite.database import Cursor, Database
from evstore.sqlite.insert import inline_text
from evstore.sqlite.lives import Life, Tip, by_number, tip
from evstore.sqlite.read import Moment

_SURROGATES, _AFTER_SURROGATES = 0xD800, 0xE000  # no characters of their own
_LATEST = (1 << 63) - 1


class Wanted(NamedTuple):
    """Which sessions to list, living or over, and whether the newest change comes first.

    `where` is pairs: the name of a piece of metadata, and the text of its value.
    """

    prefix: str = ""
    where: tuple[tuple[str, str], ...] = ()
    by_time: bool = False
    over: bool = False


class Place(NamedTuple):
    """The session after which a listing goes on: `time_us` of its newest change as it was seen."""

    id: str
    number: int
    time_us: int = _LATEST


class Listed(NamedTuple):
    """What a listing tells about one life."""

    life: Life
    tip: Tip
    messages: int
    variables: int
    expires_us: int | None


_LIVING = "s.ended is null and (lease.expires is null or lease.expires > :now)"
_OVER = "(s.ended is not null or lease.expires <= :now)"
_LEASE = "left join lease on lease.session = s.number"
_BY_ID = f"session as s {_LEASE} where {_LIVING}"
# Looking up 100,000 times takes a third as long in the order in which the sessions were born.
_BY_NUMBER = f"session as s not indexed {_LEASE} where {_LIVING}"
_ENDED = "session as s where s.ended is not null"
# Sessions that have expired and were not swept yet are few.
_EXPIRED = (
    "lease cross join session as s on s.number = lease.session"
    " where lease.expires <= :now and s.ended is null"
)
_METADATA = f"v.family = {METADATA} and v.created is not null"
_HOLDERS = (
    f"variable as v cross join session as s on s.number = v.session {_LEASE}"
    f" where {_METADATA} and v.name = :name and v.value is :value and "
)
_CONDITIONS = (
    "not exists (select 1 from json_each(:conditions) as c where not exists"
    f" (select 1 from variable as v where v.session = s.number and {_METADATA}"
    " and v.name = c.value ->> 0 and v.value is c.value ->> 1))"
)
# A fork without events of its own is as old as its birth. What is damaged is read, to be told.
_TIME = (
    "coalesce((select time from batch where position = (select position from event"
    " where event.id between s.number << 32 and (s.number << 32) + 0xffffffff"
    " order by event.id desc limit 1)),"
    " (select time from batch where position = s.position), 0)"
)
_RARE = 1000  # sessions that share a value; to count more of them helps no choice


def numbers(
    database: Database, cursor: Cursor, wanted: Wanted, after: Place | None, limit: int, now_us: int
) -> tuple[Sequence[int], Place | None]:
    """Return the numbers of the sessions that are wanted, in order, and where to go on, or None.

    By id it is up to `limit` of them; by time all, since all have to be sorted. Some may not hold
    what they should where a value is long: `details` looks into it.
    """
    statement, bindings = _statement(cursor, wanted, after, limit, now_us)
    found = array("q", (number for (number, *_) in cursor.execute(statement, bindings)))
    if wanted.by_time or len(found) < limit:
        return found, None
    last = by_number(database, cursor, found[-1])
    return found, Place(last.id or "", last.number)


def _statement(
    cursor: Cursor, wanted: Wanted, after: Place | None, limit: int, now_us: int
) -> tuple[str, dict[str, Any]]:
    start = (wanted.prefix, 0)
    if after is not None and not wanted.by_time:
        start = max(start, (after.id, after.number))
    bindings = {
        "id": start[0],
        "number": start[1],
        "end": _after_prefix(wanted.prefix),
        "time": _LATEST if after is None else after.time_us,
        "last": _LATEST if after is None else after.number,
        "limit": limit,
        "now": now_us,
    }
    sources = [_BY_NUMBER if wanted.by_time and not wanted.prefix else _BY_ID]
    if wanted.over:
        sources = [_ENDED, _EXPIRED]
    bounds = "s.id < :end and (s.id, s.number) > (:id, :number)"
    if wanted.where:
        rarest, *others = _rarest_first(cursor, wanted.where)
        sources = [_HOLDERS + (_OVER if wanted.over else _LIVING)]
        bindings |= {"name": rarest[0], "value": _inline(rarest[1])}
        if others:
            bounds += f" and {_CONDITIONS}"
            bindings["conditions"] = _conditions(others)
    order = _TIME if wanted.by_time else "s.id"
    found = " union all ".join(
        f"select s.number, {order} from {source} and {bounds}" for source in sources
    )
    if not wanted.by_time:
        return f"{found} order by 2, 1 limit :limit", bindings
    return (
        # Materialized, so that each time is looked up once.
        f"with found(number, time) as materialized ({found}) select number from found"
        " where (time, number) < (:time, :last) order by time desc, number desc"
    ), bindings


def _rarest_first(cursor: Cursor, where: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the conditions, the one that the fewest sessions fulfil first."""

    def holders(condition: tuple[str, str]) -> int:
        count: int = cursor.execute(
            f"select count(*) from (select 1 from variable as v where {_METADATA}"
            " and v.name = ? and v.value is ? limit ?)",
            (condition[0], _inline(condition[1]), _RARE),
        ).get
        return count

    return sorted(where, key=holders)


def _inline(text: str) -> str | None:
    """Return what `variable.value` holds of a value: nothing of a long one."""
    return inline_text(text.encode())


def _conditions(where: Iterable[tuple[str, str]]) -> str:
    return orjson.dumps([(name, _inline(text)) for name, text in where]).decode()


def _after_prefix(prefix: str) -> str | bytes:
    """Return the first text after all that begin with a prefix; a blob follows every text."""
    for index in range(len(prefix) - 1, -1, -1):
        following = ord(prefix[index]) + 1
        if following <= sys.maxunicode:
            return prefix[:index] + chr(
                _AFTER_SURROGATES if following == _SURROGATES else following
            )
    return b""


def details(
    database: Database, cursor: Cursor, wanted: Wanted, page: Sequence[int], now_us: int
) -> list[Listed]:
    """Return what is told of a page of sessions; what is no longer wanted is passed over.

    A life that is over is told as of its last moment.
    """
    inline = f" and {_CONDITIONS}" if wanted.where else ""
    deadlines = dict(
        cursor.execute(
            "select s.number, lease.expires from json_each(:page) as p"
            f" cross join session as s on s.number = p.value {_LEASE}"
            f" where {_OVER if wanted.over else _LIVING}{inline}",
            {
                "page": orjson.dumps(list(page)).decode(),
                "conditions": _conditions(wanted.where),
                "now": now_us,
            },
        ).fetchall()
    )
    long = [(name, text) for name, text in wanted.where if _inline(text) is None]
    found = []
    for number in page:
        if number in deadlines:
            life = by_number(database, cursor, number)
            moment = Moment(database, cursor, life, now_us=None if wanted.over else now_us)
            if all(_holds(moment, *condition) for condition in long):
                variables, messages = moment.references(VARIABLES), moment.message_list()
                counts = len(messages), len(variables)
                found.append(Listed(life, tip(cursor, life), *counts, deadlines[number]))
    return found


def _holds(moment: Moment, name: str, text: str) -> bool:
    found = moment.variable(METADATA, name)
    return found is not None and found.text == text
