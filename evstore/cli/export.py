"""The verb export: lines that lose nothing, and the forms that other programs and people read."""

import sys
from collections.abc import Callable

import click

from evstore.cli import asking, terminal
from evstore.cli.asking import FILE
from evstore.cli.completion import complete_session
from evstore.moments import When
from evstore.transfer import EXPORTS, Reported, export_stream, export_to
from evstore.transfer.exports import JSON_LINES, MARKDOWN, is_stream

_STDOUT = (None, "-")


@click.command(short_help="Print or write a store or a session in one of several formats.")
@FILE
@click.argument("session", required=False, shell_complete=complete_session)
@click.option(
    "--to",
    "format",
    type=click.Choice(sorted(EXPORTS)),
    metavar="FORMAT",
    default=JSON_LINES,
    show_default=True,
    help="; ".join(f"{format}, {what}" for format, what in EXPORTS.items()) + ".",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="PATH",
    help="Write to a new file or folder instead of stdout.",
)
@click.option(
    "--at",
    type=asking.MOMENT,
    metavar="MOMENT",
    help="Export the past: a sequence, an ISO 8601 time with its zone, or a label; without "
    "SESSION, a time.",
)
@click.pass_context
def export(
    context: click.Context,
    file: str,
    session: str | None,
    format: str,
    output: str | None,
    at: When | None,
) -> None:
    """Print a store, or one SESSION with the past it shares, as JSON Lines for `import`.

    Other formats are for other programs, or people. What a format has no place for is told, and
    makes the exit code 1.
    """
    if output in _STDOUT and not is_stream(format):
        raise click.UsageError(f"{format} is not one stream: name the new file or folder with -o")
    count = 0

    def report(reported: Reported) -> None:
        nonlocal count
        count += 1
        terminal.complain(f"{reported.where}: {reported.what}: {reported.reason}")

    with asking.reading(file) as store:
        chosen = None if session is None else asking.find(store, session)
        in_lines = format == JSON_LINES and chosen is None and at is None
        total = store.engine.position() if in_lines else None
        with terminal.progress("exporting", total, beside_stdout=output in _STDOUT) as advance:
            if output in _STDOUT:
                shown = _shown(format)
                pieces = export_stream(
                    store, format, chosen, at=at, progress=advance, report=report
                )
                for piece in pieces:
                    sys.stdout.buffer.write(shown(piece))
            else:
                export_to(store, format, output, chosen, at=at, progress=advance, report=report)
    if count:
        context.exit(1)


def _shown(format: str) -> Callable[[bytes], bytes]:
    """Return what makes a piece fit to be seen, where a person looks."""
    if not terminal.is_terminal():
        return bytes
    if format == MARKDOWN:
        return lambda piece: terminal.harmless(piece.decode(), "\n\t").encode()
    return _harmless_json


def _harmless_json(piece: bytes) -> bytes:
    line = piece.removesuffix(b"\n")
    return terminal.harmless_json(line) + piece[len(line) :]
