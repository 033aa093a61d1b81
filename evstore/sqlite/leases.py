"""Leases: how long sessions live, renewed beside the log, and recorded there once they are over."""

from contextlib import suppress

from evstore.deadlines import Lease, Ttl, lease
from evstore.errors import EvstoreError
from evstore.sqlite.database import Database, Durability
from evstore.sqlite.insert import put_lease
from evstore.sqlite.lives import Life, by_number, by_uid, standing
from evstore.sqlite.write import Terms, expire

_SWEPT_TOGETHER = 100  # sessions in one commit, so that nobody waits long for the lock


def touch(
    database: Database, life: Life, ttl: Ttl | None, now_us: int, durability: Durability
) -> None:
    """Renew the lease of a session, or give it the one that a ttl asks for.

    Raises SessionExpired and SessionNotFound where its life is over.
    """
    with database.writing(durability) as cursor:
        now = standing(cursor, life)
        now.check(life.shown, now_us)
        if ttl is not None:
            put_lease(database, cursor, life, lease(ttl, now_us))
        elif now.lease is not None:
            put_lease(database, cursor, life, now.lease.renewed(now_us))


def renew_if_free(database: Database, life: Life, now_us: int) -> None:
    """Renew a lease that slides, unless somebody is writing: no read waits or fails for it."""
    with suppress(EvstoreError), database.writing("normal", wait_s=0) as cursor:
        now = standing(cursor, life)
        if now.lease is not None and not now.is_over(now_us):
            put_lease(database, cursor, life, now.lease.renewed(now_us))


def sweep(database: Database, terms: Terms) -> int:
    """Record `session.expired` for every session whose deadline has passed; return how many."""
    swept, now_us = 0, terms.clock()
    while True:
        with database.writing(terms.durability) as cursor:
            expired = cursor.execute(
                "select session from lease where expires <= ? order by expires limit ?",
                (now_us, _SWEPT_TOGETHER),
            ).fetchall()
            for (number,) in expired:
                life = by_number(database, cursor, number)
                expire(database, cursor, terms, life, terms.actor)
        swept += len(expired)
        if len(expired) < _SWEPT_TOGETHER:
            return swept


def copy_leases(database: Database, copy: Database, after_us: int = 0) -> None:
    """Give the sessions that live in a copy those of today's deadlines that are after a time."""
    with database.snapshot() as cursor:
        leases = cursor.execute(
            "select uid, expires, ttl from lease join session on number = session"
            " where expires > ?",
            (after_us,),
        ).fetchall()
    with copy.writing("normal") as cursor:
        for uid, expires_us, ttl_us in leases:
            life = by_uid(copy, cursor, uid)
            if life is not None and standing(cursor, life).ended is None:
                put_lease(copy, cursor, life, Lease(expires_us, ttl_us))
