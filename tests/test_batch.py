"""A batch is recorded whole or not at all, and never over what somebody else wrote unseen."""

from typing import Any

import pytest

import evstore
from evstore.errors import BadName, Closed, Conflict, Refused, SessionNotFound
from evstore.messages import PAGE_MESSAGES


def said(number: int) -> dict[str, Any]:
    return {"role": "user", "content": number}


def shown(doors: Any) -> tuple[Any, ...]:
    return dict(doors.variables), dict(doors.metadata), list(doors.messages)


def test_a_batch_is_one_commit(session: evstore.Session):
    """All events of a batch share position, time, actor and cause, and their seqs follow."""
    with session.batch(actor="ann", cause="mail 7") as batch:
        assert () == tuple(batch.events)
        batch.variables["a"] = 1
        batch.metadata["b"] = 2
        batch.messages.append(said(3))
        batch.record("app.note", {"c": 4})
        assert 0 == session.head
    events = list(session.events())
    assert events == list(batch.events)
    assert ["variable.set", "metadata.set", "message.added", "app.note"] == [
        event.kind for event in events
    ]
    assert [1, 2, 3, 4] == [event.seq for event in events]
    assert 1 == len({(event.position, event.time, event.actor, event.cause) for event in events})
    assert ("ann", "mail 7") == (events[0].actor, events[0].cause)
    assert ({"a": 1}, {"b": 2}, [said(3)]) == shown(session)


def test_a_batch_reads_its_own_writes(session: evstore.Session):
    """What a batch wrote is what it sees, also removed and replaced messages of its own."""
    session.variables.update(a=1, b=2)
    session.messages.extend([said(1), said(2)])
    with session.batch() as batch:
        assert 4 == batch.seq
        batch.variables["c"] = 3
        del batch.variables["a"]
        assert 3 == batch.variables.pop("c")
        assert 5 == batch.variables.setdefault("c", 5)
        assert ("c", 5) == batch.variables.popitem()
        assert ("b", 2) == batch.variables.popitem()
        batch.variables["d"] = 4
        batch.messages.append(said(3))
        batch.messages.append(said(4))
        batch.messages.replace(2, said(30))
        batch.messages.replace(2, said(31))
        batch.messages.remove(0, "old")
        assert said(4) == batch.messages.pop()
        batch.messages.replace(0, said(20))
        assert ({"d": 4}, {}, [said(20), said(31)]) == shown(batch)
        assert ({"a": 1, "b": 2}, {}, [said(1), said(2)]) == shown(session)
    assert ({"d": 4}, {}, [said(20), said(31)]) == shown(session)
    assert ({"d": 4}, {}, [said(20), said(31)]) == shown(session.at(session.head))


def test_every_moment_inside_a_batch_can_be_seen(session: evstore.Session):
    """A moment in the middle of a batch shows what was said up to there."""
    with session.batch() as batch:
        batch.variables["a"] = 1
        batch.messages.append(said(1))
        batch.messages.replace(0, said(2))
        del batch.variables["a"]
        batch.messages.clear()
    assert [
        ({}, {}, []),
        ({"a": 1}, {}, []),
        ({"a": 1}, {}, [said(1)]),
        ({"a": 1}, {}, [said(2)]),
        ({}, {}, [said(2)]),
        ({}, {}, []),
    ] == [shown(session.at(seq)) for seq in range(6)]


def test_an_exception_discards_the_batch(session: evstore.Session):
    """Where the block raises, nothing is written, and the exception goes on."""
    session.variables["a"] = 1
    with pytest.raises(ZeroDivisionError), session.batch() as batch:
        batch.variables["a"] = 2
        raise ZeroDivisionError
    assert (1, {"a": 1}) == (session.head, dict(session.variables))
    assert () == tuple(batch.events)


def test_a_refused_step_can_be_caught_inside(session: evstore.Session):
    """A step that fails inside a batch says nothing, and the others are recorded."""
    with session.batch() as batch:
        batch.variables["a"] = 1
        with pytest.raises(evstore.errors.NotStorable):
            batch.variables.update(b=2, c=object())
        with pytest.raises(KeyError):
            del batch.variables["b"]
        with pytest.raises(IndexError):
            batch.messages.pop()
    assert 1 == session.head


def test_an_empty_batch_writes_nothing(store: evstore.Store, session: evstore.Session):
    """A batch in which nothing was said is no commit, and gives birth to nothing."""
    with session.batch(key="k") as batch:
        assert {} == batch.variables
        batch.messages.clear()
        batch.variables.pop("a", None)
    assert [] == list(batch.events)
    assert (0, None, 0) == (session.head, session.uid, store.stats().batches)


def test_a_batch_is_written_to_inside_its_block(session: evstore.Session):
    """Before and after the block writing is Closed; reading shows what it showed."""
    batch = session.batch()
    for use in (
        lambda: batch.variables.update(a=1),
        lambda: batch.messages.append(said(1)),
        lambda: batch.record("app.note"),
    ):
        with pytest.raises(Closed):
            use()
    with batch:
        batch.variables["a"] = 1
    with pytest.raises(Closed):
        batch.variables["a"] = 2
    assert {"a": 1} == batch.variables
    assert 1 == session.head


def test_somebody_elses_write_is_a_conflict(session: evstore.Session, store: evstore.Store):
    """By default a batch is recorded only over the state that it saw."""
    session.variables["a"] = 1
    batch = session.batch()
    with pytest.raises(Conflict) as caught, batch:
        batch.variables["a"] = batch.variables["a"] + 1
        store.session("trip").variables["b"] = 5
        assert {"a": 2} == batch.variables
    assert ("trip", 1, 2) == (caught.value.session, caught.value.expected, caught.value.actual)
    assert "session 'trip' was expected at 1 and is at 2: read it again and retry" == str(
        caught.value
    )
    assert {"a": 1, "b": 5} == session.variables


@pytest.mark.parametrize("wrong", [0, 2, -1])
def test_expect_is_checked_at_entry(session: evstore.Session, wrong: int):
    """A batch that expects another head than the present one does not even begin."""
    session.variables["a"] = 1
    with pytest.raises(Conflict) as caught:
        session.batch(expect=wrong)
    assert (wrong, 1) == (caught.value.expected, caught.value.actual)


def test_expect_is_checked_at_the_commit(session: evstore.Session):
    """A batch that expects a head is not recorded on another one."""
    with pytest.raises(Conflict) as caught, session.batch(expect=0) as batch:
        batch.variables["a"] = 1
        session.variables["a"] = 2
    assert (0, 1) == (caught.value.expected, caught.value.actual)
    with session.batch(expect=1) as batch:
        batch.variables["a"] = 3
    assert {"a": 3} == session.variables


def test_any_lets_the_last_write_win(session: evstore.Session):
    """Under ANY a batch sees its entry, and is recorded whatever came between."""
    session.messages.append(said(1))
    with session.batch(expect=evstore.ANY) as batch:
        batch.variables["a"] = 1
        batch.messages.append(said(2))
        batch.messages.replace(1, said(3))
        session.variables.update(a=5, b=6)
        session.messages.append(said(4))
        assert ({"a": 1}, {}, [said(1), said(3)]) == shown(batch)
    assert ({"a": 1, "b": 6}, {}, [said(1), said(4), said(3)]) == shown(session)


@pytest.mark.parametrize("gone", ["pop", "clear", "replace"])
@pytest.mark.parametrize("use", ["remove", "replace"])
@pytest.mark.parametrize("expect", ["any", "the later head"])
def test_a_message_that_is_gone_is_a_conflict(
    session: evstore.Session, gone: str, use: str, expect: str
):
    """A batch does not touch a message that somebody removed meanwhile, whatever it expects."""
    session.messages.append(said(1))
    wanted = evstore.ANY if expect == "any" else 2
    arguments: dict[str, tuple[Any, ...]] = {"replace": (0, said(2)), "remove": (0,)}
    with pytest.raises(Conflict), session.batch(expect=wanted, key="k") as batch:
        getattr(batch.messages, use)(*arguments[use])
        batch.variables["a"] = 1
        getattr(session.messages, gone)(*arguments.get(gone, ()))
    assert 2 == session.head
    assert {} == session.variables


def test_a_variable_that_is_gone_is_deleted_all_the_same(session: evstore.Session):
    """Under ANY deleting what somebody deleted meanwhile leaves it deleted."""
    session.variables["a"] = 1
    with session.batch(expect=evstore.ANY) as batch:
        del batch.variables["a"]
        del session.variables["a"]
    assert {} == session.variables
    session.variables["a"] = 2
    assert session.updated_at == session.variables.info("a").created_at


def test_set_with_expect_inside_a_batch(session: evstore.Session):
    """A batch with a set whose expectation fails is not recorded at all."""
    session.variables["a"] = 1
    with session.batch() as batch:
        batch.variables.set("a", 2, expect=1)
        batch.variables.set("b", 1, expect=evstore.ABSENT)
    with pytest.raises(Conflict), session.batch() as batch:
        batch.messages.append(said(1))
        batch.variables.set("a", 3, expect=1)
    assert ({"a": 2, "b": 1}, {}, []) == shown(session)


def test_a_set_may_expect_one_of_the_same_batch(store: evstore.Store):
    """`expect` takes the seq that `info` tells inside the batch, whatever comes in front of it."""
    session = store.session("trip", metadata={"given": 1})
    for value in range(2):
        with session.batch(expect=evstore.ANY) as batch:
            batch.messages.append(said(1))
            batch.variables["a"] = value
            batch.variables.set("a", value + 10, expect=batch.variables.info("a").seq)
            session.variables["b"] = value
        assert value + 10 == session.variables["a"]
    for wrong in (-1, -2, -3):
        with pytest.raises(Conflict), session.batch() as batch:
            batch.messages.append(said(1))
            batch.variables.set("a", 1, expect=wrong)


def test_iterating_messages_is_a_snapshot(session: evstore.Session):
    """An iteration over the messages of a batch shows those at its beginning, however many."""
    count = 2 * PAGE_MESSAGES
    session.messages.extend(map(said, range(count // 2)))
    with session.batch() as batch:
        batch.messages.extend(map(said, range(count // 2, count)))
        seen = []
        for message in batch.messages:
            seen.append(message["content"])
            batch.messages.append(said(-1))
            batch.messages.pop(0)
        assert list(range(count)) == seen
        shown = batch.messages.tail(
            size=lambda _: len(batch.messages.append(said(-2))), max_bytes=9
        )
        assert [said(-1)] * count == shown


def test_a_batch_is_entered_once(session: evstore.Session):
    """What a batch has committed is not committed again: entering it once more is Closed."""
    with session.batch(expect=evstore.ANY) as batch:
        batch.messages.append(said(1))
        with pytest.raises(Closed), batch:
            pass
    with pytest.raises(Closed), batch:
        batch.messages.append(said(2))
    assert [said(1)] == session.messages


def test_nested_handles(session: evstore.Session, store: evstore.Store):
    """A batch inside a batch is a writer like any other: the outer one finds a conflict."""
    with pytest.raises(Conflict), session.batch() as outer:
        outer.variables["a"] = 1
        with session.batch() as inner:
            inner.variables["b"] = 2
    assert {"b": 2} == session.variables
    with session.batch() as outer, store.session("other").batch() as inner:
        outer.variables["a"] = 1
        inner.variables["b"] = 2
    assert ({"a": 1, "b": 2}, {"b": 2}) == (
        dict(session.variables),
        dict(store.session("other").variables),
    )


def test_the_end_of_the_life_is_the_end_of_the_batch(
    session: evstore.Session, store: evstore.Store
):
    """A batch begun on a life that ended meanwhile is not recorded on the next life of that id."""
    session.variables["a"] = 1
    with pytest.raises(SessionNotFound), session.batch(expect=evstore.ANY) as batch:
        batch.variables["a"] = 2
        store.delete("trip")
        store.session("trip").variables["a"] = 3
    assert {"a": 3} == store.session("trip").variables


def test_transact_runs_again(session: evstore.Session):
    """A function is run again on a conflict, sees the new state, and its result is returned."""
    session.variables["n"] = 0
    runs = []

    def add(batch: evstore.Batch) -> int:
        runs.append(batch.seq)
        if len(runs) < 3:
            session.variables["n"] += 10
        batch.variables["n"] += 1
        return int(batch.variables["n"])

    assert 21 == session.transact(add)
    assert (3, {"n": 21}) == (len(runs), dict(session.variables))


def test_transact_gives_up(session: evstore.Session):
    """After so many attempts the conflict is the caller's; other errors are so at once."""
    runs = []

    def fail(batch: evstore.Batch) -> None:
        runs.append(1)
        batch.variables["a"] = 1
        session.variables["a"] = 2

    with pytest.raises(Conflict):
        session.transact(fail, attempts=2)
    assert 2 == len(runs)
    with pytest.raises(ZeroDivisionError):
        session.transact(lambda batch: 1 / 0)
    with pytest.raises(Refused):
        session.transact(fail, attempts=0)


@pytest.mark.parametrize("cause", ["undo:1", "redo:1", "revert:1", "merge:x", "undo:"])
def test_some_causes_are_reserved(session: evstore.Session, cause: str):
    """Causes by which evstore knows its own batches cannot be given; others can."""
    with pytest.raises(Refused):
        session.batch(cause=cause)
    with session.batch(cause="undone: by hand") as batch:
        batch.variables["a"] = 1
    assert "undone: by hand" == batch.events[0].cause


@pytest.mark.parametrize("what", ["actor", "key", "cause"])
@pytest.mark.parametrize("name", ["a\0b", "\ud800", 5, b"a"], ids=repr)
def test_bad_names_are_refused_at_the_door(session: evstore.Session, what: str, name: Any):
    """Actor, key and cause are texts without NUL and surrogates."""
    with pytest.raises(BadName) as caught:
        session.batch(**{what: name})
    assert (what, name) == (caught.value.what, caught.value.name)


@pytest.mark.parametrize(
    "kind", ["note", "app", "app.", "app..a", "app.a b", "variable.set", "App.x", "", 5], ids=repr
)
def test_an_application_names_its_events_app(session: evstore.Session, kind: Any):
    """Kinds outside `app.…` are not for applications."""
    with pytest.raises(BadName):
        session.record(kind)
    with session.batch() as batch, pytest.raises(BadName):
        batch.record(kind)
    assert 0 == session.head


def test_an_application_records_what_it_likes(session: evstore.Session):
    """The data of an application's event comes back, and changes no door."""
    events = session.record("app.order-2.placed_now", {1: (2, b"3")})
    session.record("app.nothing")
    assert {1: (2, b"3")} == events[0].data
    assert [None] == [event.data for event in session.events(kind="app.nothing")]
    assert ({}, {}, []) == shown(session)
