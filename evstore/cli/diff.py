"""The verb diff: what is other in one moment than in another, of one session or of two."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import click
from rich.text import Text

import evstore
from evstore.cli import asking, terminal
from evstore.cli.asking import FILE, JSON, SESSION
from evstore.cli.completion import complete_session
from evstore.cli.shown import text_of, told_message
from evstore.cli.terminal import (
    CELL_CHARACTERS_MAX,
    Folded,
    columns_of,
    cut,
    folded,
    harmless,
)
from evstore.moments import When
from evstore.session import Session
from evstore.view import View

CONTEXT_CHARACTERS = 16  # before what differs in a value that is too long to be shown whole
_REMOVED, _ADDED = ("\N{MINUS SIGN}", "red"), ("+", "green")
_SIGNS = {"removed": _REMOVED, "added": _ADDED, "changed": ("~", "yellow")}
_ARROW = " → "


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
@click.option(
    "--with",
    "other",
    metavar="SESSION",
    shell_complete=complete_session,
    help="Compare with this session of the store.",
)
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
    signs = (("---", "red"), ("+++", "green"))
    for (session, view), (sign, style) in zip(sides, signs, strict=True):
        which = f" at {view.seq:,}"
        time = f"  {terminal.moment(view.time)}"
        room = terminal.out().width - len(sign + which + time) - 1
        line = Text(f"{sign} ", f"bold {style}").append_text(cut(Text(harmless(session.id)), room))
        line.append(which).append(time, "not bold dim")
        line.rstrip()
        terminal.say(line)


def _show(differing: evstore.Diff) -> None:
    if not differing:
        terminal.say("nothing differs", "dim")
    for title, named in (("variables", differing.variables), ("metadata", differing.metadata)):
        if named:
            _show_title(title)
            _show_changes(list(_changes(named)))
    if differing.removed or differing.added:
        _show_title("messages")
    for messages, side in ((differing.removed, _REMOVED), (differing.added, _ADDED)):
        for message in messages:
            _show_message(message, *side)


def _show_title(title: str) -> None:
    terminal.say()
    terminal.say(title, "bold")


def _show_changes(changes: list[_Change]) -> None:
    """Show a line for each change; values that are too long for it stand below each other."""
    width = terminal.out().width
    names = [cut(Text(harmless(change.name)), width // 3) for change in changes]
    name_columns = max(columns_of(name.plain) for name in names)
    room = width - name_columns - len("~   ")
    side = (room - len(_ARROW)) // 2
    pairs = [_sides(change, room) for change in changes]
    is_short = [max(columns_of(each.text.plain) for each in pair) <= side for pair in pairs]
    before_columns = max(
        (
            columns_of(before.text.plain)
            for change, (before, _), short in zip(changes, pairs, is_short, strict=True)
            if change.kind == "changed" and short
        ),
        default=0,
    )
    for change, name, (before, after), short in zip(changes, names, pairs, is_short, strict=True):
        sign, style = _SIGNS[change.kind]
        name.pad_right(name_columns - columns_of(name.plain))
        line = Text.assemble((f"{sign} ", style), name, "  ")
        if change.kind != "changed":
            line.append_text(folded(after if change.kind == "added" else before, room))
        elif short:
            shown = before.text.copy()
            shown.pad_right(before_columns - columns_of(shown.plain))
            line.append_text(shown).append(_ARROW, "dim").append_text(after.text)
        else:
            terminal.say(line.append_text(folded(before, room)))
            line = Text(_ARROW.strip().rjust(name_columns + 3), "dim")
            line.append_text(Text(" ")).append_text(folded(after, room))
        line.rstrip()
        terminal.say(line)


def _sides(change: _Change, width: int) -> tuple[Folded, Folded]:
    """Return both values of a change in their colours, with what differs in bold."""
    values = (change.before, change.after)
    texts = ["" if value is evstore.ABSENT else _text(value) for value in values]
    start = _common(*texts)
    end = _common(*(text[start:][::-1] for text in texts))
    sides = []
    for text, (_, style) in zip(texts, (_REMOVED, _ADDED), strict=True):
        shown = _marked(text, start, len(text) - end, width, emphasis=change.kind == "changed")
        shown.stylize_before(style)
        sides.append(Folded(shown, len(text.encode())))
    return sides[0], sides[1]


def _common(one: str, other: str) -> int:
    """Return how many characters at their beginning two texts share."""
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in shared)


def _text(value: Any) -> str:
    return "(forgotten)" if value is evstore.ERASED else text_of(value).decode()


def _marked(text: str, start: int, end: int, width: int, *, emphasis: bool) -> Text:
    """Return a text with what differs in bold, and of a long text only from shortly before it."""
    before, differs, after = text[:start], text[start:end], text[end:]
    if len(text) > width and len(before) > CONTEXT_CHARACTERS:
        before = "…" + before[-CONTEXT_CHARACTERS:]
    # What is cut here could not be shown anyway, and takes long to look through.
    differs, after = differs[:CELL_CHARACTERS_MAX], after[:CELL_CHARACTERS_MAX]
    middle = (harmless(differs), "bold" if emphasis else "")
    return Text.assemble(harmless(before), middle, harmless(after))


def _show_message(message: Any, sign: str, style: str) -> None:
    line = Text(f"{sign} ", style)
    shown = folded(told_message(message), terminal.out().width - len(line))
    shown.stylize_before(style)
    terminal.say(line.append_text(shown))
