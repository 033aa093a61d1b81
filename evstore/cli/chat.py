"""The verb that talks: an agent answers, and every step of its turns is kept in a session."""

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from evstore.cli import asking
from evstore.cli.asking import FILE
from evstore.cli.completion import complete_session
from evstore.store import Store

if TYPE_CHECKING:
    from evstore.agent.models import Model


@click.command(short_help="Talk to an agent, whose session is kept.")
@FILE
@click.argument("session", required=False, shell_complete=complete_session)
@click.option("--model", metavar="NAME", help="Ask this model; goes with --base-url.")
@click.option(
    "--base-url", metavar="URL", help="Where it is: what stands before /chat/completions."
)
@click.option(
    "--api-key-env", metavar="VAR", help="The environment variable that holds the key to it."
)
@click.option(
    "--max-iterations",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    default=10,
    show_default=True,
    help="So many replies of the model may a message take.",
)
@click.pass_context
def chat(
    context: click.Context,
    file: str,
    session: str | None,
    model: str | None,
    base_url: str | None,
    api_key_env: str | None,
    max_iterations: int,
) -> None:
    """Talk to an agent; what it and its tools do is recorded in SESSION, or in a new one.

    Without --model a few fixed rules answer, offline. The agent may calculate, look at the clock,
    and read and set the variables of the session. A turn that was cut off is finished first.
    Ctrl-C interrupts an answer; /help lists what else can be done, such as /undo.

    From a pipe each line is a message, and the answers are printed; the exit code is 1 if there was
    none to one of them.
    """
    from evstore.agent.chat import Chat
    from evstore.agent.stored import SqliteStorage
    from evstore.cli.talk import Screen, Talk

    with ExitStack() as stack:
        asked = _model(stack, model, base_url, api_key_env)
        storage = SqliteStorage(stack.enter_context(asking.writing(file, create=True)))
        session_id = _id(storage.store, session)
        screen = Screen()
        opened = Chat(
            storage, session_id, asked, max_iterations=max_iterations, on_progress=screen.hear
        )
        is_fine = Talk(opened, screen, file).run()
    context.exit(0 if is_fine else 1)


def _id(store: Store, session: str | None) -> str:
    """Return the id to talk under; raises ReadOnly where the life is over that was named."""
    if session is None:
        return store.session().id
    return asking.id_to_write(asking.find_or_begin(store, session))


def _model(
    stack: ExitStack, name: str | None, base_url: str | None, api_key_env: str | None
) -> "Model":
    """Return the model that was asked for; raises MissingExtra where httpx is not installed."""
    if name is None or base_url is None:
        if (name, base_url, api_key_env) != (None, None, None):
            raise click.UsageError("give both --model and --base-url, or neither")
        from evstore.agent.offline import OfflineModel

        return OfflineModel()
    key = None
    if api_key_env is not None:
        key = os.environ.get(api_key_env)
        if not key:
            raise click.UsageError(f"the environment variable {api_key_env!r} is not set")
    from evstore.agent import OpenAIModel

    return stack.enter_context(OpenAIModel(base_url, name, key, stream=True))
