"""Wording: what of a message is said in words, and what somebody who searches for words means."""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from evstore.errors import Corrupt, Refused
from evstore.tags import FROM_TAG

WORDS_MAX = 64  # in one query
SOLID_CHARACTERS_MAX = 1000  # a longer text of ASCII without white space is no prose but data
_TERM = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')
_WORD = re.compile(r"[^\W_]+")
_SPACE = re.compile(r"\s")
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")  # in no word: NUL, and what UTF-8 cannot hold


# The query.


def expression(text: str) -> str:
    """Return the FTS5 expression for what somebody typed, or "" where it holds no word.

    Words are sought together, in any order; "quoted ones" and those with only signs in between one
    after the other; a `*` at the end stands for any ending. Raises Refused for more than 64 words.
    """
    text = _UNSPEAKABLE.sub(" ", text)
    count = len(_WORD.findall(text))
    if count > WORDS_MAX:
        raise Refused(f"a search takes up to {WORDS_MAX} words and this has {count}: give fewer")
    found = []
    for quoted, star, bare in _TERM.findall(text):
        if _WORD.search(quoted or bare):
            ending = " *" if star or bare.endswith("*") else ""
            found.append(f'"{quoted or bare}"{ending}')
    return " ".join(found)


# What of a message is indexed.


def prose(text: str | None) -> str:
    """Return all that is said in the message that an event carries, in lines."""
    if text is None:
        return ""
    try:
        message = orjson.loads(text)["message"]
        return "\n".join(_leaves(message))
    except (ValueError, TypeError, LookupError) as error:
        raise Corrupt("", "an event carries no message") from error


def _leaves(message: Any) -> Iterator[str]:
    """Yield the texts in a message as it is stored, in order: no keys, no role, no data."""
    waiting = [value for key, value in reversed(_items(message)) if key != "role"]
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            if not _is_solid(value):
                yield value
        elif type(value) is list:
            waiting += reversed(value)
        elif type(value) is dict:
            waiting += [inner for _, inner in reversed(_items(value))]


def _is_solid(text: str) -> bool:
    return len(text) > SOLID_CHARACTERS_MAX and text.isascii() and not _SPACE.search(text)


def _items(value: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return the pairs of a stored dict; those of any other type have no keys, or no text."""
    if len(value) > 1:
        return list(value.items())
    for tag, stored in value.items():
        if tag == "$dict":
            return [(key, inner) for key, inner in stored]
        if tag == "$object":
            return [(tag, stored[2])]
        if tag in FROM_TAG:
            return []
    return list(value.items())
