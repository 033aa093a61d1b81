"""ChatGPT's data export: the path to the current node is the session, other branches are forks.

`conversations.json`, or a folder with `conversations*.json`, is an array of

    {"id" or "conversation_id", "title", "create_time", "current_node", …,
     "mapping": {NODE: {"id", "parent": NODE or null, "children": […], "message": null or
      {"id", "author": {"role", "name"}, "create_time", "content": {"content_type", "parts": […]},
       "metadata", …}}}}

with times in seconds. OpenAI documents none of it; checked against what others found in exports up
to 2026 (mitkury/chatgpt-export-parser, TomzxCode/llm-conversations-viewer). A text becomes the
`content` of a message; of other contents the text in them does, where there is any, and the whole
stands under `source`. Title, model and time of the conversation become metadata.
"""

import os
from collections.abc import Iterator
from glob import escape, glob
from typing import Any

from evstore.errors import Unavailable
from evstore.transfer import records
from evstore.transfer.branches import Path, paths
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Reported,
    earliest_us,
    time_us,
    with_rest,
)

METADATA = ("title", "default_model_slug", "gizmo_id", "create_time")


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield each conversation and, right after it, its branches."""
    for file in _files(path):
        changed_us = records.changed_us(file)
        for number, record in enumerate(records.elements(file), 1):
            if isinstance(record, Reported):
                yield record
            else:
                yield from _conversations(record, f"conversation {number}", changed_us)


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    found = sorted(glob(os.path.join(escape(path), "conversations*.json")))
    if not found:
        raise Unavailable(path, "it holds no conversations.json: name the folder of an export")
    return found


def _conversations(record: Any, where: str, changed_us: int) -> Iterator[Conversation | Reported]:
    fields = record if type(record) is dict else {}
    mapping = fields.get("mapping")
    source = fields.get("conversation_id") or fields.get("id")
    if type(mapping) is not dict or type(source) is not str:
        reason = "it has no id, or no mapping of messages: export it again"
        yield Reported(where, "a conversation", reason)
        return
    messages = {
        name: node["message"]
        for name, node in mapping.items()
        if type(node) is dict and node.get("message") is not None
    }
    parents = _parents(mapping, messages)
    current = _text(record.get("current_node"))
    if current not in messages:
        current = parents.get(current) or next(reversed(messages), None)
    created_us = time_us(record.get("create_time"))
    created_us = changed_us if created_us is None else created_us
    metadata = {name: record[name] for name in METADATA if record.get(name) is not None}
    found = list(paths({name: parents[name] for name in messages}, current or ""))
    sources = [source]
    for path in found or [Path(None, None, [])]:
        parent = None
        if path.parent is not None:
            parent = sources[path.parent], path.after
            sources.append(f"{source}/{path.nodes[0]}")
        items = [_item(name, messages[name]) for name in path.nodes]
        facts = metadata if parent is None else {}
        at = min(created_us, earliest_us(items, created_us))
        yield Conversation(sources[-1], sources[-1], at, items, facts, parent)
    lost = len(messages) - sum(len(path.nodes) for path in found)
    if lost:
        yield Reported(source, f"{lost} messages", "they go round in a circle: export it again")


def _parents(mapping: dict[str, Any], messages: dict[str, Any]) -> dict[str | None, str | None]:
    """Return which message each node follows: nodes without one are passed over."""
    found: dict[str | None, str | None] = {None: None}
    for start, node in mapping.items():
        passed = [start]
        following = _parent(node)
        while following in mapping and following not in messages and following not in found:
            found[following] = None  # where nodes without a message go round in a circle
            passed.append(following)
            following = _parent(mapping[following])
        if following not in messages:
            following = found.get(following)
        found.update(dict.fromkeys(passed, following))
    return found


def _parent(node: Any) -> str | None:
    return _text(node.get("parent")) if type(node) is dict else None


def _text(value: Any) -> str | None:
    return value if type(value) is str else None


def _item(name: str, record: Any) -> Item:
    """Return the item of a message; what its role and text do not say goes along as `source`."""
    author = record.get("author") if type(record) is dict else None
    if type(author) is not dict or type(author.get("role")) is not str:
        return Item(name, None, (Kept(record),))
    at = time_us(record.get("create_time"))
    content = record.get("content")
    message = {"role": author["role"], "content": _content(content)}
    said: dict[str, Any] = {"author": {"role": author["role"]}, "id": name}
    if type(author.get("name")) is str:
        message["name"] = said["author"]["name"] = author["name"]
    if at is not None:
        said["create_time"] = record["create_time"]
    said["content"] = {"content_type": "text", "parts": [message["content"]]}
    rest = {key: value for key, value in record.items() if key not in said or value != said[key]}
    return Item(name, at, (with_rest(message, rest),), message.get("name"))


def _content(content: Any) -> str:
    """Return the text in a content: its parts that are texts, or what it calls its text."""
    if type(content) is not dict:
        return ""
    parts = content.get("parts")
    texts = parts if type(parts) is list else [content.get("text")]
    return "\n".join(text for text in texts if type(text) is str)
