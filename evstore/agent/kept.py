"""Sessions of a manager through any persistence: loaded and saved whole, one change at a time."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from threading import RLock
from typing import Any

import attrs

from evstore import values
from evstore.agent.persistence import Persistence, SavedSession
from evstore.deadlines import Lease, Ttl, lease
from evstore.errors import TooMany
from evstore.events import (
    SETS,
    VARIABLES,
    Body,
    Writer,
    from_microseconds,
    to_microseconds,
    value_text,
)
from evstore.folding import StoredVariable, VariableStore

_log = logging.getLogger("evstore.agent")


class KeptSessions:
    """The sessions of a persistence, which belongs to this manager alone."""

    def __init__(self, persistence: Persistence, writer: Writer, ttl: Ttl | None) -> None:
        if ttl is not None:
            lease(ttl, writer.clock())  # which refuses what is none
        self._persistence = persistence
        self._writer = writer
        self._ttl = ttl
        self._lock = RLock()

    def create(self, session_id: str) -> datetime:
        """Return when a session was born, which is now if it is not there yet."""
        with self._lock:
            session = self._living(session_id)
            if session is None:
                session = self._born(session_id)
                self._persistence.save_session(session)
            else:
                self._renew(session)
            return session.created_at

    def read(self, session_id: str, name: str) -> bytes | None:
        """Return the text of a variable, or None where it is absent."""
        found = self._used(session_id).get(name)
        return None if found is None else found.text

    def read_all(self, session_id: str) -> Mapping[str, bytes]:
        """Return the texts of all variables, in order of name."""
        return {name: found.text for name, found in sorted(self._used(session_id).items())}

    def names(self, session_id: str) -> list[str]:
        """Return the names of all variables, in order."""
        return sorted(self._used(session_id))

    def write(self, session_id: str, bodies: Sequence[Body]) -> None:
        """Save a session with what is said; to delete what is absent changes nothing."""
        with self._lock:
            found = self._living(session_id)
            session = found or self._born(session_id)
            variables = self._changed(session.variables.variables, bodies)
            if variables != session.variables.variables:
                changed = VariableStore(variables, self._writer.limits)
                self._save(attrs.evolve(session, variables=changed))
            elif found is not None:
                self._renew(found)

    def update(
        self, session_id: str, name: str, function: Callable[[Any], Any], default: Any
    ) -> Any:
        """Set a variable to what a function makes of its value; return that."""
        with self._lock:
            text = self.read(session_id, name)
            value = function(default if text is None else values.decode(text))
            self.write(session_id, [self._writer.set(VARIABLES, name, value)])
            return value

    def delete(self, session_id: str) -> None:
        """Keep a session no longer."""
        with self._lock:
            self._persistence.delete_session(session_id)

    def ids(self) -> list[str]:
        """Return the ids of the living sessions, in order."""
        with self._lock:
            return sorted(filter(self._is_there, list(self._persistence.list_sessions())))

    def sweep(self) -> int:
        """Delete every session whose deadline has passed; return how many."""
        with self._lock:
            ids = list(self._persistence.list_sessions())
            return sum(not self._is_there(session_id) for session_id in ids)

    def _changed(
        self, before: Mapping[str, StoredVariable], bodies: Sequence[Body]
    ) -> Mapping[str, StoredVariable]:
        """Return variables as they are after what is said; raises TooMany."""
        now = from_microseconds(self._writer.clock())
        after = {**before}
        for body in bodies:
            name = body.name or ""
            if body.kind == SETS[VARIABLES]:
                created_at = before[name].created_at if name in before else now
                text = value_text(body.text, body.operand)
                after[name] = StoredVariable(text, time=now, created_at=created_at)
            else:
                after.pop(name, None)
        if len(before) < len(after) > self._writer.limits.variables_max:
            raise TooMany("variables", len(after), self._writer.limits.variables_max)
        return after

    def _is_there(self, session_id: str) -> bool:
        """Tell whether a session lives; where it cannot be read nobody knows that it does not."""
        try:
            return self._living(session_id) is not None
        except Exception as error:  # noqa: BLE001 - the others are not to suffer from it
            _log.warning("a session could not be read: %s", type(error).__name__)
            return True

    def _used(self, session_id: str) -> Mapping[str, StoredVariable]:
        """Return the variables of a session, whose deadline that moves."""
        with self._lock:
            session = self._living(session_id)
            if session is None:
                return {}
            self._renew(session)
            return session.variables.variables

    def _living(self, session_id: str) -> SavedSession | None:
        """Return a session; one that has expired is deleted."""
        session = self._persistence.load_session(session_id)
        if session is None or session.expires_at is None:
            return session
        if to_microseconds(session.expires_at) > self._writer.clock():
            return session
        self._persistence.delete_session(session_id)
        return None

    def _born(self, session_id: str) -> SavedSession:
        now_us = self._writer.clock()
        expires_at = None
        if self._ttl is not None:
            expires_at = from_microseconds(lease(self._ttl, now_us).expires_us)
        return SavedSession(session_id, from_microseconds(now_us), expires_at)

    def _renewed(self, session: SavedSession) -> SavedSession:
        """Return a session with its deadline renewed, or itself where that is not due."""
        if session.expires_at is None or self._ttl is None:
            return session
        now_us = self._writer.clock()
        ttl_us = lease(self._ttl, now_us).ttl_us
        before = Lease(to_microseconds(session.expires_at), ttl_us)
        if not before.is_due(now_us):
            return session
        after = before.renewed(now_us)
        return attrs.evolve(session, expires_at=from_microseconds(after.expires_us))

    def _save(self, session: SavedSession) -> None:
        self._persistence.save_session(self._renewed(session))

    def _renew(self, session: SavedSession) -> None:
        """Save the deadline of a session that is read, if it is due; no read fails for it."""
        renewed = self._renewed(session)
        if renewed is not session:
            try:
                self._persistence.save_session(renewed)
            except Exception as error:  # noqa: BLE001 - it is renewed by the next read, then
                _log.warning("a deadline was not renewed: %s", type(error).__name__)
