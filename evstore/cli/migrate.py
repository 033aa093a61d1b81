"""The verb migrate: all sessions into a new file, as they are or through a function."""

import importlib
import os
import sys
from pathlib import Path

import attrs
import click

from evstore import replay
from evstore.cli import asking, terminal
from evstore.cli.asking import JSON, PLACE


@click.command(short_help="Copy all sessions into a new file, or change them on the way.")
@click.argument("source", type=click.Path(readable=False))
@click.argument("target", type=PLACE)
@click.option(
    "--with",
    "transform",
    metavar="MODULE:FUNCTION",
    help="Give each batch to this function and write what it returns.",
)
@click.option("--dry-run", is_flag=True, help="Write nothing, and tell what would be written.")
@click.option("--resume", is_flag=True, help="Go on with a migration that was cut short.")
@JSON
def migrate(
    source: str, target: Path, transform: str | None, dry_run: bool, resume: bool, as_json: bool
) -> None:
    """Copy all sessions of SOURCE, ended lives too, into the new file TARGET.

    Without --with it is exact, every link unchanged. TARGET gets its name once it is verified; a
    migration that was cut short is TARGET.migrating, and goes on with --resume.
    """
    function = None if transform is None else _function(transform)
    with asking.reading(source) as store:
        total = store.engine.position()
        with terminal.progress("migrating", total) as advance:
            migrated = replay.migrate(
                store,
                target,
                function,
                dry_run=dry_run,
                resume=resume,
                progress=lambda done, _total: advance(done),
            )
    if asking.in_json(as_json=as_json):
        terminal.write(terminal.json_line(attrs.asdict(migrated)))
        return
    terminal.print_facts(attrs.asdict(migrated).items())
    if dry_run:
        terminal.say("nothing was written", "dim")


def _function(named: str) -> replay.Transform:
    """Return the function that `module:function` names; the current folder is looked in, too."""
    module_name, colon, name = named.partition(":")
    if not colon:
        raise click.UsageError(f"{named!r} names no function: give MODULE:FUNCTION")
    sys.path.insert(0, os.getcwd())
    try:
        function: replay.Transform = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # Whatever a module may raise that is being written.
        what = f"{type(error).__name__}: {error}"
        reason = f"{named!r} cannot be had ({what}): check the name and the module"
        raise click.UsageError(reason) from error
    finally:
        sys.path.remove(os.getcwd())
    if not callable(function):
        raise click.UsageError(f"{named!r} is no function: name one")
    return function


VERBS = (migrate,)
