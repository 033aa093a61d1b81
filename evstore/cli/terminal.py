"""What a person and what a program get to see; stored text never reaches a terminal raw."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple, Protocol

import click
import orjson
from rich.console import Console
from rich.text import Text

# Control characters move cursors and rewrite titles; the marks of writing direction make a text
# look like another one; lone surrogates cannot be written at all.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
_WHITESPACE = bytes.maketrans(b"\n\r\t", b"   ")
_KIB = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
CELL_CHARACTERS_MAX = 1000  # no line shows more of one text


def is_terminal() -> bool:
    """Tell whether a person reads what is printed."""
    return sys.stdout.isatty()


@cache
def _consoles() -> dict[tuple[int, bool], Console]:
    return {}


def out() -> Console:
    """Return what prints to stdout."""
    return _console(sys.stdout, error=False)


def _console(stream: Any, *, error: bool) -> Console:
    key = (id(stream), error)
    if key not in _consoles():
        # Outside a terminal nothing wraps: a line is a line.
        width = None if stream.isatty() else 80
        _consoles()[key] = Console(file=stream, highlight=False, width=width, stderr=error)
    return _consoles()[key]


def finish() -> None:
    """Let everything printed leave; only then is it known whether anybody took it."""
    sys.stdout.flush()


def complain(sentence: str) -> None:
    """Print one sentence on stderr."""
    click.echo(f"evstore: {harmless(sentence)}", err=True)


def harmless(text: str, keep: str = "") -> str:
    r"""Return a text in which harmful characters are spelled out, like \x1b."""
    return _HARMFUL.sub(lambda found: _spelled(found[0], keep), text)


def _spelled(character: str, keep: str) -> str:
    return character if character in keep else character.encode("unicode_escape").decode()


def say(line: str | Text = "", style: str = "") -> None:
    """Print a line for a person; it is not wrapped."""
    out().print(line if isinstance(line, Text) else Text(line, style), soft_wrap=True)


# JSON, for programs.


def json_line(value: Any) -> bytes:
    """Return a value as one line of JSON that is harmless on a terminal, too."""
    return harmless_json(orjson.dumps(value, option=orjson.OPT_UTC_Z)) + b"\n"


def harmless_json(text: bytes) -> bytes:
    """Return the same JSON on one line, with harmful characters as escapes."""
    # Outside of strings these are whitespace, and inside JSON does not allow them.
    text = text.translate(_WHITESPACE)
    if text.isascii() and b"\x7f" not in text:
        return text
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text.decode()).encode()


def write(line: bytes) -> None:
    """Write bytes to stdout as they are."""
    sys.stdout.buffer.write(line)


def stored(text: str | bytes | None) -> orjson.Fragment | None:
    """Return stored JSON text as something that is printed the way it is stored."""
    return None if text is None else orjson.Fragment(text)


# Tables that need not be known to their end before their first row is shown.


class Column(NamedTuple):
    """A column of a table: its title, its width (0: what the others leave), and its side."""

    title: str
    width: int = 0
    right: bool = False
    style: str = ""


def print_table(columns: Iterable[Column], rows: Iterable[Iterable[str | Text]]) -> None:
    """Print rows as they come, each on one line, cut to the width of the terminal."""
    columns = list(columns)
    fixed = sum(column.width for column in columns) + 2 * (len(columns) - 1)
    widths = [column.width or max(12, out().width - fixed) for column in columns]
    titles = [Text(column.title, "bold") for column in columns]
    for index, cells in enumerate(_with_titles(titles, rows)):
        line = Text()
        for column, width, given in zip(columns, widths, cells, strict=True):
            style = column.style if index else ""
            line.append_text(_cell(given, width, style, right=column.right))
            line.append("  ")
        line.rstrip()
        say(line)


def _with_titles(
    titles: list[Text], rows: Iterable[Iterable[str | Text]]
) -> Iterator[Iterable[str | Text]]:
    yield titles
    yield from rows


def _cell(given: str | Text, width: int, style: str, *, right: bool) -> Text:
    if isinstance(given, str):
        given = Text(harmless(given[:CELL_CHARACTERS_MAX]), style)
    cell = given.copy()
    cell.truncate(width, overflow="ellipsis")
    (cell.pad_left if right else cell.pad_right)(width - cell.cell_len)
    return cell


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and what they stand for, one pair a line."""
    facts = list(facts)
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        shown = f"{fact:,}" if type(fact) is int else harmless(str(fact))
        say(Text.assemble((name.ljust(width), "bold"), "  ", shown))


def size(size_bytes: int) -> str:
    """Return a size as a person reads it."""
    if size_bytes < _KIB:
        return f"{size_bytes} B"
    power = min((size_bytes.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{size_bytes / _KIB**power:,.1f} {_UNITS[power]}"


def moment(time: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


# Long work.


class Advance(Protocol):
    """Tells how far the work has come."""

    def __call__(self, done: int) -> None:
        """Show so much as done."""


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Advance]:
    """Show on stderr, if that is a terminal, how far long work has come while the block runs."""
    if not sys.stderr.isatty():
        yield lambda done: None  # noqa: ARG005 - nobody looks
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = _console(sys.stderr, error=True)
    shown = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # What is printed on stdout meanwhile has to arrive there, and not beside the bar.
    bars = Progress(
        *shown, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    with bars:
        bar = bars.add_task(what, total=total)
        yield lambda done: bars.update(bar, completed=done)
