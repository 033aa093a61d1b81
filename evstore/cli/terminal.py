"""What a person and what a program get to see; stored text never reaches a terminal raw."""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from io import TextIOWrapper
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import orjson
from rich.cells import get_character_cell_size
from rich.console import Console
from rich.text import Text

# Control characters move cursors and rewrite titles; the marks of writing direction make a text
# look like another one; tags and most selectors of variants hide a text in it; lone surrogates
# cannot be written at all.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
# What changes the sign before it, which a terminal may show beside it instead.
_BESIDE = {"\ufe0f": 1, **dict.fromkeys("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff", 2)}
_WHITESPACE = bytes.maketrans(b"\n\r\t", b"   ")
_KIB = 1024
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
CELL_CHARACTERS_MAX = 1000  # no line shows more of one text
FITTED_ROWS_MAX = 200
COLUMNS = 80  # where no terminal says how wide it is
_UNITS_OF_TIME = (("y", 365 * 86400), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class _Console(Console):
    """A console that does not decide itself what a reader that has left means."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise  # noqa: PLE0704 - rich calls this while it handles the error


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
        if isinstance(stream, TextIOWrapper):  # What a terminal has no signs for is spelled out.
            stream.reconfigure(errors="backslashreplace")
        # Outside a terminal nothing wraps: a line is a line.
        width = None if stream.isatty() else COLUMNS
        console = _Console(file=stream, highlight=False, width=width, stderr=error)
        if console.width < 1:  # A terminal that does not know says 0.
            console.width = COLUMNS
        _consoles()[key] = console
    return _consoles()[key]


def finish() -> None:
    """Let everything printed leave; only then is it known whether anybody took it."""
    sys.stdout.flush()


def complain(sentence: str) -> None:
    """Print one sentence on stderr, above a bar that shows how far long work has come."""
    line = Text(f"evstore: {harmless(sentence)}")
    _console(sys.stderr, error=True).print(line, soft_wrap=True)


def harmless(text: str, keep: str = "") -> str:
    r"""Return a text in which harmful characters are spelled out, like \x1b."""
    return _HARMFUL.sub(lambda found: _spelled(found[0], keep), text)


def _spelled(character: str, keep: str) -> str:
    return character if character in keep else character.encode("unicode_escape").decode()


def as_typed(*arguments: str) -> str:
    """Return arguments as they are typed in a shell, none of them to be taken for an option."""
    before = ["--"] if any(argument.startswith("-") for argument in arguments) else []
    return shlex.join([*before, *arguments])


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
    return _HARMFUL.sub(lambda found: _json_escape(found[0]), text.decode()).encode()


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def write(line: bytes) -> None:
    """Write bytes to stdout as they are."""
    sys.stdout.buffer.write(line)


def stored(text: str | bytes | None) -> orjson.Fragment | None:
    """Return stored JSON text as something that is printed the way it is stored."""
    return None if text is None else orjson.Fragment(text)


# Tables that need not be known to their end before their first row is shown.


class Folded(NamedTuple):
    """A text that takes one line: where it is cut, it ends with its size."""

    text: Text
    size_bytes: int


class Column(NamedTuple):
    """A column of a table: its title, its width (0: a share of what is left), and its side."""

    title: str
    width: int = 0
    right: bool = False
    style: str = ""


Cell = str | Text | Folded
Row = Sequence[Cell] | Text  # cells, or a heading


def print_table(columns: Iterable[Column], rows: Iterable[Row], *, fit: bool = False) -> None:
    """Print rows as they come, each on one line, cut to the width of the terminal.

    With `fit`, columns take no more than the first rows need; one that is empty is left out.
    """
    columns, rows = list(columns), iter(rows)
    if fit:
        first = list(islice(rows, FITTED_ROWS_MAX))
        columns, first = _fitted(columns, first, is_whole=len(first) < FITTED_ROWS_MAX)
        rows = chain(first, rows)
    fixed = sum(column.width for column in columns) + 2 * (len(columns) - 1)
    shares = sum(not column.width for column in columns) or 1
    widths = [column.width or max(12, (out().width - fixed) // shares) for column in columns]
    titles = [Text(column.title, "bold") for column in columns]
    for index, row in enumerate(chain([titles], rows)):
        if isinstance(row, Text):
            say(cut(row, out().width))
            continue
        line = Text()
        for column, width, given in zip(columns, widths, row, strict=True):
            style = column.style if index else ""
            line.append_text(_cell(given, width, style, right=column.right))
            line.append("  ")
        line.rstrip()
        say(line)


def _fitted(
    columns: list[Column], rows: list[Row], *, is_whole: bool
) -> tuple[list[Column], list[Row]]:
    """Return the columns as wide as the rows need, and of a whole table only those in use."""
    cells = [row for row in rows if not isinstance(row, Text)]
    wanted = [
        max((columns_of(_plain(row[at])) for row in cells), default=1) for at in range(len(columns))
    ]
    kept = [at for at, width in enumerate(wanted) if width or not is_whole]
    fitted = [
        columns[at]._replace(width=min(columns[at].width, max(wanted[at], len(columns[at].title))))
        for at in kept
    ]
    return fitted, [row if isinstance(row, Text) else [row[at] for at in kept] for row in rows]


def _plain(given: Cell) -> str:
    text = given.text if isinstance(given, Folded) else given
    return text.plain if isinstance(text, Text) else harmless(text[:CELL_CHARACTERS_MAX])


def _cell(given: Cell, width: int, style: str, *, right: bool) -> Text:
    if isinstance(given, Folded):
        cell = folded(given, width)
    elif isinstance(given, Text):
        cell = cut(given, width)
    else:
        cell = cut(Text(harmless(given[:CELL_CHARACTERS_MAX]), style), width)
    (cell.pad_left if right else cell.pad_right)(width - columns_of(cell.plain))
    return cell


def folded(given: Folded, width: int) -> Text:
    """Return a text that takes one line of a width; where it is cut, its size stands at the end."""
    if columns_of(given.text.plain) <= width:
        return given.text.copy()
    shown_size = size(given.size_bytes)
    cell = cut(given.text, width - len(shown_size) - 2)
    cell.pad_right(width - len(shown_size) - columns_of(cell.plain))
    return cell.append(shown_size, "not bold dim")


def cut(text: Text, width: int) -> Text:
    """Return a text cut to a width, with an ellipsis where something is missing."""
    if columns_of(text.plain) <= width:
        return text.copy()
    room, count = width - 1, 0
    for character in text.plain:
        room -= _columns_of_one(character)
        if room < 0:
            break
        count += 1
    return text[:count].append("…")


def columns_of(text: str) -> int:
    """Return how many columns a text takes on a terminal, at the most."""
    return len(text) if text.isascii() else sum(map(_columns_of_one, text))


@cache
def _columns_of_one(character: str) -> int:
    return _BESIDE.get(character) or get_character_cell_size(character)


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


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return so many of something: 1 event, 2,000 events, 2 batches."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def moment(time: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return "" if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}"


def age(time: datetime, now: datetime) -> str:
    """Return how long ago a time is, or how far ahead, in one unit: 5m ago, in 2h."""
    seconds = int((now - time).total_seconds())
    for unit, length in _UNITS_OF_TIME:
        if abs(seconds) >= length:
            shown = f"{abs(seconds) // length}{unit}"
            return f"{shown} ago" if seconds > 0 else f"in {shown}"
    return "now"


# Long work.


class Advance(Protocol):
    """Tells how far the work has come."""

    def __call__(self, done: int) -> None:
        """Show so much as done."""


@contextmanager
def progress(
    what: str, total: int | None = None, *, beside_stdout: bool = False
) -> Iterator[Advance]:
    """Show on stderr, if that is a terminal, how far long work has come while the block runs.

    Work that prints on stdout meanwhile would write over the bar, if that is a terminal as well.
    """
    if not sys.stderr.isatty() or (beside_stdout and is_terminal()):
        yield lambda done: None  # noqa: ARG005 - nobody looks
        return
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = _console(sys.stderr, error=True)
    shown: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn()]
    shown.append(TimeElapsedColumn())
    if total is not None:  # Then it can be told how fast it goes, and when it will be done.
        shown += [TextColumn("{task.fields[rate]}"), TimeRemainingColumn()]
    # What is printed on stdout meanwhile has to arrive there, and not beside the bar.
    bars = Progress(
        *shown, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    )
    with bars:
        bar = bars.add_task(what, total=total, rate="")

        def advance(done: int) -> None:
            speed = bars.tasks[bar].speed or 0.0
            bars.update(bar, completed=done, rate=f"{speed:,.0f}/s")

        yield advance
