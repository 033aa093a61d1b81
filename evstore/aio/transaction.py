"""Transactions, for tasks: batches of several sessions that are recorded all, or none."""

import threading
from typing import Any, Self

from evstore import transaction
from evstore.aio.batches import commit
from evstore.aio.hands import Hands
from evstore.aio.session import Session
from evstore.batch import Batch


class Transaction:
    """A context manager that commits the batches begun in it, at consecutive positions.

    Where one of them cannot be recorded, for a Conflict or a limit, none is.
    """

    def __init__(self, hands: Hands, plain: transaction.Transaction) -> None:
        self._hands = hands
        self._plain = plain
        self._beginning = threading.Lock()

    async def batch(self, session: Session, **how: Any) -> Batch:
        """Begin a batch of a session of this store; takes what `Session.batch` takes.

        It can be written to until the transaction ends. Raises Closed outside of the transaction,
        and Refused for a session of another store, or one that has its batch already.
        """
        begun = list[Batch]()

        def begin() -> Batch:
            with self._beginning:
                begun.append(self._plain.batch(session.plain, **how))
                return begun[0].fetch()

        try:
            return await self._hands.write(begin)
        except BaseException:  # Cancelled, most often: nobody has it.
            for batch in begun:
                self._plain.drop(batch)
            raise

    async def __aenter__(self) -> Self:
        """Begin."""
        self._plain.__enter__()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        """Commit all batches, or none where the block raised."""
        await commit(self._hands, self._plain.end(), kind)
