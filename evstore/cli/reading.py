"""The verbs that look: ls, show, log and get; none of them creates or changes anything."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import attrs
import click
import orjson
from rich.table import Table
from rich.text import Text

from evstore import values
from evstore.cli import asking, terminal
from evstore.cli.asking import AT, COUNT, FILE, JSON, METADATA, SESSION
from evstore.cli.changing import value_of
from evstore.cli.completion import complete_name, complete_session
from evstore.cli.shown import (
    LOG_COLUMNS,
    event_line,
    event_rows,
    one_line,
    parts,
    text_of,
    told_value,
)
from evstore.cli.terminal import Cell, Column
from evstore.moments import When
from evstore.results import Parent, SessionInfo
from evstore.session import Session
from evstore.variables import Variables
from evstore.view import View

MESSAGES_SHOWN = 20
PAGE_MESSAGES = 200
_LS_COLUMNS = (
    Column("session"),
    Column("head", 7, right=True),
    Column("messages", 8, right=True),
    Column("variables", 9, right=True),
    Column("updated", 8, right=True, style="dim"),
    Column("expires", 8, right=True, style="yellow"),
)
# Its uid is what brings a life back; the counts have to make room for it.
_ENDED_COLUMNS = (_LS_COLUMNS[0], _LS_COLUMNS[4], Column("uid", 32))
_VALUE_COLUMNS = (
    Column("name", 24, style="cyan"),
    Column("type", 9, style="dim"),
    Column("value"),
)
_EXPIRY = Column("expires", 8, right=True, style="yellow")


def _conditions(
    context: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, Any]:
    """Return the values that were given as NAME=VALUE."""
    found: dict[str, Any] = {}
    for condition in given:
        name, equals, value = condition.partition("=")
        if not equals:
            what = f"{condition!r} is no condition: give NAME=VALUE"
            raise click.BadParameter(what, context, option)
        if name in found:
            raise click.BadParameter(f"{name!r} is there twice: give it once", context, option)
        found[name] = value_of(value)
    return found


@click.command(short_help="List the sessions of a store.")
@FILE
@click.argument("prefix", default="", shell_complete=complete_session)
@click.option(
    "--where",
    multiple=True,
    callback=_conditions,
    metavar="NAME=VALUE",
    help="List those with this metadata: VALUE is JSON if it is JSON, else text. May be repeated.",
)
@click.option(
    "--order",
    type=click.Choice(["id", "updated"]),
    default="id",
    help="List by id, or the one that changed last first.",
)
@click.option("--deleted", is_flag=True, help="List the lives that have ended, with their uids.")
@click.option("--limit", type=COUNT, metavar="NUMBER", help="List so many at most.")
@JSON
def ls(
    file: str,
    prefix: str,
    where: dict[str, Any],
    order: Literal["id", "updated"],
    deleted: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the sessions whose id begins with PREFIX."""
    with asking.reading(file) as store:
        sessions = store.sessions(prefix, where=where, order=order, limit=limit, deleted=deleted)
        if asking.in_json(as_json=as_json):
            for info in sessions:
                terminal.write(terminal.json_line(attrs.asdict(info)))
            return
        columns, now = _ENDED_COLUMNS if deleted else _LS_COLUMNS, datetime.now(UTC)
        rows = (_ls_row(info, now, deleted=deleted) for info in sessions)
        terminal.print_table(columns, rows, fit=True)


def _ls_row(info: SessionInfo, now: datetime, *, deleted: bool) -> list[Cell]:
    name = Text(terminal.harmless(info.id or "(forgotten)"))
    if info.parent is not None:
        origin = terminal.harmless(info.parent.id or info.parent.uid)
        name.append(f"  fork of {origin} at {info.parent.seq}", "dim")
    updated = terminal.age(info.updated_at, now)
    if deleted:
        return [name, updated, info.uid]
    counts = [f"{count:,}" for count in (info.head, info.messages, info.variables)]
    return [name, *counts, updated, _expiry(info.expires_at, now)]


def _expiry(deadline: datetime | None, now: datetime) -> str:
    return "" if deadline is None else terminal.age(deadline, now)


@click.command(short_help="Show a session, now or at a moment.")
@FILE
@SESSION
@AT
@click.option(
    "--limit",
    type=COUNT,
    metavar="NUMBER",
    help=f"Show the newest messages only (on a terminal {MESSAGES_SHOWN}, unless said otherwise).",
)
@JSON
def show(file: str, session: str, at: When | None, limit: int | None, as_json: bool) -> None:
    """Show a session: its variables, its metadata and its messages, now or at a moment."""
    with asking.reading(file) as store:
        found = asking.find(store, session)
        view = found.view() if at is None else found.at(at)
        if asking.in_json(as_json=as_json):
            for piece in _json_pieces(found, view, limit):
                terminal.write(terminal.harmless_json(piece))
            terminal.write(b"\n")
        else:
            _show_head(found, view)
            _show_values("variables", view.variables)
            _show_values("metadata", view.metadata)
            _show_messages(view, MESSAGES_SHOWN if limit is None else limit)


def _json_pieces(session: Session, view: View, limit: int | None) -> Iterator[bytes]:
    parent = session.parent
    head = {
        "id": session.id,
        "uid": session.uid,
        "seq": view.seq,
        "head": session.head,
        "time": view.time,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "expires_at": session.expires_at,
        "parent": None if parent is None else attrs.asdict(parent),
        "deadlines": dict(_deadlines(view.variables)),
        "variables": orjson.Fragment(_members(view.variables)),
        "metadata": orjson.Fragment(_members(view.metadata)),
    }
    yield orjson.dumps(head, option=orjson.OPT_UTC_Z)[:-1] + b',"messages":['
    for index, message in enumerate(_newest(view, limit)):
        yield (b"," if index else b"") + text_of(message)
    yield b"]}"


def _deadlines(named: Variables) -> Iterator[tuple[str, datetime]]:
    """Yield the names that have a deadline."""
    for name in named:
        deadline = named.info(name).expires_at
        if deadline is not None:
            yield name, deadline


def _members(named: Mapping[str, Any]) -> bytes:
    """Return names and values as one JSON object, the values as stored."""
    return orjson.dumps({name: orjson.Fragment(text_of(value)) for name, value in named.items()})


def _newest(view: View, limit: int | None) -> Iterator[Any]:
    count = len(view.messages)
    start = 0 if limit is None else max(0, count - limit)
    for first in range(start, count, PAGE_MESSAGES):
        yield from view.messages[first : min(first + PAGE_MESSAGES, count)]


def _show_head(session: Session, view: View) -> None:
    line = Text(terminal.harmless(session.id), "bold")
    line.append(f"  {session.uid}", "dim")
    terminal.say(line)
    facts = [f"at {view.seq:,} of {session.head:,}"]
    if view.time is not None:
        facts.append(terminal.moment(view.time))
    parent: Parent | None = session.parent
    if parent is not None:
        facts.append(f"fork of {terminal.harmless(parent.id or parent.uid)} at {parent.seq:,}")
    terminal.say(" · ".join(facts), "dim")
    deadline = session.expires_at
    if deadline is not None:
        now = datetime.now(UTC)
        verb = "expires" if deadline > now else "expired"
        terminal.say(f"{verb} {terminal.moment(deadline)}, {terminal.age(deadline, now)}", "yellow")


def _show_values(title: str, named: Variables) -> None:
    if named:
        terminal.say()
        terminal.say(f"{title} ({len(named)})", "bold")
        print_values(named)


def print_values(named: Variables) -> None:
    """Print names and values as a table, with their deadlines where there is one."""
    deadlines, now = dict(_deadlines(named)), datetime.now(UTC)
    rows: list[list[Cell]] = [
        [name, values.type_name(text_of(value)), told_value(value, one_line(value))]
        for name, value in named.items()
    ]
    if not deadlines:
        terminal.print_table(_VALUE_COLUMNS, rows)
        return
    for row, name in zip(rows, named, strict=True):
        row.append(_expiry(deadlines.get(name), now))
    terminal.print_table((*_VALUE_COLUMNS, _EXPIRY), rows)


def _show_messages(view: View, limit: int) -> None:
    count = len(view.messages)
    terminal.say()
    terminal.say(f"messages ({count:,})", "bold")
    if limit < count:
        terminal.say(f"… {count - limit:,} before these; --limit {count} shows all", "dim")
    for message in _newest(view, limit):
        print_message(message)


def print_message(message: Any) -> None:
    """Print a message for a person: its role beside its content, which may take many lines."""
    if not isinstance(message, dict):
        terminal.say("(forgotten)", "dim")
        return
    content, rest = parts(message)
    said = Text(terminal.harmless(content, keep="\n"))
    if rest:
        said.append(("\n" if content else "") + terminal.harmless(rest), "dim")
    row = Table.grid(padding=(0, 2))
    row.add_column(width=10, no_wrap=True)
    row.add_column(overflow="fold")
    row.add_row(Text(terminal.harmless(str(message["role"])), "green", overflow="ellipsis"), said)
    terminal.out().print(row)


@click.command(short_help="List what happened to a session.")
@FILE
@SESSION
@click.option("--after", type=COUNT, metavar="SEQ", default=0, help="Begin after this sequence.")
@click.option("--limit", type=COUNT, metavar="NUMBER", help="Show so many events at most.")
@click.option("--kind", help="Show the events of one kind, such as variable.set.")
@click.option(
    "--name",
    type=asking.NAME,
    metavar="TEXT",
    help="Show the events of one variable or piece of metadata.",
)
@click.option("--reverse", is_flag=True, help="Begin with the newest.")
@click.option("--at", type=asking.MOMENT, metavar="MOMENT", help="End with this moment.")
@JSON
def log(
    file: str,
    session: str,
    after: int,
    limit: int | None,
    kind: str | None,
    name: str | None,
    reverse: bool,
    at: When | None,
    as_json: bool,
) -> None:
    """List what happened to a session, event by event; the past of a fork reads through."""
    with asking.reading(file) as store:
        found = asking.find(store, session)
        until = None if at is None else found.at(at).seq
        events = found.events(after, until, name=name, kind=kind, reverse=reverse, limit=limit)
        if asking.in_json(as_json=as_json):
            for event in events:
                terminal.write(event_line(event))
        else:
            terminal.print_table(LOG_COLUMNS, event_rows(events, now=datetime.now(UTC)), fit=True)


@click.command(short_help="Print the value of a variable, or of all.")
@FILE
@SESSION
@click.argument("name", required=False, shell_complete=complete_name)
@METADATA
@AT
@JSON
@click.pass_context
def get(
    context: click.Context,
    file: str,
    session: str,
    name: str | None,
    metadata: bool,
    at: When | None,
    as_json: bool,
) -> None:
    """Print the value of a variable; without NAME, all of them.

    A text is printed as it is on a terminal, and as JSON in a pipe. What JSON lacks has the form in
    which it is stored, such as {"$date": "2026-01-31"}, and `set` takes it back.
    """
    with asking.reading(file) as store:
        found = asking.find(store, session)
        view = found.view() if at is None else found.at(at)
        named = view.metadata if metadata else view.variables
        exact = asking.in_json(as_json=as_json)
        if name is None and exact:
            terminal.write(terminal.harmless_json(_members(named)) + b"\n")
        elif name is None:
            print_values(named)
        elif name not in named:
            what = "metadata" if metadata else "variable"
            terminal.complain(
                f"session {session!r} has no {what} {name!r}: see what it has with get"
            )
            context.exit(1)
        else:
            _print_value(named[name], exact=exact)


def _print_value(value: Any, *, exact: bool) -> None:
    if exact or not isinstance(value, str):
        terminal.write(terminal.harmless_json(text_of(value)) + b"\n")
    else:
        terminal.say(terminal.harmless(value, keep="\n\t"))


VERBS = (ls, show, log, get)
