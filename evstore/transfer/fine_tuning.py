"""OpenAI's JSON Lines for fine-tuning: one `{"messages": […]}` for each session.

The form is that of Chat Completions (OpenAI documents it under "Supervised fine-tuning"): roles
`developer system user assistant tool`, and for each the members that it has there. Blocks as
Anthropic has them become the same: `tool_use` a tool call, `tool_result` a message of the role
`tool`. Arguments that are no text, and content that is neither a text nor a list of parts, become
their JSON text. What has no place in the form is left out and reported; a session without a message
that has one has no line.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evstore.blocks import is_result, is_use
from evstore.transfer.chosen import Chosen, Report, forgotten, json_text, messages
from evstore.transfer.conversations import Reported

_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "developer": ("role", "content", "name"),
    "system": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": ("role", "content", "name", "refusal", "tool_calls", "weight"),
    "tool": ("role", "content", "tool_call_id"),
}
_PARTS: Mapping[str, tuple[str, ...]] = {
    "user": ("text", "image_url", "input_audio", "file"),
    "assistant": ("text", "refusal"),
}
_WEIGHTS = (0, 1)
_SAYING = {"content", "refusal", "tool_calls"}  # a message has one of them at least


def lines(chosen: Iterable[Chosen], report: Report) -> Iterator[bytes]:
    """Yield a line for each session that has anything to say, in pieces."""
    for session in chosen:
        before = b'{"messages":['
        for message in _messages(session, report):
            yield before + json_text(message)
            before = b","
        if before == b",":
            yield b"]}\n"


def _messages(chosen: Chosen, report: Report) -> Iterator[dict[str, Any]]:
    for said in messages(chosen.view):
        if said.text is None:
            report(forgotten(chosen, said))
        else:
            yield from _Form(chosen.name, f"message {said.number}", report).messages(said.message())


class _Form:
    """One message, put into the form; what has no place in it is reported."""

    def __init__(self, where: str, what: str, report: Report) -> None:
        self._where = where
        self._what = what
        self._report = report

    def messages(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield what a message becomes: none, one, or several where it has results of tools."""
        role = message["role"]
        if role not in _MEMBERS:
            self._left_out(f"the form has no role {role!r}")
            return
        self._check_members(message, role)
        content = message.get("content")
        blocks = content if type(content) is list else []
        if role == "user":
            yield from filter(None, map(self._result, blocks))
        made: dict[str, Any] = {"role": role}
        said = self._parts(blocks, role) if type(content) is list else self._text(content)
        if said is not None:
            made["content"] = said
        made |= self._texts(message, role)
        if role == "assistant":
            made |= self._calls(message, blocks)
        if role == "tool" and "tool_call_id" not in made:
            self._left_out("it is the result of a call that it does not name")
        elif made.keys() & _SAYING:
            yield made
        elif role != "user" or not any(map(is_result, blocks)):
            self._left_out("it says nothing that the form can hold")

    def _texts(self, message: dict[str, Any], role: str) -> dict[str, Any]:
        """Return the members that are short texts, or the weight of a message."""
        kept = {}
        for name in _MEMBERS[role]:
            value = message.get(name)
            if name in ("role", "content", "tool_calls") or value is None:
                continue
            if type(value) is int and value in _WEIGHTS if name == "weight" else type(value) is str:
                kept[name] = value
            else:
                self._left_out(f"the value of {name!r} is none that the form has")
        return kept

    def _calls(self, message: dict[str, Any], blocks: list[Any]) -> dict[str, Any]:
        """Return the tool calls of an assistant, with the content that then has to be there."""
        given = message.get("tool_calls")
        if given is not None and type(given) is not list:
            self._left_out("the value of 'tool_calls' is none that the form has")
        found = [*map(self._call, given if type(given) is list else ()), *map(_used, blocks)]
        calls = [call for call in found if call is not None]
        if not calls:
            return {}
        content = {"content": None} if message.get("content", "") is None else {}
        return {**content, "tool_calls": calls}

    def _check_members(self, message: dict[str, Any], role: str) -> None:
        names = [name for name in message if name not in _MEMBERS[role]]
        if names:
            shown = ", ".join(repr(name[:40]) for name in sorted(names)[:5])
            self._left_out(f"the form has no place for {shown} in a message of the role {role}")

    def _text(self, content: Any) -> str | None:
        if content is None or type(content) is str:
            return content
        self._left_out("its content is no text: its JSON text stands there instead")
        return json_text(content).decode()

    def _parts(self, blocks: list[Any], role: str) -> list[Any] | None:
        """Return the parts of a content that the form has for a role."""
        kept = []
        for block in blocks:
            if (role == "user" and is_result(block)) or (role == "assistant" and _used(block)):
                continue
            kind = block.get("type") if type(block) is dict else None
            if kind not in _PARTS.get(role, ("text",)) or kind not in block:
                self._left_out(f"the form has no part of the type {str(kind)[:40]!r} for {role}")
                continue
            kept.append({"type": kind, kind: block[kind]})
            if len(block) > len(kept[-1]):
                self._left_out(f"a part of the type {kind} has members without a place")
        return kept or None

    def _call(self, call: Any) -> dict[str, Any] | None:
        function = call.get("function") if type(call) is dict else None
        if type(call) is dict and call.get("type") == "custom" and type(call.get("id")) is str:
            return call
        if type(function) is not dict or type(call.get("id")) is not str:
            self._left_out("a tool call without an id or a function has no place")
            return None
        return _function(call["id"], str(function.get("name", "")), function.get("arguments", {}))

    def _result(self, block: Any) -> dict[str, Any] | None:
        """Return the message that a block with the result of a tool becomes."""
        if not is_result(block):
            return None
        content = block.get("content", "")
        said = self._parts(content, "tool") if type(content) is list else self._text(content)
        return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": said or ""}

    def _left_out(self, reason: str) -> None:
        self._report(Reported(self._where, self._what, reason))


def _used(block: Any) -> dict[str, Any] | None:
    """Return the tool call that a block of an assistant's content says."""
    if not is_use(block):
        return None
    return _function(block["id"], str(block.get("name", "")), block.get("input", {}))


def _function(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    if type(arguments) is not str:
        arguments = json_text(arguments).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
