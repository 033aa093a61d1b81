"""Transactions: batches of several sessions that become visible at once, or not at all."""

from collections.abc import Sequence
from typing import Any, Self

from evstore.batch import Batch, commit, to_commit
from evstore.errors import Closed, Refused
from evstore.session import Session
from evstore.sqlite.engine import Engine


class Transaction:
    """A context manager that commits the batches begun in it, at consecutive positions.

    Where one of them cannot be recorded, for a Conflict or a limit, none is.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batches: dict[str, Batch] = {}
        self._entered = False
        self._open = False

    def batch(self, session: Session, **how: Any) -> Batch:
        """Begin a batch of a session of this store; takes what `Session.batch` takes.

        It can be written to until the transaction ends. Raises Closed outside of the transaction,
        ReadOnly for a session of a handle that only reads, and Refused for a session of another
        store, or one that has its batch already.
        """
        if not self._open:
            raise Closed("the transaction is not open", "begin batches inside its with block")
        if session.id in self._batches:
            raise Refused(f"session {session.id!r} has a batch in this transaction: go on with it")
        batch = session.batch(**how)
        if batch.engine.identity != self._engine.identity:
            raise Refused("a transaction is one commit of one store: use a session of that store")
        batch.engine.writable()
        batch.join()
        self._batches[session.id] = batch
        return batch

    def drop(self, batch: Batch) -> None:
        """Forget a batch, whose session may then have another one."""
        batch.end()
        self._batches = {id: kept for id, kept in self._batches.items() if kept is not batch}

    def __enter__(self) -> Self:
        """Begin; raises Closed for a transaction that had its block."""
        if self._entered:
            raise Closed("the transaction had its block", "begin another one for another block")
        self._entered = self._open = True
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Commit all batches, or none where the block raised."""
        commit(self._engine, to_commit(self.end(), kind))

    def end(self) -> Sequence[Batch]:
        """Take no more; return the batches that were begun."""
        self._open = False
        for batch in self._batches.values():
            batch.end()
        return list(self._batches.values())
