"""Salts: bytes that nobody can guess, of which the system is asked for many at a time.

To ask for each alone costs an append 3 % of its time, and makes threads hand on the interpreter.
"""

import os

SALT_BYTES = 16
_DRAWN_TOGETHER = 256
_drawn: list[bytes] = []


def salt() -> bytes:
    """Return a salt that was never returned before, in this process or one that it forked from."""
    while True:
        try:
            return _drawn.pop()  # which no two threads do at the same time
        except IndexError:
            fresh = os.urandom(SALT_BYTES * _DRAWN_TOGETHER)
            starts = range(0, len(fresh), SALT_BYTES)
            _drawn.extend([fresh[start : start + SALT_BYTES] for start in starts])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)
