"""Decisions: what a model says to do next, read from its reply and written as a message."""

import re
from contextlib import suppress
from itertools import pairwise
from typing import Any

import attrs
import orjson

from evstore.agent.models import Message, storable
from evstore.agent.tools import json

OBSERVATION = "Observation: "
STOPPED = "Stopped: "
OBSERVATION_CHARACTERS_MAX = 50_000
EXPECTED = (
    'Reply with one JSON object and nothing else: {"thought": "…", "action": "the name of a tool", '
    '"input": {…}} to use a tool, or {"thought": "…", "final_answer": "…"} to answer.'
)
_LEFT_OUT = re.compile(r" … \(\d+ more characters are left out\)")
_OPENED = re.compile(r"```\w*\s*(?=\{)")
_CLOSED = re.compile(r"\}(?=\s*```)")


@attrs.frozen
class Action:
    """A model wants a tool called."""

    thought: str
    name: str
    input: dict[str, Any]

    @property
    def text(self) -> str:
        """The decision as JSON text."""
        return json({"thought": self.thought, "action": self.name, "input": self.input})


@attrs.frozen
class Answer:
    """A model has its answer."""

    thought: str
    final_answer: str

    @property
    def text(self) -> str:
        """The decision as JSON text."""
        return json({"thought": self.thought, "final_answer": self.final_answer})


@attrs.frozen
class Unclear:
    """A reply that is no decision, and what is wrong with it."""

    text: str
    problem: str


@attrs.frozen
class Step:
    """One step of a turn: what the model decided, and what came of it."""

    thought: str
    action: str | None
    input: dict[str, Any]
    observation: str


def read(reply: str) -> Action | Answer | Unclear:
    """Return the decision that a reply holds, as it is or between ``` fences."""
    try:
        said = orjson.loads(_unfenced(reply))
    except orjson.JSONDecodeError as error:
        return Unclear(reply, f"The reply is not JSON ({error}).")
    if not isinstance(said, dict):
        return Unclear(reply, "The reply is not a JSON object.")
    thought = said.get("thought", "")
    if not isinstance(thought, str):
        return Unclear(reply, "The 'thought' is not text.")
    if ("action" in said) == ("final_answer" in said):
        return Unclear(reply, "The reply holds neither an 'action' nor a 'final_answer', or both.")
    if "final_answer" in said:
        answer = said["final_answer"]
        return Answer(thought, answer if isinstance(answer, str) else json(answer))
    name, given = said["action"], said.get("input", {})
    if not isinstance(name, str) or not isinstance(given, dict):
        return Unclear(reply, "The 'action' is not text, or the 'input' is not an object.")
    return Action(thought, name, given)


def _unfenced(reply: str) -> str:
    """Return what stands between the first fence before a { and the last one after a }.

    Either is looked for alone: one pattern for both takes a time that grows with the square.
    """
    opened = None if reply.lstrip().startswith("{") else _OPENED.search(reply)
    ends = [each.end() for each in _CLOSED.finditer(reply, opened.end())] if opened else []
    return reply[opened.end() : ends[-1]] if opened and ends else reply


def assistant(text: str) -> Message:
    """Return the message that holds what a model said."""
    return {"role": "assistant", "content": text}


def observation(text: str) -> Message:
    """Return the message that tells a model what came of its decision, within a limit.

    What such a message shows is not cut again.
    """
    left_out = len(text) - OBSERVATION_CHARACTERS_MAX
    if left_out > 0 and not _LEFT_OUT.fullmatch(text, OBSERVATION_CHARACTERS_MAX):
        text = f"{text[:OBSERVATION_CHARACTERS_MAX]} … ({left_out} more characters are left out)"
    return {"role": "user", "content": f"{OBSERVATION}{storable(text)}"}


def seen(message: Message) -> str:
    """Return the text of an observation."""
    return str(message["content"]).removeprefix(OBSERVATION)


def stopped(why: str) -> Message:
    """Return the message that says why a turn ended without an answer."""
    return observation(f"{STOPPED}{why}")


def shown(result: Any) -> str:
    """Return what a tool returned as the text that a model reads."""
    if isinstance(result, dict | list | tuple | bool | None):
        with suppress(TypeError):  # an integer beyond what JSON libraries agree on
            return json(result)
    return str(result)


def is_observation(message: Message) -> bool:
    """Tell whether a message holds an observation."""
    return message.get("role") == "user" and str(message.get("content")).startswith(OBSERVATION)


def is_over(messages: list[Message]) -> bool:
    """Tell whether the last turn of a conversation came to an end, answered or stopped."""
    if not messages:
        return True
    last = messages[-1]
    if last.get("role") == "user":
        return str(last.get("content")).startswith(OBSERVATION + STOPPED)
    return pending(messages) is None


def newest(messages: list[Message]) -> Action | Answer | Unclear | None:
    """Return the decision that the last message is; None where it is no assistant's."""
    if not messages or messages[-1].get("role") != "assistant":
        return None
    return read(str(messages[-1].get("content")))


def pending(messages: list[Message]) -> Action | None:
    """Return the action that waits for its observation: the last message, if it is one."""
    decision = newest(messages)
    return decision if isinstance(decision, Action) else None


def steps_of(messages: list[Message]) -> tuple[Step, ...]:
    """Return the steps that the messages of a turn tell of, the answer not among them."""
    found = []
    for message, following in pairwise(messages):
        if message["role"] == "assistant" and is_observation(following):
            decision = read(message["content"])
            if not isinstance(decision, Action):
                decision = Action("", "", {})
            name, what_came = decision.name or None, seen(following)
            found.append(Step(decision.thought, name, decision.input, what_came))
    return tuple(found)
