"""Batches, for tasks: begun and committed without waiting for the disk on the event loop."""

from collections.abc import Sequence
from typing import Any

from evstore import session
from evstore.aio.hands import Hands
from evstore.batch import Batch, to_commit


async def commit(hands: Hands, batches: Sequence[Batch], raised: object) -> None:
    """Have batches committed together, unless their block has raised or none says anything."""
    said = to_commit(batches, raised)
    if said:
        await hands.commit(said)


class Block:
    """What `async with session.batch()` begins, and commits when the block ends well.

    In the block stands a plain Batch. The names and the list of messages were read at entry; a
    message itself is read when it is asked for, and so are `info` and the past: a page of the
    file or two, on the event loop. To read many, ask a view for them before.
    """

    def __init__(self, hands: Hands, plain: session.Session, how: dict[str, Any]) -> None:
        self._hands = hands
        self._plain = plain
        self._how = how
        self._batch: Batch | None = None

    async def __aenter__(self) -> Batch:
        """Begin."""
        self._batch = await self._hands.read(lambda: self._plain.batch(**self._how).fetch())
        return self._batch.__enter__()

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Commit all that was said, or nothing where the block raised."""
        assert self._batch is not None
        self._batch.end()
        await commit(self._hands, [self._batch], kind)
