"""Conversations move: what one storage holds another gets, and no later word is written over."""

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from evstore import values
from evstore.agent.storage import ConversationStorage, History, Message
from evstore.agent.stored import SqliteStorage
from evstore.errors import Taken
from evstore.transfer import export_lines, import_lines

Transform = Callable[[str, list[dict[str, Any]]], Iterable[Message]]


@attrs.frozen
class Migrated:
    """How many sessions and messages the new storage has from the old one, by now."""

    sessions: int
    messages: int


def migrate_sessions(
    old: ConversationStorage, new: ConversationStorage, transform: Transform | None = None
) -> Migrated:
    """Give the new storage all sessions of the old one, which stays as it is.

    `transform(session_id, history)` returns the messages to save. From store to store, unless there
    is something to transform, whole logs move: uids, times, forks and what was deleted. It may be
    run again, after a failure or for what is new in the old storage; a session that has gone on in
    the new one stays as it is there. Raises Taken for a session that the new storage has with other
    messages, and NotStorable for one that it cannot keep.
    """
    if transform is None and isinstance(old, SqliteStorage) and isinstance(new, SqliteStorage):
        import_lines(new.store, export_lines(old.store))
        counts = [info.messages for info in old.store.sessions()]
    else:
        counts = [_move(name, old, new, transform) for name in old.list_sessions()]
    return Migrated(len(counts), sum(counts))


def _move(
    session_id: str,
    old: ConversationStorage,
    new: ConversationStorage,
    transform: Transform | None,
) -> int:
    kept = old.load(session_id)
    history = kept if transform is None else list(transform(session_id, kept))
    wanted, there = _texts(history), _texts(new.load(session_id))
    if there != wanted[: len(there)] and wanted != there[: len(wanted)]:
        raise Taken(session_id)
    if len(there) < len(wanted) or not new.exists(session_id):
        new.save(session_id, history)
    return len(wanted)


def _texts(history: History) -> list[bytes]:
    return [values.encode(dict(message), root="message") for message in history]
