"""What many verbs ask for in the same words: a file, a session, a moment, and how to print."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

import evstore
from evstore.cli import terminal
from evstore.cli.completion import complete_moment, complete_name, complete_session
from evstore.deadlines import Ttl
from evstore.errors import Refused, SessionNotFound
from evstore.events import Event, is_number_or_date
from evstore.moments import When
from evstore.session import Session
from evstore.sqlite.database import MEMORY
from evstore.store import Store, path_of

_COUNT_MAX = (1 << 63) - 1
_UID_DIGITS = 32
_DIGITS = re.compile("[0-9]{1,18}")
_DURATION = re.compile("([0-9]+(?:[.][0-9]+)?)([smhd]?)")
_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class _Moment(click.ParamType[Any]):
    """A sequence in digits, a date and time in ISO 8601 with its zone, else a label."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> When:
        """Return the sequence, the aware datetime, or the label."""
        text = str(value)
        if _DIGITS.fullmatch(text):
            return int(text)
        with suppress(ValueError):
            time = datetime.fromisoformat(text)
            if time.utcoffset() is not None:
                return time
        if _is_utf_8(text) and not is_number_or_date(text):
            return text
        example = "2026-01-31T12:00:00Z"
        what = f"{text!r} is no moment: give a sequence, a time like {example}, or a label"
        return self.fail(what, param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return the labels that begin so."""
        return complete_moment(ctx, param, incomplete)


class _Place(click.Path):
    """Where a store is or will be: the path that `evstore.open` takes a text for."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; raises Unsupported for the scheme of another engine."""
        path = path_of(str(value))
        if path == MEMORY:
            return self.fail("a store in memory ends with this command: give a path", param, ctx)
        return Path(path)


class _Name(click.ParamType[Any]):
    """A name that may stand in a store: the shell hands over any bytes."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        text = str(value)
        if _is_utf_8(text):
            return text
        return self.fail(f"{text!r} is no name: give one in UTF-8", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return the names that begin so."""
        return complete_name(ctx, param, incomplete)


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Expected(click.ParamType[Any]):
    """A sequence, or the word `absent`."""

    name = "seq"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the sequence, or ABSENT."""
        text = str(value)
        if text == "absent":
            return evstore.ABSENT
        if _DIGITS.fullmatch(text):
            return int(text)
        return self.fail(f"{text!r} is not expected: give a sequence, or 'absent'", param, ctx)


class _Count(click.IntRange):
    """A whole number from 0 on; one beyond what SQLite can count to is the last that it can."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        return min(int(super().convert(value, param, ctx)), _COUNT_MAX)


class _TimeToLive(click.ParamType[Any]):
    """A duration like 30m, 2h or 7d, a number of seconds, or a date (UTC) or time in ISO 8601."""

    name = "ttl"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Ttl:
        """Return the duration, or the aware datetime."""
        text = str(value)
        given = _DURATION.fullmatch(text)
        with suppress(ValueError, OverflowError):
            if given is not None:
                return timedelta(**{_UNITS[given[2]]: float(given[1])})
            time = datetime.fromisoformat(text)
            if time.utcoffset() is not None:
                return time
            if text == f"{time:%Y-%m-%d}":
                return time.replace(tzinfo=UTC)
        example = "30m, 2h, 7d, seconds, or a time like 2026-01-31T12:00:00Z"
        return self.fail(f"{text!r} is no deadline: give {example}", param, ctx)


# Whether a file can be read is told by whoever reads it, in a sentence that says what helps.
FILE = click.argument("file", type=click.Path(readable=False))
PLACE = _Place()
SESSION = click.argument("session", shell_complete=complete_session)
MOMENT = _Moment()
NAME = _Name()
TTL = _TimeToLive()
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, also on a terminal.")
AT = click.option(
    "--at",
    type=MOMENT,
    metavar="MOMENT",
    help="Look at the past: a sequence, an ISO 8601 time with its zone, or a label.",
)
ACTOR = click.option("--actor", metavar="NAME", help="Record who does this.")
METADATA = click.option("--metadata", is_flag=True, help="Take the metadata, not the variables.")
EXPECTED = _Expected()
COUNT = _Count()


def in_json(*, as_json: bool) -> bool:
    """Tell whether to print for a program."""
    return as_json or not terminal.is_terminal()


@contextmanager
def reading(file: str) -> Iterator[Store]:
    """Open a store for reading only: nothing is created and nothing changes."""
    with evstore.open(file, read_only=True) as store:
        yield store


def begin(
    file: str, actor: str | None, write: Callable[[Store], Sequence[Event]]
) -> Sequence[Event]:
    """Write to a store and return the events; it is created, but not for what is refused."""
    if not os.path.exists(path_of(file)):
        with evstore.open(MEMORY, actor=actor) as store:
            write(store)
    with writing(file, actor, create=True) as store:
        return write(store)


@contextmanager
def writing(file: str | Path, actor: str | None = None, *, create: bool = False) -> Iterator[Store]:
    """Open a store for writing; only with `create` may it come into being."""
    with evstore.open(file, create=create, actor=actor) as store:
        yield store


def find(store: Store, session: str) -> Session:
    """Return the living session with this id, else the life with this uid."""
    try:
        return store.session(session, create=False)
    except SessionNotFound:
        if len(session) != _UID_DIGITS or not set(session) <= set("0123456789abcdef"):
            raise
        return store.session(uid=session)


def find_or_begin(store: Store, session: str) -> Session:
    """Return what `find` does, else the session that the first write will begin."""
    try:
        return find(store, session)
    except SessionNotFound:
        return store.session(session)


def id_to_write(found: Session) -> str:
    """Return the id under which a session lives or will begin; raises ReadOnly where it is over."""
    found.drafted([])  # so that it says so
    return found.id


def given_text(argument: str) -> str:
    """Return an argument, or what stdin says where it is `-`, without the newline at its end."""
    if argument != "-":
        return argument
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise Refused("what came through stdin is not UTF-8 text: convert it first") from None
    return text.removesuffix("\n")


def is_piped_in() -> bool:
    """Tell whether stdin is something other than a person."""
    return not sys.stdin.isatty()
