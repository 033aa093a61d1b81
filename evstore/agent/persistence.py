"""Persistence: where whole sessions of a manager are kept, as four verbs that anyone can write."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

import attrs

from evstore.deadlines import Ttl, lease
from evstore.errors import SessionNotFound
from evstore.events import VARIABLES, Body, Event, Said, from_microseconds
from evstore.folding import StoredVariable, VariableStore
from evstore.session import Session
from evstore.sides import Present
from evstore.sqlite.write import Decision
from evstore.store import Store


@attrs.frozen
class SavedSession:
    """A session as it is kept: its variables, and when it will have expired, if it will.

    `variables.to_map()` is a plain dict of their values.
    """

    id: str
    created_at: datetime
    expires_at: datetime | None = None
    variables: VariableStore = attrs.field(factory=VariableStore)


class Persistence(Protocol):
    """What keeps sessions for one manager, which calls it from one thread at a time.

    Whatever it raises is told to the caller, or, if the manager writes behind, to `on_failure`.
    Where all sessions are listed or swept, one that cannot be read is logged, and counts as living.
    """

    def save_session(self, session: SavedSession) -> None:
        """Keep a session as it is now, in place of what was kept of it."""

    def load_session(self, session_id: str) -> SavedSession | None:
        """Return a session as it was saved last, or None where there is none."""

    def delete_session(self, session_id: str) -> None:
        """Keep a session no longer; one that is not kept is no error."""

    def list_sessions(self) -> Iterable[str]:
        """Return the ids of all sessions that are kept."""


class NoPersistence:
    """Sessions in the memory of this process, for tests: they are gone when it ends."""

    def __init__(self) -> None:
        self._sessions: dict[str, SavedSession] = {}

    def save_session(self, session: SavedSession) -> None:
        """Keep a session as it is now."""
        self._sessions[session.id] = session

    def load_session(self, session_id: str) -> SavedSession | None:
        """Return a session as it was saved last."""
        return self._sessions.get(session_id)

    def delete_session(self, session_id: str) -> None:
        """Keep a session no longer."""
        self._sessions.pop(session_id, None)

    def list_sessions(self) -> list[str]:
        """Return the ids of all sessions."""
        return list(self._sessions)


class StorePersistence:
    """Sessions in an evstore store, every change an event.

    A manager does not save whole sessions there, but works in the store itself; the four verbs are
    for whoever moves sessions into a store or out of it. Sessions born here get the ttl, in place
    of that of the store.
    """

    def __init__(self, store: Store, ttl: Ttl | None = None) -> None:
        if ttl is not None:
            lease(ttl, store.engine.clock())  # which refuses what is none
        self.store = store
        self._ttl = ttl

    def append(self, session: Session, said: Said | Decision) -> Sequence[Event]:
        """Append what is said to a session; only if it is born by that it gets the ttl."""
        draft = session.drafted(said)
        if self._ttl is not None:
            draft.terms = draft.terms._replace(birth_ttl=self._ttl)
        (recorded,) = self.store.engine.append([draft])
        return recorded

    def save_session(self, session: SavedSession) -> None:
        """Make these the variables of a session, in one batch of what differs.

        It is born now, and with the deadline that sessions get here, if it is not there yet.
        """
        handle, kept = self.store.session(session.id), session.variables.variables
        said = {
            name: handle.writer.set(VARIABLES, name, value)
            for name, value in session.variables.to_map().items()
        }

        def decide(present: Present) -> list[Body]:
            now = {name: found.text for name, found in present.variables(VARIABLES).items()}
            gone = [handle.writer.delete(VARIABLES, name) for name in now if name not in said]
            differ = [said[name] for name in said if now.get(name) != kept[name].text.decode()]
            return gone + differ

        self.append(handle, decide)

    def load_session(self, session_id: str) -> SavedSession | None:
        """Return a session as it is now."""
        looking = self.store.engine.moment(session_id)
        with looking as moment:
            life, found = moment.life, moment.variables(VARIABLES)
        if life is None:
            return None
        stored = {
            name: StoredVariable(each.text.encode())
            for name, each in found.items()
            if each.text is not None
        }
        lease = looking.lease
        return SavedSession(
            session_id,
            from_microseconds(life.created_us),
            None if lease is None else from_microseconds(lease.expires_us),
            VariableStore(stored),
        )

    def delete_session(self, session_id: str) -> None:
        """End the life of a session; its log stays, readable by uid."""
        with suppress(SessionNotFound):
            self.store.delete(session_id)

    def list_sessions(self) -> list[str]:
        """Return the ids of the living sessions, in order."""
        return [info.id for info in self.store.sessions() if info.id is not None]
