"""Conversations in a store are events: a save records what changed, and every list stays."""

from datetime import UTC, datetime, timedelta

import pytest

import evstore
from evstore.agent import SqliteStorage
from evstore.agent.stored import CREATED
from evstore.errors import Closed, NotStorable, SessionNotFound
from tests.agent_storages import said


@pytest.fixture
def storage(store: evstore.Store) -> SqliteStorage:
    """A storage over an open store."""
    return SqliteStorage(store)


def kinds(storage: SqliteStorage, after: int = 0) -> list[str]:
    """What was recorded in session `a` after a sequence."""
    return [event.kind for event in storage.session("a").events(after)]


def test_a_longer_list_appends_its_tail(storage):
    """What is there already is not written again."""
    storage.save("a", said(*"ab"))
    storage.save("a", said(*"abcd"))
    assert ["message.added"] * 4 == kinds(storage)


def test_the_same_list_writes_nothing(storage):
    """Saving what is there, or nothing where nothing is, records no event."""
    for history in ([], said(*"ab")):
        storage.save("a", history)
        head = storage.session("a").head
        storage.save("a", history)
        assert head == storage.session("a").head


@pytest.mark.parametrize(
    "changed",
    [
        {"role": "user", "content": "c", "name": "n"},
        {"content": "c", "role": "user"},
        {"role": "user", "content": 1.0},
        {"role": "user", "content": True},
    ],
)
def test_a_list_that_differs_is_cut_where_it_does(storage, changed):
    """Messages before the first difference stay as they are, with their sequence; rest is new."""
    storage.save("a", [*said(*"ab"), {"role": "user", "content": 1}])
    storage.save("a", [*said(*"ab"), changed, *said("d")])
    assert ["message.removed", "message.added", "message.added"] == kinds(storage, 3)
    messages = storage.session("a").messages
    assert [1, 2, 5, 6] == [messages.info(index).seq for index in range(4)]


def test_a_list_that_is_mostly_new_begins_anew(storage):
    """Where that takes fewer events, the list is cleared in one instead of cut one by one."""
    storage.save("a", said(*"abcdefgh"))
    storage.save("a", said(*"ahi"))
    assert ["messages.cleared", *["message.added"] * 3] == kinds(storage, 8)
    assert said(*"ahi") == storage.load("a")


def test_a_save_is_one_batch(storage):
    """All that a save changes has one position in the store."""
    storage.save("a", said(*"abc"))
    storage.save("a", said(*"abxyz"))
    positions = [event.position for event in storage.session("a").events()]
    assert [1, 1, 1, 2, 2, 2, 2] == positions


def test_earlier_lists_are_still_there(storage):
    """Every list that was ever saved is reached through the session underneath."""
    lists = [said(*"ab"), said(*"abc"), said(*"ax"), [], said("new")]
    heads = []
    for history in lists:
        storage.save("a", history)
        heads.append(storage.session("a").head)
    session = storage.session("a")
    assert lists == [list(session.at(head).messages) for head in heads]


def test_a_session_without_messages_is_born_by_an_event(storage):
    """An empty list that is saved first is recorded as the beginning of a conversation."""
    storage.save("a", [])
    assert [CREATED] == kinds(storage)


def test_a_session_of_the_store_is_a_conversation(storage):
    """What an application has written through the store is listed and loaded."""
    session = storage.store.session("a")
    session.variables["x"] = 1
    session.messages.append({"role": "user", "content": "hello"})
    assert ["a"] == storage.list_sessions()
    assert said("hello") == storage.load("a")
    storage.save("a", said("hello", "you"))
    assert 1 == session.variables["x"]
    assert said("hello", "you") == session.messages


def test_what_only_a_store_can_keep_stays(storage):
    """Messages beyond JSON that the store has are loaded, and saved again; new ones are refused."""
    odd = {"role": "user", "content": (1, b"x")}
    storage.session("a").messages.append(odd)
    loaded = storage.load("a")
    assert [odd] == loaded
    storage.save("a", [*loaded, *said("b")])
    assert ["message.added"] * 2 == kinds(storage)
    with pytest.raises(NotStorable):
        storage.save("a", [*loaded, *said("b"), odd])
    assert [odd, *said("b")] == storage.load("a")


def test_a_deleted_session_stays_readable_by_its_uid(storage):
    """A delete ends a life; what is saved then is another, and the first is still in the log."""
    storage.save("a", said("first"))
    uid = storage.session("a").uid
    storage.delete("a")
    storage.save("a", said("second"))
    assert said("first") == storage.store.session(uid=uid).messages
    assert said("second") == storage.load("a")
    assert 1 == storage.session("a").head


def test_an_expired_session_is_absent(path):
    """After its deadline a session is no more, until it is saved again."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with evstore.open(path, ttl=60, clock=lambda: now) as store:
        storage = SqliteStorage(store)
        storage.save("a", said("first"))
        now += timedelta(seconds=61)
        assert ([], False, []) == (storage.load("a"), storage.exists("a"), storage.list_sessions())
        storage.save("a", said("second"))
        assert said("second") == storage.load("a")


def test_a_message_that_was_replaced_is_compared_by_what_it_says(storage):
    """What an application has put in the place of another message is not written again."""
    storage.save("a", said("first"))
    storage.session("a").messages.replace(0, {"role": "user", "content": "better"})
    storage.save("a", said("better", "more"))
    assert ["message.added", "message.replaced", "message.added"] == kinds(storage)


def test_a_store_that_was_given_stays_open(store):
    """A storage closes what it has opened, and nothing else."""
    with SqliteStorage(store) as storage:
        storage.save("a", said("b"))
    assert said("b") == store.session("a").messages


def test_a_store_that_was_opened_is_closed(path):
    """After the block every call is Closed, and the file has it all."""
    with SqliteStorage(path) as storage:
        storage.save("a", said("b"))
    with pytest.raises(Closed):
        storage.load("a")
    with SqliteStorage(f"sqlite://{path}") as again:
        assert said("b") == again.load("a")


def test_two_handles_see_each_other(path):
    """What one storage saves another one on the same file goes on from."""
    with SqliteStorage(path) as one, SqliteStorage(path) as other:
        one.save("a", said("b"))
        other.save("a", [*other.load("a"), *said("c")])
        one.save("a", [*one.load("a"), *said("d")])
        assert said(*"bcd") == other.load("a")
        assert ["message.added"] * 3 == kinds(one)


def test_a_handle_of_a_deleted_session_says_so(storage):
    """The session underneath is bound to its life, as any handle on it."""
    storage.save("a", said("b"))
    session = storage.session("a")
    assert 1 == session.head
    storage.delete("a")
    with pytest.raises(SessionNotFound):
        session.messages.append({"role": "user"})
