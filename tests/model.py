"""The plain model: what a store must mean, said with dicts and lists copied at every event."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from evstore.errors import Conflict, NoSuchMoment, ReadOnly, SessionNotFound, Taken
from evstore.events import ABSENT, ANY

OWN = 1 << 40  # What a draft says is numbered from here until it is recorded.


@attrs.define
class State:
    """Variables and metadata as name → (seq, value), messages as (seq, message), and labels."""

    variables: dict[str, tuple[int, Any]] = attrs.field(factory=dict)
    metadata: dict[str, tuple[int, Any]] = attrs.field(factory=dict)
    messages: list[tuple[int, Any]] = attrs.field(factory=list)
    labels: dict[str, int] = attrs.field(factory=dict)

    def after(self, seq: int, fact: "Fact", past: Sequence["State"] = ()) -> "State":
        """The state after one more event, `past` being the states at 0, 1, 2 and so on."""
        variables, metadata = dict(self.variables), dict(self.metadata)
        labels = self.labels
        messages, data = list(self.messages), fact.data
        names = metadata if fact.kind.startswith("metadata") else variables
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
        return State(variables, metadata, messages, labels)

    def plain(self) -> str:
        """What a reader sees; as text, because 1, 1.0 and True are equal and not the same."""
        named = [
            sorted((name, pair[1]) for name, pair in family.items())
            for family in (self.variables, self.metadata)
        ]
        return repr([*map(dict, named), [message for _, message in self.messages]])

    def taken_back(self, then: "State", to: int) -> list["Fact"]:
        """What has to happen so that variables and messages are as they were `then`."""
        before, after = self.variables, then.variables
        facts = [
            Fact("variable.deleted", name, {}) for name in sorted(before) if name not in after
        ] + [
            Fact("variable.set", name, {"value": after[name][1]})
            for name in sorted(after)
            if name not in before or repr(before[name][1]) != repr(after[name][1])
        ]
        if self.messages != then.messages:
            facts.append(Fact("messages.reverted", None, {"to": to}))
        return facts


@attrs.define
class Fact:
    """An event; `recorder` and `position` are known once it is recorded."""

    kind: str
    name: Any
    data: Any
    expected: Any = ANY
    recorder: Any = None
    position: int = 0
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

    def __init__(self, state: State) -> None:
        self.state = state
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

    def set(self, name: str, value: Any, expect: Any = ANY) -> None:
        self.draft.say(f"{self.family}.set", name, {"value": value}, expect)

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


@attrs.define(eq=False)
class Life:
    """One life of a session: its events, and the state after every one of them."""

    id: str
    uid: str = ""
    facts: list[Fact] = attrs.field(factory=list)
    past: list[State] = attrs.field(factory=lambda: [State()])
    keys: dict[str, tuple[int, int]] = attrs.field(factory=dict)
    ended: bool = False
    stacks: list["Stacks"] = attrs.field(factory=lambda: [Stacks()])

    @property
    def head(self) -> int:
        return len(self.facts)

    def append(
        self, facts: list[Fact], position: int, stacks: "Stacks | None" = None, cause: str = ""
    ) -> None:
        """Record all facts, or none; `stacks` are those after an undo or redo."""
        past, first = list(self.past), self.head + 1
        for seq, fact in enumerate(facts, first):
            state = past[-1]
            fact.recorder, fact.position, fact.cause = self, position, cause or None
            names = state.metadata if fact.kind == "metadata.set" else state.variables
            found = names[fact.name][0] if fact.name in names else ABSENT
            if fact.expected not in (ANY, found):
                raise Conflict(self.id, fact.expected, found)
            target = fact.data.get("seq") if fact.kind.startswith("message.") else None
            if target and target not in [known for known, _ in state.messages]:
                raise Conflict(self.id, target, "gone")
            past.append(state.after(seq, fact, past))
        after = stacks or Stacks((*self.stacks[-1].undos, first - 1))
        self.stacks += [after] * len(facts)
        self.facts += facts
        self.past = past


@attrs.frozen
class Stacks:
    """The moments before each batch, and where redo leads with what can be undone there."""

    undos: tuple[int, ...] = ()
    redos: tuple[tuple[tuple[int, ...], int], ...] = ()


def contents(facts: list[Fact]) -> str:
    """What idempotency compares."""
    return repr([(fact.kind, fact.name, fact.data) for fact in facts])


@attrs.define
class ModelStore:
    """All lives there ever were."""

    lives: list[Life] = attrs.field(factory=list)
    living: dict[str, Life] = attrs.field(factory=dict)
    position: int = 0

    def mark(self, life: Life, kind: str) -> str:
        """Record that a life ends, or goes on; return its uid."""
        if kind == "session.restored" and life.id in self.living:
            raise Taken(life.id)
        self.position += 1
        life.append([Fact(kind, None, {})], self.position)
        life.ended = kind == "session.deleted"
        if life.ended:
            del self.living[life.id]
        else:
            self.living[life.id] = life
        return life.uid

    def fork(self, life: Life, session_id: str, at: int) -> Life:
        """A life that shares the past of another."""
        if session_id in self.living:
            raise Taken(session_id)
        self.position += 1
        child = Life(session_id, "", life.facts[:at], life.past[: at + 1])
        child.stacks = life.stacks[: at + 1]
        return self._bear(child)

    def _bear(self, life: Life) -> Life:
        self.lives.append(life)
        self.living[life.id] = life
        return life

    def record(self, handle: "Handle", said: list[Fact], key: str | None = None, **how: Any) -> int:
        """Record what was said; return the seq at which it begins."""
        life = handle.look()
        if handle.read_only:
            raise ReadOnly(handle.id)
        if life and key in life.keys:
            first, count = life.keys[key]
            recorded = life.facts[first - 1 : first - 1 + count]
            front = recorded[: max(0, count - len(said))]
            born = [("metadata.set", name) for name in handle.birth] if first == 1 else []
            same = contents(recorded[len(front) :]) == contents(
                [fact.at(first + len(front)) for fact in said]
            )
            if not same or (front and born != [(fact.kind, fact.name) for fact in front]):
                raise Conflict(handle.id, key, "other events")
            return first
        if not said:
            return 0
        front = (
            []
            if life
            else [
                Fact("metadata.set", name, {"value": value}) for name, value in handle.birth.items()
            ]
        )
        target = life or Life(handle.id)
        first = target.head + 1 + len(front)
        target.append([*front, *(fact.at(first) for fact in said)], self.position + 1, **how)
        self.position += 1
        if key is not None:
            target.keys[key] = (first - len(front), len(front) + len(said))
        if life is None:
            handle.life = self._bear(target)
        return first - len(front)


@attrs.define
class Handle:
    """A handle on a session, bound to a life at its first use."""

    store: ModelStore
    id: str
    life: Life | None = None
    read_only: bool = False  # opened by uid when the life was over
    birth: dict[str, Any] = attrs.field(factory=dict)

    def look(self) -> Life | None:
        """The life it is bound to, if that is still to be had."""
        if self.life is None:
            self.life = self.store.living.get(self.id)
        if self.life and self.life.ended and not self.read_only:
            raise SessionNotFound(self.id)
        return self.life

    def state(self) -> State:
        """The present."""
        life = self.look()
        return life.past[-1] if life else State()

    def step(self, act: Callable[[Draft], Any], *, writes: bool) -> Any:
        """Do one step: all that it says is one batch."""
        draft = Draft(self.state())
        if writes:
            self.store.record(self, [])
        result = act(draft)
        self.store.record(self, draft.said) if writes else None
        return result

    def fork(self, session_id: str, at: int) -> Life:
        """Fork the life at a moment."""
        life = self.look()
        if not 0 <= at <= (life.head if life else 0):
            raise NoSuchMoment(self.id, at, 0)
        if life is None:
            raise SessionNotFound(self.id)
        return self.store.fork(life, session_id, at)

    def label(self, name: str, at: int | None) -> int:
        """Give a name to a moment, and return that."""
        moment = self._moment(at)
        self.store.record(self, [Fact("label.set", name, {"at": moment})])
        return moment

    def revert(self, to: int) -> int:
        """Go back to a moment; return how many events that took."""
        moment = self._moment(to)
        return self._take_back(moment, cause=f"revert:{to}")

    def undo(self) -> int:
        """Pop the newest moment before a change."""
        life = self.look()
        undos = life.stacks[-1].undos if life else ()
        while life and undos:
            *rest, to = undos
            if life.past[-1].taken_back(life.past[to], to):
                redos = (*life.stacks[-1].redos, (life.stacks[-1].undos, life.head))
                after = Stacks(tuple(rest), redos)
                return self._take_back(to, cause=f"undo:{to + 1}", stacks=after)
            undos = tuple(rest)
        return self._take_back(life.head if life else 0)

    def redo(self) -> int:
        """Pop the newest moment before an undo."""
        life = self.look()
        stacks = life.stacks[-1] if life else Stacks()
        if life is None or not stacks.redos:
            return self._take_back(0 if life is None else life.head)
        *redos, (undos, to) = stacks.redos
        after = Stacks(undos, tuple(redos))
        return self._take_back(to, cause=f"redo:{to + 1}", stacks=after)

    def _moment(self, at: int | None) -> int:
        life = self.look()
        head = life.head if life else 0
        if at is not None and not 0 <= at <= head:
            raise NoSuchMoment(self.id, at, head)
        return head if at is None else at

    def _take_back(self, to: int, **how: Any) -> int:
        life = self.look()
        facts = life.past[-1].taken_back(life.past[to], to) if life else []
        self.store.record(self, facts, **how)
        return len(facts)

    def batch(self, expect: Any, key: str | None) -> "ModelBatch":
        """A batch that sees the present and its own writes."""
        life = self.look()
        head = life.head if life else 0
        if key is None and expect not in (None, ANY, head):
            raise Conflict(self.id, expect, head)
        return ModelBatch(self, head if expect is None else expect, key)


class ModelBatch(Draft):
    """A draft that is recorded at its end."""

    def __init__(self, handle: Handle, expect: Any, key: str | None) -> None:
        super().__init__(handle.state())
        self.handle, self.expect, self.key = handle, expect, key

    def commit(self) -> list[tuple[int, str]]:
        """Record all that was said; return the (seq, kind) of the events."""
        if not self.said:
            return []
        life = self.handle.look()
        head = life.head if life else 0
        seen = life is not None and self.key in life.keys
        if self.expect not in (ANY, head) and not seen and not self.handle.read_only:
            raise Conflict(self.handle.id, self.expect, head)
        first = self.handle.store.record(self.handle, self.said, self.key)
        facts = self.handle.life.facts if self.handle.life else []
        position = facts[first - 1].position
        return [(seq, fact.kind) for seq, fact in enumerate(facts, 1) if fact.position == position]
