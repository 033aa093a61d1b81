"""Writing behind: changes are taken at once and written by a thread, which never gives up."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from evstore import values
from evstore.errors import Closed, TooMany
from evstore.events import SETS, VARIABLES, Body, Writer, value_text

_log = logging.getLogger("evstore.agent")
PENDING_MAX = 10_000  # variables that wait to be written
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 5.0  # after a failure
Text = str | bytes
OnFailure = Callable[[str, Exception], object]


class Sessions(Protocol):
    """What a manager asks of the place where its sessions are; texts are those of values."""

    def create(self, session_id: str) -> datetime:
        """Return when a session was born, which is now if it is not there yet."""

    def read(self, session_id: str, name: str) -> Text | None:
        """Return the text of a variable, or None where it is absent."""

    def read_all(self, session_id: str) -> Mapping[str, Text]:
        """Return the texts of all variables, in order of name."""

    def names(self, session_id: str) -> list[str]:
        """Return the names of all variables, in order."""

    def write(self, session_id: str, bodies: Sequence[Body]) -> None:
        """Let happen what is said, all or none."""

    def update(
        self, session_id: str, name: str, function: Callable[[Any], Any], default: Any
    ) -> Any:
        """Set a variable to what a function makes of its value; return that."""

    def delete(self, session_id: str) -> None:
        """End the life of a session."""

    def ids(self) -> list[str]:
        """Return the ids of the living sessions, in order."""

    def sweep(self) -> int:
        """End what has expired; return how many sessions."""


class WriteBehind:
    """Sessions whose changes are visible here at once, and written soon after.

    Of several changes of a variable that wait together the last is written; the changes of a
    session are written in one batch. What cannot be written waits, is told, and is tried again.
    """

    def __init__(self, sessions: Sessions, writer: Writer, on_failure: OnFailure | None) -> None:
        self._sessions = sessions
        self._writer = writer
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._pending: dict[str, dict[str, Body]] = {}
        self._count = 0
        self._taken = 0  # how often changes were taken
        self._closed = False
        self._writing = threading.Lock()  # who holds it may change what is below
        self._thread = threading.Thread(target=self._run, name="evstore-write-behind", daemon=True)
        self._thread.start()

    # Reading: what waits here is newer than what is below.

    def read(self, session_id: str, name: str) -> Text | None:
        """Return the text of a variable, or None where it is absent."""
        with self._changed:
            body = self._pending.get(session_id, {}).get(name)
        return self._sessions.read(session_id, name) if body is None else _text(body)

    def read_all(self, session_id: str) -> Mapping[str, Text]:
        """Return the texts of all variables, in order of name."""
        pending = self._waiting(session_id)
        found = {**self._sessions.read_all(session_id)}
        for name, body in pending.items():
            found.pop(name, None)
            text = _text(body)
            if text is not None:
                found[name] = text
        return dict(sorted(found.items()))

    def names(self, session_id: str) -> list[str]:
        """Return the names of all variables, in order."""
        pending = self._waiting(session_id)
        names = {name for name in self._sessions.names(session_id) if name not in pending}
        return sorted(names | {name for name in pending if _text(pending[name]) is not None})

    def ids(self) -> list[str]:
        """Return the ids of the living sessions, in order."""
        with self._changed:
            born = [
                session_id
                for session_id, bodies in self._pending.items()
                if any(_text(body) is not None for body in bodies.values())
            ]
        return sorted({*born, *self._sessions.ids()})

    def _waiting(self, session_id: str) -> dict[str, Body]:
        # It is looked up before what is below, into which it may move in between.
        with self._changed:
            return dict(self._pending.get(session_id, {}))

    # Writing.

    def write(self, session_id: str, bodies: Sequence[Body]) -> None:
        """Take what is said; raises TooMany where too much waits, and Closed in a forked child."""
        with self._changed:
            if self._closed or not self._thread.is_alive():  # as in a forked child
                raise Closed("nothing writes the changes any more", "make another session manager")
            waiting = self._pending.get(session_id, {})
            after = {**waiting, **{body.name or "": body for body in bodies}}
            count = self._count + len(after) - len(waiting)
            if count > PENDING_MAX:
                raise TooMany("changes that wait to be written", count, PENDING_MAX)
            self._put(session_id, after)
            self._taken += 1
            self._changed.notify_all()

    def update(
        self, session_id: str, name: str, function: Callable[[Any], Any], default: Any
    ) -> Any:
        """Set a variable to what a function makes of its value; return that.

        It is atomic among the threads of this manager only.
        """
        while True:
            taken = self._taken
            text = self.read(session_id, name)
            value = function(default if text is None else values.decode(text))
            body = self._writer.set(VARIABLES, name, value)
            with self._changed:  # Not before, since what is below may take its time.
                if taken == self._taken:
                    self.write(session_id, [body])
                    return value

    # What is not put off.

    def create(self, session_id: str) -> datetime:
        """Return when a session was born, which is now if it is not there yet."""
        return self._sessions.create(session_id)

    def delete(self, session_id: str) -> None:
        """End the life of a session, and drop what waits to be written to it."""
        with self._writing:
            with self._changed:
                self._put(session_id, {})
            self._sessions.delete(session_id)

    def sweep(self) -> int:
        """End what has expired; return how many sessions."""
        return self._sessions.sweep()

    # The thread, and whoever does not want to wait for it.

    def flush(self) -> None:
        """Write all that waits; raises the error of what could not be written, and keeps it."""
        failure: Exception | None = None
        for session_id in self._ids_waiting():
            failure = self._write(session_id) or failure
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Write all that waits, and end; what cannot be written is told, and lost."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        for session_id in self._ids_waiting():
            self._write(session_id)
        if self._count:
            _log.error("%d changes could not be written and are lost", self._count)

    def _ids_waiting(self) -> list[str]:
        with self._changed:
            return list(self._pending)

    def _run(self) -> None:
        pause_s = PAUSE_S_MIN
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                waiting = list(self._pending)
            if all([self._write(session_id) is None for session_id in waiting]):  # noqa: C419
                pause_s = PAUSE_S_MIN
                continue
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _write(self, session_id: str) -> Exception | None:
        """Write what waits of one session; return the error where that fails."""
        try:
            with self._writing:
                bodies = self._waiting(session_id)
                self._sessions.write(session_id, list(bodies.values()))
                with self._changed:
                    now = self._pending.get(session_id, {})
                    left = {name: now[name] for name in now if now[name] is not bodies.get(name)}
                    self._put(session_id, left)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
            self._tell(session_id, error)
            return error
        return None

    def _put(self, session_id: str, bodies: dict[str, Body]) -> None:
        """Let these be the changes of a session that wait."""
        self._count += len(bodies) - len(self._pending.pop(session_id, {}))
        if bodies:
            self._pending[session_id] = bodies

    def _tell(self, session_id: str, error: Exception) -> None:
        _log.warning("changes could not be written and wait: %s", type(error).__name__)
        if self._on_failure is not None:
            try:
                self._on_failure(session_id, error)
            except Exception as failure:  # noqa: BLE001 - the changes still wait
                _log.warning("on_failure failed: %s", type(failure).__name__)


def _text(body: Body) -> Text | None:
    """Return the text of the value that a body sets, or None where it deletes."""
    return value_text(body.text, body.operand) if body.kind == SETS[VARIABLES] else None
