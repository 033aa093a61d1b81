"""Every conversation storage keeps one contract: a list of messages for each session id."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import evstore
from evstore.agent import ConversationStorage
from evstore.errors import BadName, NotStorable, TooLarge
from tests.agent_storages import KINDS, NASTY_IDS, histories, opened, said, session_ids
from tests.values_strategy import messages, same

GOLDEN = [
    {"role": "system", "content": "You are an autonomous agent..."},
    {"role": "user", "content": "What files are in /tmp?"},
    {"role": "assistant", "content": '{"thought": "I need to list files", "action": "ls"}'},
    {"role": "user", "content": "Observation: file1.txt, file2.txt..."},
]


class Mood(StrEnum):
    """What a store keeps and gives back as it was, and JSON as a text."""

    GOOD = "good"


evstore.register(Mood, name="test_agent_storage.Mood")

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("save"), st.integers(0, 2), histories),
        st.tuples(st.just("extend"), st.integers(0, 2), histories),
        st.tuples(st.just("cut"), st.integers(0, 2), st.integers(0, 5)),
        st.tuples(st.just("delete"), st.integers(0, 2), st.none()),
    ),
    max_size=8,
)


@pytest.fixture(params=KINDS)
def storage(request, tmp_path: Path) -> Iterator[ConversationStorage]:
    """An empty storage of each kind."""
    with opened(request.param, tmp_path) as found:
        yield found


def test_a_storage_is_a_conversation_storage(storage):
    """All have the five methods of the seed."""
    assert isinstance(storage, ConversationStorage)


def test_what_was_saved_is_loaded(storage):
    """The conversation of the seed comes back message by message."""
    storage.save("user-123", GOLDEN)
    assert GOLDEN == storage.load("user-123")
    assert storage.exists("user-123")
    assert ["user-123"] == storage.list_sessions()


def test_a_session_that_nobody_saved_is_empty(storage):
    """An unknown id loads as no messages, and looking makes nothing."""
    assert [] == storage.load("nobody")
    assert not storage.exists("nobody")
    assert [] == storage.list_sessions()


def test_deleting_what_is_not_there_is_no_error(storage):
    """After a delete the session is gone, and a second delete says nothing."""
    storage.save("a", GOLDEN)
    storage.delete("a")
    storage.delete("a")
    storage.delete("never")
    assert ([], False, []) == (storage.load("a"), storage.exists("a"), storage.list_sessions())


def test_a_deleted_session_can_begin_anew(storage):
    """What is saved after a delete is all that there is."""
    storage.save("a", GOLDEN)
    storage.delete("a")
    storage.save("a", said("again"))
    assert said("again") == storage.load("a")


def test_a_session_without_messages_exists(storage):
    """An empty list can be saved, as the first one or later."""
    storage.save("a", [])
    storage.save("b", GOLDEN)
    storage.save("b", [])
    for name in ("a", "b"):
        assert storage.exists(name)
        assert [] == storage.load(name)
    assert ["a", "b"] == storage.list_sessions()
    storage.save("a", GOLDEN)
    assert GOLDEN == storage.load("a")


def test_a_save_replaces_the_whole_list(storage):
    """Shorter, longer and different lists take the place of what was there."""
    for history in (said(*"abcd"), said(*"abc"), said(*"abx"), said(*"xb"), said(*"xbcdef"), []):
        storage.save("a", history)
        assert history == storage.load("a")


def test_what_is_loaded_is_fresh(storage):
    """Changing what was saved or loaded changes nothing that is kept."""
    history = [{"role": "user", "content": ["hello"]}]
    storage.save("a", history)
    history[0]["content"].append("changed")  # type: ignore[attr-defined]
    storage.load("a")[0]["content"].append("changed")
    assert [{"role": "user", "content": ["hello"]}] == storage.load("a")


def test_mappings_and_sequences_are_messages_and_lists(storage):
    """A history may be any sequence, and a message any mapping."""
    storage.save("a", tuple(MappingProxyType(message) for message in GOLDEN))
    assert GOLDEN == storage.load("a")


def test_ids_are_kept_apart(storage):
    """No two ids share a conversation, whatever characters they have."""
    for number, name in enumerate(NASTY_IDS):
        assert not storage.exists(name)
        storage.save(name, said(str(number)))
    assert sorted(NASTY_IDS) == storage.list_sessions()
    for number, name in enumerate(NASTY_IDS):
        assert said(str(number)) == storage.load(name)
    for name in NASTY_IDS:
        storage.delete(name)
        assert not storage.exists(name)
    assert [] == storage.list_sessions()


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "a\nb", "\ud800", "\u2028", 7, None])
def test_what_cannot_be_an_id_is_refused(storage, name: Any):
    """Every call refuses it by the same error, and nothing is written."""
    for call in (storage.load, storage.delete, storage.exists):
        with pytest.raises(BadName):
            call(name)
    with pytest.raises(BadName):
        storage.save(name, GOLDEN)
    assert [] == storage.list_sessions()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"bytes", "bytes"),
        ((1, 2), "tuple"),
        ({"deep": [(1,)]}, "dict"),
        ({1: "a number as name"}, "dict"),
        (float("nan"), "float"),
        (1 << 64, "int"),
        ("\ud800", "str"),
        (object(), "object"),
        (Mood.GOOD, "Mood"),
    ],
)
def test_what_json_cannot_hold_is_refused(storage, value, kind):
    """Such a message is NotStorable with its key, and what was saved before stays."""
    storage.save("a", GOLDEN)
    with pytest.raises(NotStorable) as caught:
        storage.save("a", [*GOLDEN, *said("b"), {"role": "user", "content": value}])
    assert caught.value.path.startswith("message['content']")
    assert kind == caught.value.type
    with pytest.raises(NotStorable):
        storage.save("new", [{"role": "user", "content": value}])
    assert GOLDEN == storage.load("a")
    assert ["a"] == storage.list_sessions()


@pytest.mark.parametrize("message", [{"content": "no role"}, {"role": 1}, "text", None, 7])
def test_what_is_no_message_is_refused(storage, message: Any):
    """A message is a mapping with a role that is text."""
    with pytest.raises(NotStorable):
        storage.save("a", [message])
    assert not storage.exists("a")


def test_a_message_that_is_too_large_is_refused(storage):
    """The limit on messages is that of a store, and what was saved before stays."""
    storage.save("a", GOLDEN)
    with pytest.raises(TooLarge):
        storage.save("a", [*GOLDEN, *said("x" * (4 << 20))])
    assert GOLDEN == storage.load("a")


def changed(before: list[Any], step: str, argument: Any) -> list[Any]:
    """The list after a step that saves."""
    if step == "cut":
        return before[:argument] + before[argument + 1 :]
    return [*before, *argument] if step == "extend" else list(argument)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(ids=st.lists(session_ids, min_size=3, max_size=3, unique=True), steps=STEPS)
@example(ids=["é", "e\u0301", "E\u0301"], steps=[("save", 0, GOLDEN), ("save", 1, said("b"))])
def test_a_storage_is_a_dict_of_lists(kind: str, ids: list[str], steps: list[Any]):
    """Whatever is saved and deleted, one sees what a dict of lists would show."""
    model: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory() as folder, opened(kind, Path(folder)) as storage:
        for step, which, argument in steps:
            name = ids[which]
            if step == "delete":
                storage.delete(name)
                model.pop(name, None)
            else:
                model[name] = changed(model.get(name, []), step, argument)
                storage.save(name, model[name])
            assert sorted(model) == storage.list_sessions()
            for name in ids:
                assert (name in model) == storage.exists(name)
                assert same(model.get(name, []), storage.load(name))


@settings(max_examples=100)
@given(message=messages)
def test_storages_agree_on_what_they_keep(message: dict[str, Any]):
    """A message is kept exactly by all storages or refused by all, so that one may stand in."""
    kept = set()
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("memory", "files", "sqlite in memory"):
            with opened(kind, Path(folder)) as storage:
                try:
                    storage.save("a", [message])
                except NotStorable:
                    kept.add(False)
                    assert not storage.exists("a")
                else:
                    kept.add(True)
                    assert same([message], storage.load("a"))
    assert 1 == len(kept)


def test_threads_never_mix_their_lists(storage):
    """Of lists saved at once each session ends with one, and readers see only whole ones."""
    names = ["a", "b"]

    def whole(history: list[dict[str, Any]]) -> bool:
        if not history:
            return True
        who, length = history[0]["content"].split()
        return history == said(*[f"{who} {length}"] * int(length))

    def write(who: int) -> bool:
        seen = True
        for round_ in range(12):
            for name in names:
                length = 1 + (who + round_) % 5
                storage.save(name, said(*[f"{who} {length}"] * length))
                seen = seen and whole(storage.load(name))
        return seen

    with ThreadPoolExecutor(6) as pool:
        assert [True] * 6 == list(pool.map(write, range(6)))
    for name in names:
        assert storage.load(name)
        assert whole(storage.load(name))
