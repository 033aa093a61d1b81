"""Workers: a few threads that do for tasks what waits for the disk, there while there is any."""

import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from evstore.aio.running import current
from evstore.errors import Closed
from evstore.sqlite.schema import Tell

Result = TypeVar("Result")
IDLE_S = 2.0  # how long a thread stays without work


class _Job(Generic[Result]):
    """What is to be done, in the context of its task, and what came of it."""

    __slots__ = ("context", "error", "function", "result", "tell")

    def __init__(self, function: Callable[[], Result], tell: Tell) -> None:
        self.context = copy_context()
        self.function = function
        self.tell = tell
        self.result: Result | None = None
        self.error: BaseException | None = None

    def do(self) -> None:
        try:
            self.result = self.context.run(self.function)
        except BaseException as error:  # noqa: BLE001 - its task raises it
            self.error = error
        self.tell([self])

    def outcome(self) -> Result:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class Workers:
    """Up to so many threads; more jobs than that wait for their turn, in order."""

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._changed = threading.Condition()
        self._jobs: deque[_Job[Any]] = deque()
        self._threads = 0
        self._idle = 0
        self._closed = False

    async def read(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns; a task that is cancelled does not wait for that."""
        return await self._do(function, self._abandon)

    async def write(
        self, function: Callable[[], Result], stop: Callable[[], None] | None = None
    ) -> Result:
        """Return what a function returns; cancelled, a task waits for it if it has begun.

        `stop` is called then, for a function that can end early.
        """

        def withdraw(job: _Job[Any]) -> bool:
            is_withdrawn = self._withdraw(job)
            if stop is not None and not is_withdrawn:
                stop()
            return is_withdrawn

        return await self._do(function, withdraw)

    async def finish(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns, which is done even if the task is cancelled."""
        return await self._do(function, lambda _: False)

    async def _do(
        self, function: Callable[[], Result], withdraw: Callable[[_Job[Any]], bool]
    ) -> Result:
        loop = current()
        job = _Job(function, loop.tell_all)
        self._put(job)
        await loop.until_told(job, withdraw)
        return job.outcome()

    def close(self) -> None:
        """Let the threads end once all jobs are done, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _put(self, job: _Job[Any]) -> None:
        with self._changed:
            if self._closed:
                raise Closed
            if len(self._jobs) >= self._idle and self._threads < self._threads_max:
                thread = threading.Thread(target=self._run, name="evstore-worker", daemon=True)
                thread.start()  # Where there can be none, the job is nobody's.
                self._threads += 1
            self._jobs.append(job)
            self._changed.notify()

    def _withdraw(self, job: _Job[Any]) -> bool:
        with self._changed:
            if job not in self._jobs:
                return False
            self._jobs.remove(job)
            return True

    def _abandon(self, job: _Job[Any]) -> bool:
        self._withdraw(job)
        return True

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job.do()

    def _next(self) -> _Job[Any] | None:
        """Return the next job, or None where this thread is not needed any more."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs or self._closed, IDLE_S)
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads -= 1
            return None
