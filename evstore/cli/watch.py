"""The verb that follows a store or a session: it shows events as they come, until it is stopped."""

import select
import sys
from collections.abc import Iterator
from contextlib import suppress

import click

from evstore.cli import asking, terminal
from evstore.cli.asking import COUNT, FILE, JSON
from evstore.cli.shown import LOG_COLUMNS, STORE_LOG_COLUMNS, event_line, event_rows
from evstore.events import Event
from evstore.session import Session
from evstore.store import Store
from evstore.watch import Watch

EVENTS_SHOWN = 10
_LISTENER_CHECK_S = 0.5


@click.command(short_help="Show events as they come.")
@FILE
@click.argument("session", required=False)
@click.option(
    "--after",
    type=COUNT,
    metavar="NUMBER",
    help="Begin after this sequence; without SESSION, after this position.",
)
@click.option("--from-start", is_flag=True, help="Begin with the first event.")
@JSON
def watch(
    file: str, session: str | None, after: int | None, from_start: bool, as_json: bool
) -> None:
    """Show the newest events of a session, or of the whole store, and all that come.

    It begins with the last 10, unless told otherwise, and ends with Ctrl-C. A session that is not
    there is waited for.
    """
    if from_start and after is not None:
        raise click.UsageError("--from-start is --after 0: give one of them")
    with suppress(KeyboardInterrupt), asking.reading(file) as store:
        found = None if session is None else asking.find_or_begin(store, session)
        events = _events(store if found is None else found, 0 if from_start else after)
        if asking.in_json(as_json=as_json):
            for event in events:
                terminal.write(event_line(event))
                terminal.finish()
        elif found is None:
            terminal.print_table(STORE_LOG_COLUMNS, event_rows(events, of_store=True))
        else:
            terminal.print_table(LOG_COLUMNS, event_rows(events))


def _events(watched: Store | Session, after: int | None) -> Iterator[Event]:
    """Yield the newest events, or those after a number, and all that come."""
    if after is not None:
        yield from _coming(watched.watch(after))
        return
    newest = _newest(watched)
    yield from newest
    yield from _coming(watched.watch(newest[-1] if newest else 0))


def _newest(watched: Store | Session) -> list[Event]:
    if isinstance(watched, Store):
        return watched.engine.newest_events(EVENTS_SHOWN)
    return list(watched.events(reverse=True, limit=EVENTS_SHOWN))[::-1]


def _coming(watch: Watch) -> Iterator[Event]:
    while True:
        yield from watch.poll(_LISTENER_CHECK_S)
        if not _is_listened_to():
            raise BrokenPipeError


def _is_listened_to() -> bool:
    """Tell whether anybody still reads what is printed, before there is more to print."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return not any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))
