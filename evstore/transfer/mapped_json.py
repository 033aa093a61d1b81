"""Any JSON or JSON Lines, by a mapping that says where the conversations in it are.

A mapping is a small JSON object. Only `messages` has to be there; every path in it is either keys
with dots between them, `data.turns.0`, or a JSON Pointer (RFC 6901), `/data/turns/0`:

    {"conversations": PATH,     where the list (or object) of conversations is; without it, each
                                element of the array that the file is, or each of its values, is one
     "id": PATH or [PATH, …],   of a conversation; several are joined by "/"; without it, the name
                                of the file and the number, or the name in an object
     "created": PATH,           the time of messages that have none
     "metadata": {NAME: PATH},  what becomes metadata
     "variables": PATH,         an object whose members become variables, before the messages
     "messages": PATH,          where the list of messages of a conversation is
     "message_id": PATH,        of a message; without it, its number; of another with it, `ID/2`
     "role": PATH, "content": PATH, "time": PATH,    of a message
     "roles": {THEIRS: OURS}}   roles that have another name there

Without `role` and `content` a message stays as it is, and has to have a role. With them it consists
of these, and what else its record says is under `source`. What else a conversation says is kept as
one event before its messages.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from evstore.errors import Refused
from evstore.transfer import records
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Reported,
    Variable,
    earliest_us,
    is_message,
    message_or_kept,
    time_us,
    told_apart,
    with_rest,
)

_ABSENT = object()
_INDEX = re.compile("0|[1-9][0-9]{0,8}")
_PATHS = (
    "conversations",
    "created",
    "variables",
    "messages",
    "message_id",
    "role",
    "content",
    "time",
)
_EXAMPLE = '{"messages": "turns", "role": "speaker", "content": "text"}'

Steps = tuple[str, ...]


@attrs.frozen
class _Mapping:
    """A mapping that was checked: paths as their steps."""

    paths: dict[str, Steps]
    ids: list[Steps]
    metadata: dict[str, Steps]
    roles: dict[str, str]

    def at(self, record: Any, name: str) -> Any:
        """Return what a named path leads to, or _ABSENT, also where there is no such path."""
        return _at(record, self.paths[name]) if name in self.paths else _ABSENT


def read(path: str, mapping: Any) -> Iterator[Conversation | Reported]:
    """Yield the conversations of a file; raises Refused at once for a mapping that is none."""
    return _conversations(path, _checked(mapping))


def _checked(mapping: Any) -> _Mapping:
    if type(mapping) is not dict or "messages" not in mapping:
        raise Refused(f"the mapping does not say where the messages are: give one like {_EXAMPLE}")
    unknown = sorted(set(mapping) - {*_PATHS, "id", "metadata", "roles"})
    if unknown:
        known = ", ".join(sorted({*_PATHS, "id", "metadata", "roles"}))
        raise Refused(f"the mapping says {unknown[0]!r}, which means nothing: it may say {known}")
    if ("role" in mapping) != ("content" in mapping):
        raise Refused("the mapping says one of role and content: give both, or neither")
    ids = mapping.get("id", [])
    roles, metadata = mapping.get("roles", {}), mapping.get("metadata", {})
    for name, value in (("roles", roles), ("metadata", metadata)):
        if type(value) is not dict or not all(type(text) is str for text in value.values()):
            raise Refused(f"{name!r} in the mapping has to be an object of texts: correct it")
    return _Mapping(
        {name: _steps(name, mapping[name]) for name in _PATHS if name in mapping},
        [_steps("id", path) for path in (ids if type(ids) is list else [ids])],
        {name: _steps("metadata", path) for name, path in metadata.items()},
        roles,
    )


def _steps(name: str, path: Any) -> Steps:
    if type(path) is not str:
        raise Refused(f"{name!r} in the mapping has to be a path in text, like 'data.turns'")
    if not path.startswith("/"):
        return tuple(path.split(".")) if path else ()
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/"))


def _at(value: Any, steps: Iterable[str]) -> Any:
    for step in steps:
        if type(value) is list and _INDEX.fullmatch(step) and int(step) < len(value):
            value = value[int(step)]
        elif type(value) is dict and step in value:
            value = value[step]
        else:
            return _ABSENT
    return value


def _conversations(path: str, mapping: _Mapping) -> Iterator[Conversation | Reported]:
    changed_us, stem = records.changed_us(path), records.stem(path)
    for number, (name, record) in enumerate(_records(path, mapping), 1):
        default = f"{stem}/{number:04d}" if name is None else name
        if isinstance(record, Reported):
            yield record
            continue
        found = [_at(record, steps) for steps in mapping.ids]
        messages = mapping.at(record, "messages")
        if type(messages) is not list:
            steps = ".".join(mapping.paths["messages"])
            reason = f"there is no list of messages at {steps!r}: correct the mapping"
            yield Reported(default, "a conversation", reason)
        elif not all(type(part) in (int, str) for part in found):
            yield Reported(default, "a conversation", "it has no id there: correct the mapping")
        else:
            session_id = "/".join(map(str, found)) or default
            yield _conversation(record, messages, session_id, mapping, changed_us)


def _records(path: str, mapping: _Mapping) -> Iterator[tuple[str | None, Any]]:
    """Yield the conversations, each with its name where an object holds them."""
    steps = mapping.paths.get("conversations", ())
    if not steps:
        yield from ((None, record) for record in records.elements(path))
        return
    document = records.whole(path)
    found = document if isinstance(document, Reported) else _at(document, steps)
    if type(found) is dict:
        yield from found.items()
    elif type(found) is list:
        yield from ((None, record) for record in found)
    elif isinstance(found, Reported):
        yield None, found
    else:
        reason = f"there is no list or object at {'.'.join(steps)!r}: correct the mapping"
        yield None, Reported(records.stem(path), "the conversations", reason)


def _conversation(
    record: Any, messages: list[Any], session_id: str, mapping: _Mapping, changed_us: int
) -> Conversation:
    metadata = {name: _at(record, steps) for name, steps in mapping.metadata.items()}
    metadata = {name: value for name, value in metadata.items() if value is not _ABSENT}
    items = [_item(message, number, mapping) for number, message in enumerate(messages, 1)]
    created_us = time_us(mapping.at(record, "created"))
    otherwise_us = earliest_us(items, changed_us) if created_us is None else created_us
    front = _front(record, mapping)
    found = told_apart([*front, *items])
    return Conversation(session_id, session_id, otherwise_us, found, metadata)


def _front(record: Any, mapping: _Mapping) -> Iterator[Item]:
    """Yield what comes before the messages: what the mapping does not speak of, and variables."""
    variables = mapping.at(record, "variables")
    said = [mapping.paths["messages"], *mapping.metadata.values(), *mapping.ids]
    if type(variables) is dict:
        said.append(mapping.paths["variables"])
    rest = _without(record, said)
    if rest:
        yield Item("record", None, (Kept(rest),))
    if type(variables) is dict and variables:
        sets = tuple(Variable(name, value) for name, value in variables.items())
        yield Item("variables", None, sets)


def _without(record: Any, said: Iterable[Steps]) -> Any:
    """Return an object without its members that paths of one step lead to."""
    if type(record) is not dict:
        return record
    names = {steps[0] for steps in said if len(steps) == 1}
    return {name: value for name, value in record.items() if name not in names}


def _item(record: Any, number: int, mapping: _Mapping) -> Item:
    at = time_us(mapping.at(record, "time"))
    found = mapping.at(record, "message_id")
    source_id = str(found) if type(found) in (int, str) else str(number)
    said = [mapping.paths["time"]] if at is not None else []
    if "role" not in mapping.paths:
        message = _without(record, said)
        if is_message(message):
            message = {**message, "role": mapping.roles.get(message["role"], message["role"])}
        return Item(source_id, at, (message_or_kept(message),))
    role, content = mapping.at(record, "role"), mapping.at(record, "content")
    if type(role) is not str or content is _ABSENT:
        return Item(source_id, at, (Kept(record),))
    said += [mapping.paths["role"], mapping.paths["content"]]
    message = {"role": mapping.roles.get(role, role), "content": content}
    return Item(source_id, at, (with_rest(message, _without(record, said)),))
