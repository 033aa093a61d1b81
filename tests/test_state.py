"""The law: folding a log gives what a dict and a list would hold, whatever happened before."""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evstore import events, values
from evstore.errors import BadName, NotStorable, TooLarge, TooMany
from evstore.events import ERASED, Event
from evstore.folding import VariableStore, fold
from evstore.limits import Limits
from evstore.state import MessageList
from tests.event_schemas import check_events
from tests.values_strategy import same, storable

NAMES = ("city", "budget", "$", "é")
FAMILIES = {"variable": "variables", "metadata": "metadata"}
TIME_US = 1_767_225_600_000_000


class Known(NamedTuple):
    """A name as the model knows it."""

    value: Any
    seq: int
    created: int
    expires: int | None


class Model:
    """What a log means, said with a dict and a list, and copies of the list for going back."""

    def __init__(self) -> None:
        self.variables: dict[str, Known] = {}
        self.metadata: dict[str, Known] = {}
        self.labels: dict[str, int] = {}
        self.messages: list[tuple[int, Any]] = []
        self.past: list[list[tuple[int, Any]]] = [[]]

    def apply(self, seq: int, kind: str, name: str | None, data: Any) -> None:
        family, _, verb = kind.partition(".")
        if family in FAMILIES:
            self._name(getattr(self, FAMILIES[family]), seq, verb, str(name), data)
        elif kind == "label.set":
            self.labels[str(name)] = data["at"]
        elif kind == "message.added":
            self.messages.append((seq, data["message"]))
        elif kind in ("message.removed", "message.replaced"):
            new = [(seq, data["message"])] if kind == "message.replaced" else []
            known = [known for known, _ in self.messages]
            if data["seq"] in known:
                index = known.index(data["seq"])
                self.messages[index : index + 1] = new
        elif kind == "messages.cleared":
            self.messages.clear()
        elif kind == "messages.reverted":
            self.messages = list(self.past[data["to"]])
        self.past.append(list(self.messages))

    @staticmethod
    def _name(names: dict[str, Known], seq: int, verb: str, name: str, data: Any) -> None:
        if verb == "deleted":
            names.pop(name, None)
        else:
            created = names[name].created if name in names else seq
            names[name] = Known(data["value"], seq, created, data.get("expires_at"))


def event(seq: int, kind: str, name: str | None, data: Any) -> Event:
    """Return an event as a store would record it."""
    text = values.encode(data).decode()
    time_us = TIME_US + seq
    actor = f"actor {seq % 3}"
    return Event(seq, seq, time_us, kind, name, text, actor, None, "trip", "0" * 32)


@st.composite
def logs(draw):
    """Draw a log, as (kind, name, data), in which every event is possible."""
    log: list[tuple[str, str | None, Any]] = []
    bodies: list[int] = []
    for seq in range(1, draw(st.integers(0, 30)) + 1):
        kind = draw(st.sampled_from([*events.KINDS, *["message.added"] * 5, "app.order.placed"]))
        if kind in ("message.removed", "message.replaced") and not bodies:
            kind = "message.added"
        name = draw(st.sampled_from(NAMES)) if kind in events.FAMILY else None
        data: Any = {}
        if kind in ("variable.set", "metadata.set"):
            data = {"value": draw(storable)}
            if kind == "variable.set" and draw(st.booleans()):
                data["expires_at"] = TIME_US + draw(st.integers(0, 99))
        elif kind in ("message.added", "message.replaced"):
            data = {"message": {"role": "user", "content": seq}}
        elif kind == "messages.reverted":
            data = {"to": draw(st.integers(0, seq - 1))}
        elif kind == "label.set":
            data = {"at": draw(st.integers(0, seq - 1))}
        if kind in ("message.removed", "message.replaced"):
            data["seq"] = draw(st.sampled_from(bodies))
        if kind in events.BODIES:
            bodies.append(seq)
        log.append((kind, name, data))
    return log


@given(logs())
def test_the_fold_is_what_a_dict_and_a_list_would_hold(log):
    """Variables, metadata, labels and messages are at every seq those of the plain model."""
    model = Model()
    recorded = [event(seq, *said) for seq, said in enumerate(log, 1)]
    check_events(recorded)
    for seq, said in enumerate(log, 1):
        model.apply(seq, *said)
        if seq % 5 and seq != len(log):
            continue  # Folding every beginning would show no more, and take its time.
        state = fold(recorded[:seq])
        assert seq == state.seq
        assert model.messages == [(said.seq, said.data["message"]) for said in state.messages]
        assert model.labels == state.labels
        for names, found in ((model.variables, state.variables), (model.metadata, state.metadata)):
            assert same({name: names[name].value for name in sorted(names)}, found.to_map())
            for name, known in names.items():
                info = found.info(name)
                assert known.seq == info.seq
                assert moment(TIME_US + known.seq) == info.time
                assert moment(TIME_US + known.created) == info.created_at
                assert f"actor {known.seq % 3}" == info.actor
                assert len(values.encode(known.value)) == info.size_bytes
                assert (known.expires and moment(known.expires)) == info.expires_at


def moment(time_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)


@given(logs())
def test_tombstones_are_kept_in_the_outline(log):
    """The outline keeps the newest event of every name, also of one that is deleted."""
    state = fold(event(seq, *said) for seq, said in enumerate(log, 1))
    for family, references in state.outline.names.items():
        newest = {
            name: seq
            for seq, (kind, name, _) in enumerate(log, 1)
            if events.FAMILY.get(kind) == family
        }
        assert newest == {name: reference.seq for name, reference in references.items()}
        for name, reference in references.items():
            deleted = log[reference.seq - 1][0].endswith(".deleted")
            assert deleted == (reference.created is None)
            assert deleted == (name not in state.outline.living(family))


def test_an_empty_log_is_an_empty_state():
    """Before the first event there is nothing."""
    state = fold([])
    assert (0, {}, (), {}) == (state.seq, state.labels, state.messages, state.variables.to_map())


def test_what_was_forgotten_leaves_no_value():
    """A variable whose event was forgotten is not there; a message is, and says ERASED."""
    log = [
        event(1, "variable.set", "a", {"value": 1}),
        event(2, "message.added", None, {"message": {"role": "user"}}),
    ]
    state = fold(attrs.evolve(said, text=None) for said in log)
    assert {} == state.variables.to_map()
    assert ERASED is state.messages[0].data


# The list of messages.


@given(st.lists(st.integers(0, 119), max_size=30), st.integers(0, 40), st.integers(0, 40))
def test_ordinals_of_a_slice_are_those_of_the_list(steps, start, stop):
    """After every step the ordinals of a slice are what slicing the list of them all gives."""
    messages, plain = MessageList(), list[int]()
    past = Past()
    for step in steps:
        if step < 60 or not plain:
            plain.append(messages.bodies)
            messages.apply("message.added", None, past)
        elif step < 80:
            gone = plain.pop(step % len(plain))
            messages.apply("message.removed", gone, past)
        elif step < 100:
            old = plain[step % len(plain)]
            plain[step % len(plain)] = messages.bodies
            messages.apply("message.replaced", old, past)
        elif step < 110:
            past.plain, past.ranges = plain.copy(), messages.ranges.copy()
        else:
            plain = past.plain.copy()
            messages.apply("messages.reverted", 0, past)
        found = [at for first, end in messages.ordinals(start, stop) for at in range(first, end)]
        assert plain[start:stop] == found
        assert len(plain) == len(messages)
        assert set(plain) == {place for place in range(messages.bodies) if messages.holds(place)}
    assert all(first < end for first, end in messages.ranges)
    untouched = messages.copy()
    messages.apply("messages.cleared", None, past)
    assert (0, len(plain)) == (len(messages), len(untouched))


class Past:
    """A past in which the seq of every message is its ordinal, and that keeps one list."""

    def __init__(self) -> None:
        self.plain: list[int] = []
        self.ranges: list[tuple[int, int]] = []

    def ordinal(self, seq: int) -> int:
        return seq

    def ranges_at(self, _seq: int) -> list[tuple[int, int]]:
        return self.ranges.copy()


# The store of variables.

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.lists(st.tuples(st.sampled_from(NAMES), storable | st.just(...)), max_size=15))
def test_a_variable_store_is_a_dict(steps):
    """Setting and deleting do what a dict does, in order of name, on a store of its own."""
    store, plain = VariableStore(), dict[str, Any]()
    for name, value in steps:
        before, shown = store, store.to_map()
        if value is not ...:
            store = store.set(name, value)
            plain[name] = value
        elif name in plain:
            store = store.delete(name)
            del plain[name]
        else:
            with pytest.raises(KeyError):
                store.delete(name)
        assert same(shown, before.to_map())
    assert same({name: plain[name] for name in sorted(plain)}, store.to_map())
    assert len(plain) == len(store)
    for name in NAMES:
        assert same(plain.get(name, "none"), store.get(name, "none"))


def test_a_variable_store_never_changes():
    """A value read is a fresh object, and no attribute can be set."""
    store = VariableStore().set("a", [1])
    store.get("a").append(2)
    store.to_map()["a"].append(3)
    assert [1] == store.get("a")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        store.variables = {}  # type: ignore[misc]


def test_a_variable_store_knows_sizes_and_times():
    """The facts about a variable are when it was set, when first, by whom, and how large it is."""
    store = VariableStore().set("a", "é", time=NOW, actor="me")
    later = NOW + timedelta(hours=1)
    info = store.set("a", (1, 2), time=later, actor="you").info("a")
    assert (NOW, later, "you", "tuple") == (info.created_at, info.time, info.actor, info.type)
    assert len(b'{"$tuple":[1,2]}') == info.size_bytes
    assert len('"é"'.encode()) == store.info("a").size_bytes
    anew = store.delete("a").set("a", 1, time=later).info("a")
    assert later == anew.created_at
    with pytest.raises(KeyError):
        store.info("b")


def test_merging_prefers_the_other():
    """A merged store holds the variables of both, and of a name in both the other's."""
    ours = VariableStore().set("a", 1).set("b", 1)
    theirs = VariableStore().set("b", 2).set("c", 2)
    assert {"a": 1, "b": 2, "c": 2} == ours.merge(theirs).to_map()
    assert {"a": 1, "b": 1, "c": 2} == theirs.merge(ours).to_map()


def test_a_variable_store_keeps_its_limits():
    """What is too large, too many, badly named or not storable is refused with the numbers."""
    store = VariableStore(limits=Limits(value_bytes_max=5, variables_max=2, name_bytes_max=4))
    full = store.set("a", "abc").set("b", 1)
    with pytest.raises(TooLarge) as large:
        store.set("a", "abcd")
    assert (6, 5) == (large.value.size_bytes, large.value.size_bytes_max)
    with pytest.raises(TooMany) as many:
        full.set("c", 1)
    assert (3, 2) == (many.value.count, many.value.count_max)
    with pytest.raises(TooMany):
        full.merge(VariableStore().set("c", 1))
    assert 2 == len(full.set("b", 2))
    with pytest.raises(TooLarge):
        store.set("names", 1)
    for name in ("a\0", "\ud800", 5):
        with pytest.raises(BadName):
            store.set(name, 1)  # type: ignore[arg-type]
    with pytest.raises(NotStorable):
        store.set("a", object())
