"""Each error ends with a remedy, and following that leads on."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import evstore
from evstore.errors import Conflict, EvstoreError, ReadOnly, SessionNotFound, Taken
from evstore.store import path_of
from tests.test_failures import is_a_sentence

UNKNOWN = "0" * 32


def refusal(error: type[EvstoreError], act: Callable[[], Any]) -> str:
    """The sentence in which something is refused."""
    with pytest.raises(error) as caught:
        act()
    assert is_a_sentence(str(caught.value))
    return str(caught.value)


def test_a_session_that_is_not_found_says_what_helps_there(store):
    """The remedy is for what was asked: a uid, a restoring, a fork, or a session by its id."""
    living = store.session("s")
    living.variables["a"] = 1
    told = refusal(SessionNotFound, lambda: store.restore(living.uid))
    assert told == f"session {living.uid!r} lives, and needs no restoring: open it"
    assert 1 == store.session(uid=living.uid).variables["a"]
    for act in (lambda: store.restore(UNKNOWN), lambda: store.session(uid=UNKNOWN)):
        told = refusal(SessionNotFound, act)
        assert "is not in this store: look its uid up with 'evstore ls --json'" in told
    told = refusal(SessionNotFound, lambda: store.session("never").fork("x"))
    assert told == "session 'never' was never written: write to it first"
    told = refusal(SessionNotFound, lambda: store.session("typo", create=False))
    assert told.startswith("session 'typo' does not live: open it by its uid")


def test_a_life_that_is_over_says_how_to_go_on(store):
    """A write to it, or its return to an id that lives again, is refused with the way to do it."""
    uid = store.session("s").variables.set("a", 1)[0].uid
    store.delete("s")
    ended = store.session(uid=uid)
    told = refusal(ReadOnly, lambda: ended.variables.set("b", 2))
    assert told.endswith(": restore it by its uid, or open the id again for a new one")
    store.session("s").variables["a"] = 5
    assert refusal(Taken, lambda: store.restore(uid)).endswith(": delete the living one first")
    store.delete("s")
    store.restore(uid).variables["b"] = 2


def test_a_key_of_other_events_asks_for_another_key(session):
    """To say other things under a key never succeeds, however often it is tried."""

    def write(value: int, key: str) -> None:
        with session.batch(key=key) as batch:
            batch.variables["a"] = value

    write(1, "k")
    told = refusal(Conflict, lambda: write(2, "k"))
    assert told.endswith(": use another key for other events")
    write(2, "another")


def _deep() -> Any:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    return value


def _cyclic() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (object(), "convert it, register its class with evstore.register, or open with fallback="),
        (_deep(), "nest it less deeply, and in no cycle"),
        (_cyclic(), "nest it less deeply, and in no cycle"),
        ({"\ud800": 1}, "remove it, or store the text as bytes"),
        ("\ud800", "remove it, or store the text as bytes"),
        ({frozenset(): 1}, "convert it to text or a number"),
    ],
)
def test_a_value_says_what_makes_it_storable(memory, value, remedy):
    """What registering a class cannot mend does not ask for it."""
    told = refusal(
        evstore.errors.NotStorable, lambda: memory.session("s").variables.set("a", value)
    )
    assert told.endswith(f": {remedy}")


def test_what_fallback_returns_has_its_own_remedy():
    """An element of a set that came from fallback= has to be hashable."""
    with evstore.open(":memory:", fallback=lambda value: [repr(value)]) as store:
        told = refusal(
            evstore.errors.NotStorable, lambda: store.session("s").variables.set("a", {object()})
        )
    assert told.endswith(": let it return something hashable")


@pytest.mark.parametrize(
    ("act", "end"),
    [
        (lambda s: s.messages.append({"content": "x"}), "is not the role of a message: give text"),
        (lambda s: s.messages.append("hi"), "is not a message: give a mapping with a 'role'"),
        (lambda s: s.messages.remove(0, 5), "is not text: give text"),
        (lambda s: s.label(""), "give at least one character"),
        (lambda s: s.label("2026-01-31"), "give a label that is neither a number nor a date"),
        (lambda s: s.record("order.placed", {}), "give one like 'app.order.placed'"),
        (lambda s: s.batch(cause="undo:3"), "are reserved: begin it otherwise"),
    ],
)
def test_a_refused_input_says_what_to_give(session, act, end):
    """A message, a reason, a label, a kind and a cause that cannot be say what can."""
    session.messages.append({"role": "user", "content": "x"})
    assert refusal(evstore.errors.Refused, lambda: act(session)).endswith(end)


def test_what_cannot_be_merged_says_what_can(store, memory):
    """A merge needs sessions that were written, of one past and one store."""
    ours, other, strange = store.session("s"), store.session("t"), memory.session("s")
    ours.variables["a"] = other.variables["a"] = strange.variables["a"] = 1
    for theirs, remedy in (
        (store.session("never"), "write to it first"),
        (other, "merge forks of one session"),
        (strange, "import the other session there first"),
    ):
        told = refusal(evstore.errors.Refused, partial(ours.merge, theirs))
        assert told.endswith(f": {remedy}")


def test_a_file_that_cannot_be_used_says_what_can(path, tmp_path):
    """A second name of a file and a name that is too long ask for another way to it."""
    evstore.open(path).close()
    second = tmp_path / "second.db"
    second.hardlink_to(path)
    for target, remedy in (
        (second, "remove all but one, or use symbolic links"),
        (tmp_path / ("x" * 300), "give another path"),
    ):
        told = refusal(evstore.errors.Unavailable, partial(evstore.open, target))
        assert told.endswith(f": {remedy}")


def test_a_store_in_memory_has_no_name():
    """A name after `memory:` is not taken for the scheme of another engine."""
    told = refusal(evstore.errors.Unsupported, lambda: path_of("memory:agents"))
    assert told.endswith("names of stores in memory; give 'memory:'")
