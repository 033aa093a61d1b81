"""Listings of sessions as a store gives them: what is asked for is checked, and read in pages."""

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Literal

from evstore import values
from evstore.errors import Refused
from evstore.events import from_microseconds, to_microseconds
from evstore.results import SessionInfo, parent_of
from evstore.sqlite.engine import Engine
from evstore.sqlite.listing import Listed, Place, Wanted
from evstore.sqlite.lives import Life

Scalar = str | int | float | bool | None
Order = Literal["id", "updated"]
_SCALARS = (str, int, float, bool, type(None))
_ORDERS = ("id", "updated")
PAGE_SESSIONS = 100
_LOOK_AHEAD = 10  # times as far with each step of a listing


def wanted(
    prefix: str, where: Mapping[str, Scalar] | None, order: Order, *, over: bool
) -> Wanted | None:
    """Return what to list, or None where nothing can be that; raises Refused."""
    if order not in _ORDERS:
        raise Refused(f"order {order!r} is unknown: give 'id' or 'updated'")
    conditions = _conditions({} if where is None else where)
    if not all(map(_is_text, (prefix, *(name for name, _ in conditions)))):
        return None
    return Wanted(prefix, conditions, by_time=order == "updated", over=over)


def _conditions(where: Mapping[str, Scalar]) -> tuple[tuple[str, str], ...]:
    """Return the names of metadata with the texts of their values."""
    if not isinstance(where, Mapping):
        raise Refused(f"where={where!r} is no mapping: give names of metadata and their values")
    for name, value in where.items():
        if type(value) not in _SCALARS:
            kind = type(value).__name__
            raise Refused(
                f"where={{{name!r}: …}} has a value of type {kind}: "
                "give a text, a number, a truth value or None"
            )
    return tuple((name, values.encode(value).decode()) for name, value in where.items())


def _is_text(name: object) -> bool:
    """Tell whether UTF-8 can hold it: a lone surrogate is in no name and in no id."""
    return isinstance(name, str) and name == name.encode(errors="ignore").decode()


def place(seen: SessionInfo, life: Life) -> Place:
    """Return where a listing goes on after a session as it was seen, and the life that it is."""
    return Place(seen.id or "", life.number, to_microseconds(seen.updated_at))


def listing(
    engine: Engine, asked: Wanted, after: Place | None, limit: int | None
) -> Iterator[SessionInfo]:
    """Yield up to `limit` of the sessions that are wanted, after the place given."""
    page = PAGE_SESSIONS if limit is None else min(max(limit, 1), PAGE_SESSIONS)
    stop = sys.maxsize if limit is None else min(max(limit, 0), sys.maxsize)
    return islice(_pages(engine, asked, after, page), stop)


def _pages(engine: Engine, asked: Wanted, after: Place | None, page: int) -> Iterator[SessionInfo]:
    ahead = page
    while True:
        numbers, after = engine.session_numbers(asked, after, ahead)
        for first in range(0, len(numbers), page):
            yield from map(_info, engine.session_details(asked, numbers[first : first + page]))
        if after is None:
            return
        # What has to be sorted is sorted a few times only, however long the listing.
        ahead *= _LOOK_AHEAD


def _info(listed: Listed) -> SessionInfo:
    life, tip, messages, variables, expires_us = listed
    return SessionInfo(
        id=life.id,
        uid=life.uid.hex(),
        head=tip.head,
        created_at=from_microseconds(life.created_us),
        updated_at=from_microseconds(tip.time_us),
        parent=parent_of(life),
        messages=messages,
        variables=variables,
        expires_at=None if expires_us is None else from_microseconds(expires_us),
    )
