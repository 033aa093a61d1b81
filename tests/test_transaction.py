"""Transactions: several sessions change together, or none does."""

import threading

import pytest

import evstore
from evstore import replay
from evstore.errors import Closed, Conflict, ReadOnly, Refused, TooMany


@pytest.fixture
def two(store):
    """Return two sessions of one store, the second not born yet."""
    first = store.session("first")
    first.variables["balance"] = 10
    return first, store.session("second", metadata={"user": "u1"})


def test_sessions_change_together(store, two):
    """Batches of several sessions take consecutive positions of one commit."""
    first, second = two
    with store.transaction() as both:
        taken, given = both.batch(first, actor="bank"), both.batch(second, cause="transfer")
        taken.variables["balance"] -= 4
        given.variables["balance"] = 4
        assert {"balance": 6} == taken.variables
        assert ({"balance": 10}, {}) == (first.variables, second.variables)
    assert ({"balance": 6}, {"balance": 4}) == (first.variables, second.variables)
    assert {"user": "u1"} == second.metadata
    (out,), (_, came) = taken.events, given.events
    assert (2, 3, "bank", "transfer") == (out.position, came.position, out.actor, came.cause)
    assert [] == list(replay.verify(store, level="full"))


def test_nothing_changes_where_one_cannot(store, two):
    """A conflict in one session, or a limit, leaves all of them as they were."""
    first, second = two
    with pytest.raises(Conflict), store.transaction() as both:
        both.batch(second).variables["balance"] = 4
        both.batch(first).variables["balance"] = 6
        first.variables["balance"] = 9
    assert (9, 0) == (first.variables["balance"], second.head)
    with (
        evstore.open(":memory:", limits=evstore.Limits(variables_max=1)) as small,
        pytest.raises(TooMany),
        small.transaction() as both,
    ):
        both.batch(small.session("a")).variables["x"] = 1
        both.batch(small.session("b")).variables.update(x=1, y=2)
    assert [] == list(replay.verify(store, level="full"))


def test_nothing_changes_where_the_block_raises(store, two):
    """An error in the block discards all batches."""
    first, second = two
    with pytest.raises(ZeroDivisionError), store.transaction() as both:
        both.batch(first).variables["balance"] = 0
        both.batch(second).variables["balance"] = 1 // 0
    assert (1, 0) == (first.head, second.head)


def test_batches_may_have_blocks_of_their_own(store, two):
    """A batch of a transaction that is used as a block is committed with the transaction."""
    first, second = two
    with store.transaction() as both:
        with both.batch(first) as batch:
            batch.variables["balance"] = 1
        with pytest.raises(Closed):
            batch.variables["balance"] = 2
        assert 10 == first.variables["balance"]
        both.batch(second)
    assert (1, 0) == (first.variables["balance"], second.head)


def test_a_key_makes_each_batch_once(store, two):
    """A transaction whose batches have keys can be repeated; each returns its first events."""
    events = []
    for _ in range(2):
        with store.transaction() as both:
            batches = [both.batch(session, key="transfer-1") for session in two]
            for batch in batches:
                batch.variables["done"] = True
        events.append([list(batch.events) for batch in batches])
    assert events[0] == events[1]
    assert (2, 2) == (two[0].head, two[1].head)


def test_what_a_transaction_takes(store, two, memory):
    """One batch for each session of the store, begun inside the block."""
    first, _ = two
    both = store.transaction()
    with pytest.raises(Closed):
        both.batch(first)
    with both:
        both.batch(first)
        with pytest.raises(Refused, match="go on with it"):
            both.batch(store.session("first"))
        with pytest.raises(Refused, match="one store"):
            both.batch(memory.session("other"))
    with store.transaction():
        pass
    assert 1 == store.stats().batches


def test_a_transaction_is_entered_once(store, two):
    """What was committed is not committed again: entering it, or its batches, again is Closed."""
    first, second = two
    with store.transaction() as both:
        batch = both.batch(first, expect=evstore.ANY)
        batch.messages.append({"role": "user"})
        with pytest.raises(Closed), both:
            pass
        both.batch(second)
    for again in (both, batch):
        with pytest.raises(Closed), again:
            pass
    assert [{"role": "user"}] == first.messages


def test_a_session_that_only_reads_stays_out(store, two, path):
    """A session of a handle that only reads cannot be written to through another handle."""
    with evstore.open(path, read_only=True) as reading, store.transaction() as both:
        with pytest.raises(ReadOnly):
            both.batch(reading.session("first"))
        both.batch(two[1]).variables["balance"] = 1
    assert (1, 2) == (two[0].head, two[1].head)


def test_readers_see_all_or_nothing(store, two):
    """Whoever reads both sessions from one snapshot never sees half a transaction."""
    first, second = two
    stop = threading.Event()
    sums = set()

    def read():
        while not stop.is_set():
            infos = {info.id: info.head for info in store.sessions()}
            sums.add(infos.get("first", 0) - infos.get("second", 0))

    with store.transaction() as both:
        both.batch(second).variables["n"] = 0
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(100):
            with store.transaction() as both:
                both.batch(first).variables["n"] = number
                both.batch(second).variables["n"] = number
    finally:
        stop.set()
        reader.join()
    assert {-1} == sums
