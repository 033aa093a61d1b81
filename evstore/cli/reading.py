"""The verbs that look: ls, show, log and get; none of them creates or changes anything."""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import click
import orjson
from rich.table import Table
from rich.text import Text

from evstore import values
from evstore.cli import asking, terminal
from evstore.cli.asking import AT, COUNT, FILE, JSON, METADATA, SESSION
from evstore.cli.shown import LOG_COLUMNS, event_line, event_rows, one_line, parts, text_of
from evstore.cli.terminal import Column
from evstore.moments import When
from evstore.results import Parent, SessionInfo
from evstore.session import Session
from evstore.view import View

MESSAGES_SHOWN = 20
PAGE_MESSAGES = 200
_LS_COLUMNS = (
    Column("session"),
    Column("head", 7, right=True),
    Column("messages", 8, right=True),
    Column("variables", 9, right=True),
    Column("updated", 20, style="dim"),
)
# Its uid is what brings a life back; the counts have to make room for it.
_ENDED_COLUMNS = (_LS_COLUMNS[0], _LS_COLUMNS[-1], Column("uid", 32))
_VALUE_COLUMNS = (Column("name", 24, style="cyan"), Column("type", 9, style="dim"), Column("value"))


@click.command(short_help="List the sessions of a store.")
@FILE
@click.argument("prefix", default="")
@click.option("--deleted", is_flag=True, help="List the lives that have ended, with their uids.")
@click.option("--limit", type=COUNT, metavar="NUMBER", help="List so many at most.")
@JSON
def ls(file: str, prefix: str, deleted: bool, limit: int | None, as_json: bool) -> None:
    """List the sessions whose id begins with PREFIX."""
    with asking.reading(file) as store:
        sessions = store.sessions(prefix, limit=limit, deleted=deleted)
        if asking.in_json(as_json=as_json):
            for info in sessions:
                terminal.write(terminal.json_line(attrs.asdict(info)))
            return
        columns = _ENDED_COLUMNS if deleted else _LS_COLUMNS
        terminal.print_table(columns, (_ls_row(info, deleted=deleted) for info in sessions))


def _ls_row(info: SessionInfo, *, deleted: bool) -> list[str | Text]:
    name = Text(terminal.harmless(info.id or "(forgotten)"))
    if info.parent is not None:
        origin = terminal.harmless(info.parent.id or info.parent.uid)
        name.append(f"  fork of {origin} at {info.parent.seq}", "dim")
    updated = terminal.moment(info.updated_at)
    if deleted:
        return [name, updated, info.uid]
    return [name, f"{info.head:,}", f"{info.messages:,}", f"{info.variables:,}", updated]


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
        "parent": None if parent is None else attrs.asdict(parent),
        "variables": orjson.Fragment(_members(view.variables)),
        "metadata": orjson.Fragment(_members(view.metadata)),
    }
    yield orjson.dumps(head, option=orjson.OPT_UTC_Z)[:-1] + b',"messages":['
    for index, message in enumerate(_newest(view, limit)):
        yield (b"," if index else b"") + text_of(message)
    yield b"]}"


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


def _show_values(title: str, named: Mapping[str, Any]) -> None:
    if named:
        terminal.say()
        terminal.say(f"{title} ({len(named)})", "bold")
        terminal.print_table(_VALUE_COLUMNS, _value_rows(named))


def _value_rows(named: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, value in named.items():
        yield [name, values.type_name(text_of(value)), one_line(value)]


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
            terminal.print_table(LOG_COLUMNS, event_rows(events))


@click.command(short_help="Print the value of a variable, or of all.")
@FILE
@SESSION
@click.argument("name", required=False)
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
            terminal.print_table(_VALUE_COLUMNS, _value_rows(named))
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
