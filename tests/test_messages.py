"""Messages are a sequence like any other, read by ranges, and every change to them is an event."""

import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore.errors import NotStorable, TooLarge
from evstore.messages import PAGE_MESSAGES
from evstore.sqlite import insert


def said(number: int) -> dict[str, Any]:
    return {"role": "user", "content": number}


def contents(messages: Sequence[Any]) -> list[Any]:
    return [message["content"] for message in messages]


def test_reading_is_that_of_a_list(session: evstore.Session):
    """Every way to read a sequence is there."""
    messages = session.messages
    assert isinstance(messages, Sequence)
    assert [] == messages
    assert not messages
    messages.extend([said(1), said(2), said(1)])
    assert 3 == len(messages)
    assert said(1) == messages[0] == messages[-1]
    assert [said(1), said(2), said(1)] == list(messages) == messages
    assert messages == session.view().messages
    assert [1, 2, 1] == contents(list(reversed(messages)))[::-1]
    assert said(2) in messages
    assert said(3) not in messages
    assert "text" not in messages
    assert 1 == messages.index(said(2))
    assert 2 == messages.index(said(1), 1)
    with pytest.raises(ValueError):
        messages.index(said(3))
    assert (2, 0) == (messages.count(said(1)), messages.count(said(3)))
    assert messages != [said(1)]
    assert "[{'role': 'user', 'content': 1}" == repr(messages)[:31]
    with pytest.raises(TypeError):
        hash(messages)


@pytest.mark.parametrize("index", [0, -1, 3, -4, 1 << 40])
def test_an_index_that_is_not_there_is_an_index_error(session: evstore.Session, index: int):
    """Reading and changing beyond the ends is an IndexError, as of a list, and writes nothing."""
    if index not in (0, -1):
        session.messages.extend([said(1), said(2), said(3)])
    head = session.head
    for side in (session, session.batch().__enter__()):
        messages = side.messages
        for use in (
            lambda messages: messages[index],
            lambda messages: messages.pop(index),
            lambda messages: messages.remove(index),
            lambda messages: messages.replace(index, said(4)),
            lambda messages: messages.info(index),
        ):
            with pytest.raises(IndexError):
                use(messages)
    assert head == session.head


BOUND = st.none() | st.integers(-25, 25)


@given(
    st.integers(0, 20),
    st.lists(st.tuples(BOUND, BOUND, st.none() | st.integers(-25, 25).filter(bool)), max_size=20),
)
def test_slices_are_those_of_a_list(count: int, bounds: list[tuple[Any, Any, Any]]):
    """Every start, stop and step, of either sign, picks what it picks of a list."""
    plain = [said(number) for number in range(count)]
    with evstore.open(":memory:") as store:
        session = store.session("s")
        session.messages.extend(plain[: count // 2])
        with session.batch() as batch:
            batch.messages.extend(plain[count // 2 :])
            assert [plain[slice(*bound)] for bound in bounds] == [
                batch.messages[slice(*bound)] for bound in bounds
            ]
        for live in (session, session.view()):
            assert [plain[slice(*bound)] for bound in bounds] == [
                live.messages[slice(*bound)] for bound in bounds
            ]


def test_a_slice_of_step_zero_is_refused(session: evstore.Session):
    """A step of 0 is a ValueError, as of a list, and another index than a number a TypeError."""
    session.messages.append(said(1))
    with pytest.raises(ValueError):
        session.messages[::0]
    with pytest.raises(TypeError):
        session.messages["a"]  # type: ignore[call-overload]


def test_iteration_shows_one_snapshot(path):
    """Who iterates over more than a page sees none of what another handle appends or removes."""
    count = 2 * PAGE_MESSAGES + 7
    with (
        evstore.open(path, durability="normal") as store,
        evstore.open(path, durability="normal") as other,
    ):
        session = store.session("s")
        session.messages.extend(map(said, range(count)))
        iteration = iter(session.messages)
        seen = [next(iteration)["content"]]
        writer = other.session("s").messages
        for message in iteration:
            seen.append(message["content"])
            if 0 == message["content"] % 100:
                writer.append(said(-1))
                writer.pop(0)
        assert list(range(count)) == seen
        assert count == len(writer)
        assert -1 == next(reversed(session.messages))["content"]


@pytest.mark.parametrize("count", [0, 1, PAGE_MESSAGES - 1, PAGE_MESSAGES, PAGE_MESSAGES + 1])
def test_pages_meet(memory: evstore.Store, count: int):
    """No message is lost or doubled where a page ends."""
    messages = memory.session("s").messages
    messages.extend(map(said, range(count)))
    assert list(range(count)) == contents(list(messages))
    assert list(range(count)) == contents(messages.tail(max_bytes=1 << 30))
    assert list(range(count))[::-1] == contents(list(reversed(messages)))


def test_slices_of_a_long_list_are_those_of_a_list(path, monkeypatch: pytest.MonkeyPatch):
    """A slice is the same from whichever checkpoint it is nearer to, in a session and its fork."""
    monkeypatch.setattr(insert, "CHECKPOINT_EVENTS", 50)
    chance = random.Random(7)
    with evstore.open(path, durability="normal") as store:
        session = store.session("long")
        expected: list[Any] = []
        while len(expected) < 700:
            with session.batch() as batch:
                for _ in range(chance.randrange(1, 40)):
                    batch.variables["turn"] = len(expected)
                    if chance.random() < 0.6:
                        expected.append(said(len(expected)))
                        batch.messages.append(expected[-1])
        fork = session.fork("other", at=session.head - 100)
        shared = list(fork.messages)
        fork.messages.extend([said(-1)] * 300)
        for side, listed in ((session, expected), (fork, shared + [said(-1)] * 300)):
            for _ in range(200):
                start = chance.randrange(len(listed))
                stop = start + chance.choice([1, 3, 20, 120, 600])
                assert listed[start:stop] == side.messages[start:stop]
            assert listed == side.messages[:]


def test_many_messages_are_read_whatever_their_encoding(path):
    """Long texts, tagged values and dollar signs come back alike, few at a time and all at once."""
    talk = [
        said(1),
        {"role": "user", "content": "it costs $5"},
        {"role": "tool", "content": "long " * 400},
        {"role": "user", "content": {"$key": 1}, "at": (1, 2)},
        {"role": "user", "content": [{"$tuple": [1]}]},
    ] * 200
    with evstore.open(path, durability="normal") as store:
        messages = store.session("s").messages
        messages.extend(talk)
        assert talk == messages[:] == list(messages)
        assert talk[::-3] == messages[::-3]
        del talk[700]
        messages.remove(700)
        assert talk == messages[:] == store.session("s").view().messages[:]


def test_tail_fits_a_context_window(session: evstore.Session):
    """The newest messages are returned in order, as many as fit by number, bytes or own measure."""
    messages = session.messages
    assert [] == messages.tail()
    messages.extend(map(said, range(10)))
    size = messages.info(0).size_bytes
    assert list(range(10)) == contents(messages.tail())
    assert [7, 8, 9] == contents(messages.tail(3))
    assert [] == messages.tail(0)
    assert list(range(10)) == contents(messages.tail(11))
    assert [8, 9] == contents(messages.tail(max_bytes=2 * size))
    assert [8, 9] == contents(messages.tail(max_bytes=3 * size - 1))
    assert [] == messages.tail(max_bytes=size - 1)
    assert [9] == contents(messages.tail(1, max_bytes=2 * size))
    assert [6, 7, 8, 9] == contents(
        messages.tail(max_bytes=30, size=lambda message: message["content"])
    )
    with session.batch() as batch:
        batch.messages.append(said(10))
        assert [9, 10] == contents(batch.messages.tail(2))
        assert [9, 10] == contents(batch.messages.tail(max_bytes=20, size=lambda message: 10))
    assert [8, 9] == contents(session.at(10).messages.tail(2))


class Pairs(dict[str, Any]):
    """A mapping of an application's own."""


@pytest.mark.parametrize(
    "message",
    ["user", 5, None, [], {}, ["role"], {"role": None}, {"role": 5}, {"content": 1}, {"Role": "a"}],
    ids=repr,
)
def test_a_message_is_a_mapping_with_a_role(session: evstore.Session, message: Any):
    """What has no role of text is NotStorable, at every door, and nothing is written."""
    session.messages.append(said(1))
    for write in (
        lambda messages: messages.append(message),
        lambda messages: messages.extend([said(2), message]),
        lambda messages: messages.replace(0, message),
    ):
        with pytest.raises(NotStorable):
            write(session.messages)
        with session.batch() as batch, pytest.raises(NotStorable):
            write(batch.messages)
    assert 1 == session.head


def test_every_key_of_a_message_is_kept(session: evstore.Session):
    """Tool calls, ids, None and what models will think of next come back as they were given."""
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        "$x": (1, 2),
    }
    session.messages.append(Pairs(message))
    assert message == session.messages[0]
    assert list(message) == list(session.messages[0])


def test_a_message_read_is_a_fresh_object(session: evstore.Session):
    """Changing what was read, or what was written, changes nothing in the store."""
    given_message = {"role": "user", "content": [1]}
    session.messages.append(given_message)
    given_message["role"] = "system"
    for side in (session, session.view()):
        side.messages[0]["content"].append(2)
        side.messages[:][0]["content"].append(2)
        side.messages.tail(1)[0]["content"].append(2)
        next(iter(side.messages))["content"].append(2)
        assert [{"role": "user", "content": [1]}] == side.messages


def test_changes_are_those_of_a_list(session: evstore.Session):
    """Messages are appended, popped, removed and replaced where they stand, and cleared."""
    messages = session.messages
    messages.extend(map(said, range(5)))
    assert said(4) == messages.pop()
    assert said(0) == messages.pop(0)
    messages.remove(-1)
    messages.replace(0, said(10))
    messages.replace(-1, said(20))
    messages.append(said(30))
    assert [10, 20, 30] == contents(messages)
    messages.replace(0, said(11))
    assert [11, 20, 30] == contents(messages)
    messages.clear()
    assert [] == messages
    messages.append(said(40))
    assert [40] == contents(messages)


def test_the_events_name_what_they_touch(session: evstore.Session):
    """A removal and a replacement carry the seq of the message, and the reason if one was given."""
    messages = session.messages
    messages.extend([said(1), said(2), said(3)])
    messages.remove(0, "wrong")
    messages.replace(0, said(4), "better")
    messages.replace(0, said(5))
    messages.pop()
    messages.clear()
    assert [
        ("message.removed", {"seq": 1, "reason": "wrong"}),
        ("message.replaced", {"message": said(4), "seq": 2, "reason": "better"}),
        ("message.replaced", {"message": said(5), "seq": 5}),
        ("message.removed", {"seq": 3}),
        ("messages.cleared", {}),
    ] == [(event.kind, event.data) for event in session.events(after=3)]


@pytest.mark.parametrize("reason", [5, b"wrong", ["wrong"], "\ud800"], ids=repr)
def test_a_reason_is_text(session: evstore.Session, reason: Any):
    """Why a message goes is said in text; anything else is refused, and nothing is written."""
    session.messages.append(said(1))
    for write in (
        lambda messages: messages.remove(0, reason),
        lambda messages: messages.replace(0, said(2), reason),
    ):
        with pytest.raises(NotStorable, match="reason"):
            write(session.messages)
        with session.batch() as batch, pytest.raises(NotStorable, match="reason"):
            write(batch.messages)
    assert 1 == session.head
    with session.batch() as batch:
        batch.messages.append(said(2))
        with pytest.raises(NotStorable, match="reason"):
            batch.messages.remove(-1, reason)
    assert [1, 2] == contents(session.messages)


def test_clearing_an_empty_list_writes_nothing(session: evstore.Session):
    """A step that changes nothing is no event."""
    session.messages.clear()
    session.messages.extend([])
    assert 0 == session.head


def test_info_tells_all_but_the_content(store: evstore.Store):
    """Seq, time, actor and size of a message are known, also of one that replaced another."""
    session = store.session("trip", actor="ann")
    session.messages.append(said(1))
    with session.batch(actor="bob") as batch:
        batch.messages.replace(0, said(2))
        batch.messages.append(said(3))
        assert ("bob", None) == (batch.messages.info(1).actor, batch.messages.info(1).time)
    first, second = session.messages.info(0), session.messages.info(-1)
    assert (2, "bob", session.updated_at) == (first.seq, first.actor, first.time)
    assert (3, "bob", session.updated_at) == (second.seq, second.actor, second.time)
    assert (1, "ann", session.created_at) == (
        (before := session.at(1).messages.info(0)).seq,
        before.actor,
        before.time,
    )
    assert len('{"role":"user","content":3}') == second.size_bytes


def test_the_size_of_a_message_is_its_own(session: evstore.Session):
    """A message is as large as its text: neither its event nor a reason to replace it counts."""
    message = {"role": "user", "content": "Þ"}
    size = len('{"role":"user","content":"Þ"}'.encode())
    session.messages.extend([message, {"role": "user"}])
    session.messages.replace(1, message, reason="x" * 2000)
    with session.batch() as batch:
        batch.messages.replace(0, message, reason="y")
        assert size == batch.messages.info(0).size_bytes
    assert [size, size] == [session.messages.info(index).size_bytes for index in (0, 1)]
    assert [message] == session.messages.tail(max_bytes=2 * size - 1)
    assert [message] * 2 == session.messages.tail(max_bytes=2 * size)


def test_a_message_has_a_limit(path):
    """A message larger than the limit is refused with the numbers."""
    limits = evstore.Limits(message_bytes_max=100)
    with evstore.open(path, durability="normal", limits=limits) as store:
        session = store.session("s")
        with pytest.raises(TooLarge) as caught:
            session.messages.extend([said(1), {"role": "user", "content": "x" * 100}])
        assert (("the message"), 128, 100) == (
            caught.value.what,
            caught.value.size_bytes,
            caught.value.size_bytes_max,
        )
        assert 0 == session.head


def test_joining_in_place_works_on_the_property(session: evstore.Session):
    """`session.messages += [...]` extends, in a session or a batch; nothing else is assigned."""
    session.messages += [said(1)]
    with session.batch() as batch:
        batch.messages += [said(2)]
    assert [1, 2] == contents(session.messages)
    with pytest.raises(AttributeError):
        setattr(session, "messages", [said(3)])  # noqa: B010 - a type checker refuses it as well
    assert 2 == session.head


def test_every_message_is_popped_once(session: evstore.Session):
    """Threads that pop at the same time share the messages out: none twice, none lost."""
    session.messages.extend(map(said, range(40)))
    popped: list[int] = []

    def run() -> None:
        while True:
            try:
                popped.append(session.messages.pop(0)["content"])
            except IndexError:
                return

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(range(40)) == sorted(popped)
    assert 80 == session.head
