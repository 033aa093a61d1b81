"""Answers as they are spoken: the text of a final answer, while its decision is still coming in."""

import orjson

_KEY = "final_answer"
_HIGH_SURROGATES = range(0xD800, 0xDC00)


class Spoken:
    """Reads a decision in JSON piece by piece, and gives out what its final answer says so far.

    It follows braces and strings and judges nothing: whether the whole is a decision, `read` tells.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._in_answer = False
        self._escape = ""  # one that is not whole yet
        self._text = ""  # how the string begins that may be a key
        self._key = ""

    def take(self, piece: str) -> str:
        """Take in a piece; return what it adds to the text of the final answer."""
        return "".join(map(self._take, piece))

    def _take(self, sign: str) -> str:
        if self._in_string:
            return self._inside(sign)
        if sign in "{[":
            self._depth += 1
        elif sign in "}]":
            self._depth -= 1
        elif sign == '"' and self._depth:
            self._in_string, self._text = True, ""
            self._in_answer = self._depth == 1 and self._key == _KEY
        elif sign == ":" and self._depth == 1:
            self._key = self._text
        elif sign == "," and self._depth == 1:
            self._key = ""
        return ""

    def _inside(self, sign: str) -> str:
        """Take in a sign of a string; return what it says, if that belongs to the answer."""
        if not self._escape and sign == '"':
            self._in_string = False
            return ""
        if self._escape or sign == "\\":
            self._escape += sign
            if len(self._escape) < _length(self._escape):
                return ""
            sign, self._escape = _unescaped(self._escape), ""
        if len(self._text) <= len(_KEY):
            self._text += sign
        return sign if self._in_answer else ""


def _length(escape: str) -> int:
    """Return how many signs an escape has that begins so: a pair of surrogates is one."""
    if not escape.startswith("\\u"):
        return 2
    is_whole = len(escape) >= len("\\uffff")
    return 12 if is_whole and _code(escape) in _HIGH_SURROGATES else 6


def _code(escape: str) -> int:
    try:
        return int(escape[2:6], 16)
    except ValueError:
        return 0


def _unescaped(escape: str) -> str:
    try:
        return str(orjson.loads(f'"{escape}"'))
    except orjson.JSONDecodeError:
        return "\ufffd"
