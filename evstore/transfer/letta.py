"""Letta's agent files: each agent of a `.af` becomes a session, its memory blocks variables.

An agent file is a JSON object, or a text that holds one,

    {"agents": [AGENT, …], "blocks": [BLOCK, …], "tools": […], "groups": […], "files": […],
     "sources": […], "mcp_servers": […], "metadata": {…}, "created_at": …}
    AGENT: {"id": "agent-0", "name", "block_ids", "memory_blocks", "messages": [MESSAGE, …], …}
    BLOCK: {"id": "block-0", "label", "value", "limit", "read_only", …}
    MESSAGE: {"id": "message-0", "role", "content", "name", "tool_calls", "tool_call_id",
              "created_at", …}

or, in the older form, an agent itself, with its blocks in `core_memory`. A content is a list of
parts, {"type": "text", "text": …} and others, or a text, in which that list may be written as JSON
or as Python does. Letta documents it at docs.letta.com (guides/agents/agent-file) and in
letta/schemas/agent_file.py; checked against the agents of letta-ai/agent-file of January 2026.

The ids of a file count from 0 in each file, so a session is named after the file, `FILE/agent-0`,
and a message is known by its time and role. The rest of an agent is kept raw before its messages,
but for its secrets; the tools and all else that the file holds, in a session named `FILE`.
"""

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evstore.transfer import records
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Message,
    Reported,
    Variable,
    earliest_us,
    time_us,
    with_rest,
)

METADATA = ("name", "description", "agent_type", "timezone")
SECRETS = ("secrets", "tool_exec_environment_variables")
BLOCKS = ("memory_blocks", "core_memory")  # where an agent may hold its own
POSITIONS = ("id", "agent_id", "type")  # of a message: they say where it stands in the file
WRITTEN_CHARACTERS_MAX = 1 << 20  # of a list that is written in a text


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the session of the file and that of each agent."""
    stem, changed_us = records.stem(path), records.changed_us(path)
    found = records.whole(path)
    while type(found) is str:
        found = records.decoded(stem, found.encode("utf-8", "surrogatepass"))
    if isinstance(found, Reported):
        yield found
        return
    file = {"agents": [found]} if type(found) is dict and "agents" not in found else found
    agents = file.get("agents") if type(file) is dict else None
    if type(agents) is not list or not any(map(_is_agent, agents)):
        yield Reported(stem, "a file", "it holds no agents: export one of Letta's as a .af file")
        return
    blocks = {_name(block, ""): block for block in _objects(file.get("blocks"))}
    used = {name for agent in filter(_is_agent, agents) for name in _texts(agent.get("block_ids"))}
    items = list(_file_items(file, used))
    if items:
        created_us = time_us(file.get("created_at"))
        yield Conversation(stem, stem, changed_us if created_us is None else created_us, items)
    for number, agent in enumerate(agents):
        name = f"{stem}/{_name(agent, f'agent-{number}')}"
        if _is_agent(agent):
            yield from _agent(agent, name, blocks, changed_us)
        else:
            yield Reported(name, "an agent", "it has no messages: export it again")


def _is_agent(value: Any) -> bool:
    return type(value) is dict and type(value.get("messages")) is list


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if type(item) is dict] if type(value) is list else []


def _texts(value: Any) -> list[str]:
    return [item for item in value if type(item) is str] if type(value) is list else []


def _name(record: Any, otherwise: str) -> str:
    """Return what something calls itself, if it does."""
    fields = record if type(record) is dict else {}
    return next(iter(_texts([fields.get("id")])), otherwise)


def _file_items(file: Mapping[str, Any], used: set[str]) -> Iterator[Item]:
    """Yield what a file holds beside its agents and their blocks, each element by itself."""
    for section, value in file.items():
        if section in ("agents", "created_at") or not value:
            continue
        for number, element in enumerate(value if type(value) is list else [value]):
            name = _name(element, str(number))
            if section != "blocks" or name not in used:
                yield Item(f"{section}/{name}", None, (Kept({section: element}),))


def _agent(
    agent: dict[str, Any], name: str, blocks: Mapping[str, dict[str, Any]], changed_us: int
) -> Iterator[Conversation | Reported]:
    metadata = {key: agent[key] for key in METADATA if type(agent.get(key)) is str}
    items = [*_front(agent, name, blocks), *_messages(agent["messages"])]
    yield Conversation(name, name, earliest_us(items, changed_us), items, metadata)
    if any(_is_told(agent.get(place)) for place in SECRETS):
        reason = "secrets stay where they are, because what is recorded stays: set them anew"
        yield Reported(name, "secrets", reason)


def _is_told(secrets: Any) -> bool:
    return any(secrets.values()) if type(secrets) is dict else bool(secrets)


def _front(
    agent: dict[str, Any], name: str, blocks: Mapping[str, dict[str, Any]]
) -> Iterator[Item | Reported]:
    """Yield what comes before the messages of an agent: what is kept raw of it, and its blocks."""
    left = {"messages", *METADATA, *SECRETS, *BLOCKS}
    ids = _texts([message.get("id") for message in _objects(agent["messages"])])
    if agent.get("in_context_message_ids") == ids:
        left.add("in_context_message_ids")
    yield Item("agent", None, (Kept(_without(agent, left)),))
    own = [block for place in BLOCKS for block in _objects(agent.get(place))]
    for block_id in _texts(agent.get("block_ids")):
        if block_id in blocks:
            own.append(blocks[block_id])
        else:
            reason = "the file does not hold it: export the agent again"
            yield Reported(name, f"block {block_id}", reason)
    for number, block in enumerate(own):
        label = block.get("label")
        if type(label) is str and "value" in block:
            rest = Kept({"block": _without(block, {"id", "value"})})
            yield Item(f"blocks/{label}", None, (Variable(label, block["value"]), rest))
        else:
            yield Item(f"blocks/{number}", None, (Kept({"block": block}),))


def _without(record: Mapping[str, Any], left: Iterable[str]) -> dict[str, Any]:
    """Return a record without some of its members, and without those that say nothing."""
    return {key: record[key] for key in record if key not in left and record[key] is not None}


def _messages(messages: list[Any]) -> Iterator[Item]:
    seen: dict[str, int] = {}
    for number, record in enumerate(messages, 1):
        fields = record if type(record) is dict else {}
        at, role = time_us(fields.get("created_at")), fields.get("role")
        source_id = f"{number}" if at is None else f"{at}/{role}"
        seen[source_id] = seen.get(source_id, 0) + 1
        if seen[source_id] > 1:
            source_id += f"/{seen[source_id]}"
        said = _message(fields, at) if type(role) is str else Kept(record)
        yield Item(source_id, at, (said,))


def _message(record: dict[str, Any], at: int | None) -> Message:
    message = {"role": record["role"]}
    parts = _parts(record.get("content"))
    texts = [part["text"] for part in _objects(parts) if type(part.get("text")) is str]
    message["content"] = "\n".join(texts) if type(parts) is list else parts
    for name in ("name", "tool_call_id"):
        if type(record.get(name)) is str:
            message[name] = record[name]
    calls = _objects(record.get("tool_calls"))
    if calls and calls == record["tool_calls"]:
        message["tool_calls"] = calls
    left = {*message, *POSITIONS} | ({"created_at"} if at is not None else set())
    rest = {key: value for key, value in _without(record, left).items() if value != []}
    if type(parts) is list and not _is_text(parts):
        rest["content"] = parts
    return with_rest(message, rest)


def _parts(content: Any) -> Any:
    """Return the parts of a content, also where they are written in a text."""
    if type(content) is not str or len(content) > WRITTEN_CHARACTERS_MAX:
        return content
    if content[:2] == "[{" and content[-2:] == "}]":
        for parse in (json.loads, ast.literal_eval):
            try:
                found = parse(content)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                continue
            if all(type(part) is dict and type(part.get("type")) is str for part in found):
                return found
    return content


def _is_text(parts: list[Any]) -> bool:
    """Tell whether parts say no more than one text does."""
    if len(parts) != 1 or type(parts[0]) is not dict:
        return False
    said = _without(parts[0], ())
    return set(said) == {"type", "text"} and said["type"] == "text" and type(said["text"]) is str
