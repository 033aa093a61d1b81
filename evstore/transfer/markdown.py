"""A transcript for people: who said what and when, as Markdown that no message can break.

Text is quoted, line by line, and read as Markdown inside of its quote. Text that could act beyond
it (HTML, images, definitions of links) stands in a block of code instead, whose fence is longer
than any in the text. Everything else stands in code as well: tool calls, results, values, names.
Control characters and marks of writing direction are spelled out.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import orjson

from evstore.events import METADATA, VARIABLES, from_microseconds
from evstore.transfer.chosen import Chosen, Report, Said, json_text, messages

_ACTIVE = re.compile(r"<[A-Za-z/!?]|!\[|\]:")
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
_WORD = re.compile(r"[A-Za-z]{1,30}")
_TEXTS = ("text", "input_text", "output_text")  # the types of parts that are text


def lines(chosen: Iterable[Chosen], _report: Report) -> Iterator[bytes]:
    """Yield the transcripts, one after the other, in pieces of UTF-8 text."""
    for number, session in enumerate(chosen):
        for piece in chain(["\n"] if number else [], _session(session)):
            yield piece.encode()


def _session(chosen: Chosen) -> Iterator[str]:
    view = chosen.view
    yield f"# {_code(chosen.name)}\n\n"
    moment = f", {view.time:%Y-%m-%d %H:%M:%S} UTC" if view.time else ""
    yield f"Session {_code(view.uid or '')} at sequence {view.seq}{moment}.\n"
    yield from _names("Metadata", chosen, METADATA)
    yield from _names("Variables", chosen, VARIABLES)
    for said in messages(view):
        yield from _message(said)


def _names(title: str, chosen: Chosen, family: int) -> Iterator[str]:
    with chosen.view.look() as present:
        found = present.variables(family)
    if found:
        yield f"\n## {title}\n\n"
    for name, variable in found.items():
        value = "(forgotten)" if variable.text is None else _code(variable.text)
        yield f"- {_code(name)}: {value}\n"


def _message(said: Said) -> Iterator[str]:
    when = "" if said.time_us is None else f"{from_microseconds(said.time_us):%Y-%m-%d %H:%M:%S}"
    by = "" if said.actor is None else f", by {_code(said.actor)}"
    message = said.message()
    role = message.pop("role", "(forgotten)")
    shown = role if _WORD.fullmatch(role) or said.text is None else _code(role)
    yield f"\n## {said.number}. {shown}\n\n{when} UTC{by}\n"
    yield from _content(message.pop("content", None))
    yield from _calls(message)
    if message:
        yield f"\n{_block(_pretty(message), 'json')}"


def _content(content: Any) -> Iterator[str]:
    """Yield what a message says: a text, or parts of which some are texts."""
    if type(content) is str:
        yield _text(content)
    elif type(content) is list:
        for part in content:
            text = part.get("text") if type(part) is dict and part.get("type") in _TEXTS else None
            if type(text) is str and not set(part) - {"type", "text"}:
                yield _text(text)
            else:
                yield f"\n{_block(_pretty(part), 'json')}"
    elif content is not None:
        yield f"\n{_block(_pretty(content), 'json')}"


def _calls(message: dict[str, Any]) -> Iterator[str]:
    """Take the tool calls out of a message, and yield each in a block of its own."""
    calls = message.get("tool_calls")
    if type(calls) is list and calls:
        del message["tool_calls"]
        for call in calls:
            yield f"\nCalls a tool:\n\n{_block(_pretty(call), 'json')}"


def _text(text: str) -> str:
    if not text.strip():
        return ""
    if _ACTIVE.search(text):
        return f"\n{_block(text, 'text')}"
    quoted = (f"> {line}".rstrip() + "\n" for line in _lines(text))
    return "\n" + "".join(quoted)


def _block(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + _longest_run(text))
    shown = "\n".join(_lines(text))
    return f"{fence}{language}\n{shown}\n{fence}\n"


def _code(text: str) -> str:
    """Return a text as code within a line."""
    text = _spelled(text.replace("\n", "\\n").replace("\t", "\\t"))
    fence = "`" * (1 + _longest_run(text))
    if not text.strip() or text[0] in "` " or text[-1] in "` ":
        text = f" {text} "
    return f"{fence}{text}{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _lines(text: str) -> list[str]:
    return [_spelled(line) for line in text.replace("\r\n", "\n").split("\n")]


def _spelled(text: str) -> str:
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _pretty(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    except TypeError:  # Tags may nest deeper than orjson's limit.
        return json_text(value).decode()
