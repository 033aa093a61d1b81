"""Sessions of a manager in a store: every change an event, and reads that are never stale."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from threading import RLock
from typing import Any

from evstore.agent.behind import ATTEMPTS
from evstore.agent.cache import Reading, VariableCache
from evstore.agent.persistence import StorePersistence
from evstore.attempts import attempt
from evstore.errors import Conflict, SessionNotFound
from evstore.events import ABSENT, DELETIONS, VARIABLES, Body, Event, Said, from_microseconds
from evstore.sides import Present
from evstore.sqlite.read import Moment
from evstore.sqlite.write import Decision
from evstore.variables import value_of

CREATED = "app.agent.session.created"


class RecordedSessions:
    """The sessions of a store, for any number of threads and processes."""

    def __init__(self, persistence: StorePersistence, cache_bytes_max: int) -> None:
        self._persistence = persistence
        self._store = persistence.store
        self._engine = persistence.store.engine
        self.cache = VariableCache(cache_bytes_max)
        self._updating = RLock()  # since a function may update as well

    def create(self, session_id: str) -> datetime:
        """Return when a session was born, which is now if it is not there yet."""
        with self._engine.moment(session_id) as moment:
            life = moment.life

        def decide(now: Moment) -> Said:
            nonlocal life
            life = now.life
            return () if life else [self._store.writer.record(CREATED, None)]

        if life is None:
            events = self._append(session_id, decide)
            if life is None:
                return events[0].time
        return from_microseconds(life.created_us)

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
        # For nothing the lock is not taken: reads would not renew a lease meanwhile.
        if bodies and not self._append(session_id, decide if deletes else bodies):
            with self._engine.moment(session_id):  # That nothing was to be deleted is a use, too.
                pass

    def update(
        self, session_id: str, name: str, function: Callable[[Any], Any], default: Any
    ) -> Any:
        """Set a variable to what a function makes of its value; return that. Raises Conflict."""

        def act() -> Any:
            handle = self._store.session(session_id)
            found = handle.variable(VARIABLES, name)
            value = function(default if found is None else value_of(found))
            expected = ABSENT if found is None else found.seq
            body = self._store.writer.set(VARIABLES, name, value, expected)
            try:
                self._persistence.append(handle, [body])
            except SessionNotFound as error:
                raise Conflict(session_id, "the life that was read", "its end") from error
            return value

        self._engine.check()  # After a process fork a lock may be held by nobody.
        with self._updating:  # Threads take turns; only other processes can get in the way.
            return attempt(act, ATTEMPTS)

    def _append(self, session_id: str, said: Said | Decision) -> Sequence[Event]:
        return self._persistence.append(self._store.session(session_id), said)

    def delete(self, session_id: str) -> None:
        """End the life of a session."""
        self._persistence.delete_session(session_id)

    def ids(self) -> list[str]:
        """Return the ids of the living sessions, in order."""
        return self._persistence.list_sessions()

    def sweep(self) -> int:
        """Record the expiry of every session whose deadline has passed; return how many."""
        return self._store.sweep()
