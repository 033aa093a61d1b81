"""The loop: a model reasons and acts, a tool at a time, until it has an answer (ReAct).

Every step is written down before the next one begins, so that a turn that was cut off goes on from
its messages. Then only a tool may be called twice: one whose outcome was not written down yet.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

import attrs

from evstore.agent import decisions
from evstore.agent.decisions import EXPECTED, Action, Answer
from evstore.agent.effects import Ask, Call, Keep, Steps
from evstore.agent.journal import (
    MODEL_REPLIED,
    TOOL_CALLED,
    TOOL_RETURNED,
    Entry,
    Happened,
    Journal,
    Run,
)
from evstore.agent.models import Message, name_of
from evstore.agent.tools import Tool, is_async, json, tools_of

ITERATIONS_MAX = 10

# Why a turn ended.
ANSWERED = "answered"
ITERATIONS = "iterations"
CANCELLED = "cancelled"
CUT_OFF = "cut_off"
FAILED = "failed"
MODEL_ERROR = "model_error"
NOT_STORABLE = "not_storable"

_PROMPT = """\
You are an autonomous agent. You work on what the user asks for step by step: you reason, use a \
tool where one helps, read what it observed, and answer once you know enough.

{expected}
After an action the next message is its observation: "Observation: …".

{tools}"""


@attrs.frozen
class Ending:
    """How a turn ends, and what is written down with that; after a failure, why."""

    reason: str
    result: str
    entries: tuple[Entry, ...]

    @property
    def success(self) -> bool:
        """Whether there is an answer."""
        return self.reason == ANSWERED


def failure(reason: str, why: str) -> Ending:
    """Return the ending of a turn that has no answer."""
    message = decisions.stopped(why)
    return Ending(reason, decisions.seen(message), (message,))


@attrs.frozen
class Turn:
    """A turn under way, as an agent sees it."""

    _journal: Journal
    _run: Run

    @property
    def messages(self) -> list[Message]:
        """The whole conversation, this turn's messages included; a copy."""
        return [dict(message) for message in self._journal.messages]

    @property
    def own(self) -> list[Message]:
        """The messages that followed the user's in this turn."""
        return self._run.own

    @property
    def max_iterations(self) -> int:
        """How many replies of the model this turn may take."""
        return ITERATIONS_MAX if self._run.max_iterations is None else self._run.max_iterations

    def keep(self, *entries: Entry) -> Keep:
        """Return the effect that writes messages and events down, all together."""
        return Keep(partial(self._journal.write, self._run, entries))


class Agent(Protocol):
    """What answers a turn: a generator of effects, which go on from the turn's own messages."""

    @property
    def model_name(self) -> str:
        """The name of the model, for the log."""

    @property
    def tools(self) -> Iterable[Tool]:
        """The tools it may call."""

    @property
    def prompt(self) -> str:
        """The system message that a conversation begins with; empty for none."""

    @property
    def is_async(self) -> bool:
        """Whether its model or a tool has to be awaited."""

    def run(self, turn: Turn) -> Steps[Ending]:
        """Yield effects until the turn ends; a failed one throws its error into the generator."""


class ReAct:
    """The default agent: a model that decides in JSON, and Python functions as its tools."""

    def __init__(self, model: Any, tools: Iterable[Tool | Callable[..., Any]] = ()) -> None:
        self._model = model
        self._tools = tools_of(tools)

    @property
    def model_name(self) -> str:
        """The name of the model, for the log."""
        return name_of(self._model)

    @property
    def tools(self) -> list[Tool]:
        """The tools it may call."""
        return list(self._tools.values())

    @property
    def is_async(self) -> bool:
        """Whether its model or a tool has to be awaited."""
        return is_async(self._model) or any(tool.is_async for tool in self.tools)

    @property
    def prompt(self) -> str:
        """The system message: what is expected, and the tools."""
        shown = "\n".join(tool.shown() for tool in self.tools)
        tools = f"The tools, each with the JSON Schema of its input:\n{shown}"
        return _PROMPT.format(expected=EXPECTED, tools=tools if shown else "There are no tools.")

    def run(self, turn: Turn) -> Steps[Ending]:
        """Ask and act until there is an answer, or as many replies as the turn may take."""
        decision = decisions.newest(turn.own)
        if isinstance(decision, Answer):  # Only the end is missing.
            return Ending(ANSWERED, decision.final_answer, ())
        action = decision if isinstance(decision, Action) else None
        while True:
            if action is not None:
                yield from self._act(turn, action)
            replies = sum(message["role"] == "assistant" for message in turn.own)
            if replies >= turn.max_iterations:
                return failure(ITERATIONS, f"there is no answer after {replies} iterations.")
            try:
                reply = yield Ask(self._model, turn.messages)
            except Exception as error:  # noqa: BLE001 - a model may fail in any way
                return failure(MODEL_ERROR, f"the model failed: {told(error)}")
            replied = Happened(MODEL_REPLIED, {"reply": reply})
            decision = decisions.read(reply)
            message = decisions.assistant(decision.text)
            if isinstance(decision, Answer):
                return Ending(ANSWERED, decision.final_answer, (replied, message))
            problem = self._problem(decision)
            action = decision if isinstance(decision, Action) and not problem else None
            if action is None:
                yield turn.keep(replied, message, decisions.observation(problem))
            else:
                data = {"name": action.name, "arguments": action.input}
                yield turn.keep(replied, message, Happened(TOOL_CALLED, data))

    def _problem(self, decision: Action | decisions.Unclear) -> str:
        """Return what keeps a decision from being acted upon; empty if nothing does."""
        if isinstance(decision, decisions.Unclear):
            return f"{decision.problem} {EXPECTED}"
        tool = self._tools.get(decision.name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            return f"Error: there is no tool {decision.name!r}; the tools are: {names}."
        problems = "; ".join(tool.problems(decision.input))
        return problems and f"Error: {problems}. The input of {tool.name!r}: {json(tool.schema)}"

    def _act(self, turn: Turn, action: Action) -> Steps[None]:
        """Call a tool and write down what came of it; the tools may have changed since."""
        what, text = "error", self._problem(action)
        if not text:
            try:
                what, text = "result", (yield Call(self._tools[action.name], action.input))
            except Exception as error:  # noqa: BLE001 - a tool may fail in any way
                what, text = "error", f"Error: {told(error)}"
        message = decisions.observation(text)
        returned = Happened(TOOL_RETURNED, {"name": action.name, what: decisions.seen(message)})
        yield turn.keep(returned, message)


def told(error: BaseException) -> str:
    """Return an error as a model and a person read it."""
    return f"{type(error).__name__}: {error}"
