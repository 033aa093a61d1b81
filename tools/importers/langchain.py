"""Have LangChain's chat histories keep conversations, and print what they read back."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_community.chat_message_histories import (
    FileChatMessageHistory,
    SQLChatMessageHistory,
)
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_to_dict,
)

SESSIONS = 24
NAMES = ("a/b", "an 'id'", "x" * 300, "ö😀", "")


def message(dice: random.Random) -> BaseMessage:
    """One message of any type, with what each may carry."""
    text = f"text {dice.random()} ü😀"
    called = f"call-{dice.randrange(10**6)}"
    call = {"id": called, "name": "plan", "args": {"city": "Rom", "days": [1, None, 2.5]}}
    makers: list[Callable[[], BaseMessage]] = [
        lambda: HumanMessage(text),
        lambda: HumanMessage(text, id="m1", name="anna"),
        lambda: HumanMessage([{"type": "text", "text": text}, {"type": "image", "url": "u"}]),
        lambda: AIMessage(text),
        lambda: AIMessage("", tool_calls=[call, {**call, "id": None}]),
        lambda: AIMessage(
            text,
            response_metadata={"model": "m", "logprobs": None},
            usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
            additional_kwargs={"refusal": "no"},
        ),
        lambda: SystemMessage(text),
        lambda: ToolMessage(text, tool_call_id=called, name="plan"),
        lambda: ToolMessage(text, tool_call_id=called, status="error", artifact={"rows": [1]}),
        lambda: FunctionMessage(text, name="plan"),
        lambda: ChatMessage(text, role="narrator"),
    ]
    return dice.choice(makers)()


def filled(history: Any, dice: random.Random) -> list[dict[str, Any]]:
    """Add messages to a history; return those that it then reads."""
    history.add_messages([message(dice) for _ in range(1 + dice.randrange(20))])
    return [message_to_dict(each) for each in history.messages]


def main(folder: Path) -> None:
    """Keep the conversations in one table, in two others of one file, and in files."""
    dice = random.Random(1)
    found: dict[str, dict[str, Any]] = {"one.db": {}, "two.db": {}, "files": {}}
    one, two = f"sqlite:///{folder / 'one.db'}", f"sqlite:///{folder / 'two.db'}"
    for name in [*NAMES, *(f"s{number}" for number in range(SESSIONS))]:
        found["one.db"][name] = filled(SQLChatMessageHistory(name, connection=one), dice)
    for table in ("chats", 'my "own" table'):
        for name in ("s1", "s2"):
            history = SQLChatMessageHistory(name, table_name=table, connection=two)
            found["two.db"][f"{table}/{name}"] = filled(history, dice)
    (folder / "files").mkdir()
    for number in range(SESSIONS):
        history = FileChatMessageHistory(str(folder / "files" / f"s{number}.json"))
        found["files"][f"s{number}"] = filled(history, dice)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
