"""The summary: how sessions grow, which variables are read and written most, and of which types."""

import sys
from datetime import timedelta

import attrs

from evstore.sqlite import statistics
from evstore.store import Store
from evstore.telemetry.access import ACCESSES

RECENT = timedelta(days=1)


@attrs.frozen
class Growth:
    """How much a session recorded in all, and in the last 24 hours.

    `text_bytes` is before encoding, `data_bytes` after; a fork counts what it recorded itself.
    """

    session: str | None
    uid: str
    events: int
    text_bytes: int
    data_bytes: int
    recent_events: int
    recent_bytes: int


@attrs.frozen
class Writes:
    """How often a variable of a session was set, and the bytes of text that this took in all."""

    session: str | None
    name: str
    count: int
    text_bytes: int


@attrs.frozen
class Access:
    """How often variables of a name were read in this process, while telemetry was on."""

    name: str
    count: int


@attrs.frozen
class Summary:
    """What a store is used for; each list begins with the most."""

    growth: list[Growth]
    written: list[Writes]
    accessed: list[Access]
    types: dict[str, int]


def summary(store: Store, limit: int = 10) -> Summary:
    """Return the sessions that grow most, the variables used most, and how many of each type.

    Growth and writes are of all lives, those that are over too; types are of the variables that
    living sessions have now. Reads the log a few times. `accessed` counts reads of single names in
    this process; beyond 10,000 names it is no longer exact for those that are rarely read.
    """
    limit = min(max(limit, 0), sys.maxsize)  # as far as SQLite counts
    engine = store.engine
    now_us, database = engine.clock(), engine.database
    with database.snapshot() as cursor:
        growth = statistics.growth(cursor, now_us - RECENT // timedelta(microseconds=1), limit)
        written = statistics.most_written(cursor, limit)
        types = statistics.types(database, cursor, now_us)
    return Summary(
        growth=[Growth(session, uid.hex(), *rest) for session, uid, *rest in growth],
        written=[Writes(*writes) for writes in written],
        accessed=[Access(*access) for access in ACCESSES.most_common(limit)],
        types=dict(types.most_common()),
    )
