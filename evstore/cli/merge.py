"""The verb merge: what a branch changed comes home, or its conflicts are shown."""

from collections.abc import Iterator
from typing import Any, Literal

import click
from rich.text import Text

import evstore
from evstore.cli import asking, terminal
from evstore.cli.asking import ACTOR, FILE, JSON, SESSION
from evstore.cli.changing import report
from evstore.cli.completion import complete_session
from evstore.cli.past import recorded
from evstore.cli.shown import text_of, told_value
from evstore.cli.terminal import Cell, Column, harmless
from evstore.merge import Contested
from evstore.moments import When

_COLUMNS = (
    Column("name", 24, style="cyan"),
    Column("base"),
    Column("ours"),
    Column("theirs"),
)


@click.command(short_help="Bring in what a branch changed.")
@FILE
@SESSION
@click.argument("other", shell_complete=complete_session)
@click.option(
    "--prefer",
    type=click.Choice(["ours", "theirs"]),
    help="Whose value to take where both sides changed a variable: SESSION's or OTHER's.",
)
@click.option(
    "--at",
    type=asking.MOMENT,
    metavar="MOMENT",
    help="Take OTHER as it was: at a sequence, an ISO 8601 time with its zone, or a label.",
)
@ACTOR
@JSON
@click.pass_context
def merge(
    context: click.Context,
    file: str,
    session: str,
    other: str,
    prefer: Literal["ours", "theirs"] | None,
    at: When | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Bring into SESSION what OTHER, a branch of the same past, changed, as one batch.

    What only OTHER changed is taken, and its new messages are appended. Where both changed a
    variable differently, nothing is written, each conflict is listed, and the exit code is 1.
    """
    with asking.writing(file, actor) as store:
        found, beside = asking.find(store, session), asking.find(store, other)
        merged = found.merge(beside if at is None else beside.at(at), prefer)
        if merged.conflicts:
            _show_conflicts(merged.conflicts, exact=asking.in_json(as_json=as_json))
            count = len(merged.conflicts)
            terminal.complain(
                f"{terminal.counted(count, 'conflict')}, and nothing was written: "
                "decide with --prefer ours or theirs, or change one side"
            )
            context.exit(1)
        if asking.in_json(as_json=as_json):
            report(merged.events, as_json=as_json)
            return
        what = recorded(merged.events) if merged.events else f"nothing new, still at {found.head:,}"
        terminal.say(f"merged {harmless(repr(other))} into {harmless(repr(session))}: {what}")


def _show_conflicts(conflicts: tuple[Contested, ...], *, exact: bool) -> None:
    if exact:
        for conflict in conflicts:
            terminal.write(terminal.json_line({"name": conflict.name, **dict(_known(conflict))}))
        return
    rows: Iterator[list[Cell]] = (
        [conflict.name, *map(_side, conflict[1:])] for conflict in conflicts
    )
    terminal.print_table(_COLUMNS, rows, fit=True)


def _known(conflict: Contested) -> Iterator[tuple[str, Any]]:
    """Yield the sides that have the variable, with its value as it is stored."""
    for side, value in zip(("base", "ours", "theirs"), conflict[1:], strict=True):
        if value is not evstore.ABSENT:
            yield side, terminal.stored(text_of(value))


def _side(value: Any) -> Cell:
    return Text("(absent)", "dim") if value is evstore.ABSENT else told_value(value)
