"""Running: which event loop the task at work belongs to."""

import asyncio
import sys
import threading

from evstore.aio.loops import AsyncioLoop, Loop
from evstore.errors import Refused


class _Here(threading.local):
    """The event loop that ran in this thread when it was last asked for."""

    loop: AsyncioLoop | None = None


_here = _Here()


def current() -> Loop:
    """Return the event loop of this task; raises Refused outside of asyncio and trio."""
    if "trio" in sys.modules:  # else nobody can be running it
        from evstore.aio.trios import loop_of_trio

        trio_loop = loop_of_trio()
        if trio_loop is not None:
            return trio_loop
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        raise Refused(
            "evstore.aio is awaited by tasks of asyncio or trio: use evstore.open elsewhere"
        ) from None
    if _here.loop is None or _here.loop.running is not running:
        _here.loop = AsyncioLoop(running)
    return _here.loop
