"""Make threads with LangGraph in a folder, and print what it reads back at every checkpoint."""

import dataclasses
import json
import sqlite3
import sys
from collections import deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages
from langgraph.store.sqlite import SqliteStore
from langgraph.types import Command, Overwrite, interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

PLAIN_THREADS = 12
TOO_MANY = 8  # messages, after which a list begins anew


class Trip(BaseModel):
    """A model of pydantic in a state."""

    city: str
    nights: int


@dataclasses.dataclass
class Cost:
    """A dataclass in a state."""

    amount: Decimal
    paid: bool


class Place(NamedTuple):
    """A named tuple in a state."""

    north: float
    east: float


class State(TypedDict):
    """Messages and values of many types."""

    messages: Annotated[list[AnyMessage], add_messages]
    step: int
    values: dict[str, Any]
    trip: Trip
    cost: Cost
    place: Place


class Told(TypedDict):
    """Messages of which only the changes are stored, beside a list of other things."""

    messages: Annotated[
        list[AnyMessage], DeltaChannel(_messages_delta_reducer, snapshot_frequency=5)
    ]
    noted: Annotated[list[str], DeltaChannel(lambda had, new: [*had, *chain(*new)])]


class Renamed(TypedDict):
    """Messages under another name."""

    talk: Annotated[list[AnyMessage], add_messages]
    asked: int


class Keeper:
    """A graph that a saver keeps, with every thread that was made with it."""

    def __init__(self, saver: SqliteSaver, state: Any, *nodes: Any) -> None:
        self.graph: Any = _chain(state, *nodes).compile(checkpointer=saver)
        self.threads: list[str] = []

    def run(self, thread: str, said: Any, **at: str) -> None:
        """Run a thread, from its newest checkpoint or another one."""
        if thread not in self.threads:
            self.threads.append(thread)
        self.graph.invoke(said, {"configurable": {"thread_id": thread, **at}})

    def history(self, thread: str) -> list[Any]:
        """Return the states of a thread, the oldest first."""
        found = list(self.graph.get_state_history({"configurable": {"thread_id": thread}}))
        return sorted(found, key=lambda state: str(_at(state)))

    def back(self, thread: str, number: int) -> str:
        """Return the id of a checkpoint."""
        return str(_at(self.history(thread)[number]))

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield every checkpoint as the library reads it."""
        for thread in self.threads:
            for state in self.history(thread):
                parent = state.parent_config
                yield {
                    "thread": thread,
                    "id": _at(state),
                    "parent": parent and parent["configurable"]["checkpoint_id"],
                    "ts": state.created_at,
                    "values": _told(state.values),
                    "metadata": state.metadata,
                }


def _chain(state: Any, *nodes: Any) -> Any:
    """Return a graph whose nodes run one after the other."""
    graph = StateGraph(state)
    for number, node in enumerate(nodes):
        graph.add_node(str(number), node)
        graph.add_edge(str(number - 1) if number else START, str(number))
    return graph


def _told(values: Any) -> Any:
    """Return values with a named tuple told by its names, which JSON would drop."""
    if isinstance(values, dict) and "place" in values:
        return {**values, "place": values["place"]._asdict()}
    return values


def _at(state: Any) -> Any:
    return state.config["configurable"]["checkpoint_id"]


def answer(state: State) -> dict[str, Any]:
    """Say something of every kind, by turns."""
    step = state.get("step") or 0
    call = {"name": "look", "args": {"city": "Rome", "days": [step, 2.5]}, "id": f"call-{step}"}
    usage = {"input_tokens": 3, "output_tokens": step, "total_tokens": 3 + step}
    messages: list[Any] = [
        AIMessage("", tool_calls=[call], usage_metadata=usage, response_metadata={"model": "m"}),
        ToolMessage("24 °C", tool_call_id=f"call-{step}", name="look", artifact={"raw": [step]}),
        AIMessage([{"type": "text", "text": "Sunny."}], id=f"answer-{step}", name="guide"),
    ]
    if step % 2:
        messages += [ChatMessage("psst", role="whisper"), SystemMessage("be brief")]
    else:
        messages.append(AIMessageChunk("cut", additional_kwargs={"refusal": None, "n": 1}))
    return {"messages": messages, "step": step + 1}


def remember(state: State) -> dict[str, Any]:
    """Set values of many types."""
    step = state["step"]
    values = {
        "when": datetime(2026, 1, step, 12, tzinfo=UTC),
        "day": date(2026, 1, step),
        "took": timedelta(seconds=step, microseconds=5),
        "id": UUID(int=step),
        "price": Decimal("12.50"),
        "seen": {1, 2, step},
        "pair": ("a", step),
        "bytes": b"\x00\xff",
        "queue": deque([1, step]),
        "numbers": {1: "one", step: "step"},
        "none": None,
        "large": 2**63,
        "text": "naïve \u0000 text",
    }
    cost = Cost(Decimal(step), paid=step > 1)
    trip, place = Trip(city="Rome", nights=step), Place(41.9, 12.5)
    return {"values": values, "trip": trip, "cost": cost, "place": place}


def ask(_state: State) -> dict[str, Any]:
    """Wait for a human."""
    said = interrupt({"question": "book it?"})
    return {"messages": [SystemMessage(f"answered {said}")], "step": 7}


def trim(state: MessagesState) -> dict[str, Any]:
    """Remove the oldest message, and put another in the place of the newest."""
    first, last = state["messages"][0], state["messages"][-1]
    return {"messages": [RemoveMessage(first.id), HumanMessage("anew", id=last.id)]}


def tell(state: Told) -> dict[str, Any]:
    """Say something in a list of which only the changes are stored."""
    number = len(state["messages"])
    messages = [AIMessage(f"told {number}"), AIMessage("twice", id="twice")]
    return {"messages": messages, "noted": [f"n{number}"]}


def take_back(state: Told) -> dict[str, Any]:
    """Remove a message from such a list; now and then begin anew."""
    if len(state["messages"]) >= TOO_MANY:
        return {"messages": Overwrite([HumanMessage("all new", id="new")])}
    return {"messages": [RemoveMessage(state["messages"][0].id)]}


def speak(state: Renamed) -> dict[str, Any]:
    """Say something under another name."""
    return {"talk": [AIMessage("here")], "asked": len(state["talk"])}


def fill(saver: SqliteSaver) -> list[Keeper]:
    """Make the threads."""
    plain = Keeper(saver, State, answer, remember)
    for number in range(PLAIN_THREADS):
        for turn in range(1 + number % 4):
            plain.run(f"plain {number}", {"messages": [("user", f"hello {number}.{turn}")]})
    for number in range(3):
        thread = f"branches/{number}"
        for turn in range(2):
            plain.run(thread, {"messages": [("user", f"turn {turn}")]})
        plain.run(thread, {"messages": "otherwise"}, checkpoint_id=plain.back(thread, 3))
        at = {
            "thread_id": thread,
            "checkpoint_ns": "",
            "checkpoint_id": plain.back(thread, 3 - number),
        }
        plain.graph.update_state({"configurable": at}, {"step": 5})
        plain.run(thread, None, checkpoint_id=plain.back(thread, -1))
    asking = Keeper(saver, State, answer, ask)
    for thread in ("waiting", "answered"):
        asking.run(thread, {"messages": [("user", "book")]})
    asking.run("answered", Command(resume="yes"))
    trimming = Keeper(saver, MessagesState, trim)
    telling = Keeper(saver, Told, tell, take_back)
    speaking = Keeper(saver, Renamed, speak)
    for turn in range(6):
        trimming.run("trimmed", {"messages": [("user", f"turn {turn}")]})
        telling.run("changes", {"messages": [("user", f"turn {turn}")]})
        speaking.run("renamed", {"talk": [("user", f"turn {turn}")]})
    telling.run("changes", {"messages": "aside"}, checkpoint_id=telling.back("changes", 7))
    inner = _chain(MessagesState, trim).compile(checkpointer=True)
    outer = Keeper(saver, MessagesState, inner.invoke)
    outer.run("outer", {"messages": [("user", "in"), ("user", "deeper")]})
    counter = Keeper(saver, int, lambda number: number + 1)
    counter.run("counted", 3)
    return [plain, asking, trimming, telling, speaking, outer, counter]


def remembered(file: Path) -> dict[str, dict[str, Any]]:
    """Put values into a store; return what it then finds."""
    store = SqliteStore(sqlite3.connect(file, isolation_level=None))
    store.setup()
    for number in range(5):
        store.put(("users", f"u{number % 2}"), f"k{number}", {"n": number, "text": "é"})
    store.put(("users", "u0"), "k0", {"n": "again"})
    store.put(("users", "u1"), "k1", None)
    return {
        ".".join(namespace): {item.key: item.value for item in store.search(namespace)}
        for namespace in store.list_namespaces()
    }


def plain(value: Any) -> Any:
    """Return what JSON can say of a value that it does not know."""
    if isinstance(value, BaseMessage | BaseModel):
        return value.model_dump()
    if isinstance(value, set | deque):
        return sorted(value)
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def main(folder: str) -> None:
    """Make everything, and print it."""
    file = Path(folder) / "langgraph.db"
    saver = SqliteSaver(sqlite3.connect(file, check_same_thread=False))
    keepers = fill(saver)
    inner = [
        {**found.config["configurable"], "values": found.checkpoint["channel_values"]}
        for found in saver.list(None)
        if found.config["configurable"]["checkpoint_ns"]
    ]
    waiting = {
        found.config["configurable"]["thread_id"]: found.pending_writes
        for found in map(saver.get_tuple, ({"configurable": {"thread_id": "waiting"}},))
        if found is not None
    }
    checkpoints = [checkpoint for keeper in keepers for checkpoint in keeper.read()]
    said = {
        "checkpoints": checkpoints,
        "inner": inner,
        "waiting": waiting,
        "store": remembered(file),
    }
    print(json.dumps(said, default=plain))


main(sys.argv[1])
