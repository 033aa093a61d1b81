"""The verbs of the past: label, blame and history tell of it; undo, redo, revert return to it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice, takewhile

import click
from rich.table import Table
from rich.text import Text

from evstore.cli import asking, terminal
from evstore.cli.asking import ACTOR, AT, COUNT, FILE, JSON, SESSION
from evstore.cli.changing import report
from evstore.cli.shown import event_line, said_by, text_of, told_value
from evstore.cli.terminal import Cell, Column, harmless
from evstore.events import VARIABLE_SET, Event
from evstore.moments import When
from evstore.session import Session

NAME = click.argument("name", type=asking.NAME)
STEPS = click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    default=1,
    show_default=True,
    help="Do it so many times.",
)
_LABEL_COLUMNS = (Column("label"), Column("seq", 7, right=True), Column("time", 20, style="dim"))
_HISTORY_COLUMNS = (
    Column("seq", 7, right=True),
    Column("time", 20, style="dim"),
    Column("by", 16),
    Column("value"),
)


@click.command(short_help="Name a moment, or list the names.")
@FILE
@SESSION
@click.argument("name", required=False)
@click.option(
    "--at",
    type=asking.MOMENT,
    metavar="MOMENT",
    help="Name a moment of the past; without NAME, list what was named by then.",
)
@ACTOR
@JSON
def label(
    file: str, session: str, name: str | None, at: When | None, actor: str | None, as_json: bool
) -> None:
    """Give the present the name NAME, by which --at finds it; without NAME, list the labels.

    A name given again moves. It is neither a number nor a date.
    """
    if name is not None:
        with asking.writing(file, actor) as store:
            report(asking.find(store, session).label(name, at), as_json=as_json)
        return
    if actor is not None:
        raise click.UsageError("name the moment: --actor goes with a NAME")
    with asking.reading(file) as store:
        found = asking.find(store, session)
        labels = (found.view() if at is None else found.at(at)).labels
        by_seq = sorted(labels.items(), key=lambda item: (item[1], item[0]))
        if asking.in_json(as_json=as_json):
            for text, seq in by_seq:
                fields = {"label": text, "seq": seq, "time": _time(found, seq)}
                terminal.write(terminal.json_line(fields))
        else:
            terminal.print_table(_LABEL_COLUMNS, _label_rows(found, by_seq))


def _label_rows(session: Session, labels: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    for text, seq in labels:
        yield [text, f"{seq:,}", terminal.moment(_time(session, seq))]


def _time(session: Session, seq: int) -> datetime | None:
    """Return when an event was recorded; there is none at 0."""
    return next(session.events(seq - 1, seq)).time if seq else None


@click.command(short_help="Tell who set a variable, and when.")
@FILE
@SESSION
@NAME
@AT
@JSON
@click.pass_context
def blame(
    context: click.Context, file: str, session: str, name: str, at: When | None, as_json: bool
) -> None:
    """Show the event that set a variable: which one, when, by whom, and to what."""
    with asking.reading(file) as store:
        found = asking.find(store, session)
        event = _blamed(found, name, at)
        if event is None:
            then = "has" if at is None else "had"
            terminal.complain(
                f"session {session!r} {then} no variable {name!r}: see its past with history"
            )
            context.exit(1)
        elif asking.in_json(as_json=as_json):
            terminal.write(event_line(event))
        else:
            _show_blame(found, event)


def _blamed(session: Session, name: str, at: When | None) -> Event | None:
    """Return the event that set a variable, now or by a moment; None where it is absent."""
    try:
        if at is None:
            return session.blame(name)
        view = session.at(at)
        seq = view.variables.info(name).seq
    except KeyError:
        return None
    return next(view.events(seq - 1, limit=1))


def _history(session: Session, name: str, at: When | None) -> Iterator[Event]:
    """Yield the events of a variable up to a moment, the newest first."""
    until = None if at is None else session.at(at).seq
    return (event for event in session.history(name) if until is None or event.seq <= until)


def _show_blame(session: Session, event: Event) -> None:
    facts: list[tuple[str, object]] = [
        ("event", event.seq),
        ("time", f"{event.time:%Y-%m-%d %H:%M:%S.%fZ}"),
        ("by", event.actor or "-"),
    ]
    if event.cause is not None:
        facts.append(("cause", event.cause))
    if event.uid != session.uid:  # a fork reads the past of its parent
        facts.append(("session", event.session or event.uid))
    terminal.print_facts(facts)
    value = _value(event)
    if len(value) > terminal.CELL_CHARACTERS_MAX:
        value = value[: terminal.CELL_CHARACTERS_MAX] + "…"
    row = Table.grid(padding=(0, 2))
    row.add_column(width=max(len(name) for name, _ in facts))
    row.add_column(overflow="fold")
    row.add_row(Text("value", "bold"), Text(harmless(value)))
    terminal.out().print(row)


def _value(event: Event) -> str:
    """Return in one line what a variable was set to."""
    if event.text is None:
        return "(forgotten)"
    return text_of(event.data["value"]).decode()


@click.command(short_help="List all values a variable had.")
@FILE
@SESSION
@NAME
@click.option("--limit", type=COUNT, metavar="NUMBER", help="Show the newest so many at most.")
@click.option("--at", type=asking.MOMENT, metavar="MOMENT", help="Begin with this moment.")
@JSON
@click.pass_context
def history(
    context: click.Context,
    file: str,
    session: str,
    name: str,
    limit: int | None,
    at: When | None,
    as_json: bool,
) -> None:
    """List all that happened to a variable, the newest first, deletions included."""
    with asking.reading(file) as store:
        found = asking.find(store, session)
        events = _history(found, name, at)
        newest = next(events, None)
        if newest is None:
            never, remedy = "never had a", "see what it has with get"
            if at is not None:
                never, remedy = "had by then no", "see its past without --at"
            terminal.complain(f"session {session!r} {never} variable {name!r}: {remedy}")
            context.exit(1)
        chosen = islice(chain([newest], events), limit)
        if asking.in_json(as_json=as_json):
            for event in chosen:
                terminal.write(event_line(event))
        else:
            terminal.print_table(_HISTORY_COLUMNS, map(_history_row, chosen))


def _history_row(event: Event) -> list[Cell]:
    value: Cell = Text("(deleted)", "red")
    if event.kind == VARIABLE_SET:
        value = Text("(forgotten)", "dim")
        if event.text is not None:
            value = told_value(event.data["value"])
    return [str(event.seq), terminal.moment(event.time), said_by(event), value]


# Going back.


@click.command(short_help="Take back the newest batch.")
@FILE
@SESSION
@STEPS
@ACTOR
@JSON
@click.pass_context
def undo(
    context: click.Context, file: str, session: str, steps: int, actor: str | None, as_json: bool
) -> None:
    """Take back the newest batch that is not undone yet, by new events: nothing is lost.

    Variables and messages are again as they were before it; metadata and labels stay. Where there
    is nothing to undo, the exit code is 1.
    """
    with asking.writing(file, actor) as store:
        found = asking.find(store, session)
        for events in _steps(context, "undo", found.undo, steps):
            _report_step("took back", found, _named(events[0]), events, as_json=as_json)


@click.command(short_help="Take back the newest undo.")
@FILE
@SESSION
@STEPS
@ACTOR
@JSON
@click.pass_context
def redo(
    context: click.Context, file: str, session: str, steps: int, actor: str | None, as_json: bool
) -> None:
    """Take back the newest undo, as long as nothing else was recorded after it.

    Where there is nothing to redo, the exit code is 1.
    """
    with asking.writing(file, actor) as store:
        found = asking.find(store, session)
        for events in _steps(context, "redo", found.redo, steps):
            undone = next(found.events(_named(events[0]) - 1, limit=1))
            _report_step("brought back", found, _named(undone), events, as_json=as_json)


def _named(event: Event) -> int:
    """Return the sequence that the cause of an undo or redo names: where its batch begins."""
    return int((event.cause or "").partition(":")[2])


def _steps(
    context: click.Context, verb: str, step: Callable[[], Sequence[Event]], steps: int
) -> Iterator[Sequence[Event]]:
    """Yield what each step recorded; where nothing is left before the last one, exit with 1."""
    for done in range(steps):
        events = step()
        if not events:
            so_far = f" after {done} of {steps} steps" if done else ""
            terminal.complain(f"nothing to {verb}{so_far}: see what happened with log")
            context.exit(1)
        yield events


def _report_step(
    what: str, session: Session, first: int, events: Sequence[Event], *, as_json: bool
) -> None:
    """Tell which batch, that begins at `first`, was taken or brought back by which events."""
    if asking.in_json(as_json=as_json):
        report(events, as_json=as_json)
        return
    following = session.events(first - 1)
    begins = next(following)
    last = first + sum(1 for _ in takewhile(lambda e: e.position == begins.position, following))
    which = f"{first:,}" if last == first else f"{first:,} to {last:,}"
    by = "" if begins.actor is None else f" by {begins.actor[:100]}"
    terminal.say(harmless(f"{what} {which}{by}: {recorded(events)}"))


def recorded(events: Sequence[Event]) -> str:
    """Say how many events were recorded, and where the session is by them."""
    return f"{terminal.counted(len(events), 'event')} recorded, now at {events[-1].seq:,}"


@click.command(short_help="Return to a moment of the past.")
@FILE
@SESSION
@click.argument("moment", type=asking.MOMENT)
@ACTOR
@JSON
def revert(file: str, session: str, moment: When, actor: str | None, as_json: bool) -> None:
    """Make variables and messages what they were at MOMENT, by new events: nothing is lost.

    Metadata and labels stay. Where nothing differs, nothing is recorded.
    """
    with asking.writing(file, actor) as store:
        found = asking.find(store, session)
        to = found.at(moment).seq
        events = found.revert(to)
        if asking.in_json(as_json=as_json):
            report(events, as_json=as_json)
            return
        what = recorded(events) if events else f"nothing to revert, still at {found.head:,}"
        terminal.say(f"{harmless(repr(session))} is as it was at {to:,}: {what}")


VERBS = (label, blame, history, undo, redo, revert)
