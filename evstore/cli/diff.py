"""The verb diff: what is other in one moment than in another, of one session or of two."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import click
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

import evstore
from evstore.cli import asking, terminal
from evstore.cli.asking import FILE, JSON, SESSION
from evstore.cli.shown import said, text_of
from evstore.cli.terminal import harmless
from evstore.moments import When
from evstore.session import Session
from evstore.view import View

NAME_COLUMNS_MAX = 24
CONTEXT_CHARACTERS = 40  # beside what differs in a value that is too long to be shown whole
_REMOVED, _ADDED = ("-", "red"), ("+", "green")


class _Change(NamedTuple):
    """A name whose value differs; ABSENT on the side that lacks it."""

    name: str
    before: Any
    after: Any

    @property
    def kind(self) -> str:
        if self.before is evstore.ABSENT:
            return "added"
        return "removed" if self.after is evstore.ABSENT else "changed"


@click.command(short_help="Compare two moments, or two sessions.")
@FILE
@SESSION
@click.argument("a", type=asking.MOMENT, required=False)
@click.argument("b", type=asking.MOMENT, required=False)
@click.option("--with", "other", metavar="SESSION", help="Compare with this session of the store.")
@JSON
def diff(
    file: str, session: str, a: When | None, b: When | None, other: str | None, as_json: bool
) -> None:
    """Show what changed in a session from moment A to moment B, which is now unless given.

    With --with, show what is other in that session (at B, or now) than in SESSION (at A, or now).

    A pipe gets a line for each variable, piece of metadata and message, whose "change" is added,
    removed or changed; a message that was replaced is removed and added. The exit code is 0 whether
    or not anything differs.
    """
    if a is None and other is None:
        raise click.UsageError("say what to compare: give a moment A, or another session --with")
    with asking.reading(file) as store:
        found = asking.find(store, session)
        beside = found if other is None else asking.find(store, other)
        before, after = _at(found, a), _at(beside, b)
        differing = before.diff(after)
        if asking.in_json(as_json=as_json):
            for line in _lines(differing):
                terminal.write(terminal.json_line(line))
        else:
            _show_moments((found, before), (beside, after))
            _show(differing)


def _at(session: Session, moment: When | None) -> View:
    return session.view() if moment is None else session.at(moment)


def _changes(named: dict[str, tuple[Any, Any]]) -> Iterator[_Change]:
    for name, (before, after) in named.items():
        yield _Change(name, before, after)


def _lines(differing: evstore.Diff) -> Iterator[dict[str, Any]]:
    """Yield a JSON object for each variable, piece of metadata and message that differs."""
    for what, named in (("variable", differing.variables), ("metadata", differing.metadata)):
        for change in _changes(named):
            line = {"change": change.kind, "what": what, "name": change.name}
            sides = {"before": change.before, "after": change.after}
            yield line | {
                side: terminal.stored(text_of(value))
                for side, value in sides.items()
                if value is not evstore.ABSENT
            }
    for kind, messages in (("removed", differing.removed), ("added", differing.added)):
        for message in messages:
            stored = terminal.stored(text_of(message))
            yield {"change": kind, "what": "message", "message": stored}


# For a person.


def _show_moments(*sides: tuple[Session, View]) -> None:
    for (session, view), (sign, style) in zip(sides, (_REMOVED, _ADDED), strict=True):
        line = Text(f"{sign * 3} {harmless(session.id)} at {view.seq:,}", f"bold {style}")
        line.append(f"  {terminal.moment(view.time)}", "not bold dim")
        line.rstrip()
        terminal.say(line)


def _show(differing: evstore.Diff) -> None:
    if not differing:
        terminal.say("nothing differs", "dim")
    for title, named in (("variables", differing.variables), ("metadata", differing.metadata)):
        if named:
            _show_title(title)
            width = min(NAME_COLUMNS_MAX, max(cell_len(harmless(name)) for name in named))
            for change in _changes(named):
                _show_change(change, width)
    if differing.removed or differing.added:
        _show_title("messages")
    for messages, side in ((differing.removed, _REMOVED), (differing.added, _ADDED)):
        for message in messages:
            _show_message(message, *side)


def _show_title(title: str) -> None:
    terminal.say()
    terminal.say(title, "bold")


def _show_change(change: _Change, width: int) -> None:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=1)
    row.add_column(width=width, overflow="fold")
    row.add_column(overflow="fold")
    values = (change.before, change.after)
    texts = ["" if value is evstore.ABSENT else _text(value) for value in values]
    start = _common(*texts)
    end = _common(*(text[start:][::-1] for text in texts))
    for value, text, (sign, style) in zip(values, texts, (_REMOVED, _ADDED), strict=True):
        if value is not evstore.ABSENT:
            shown = _marked(text, start, len(text) - end, emphasis=change.kind == "changed")
            shown.stylize_before(style)
            row.add_row(Text(sign, style), Text(harmless(change.name), style), shown)
    terminal.out().print(row)


def _common(one: str, other: str) -> int:
    """Return how many characters at their beginning two texts share."""
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in shared)


def _text(value: Any) -> str:
    return "(forgotten)" if value is evstore.ERASED else text_of(value).decode()


def _marked(text: str, start: int, end: int, *, emphasis: bool) -> Text:
    """Return a text with what differs in bold, and of a long text only what stands around it."""
    before, differs, after = text[:start], text[start:end], text[end:]
    if len(text) > terminal.CELL_CHARACTERS_MAX:
        if len(before) > CONTEXT_CHARACTERS:
            before = "…" + before[-CONTEXT_CHARACTERS:]
        if len(after) > CONTEXT_CHARACTERS:
            after = after[:CONTEXT_CHARACTERS] + "…"
        if len(differs) > terminal.CELL_CHARACTERS_MAX:
            differs = differs[: terminal.CELL_CHARACTERS_MAX] + "…"
    middle = (harmless(differs), "bold" if emphasis else "")
    return Text.assemble(harmless(before), middle, harmless(after))


def _show_message(message: Any, sign: str, style: str) -> None:
    whole = "(forgotten)" if message is evstore.ERASED else said(message)
    line = Text(f"{sign} {harmless(whole[: terminal.CELL_CHARACTERS_MAX])}", style)
    line.truncate(terminal.out().width, overflow="ellipsis")
    terminal.say(line)
