"""The verbs export and import: a store, or one session, as lines that lose nothing."""

import os
import sys
from collections.abc import Iterator
from typing import IO, BinaryIO

import click

from evstore.cli import asking, terminal
from evstore.cli.asking import FILE, JSON
from evstore.cli.completion import complete_session
from evstore.errors import TooLarge
from evstore.transfer import export_lines, import_lines

LINE_BYTES_MAX = 1 << 30
_STDOUT = (None, "-")


@click.command(short_help="Print a store or a session as JSON Lines.")
@FILE
@click.argument("session", required=False, shell_complete=complete_session)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    help="Write to a new file instead of stdout.",
)
def export(file: str, session: str | None, output: str | None) -> None:
    """Print a store, or one SESSION with the past it shares, as JSON Lines for `import`."""
    with asking.reading(file) as store:
        chosen = None if session is None else asking.find(store, session)
        total = store.engine.position() if chosen is None else None
        seen = output in _STDOUT and terminal.is_terminal()
        with terminal.progress("exporting", total) as advance, _written(output) as stream:
            for count, line in enumerate(export_lines(store, chosen)):
                stream.write(terminal.harmless_json(line[:-1]) + b"\n" if seen else line)
                advance(count)


def _written(output: str | None) -> "_Kept | BinaryIO":
    return _Kept() if output in _STDOUT else open(str(output), "xb")


class _Kept:
    """Stdout in a with block that does not close it."""

    def __enter__(self) -> BinaryIO:
        """Return stdout."""
        return sys.stdout.buffer

    def __exit__(self, *_error: object) -> None:
        """Leave stdout open."""


@click.command(name="import", short_help="Add what was exported.")
@FILE
@click.argument("input", default="-", type=click.Path())
@JSON
def import_(file: str, input: str, as_json: bool) -> None:
    """Add what INPUT (stdin, unless given) holds and the store lacks; again adds nothing.

    The file is created if it is not there.
    """
    if input == "-" and not asking.is_piped_in():
        raise click.UsageError("nothing comes through stdin: name the exported file, or pipe it in")
    with click.open_file(input, "rb") as stream, asking.writing(file, create=True) as store:
        total = None if input == "-" else os.path.getsize(input)
        with terminal.progress("importing", total) as advance:
            added = import_lines(store, _lines(stream), advance)
    if asking.in_json(as_json=as_json):
        fields = {"sessions": added.sessions, "batches": added.batches, "events": added.events}
        terminal.write(terminal.json_line(fields))
    else:
        counts = f"{added.sessions:,} sessions, {added.batches:,} batches, {added.events:,} events"
        terminal.say(f"added {counts}")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines of a bounded length: what is no export may have no end."""
    while line := stream.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise TooLarge("a line", len(line), LINE_BYTES_MAX)
        yield line


VERBS = (export, import_)
