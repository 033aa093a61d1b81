"""The verb that makes a file smaller: compact."""

import click

from evstore.cli import asking, terminal
from evstore.cli.asking import FILE


@click.command(short_help="Make a store smaller.")
@FILE
def compact(file: str) -> None:
    """Encode the log anew, so that it says the same in less space, and make the file smaller.

    It goes on where the last time ended, or was stopped. Others may use the store meanwhile; at the
    end, while the file is written anew, who writes has to wait: about 5 seconds for a GB.
    """
    with asking.writing(file) as store, terminal.progress("compacting"):
        gain = store.compact()
    before, after = terminal.size(gain.before_bytes), terminal.size(gain.after_bytes)
    terminal.say(f"compacted: {gain.events:,} events encoded anew, {before} before, {after} now")
