"""A LangChain message becomes the JSON object that model APIs speak, and nothing of it is lost.

LangChain writes a message as its fields, `{"type": "human" | "ai" | "system" | "tool" | …,
"content", "tool_calls", "id", "additional_kwargs", …}`; checked with langchain-core 1.7.2. Fields
that say no more than their default does are left out, all others stand under `source`.
"""

from collections.abc import Mapping
from typing import Any

from evstore.transfer.conversations import json_text, tool_call, with_rest

ROLES = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "function",
}
_CALL = {"name", "args", "id", "type"}
_DEFAULTS = ({"example": False}, {"status": "success"}, {"type": "tool_call"})


def as_message(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the message that fields say, or None where they are no message.

    A `type` may also be the name of a class, like `AIMessageChunk`.
    """
    kind = fields.get("type")
    if type(kind) is not str:
        return None
    short = kind.removesuffix("Chunk").removesuffix("Message").lower()
    role = fields.get("role") if short == "chat" else ROLES.get(short)
    if type(role) is not str:
        return None
    message = {"role": role, "content": fields.get("content")}
    said = {"content", "role" if short == "chat" else ""}
    if kind in ROLES:
        said.add("type")
    for name in ("name", "tool_call_id"):
        if type(fields.get(name)) is str:
            message[name] = fields[name]
            said.add(name)
    calls = _calls(fields.get("tool_calls"))
    if calls:
        message["tool_calls"] = calls
        if all(_CALL.issuperset(call) for call in fields["tool_calls"]):
            said.add("tool_calls")
    rest = {
        name: value
        for name, value in fields.items()
        if name not in said and not _is_default(name, value)
    }
    return dict(with_rest(message, rest).message)


def _is_default(name: str, value: Any) -> bool:
    return value is None or value in ({}, []) or {name: value} in _DEFAULTS


def _calls(calls: Any) -> list[dict[str, Any]]:
    """Return calls of tools as messages carry them; none where one of them cannot be said so."""
    found: list[dict[str, Any]] = []
    for call in calls if type(calls) is list else ():
        if type(call) is not dict or type(call.get("name")) is not str:
            return []
        arguments = json_text(call.get("args"))
        if type(arguments) is not str:  # JSON has no word for one of them.
            return []
        found.append(tool_call(call.get("id"), call["name"], arguments))
    return found
