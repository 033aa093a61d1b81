"""The event loops that tasks of a store can run in, under one set of names for the tests."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import trio

Step = Callable[[], Awaitable[Any]]


class Asyncio:
    """The loop of the standard library."""

    name = "asyncio"

    def run(self, main: Step) -> Any:
        async def running() -> Any:
            return await main()

        return asyncio.run(running())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def together(self, *steps: Step) -> list[Any]:
        """Take steps at the same time; return what each returned, or the error that it raised."""
        return await asyncio.gather(*(step() for step in steps), return_exceptions=True)

    async def within(self, seconds: float, step: Step) -> bool:
        """Take a step that is cancelled after some time; tell whether it came to its end."""
        try:
            async with asyncio.timeout(seconds):
                await step()
        except TimeoutError:
            return False
        return True


class Trio:
    """The loop of trio."""

    name = "trio"

    def run(self, main: Step) -> Any:
        return trio.run(main)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def together(self, *steps: Step) -> list[Any]:
        """Take steps at the same time; return what each returned, or the error that it raised."""
        outcomes: list[Any] = [None] * len(steps)

        async def take(number: int, step: Step) -> None:
            try:
                outcomes[number] = await step()
            except Exception as error:  # noqa: BLE001 - it is what came of it
                outcomes[number] = error

        async with trio.open_nursery() as nursery:
            for number, step in enumerate(steps):
                nursery.start_soon(take, number, step)
        return outcomes

    async def within(self, seconds: float, step: Step) -> bool:
        """Take a step that is cancelled after some time; tell whether it came to its end."""
        with trio.move_on_after(seconds):
            await step()
            return True
        return False


LOOPS = (Asyncio(), Trio())
EventLoop = Asyncio | Trio
