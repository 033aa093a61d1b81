"""Conversations to demonstrate with: those that people wrote for a corpus, or a file of yours."""

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import attrs
import click

from evstore.errors import MissingExtra, Refused

_HOLDERS = ("messages", "traj", "conversation")


@attrs.frozen
class Conversation:
    """Messages in order, under the id that their session will have."""

    id: str
    topic: str
    messages: list[dict[str, Any]]


def corpus() -> Iterator[Conversation]:
    """Yield the English dialogues of chatterbot-corpus; raises MissingExtra."""
    try:
        import yaml

        folder = files("chatterbot_corpus") / "data" / "english"
    except ModuleNotFoundError:
        raise MissingExtra("demo") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    pages = [file for file in folder.iterdir() if file.name.endswith(".yml")]
    for file in sorted(pages, key=lambda file: file.name):
        topic = file.name.removesuffix(".yml")
        found = yaml.load(file.read_text("utf-8"), loader)  # noqa: S506 - it is a safe one
        for number, lines in enumerate(found["conversations"], 1):
            if not isinstance(lines, list):  # A slip of its author: a text that is no dialogue.
                continue
            messages = [
                {"role": ("user", "assistant")[index % 2], "content": str(line)}
                for index, line in enumerate(lines)
            ]
            yield Conversation(f"{topic}/{number:03d}", topic, messages)


def from_file(path: str) -> Iterator[Conversation]:
    """Yield the conversations of a JSON or JSON Lines file; raises Refused."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePath(path).stem)[:60].strip("-") or "conversation"
    for number, item in enumerate(_items(path), 1):
        messages = _messages(item)
        if messages is None:
            raise Refused(
                f"conversation {number} of {path} is none: give a list of messages like "
                '{"role": "user", "content": "…"}, or an object that holds one as "messages"'
            )
        if messages:
            yield Conversation(f"{stem}/{number:04d}", stem, messages)


def _items(path: str) -> list[Any]:
    with click.open_file(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{path} is not UTF-8 text: convert it first") from None
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return list(_lines(path, text))
    is_one = isinstance(whole, dict) or bool(_messages(whole))
    return [whole] if is_one or not isinstance(whole, list) else whole


def _lines(path: str, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Refused(f"line {number} of {path} is no JSON ({error}): repair it") from None


def _messages(item: Any) -> list[dict[str, Any]] | None:
    """Return the messages that an item is or holds, or None where it is no conversation."""
    if isinstance(item, dict):
        item = next((item[holder] for holder in _HOLDERS if holder in item), None)
    if not isinstance(item, list):
        return None
    are_messages = all(
        isinstance(message, dict) and isinstance(message.get("role"), str) for message in item
    )
    return item if are_messages else None
