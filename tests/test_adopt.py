"""Adopting: a log that was recorded elsewhere enters as it is, or not at all."""

from datetime import UTC, datetime, timedelta

import pytest

import evstore
from evstore import chain, replay
from evstore.errors import Corrupt, EvstoreError, ReadOnly, Refused, Taken


@pytest.fixture
def recorded():
    """Return the batches of a session and its fork."""
    with evstore.open(":memory:") as store:
        session = store.session("s", metadata={"user": "u1"})
        session.variables["a"] = 1
        session.messages.extend([{"role": "user"}, {"role": "assistant"}])
        session.messages.pop()
        fork = session.fork("f", at=2)
        fork.variables["a"] = 2
        return store.engine.changes(0)


@pytest.fixture
def target():
    """Return an empty store to adopt into."""
    with evstore.open(":memory:") as store:
        yield store


def forged(batch, previous, entries=None, **changes):
    """Return a batch with other content whose link fits that content."""
    changed = batch._replace(entries=entries or batch.entries, **changes)
    return changed._replace(link=changed.continues(previous))


def entry(kind, text, name=None, **more):
    """Return an entry of some kind with a text of one's own."""
    return chain.Entry(kind, 1, name, text, bytes(16), **more)


def refuse(target, error, *batches):
    """Check that batches are refused with an error, and that nothing of them is written."""
    before = target.engine.position()
    with pytest.raises(error) as caught:
        target.engine.adopt(batches)
    assert isinstance(caught.value, EvstoreError)
    assert before == target.engine.position()
    assert [] == list(replay.verify(target, level="full"))


def test_a_log_is_adopted_whole(recorded, target):
    """Every batch arrives with its link, and what is there already is passed over."""
    assert (2, 4) == target.engine.adopt(recorded[:2])
    assert (3, 2) == target.engine.adopt(recorded)
    assert (0, 0) == target.engine.adopt(recorded)
    assert [batch.link for batch in recorded] == [b.link for b in target.engine.changes(0)]
    assert {"a": 2} == target.session("f").variables
    assert [] == list(replay.verify(target, level="full"))


def test_a_log_needs_its_beginning(recorded, target):
    """A batch without its birth, without those before it, or without its parent is refused."""
    refuse(target, Refused, recorded[1])
    refuse(target, Refused, recorded[3])
    refuse(target, Refused, recorded[0]._replace(birth=None))
    target.engine.adopt(recorded[:1])
    refuse(target, Refused, recorded[2])
    refuse(target, Refused, recorded[1]._replace(birth=recorded[0].birth))


def test_a_fork_needs_its_parent_up_to_the_fork_point(recorded, target):
    """A fork whose parent does not reach the fork point is refused."""
    birth = recorded[3].birth._replace(fork=9)
    target.engine.adopt(recorded[:1])
    refuse(target, Refused, recorded[3]._replace(birth=birth, first=10))


def test_another_log_under_the_same_uid_is_taken(recorded, target):
    """A uid has one log: another batch at a place that is filled is refused."""
    target.engine.adopt(recorded)
    refuse(target, Taken, recorded[1]._replace(link=bytes(32)))
    refuse(target, Taken, recorded[3]._replace(link=bytes(32)))


def test_an_id_that_lives_is_taken(recorded, target):
    """An id that belongs to another life is refused."""
    target.session("s").variables["mine"] = 1
    refuse(target, Taken, *recorded)
    assert {"mine": 1} == target.session("s").variables


@pytest.mark.parametrize(
    "change",
    [
        {"time_us": 5},
        {"actor": "someone"},
        {"cause": "something"},
        {"key": "k"},
        {"link": bytes(32)},
        {"entries": ()},
    ],
)
def test_a_batch_has_to_fit_its_link(recorded, target, change):
    """A batch that was changed is damaged."""
    target.engine.adopt(recorded[:1])
    refuse(target, (Corrupt, Refused, Taken), recorded[1]._replace(**change))


def test_time_goes_on(recorded, target):
    """A batch that is not later than the one before it is damaged, though its link fits."""
    target.engine.adopt(recorded[:1])
    early = forged(recorded[1], recorded[0].link, time_us=recorded[0].time_us)
    refuse(target, Corrupt, early)


def test_what_is_old_does_not_set_the_clock_back():
    """What is recorded after an import is not earlier than what was recorded before it."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with (
        evstore.open(":memory:", clock=lambda: now) as target,
        evstore.open(":memory:", clock=lambda: now - timedelta(days=1)) as old,
    ):
        old.session("old").variables["a"] = 1
        (before,) = target.session("s").variables.set("a", 1)
        now -= timedelta(hours=1)
        target.engine.adopt(old.engine.changes(0))
        (after,) = target.session("t").variables.set("a", 1)
        assert before.time <= after.time


FORGERIES = {
    "an unknown kind": entry("variable.put", b"{}"),
    "an application's kind without a name": entry("app.", b"{}"),
    "no data and no leaf": chain.Entry("message.added", 1, None, None, bytes(16)),
    "a name where none belongs": entry("message.added", b'{"message":{"role":"u"}}', "name"),
    "no name where one belongs": entry("variable.set", b'{"value":1}'),
    "no salt": chain.Entry("messages.cleared", 1, None, b"{}", None),
    "no JSON": entry("messages.cleared", b"{"),
    "no object": entry("messages.cleared", b"[]"),
    "no message": entry("message.added", b'{"message":1}'),
    "no role": entry("message.added", b'{"message":{"content":"x"}}'),
    "a role that is no text": entry("message.added", b'{"message":{"role":5}}'),
    "pairs that are none": entry("message.added", b'{"message":{"$dict":[["role","u"],5]}}'),
    "pairs without a role": entry("message.added", b'{"message":{"$dict":[[1,"role"]]}}'),
    "a set without a value": entry("variable.set", b'{"worth":1}', "a"),
    "a set with more than a value": entry("variable.set", b'{"value":1,"more":2}', "a"),
    "a set with white space": entry("variable.set", b'{"value": 1 }x', "a"),
    "a deadline that is no number": entry("variable.set", b'{"value":1,"expires_at":"x"}', "a"),
    "a deadline beyond time": entry("variable.set", b'{"value":1,"expires_at":-5}', "a"),
    "a removal of the future": entry("message.removed", b'{"seq":99}'),
    "a removal of nothing": entry("message.removed", b"{}"),
    "a removal of what is no message": entry("message.removed", b'{"seq":1}'),
    "a removal of itself": entry("message.removed", b'{"seq":3}'),
    "a replacement of what is no message": entry(
        "message.replaced", b'{"message":{"role":"u"},"seq":2}'
    ),
    "a return to the future": entry("messages.reverted", b'{"to":99}'),
    "a label of the future": entry("label.set", b'{"at":99}', "here"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_event_is_refused(recorded, target, forgery):
    """An event whose data is not of the form of its kind is damaged, though its link fits."""
    target.engine.adopt(recorded[:1])
    batch = forged(recorded[1], recorded[0].link, entries=(FORGERIES[forgery],))
    refuse(target, Corrupt, batch)


def test_a_deadline_is_adopted(recorded, target):
    """The data of a set may carry its deadline."""
    target.engine.adopt(recorded[:1])
    text = b'{"value":1,"expires_at":4102444800000000}'
    batch = forged(recorded[1], recorded[0].link, entries=(entry("variable.set", text, "a"),))
    assert (1, 1) == target.engine.adopt([batch])
    info = target.session("s").variables.info("a")
    assert info.expires_at is not None
    assert (1, 2100) == (info.size_bytes, info.expires_at.year)
    assert [] == list(replay.verify(target, level="full"))


def test_causes_from_elsewhere_confuse_nobody(recorded, target):
    """A cause that only looks like an undo, a redo or a merge is a cause like any other."""
    target.engine.adopt(recorded[:1])
    session, previous = target.session("s"), recorded[0].link
    text = b'{"value":%d}'
    causes = ("undo:x", "redo:", f"merge:{bytes(16).hex()}:x", "undo:-1")
    for number, cause in enumerate(causes):
        batch = forged(
            recorded[1]._replace(first=3 + number, time_us=recorded[1].time_us + number),
            previous,
            entries=(entry("variable.set", text % number, "a"),),
            cause=cause,
        )
        target.engine.adopt([batch])
        previous = batch.link
    session.undo()
    assert {"a": 2} == session.variables
    session.redo()
    assert {"a": 3} == session.variables
    assert () == session.merge(session.fork("fork")).events
    assert [] == list(replay.verify(target, level="full"))


def test_a_store_that_is_read_only_adopts_nothing(tmp_path, recorded):
    """Adopting writes, and a read-only store refuses it."""
    with evstore.open(tmp_path / "store.db") as store:
        store.session("t").variables["a"] = 1
    with evstore.open(tmp_path / "store.db", read_only=True) as store, pytest.raises(ReadOnly):
        store.engine.adopt(recorded)


def test_a_message_may_have_keys_that_are_no_texts(recorded, target):
    """A role is found among keys of any kind."""
    target.engine.adopt(recorded[:1])
    text = b'{"message":{"$dict":[["role","user"],[{"$tuple":[1]},"x"]]}}'
    target.engine.adopt(
        [forged(recorded[1], recorded[0].link, entries=(entry("message.added", text),))]
    )
    assert [{"role": "user", (1,): "x"}] == list(target.session("s").messages)


def test_a_key_belongs_to_one_batch(recorded, target):
    """A key that comes again damages what is adopted, and is no fault of the store."""
    target.engine.adopt(recorded[:1])
    first = forged(recorded[1], recorded[0].link, key="k")
    again = recorded[2]._replace(first=first.last + 1, time_us=first.time_us + 1)
    refuse(target, Corrupt, first, forged(again, first.link, key="k"))
    refuse(target, Corrupt, forged(recorded[3]._replace(entries=()), recorded[0].link, key="k"))
    nothing = recorded[1]._replace(entries=())
    refuse(target, Corrupt, nothing._replace(link=nothing.continues(recorded[0].link)))
