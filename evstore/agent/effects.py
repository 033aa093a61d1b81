"""Effects: what the steps of a turn ask for, whoever drives them, plainly or awaited.

A turn is a generator that yields effects and is told what came of each, as a value or as an error.
So it is written once, for threads and for tasks.
"""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import attrs

from evstore.agent.models import ANEW, Message, Piece
from evstore.agent.tools import Tool
from evstore.errors import Refused

Outcome = TypeVar("Outcome")


@attrs.frozen
class Ask:
    """Ask a model; the outcome is the text of its reply."""

    model: Any
    messages: list[Message]


@attrs.frozen
class Call:
    """Call a tool with arguments that fit; the outcome is what it returns."""

    tool: Tool
    arguments: dict[str, Any]


@attrs.frozen
class Keep:
    """Have something done that reads or writes the storage; the outcome is what it returns."""

    act: Callable[[], Any]


Effect = Ask | Call | Keep
Progress = Ask | Call | str  # that a model is asked, that a tool is called, what a model says
Listener = Callable[[Progress], None]
Steps = Generator[Effect, Any, Outcome]


class Stopped(BaseException):
    """A turn was told to end from outside, by `cancel()`, or by an error of who listens to it."""


def tell(listener: Listener | None, progress: Progress) -> None:
    """Tell whoever listens that a model is asked, what it says, or that a tool is called.

    An error of the listener is none of the model or tool: it stops the turn, and is raised then.
    """
    if listener is not None:
        try:
            listener(progress)
        except Exception as error:
            raise Stopped from error


def hearing(ask: Ask, tell: Listener) -> Callable[[Piece], None]:
    """Return what tells the pieces of a reply; where it begins anew, the model is asked again."""
    return lambda piece: tell(ask if piece is ANEW else piece)


class Running:
    """A generator under way: it gives the next effect, and takes what came of it.

    What ends a turn from outside (a cancellation, Ctrl-C) is kept as `stop`: the steps learn of it,
    record an end, and whoever drives them decides whether it goes on.
    """

    def __init__(self, steps: Steps[Any]) -> None:
        self._steps = steps
        self._outcome: Any = None
        self._error: BaseException | None = None
        self.stop: BaseException | None = None
        self.result: Any = None

    def next(self) -> Effect | None:
        """Return the next effect, or None once there is a result."""
        outcome, error = self._outcome, self._error
        self._outcome = self._error = None
        try:
            effect = self._steps.send(outcome) if error is None else self._steps.throw(error)
            while not isinstance(effect, Effect):
                told = f"an agent yields Ask, Call and Keep, not {type(effect).__name__}"
                effect = self._steps.throw(TypeError(told))
        except StopIteration as end:
            self.result = end.value
            return None
        return effect

    def take(self, outcome: Any) -> None:
        """Take what came of the effect."""
        self._outcome = outcome

    def fail(self, effect: Effect, error: BaseException) -> None:
        """Take the error that came of it; raises it where nothing could be recorded of it."""
        if not isinstance(error, Exception):
            self.stop = error
        elif isinstance(effect, Keep) and not isinstance(error, Refused):
            raise error
        self._error = error

    @property
    def raised(self) -> BaseException | None:
        """What ended the turn from outside, as it is to be raised."""
        if isinstance(self.stop, Stopped) and self.stop.__cause__ is not None:
            return self.stop.__cause__
        return self.stop
