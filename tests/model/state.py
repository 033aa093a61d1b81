"""The plain model of one session: dicts and lists, copied at every event."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from evstore.events import ABSENT, ANY

SECOND_US = 1_000_000
OWN = 1 << 40  # What a draft says is numbered from here until it is recorded.


@attrs.define
class State:
    """Variables and metadata as name → (seq, value), messages as (seq, message), and labels.

    `deadlines` says until when variables are there, in µs, where that has an end.
    """

    variables: dict[str, tuple[int, Any]] = attrs.field(factory=dict)
    metadata: dict[str, tuple[int, Any]] = attrs.field(factory=dict)
    messages: list[tuple[int, Any]] = attrs.field(factory=list)
    labels: dict[str, int] = attrs.field(factory=dict)
    deadlines: dict[str, int] = attrs.field(factory=dict)

    def by(self, now_us: int) -> "State":
        """What of it is there at a time: a variable is absent from its deadline on."""
        gone = {name for name, deadline_us in self.deadlines.items() if deadline_us <= now_us}
        there = {name: found for name, found in self.variables.items() if name not in gone}
        return attrs.evolve(self, variables=there) if gone else self

    def after(self, seq: int, fact: "Fact", past: Sequence["State"] = ()) -> "State":
        """The state after one more event, `past` being the states at 0, 1, 2 and so on."""
        variables, metadata = dict(self.variables), dict(self.metadata)
        labels, deadlines = self.labels, self.deadlines
        messages, data = list(self.messages), fact.data
        names = metadata if fact.kind.startswith("metadata") else variables
        if fact.kind.startswith("variable."):
            deadlines = {name: deadlines[name] for name in deadlines if name != fact.name}
            deadlines |= {fact.name: data["expires_at"]} if "expires_at" in data else {}
        match fact.kind:
            case "variable.set" | "metadata.set":
                names[fact.name] = (seq, data["value"])
            case "variable.deleted" | "metadata.deleted":
                names.pop(fact.name, None)  # Under ANY somebody may have been first.
            case "message.added":
                messages.append((seq, data["message"]))
            case "message.removed":
                messages = [message for message in messages if message[0] != data["seq"]]
            case "message.replaced":
                index = [known for known, _ in messages].index(data["seq"])
                messages[index] = (seq, data["message"])
            case "messages.cleared":
                messages = []
            case "messages.reverted":
                messages = list(past[data["to"]].messages)
            case "label.set":
                labels = {**labels, fact.name: data["at"]}
        return State(variables, metadata, messages, labels, deadlines)

    def plain(self) -> str:
        """What a reader sees; as text, because 1, 1.0 and True are equal and not the same."""
        named = [
            sorted((name, pair[1]) for name, pair in family.items())
            for family in (self.variables, self.metadata)
        ]
        return repr([*map(dict, named), [message for _, message in self.messages]])

    def variable(self, name: str) -> str:
        """A variable with its deadline, as text that differs where they do."""
        return repr((self.variables.get(name, (0, ABSENT))[1], self.deadlines.get(name)))

    def setting(self, name: str) -> "Fact":
        """What has to happen so that another state has this variable as it is here."""
        if name not in self.variables:
            return Fact("variable.deleted", name, {})
        until = {"expires_at": self.deadlines[name]} if name in self.deadlines else {}
        return Fact("variable.set", name, {"value": self.variables[name][1], **until})

    def taken_back(self, then: "State", to: int) -> list["Fact"]:
        """What has to happen so that variables and messages are as they were `then`."""
        deleted = [name for name in sorted(self.variables) if name not in then.variables]
        others = [n for n in sorted(then.variables) if self.variable(n) != then.variable(n)]
        facts = [then.setting(name) for name in (*deleted, *others)]
        if self.messages != then.messages:
            facts.append(Fact("messages.reverted", None, {"to": to}))
        return facts


@attrs.define
class Fact:
    """An event; who recorded it, where and when are known once it is recorded."""

    kind: str
    name: Any
    data: Any
    expected: Any = ANY
    recorder: Any = None
    seq: int = 0
    position: int = 0
    time_us: int = 0
    cause: str | None = None

    def at(self, first: int) -> "Fact":
        """The same in a batch that begins at `first`."""
        target = self.data.get("seq", 0) if self.kind.startswith("message.") else 0
        if target < OWN:
            return attrs.evolve(self)
        return attrs.evolve(self, data={**self.data, "seq": first + target - OWN})


def states_of(events: Iterable[Any]) -> list[State]:
    """The states at 0, 1, 2 … that the events of a session make."""
    past = [State()]
    for event in events:
        fact = Fact(event.kind, event.name, event.data)
        past.append(past[-1].after(event.seq, fact, past))
    return past


class Draft:
    """What is about to be said on top of a state; has the doors of a session."""

    def __init__(self, state: State, now_us: Callable[[], int]) -> None:
        self.state = state
        self.now_us = now_us
        self.said: list[Fact] = []
        self.variables = Names(self, "variable")
        self.metadata = Names(self, "metadata")
        self.messages = Messages(self)

    def say(self, kind: str, name: Any, data: Any, expected: Any = ANY) -> None:
        fact = Fact(kind, name, data, expected)
        self.state = self.state.after(OWN + len(self.said), fact)
        self.said.append(fact)

    def record(self, kind: str, data: Any) -> None:
        self.say(kind, None, data)


class Names:
    """Variables or metadata of a draft."""

    def __init__(self, draft: Draft, family: str) -> None:
        self.draft, self.family = draft, family

    @property
    def now(self) -> dict[str, tuple[int, Any]]:
        state = self.draft.state
        return state.variables if self.family == "variable" else state.metadata

    def __getitem__(self, name: str) -> Any:
        return self.now[name][1]

    def __contains__(self, name: str) -> bool:
        return name in self.now

    def __len__(self) -> int:
        return len(self.now)

    def get(self, name: str) -> Any:
        return dict(self.now).get(name, (0, None))[1]

    def match(self, pattern: str) -> dict[str, Any]:
        return {name: self[name] for name in sorted(self.now) if fnmatchcase(name, pattern)}

    def set(self, name: str, value: Any, expect: Any = ANY, ttl: int | None = None) -> None:
        until = {} if ttl is None else {"expires_at": self.draft.now_us() + ttl * SECOND_US}
        self.draft.say(f"{self.family}.set", name, {"value": value, **until}, expect)

    __setitem__ = set

    def pop(self, name: str, *default: Any) -> Any:
        if default and name not in self:
            return default[0]
        value = self[name]
        self.draft.say(f"{self.family}.deleted", name, {})
        return value

    __delitem__ = pop

    def popitem(self) -> tuple[str, Any]:
        if not self.now:
            raise KeyError
        name = max(self.now, key=lambda name: self.now[name][0])
        return name, self.pop(name)

    def setdefault(self, name: str, default: Any) -> Any:
        if name not in self:
            self.set(name, default)
        return self[name]

    def update(self, other: dict[str, Any]) -> None:
        for name, value in other.items():
            self.set(name, value)

    __ior__ = update

    def clear(self) -> None:
        for name in sorted(self.now):
            self.pop(name)


class Messages:
    """The messages of a draft."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft

    @property
    def now(self) -> list[Any]:
        return [message for _, message in self.draft.state.messages]

    def __getitem__(self, index: Any) -> Any:
        return self.now[index]

    def __len__(self) -> int:
        return len(self.now)

    def tail(self, max_items: int) -> list[Any]:
        return self.now[max(0, len(self) - max_items) :]

    def append(self, message: Any) -> None:
        self.draft.say("message.added", None, {"message": message})

    def extend(self, messages: list[Any]) -> None:
        for message in messages:
            self.append(message)

    def pop(self, index: int = -1) -> Any:
        message = self.now[index]
        self.remove(index)
        return message

    def remove(self, index: int, reason: Any = None) -> None:
        more = {} if reason is None else {"reason": reason}
        seq, _ = self.draft.state.messages[index]
        self.draft.say("message.removed", None, {"seq": seq, **more})

    def replace(self, index: int, message: Any, reason: Any = None) -> None:
        more = {} if reason is None else {"reason": reason}
        seq, _ = self.draft.state.messages[index]
        self.draft.say("message.replaced", None, {"message": message, "seq": seq, **more})

    def clear(self) -> None:
        if self.now:
            self.draft.say("messages.cleared", None, {})
