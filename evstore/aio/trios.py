"""The event loop of trio; imported only where trio runs, since nothing here requires it."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from evstore.aio.loops import Loop

_loop: trio.lowlevel.RunVar["TrioLoop"] = trio.lowlevel.RunVar("evstore.aio")


class TrioLoop(Loop):
    """A run of trio; what cannot be withdrawn is waited for, and the next checkpoint cancels."""

    def __init__(self) -> None:
        super().__init__()
        self._token = trio.lowlevel.current_trio_token()
        self._waiting: dict[Any, trio.lowlevel.Task] = {}

    def tell(self, tickets: list[Any]) -> None:
        """Have the tasks woken that wait for these tickets; called by any thread."""
        with suppress(trio.RunFinishedError):  # Nobody waits there any more.
            self._token.run_sync_soon(self._told, tickets)

    async def until_told(self, ticket: Any, withdraw: Callable[[Any], bool]) -> None:
        """Wait until a ticket is told of, or can be withdrawn as the task is cancelled."""

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            if not self._take_back(ticket) and not withdraw(ticket):
                return trio.lowlevel.Abort.FAILED
            del self._waiting[ticket]
            return trio.lowlevel.Abort.SUCCEEDED

        self._waiting[ticket] = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def pause(self, seconds: float) -> None:
        """Let some time pass."""
        await trio.sleep(seconds)

    def _soon(self, function: Callable[[], None]) -> None:
        self._token.run_sync_soon(function)

    def _wake(self, ticket: Any) -> None:
        task = self._waiting.pop(ticket, None)
        if task is not None:
            trio.lowlevel.reschedule(task)


def loop_of_trio() -> TrioLoop | None:
    """Return the run of trio that this task belongs to, if it is a task of trio."""
    if not trio.lowlevel.in_trio_task():
        return None
    try:
        return _loop.get()
    except LookupError:
        loop = TrioLoop()
        _loop.set(loop)
        return loop
