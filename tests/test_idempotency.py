"""A batch with a key is recorded once, however often it is sent."""

from typing import Any

import pytest

import evstore
from evstore.errors import Conflict


def said(number: int) -> dict[str, Any]:
    return {"role": "user", "content": number}


def send(session: evstore.Session, value: Any = 1, **how: Any) -> list[evstore.Event]:
    with session.batch(key="k", **how) as batch:
        batch.variables["a"] = value
        batch.messages.append(said(1))
        batch.messages.replace(-1, said(2))
    return list(batch.events)


@pytest.mark.parametrize("expect", [None, 0, 3, 4, 99, evstore.ANY], ids=repr)
def test_the_original_events_are_returned(session: evstore.Session, expect: Any):
    """Under every expectation the repetition returns what was recorded, and writes nothing."""
    events = send(session)
    session.variables["a"] = 5
    assert events == send(session, expect=expect)
    assert (4, {"a": 5}) == (session.head, dict(session.variables))


def test_the_first_batch_of_a_session_is_recorded_once(store: evstore.Store):
    """Metadata given at birth is no part of the body: it is ignored when the batch is repeated."""
    first = send(store.session("s", metadata={"run": 1}))
    assert ["metadata.set", "variable.set", "message.added", "message.replaced"] == [
        event.kind for event in first
    ]
    for later in ({"run": 1}, {"run": 2}, {"ran": 1}, {"run": 1, "more": 2}, None):
        assert first == send(store.session("s", metadata=later))
    assert 4 == store.session("s").head


def test_another_body_is_a_conflict(session: evstore.Session):
    """A key stands for one body: other kinds, names, values or numbers of events are refused."""
    send(session)
    with pytest.raises(Conflict) as caught:
        send(session, 2)
    assert "'k'" in str(caught.value)
    for change in (
        lambda batch: batch.variables.update(a=1),
        lambda batch: batch.variables.update(b=1),
        lambda batch: batch.metadata.update(a=1),
        lambda batch: batch.record("app.note"),
    ):
        with pytest.raises(Conflict), session.batch(key="k") as batch:
            change(batch)
    with pytest.raises(Conflict), session.batch(key="k") as batch:
        batch.variables["a"] = 1
        batch.messages.append(said(1))
        batch.messages.replace(-1, said(2))
        batch.variables["b"] = 1
    assert 3 == session.head


def test_the_order_of_a_set_does_not_matter(session: evstore.Session):
    """Sets whose items were inserted in another order are the same body; lists are not."""
    numbers = [f"{number}" for number in range(100)]
    backwards = numbers[::-1]
    events = send(session, set(numbers))
    assert events == send(session, set(backwards))
    assert events == send(session, set(numbers[50:] + numbers[:50]))
    with pytest.raises(Conflict):
        send(session, numbers)


def test_keys_belong_to_their_session(store: evstore.Store):
    """Another session, a fork and a new life of the same id may use the key again."""
    session = store.session("s")
    send(session)
    assert 3 == len(send(store.session("t"), 2))
    child = session.fork("child")
    assert [4, 5, 6] == [event.seq for event in send(child, 3)]
    assert [4, 5, 6] == [event.seq for event in send(child, 3)]
    store.delete("s")
    assert [1, 2, 3] == [event.seq for event in send(store.session("s"), 4)]


def test_keys_survive(path):
    """A key is known after reopening, and to every handle."""
    with evstore.open(path) as store:
        events = send(store.session("s"))
    with evstore.open(path) as store:
        assert events == send(store.session("s"))
        assert events == send(store.session("s"))


def test_a_key_without_a_body_is_free(session: evstore.Session):
    """An empty batch and a discarded one leave their key unused."""
    with session.batch(key="k"):
        pass
    with pytest.raises(ZeroDivisionError), session.batch(key="k") as batch:
        batch.variables["b"] = 1
        raise ZeroDivisionError
    assert 3 == len(send(session))


def test_a_new_key_with_a_wrong_expectation_is_a_conflict(session: evstore.Session):
    """A key that was never seen does not excuse a batch from its expectation."""
    session.variables["a"] = 1
    with pytest.raises(Conflict):
        send(session, expect=0)
    assert 1 == session.head


def test_metadata_in_front_of_a_birth_is_left_out(store: evstore.Store):
    """In a first batch, metadata in front of what is said again may have been given at the birth.

    In any later batch all of it was said under the key.
    """
    for name in ("first", "later"):
        session = store.session(name)
        if name == "later":
            session.variables["born"] = 1
        with session.batch(key="k") as batch:
            batch.metadata.update(a=1, b=2)
    again = store.session("first").batch(key="k")
    with again:
        again.metadata["b"] = 2
    assert ["a", "b"] == [event.name for event in again.events]
    with pytest.raises(Conflict), store.session("later").batch(key="k") as again:
        again.metadata["b"] = 2


def test_a_birth_that_was_said_otherwise_is_a_conflict(store: evstore.Store):
    """Only metadata may be missing from the front of a first batch when it is repeated."""
    session = store.session("s")
    with session.batch(key="k") as batch:
        batch.variables.setdefault("a", None)
        batch.variables["a"] = None
    with pytest.raises(Conflict), session.batch(key="k") as batch:
        batch.variables["a"] = None
    assert 2 == session.head
