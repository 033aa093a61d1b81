"""The verb that makes a file smaller: compact."""

import attrs
import click

from evstore.cli import asking, terminal
from evstore.cli.asking import FILE, JSON


@click.command(short_help="Make a store smaller.")
@FILE
@JSON
def compact(file: str, as_json: bool) -> None:
    """Encode the log anew, so that it says the same in less space, and make the file smaller.

    It goes on where the last time ended, or was stopped. Others may use the store meanwhile; at the
    end, while the file is written anew, who writes has to wait: about 5 seconds for a GB.
    """
    with asking.writing(file) as store, terminal.progress("compacting"):
        gain = store.compact()
    if asking.in_json(as_json=as_json):
        terminal.write(terminal.json_line(attrs.asdict(gain)))
        return
    before, after = terminal.size(gain.before_bytes), terminal.size(gain.after_bytes)
    events = terminal.counted(gain.events, "event")
    terminal.say(f"compacted: {events} encoded anew, {before} before, {after} now")
