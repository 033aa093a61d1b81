"""Deadlines: what has one is absent from then on, and the past never changes because of it."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.deadlines import RENEWALS, Lease, lease, lease_after
from evstore.errors import (
    Conflict,
    Refused,
    SessionExpired,
    SessionNotFound,
    TooMany,
)
from evstore.events import from_microseconds, to_microseconds
from evstore.transfer.jsonlines import export_lines, import_lines
from tests.event_schemas import check_store

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def pass_by(self, duration: timedelta) -> None:
        self.time += duration


@pytest.fixture
def clock() -> Clock:
    """A clock that moves when it is told to."""
    return Clock()


@pytest.fixture
def store(path: Path, clock: Clock) -> Iterator[evstore.Store]:
    """A store that goes by that clock."""
    with evstore.open(path, durability="normal", clock=clock) as opened:
        yield opened
        check_store(opened)
        assert [] == list(replay.verify(opened, level="full"))


# Variables.


@pytest.mark.parametrize("ttl", [3600, 3600.0, HOUR, START + HOUR])
def test_a_variable_is_absent_from_its_deadline_on(store: evstore.Store, clock: Clock, ttl):
    """A variable is there until its deadline, and from then on nothing shows it any more."""
    trip = store.session("trip")
    trip.variables.set("seat", "12A", ttl=ttl)
    trip.variables["city"] = "Rome"
    assert START + HOUR == trip.variables.info("seat").expires_at
    clock.pass_by(HOUR - timedelta(microseconds=1))
    assert {"seat": "12A", "city": "Rome"} == dict(trip.variables)
    clock.pass_by(timedelta(microseconds=1))
    assert {"city": "Rome"} == dict(trip.variables) == dict(trip.view().variables)
    assert 1 == len(trip.variables) == len(trip.view().variables)
    assert "seat" not in trip.variables
    with pytest.raises(KeyError):
        trip.variables.info("seat")
    with pytest.raises(KeyError):
        trip.blame("seat")
    with pytest.raises(KeyError):
        del trip.variables["seat"]
    with trip.batch() as batch:
        assert {"city": "Rome"} == dict(batch.variables)
    assert 1 == next(store.sessions()).variables


def test_the_past_shows_what_was_there_then(store: evstore.Store, clock: Clock):
    """A past moment shows a variable whose deadline was still to come by then, for ever."""
    trip = store.session("trip")
    trip.variables.set("seat", "12A", ttl=HOUR)
    trip.messages.append({"role": "user", "content": "hi"})
    view = trip.view()
    clock.pass_by(2 * HOUR)
    trip.variables["city"] = "Rome"
    clock.pass_by(100 * HOUR)
    for moment in (1, 2, START, START + HOUR / 2):
        assert {"seat": "12A"} == dict(trip.at(moment).variables)
    assert {"seat": "12A"} == dict(view.variables)
    assert {} == dict(trip.at(START + HOUR).variables)
    assert {"city": "Rome"} == dict(trip.at(3).variables) == dict(trip.at(clock.time).variables)


def test_a_fork_shares_deadlines(store: evstore.Store, clock: Clock):
    """A fork sees a variable of the shared past until the deadline that it had there."""
    trip = store.session("trip")
    trip.variables.set("seat", "12A", ttl=HOUR)
    what_if = trip.fork("what-if")
    assert "12A" == what_if.variables["seat"]
    clock.pass_by(HOUR)
    assert {} == dict(what_if.variables)
    assert 0 == len(what_if.variables)
    assert {"seat": "12A"} == dict(what_if.at(1).variables)


def test_a_deadline_goes_with_the_next_value(store: evstore.Store, clock: Clock):
    """Setting a variable again takes its deadline away, or gives it another one."""
    trip = store.session("trip")
    trip.variables.set("seat", 1, ttl=HOUR)
    trip.variables["seat"] = 2
    trip.variables.set("gate", 1)
    trip.variables.set("gate", 2, ttl=HOUR)
    clock.pass_by(HOUR)
    assert {"seat": 2} == dict(trip.variables)


def test_what_has_expired_counts_as_absent_for_writers(store: evstore.Store, clock: Clock):
    """Preconditions, defaults and deletions see a variable as absent once it has expired."""
    trip = store.session("trip")
    (first,) = trip.variables.set("seat", "12A", ttl=HOUR)
    with pytest.raises(Conflict):
        trip.variables.set("seat", "12B", expect=evstore.ABSENT)
    clock.pass_by(HOUR)
    with pytest.raises(Conflict):
        trip.variables.set("seat", "12B", expect=first.seq)
    trip.variables.set("seat", "12C", expect=evstore.ABSENT, ttl=HOUR)
    clock.pass_by(HOUR)
    assert "none" == trip.variables.pop("seat", "none")
    assert "12D" == trip.variables.setdefault("seat", "12D")


@pytest.mark.parametrize("ahead", ["the clock was set back", "what was imported is ahead"])
def test_readers_and_writers_go_by_one_clock(path: Path, clock: Clock, ahead: str):
    """Where the log is ahead of the clock, a deadline passes for both when the clock says so."""
    with evstore.open(path, durability="normal", clock=clock) as store:
        clock.pass_by(HOUR)
        if ahead == "the clock was set back":
            store.session("other").variables["a"] = 1
        else:
            with evstore.open(":memory:", clock=clock) as elsewhere:
                elsewhere.session("other").variables["a"] = 1
                store.engine.adopt(elsewhere.engine.changes(0))
        clock.pass_by(-HOUR)
        trip = store.session("trip")
        (first,) = trip.variables.set("seat", "12A", ttl=60)
        assert START + HOUR <= first.time
        with pytest.raises(Conflict):
            trip.variables.set("seat", "12B", expect=evstore.ABSENT)
        assert "12A" == trip.variables.setdefault("seat", "12C") == trip.variables["seat"]
        (second,) = trip.variables.set("seat", "12D", ttl=60, expect=first.seq)
        trip.undo()
        assert {"seat": "12A"} == dict(trip.variables)
        assert "12A" == trip.variables.pop("seat", "none")
        assert second.seq + 2 == trip.head


def test_what_has_expired_does_not_count_to_limits(path: Path, clock: Clock):
    """Room that an expired variable leaves can be used, and no more than that."""
    limits = evstore.Limits(variables_max=2)
    with evstore.open(path, limits=limits, clock=clock) as store:
        trip = store.session("trip")
        trip.variables.set("a", 1, ttl=HOUR)
        trip.variables["b"] = 1
        with pytest.raises(TooMany):
            trip.variables["c"] = 1
        clock.pass_by(HOUR)
        trip.variables["c"] = 1
        with pytest.raises(TooMany):
            trip.variables["a"] = 1


def test_a_batch_sees_deadlines_as_of_its_entry(store: evstore.Store, clock: Clock):
    """What a batch saw stays while it is open, and a deadline that passes is no conflict."""
    trip = store.session("trip")
    trip.variables.set("seat", "12A", ttl=HOUR)
    with trip.batch() as batch:
        clock.pass_by(2 * HOUR)
        batch.variables["copy"] = batch.variables["seat"]
        batch.variables.set("gate", 4, ttl=HOUR)
        assert 4 == batch.variables["gate"]
    assert {"copy": "12A", "gate": 4} == dict(trip.variables)


def test_taking_back_does_not_bring_back_what_has_expired(store: evstore.Store, clock: Clock):
    """Revert and undo count what has expired as absent, and keep a deadline still to come."""
    trip = store.session("trip")
    trip.variables.set("seat", "12A", ttl=HOUR)
    trip.variables.set("gate", 4, ttl=3 * HOUR)
    trip.variables.update(seat="12B", gate=5)
    clock.pass_by(2 * HOUR)
    trip.revert(2)
    assert {"gate": 4} == dict(trip.variables)
    assert START + 3 * HOUR == trip.variables.info("gate").expires_at
    trip.undo()
    assert {"seat": "12B", "gate": 5} == dict(trip.variables)
    clock.pass_by(2 * HOUR)
    trip.redo()
    assert {} == dict(trip.variables)


def test_a_merge_leaves_out_what_has_expired(store: evstore.Store, clock: Clock):
    """A branch brings in a variable with its deadline, unless that has passed."""
    trip = store.session("trip")
    trip.variables["city"] = "Rome"
    branch = trip.fork("branch")
    branch.variables.set("seat", "12A", ttl=HOUR)
    branch.variables.set("gate", 4, ttl=3 * HOUR)
    clock.pass_by(2 * HOUR)
    trip.merge(branch)
    assert {"city": "Rome", "gate": 4} == dict(trip.variables)
    clock.pass_by(HOUR)
    assert {"city": "Rome"} == dict(trip.variables)


def test_the_same_key_with_another_deadline_is_the_same(store: evstore.Store, clock: Clock):
    """A batch that is repeated a while later is known by its key, though its deadline moved."""
    trip = store.session("trip")
    seqs = []
    for _ in range(2):
        with trip.batch(key="request-7") as batch:
            batch.variables.set("seat", "12A", ttl=HOUR)
        seqs.append([event.seq for event in batch.events])
        clock.pass_by(HOUR / 4)
    assert [[1], [1]] == seqs
    assert START + HOUR == trip.variables.info("seat").expires_at


def test_a_person_with_a_shell_sees_what_is_there(path: Path):
    """The view `variables` leaves out what has expired by the clock of that shell."""
    with evstore.open(path) as store:
        trip = store.session("trip")
        trip.variables.set("seat", "12A", ttl=0.02)
        trip.variables.set("gate", 4, ttl=HOUR)
        threading.Event().wait(0.03)
    query = "select name from variables"
    assert [("gate",)] == apsw.Connection(str(path)).execute(query).fetchall()


# Sessions.


def test_a_session_slides_with_every_use(path: Path, clock: Clock):
    """A session with a ttl lives as long as somebody reads or writes it in time."""
    with evstore.open(path, ttl=HOUR, clock=clock) as store:
        trip = store.session("trip")
        trip.variables["city"] = "Rome"
        assert START + HOUR == trip.expires_at
        for _ in range(5):
            clock.pass_by(0.9 * HOUR)
            assert "Rome" == trip.variables["city"]
            clock.pass_by(0.9 * HOUR)
            trip.variables["city"] = "Rome"
        assert clock.time + HOUR == trip.expires_at
        clock.pass_by(HOUR)
        with pytest.raises(SessionExpired):
            trip.variables["city"]


def test_reads_renew_a_lease_now_and_then(store: evstore.Store, clock: Clock):
    """A read moves the deadline only once a twentieth of the ttl has gone by."""
    trip = store.session("trip", ttl=HOUR)
    trip.variables["city"] = "Rome"
    clock.pass_by(HOUR / RENEWALS - timedelta(seconds=1))
    assert "Rome" == trip.variables["city"]
    assert START + HOUR == trip.expires_at
    clock.pass_by(timedelta(seconds=1))
    assert "Rome" == trip.variables["city"]
    assert clock.time + HOUR == trip.expires_at


def test_a_read_neither_waits_nor_fails_for_a_renewal(
    store: evstore.Store, clock: Clock, path: Path
):
    """Where somebody else is writing, a read goes on without renewing the lease."""
    trip = store.session("trip", ttl=HOUR)
    trip.variables["city"] = "Rome"
    clock.pass_by(HOUR / 2)
    other = apsw.Connection(str(path), vfs="cksmvfs")
    other.execute("begin immediate")
    assert "Rome" == trip.variables["city"]
    other.execute("rollback")
    with evstore.open(path, read_only=True, clock=clock) as reader:
        assert "Rome" == reader.session("trip").variables["city"]
        assert START + HOUR == reader.session("trip").expires_at
    other.close()


def test_a_fixed_deadline_stays(store: evstore.Store, clock: Clock):
    """A session with a datetime for a ttl ends then, used or not."""
    trip = store.session("trip", ttl=START + HOUR)
    trip.variables["city"] = "Rome"
    clock.pass_by(0.9 * HOUR)
    trip.variables["city"] = "Oslo"
    trip.touch()
    assert START + HOUR == trip.expires_at
    clock.pass_by(0.1 * HOUR)
    with pytest.raises(SessionExpired):
        trip.variables["city"] = "Bern"


def test_an_expired_session_is_absent(store: evstore.Store, clock: Clock):
    """From its deadline on a session is nowhere but among the ended lives, swept or not."""
    trip = store.session("trip", ttl=HOUR)
    trip.messages.append({"role": "user", "content": "hi"})
    uid, view = trip.uid, trip.view()
    assert uid is not None
    clock.pass_by(HOUR)
    for swept in (0, 1):
        assert "trip" not in store
        assert [] == list(store.sessions())
        assert [uid] == [info.uid for info in store.sessions(deleted=True)]
        with pytest.raises(SessionNotFound):
            store.session("trip", create=False)
        with pytest.raises(SessionNotFound):
            store.delete("trip")
        for use in (trip.touch, trip.view, lambda: trip.head, lambda: trip.variables["a"]):
            with pytest.raises(SessionExpired):
                use()
        with pytest.raises(SessionExpired):
            trip.messages.append({"role": "user", "content": "anyone?"})
        assert [{"role": "user", "content": "hi"}] == list(view.messages)
        assert [{"role": "user", "content": "hi"}] == list(store.session(uid=uid).messages)
        with pytest.raises(Refused):
            store.session(uid=uid).variables["city"] = "Rome"
        assert 0 == store.session("trip").head
        assert 1 - swept == store.sweep()


def test_writing_to_an_expired_id_begins_a_new_life(store: evstore.Store, clock: Clock):
    """The end of the old life and the birth of the new one are one transaction."""
    trip = store.session("trip", ttl=HOUR)
    trip.variables["city"] = "Rome"
    clock.pass_by(HOUR)
    again = store.session("trip")
    again.variables["city"] = "Oslo"
    assert {"city": "Oslo"} == dict(again.variables)
    assert again.uid != trip._life.uid.hex()  # type: ignore[union-attr]
    old = store.session(uid=trip._life.uid.hex())  # type: ignore[union-attr]
    assert ["variable.set", "session.expired"] == [event.kind for event in old.events()]
    assert again.expires_at is None
    assert 0 == store.sweep()


def test_a_fork_takes_an_expired_id(store: evstore.Store, clock: Clock):
    """Forking onto the id of a session that has expired is no collision."""
    store.session("old", ttl=HOUR).variables["a"] = 1
    trip = store.session("trip")
    trip.variables["city"] = "Rome"
    clock.pass_by(HOUR)
    assert {"city": "Rome"} == dict(trip.fork("old").variables)


def test_an_expired_session_can_be_restored(path: Path, clock: Clock):
    """A life that has expired comes back, swept or not, with the deadline of the store."""
    with evstore.open(path, ttl=HOUR, clock=clock) as store:
        for swept in (False, True):
            trip = store.session(f"trip-{swept}")
            trip.variables["city"] = "Rome"
            uid = trip.uid
            assert uid is not None
            clock.pass_by(HOUR)
            if swept:
                store.sweep()
            back = store.restore(uid)
            assert {"city": "Rome"} == dict(back.variables)
            assert {"city": "Rome"} == dict(trip.variables)
            kinds = ["variable.set", "session.expired", "session.restored"]
            assert kinds == [event.kind for event in back.events()]
            assert clock.time + HOUR == back.expires_at
        assert [] == list(replay.verify(store, level="full"))


def test_a_sweep_disturbs_nobody(store: evstore.Store, clock: Clock):
    """A batch on another session goes through although sessions were swept meanwhile."""
    for number in range(250):
        store.session(f"old-{number}", ttl=HOUR).variables["a"] = 1
    trip = store.session("trip")
    trip.variables["city"] = "Rome"
    clock.pass_by(HOUR)
    with trip.batch() as batch:
        batch.variables["city"] = "Oslo"
        assert 250 == store.sweep()
    assert "Oslo" == trip.variables["city"]
    assert ["trip"] == [info.id for info in store.sessions()]


def test_a_listing_tells_deadlines(store: evstore.Store):
    """A listing shows when each session will have expired."""
    store.session("a", ttl=HOUR).variables["x"] = 1
    store.session("b").variables["x"] = 1
    assert [START + HOUR, None] == [info.expires_at for info in store.sessions()]


def test_a_handle_gives_a_deadline_to_a_session_that_lives(store: evstore.Store, clock: Clock):
    """A ttl on a handle counts from its next write or touch, also where the session is older."""
    store.session("trip").variables["city"] = "Rome"
    trip = store.session("trip", ttl=HOUR)
    assert trip.expires_at is None
    trip.touch()
    assert START + HOUR == trip.expires_at
    store.session("trip", ttl=2 * HOUR).variables["city"] = "Oslo"
    assert START + 2 * HOUR == trip.expires_at
    assert START + HOUR == trip.fork("what-if").expires_at


def test_an_import_takes_an_expired_id(store: evstore.Store, clock: Clock, tmp_path: Path):
    """A session that has expired does not stand in the way of an imported one with its id."""
    store.session("trip", ttl=HOUR).variables["city"] = "Rome"
    with evstore.open(tmp_path / "other.db") as other:
        other.session("trip").variables["city"] = "Oslo"
        clock.pass_by(HOUR)
        import_lines(store, export_lines(other))
    assert "Oslo" == store.session("trip").variables["city"]


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), True, "1h", START, 10**20])
def test_a_ttl_that_is_none_is_refused(store: evstore.Store, ttl):
    """What is no duration, or over at once, is refused before anything is written."""
    trip = store.session("trip")
    with pytest.raises(Refused):
        trip.variables.set("seat", 1, ttl=ttl)
    with pytest.raises(Refused):
        store.session("trip", ttl=ttl)
    assert 0 == trip.head


NEVER = datetime.max.replace(tzinfo=timezone(-HOUR))  # beyond the year 9999 in UTC


def test_a_deadline_beyond_all_datetimes_is_refused(path: Path, clock: Clock):
    """The last moment that UTC can say is a deadline; what is later is refused at every door."""
    last = datetime.max.replace(tzinfo=UTC)
    with (
        pytest.raises(Refused, match="leave ttl out"),
        evstore.open(path, ttl=NEVER, clock=clock) as store,
    ):
        store.session("born").variables["city"] = "Rome"
    with evstore.open(path, clock=clock) as store:
        trip = store.session("trip", ttl=last)
        trip.variables.set("seat", "12A", ttl=last)
        for act in (
            lambda: trip.variables.set("seat", "12B", ttl=NEVER),
            lambda: store.session("trip", ttl=NEVER).touch(),
            lambda: store.session(uid=trip.uid, ttl=NEVER),
        ):
            with pytest.raises(Refused, match="leave ttl out"):
                act()
        clock.time = last - HOUR
        with pytest.raises(Refused, match="leave ttl out"):
            trip.variables.set("seat", "12B", ttl=2 * HOUR)
        assert [last] == [info.expires_at for info in store.sessions()]
        assert (1, last) == (trip.head, trip.variables.info("seat").expires_at)
        trip.variables["city"] = "Rome"
        assert 1 == store.backup(path.with_suffix(".copy"), at=1)


def test_a_deadline_recorded_beyond_all_datetimes_is_read_as_the_last_one():
    """A moment that no datetime can say is shown as the last that one can."""
    last = datetime.max.replace(tzinfo=UTC)
    assert last == from_microseconds(to_microseconds(NEVER)) == from_microseconds(1 << 62)
    assert last - MICROSECOND == from_microseconds(to_microseconds(last) - 1)


def test_metadata_has_no_deadline(store: evstore.Store):
    """Metadata lives as long as its session."""
    with pytest.raises(Refused):
        store.session("trip").metadata.set("user", "ada", ttl=HOUR)


@given(
    ttl_us=st.one_of(st.none(), st.integers(1, 10**9)),
    steps=st.lists(st.integers(0, 10**8), max_size=30),
)
def test_a_lease_is_written_seldom_and_never_too_late(ttl_us, steps):
    """However it is used, a lease lags behind by less than a twentieth of its length."""
    now_us = 0
    asked = None if ttl_us is None else timedelta(microseconds=ttl_us)
    held = None if asked is None else lease(asked, now_us)
    for step in steps:
        now_us += step
        renewed = lease_after(held, None, now_us)
        assert renewed is None or renewed == Lease(now_us + (ttl_us or 0), ttl_us)
        held = renewed or held
        if held is not None and ttl_us is not None:
            assert held.expires_us > now_us + ttl_us - max(ttl_us // RENEWALS, 1)
