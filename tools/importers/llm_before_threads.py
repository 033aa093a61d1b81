"""Have an older llm log conversations with a model that needs no network; print what it reads."""

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

folder = Path(sys.argv[1])
os.environ["LLM_USER_PATH"] = str(folder)  # read when llm is imported

import llm  # noqa: E402
import sqlite_utils  # noqa: E402
from llm.migrations import migrate  # noqa: E402
from llm.plugins import pm  # noqa: E402

SESSIONS = 24
IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(64)


class Offline(llm.Model):  # type: ignore[misc]
    """A model that answers by what it is asked, and calls a tool if that word is in it."""

    model_id = "offline"
    can_stream = True
    supports_tools = True
    attachment_types = {"image/png"}  # noqa: RUF012 - as the library asks for it

    def execute(self, prompt: Any, stream: Any, response: Any, conversation: Any) -> Iterator[Any]:
        """Answer, with the usage and the JSON that a provider would give."""
        response.response_json = {"said": prompt.prompt, "long": "x" * 100}
        response.set_usage(input=len(prompt.prompt), output=2, details={"cached": 1})
        if "tool" in prompt.prompt:
            for number in (1, 2):
                call = llm.ToolCall(name="add", arguments={"a": number}, tool_call_id=f"c{number}")
                response.add_tool_call(call)
        del stream, conversation
        yield f"You said {prompt.prompt} "
        yield "ü😀"


class Plugin:
    """Makes the model known by its name."""

    @llm.hookimpl  # type: ignore[untyped-decorator]
    def register_models(self, register: Any) -> None:
        """Register the model."""
        register(Offline())


def add(a: int) -> str:
    """Add one, unless that fails."""
    if a > 1:
        raise ValueError("too much")
    return f"{a + 1}"


def asked(dice: random.Random, number: int) -> dict[str, Any]:
    """What a prompt may be made of."""
    said: dict[str, Any] = {"prompt": f"question {number} {dice.random()}"}
    if dice.random() < 0.3:
        said["system"] = dice.choice(["be brief", "be kind"])
    if dice.random() < 0.3:
        said["fragments"] = [f"a long fragment {dice.randrange(3)}\n" * 5, "another"]
    if dice.random() < 0.2:
        said["system_fragments"] = ["rules\n" * 3]
    if dice.random() < 0.2:
        said["attachments"] = [llm.Attachment(type="image/png", content=IMAGE)]
    if dice.random() < 0.2:
        said["attachments"] = [llm.Attachment(type="image/png", url="https://example.com/a.png")]
    return said


def read_back(db: Any, row: dict[str, Any]) -> dict[str, Any]:
    """What the library makes of a row."""
    response = llm.Response.from_row(db, row)
    return {
        "id": row["id"],
        "conversation": row["conversation_id"],
        "datetime_utc": row["datetime_utc"],
        "duration_ms": row["duration_ms"],
        "prompt": response.prompt.prompt,
        "system": response.prompt.system,
        "attachments": [
            [each.type, each.url, (each.content or b"").hex()] for each in response.attachments
        ],
        "tool_results": [
            [each.name, each.output, each.tool_call_id] for each in response.prompt.tool_results
        ],
        "text": response.text(),
        "tool_calls": [
            [each.name, each.arguments, each.tool_call_id] for each in response.tool_calls()
        ],
        "usage": [
            row["input_tokens"],
            row["output_tokens"],
            json.loads(row["token_details"] or "null"),
        ],
    }


def main() -> None:
    """Log conversations of some turns, and some of single prompts."""
    dice = random.Random(1)
    pm.register(Plugin(), name="offline")
    model = llm.get_model("offline")
    db = sqlite_utils.Database(folder / "logs.db")
    migrate(db)
    for number in range(SESSIONS):
        conversation = model.conversation(tools=[add])
        for turn in range(1 + dice.randrange(4)):
            said = asked(dice, turn)
            if dice.random() < 0.3:
                said["prompt"] += " tool"
            conversation.chain(**said).text()
        for response in conversation.responses:
            response.log_to_db(db)
        if number % 4 == 0:
            alone = model.prompt(**asked(dice, number))
            alone.text()
            alone.log_to_db(db)
    rows = db.query("select * from responses order by conversation_id, id")
    print(json.dumps([read_back(db, row) for row in rows]))


if __name__ == "__main__":
    main()
