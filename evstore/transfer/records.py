"""JSON from elsewhere, one bounded record at a time, and a word in the place of a broken one."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import IO, Any, NamedTuple

from evstore.errors import Unavailable
from evstore.transfer.conversations import Conversation, Reported

RECORD_BYTES_MAX = 256 << 20
_PIECE_CHARACTERS = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_BEGINNING = re.compile(r"\n(?=[{\[])")  # of a value on lines of its own, which is not indented
_NEAR_THE_END = 16  # characters: no word of JSON that is cut off begins further ahead of the end
_decoder = json.JSONDecoder()


class Line(NamedTuple):
    """One line of a file, its JSON decoded; `offset` in bytes is where it begins."""

    number: int
    offset: int
    value: Any


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file for reading; raises Unavailable, also where reading it fails."""
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise Unavailable(path, f"{error.strerror}: name a file that can be read") from error


def changed_us(path: str) -> int:
    """Return when a file was last changed, in µs since 1970; raises Unavailable."""
    with opened(path) as file:
        return os.fstat(file.fileno()).st_mtime_ns // 1000


def files(folder: str, suffix: str) -> list[str]:
    """Return what a folder holds under names with a suffix, in order; raises Unavailable."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise Unavailable(folder, f"{error.strerror}: name a folder that can be read") from error
    shown = (name for name in names if name.endswith(suffix) and not name.startswith("."))
    return [os.path.join(folder, name) for name in shown]


def of_each(
    paths: Iterable[str], read: Callable[[str], Iterable[Conversation | Reported]]
) -> Iterator[Conversation | Reported]:
    """Yield what is read of each file of a folder; one that cannot be read stops no other."""
    for path in paths:
        try:
            yield from read(path)
        except Unavailable as error:
            yield Reported(os.path.basename(path), "a file", error.reason)


def stem(path: str) -> str:
    """Return the name of a file without its folder and its last suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def lines(path: str) -> Iterator[Line | Reported]:
    """Yield the lines of a JSON Lines file that are not blank; raises Unavailable."""
    with opened(path) as file:
        offset, number = 0, 0
        while line := file.readline(RECORD_BYTES_MAX + 1):
            number += 1
            length = len(line)
            if length > RECORD_BYTES_MAX:
                length += _skip_line(file, line)
                yield _too_large(f"line {number}")
            elif line.strip():
                yield _line(number, offset, line)
            offset += length


def lines_at(path: str, offsets: Iterable[int]) -> Iterator[Line | Reported]:
    """Yield lines again whose offsets are known; `number` counts them from 1."""
    with opened(path) as file:
        for number, offset in enumerate(offsets, 1):
            file.seek(offset)
            yield _line(number, offset, file.readline(RECORD_BYTES_MAX + 1))


def whole(path: str) -> Any | Reported:
    """Return the one JSON value that a file holds; raises Unavailable."""
    where = os.path.basename(path)
    with opened(path) as file:
        text = file.read(RECORD_BYTES_MAX + 1)
    if len(text) > RECORD_BYTES_MAX:
        return _too_large(where)
    return decoded(where, text)


def _skip_line(file: IO[bytes], begun: bytes) -> int:
    skipped = 0
    while not begun.endswith(b"\n") and (begun := file.readline(_PIECE_CHARACTERS)):
        skipped += len(begun)
    return skipped


def _line(number: int, offset: int, line: bytes) -> Line | Reported:
    value = decoded(f"line {number}", line)
    return value if isinstance(value, Reported) else Line(number, offset, value)


def decoded(where: str, text: bytes) -> Any | Reported:
    """Return the JSON value that a record holds."""
    try:
        # What is no UTF-8 becomes what no message may hold, so that this message alone is refused.
        return json.loads(text.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return _broken(where, error)


def elements(path: str) -> Iterator[Any | Reported]:
    """Yield the elements of a JSON array, or the values that follow one another in a file.

    Only one is in memory at a time, so the array may have any length. In an array it cannot be told
    where one after a broken one begins: that is the last. Otherwise the next begins a line. Raises
    Unavailable.
    """
    with opened(path) as file, TextIOWrapper(file, "utf-8-sig", "surrogateescape") as text:
        yield from _Elements(text).read()


class _Elements:
    """The text of a file, of which a piece is at hand that holds at least one element."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False

    def read(self) -> Iterator[Any | Reported]:
        number = 0
        try:
            is_array = self._take("[")
            end = "]" if is_array else None
            while self._peek() not in (None, end):
                number += 1
                try:
                    yield self._element()
                except (ValueError, RecursionError) as error:
                    if is_array:
                        raise
                    yield _broken(f"element {number}", error)
                    self._skip()
                if is_array and not self._take(","):
                    break
            if is_array and not self._take("]"):
                raise ValueError("there is neither a comma nor the end after it")
        except _TooLarge:
            yield _too_large(f"element {number}")
        except (ValueError, RecursionError) as error:
            yield _broken(f"element {number}", error, "what follows it in the array is left out: ")

    def _peek(self) -> str | None:
        """Return the next character that is not space, or None at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return None
            self._more()

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _element(self) -> Any:
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except ValueError as error:
                if self._ended or not self._may_go_on(error):
                    raise
            else:
                # A number may go on, and its `e+` is told from what follows by a digit only.
                if end + 2 < len(self._text) or self._ended:
                    self._at = end
                    return value
            self._more()

    def _skip(self) -> None:
        """Go on where the next line begins that an element may begin."""
        while (found := _BEGINNING.search(self._text, self._at)) is None and not self._ended:
            self._at = len(self._text) - 1
            self._more()
        self._at = len(self._text) if found is None else found.end()

    def _may_go_on(self, error: ValueError) -> bool:
        """Tell whether what is wrong may only be that the text at hand ends there."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        is_near = error.pos >= len(self._text) - _NEAR_THE_END
        return is_near or error.msg.startswith("Unterminated string")

    def _more(self) -> None:
        """Take in as much again as is at hand, so that no element is read too often."""
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > RECORD_BYTES_MAX:
            raise _TooLarge
        piece = self._file.read(max(_PIECE_CHARACTERS, len(self._text)))
        self._ended = not piece
        self._text += piece


class _TooLarge(Exception):
    """An element has no end in sight."""


def _too_large(where: str) -> Reported:
    reason = f"it takes more than {RECORD_BYTES_MAX >> 20} MiB: split it"
    return Reported(where, "a record", reason)


def _broken(where: str, error: Exception, more: str = "") -> Reported:
    return Reported(where, "a record", f"it is cut off, or no JSON ({error}): {more}repair it")
