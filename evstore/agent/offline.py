"""The offline model: a few fixed rules instead of a language model, so that everything runs."""

import re

import orjson

from evstore.agent import decisions
from evstore.agent.decisions import Action, Answer
from evstore.agent.models import Message

NATURE = "I am no language model: I follow a few fixed rules, without a network."
_GREETING = re.compile(r"\s*(hello|hi|hey|good (morning|afternoon|evening))\b", re.IGNORECASE)
_NAME_ASKED = re.compile(r"\bwhat(?:'s| is) my name\b", re.IGNORECASE)
_NAME_SAID = re.compile(r"\bmy name is ([^\W\d_][\w'-]*)", re.IGNORECASE)
_ABILITY_ASKED = re.compile(r"\bwhat can you do\b|\bhelp\b|\bwho are you\b", re.IGNORECASE)
_SUM = re.compile(r"-?[\d.(][\d.()\s]*(?:[-+*/][-\d.()\s]*[\d)])+")
_SUM_CHARACTERS_MAX = 1000  # of a message in which to look for one: it may be all digits
_TOOL = re.compile(r"^- ([\w-]+): .*?\n  input: (\{.*?\})$", re.MULTILINE | re.DOTALL)


class OfflineModel:
    """Greets, remembers a name, does sums by a tool named like calculate, and tells what it can.

    It speaks the decisions of the ReAct loop, and says of itself that it is no language model.
    """

    name = "offline rules"

    def __call__(self, messages: list[Message]) -> str:
        """Return the decision that the rules make of a conversation."""
        last = messages[-1]
        if decisions.is_observation(last):
            answer = _after(decisions.seen(last), messages)
            return Answer("The tool has answered.", answer).text
        return _decide(str(last["content"]), messages).text


def _decide(text: str, messages: list[Message]) -> Action | Answer:
    if _NAME_ASKED.search(text):
        name = _name(messages)
        known = f"Your name is {name}" if name else "You have not told me your name."
        return Answer("The user asks for a name that the conversation may hold.", known)
    if said := _NAME_SAID.search(text):
        answer = f"I will remember that your name is {said[1]}."
        return Answer("The user tells a name.", answer)
    if asked := _SUM.search(text, 0, _SUM_CHARACTERS_MAX):
        return _calculation(asked[0].strip(), messages)
    if _ABILITY_ASKED.search(text):
        return Answer("The user asks what I can do.", _abilities(messages))
    if _GREETING.match(text):
        return Answer("The user greets.", "Hello! What can I do for you?")
    answer = f"{NATURE} This is beyond them: ask me 'What can you do?'"
    return Answer("No rule fits.", answer)


def _name(messages: list[Message]) -> str | None:
    """Return the name that the user told last."""
    for message in reversed(messages):
        if message["role"] == "user" and not decisions.is_observation(message):
            said = _NAME_SAID.search(str(message["content"]))
            if said:
                return said[1]
    return None


def _calculation(expression: str, messages: list[Message]) -> Action | Answer:
    for name, schema in _tools(messages).items():
        parameters = list(schema["properties"])
        if name.startswith("calc") and len(parameters) == 1:
            return Action("This is a sum, for the tool.", name, {parameters[0]: expression})
    return Answer("This is a sum, and there is no tool for it.", "I have no tool that calculates.")


def _after(seen: str, messages: list[Message]) -> str:
    """Return the answer that an observation leads to."""
    waiting = decisions.pending(messages[:-1])
    if waiting is None or seen.startswith("Error: "):
        return f"That did not work. {seen}"
    return f"{', '.join(map(str, waiting.input.values()))} = {seen}"


def _abilities(messages: list[Message]) -> str:
    tools = ", ".join(_tools(messages)) or "none"
    return (
        f"{NATURE} I greet, remember your name ('My name is Alice') and do sums if there is a tool "
        f"for that. My tools: {tools}."
    )


def _tools(messages: list[Message]) -> dict[str, dict[str, dict[str, object]]]:
    """Return the tools that the newest system message tells of, with the schemas of their input."""
    prompts = (each["content"] for each in reversed(messages) if each["role"] == "system")
    found = _TOOL.finditer(str(next(prompts, "")))
    return {tool[1]: orjson.loads(tool[2]) for tool in found}
