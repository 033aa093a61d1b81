"""OpenAI-style JSON Lines: one conversation on each line, or one message.

A conversation is `{"messages": [MESSAGE, …], …}`, as in files for fine-tuning (OpenAI documents
them under "Supervised fine-tuning"); what else stands there is metadata where it is short, and kept
as one event before the messages where it is not. A message is `{"role": …, "content": …, …}`; its
`session` (or `session_id`, `conversation_id`, `thread_id`) says where it belongs, and without one
all belong to a session named after the file. Its `ts` (or `timestamp`, `created_at`, `time`) is its
time, if it can be read as one. Every other key stays.

A conversation without an `id` (or one of the names of a session) is known by file name and line,
a message without an `id` by its number in its session. Another message under the same id is `ID/2`.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from evstore.transfer import records
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Message,
    Reported,
    earliest_us,
    is_message,
    time_us,
    told_apart,
)
from evstore.transfer.records import Line

NAMES = ("id", "session", "session_id", "conversation_id", "thread_id")
SESSIONS = NAMES[1:]
TIMES = ("ts", "timestamp", "created_at", "time")
SHORT_CHARACTERS = 1000


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the conversations of a file, then those whose messages stand on lines of their own."""
    changed_us, stem = records.changed_us(path), records.stem(path)
    sessions: dict[str, array[int]] = {}
    for line in records.lines(path):
        if isinstance(line, Reported):
            yield line
        elif type(line.value) is dict and type(line.value.get("messages")) is list:
            yield _conversation(line, f"{stem}/{line.number:04d}", changed_us)
        elif is_message(line.value):
            session = _take_name(line.value, SESSIONS) or stem
            sessions.setdefault(session, array("Q")).append(line.offset)
        else:
            reason = 'it is neither a message nor {"messages": [...]}: repair it, or drop it'
            yield Reported(f"line {line.number}", "a line", reason)
    for session, offsets in sessions.items():
        created_us = earliest_us(_messages(path, offsets), changed_us)
        items = told_apart(_messages(path, offsets))
        yield Conversation(session, session, created_us, items)


def _take_name(record: dict[str, Any], names: Iterable[str]) -> str | None:
    """Take out the first of some members that is a text or a whole number; return it as a text."""
    for name in names:
        value = record.get(name)
        if type(value) is int or (type(value) is str and value):
            return str(record.pop(name))
    return None


def _conversation(line: Line, default: str, changed_us: int) -> Conversation:
    record = line.value
    messages = record.pop("messages")
    session_id = _take_name(record, NAMES) or default
    metadata = {name: value for name, value in record.items() if _is_short(value)}
    rest = {name: value for name, value in record.items() if name not in metadata}
    front = [Item("record", None, (Kept(rest),))] if rest else []
    items = [_item(message, number) for number, message in enumerate(messages, 1)]
    created_us = earliest_us(items, changed_us)
    found = told_apart([*front, *items])
    return Conversation(session_id, session_id, created_us, found, metadata)


def _is_short(value: Any) -> bool:
    if type(value) is str:
        return len(value) <= SHORT_CHARACTERS
    return value is None or type(value) in (int, float, bool)


def _item(value: Any, number: int) -> Item:
    """Return a message as an item, with its own id and time where it has them."""
    if not is_message(value):
        return Item(str(number), None, (Kept(value),))
    name = next((name for name in TIMES if time_us(value.get(name)) is not None), None)
    at = None if name is None else time_us(value.pop(name))
    source_id = value.get("id")
    if type(source_id) is not str or not source_id:
        source_id = str(number)
    return Item(source_id, at, (Message(value),))


def _messages(path: str, offsets: Iterable[int]) -> Iterator[Item | Reported]:
    for line in records.lines_at(path, offsets):
        if isinstance(line, Line):
            if type(line.value) is dict:
                _take_name(line.value, SESSIONS)
            yield _item(line.value, line.number)
        else:
            yield line
