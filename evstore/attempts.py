"""Attempts: what somebody else got in the way of is tried again, after a moment."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from evstore.errors import Busy, Conflict, Refused

Result = TypeVar("Result")
_PAUSE_S = 0.002


def attempt(act: Callable[[], Result], attempts: int) -> Result:
    """Return what `act` returns; on Conflict and Busy do it again, `attempts` times in all."""
    if attempts < 1:
        raise Refused("attempts has to be 1 or more")
    for number in range(1, attempts):
        try:
            return act()
        except (Conflict, Busy):
            time.sleep(random.uniform(0, _PAUSE_S * 2**number))  # noqa: S311 - jitter
    return act()
