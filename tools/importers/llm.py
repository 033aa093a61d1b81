"""Have llm keep threads, forks and turns with a model that needs no network; print what it reads.

Where the folder holds a logs.db of an older llm, that is brought up to date and gone on with.
"""

import json
import os
import random
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

folder = Path(sys.argv[1])
os.environ["LLM_USER_PATH"] = str(folder)  # read when llm is imported

import llm  # noqa: E402
import sqlite_utils  # noqa: E402
from llm.cli import load_conversation  # noqa: E402
from llm.logs import LogStore  # noqa: E402
from llm.parts import ReasoningPart, StreamEvent, TextPart, ToolResultPart  # noqa: E402
from llm.plugins import pm  # noqa: E402

SESSIONS = 24

before = runpy.run_path(str(Path(__file__).with_name("llm_before_threads.py")))
Offline: Any = before["Offline"]


class Thinking(Offline):  # type: ignore[misc]
    """The model of before, which also thinks if that word is in what it is asked."""

    def execute(self, prompt: Any, stream: Any, response: Any, conversation: Any) -> Iterator[Any]:
        """Answer, with what was thought before that."""
        if "think" in prompt.prompt:
            more = {"signature": "s" * 80}
            yield StreamEvent(type="reasoning", chunk="I ponder.", provider_metadata=more)
        yield from super().execute(prompt, stream, response, conversation)


class Plugin:
    """Makes the model known by its name."""

    @llm.hookimpl  # type: ignore[untyped-decorator]
    def register_models(self, register: Any) -> None:
        """Register the model."""
        register(Thinking())


def asked(dice: random.Random, number: int) -> dict[str, Any]:
    """What a prompt may be made of."""
    said: dict[str, Any] = {"prompt": f"question {number} {dice.random()}"}
    if dice.random() < 0.3:
        said["prompt"] += dice.choice([" tool", " think", " think, then tool"])
    if dice.random() < 0.3 and number == 0:
        said["system"] = dice.choice(["be brief", "be kind"])
    if dice.random() < 0.3:
        said["fragments"] = [f"a long fragment {dice.randrange(3)}\n" * 5, "another"]
    if dice.random() < 0.2:
        said["attachments"] = [llm.Attachment(type="image/png", content=before["IMAGE"])]
    if dice.random() < 0.2:
        said["attachments"] = [llm.Attachment(type="image/png", url="https://example.com/a.png")]
    return said


def talk(conversation: Any, dice: random.Random, store: LogStore) -> None:
    """Have some turns, and now and then ask again what was asked before."""
    for turn in range(1 + dice.randrange(4)):
        responses = list(conversation.responses)
        for response in conversation.chain(**asked(dice, turn)).responses():
            response.text()
            store.log(response)
        if dice.random() < 0.25:
            conversation.responses[:] = responses


def fork(store: LogStore, dice: random.Random, thread: str) -> None:
    """Fork a thread somewhere, and say more in the fork: messages without a turn, or nothing."""
    tip = store.thread_tip(thread)
    for _ in range(dice.randrange(3)):
        parent = store.db["messages"].get(tip)["parent_hash"]
        tip = parent or tip
    forked = store.fork(tip, name=f"fork of {thread}", forked_from=thread)
    attached = llm.Attachment(type="image/png", content=before["IMAGE"])
    result = ToolResultPart(name="look", output="seen", tool_call_id="c9", attachments=[attached])
    for message in [
        llm.user("go on", attached, provider_metadata={"cache": True}),
        llm.assistant(ReasoningPart(text="", redacted=True), TextPart(text="well")),
        llm.tool_message(result),
        llm.assistant("one ", "two"),
    ][: dice.randrange(5)]:
        store.append(forked, [message])


def main() -> None:
    """Log conversations, go on with some of an older llm, and fork some."""
    dice = random.Random(2)
    pm.register(Plugin(), name="offline")
    model = llm.get_model("offline")
    path = folder / "logs.db"
    store = LogStore(sqlite_utils.Database(path))
    older = [row["id"] for row in store.db.query("select id from conversations order by id")]
    for name in older[:5]:
        talk(load_conversation(name, database=str(path)), dice, store)
    for number in range(SESSIONS):
        conversation = model.conversation(tools=[before["add"]])
        talk(conversation, dice, store)
        if number % 3 == 0:
            fork(store, dice, conversation.id)
    assert store.verify() == []
    threads = list(store.db.query("select * from threads order by rowid"))
    turns = list(store.db.query("select * from turns order by id"))
    found = {
        "threads": [{**row, "chain": chain(store, row["tip_message_hash"])} for row in threads],
        "turns": [{**row, "chain": chain(store, row["tip_message_hash"])} for row in turns],
    }
    print(json.dumps(found))


def chain(store: LogStore, tip: str | None) -> list[Any]:
    """The messages up to a tip, as the library reads them."""
    return [message.to_dict() for message in store.load_chain(tip)]


if __name__ == "__main__":
    main()
