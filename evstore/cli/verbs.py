"""All verbs under one name; whatever goes wrong in one is a sentence on stderr and an exit code."""

import os
import sys
from importlib.metadata import version
from typing import Any, NoReturn

import click

from evstore.cli import (
    MISUSE,
    STOPPED,
    backup,
    care,
    changing,
    completion,
    demo,
    diff,
    doctor,
    merge,
    past,
    reading,
    search,
    transfer,
)
from evstore.cli.chat import chat
from evstore.cli.compact import compact
from evstore.cli.export import export
from evstore.cli.migrate import migrate
from evstore.cli.stats import stats
from evstore.cli.terminal import complain, finish
from evstore.cli.watch import watch
from evstore.errors import EvstoreError, MissingExtra, Refused, Unsupported

WRONG = 1
NOBODY_LISTENS = 141


class _NobodyListens(Exception):
    """Whoever read what is printed has left."""


class Verbs(click.Group):
    """The group of all verbs, in the order in which a newcomer would want to meet them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click asks
        """Return the names as they were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; a broken pipe is named otherwise, because click would make it exit code 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _NobodyListens from error

    def main(self, *arguments: Any, **settings: Any) -> NoReturn:
        """Run, and leave with an exit code."""
        sys.exit(self.run(*arguments, **settings))

    def run(self, *arguments: Any, **settings: Any) -> int:
        """Run, and return the exit code: 0 fine, 1 found something wrong, 2 misuse."""
        settings["standalone_mode"] = False
        settings.setdefault("prog_name", completion.PROGRAM)
        settings.setdefault("complete_var", completion.VARIABLE)
        try:
            code = super().main(*arguments, **settings)
            finish()
        except BaseException as error:  # noqa: BLE001 - the last place that can turn it into words
            return _explain(error)
        return code if isinstance(code, int) else 0


def _explain(error: BaseException) -> int:
    """Say in one sentence what went wrong, and return the exit code."""
    match error:
        case BrokenPipeError() | _NobodyListens():
            # Whatever is still buffered would complain once more at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return NOBODY_LISTENS
        case KeyboardInterrupt() | click.Abort():
            return STOPPED
        case SystemExit():
            return error.code if isinstance(error.code, int) else WRONG
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return MISUSE
        case click.NoSuchOption() if not error.possibilities:
            given = error.option_name
            complain(f"there is no option {given!r}: if it is an argument, put -- before it")
            return MISUSE
        case click.ClickException():
            complain(error.format_message().replace("\n\t", " "))  # click lists choices so
            return error.exit_code
        case EvstoreError():
            complain(str(error))
            is_misuse = isinstance(error, Refused | Unsupported | MissingExtra)
            return MISUSE if is_misuse else WRONG
        case OSError():
            what = f"{error.filename or 'the output'} cannot be used: {error.strerror}"
            complain(f"{what}: check the path, its permissions and the disk")
            return WRONG
    complain(f"this should not happen, please report it: {type(error).__name__}: {error}")
    return WRONG


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Without a terminal, verbs that read print JSON Lines; --json insists on them. "
    "The exit code is 0 if all is fine, 1 if something is wrong or missing, 2 if evstore was "
    "called the wrong way.",
)
@click.version_option(version("evstore"), prog_name="evstore", message="%(prog)s %(version)s")
def app() -> None:
    """The flight recorder for AI agents: one file, every change an event.

    FILE is the path of a store; SESSION is the id of a living session, or the uid of any life.
    """


for verb in (
    *reading.VERBS,
    *changing.VERBS,
    diff.diff,
    *past.VERBS,
    merge.merge,
    search.search,
    watch,
    stats,
    *care.VERBS,
    compact,
    export,
    transfer.import_,
    *backup.VERBS,
    migrate,
):
    app.add_command(verb)
app.add_command(doctor.doctor)
app.add_command(chat)
app.add_command(demo.demo)
app.add_command(completion.completion)
