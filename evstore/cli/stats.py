"""The verb that tells what a store holds, and what it is used for."""

from collections.abc import Iterator, Sequence

import attrs
import click

from evstore.cli import asking, terminal
from evstore.cli.asking import COUNT, FILE, JSON
from evstore.cli.terminal import Column, Row, size
from evstore.telemetry import Summary, summary

_BYTES = "_bytes"
_GROWTH = (
    Column("session", 40),
    Column("events", 12, right=True),
    Column("text", 12, right=True),
    Column("stored", 12, right=True),
    Column("last 24 h", 12, right=True),
    Column("text of it", 12, right=True),
)
_WRITTEN = (
    Column("session", 40),
    Column("variable", 40),
    Column("sets", 12, right=True),
    Column("text", 12, right=True),
)
_TYPES = (Column("type", 40), Column("variables", 12, right=True))


@click.command(short_help="Count what a store holds.")
@FILE
@click.option(
    "--limit",
    type=COUNT,
    default=10,
    show_default=True,
    metavar="NUMBER",
    help="Show so many sessions and variables at most.",
)
@JSON
def stats(file: str, limit: int, as_json: bool) -> None:
    """Count what a store holds, and the bytes that it takes.

    Below stand the sessions that recorded most, the variables that were set most often, and the
    types of the variables that living sessions have now.
    """
    with asking.reading(file) as store, terminal.progress("counting"):
        held = attrs.asdict(store.stats())
        used = summary(store, limit)
    if asking.in_json(as_json=as_json):
        told = attrs.asdict(used)
        del told["accessed"]  # It is about a process that has read variables; this one has not.
        terminal.write(terminal.json_line(held | told))
        return
    terminal.print_facts(
        (name.replace("_", " "), size(fact) if name.endswith(_BYTES) else fact)
        for name, fact in held.items()
    )
    for columns, rows in _tables(used):
        if rows:
            terminal.say()
            terminal.print_table(columns, rows, fit=True)


def _tables(used: Summary) -> Iterator[tuple[Sequence[Column], list[Row]]]:
    """Yield the tables of what a store is used for."""
    growth: list[Row] = [
        [
            each.session or "(forgotten)",
            f"{each.events:,}",
            size(each.text_bytes),
            size(each.data_bytes),
            f"{each.recent_events:,}",
            size(each.recent_bytes),
        ]
        for each in used.growth
    ]
    written: list[Row] = [
        [each.session or "(forgotten)", each.name, f"{each.count:,}", size(each.text_bytes)]
        for each in used.written
    ]
    types: list[Row] = [[name, f"{count:,}"] for name, count in used.types.items()]
    yield from ((_GROWTH, growth), (_WRITTEN, written), (_TYPES, types))
