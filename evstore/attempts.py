"""Attempts: what somebody else got in the way of is tried again, after a moment."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from evstore.errors import Busy, Conflict, Refused

Result = TypeVar("Result")
_PAUSE_S = 0.002


def attempt(act: Callable[[], Result], attempts: int) -> Result:
    """Return what `act` returns; on Conflict and Busy do it again, `attempts` times in all."""
    for pause_s in pauses(attempts):
        try:
            return act()
        except (Conflict, Busy):
            time.sleep(pause_s)
    return act()


def pauses(attempts: int) -> Iterator[float]:
    """Yield how long to pause, in seconds, after each attempt that failed but the last."""
    if attempts < 1:
        raise Refused("attempts has to be 1 or more")
    import random  # Its tables take long to make, for which no import of evstore need wait.

    for number in range(1, attempts):
        yield random.uniform(0, _PAUSE_S * 2**number)  # noqa: S311 - jitter
