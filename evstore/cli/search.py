"""The verb search: the messages that hold some words, the best first."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import click
from rich.text import Text

from evstore.cli import asking, terminal
from evstore.cli.asking import AT, COUNT, FILE, JSON
from evstore.cli.completion import complete_session
from evstore.cli.terminal import Cell, Column, harmless
from evstore.errors import Busy, Unavailable
from evstore.events import Event
from evstore.moments import When
from evstore.results import Hit
from evstore.store import Store

CONTEXT_CHARACTERS = 24  # before the first word that was found
_COLUMNS = (
    Column("session", 24),
    Column("seq", 7, right=True),
    Column("role", 10, style="green"),
    Column("message"),
)
_MATCH = re.compile(r"\[[^\[\]]*\]")
_Found = TypeVar("_Found")


@click.command(short_help="Find messages by their words.")
@FILE
@click.argument("text", nargs=-1, required=True)
@click.option(
    "--session",
    metavar="SESSION",
    shell_complete=complete_session,
    help="Search in this session only.",
)
@AT
@click.option(
    "--limit",
    type=COUNT,
    metavar="NUMBER",
    default=20,
    show_default=True,
    help="Find so many at most.",
)
@JSON
def search(
    file: str,
    text: tuple[str, ...],
    session: str | None,
    at: When | None,
    limit: int,
    as_json: bool,
) -> None:
    """Find the messages of all living sessions that hold all words of TEXT, the best first.

    A word that ends with * stands for all that begin so; '"words in quotes"' stand together. In
    what is found the words stand in brackets. What is new is taken into the index of the file
    first, if that may be written.
    """
    if at is not None and session is None:
        raise click.UsageError("say of which session: --at goes with --session")

    def ask(store: Store) -> list[tuple[Hit, Event]]:
        found = None if session is None else asking.find(store, session)
        hits = store.search(" ".join(text), session=found, at=at, limit=limit)
        return [(hit, _event(store, hit, session)) for hit in hits]

    found = _asked(file, ask)
    if asking.in_json(as_json=as_json):
        for hit, event in found:
            more = {"role": _role(event), "time": event.time}
            terminal.write(terminal.json_line(attrs.asdict(hit) | more))
    elif found:
        terminal.print_table(_COLUMNS, (_row(*pair) for pair in found), fit=True)
    else:
        terminal.say("nothing found", "dim")


def _asked(file: str, ask: Callable[[Store], _Found]) -> _Found:
    """Ask a store that may write its index; where it may not, one that only reads."""
    try:
        with asking.writing(file) as store:
            return ask(store)
    except (Busy, Unavailable):
        with asking.reading(file) as store:
            return ask(store)


def _event(store: Store, hit: Hit, session: str | None) -> Event:
    """Return the event that carries what was found."""
    found = asking.find(store, session or hit.session or "")
    return next(found.events(hit.seq - 1, limit=1))


def _role(event: Event) -> Any:
    return event.data["message"]["role"]


def _row(hit: Hit, event: Event) -> list[Cell]:
    match = _MATCH.search(hit.snippet)
    start = 0 if match is None else max(0, match.start() - CONTEXT_CHARACTERS)
    shown = hit.snippet if start == 0 else f"…{hit.snippet[start:]}"
    snippet = Text(harmless(shown))
    snippet.highlight_regex(_MATCH, "bold yellow")
    return [hit.session or "(forgotten)", f"{hit.seq:,}", str(_role(event)), snippet]
