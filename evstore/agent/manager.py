"""Session managers: the variables of many sessions by their ids, cached, expiring, kept."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple, Self, overload

import attrs

from evstore import observing, values
from evstore.agent.behind import OnFailure, Sessions, WriteBehind
from evstore.agent.kept import KeptSessions
from evstore.agent.persistence import NoPersistence, Persistence, StorePersistence
from evstore.agent.recorded import RecordedSessions
from evstore.errors import Closed, Refused
from evstore.events import VARIABLES, Writer, to_microseconds
from evstore.limits import Limits
from evstore.store import Store
from evstore.store import open as open_store

_log = logging.getLogger("evstore.agent")
_NO_DEFAULT: Any = object()
DAY = timedelta(hours=24)
CACHE_BYTES_MAX = 64 << 20
SWEEP_INTERVAL_S = 60.0


class _Found(NamedTuple):
    """A variable as it is shown to whoever observes reads."""

    text: str


def _find(sessions: Sessions, session_id: str, name: str) -> _Found | None:
    text = sessions.read(session_id, name)
    return None if text is None else _Found(text if isinstance(text, str) else text.decode())


class SessionVariables(Mapping[str, Any]):
    """The variables of one session as they are whenever one is read, each when it is asked for."""

    def __init__(self, manager: "SessionManager", session_id: str) -> None:
        self._manager = manager
        self._id = session_id

    def __getitem__(self, name: str) -> Any:
        """Return the value; raises KeyError where the name is absent."""
        return self._manager.get_variable(self._id, name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in order."""
        return iter(self._manager.list_variables(self._id))

    def __len__(self) -> int:
        """Return how many variables there are."""
        return len(self._manager.list_variables(self._id))


@attrs.frozen
class ManagedSession:
    """A session that a manager has: its variables are read when they are asked for."""

    id: str
    created_at: datetime
    variables: SessionVariables = attrs.field(repr=False, eq=False)


class SessionManager:
    """The variables of many sessions; thread-safe, and a context manager that closes it.

    `persistence` is where they are kept: a path or an open Store, where every change is an event
    that is on the disk when the call returns, and what other processes write is seen at once;
    anything else with the verbs of `Persistence`; or, without it, the memory of this process.

    A session expires that nobody has used for `ttl` (seconds or a timedelta; None is never), if it
    was born here; what has expired is cleaned up every `sweep_interval_s`. `cache_bytes_max` bounds
    what is kept in memory of a store. `limits`, `clock` and `fallback` are as in `evstore.open`; a
    Store that is given has its own.

    With `write_behind`, changes are taken at once and written by a thread: a crash loses those that
    waited. What could not be written is logged, told to `on_failure(session_id, error)`, and tried
    again.
    """

    def __init__(
        self,
        persistence: Persistence | Store | str | os.PathLike[str] | None = None,
        *,
        ttl: float | timedelta | None = DAY,
        sweep_interval_s: float = SWEEP_INTERVAL_S,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        limits: Limits = Limits(),
        write_behind: bool = False,
        on_failure: OnFailure | None = None,
        clock: Callable[[], datetime] | None = None,
        fallback: Callable[[Any], Any] | None = None,
    ) -> None:
        _check_interval(sweep_interval_s)
        self._owned: Store | None = None
        if isinstance(persistence, str | os.PathLike):
            persistence = self._owned = open_store(
                persistence, ttl=ttl, limits=limits, clock=clock, fallback=fallback
            )
        if isinstance(persistence, Store):
            persistence = StorePersistence(persistence, ttl)
        if isinstance(persistence, StorePersistence):
            self._writer = persistence.store.session().writer
            self._sessions: Sessions = RecordedSessions(persistence, cache_bytes_max)
        else:
            self._writer = _writer(limits, fallback, clock)
            kept = NoPersistence() if persistence is None else persistence
            self._sessions = KeptSessions(kept, self._writer, ttl)
        self._behind: WriteBehind | None = None
        if write_behind:
            self._sessions = self._behind = WriteBehind(self._sessions, self._writer, on_failure)
        self._closing = threading.Event()
        self._sweeper = threading.Thread(
            target=self._sweep_at_times, args=(sweep_interval_s,), name="evstore-sweep", daemon=True
        )
        self._sweeper.start()

    # Variables.

    @overload
    def get_variable(self, session_id: str, name: str) -> Any: ...
    @overload
    def get_variable(self, session_id: str, name: str, default: Any) -> Any: ...
    def get_variable(self, session_id: str, name: str, default: Any = _NO_DEFAULT) -> Any:
        """Return the value of a variable, or the default; without one, KeyError where it is absent.

        A session that is not there has no variables.
        """
        sessions = self._checked(session_id)
        if (observer := observing.observer) is None:
            text = sessions.read(session_id, name)
            if text is not None:
                return values.decode(text)
        else:
            found = observer.read(VARIABLES, name, partial(_find, sessions, session_id, name))
            if found is not None:
                return observer.serialize("decode", partial(values.decode, found.text))
        if default is _NO_DEFAULT:
            raise KeyError(name)
        return default

    def has_variable(self, session_id: str, name: str) -> bool:
        """Tell whether a session has a variable."""
        return self._checked(session_id).read(session_id, name) is not None

    def get_all_variables(self, session_id: str) -> dict[str, Any]:
        """Return all variables of a session, in order of name, from one snapshot."""
        texts = self._checked(session_id).read_all(session_id)
        return {name: values.decode(text) for name, text in texts.items()}

    def list_variables(self, session_id: str, pattern: str = "*") -> list[str]:
        """Return the names that match a case-sensitive glob, in order; `*` crosses dots."""
        names = self._checked(session_id).names(session_id)
        return [name for name in names if fnmatchcase(name, pattern)]

    def set_variable(self, session_id: str, name: str, value: Any) -> None:
        """Set a variable; a session that is not there is born by it.

        Raises NotStorable, TooLarge, TooMany and BadName, and what the persistence raises.
        """
        self.set_variables(session_id, {name: value})

    def set_variables(self, session_id: str, variables: Mapping[str, Any]) -> None:
        """Set many variables, all or none, in one commit."""
        sessions = self._checked(session_id)
        bodies = [self._writer.set(VARIABLES, name, value) for name, value in variables.items()]
        sessions.write(session_id, bodies)
        size_bytes = sum(len(body.text) for body in bodies)
        _log.debug("set %d variables, %d bytes", len(bodies), size_bytes)

    def update_variable(
        self, session_id: str, name: str, function: Callable[[Any], Any], default: Any = None
    ) -> Any:
        """Set a variable to `function(its value, or the default)`, and return that.

        No change of others in between is lost: the function runs again then, so it must do nothing
        else. Raises Conflict where others never pause.
        """
        found = self._checked(session_id).update(session_id, name, function, default)
        _log.debug("updated a variable")
        return found

    def delete_variable(self, session_id: str, name: str) -> None:
        """Delete a variable; where there is none, nothing happens."""
        self._checked(session_id).write(session_id, [self._writer.delete(VARIABLES, name)])
        _log.debug("deleted a variable")

    # Sessions.

    def get_or_create(self, session_id: str) -> ManagedSession:
        """Return a session, which is born by this if it is not there."""
        created_at = self._checked(session_id).create(session_id)
        return ManagedSession(session_id, created_at, SessionVariables(self, session_id))

    def list_sessions(self) -> list[str]:
        """Return the ids of the living sessions, in order."""
        return self._open().ids()

    def delete_session(self, session_id: str) -> None:
        """End a session; where there is none, nothing happens. In a store its log stays."""
        self._checked(session_id).delete(session_id)
        _log.debug("deleted a session")

    def sweep(self) -> int:
        """Clean up the sessions that have expired; return how many. A thread does it at times."""
        return self._open().sweep()

    # Its life.

    def flush(self) -> None:
        """Write what waits to be written, if it writes behind; raises what that raises."""
        self._open()
        if self._behind is not None:
            self._behind.flush()

    def close(self) -> None:
        """Write what waits, and close the store if it was opened here.

        Where it was interrupted it can be done again, and has to be where `on_failure` did it: that
        is called by the thread that writes, which cannot wait for itself.
        """
        self._closing.set()
        self._sweeper.join()
        is_over = self._behind is None or self._behind.close()
        if is_over and self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        """Return the manager."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the manager."""
        self.close()

    def _open(self) -> Sessions:
        if self._closing.is_set():
            raise Closed("the session manager is closed", "make another")
        if self._behind is not None:
            self._behind.check()
        return self._sessions

    def _checked(self, session_id: str) -> Sessions:
        self._writer.limits.check_session_id(session_id)
        return self._open()

    def _sweep_at_times(self, interval_s: float) -> None:
        while not self._closing.wait(min(interval_s, threading.TIMEOUT_MAX)):
            try:
                swept = self._sessions.sweep()
                _log.debug("swept %d sessions", swept)
            except Exception as error:  # noqa: BLE001 - it is tried again next time
                _log.warning("sweeping failed: %s", type(error).__name__)


def _check_interval(interval_s: float) -> None:
    if type(interval_s) not in (int, float) or not interval_s > 0:
        raise Refused(f"sweep_interval_s={interval_s!r} is no interval: give seconds, more than 0")


def _writer(
    limits: Limits,
    fallback: Callable[[Any], Any] | None,
    clock: Callable[[], datetime] | None,
) -> Writer:
    now = datetime.now if clock is None else clock
    return Writer(limits, fallback, lambda: to_microseconds(now().astimezone()))
