"""The verb import: what was exported, and what other programs have recorded."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

import attrs
import click

import evstore
from evstore.cli import asking, terminal
from evstore.cli.asking import FILE, JSON
from evstore.cli.terminal import complain
from evstore.errors import Refused, TooLarge
from evstore.transfer import (
    FORMATS,
    Imported,
    Reported,
    import_from,
    import_lines,
)
from evstore.transfer.jsonlines import begun

LINE_BYTES_MAX = 1 << 30


@click.command(name="import", short_help="Add what was exported, or what others have recorded.")
@FILE
@click.argument("input", default="-", type=click.Path())
@click.option(
    "--from",
    "format",
    type=click.Choice(sorted(FORMATS)),
    metavar="FORMAT",
    help="Read what is not evstore's own: "
    + "; ".join(f"{format}, {what}" for format, (_, what) in sorted(FORMATS.items()))
    + ".",
)
@click.option("--prefix", metavar="TEXT", help="With --from: put this before every session id.")
@click.option(
    "--mapping",
    type=click.Path(),
    metavar="FILE",
    help="With --from json: a JSON file that says where what is.",
)
@JSON
@click.pass_context
def import_(
    context: click.Context,
    file: str,
    input: str,
    format: str | None,
    prefix: str | None,
    mapping: str | None,
    as_json: bool,
) -> None:
    """Add what INPUT (stdin, unless given) holds and the store lacks; again adds nothing.

    The file is created if it is not there. Without --from, INPUT is what `export` has printed, and
    loses nothing. With it, INPUT is the file or folder of another program: what it says becomes
    sessions, with its times; what cannot be taken in is told, and makes the exit code 1.
    """
    if format is not None:
        _import_foreign(context, file, input, format, prefix or "", mapping, as_json=as_json)
        return
    if prefix is not None or mapping is not None:
        raise click.UsageError("--prefix and --mapping go with --from: name a format, too")
    if input == "-" and not asking.is_piped_in():
        raise click.UsageError("nothing comes through stdin: name the exported file, or pipe it in")
    if os.path.isdir(input):
        raise click.UsageError(f"{input} is a folder: name its format with --from")
    with click.open_file(input, "rb") as stream:
        lines = begun(_lines(stream))  # so that no store is made for nothing
        total = None if input == "-" else os.path.getsize(input)
        with (
            asking.writing(file, create=True) as store,
            terminal.progress("importing", total) as advance,
        ):
            added = import_lines(store, lines, advance)
    if asking.in_json(as_json=as_json):
        fields = {"sessions": added.sessions, "batches": added.batches, "events": added.events}
        terminal.write(terminal.json_line(fields))
    else:
        terminal.say(f"added {_counts(added)}")


def _import_foreign(
    context: click.Context,
    file: str,
    input: str,
    format: str,
    prefix: str,
    mapping: str | None,
    *,
    as_json: bool,
) -> None:
    """Import from a format, print what is reported as it comes, and count at the end."""
    if input == "-":
        raise click.UsageError("with --from, INPUT is a file or a folder: name it")
    in_json = asking.in_json(as_json=as_json)
    document = None if mapping is None else _mapping(mapping)
    _begin(format, input, document)

    def report(reported: Reported) -> None:
        if in_json:
            terminal.write(terminal.json_line(attrs.asdict(reported)))
        else:
            complain(f"{reported.where}: {reported.what}: {reported.reason}")

    with (
        asking.writing(file, create=True) as store,
        terminal.progress("importing", beside_stdout=in_json) as advance,
    ):
        added = import_from(
            store,
            format,
            input,
            prefix=prefix,
            mapping=document,
            progress=advance,
            report=report,
        )
    if in_json:
        terminal.write(terminal.json_line(attrs.asdict(added)))
    else:
        terminal.say(f"added {_counts(added)}, {added.kept:,} of them kept raw")
    if added.reported:
        context.exit(1)


class _Begun(Exception):
    """Something was read that can be imported."""


def _begin(format: str, input: str, mapping: Any) -> None:
    """Import the beginning into memory, so that no store is made for nothing."""

    def stop(_: object) -> None:
        raise _Begun

    with suppress(_Begun), evstore.open(":memory:") as store:
        import_from(store, format, input, mapping=mapping, progress=stop, report=stop)


def _mapping(path: str) -> Any:
    with click.open_file(path, "rb") as stream:
        try:
            return json.loads(stream.read())
        except (ValueError, RecursionError) as error:
            raise Refused(f"{path} is no JSON ({error}): write a mapping as one object") from None


def _counts(added: Imported) -> str:
    return ", ".join(
        (
            terminal.counted(added.sessions, "session"),
            terminal.counted(added.batches, "batch", "batches"),
            terminal.counted(added.events, "event"),
        )
    )


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines of a bounded length: what is no export may have no end."""
    while line := stream.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX:
            raise TooLarge("a line", len(line), LINE_BYTES_MAX)
        yield line
