"""Writing behind: changes are taken at once and written by a thread, which never gives up."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from evstore import values
from evstore.attempts import attempt
from evstore.errors import Closed, Conflict, TooMany
from evstore.events import SETS, VARIABLES, Body, Writer, value_text

_log = logging.getLogger("evstore.agent")
PENDING_MAX = 10_000  # variables that wait to be written
PAUSE_S_MIN, PAUSE_S_MAX = 0.05, 5.0  # after a failure
ATTEMPTS = 12  # of an update that others get in the way of, with pauses that sum up to seconds
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
        """Set a variable to what a function makes of its value; return that. Raises Conflict."""

    def delete(self, session_id: str) -> None:
        """End the life of a session."""

    def ids(self) -> list[str]:
        """Return the ids of the living sessions, in order."""

    def sweep(self) -> int:
        """End what has expired; return how many sessions."""


class WriteBehind:
    """Sessions whose changes are visible here at once, and written soon after.

    Of several changes of a variable that wait together the last is written; the changes of a
    session are written in one batch. What cannot be written waits, is told, and is tried again; the
    changes of other sessions do not wait for that.
    """

    def __init__(self, sessions: Sessions, writer: Writer, on_failure: OnFailure | None) -> None:
        self._sessions = sessions
        self._writer = writer
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._pending: dict[str, dict[str, Body]] = {}
        self._count = 0
        # Whoever updates a variable leaves a mark, which is gone once somebody has changed that.
        self._marks: dict[tuple[str, str], object] = {}
        self._deleting: str | None = None  # the session that is being deleted below
        self._closed = False
        self._ended = False  # and nothing is written any more
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
        """Take what is said; raises TooMany where too much waits, and Closed."""
        with self._changed:
            self.check()
            waiting = self._pending.get(session_id, {})
            after = {**waiting, **{body.name or "": body for body in bodies}}
            count = self._count + len(after) - len(waiting)
            if count > PENDING_MAX:
                raise TooMany("changes that wait to be written", count, PENDING_MAX)
            for body in bodies:
                self._marks.pop((session_id, body.name or ""), None)
            self._put(session_id, after)
            self._changed.notify_all()

    def update(
        self, session_id: str, name: str, function: Callable[[Any], Any], default: Any
    ) -> Any:
        """Set a variable to what a function makes of its value; return that.

        It is atomic among the threads of this manager only. Raises Conflict.
        """
        key = session_id, name

        def act() -> Any:
            with self._changed:
                mark = self._marks.setdefault(key, object())
            text = self.read(session_id, name)
            value = function(default if text is None else values.decode(text))
            body = self._writer.set(VARIABLES, name, value)
            with self._changed:  # Not before, since what is below may take its time.
                if self._marks.get(key) is not mark or self._deleting == session_id:
                    raise Conflict(session_id, "the value that was read", "another", name)
                self.write(session_id, [body])
            return value

        try:
            return attempt(act, ATTEMPTS)
        except BaseException:
            self._marks.pop(key, None)
            raise

    # What is not put off.

    def create(self, session_id: str) -> datetime:
        """Return when a session was born, which is now if it is not there yet."""
        return self._sessions.create(session_id)

    def delete(self, session_id: str) -> None:
        """End the life of a session, and drop what waited to be written to it."""
        with self._writing:
            with self._changed:
                self._deleting, waited = session_id, self._waiting(session_id)
            try:
                self._sessions.delete(session_id)
                with self._changed:
                    self._drop(session_id, waited)
                    for key in [key for key in self._marks if key[0] == session_id]:
                        del self._marks[key]
            finally:
                self._deleting = None

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

    def check(self) -> None:
        """Raise Closed where nothing is written any more, or by a thread of the parent process.

        After a process fork nobody may wait for a lock here: it may have been held.
        """
        if self._closed or not self._thread.is_alive():
            raise Closed("nothing writes the changes any more", "make another session manager")

    def close(self) -> bool:
        """Write all that waits, and end; what cannot be written is told, and lost.

        Return whether that is over: the thread that does it, if it is the caller, cannot wait.
        """
        if not self._thread.is_alive():  # It has ended, or is the parent's.
            return True
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            # To join a thread may tell that it has ended, once Ctrl-C has come between.
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: self._ended)
            return self._ended

    def _ids_waiting(self) -> list[str]:
        with self._changed:
            return list(self._pending)

    def _run(self) -> None:
        try:
            self._write_on()
            for session_id in self._ids_waiting():
                self._write(session_id)
        finally:
            with self._changed:
                if self._count:
                    _log.error("%d changes could not be written and are lost", self._count)
                self._ended = True
                self._changed.notify_all()

    def _write_on(self) -> None:
        """Write what waits until it is closed; sessions that fail wait for the end of a pause."""
        failed: set[str] = set()
        pause_s, until_s = PAUSE_S_MIN, 0.0
        while True:
            with self._changed:
                left_s = until_s - time.monotonic() if failed else None
                self._changed.wait_for(
                    lambda: self._closed or not self._pending.keys() <= failed, left_s
                )
                if self._closed:
                    return
                if failed and until_s <= time.monotonic():
                    failed.clear()
                    pause_s = min(2 * pause_s, PAUSE_S_MAX)
                waiting = [session_id for session_id in self._pending if session_id not in failed]
            begun = not failed
            failed.update(each for each in waiting if self._write(each) is not None)
            if not failed:
                pause_s = PAUSE_S_MIN
            elif begun:
                until_s = time.monotonic() + pause_s

    def _write(self, session_id: str) -> Exception | None:
        """Write what waits of one session; return the error where that fails."""
        try:
            with self._writing:
                bodies = self._waiting(session_id)
                self._sessions.write(session_id, list(bodies.values()))
                self._drop(session_id, bodies)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and tried again
            self._tell(session_id, error)
            return error
        return None

    def _drop(self, session_id: str, bodies: Mapping[str, Body]) -> None:
        """Let these wait no longer; what was said after them does."""
        with self._changed:
            now = self._pending.get(session_id, {})
            left = {name: now[name] for name in now if now[name] is not bodies.get(name)}
            self._put(session_id, left)

    def _put(self, session_id: str, bodies: dict[str, Body]) -> None:
        """Let these be the changes of a session that wait."""
        self._count += len(bodies) - len(self._pending.get(session_id, {}))
        if bodies:
            self._pending[session_id] = bodies
        else:
            self._pending.pop(session_id, None)

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
