"""Conversations in a store: what a save changes becomes events, and every earlier list stays."""

import os
from contextlib import suppress
from typing import Any, Self

from evstore import store, values
from evstore.agent.storage import LIMITS, History, json_text
from evstore.errors import SessionNotFound
from evstore.events import Body, Said, message_of
from evstore.session import Session
from evstore.sides import Present, nothing

CREATED = "app.agent.conversation.created"  # what a conversation without messages begins with


class SqliteStorage:
    """Conversations in an evstore Store: `session(id)` has their history, and all that it can do.

    A path or a URL is opened, and closed by `close`; a Store that is given stays open. A session
    whose life has ended is absent, and its log stays readable by its uid.
    """

    def __init__(self, target: str | os.PathLike[str] | store.Store) -> None:
        self._owned = not isinstance(target, store.Store)
        self.store = target if isinstance(target, store.Store) else store.open(target)

    def session(self, session_id: str) -> Session:
        """Return the session underneath; raises BadName for what cannot be an id."""
        return self.store.session(LIMITS.check_session_id(session_id))

    def save(self, session_id: str, history: History) -> None:
        """Make this list the conversation of a session; raises NotStorable and TooLarge.

        In one batch, decided under the write lock, the messages from the first that differs are
        removed and those of this list appended; where nothing differs, nothing is written. Of
        several at once the last one wins. Raises Busy.
        """
        session = self.session(session_id)
        writer = session.writer
        wanted = [writer.add(message) for message in history]
        is_born = bool(wanted) or self.exists(session_id)

        def decide(present: Present) -> Said:
            stored = present.messages(0, present.message_count())
            kept = _shared([text for _, text in stored], wanted)
            for message in history[kept:]:
                json_text(message, writer)
            gone = [writer.remove(seq) for seq, _ in reversed(stored[kept:])]
            if len(gone) > kept:  # Then to begin anew takes fewer events.
                gone, kept = [writer.clear()], 0
            born = [] if is_born else [writer.record(CREATED, None)]
            return [*born, *gone, *wanted[kept:]]

        session.say(decide, nothing)

    def load(self, session_id: str) -> list[Any]:
        """Return the conversation as fresh objects; the empty list where there is none."""
        return self.session(session_id).messages[:]

    def delete(self, session_id: str) -> None:
        """End the life of a session, as `Store.delete` does; one that is not there is no error."""
        self.session(session_id)  # for its check of the id
        with suppress(SessionNotFound):
            self.store.delete(session_id)

    def list_sessions(self) -> list[str]:
        """Return the ids of all living sessions, sorted."""
        return [info.id for info in self.store.sessions() if info.id is not None]

    def exists(self, session_id: str) -> bool:
        """Tell whether a session is kept, be its list empty or not."""
        return self.session(session_id).id in self.store

    def close(self) -> None:
        """Close the store, if this storage has opened it."""
        if self._owned:
            self.store.close()

    def __enter__(self) -> Self:
        """Return the storage."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Close the store, if this storage has opened it."""
        self.close()


def _shared(stored: list[str | None], wanted: list[Body]) -> int:
    """Return how many messages two lists have in common from their beginning on, to the byte."""
    for index, (before, after) in enumerate(zip(stored, wanted, strict=False)):
        text = after.text.decode()
        if before != text and _message(before) != _message(text):  # It may be a replacement.
            return index
    return min(len(stored), len(wanted))


def _message(text: str | None) -> bytes:
    return values.encode(message_of(text))
