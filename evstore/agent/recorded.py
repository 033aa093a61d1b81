"""Sessions of a manager in a store: every change an event, and reads that are never stale."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from threading import Lock
from typing import Any

from evstore.agent.cache import Reading, VariableCache
from evstore.agent.persistence import StorePersistence
from evstore.batch import Batch
from evstore.errors import Conflict
from evstore.events import DELETIONS, VARIABLES, Body
from evstore.sides import Present, nothing

CREATED = "app.agent.session.created"
_ATTEMPTS = 12  # of an update that others get in the way of, with pauses that sum up to seconds


class RecordedSessions:
    """The sessions of a store, for any number of threads and processes."""

    def __init__(self, persistence: StorePersistence, cache_bytes_max: int) -> None:
        self._persistence = persistence
        self._store = persistence.store
        self._engine = persistence.store.engine
        self.cache = VariableCache(cache_bytes_max)
        self._updating = Lock()

    def create(self, session_id: str) -> datetime:
        """Return when a session was born, which is now if it is not there yet."""
        handle = self._persistence.writable(session_id)
        with suppress(Conflict), handle.batch(expect=0) as batch:
            batch.record(CREATED)
        created_at = handle.created_at
        assert created_at is not None  # It was born above, if not before.
        return created_at

    def read(self, session_id: str, name: str) -> str | None:
        """Return the text of a variable, or None where it is absent."""
        engine = self._engine
        now_us = engine.clock()
        known = self.cache.find(session_id, name, engine.unchanged_since(), now_us)
        if known is not None:
            return known.text
        stamp_ns = time.monotonic_ns()
        looking = engine.moment(session_id)
        with looking as moment:
            found = moment.variable(VARIABLES, name)
            life = None if moment.life is None else moment.life.number
            head = moment.seq
        text = None if found is None else found.text
        if found is None or found.operand is None:  # A deadline passes without a commit.
            reading = Reading(stamp_ns, life, head, looking.lease, text)
            self.cache.keep(session_id, name, reading)
        return text

    def read_all(self, session_id: str) -> Mapping[str, str]:
        """Return the texts of all variables, in order of name."""
        with self._engine.moment(session_id) as moment:
            found = moment.variables(VARIABLES)
        return {name: each.text for name, each in found.items() if each.text is not None}

    def names(self, session_id: str) -> list[str]:
        """Return the names of all variables, in order."""
        with self._engine.moment(session_id) as moment:
            return list(moment.references(VARIABLES))

    def write(self, session_id: str, bodies: Sequence[Body]) -> None:
        """Record what is said, in one batch; to delete what is absent is not recorded."""

        def decide(present: Present) -> list[Body]:
            return [body for body in bodies if body.kind != gone or is_there(present, body)]

        def is_there(present: Present, body: Body) -> bool:
            return present.variable(VARIABLES, body.name or "") is not None

        gone = DELETIONS[VARIABLES]
        deletes = any(body.kind == gone for body in bodies)
        if bodies:  # For nothing the lock is not taken: reads would not renew a lease meanwhile.
            self._persistence.writable(session_id).say(decide if deletes else bodies, nothing)

    def update(
        self, session_id: str, name: str, function: Callable[[Any], Any], default: Any
    ) -> Any:
        """Set a variable to what a function makes of its value; return that."""

        def change(batch: Batch) -> Any:
            batch.variables[name] = function(batch.variables.get(name, default))
            return batch.variables[name]

        with self._updating:  # Threads take turns; only other processes can get in the way.
            return self._persistence.writable(session_id).transact(change, _ATTEMPTS)

    def delete(self, session_id: str) -> None:
        """End the life of a session."""
        self._persistence.delete_session(session_id)

    def ids(self) -> list[str]:
        """Return the ids of the living sessions, in order."""
        return self._persistence.list_sessions()

    def sweep(self) -> int:
        """Record the expiry of every session whose deadline has passed; return how many."""
        return self._store.sweep()
