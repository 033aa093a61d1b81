"""The verbs that keep a store safe elsewhere: backup, ship and restore-from."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import click

from evstore import replay
from evstore.cli import asking, terminal
from evstore.cli.asking import FILE, JSON, MOMENT, PLACE
from evstore.cli.care import finding_line
from evstore.cli.terminal import complain
from evstore.store import Store
from evstore.transfer import follow, restore_from, segments
from evstore.transfer import ship as ship_once

_PERCENT = 100
_LEVEL = click.option(
    "--level",
    type=click.Choice(["heads", "chain", "full"]),
    default="heads",
    show_default=True,
    help="How far to verify what was made, as `verify` does.",
)


@click.command(short_help="Copy a store while it is in use.")
@FILE
@click.argument("target", type=PLACE)
@click.option(
    "--at",
    type=MOMENT,
    metavar="MOMENT",
    help="Copy the past: a position, or an ISO 8601 time with its zone.",
)
@_LEVEL
@JSON
@click.pass_context
def backup(
    context: click.Context,
    file: str,
    target: Path,
    at: int | datetime | None,
    level: replay.Level,
    as_json: bool,
) -> None:
    """Copy a store into the new file TARGET, while others go on writing.

    TARGET gets its name when it is whole, verified and on the disk.
    """
    with asking.reading(file) as store, terminal.progress("copying", _PERCENT) as advance:
        position = store.backup(
            target, at=at, progress=lambda done, total: advance(_PERCENT * done // total)
        )
    size_bytes = target.stat().st_size
    if asking.in_json(as_json=as_json):
        fields = {"path": str(target), "position": position, "size_bytes": size_bytes}
        terminal.write(terminal.json_line(fields))
    else:
        terminal.say(f"copied up to position {position:,}, {terminal.size(size_bytes)}")
    with asking.writing(target) as copy:
        _verify(context, copy, level)


def _verify(context: click.Context, store: Store, level: replay.Level) -> None:
    """Print what is not as it was recorded, and exit 1 for that."""
    with terminal.progress("verifying"):
        findings = list(replay.verify(store, level=level))
    for finding in findings:
        complain(finding_line(finding))
    if findings:
        context.exit(1)


@click.command(short_help="Add what is new to a folder of segments.")
@FILE
@click.argument("folder", type=click.Path())
@click.option("--follow", "follows", is_flag=True, help="Go on as commits come, until Ctrl-C.")
@JSON
def ship(file: str, folder: str, follows: bool, as_json: bool) -> None:
    """Add what is new in a store to the segments in FOLDER, from which `restore-from` builds it.

    FOLDER is made if it is not there; files in it never change. When this returns, all that was
    recorded before is in whole segments on the disk.
    """
    with suppress(KeyboardInterrupt), asking.writing(file) as store:
        for shipped in follow(store, folder) if follows else [ship_once(store, folder)]:
            _tell(
                attrs.asdict(shipped),
                f"shipped {terminal.counted(shipped.batches, 'batch', 'batches')} in "
                f"{terminal.counted(shipped.segments, 'segment')}, up to position "
                f"{shipped.position:,}",
                as_json=as_json,
            )
            terminal.finish()


@click.command("restore-from", short_help="Build a store from a folder of segments.")
@click.argument("folder", type=click.Path())
@click.argument("target", type=PLACE)
@_LEVEL
@JSON
@click.pass_context
def restore_from_(
    context: click.Context, folder: str, target: Path, level: replay.Level, as_json: bool
) -> None:
    """Build the store TARGET from the segments in FOLDER, or add to it what is new in them.

    A segment that is missing, cut off, changed, or of another store ends it there: it is told, all
    before it is restored, and the exit code is 1.
    """
    segments.found(folder)  # so that no store is made for nothing
    with asking.writing(target, create=True) as store:
        with terminal.progress("restoring", _PERCENT) as advance:
            restored = restore_from(
                store, folder, lambda done, total: advance(_PERCENT * done // total)
            )
        _tell(
            attrs.asdict(restored),
            f"restored {terminal.counted(restored.batches, 'batch', 'batches')}, up to position "
            f"{restored.position:,}",
            as_json=as_json,
        )
        _verify(context, store, level)
    if restored.stopped is not None:
        complain(f"{restored.stopped.where} was not restored: {restored.stopped.reason}")
        context.exit(1)


def _tell(fields: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    if asking.in_json(as_json=as_json):
        terminal.write(terminal.json_line(fields))
    else:
        terminal.say(sentence)


VERBS = (backup, ship, restore_from_)
