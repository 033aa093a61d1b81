"""The verbs that change a session: set, say, delete, restore and fork."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from rich.text import Text

import evstore
from evstore import values
from evstore.cli import asking, terminal
from evstore.cli.asking import ACTOR, EXPECTED, FILE, JSON, METADATA, SESSION
from evstore.cli.completion import complete_name, complete_uid
from evstore.cli.shown import event_line, told_event
from evstore.deadlines import Ttl
from evstore.errors import Corrupt, Refused
from evstore.events import Event
from evstore.moments import When
from evstore.store import Store


@click.command(name="set", short_help="Set a variable.")
@FILE
@SESSION
@click.argument("name", shell_complete=complete_name)
@click.argument("value")
@click.option("--string", is_flag=True, help="Take VALUE as text, even where it is JSON.")
@METADATA
@ACTOR
@click.option(
    "--expect",
    type=EXPECTED,
    metavar="SEQ",
    help="Only if the event SEQ set it last, or if it is `absent`.",
)
@click.option(
    "--ttl",
    type=asking.TTL,
    metavar="TTL",
    help="Until when: 30m, 2h, 7d or seconds from now, or a date or time in ISO 8601.",
)
@JSON
def set_variable(
    file: str,
    session: str,
    name: str,
    value: str,
    string: bool,
    metadata: bool,
    actor: str | None,
    expect: Any,
    ttl: Ttl | None,
    as_json: bool,
) -> None:
    """Set a variable to VALUE: JSON if it is JSON, else text; `-` reads it from stdin.

    The file and the session are created if they are not there. From its deadline on a variable is
    absent; a date is its beginning in UTC.
    """
    text = asking.given_text(value)
    given = text if string else value_of(text)
    expected = evstore.ANY if expect is None else expect

    def write(store: Store) -> Sequence[Event]:
        found = asking.find_or_begin(store, session)
        named = found.metadata if metadata else found.variables
        return named.set(name, given, expect=expected, ttl=ttl)

    report(asking.begin(file, actor, write), as_json=as_json)


def value_of(text: str) -> Any:
    """Return what an argument stands for: the JSON value that it is, or itself."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text
    try:
        again = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise Refused(
            "the value holds a number that no float is large enough for: "
            "write a smaller one, or use --string"
        ) from None
    if '"$' not in text:
        return value
    try:  # What `get` prints of other types is taken back as it was.
        return values.decode(again)
    except (Corrupt, UnicodeEncodeError):
        raise Refused(
            'the value looks like one of evstore\'s own, such as {"$date": "2026-01-31"}, and is '
            'none: write {"$x": 1} as {"$dict": [["$x", 1]]}, or use --string'
        ) from None


def _no_constant(_name: str) -> NoReturn:
    raise ValueError


def report(events: Sequence[Event], *, as_json: bool) -> None:
    """Tell which events were recorded: whole to a program, in a line each to a person."""
    for event in events:
        if asking.in_json(as_json=as_json):
            terminal.write(event_line(event))
        else:
            line = Text(f"{event.seq}  {event.kind}  ")
            room = max(12, terminal.out().width - len(line))
            line.append_text(terminal.folded(told_event(event), room)).rstrip()
            terminal.say(line)


@click.command(short_help="Append a message.")
@FILE
@SESSION
@click.argument("role")
@click.argument("text")
@click.option("--extra", metavar="JSON", help="Other keys of the message, as a JSON object.")
@ACTOR
@click.option("--expect", type=asking.COUNT, metavar="SEQ", help="Only if the head is SEQ.")
@JSON
def say(
    file: str,
    session: str,
    role: str,
    text: str,
    extra: str | None,
    actor: str | None,
    expect: int | None,
    as_json: bool,
) -> None:
    """Append the message TEXT in the name of ROLE; `-` reads TEXT from stdin.

    The file and the session are created if they are not there.
    """
    message = {"role": role, "content": asking.given_text(text)}
    if extra is not None:
        more = value_of(extra)
        if not isinstance(more, dict):
            raise Refused(f'--extra {extra!r} is no JSON object: give one like {{"name": "Ada"}}')
        message |= more
    expected = evstore.ANY if expect is None else expect

    def write(store: Store) -> Sequence[Event]:
        with asking.find_or_begin(store, session).batch(expect=expected) as batch:
            batch.messages.append(message)
        return batch.events

    report(asking.begin(file, actor, write), as_json=as_json)


@click.command(short_help="Delete a variable, or a session.")
@FILE
@SESSION
@click.argument("name", required=False, shell_complete=complete_name)
@METADATA
@ACTOR
@JSON
@click.pass_context
def delete(
    context: click.Context,
    file: str,
    session: str,
    name: str | None,
    metadata: bool,
    actor: str | None,
    as_json: bool,
) -> None:
    """Delete a variable; without NAME, the session, which `restore` brings back."""
    if name is None and metadata:
        raise click.UsageError("name what to delete: --metadata goes with a NAME")
    with asking.writing(file, actor) as store:
        found = asking.find(store, session)
        if name is None:
            event = store.delete(asking.id_to_write(found))
            report([event], as_json=as_json)
            if not asking.in_json(as_json=as_json):
                terminal.say(f"its log stays, under its uid {event.uid}", "dim")
            return
        with found.batch() as batch:
            named = batch.metadata if metadata else batch.variables
            if named.pop(name, batch) is batch:
                what = "metadata" if metadata else "variable"
                terminal.complain(
                    f"session {session!r} has no {what} {name!r}: nothing was written"
                )
                context.exit(1)
        report(batch.events, as_json=as_json)


@click.command(short_help="Bring a deleted session back.")
@FILE
@click.argument("uid", shell_complete=complete_uid)
@ACTOR
@JSON
def restore(file: str, uid: str, actor: str | None, as_json: bool) -> None:
    """Bring a deleted session back by its UID, which `ls --deleted` shows."""
    with asking.writing(file, actor) as store:
        _report_session(store.restore(uid), "is back", as_json=as_json)


@click.command(short_help="Make a session that shares a past.")
@FILE
@SESSION
@click.argument("new")
@click.option(
    "--at", type=asking.MOMENT, metavar="MOMENT", help="Fork from the past instead of from now."
)
@ACTOR
@JSON
def fork(
    file: str, session: str, new: str, at: When | None, actor: str | None, as_json: bool
) -> None:
    """Make the session NEW, which shares the past of SESSION and has its own future."""
    with asking.writing(file, actor) as store:
        found = asking.find(store, session)
        _report_session(found.fork(new, at), f"is a fork of {session!r}", as_json=as_json)


def _report_session(session: evstore.Session, what: str, *, as_json: bool) -> None:
    if asking.in_json(as_json=as_json):
        fields = {"id": session.id, "uid": session.uid, "head": session.head}
        terminal.write(terminal.json_line(fields))
    else:
        head = f"at {session.head:,}"
        terminal.say(f"{terminal.harmless(repr(session.id))} {what}, {head}")


VERBS = (set_variable, say, delete, restore, fork)
