"""Conversations move between any two storages, again and again, and nothing is written over."""

import pytest

import evstore
from evstore import replay
from evstore.agent import (
    FileSystemStorage,
    InMemoryStorage,
    Migrated,
    SqliteStorage,
    migrate_sessions,
)
from evstore.errors import NotStorable, Taken
from tests.agent_storages import KINDS, NASTY_IDS, opened, said
from tests.event_schemas import check_store

CONVERSATIONS = {name: said(*"abc"[: index % 4]) for index, name in enumerate(NASTY_IDS)}


def filled(storage):
    """The storage, with all conversations."""
    for name, history in CONVERSATIONS.items():
        storage.save(name, history)
    return storage


def contents(storage):
    """All conversations of a storage."""
    return {name: storage.load(name) for name in storage.list_sessions()}


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", ["memory", "files", "sqlite"])
def test_everything_moves(tmp_path, source, target):
    """Whatever the storages, the new one has all sessions and the old one keeps them."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    with opened(source, tmp_path / "old") as old, opened(target, tmp_path / "new") as new:
        moved = migrate_sessions(filled(old), new)
        assert CONVERSATIONS == contents(old) == contents(new)
        messages = sum(map(len, CONVERSATIONS.values()))
        assert Migrated(sessions=len(CONVERSATIONS), messages=messages) == moved
        assert moved == migrate_sessions(old, new)
        assert CONVERSATIONS == contents(new)


def test_moving_again_writes_nothing(tmp_path):
    """A second run finds everything in its place: no event, no file written anew."""
    with SqliteStorage("memory:") as stored:
        files = FileSystemStorage(tmp_path)
        migrate_sessions(filled(InMemoryStorage()), files)
        migrate_sessions(files, stored)
        events = stored.store.stats().events
        times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        migrate_sessions(files, stored)
        migrate_sessions(stored, files)
        assert events == stored.store.stats().events
        assert times == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_moving_again_brings_what_is_new():
    """What the old storage got after the first run comes with the second."""
    old, new = InMemoryStorage(), InMemoryStorage()
    old.save("a", said("b"))
    migrate_sessions(old, new)
    old.save("a", said("b", "c"))
    old.save("d", said("e"))
    assert Migrated(2, 3) == migrate_sessions(old, new)
    assert {"a": said("b", "c"), "d": said("e")} == contents(new)


def test_a_session_that_has_gone_on_is_left_as_it_is():
    """After the deployment, moving again takes nothing back."""
    old, new = InMemoryStorage(), InMemoryStorage()
    old.save("a", said("b"))
    migrate_sessions(old, new)
    new.save("a", said("b", "later"))
    migrate_sessions(old, new)
    assert said("b", "later") == new.load("a")


def test_another_conversation_is_not_written_over():
    """Where the new storage has something else under the id, that stays, and the error names it."""
    old, new = InMemoryStorage(), InMemoryStorage()
    old.save("a", said("b"))
    new.save("a", said("something else"))
    with pytest.raises(Taken, match="'a'"):
        migrate_sessions(old, new)
    assert said("something else") == new.load("a")


def test_messages_can_be_transformed_on_the_way():
    """`transform` is given the id and the list of each session, and returns the list to save."""

    def transform(session_id, history):
        shout = [{**message, "content": message["content"].upper()} for message in history]
        return [{"role": "system", "content": session_id}, *shout]

    old, new = InMemoryStorage(), InMemoryStorage()
    old.save("a", said("b"))
    assert Migrated(1, 2) == migrate_sessions(old, new, transform)
    assert Migrated(1, 2) == migrate_sessions(old, new, transform)
    assert [{"role": "system", "content": "a"}, *said("B")] == new.load("a")
    assert said("b") == old.load("a")


def test_a_transform_may_give_its_messages_one_by_one():
    """A generator is as good as a list."""
    old, new = InMemoryStorage(), InMemoryStorage()
    old.save("a", said("b", "c"))
    assert Migrated(1, 2) == migrate_sessions(old, new, lambda _, history: iter(history))
    assert said("b", "c") == new.load("a")


@pytest.fixture
def stores(tmp_path):
    """Two storages over stores of their own, in which all is well at the end."""
    with (
        SqliteStorage(tmp_path / "old.db") as old,
        SqliteStorage(tmp_path / "new.db") as new,
    ):
        yield old, new
        for storage in (old, new):
            check_store(storage.store)
            assert [] == list(replay.verify(storage.store, level="full"))


def test_between_stores_the_whole_log_moves(stores):
    """Uids, sequences, times, variables, forks, earlier lists and deleted lives come along."""
    old, new = stores
    old.save("deleted", said("x"))
    deleted = old.session("deleted").uid
    old.delete("deleted")
    old.save("a", said("b"))
    old.session("a").variables["city"] = "Rome"
    old.save("a", said("b", "c"))
    old.session("a").fork("fork")
    assert Migrated(2, 4) == migrate_sessions(old, new)
    before, after = old.session("a"), new.session("a")
    assert before.uid == after.uid
    assert [event.time for event in before.events()] == [event.time for event in after.events()]
    assert said("b") == after.at(1).messages
    assert "Rome" == after.variables["city"]
    assert before.uid == new.session("fork").parent.uid
    assert said("x") == new.store.session(uid=deleted).messages
    assert replay.fingerprint(old.store) == replay.fingerprint(new.store)


def test_moving_logs_again_adds_what_is_new(stores):
    """A second run appends the events of the old store that the new one lacks, and no others."""
    old, new = stores
    old.save("a", said("b"))
    migrate_sessions(old, new)
    migrate_sessions(old, new)
    assert 1 == new.session("a").head
    old.save("a", said("b", "c"))
    migrate_sessions(old, new)
    assert [1, 2] == [event.seq for event in new.session("a").events()]
    new.save("a", said("b", "c", "later"))
    migrate_sessions(old, new)
    assert said("b", "c", "later") == new.load("a")


def test_another_life_in_the_new_store_is_not_written_over(stores):
    """An id that the new store has given to another session is Taken."""
    old, new = stores
    old.save("a", said("b"))
    new.save("a", said("something else"))
    with pytest.raises(Taken):
        migrate_sessions(old, new)
    assert said("something else") == new.load("a")


def test_a_transformed_log_moves_as_lists(stores):
    """What is transformed is another conversation, with a log of its own."""
    old, new = stores
    old.save("a", said("b"))
    migrate_sessions(old, new, lambda _, history: history * 2)
    assert said("b", "b") == new.load("a")
    assert old.session("a").uid != new.session("a").uid


def test_what_the_new_storage_cannot_keep_stops_the_move(tmp_path, store: evstore.Store):
    """What came before it is moved; once it is put right, another run does the rest."""
    old, new = SqliteStorage(store), FileSystemStorage(tmp_path / "sessions")
    for name in "abc":
        old.save(name, said(name))
    old.session("b").messages.append({"role": "user", "content": b"bytes"})
    with pytest.raises(NotStorable):
        migrate_sessions(old, new)
    assert {"a": said("a")} == contents(new)
    old.session("b").messages.pop()
    assert Migrated(3, 3) == migrate_sessions(old, new)
    assert {name: said(name) for name in "abc"} == contents(new)
