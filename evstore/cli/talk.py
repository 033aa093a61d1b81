"""A chat on a terminal or from a pipe: what is typed, and how a turn is shown while it runs."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import click
from rich.text import Text

from evstore.agent import decisions
from evstore.agent.chat import Chat
from evstore.agent.effects import Ask, Progress
from evstore.agent.loop import CANCELLED
from evstore.agent.offline import NATURE, OfflineModel
from evstore.agent.spoken import Spoken
from evstore.agent.tools import json
from evstore.agent.turns import AgentResult
from evstore.cli import asking, terminal
from evstore.cli.reading import print_values
from evstore.cli.shown import parts
from evstore.cli.terminal import harmless
from evstore.errors import Busy, Conflict, NotFound, Refused

PROMPT = "> "
RECALLED_MESSAGES_MAX = 200  # so many of the newest are looked at for what Up brings back
_TOLD = (Refused, NotFound, Conflict, Busy)  # the chat goes on after these


class Screen:
    """Shows a turn while it runs: each tool in one dim line, and the answer as it is spoken."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a turn."""
        self._spoken, self._shown = Spoken(), ""
        self._messages = 0  # so many were there when the model was asked last

    def hear(self, progress: Progress) -> None:
        """Take in how the turn comes along."""
        if isinstance(progress, str):
            self._say(self._spoken.take(progress))
        elif isinstance(progress, Ask):
            self._withdraw()
            last, count = progress.messages[-1], len(progress.messages)
            if count > self._messages and decisions.is_observation(last):
                show_aside(f"→ {decisions.seen(last)}")
            self._spoken, self._messages = Spoken(), count
        else:
            show_aside(f"· {progress.tool.name} {json(progress.arguments)}")

    def end(self, result: AgentResult) -> None:
        """Show what is not shown yet of how the turn has ended."""
        if not result.success:
            self._withdraw()
            terminal.complain(result.result)
            return
        if not result.result.startswith(self._shown):
            self._withdraw()
        self._say(result.result[len(self._shown) :])
        terminal.say("\n" if terminal.is_terminal() else "")

    def _say(self, text: str) -> None:
        if text:
            self._shown += text
            terminal.out().print(Text(harmless(text, "\n\t")), end="", soft_wrap=True)
            terminal.finish()

    def _withdraw(self) -> None:
        """Say of what was shown that it is no answer."""
        if self._shown:
            terminal.say()
            show_aside("(what was said so far is no answer)")
            self._shown = ""


def show_aside(text: str) -> None:
    """Print for a person, in one dim line, what is no part of the conversation."""
    if terminal.is_terminal():
        terminal.say(_in_one_line(text, "dim"))
        terminal.finish()


def _in_one_line(text: str, style: str = "") -> Text:
    line = Text(harmless(" ".join(text[: terminal.CELL_CHARACTERS_MAX].split())), style)
    return terminal.cut(line, terminal.out().width)


def note(text: str) -> None:
    """Print a line about the chat itself, apart from what is said in it."""
    click.echo(harmless(text), err=True)


class Talk:
    """One chat from its first line to its end."""

    def __init__(self, chat: Chat, screen: Screen, file: str) -> None:
        self._chat = chat
        self._screen = screen
        self._file = file
        self._is_typed = not asking.is_piped_in()
        self._is_fine = True
        self._is_over = False

    def run(self) -> bool:
        """Talk until /exit or the end of what is typed; tell whether all was answered or done."""
        self._greet()
        cut_off = self._chat.cut_off
        if cut_off is not None:
            note(f"A turn was cut off, and goes on: {cut_off[: terminal.CELL_CHARACTERS_MAX]}")
            self._attempt(partial(self._answer, self._chat.resume))
        for line in _typed(self._recalled()) if self._is_typed else _piped():
            if line.strip():
                self._attempt(partial(self._take, line))
            if self._is_over:
                break
        if self._is_typed:
            session = self._chat.session.id
            note(f"To go on: evstore chat {terminal.as_typed(self._file, session)}")
        return self._is_fine or self._is_typed

    def _attempt(self, act: Callable[[], None]) -> None:
        """Do what a line asks for; what cannot be is told, and the chat goes on."""
        try:
            act()
        except _TOLD as error:
            self._complain(str(error))
        except click.UsageError as error:
            self._complain(error.format_message())
        except KeyboardInterrupt:
            if not self._is_typed:
                raise
            terminal.say()

    def _greet(self) -> None:
        count = len(self._chat.session.messages)
        state = f"{count:,} messages" if count else "new"
        note(f"session {self._chat.session.id} ({state}), model {self._chat.model_name}")
        if self._chat.model_name == OfflineModel.name:
            note(f"{NATURE} --model and --base-url ask one.")
        if self._is_typed:
            note("/help lists the commands, Ctrl-D ends.")

    def _recalled(self) -> list[str]:
        """Return what the user has said lately, as far as it fits into lines."""
        newest = self._chat.session.messages[-RECALLED_MESSAGES_MAX:]
        said = (parts(each)[0] for each in newest if _is_said(each))
        return [text for text in said if harmless(text) == text]

    def _take(self, line: str) -> None:
        if line.startswith("/"):
            self._command(line)
        else:
            self._answer(partial(self._chat.say, line.strip()))

    def _complain(self, sentence: str) -> None:
        self._is_fine = False
        terminal.complain(sentence)

    def _answer(self, act: Callable[[], AgentResult | None]) -> None:
        """Show a turn; Ctrl-C ends it, and from a pipe all that was to come."""
        self._screen.begin()
        with _interrupted_once():
            result = act()
        if result is not None:
            self._screen.end(result)
            self._is_fine = self._is_fine and result.success
            if result.reason == CANCELLED and not self._is_typed:
                raise KeyboardInterrupt

    def _command(self, line: str) -> None:
        word, _, argument = line.strip().partition(" ")
        if word not in _COMMANDS:
            raise click.UsageError(
                f"there is no {word}: /help lists the commands; a message has a space before the /"
            )
        act, needed = _COMMANDS[word]
        if bool(argument) != bool(needed):
            raise click.UsageError(f"it is {word} {needed}".rstrip())
        act(self, argument.strip())

    # The commands; what /help says of them is their docstrings.

    def undo(self, _: str) -> None:
        """Take back the last turn, with all that it did to variables."""
        self._tell_turn("took back", self._chat.undo(), "there is no turn to take back")

    def redo(self, _: str) -> None:
        """Bring back the turn that was taken back last."""
        self._tell_turn("brought back", self._chat.redo(), "there is no turn to bring back")

    def _tell_turn(self, what: str, said: str | None, otherwise: str) -> None:
        if said is None:
            raise Refused(otherwise)
        terminal.say(_in_one_line(f"{what}: {said}"))

    def fork(self, name: str) -> None:
        """Go on in a fork; this session stays as it is."""
        self._chat.fork(name)
        terminal.say(harmless(f"This goes on in {name!r}."))

    def at(self, argument: str) -> None:
        """Show the past: a sequence, an ISO 8601 time with its zone, or a label."""
        view = self._chat.at(asking.MOMENT.convert(argument, None, None))
        terminal.say(f"at {view.seq:,}  {terminal.moment(view.time)}".rstrip(), "bold")
        show_messages(view.messages)
        if view.variables:
            print_values(view.variables)

    def history(self, _: str) -> None:
        """Show the conversation."""
        show_messages(self._chat.session.view().messages)

    def vars(self, _: str) -> None:
        """List the variables."""
        variables = self._chat.session.view().variables
        if variables:
            print_values(variables)
        else:
            terminal.say("There are no variables.")

    def count(self, _: str) -> None:
        """Count the messages."""
        terminal.say(f"Messages: {len(self._chat.session.messages)}")

    def clear(self, _: str) -> None:
        """Forget the conversation: the life of the session ends, and its log stays."""
        uid = self._chat.clear()
        kept = ""
        if uid is not None:
            kept = f" To bring it back: evstore restore {terminal.as_typed(self._file, uid)}"
        terminal.say(harmless(f"The conversation is forgotten.{kept}"))

    def help(self, _: str) -> None:
        """List the commands."""
        terminal.print_facts(
            (f"{word} {needed}".rstrip(), act.__doc__) for word, (act, needed) in _COMMANDS.items()
        )

    def exit(self, _: str) -> None:
        """End the chat, as Ctrl-D does."""
        self._is_over = True


# Each with what it needs, if it needs something.
_COMMANDS: dict[str, tuple[Callable[[Talk, str], None], str]] = {
    "/undo": (Talk.undo, ""),
    "/redo": (Talk.redo, ""),
    "/fork": (Talk.fork, "NAME"),
    "/at": (Talk.at, "MOMENT"),
    "/history": (Talk.history, ""),
    "/vars": (Talk.vars, ""),
    "/count": (Talk.count, ""),
    "/clear": (Talk.clear, ""),
    "/help": (Talk.help, ""),
    "/exit": (Talk.exit, ""),
}


def _is_said(message: Any) -> bool:
    """Tell whether a message is what a user has said."""
    return (
        isinstance(message, dict)
        and message["role"] == "user"
        and not decisions.is_observation(message)
    )


def show_messages(messages: Iterable[Any]) -> None:
    """Print a conversation as it was shown when it was spoken."""
    for message in messages:
        if not isinstance(message, dict):
            show_aside("(forgotten)")
            continue
        content, _ = parts(message)
        decision = decisions.read(content)
        if _is_said(message):
            terminal.say(PROMPT + harmless(content, "\n\t"), "bold")
        elif message["role"] == "user":
            show_aside(f"→ {decisions.seen(message)}")
        elif isinstance(decision, decisions.Action):
            show_aside(f"· {decision.name} {json(decision.input)}")
        elif isinstance(decision, decisions.Answer):
            terminal.say(harmless(decision.final_answer, "\n\t"))
        elif message["role"] == "assistant":
            terminal.say(harmless(content, "\n\t"))
        else:
            show_aside(f"{message['role']}: {content}")


# Where the lines come from.


def _typed(recalled: Iterable[str]) -> Iterator[str]:
    """Yield what a person types; Ctrl-D ends it, and Ctrl-C twice in a row is KeyboardInterrupt."""
    with suppress(ImportError):  # Without it, lines are edited as the terminal does it.
        import readline

        for text in recalled:
            readline.add_history(text)
    is_warned = False
    while True:
        try:
            line = input(PROMPT if terminal.is_terminal() else "")
        except EOFError:
            terminal.say()
            return
        except UnicodeDecodeError:
            terminal.complain("what was typed is not UTF-8 text")
        except KeyboardInterrupt:
            terminal.say()
            if is_warned:
                raise
            note("Ctrl-C again ends the chat, as Ctrl-D does.")
            is_warned = True
        else:
            is_warned = False
            yield line


def _piped() -> Iterator[str]:
    """Yield the lines that come through a pipe; raises Refused for what is not UTF-8."""
    for line in sys.stdin.buffer:
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise Refused("what came through stdin is not UTF-8 text: convert it first") from None


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Let Ctrl-C interrupt the block once; pressed again, it does not disturb how that ends."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
