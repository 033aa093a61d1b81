"""The verbs that look after a file: verify, rebuild and sweep."""

from collections.abc import Iterator
from contextlib import ExitStack

import attrs
import click

from evstore import replay
from evstore.cli import asking, terminal
from evstore.cli.asking import ACTOR, FILE, JSON
from evstore.cli.completion import complete_session
from evstore.cli.shown import event_line
from evstore.cli.terminal import Column
from evstore.events import SESSION_EXPIRED, Event
from evstore.watch import Watch

_EXPIRED_COLUMNS = (Column("session"), Column("uid", 32))


@click.command(short_help="Check that the log is as it was recorded.")
@FILE
@click.option(
    "--level",
    type=click.Choice(["heads", "chain", "full"]),
    default="chain",
    show_default=True,
    help="heads: the newest links; chain: every link; full: all that is derived as well.",
)
@JSON
@click.pass_context
def verify(context: click.Context, file: str, level: replay.Level, as_json: bool) -> None:
    """Check that the log is as it was recorded: print ok, or a line for each finding.

    In JSON there is a line for each finding, and no ok.
    """
    in_json, count = asking.in_json(as_json=as_json), 0
    with asking.reading(file) as store, ExitStack() as shown:
        shown.enter_context(terminal.progress("verifying"))
        for finding in replay.verify(store, level=level):
            shown.close()  # A bar and findings would write over each other.
            count += 1
            _print_finding(finding, in_json=in_json)
    _conclude(context, count, in_json=in_json)


def _print_finding(finding: replay.Finding, *, in_json: bool) -> None:
    if in_json:
        terminal.write(terminal.json_line(attrs.asdict(finding)))
    else:
        terminal.say(finding_line(finding))


def _conclude(context: click.Context, count: int, *, in_json: bool) -> None:
    """Leave with exit code 1 where something was found, else say ok."""
    if count:
        context.exit(1)
    if not in_json:
        terminal.say("ok")


def finding_line(finding: replay.Finding) -> str:
    """Return a finding as a line: where, which kind of thing, and what about it."""
    where = finding.session or "the store"
    if finding.seq is not None:
        where += f" at {finding.seq}"
    return terminal.harmless(f"{where}: {finding.kind}: {finding.what}")


@click.command(short_help="Make the present what the log says.")
@FILE
@click.argument("session", required=False, shell_complete=complete_session)
@JSON
@click.pass_context
def rebuild(context: click.Context, file: str, session: str | None, as_json: bool) -> None:
    """Make the present what the log says, of all sessions or one: print what was wrong, or ok.

    Others may read and write meanwhile; only rows that differ from the log are written. In JSON
    there is a line for each row that was wrong, and no ok.
    """
    in_json = asking.in_json(as_json=as_json)
    with asking.writing(file) as store, terminal.progress("rebuilding"):
        findings = replay.rebuild(store, None if session is None else asking.find(store, session))
    for finding in findings:
        _print_finding(finding, in_json=in_json)
    _conclude(context, len(findings), in_json=in_json)


def _polled(watch: Watch) -> Iterator[Event]:
    """Yield what was recorded since the watch began."""
    while events := watch.poll(0):
        yield from events


@click.command(short_help="Put on record which sessions expired.")
@FILE
@ACTOR
@JSON
def sweep(file: str, actor: str | None, as_json: bool) -> None:
    """Put on record which sessions have passed their deadlines, and list them with their uids.

    A session is absent from its deadline on, whether swept or not. `restore` brings one back.
    """
    with asking.writing(file, actor) as store:
        watch = store.watch()
        store.sweep()
        expired = [event for event in _polled(watch) if event.kind == SESSION_EXPIRED]
        if asking.in_json(as_json=as_json):
            for event in expired:
                terminal.write(event_line(event))
            return
        if expired:
            rows = ([event.session or "(forgotten)", event.uid] for event in expired)
            terminal.print_table(_EXPIRED_COLUMNS, rows)
        what = terminal.counted(len(expired), "session") if expired else "no sessions"
        terminal.say(f"{what} expired", "dim")


VERBS = (verify, rebuild, sweep)
