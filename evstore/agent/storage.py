"""Conversation storages: a list of messages for each session id, kept alike wherever it lies."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import orjson

from evstore import values
from evstore.errors import NotStorable
from evstore.events import Writer
from evstore.limits import Limits

Message = Mapping[str, Any]
History = Sequence[Message]

LIMITS = Limits()  # of the storages that are no store, which has its own
WRITER = Writer(LIMITS)


@runtime_checkable
class ConversationStorage(Protocol):
    """What keeps conversations; each call is whole or has not happened, also among threads.

    A session id is a text of 1 to 255 characters without control characters; anything else is
    BadName. A message is a JSON object whose `role` is text, and every other key is kept as given.
    """

    def save(self, session_id: str, history: History) -> None:
        """Make this list the conversation of a session; raises NotStorable and TooLarge.

        What JSON cannot hold exactly (bytes, tuples, nan, integers beyond 64 bits) is NotStorable,
        and then nothing is written.
        """

    def load(self, session_id: str) -> list[dict[str, Any]]:
        """Return the conversation as fresh objects; the empty list where there is none."""

    def delete(self, session_id: str) -> None:
        """Forget a session; one that is not there is no error."""

    def list_sessions(self) -> list[str]:
        """Return the ids of all sessions, sorted."""

    def exists(self, session_id: str) -> bool:
        """Tell whether a session is kept, be its list empty or not."""


class InMemoryStorage:
    """Conversations in the memory of this process: for tests, and for what may be forgotten."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._sessions: dict[str, bytes] = {}

    def save(self, session_id: str, history: History) -> None:
        """Make this list the conversation of a session; raises NotStorable and TooLarge."""
        LIMITS.check_session_id(session_id)
        text = b"[%b]" % b",".join(json_text(message) for message in history)
        with self._lock:
            self._sessions[session_id] = text

    def load(self, session_id: str) -> list[dict[str, Any]]:
        """Return the conversation as fresh objects; the empty list where there is none."""
        LIMITS.check_session_id(session_id)
        with self._lock:
            text = self._sessions.get(session_id, b"[]")
        history: list[dict[str, Any]] = orjson.loads(text)
        return history

    def delete(self, session_id: str) -> None:
        """Forget a session; one that is not there is no error."""
        LIMITS.check_session_id(session_id)
        with self._lock:
            self._sessions.pop(session_id, None)

    def list_sessions(self) -> list[str]:
        """Return the ids of all sessions, sorted."""
        with self._lock:
            return sorted(self._sessions)

    def exists(self, session_id: str) -> bool:
        """Tell whether a session is kept, be its list empty or not."""
        LIMITS.check_session_id(session_id)
        with self._lock:
            return session_id in self._sessions


def json_text(message: Message, writer: Writer = WRITER) -> bytes:
    """Return a message as JSON text; raises NotStorable where JSON cannot hold it exactly."""
    text = writer.message(message)
    if b'{"$' not in text:  # Neither a tag, nor what the store would have to tell from one.
        return text
    for key, value in message.items():
        if not _is_json({key: value}):
            detail = "holds what JSON cannot"
            remedy = "keep it as text, lists, numbers and names of text"
            raise NotStorable(f"message[{key!r}]", type(value).__name__, detail, remedy)
    return orjson.dumps(dict(message))


def _is_json(value: dict[Any, Any]) -> bool:
    """Tell whether a value that can be stored comes back from plain JSON as it was."""
    try:
        again = orjson.loads(orjson.dumps(value))
    except TypeError:
        return False
    return values.encode(again) == values.encode(value)
