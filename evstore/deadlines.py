"""Deadlines: what a ttl means at a moment, and when a lease that slides is due for renewal."""

from datetime import datetime, timedelta
from typing import NamedTuple

from evstore.errors import Refused
from evstore.events import TIME_US_MAX, to_microseconds

Ttl = float | timedelta | datetime  # seconds, a duration, or an aware datetime
RENEWALS = 20  # a lease that slides is written down anew this often in its length, at most
_MICROSECOND = timedelta(microseconds=1)
_YEARS_MAX = 1000


class Lease(NamedTuple):
    """How long a session lives: until `expires_us`, and sliding by `ttl_us` where it has one."""

    expires_us: int
    ttl_us: int | None

    def is_due(self, now_us: int) -> bool:
        """Tell whether it is worth renewing: it slides, and did so a while ago."""
        if self.ttl_us is None:
            return False
        return now_us - (self.expires_us - self.ttl_us) >= self.ttl_us // RENEWALS

    def renewed(self, now_us: int) -> "Lease":
        """Return the lease as it is once used at a moment; one that is fixed stays."""
        return self if self.ttl_us is None else Lease(now_us + self.ttl_us, self.ttl_us)


def lease(ttl: Ttl, now_us: int) -> Lease:
    """Return the lease that a ttl gives now: a duration slides, a datetime is fixed.

    Raises Refused unless the deadline is still to come, at a moment that a datetime can say in UTC.
    """
    if isinstance(ttl, datetime):
        found = Lease(to_microseconds(ttl), None)
    else:
        duration_us = _duration(ttl) // _MICROSECOND
        found = Lease(now_us + duration_us, duration_us)
    if found.expires_us <= now_us:
        raise Refused(f"ttl={ttl!r} is over at once: give a deadline that is still to come")
    if found.expires_us > TIME_US_MAX:
        raise Refused(f"ttl={ttl!r} is later than any datetime in UTC: leave ttl out for never")
    return found


def _duration(ttl: float | timedelta) -> timedelta:
    try:
        duration = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
    except (TypeError, ValueError, OverflowError):
        duration = timedelta.max
    if isinstance(ttl, bool) or duration.days > 366 * _YEARS_MAX:
        raise Refused(f"ttl={ttl!r} is no duration: give seconds, a timedelta, or a datetime")
    return duration


def lease_after(before: Lease | None, ttl: Ttl | None, now_us: int) -> Lease | None:
    """Return the lease to write down with a batch, or None where the one before it will do.

    `ttl` is what the handle asks for; without it, a lease that slides is renewed when it is due.
    """
    if before is None:
        return None if ttl is None else lease(ttl, now_us)
    asked = before.renewed(now_us) if ttl is None else lease(ttl, now_us)
    if asked.ttl_us == before.ttl_us and asked.ttl_us is not None and not before.is_due(now_us):
        return None
    return None if asked == before else asked
