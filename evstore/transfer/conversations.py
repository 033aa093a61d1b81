"""What a reader of a foreign format gives: conversations, and what of them cannot be given.

A reader is a module of `evstore.transfer` with one function, `read(path)`, that yields
Conversations and knows no store. It opens its source for reading only, runs nothing that it finds
there, and holds one conversation at a time. A record that it cannot read stops nothing: in its
place, among the conversations or among the items of one, comes a Reported.

Messages are the JSON objects that model APIs speak. Where a message says less than the record it
was made of, the rest of that record stands in the message under the key `source`; a record that is
no message at all is Kept, whole, as an event of the kind `app.imported.FORMAT`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from evstore.errors import Refused
from evstore.events import to_microseconds

# Numbers that could be a time count from 1970 in seconds, ms, µs or ns: which, their size tells.
_UNITS_US = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (1e20, 1e-3))


@attrs.frozen
class Reported:
    """What was not taken in, where it stands in the source, and why, with what to do about it."""

    where: str
    what: str
    reason: str


@attrs.frozen
class Message:
    """A message is added to the list."""

    message: Mapping[str, Any]


@attrs.frozen
class Cleared:
    """All messages so far leave the list, for it to be said anew."""


@attrs.frozen
class Variable:
    """A variable is set."""

    name: str
    value: Any


@attrs.frozen
class Unset:
    """A variable that was set is deleted."""

    name: str


@attrs.frozen
class Kept:
    """A record that is neither is kept whole, as data of an event `app.imported.FORMAT`."""

    record: Any


Said = Message | Cleared | Variable | Unset | Kept


@attrs.frozen
class Item:
    """What happened at one moment of a conversation: it is recorded as one batch.

    `source_id` names it within its conversation and all branches of that, and names the same thing
    when the source has grown. `time_us` is in µs since 1970, None where the source does not tell.
    """

    source_id: str
    time_us: int | None
    said: tuple[Said, ...]
    actor: str | None = None


@attrs.frozen
class Conversation:
    """A conversation, or a branch of one, whose items are read as they are asked for.

    `source` names it within its format and is the same when it is read again; `id` is the session
    id proposed. `created_us` is the time of items that have none and follow none that has one.
    `metadata` is recorded with the first item. A branch comes after the conversation that it
    branches off, with no other in between, and holds what follows `after`; its `parent` is
    (source of that conversation, source_id of that item, or None for its beginning). One that
    `is_apart` is a fork also where nothing else follows that item, and otherwise goes on there.
    """

    id: str
    source: str
    created_us: int | None
    items: Iterable[Item | Reported]
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    parent: tuple[str, str | None] | None = None
    is_apart: bool = False


def is_message(value: Any) -> bool:
    """Tell whether a value is a message as the store takes it: an object with a role."""
    return type(value) is dict and type(value.get("role")) is str


def message_or_kept(value: Any) -> Message | Kept:
    """Return a message as it is, and anything else as a record to keep."""
    return Message(value) if is_message(value) else Kept(value)


def with_rest(message: dict[str, Any], rest: Mapping[str, Any]) -> Message:
    """Return a message that carries the rest of its record under `source`."""
    if not rest:
        return Message(message)
    if "source" in message:
        rest = {**rest, "message.source": message["source"]}
    return Message({**message, "source": dict(rest)})


def tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    """Return a call of a tool, as messages of an assistant carry it."""
    call = {"type": "function", "function": {"name": name, "arguments": json_text(arguments)}}
    return call if call_id is None else {"id": call_id, **call}


def json_text(value: Any) -> Any:
    """Return a value as JSON in a text; a text, and what cannot be one, stays as it is."""
    try:
        return value if type(value) is str else json.dumps(value, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):
        return value


def time_us(value: Any) -> int | None:
    """Return the µs since 1970 that a number or an ISO 8601 text says, or None.

    A number counts seconds, ms, µs or ns, by its size; a text without a zone is in UTC.
    """
    if type(value) is str:
        try:
            time = datetime.fromisoformat(value)
            return to_microseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
        except (ValueError, OverflowError, Refused):
            return None
    if not (isinstance(value, int | float) and 0 < value < _UNITS_US[-1][0]) or value is True:
        return None
    factor = next(factor for size, factor in _UNITS_US if value < size)
    return round(value * factor)


def told_apart(items: Iterable[Item | Reported]) -> Iterator[Item | Reported]:
    """Yield items of a source; one that differs from another under its id is `ID/2`, and so on."""
    seen: dict[str, int] = {}  # a hash of what was said under each id
    counts: dict[str, int] = {}
    for item in items:
        if isinstance(item, Reported):
            yield item
            continue
        said, source_id = hash(repr(item.said)), item.source_id
        name, count = source_id, counts.get(source_id, 2)
        while seen.setdefault(name, said) != said:
            name, counts[source_id] = f"{source_id}/{count}", count
            count += 1
        yield attrs.evolve(item, source_id=name)


def earliest_us(items: Iterable[Item | Reported], otherwise_us: int) -> int:
    """Return the earliest time since 1970 that items have; where none has one, the other."""
    times = (item.time_us for item in items if isinstance(item, Item))
    return min((time for time in times if time is not None and time >= 0), default=otherwise_us)
