"""A watch shows every event once and in order, as it comes, from this process and from others."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore.errors import Closed, Corrupt, Refused, SessionNotFound
from evstore.sqlite.poller import PAUSE_S_MAX
from evstore.watch import PAGE_EVENTS
from tests.test_processes import CHILD_S_MAX, ended_well, forked, needs_fork, started

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
WRITERS = 4
EVENTS_EACH = 25_000 if LONG else 5_000


def places(events: list[evstore.Event]) -> list[tuple[int, int]]:
    """Where events stand in a store."""
    return [(event.position, event.seq) for event in events]


def seqs(events: list[evstore.Event]) -> list[int]:
    """Where events stand in their session."""
    return [event.seq for event in events]


def rest(watch: evstore.Watch) -> list[evstore.Event]:
    """All that a watch has now."""
    found: list[evstore.Event] = []
    while page := watch.poll():
        found += page
    return found


def poller_threads() -> list[threading.Thread]:
    """The threads that look whether files have grown."""
    return [thread for thread in threading.enumerate() if thread.name == "evstore-poller"]


def comes_true(condition: Callable[[], object]) -> bool:
    """Whether something comes true soon."""
    deadline = time.monotonic() + CHILD_S_MAX
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return bool(condition())


@contextmanager
def waiting(watch: evstore.Watch) -> Iterator["Future[Any]"]:
    """A thread that waits for the next event, once it waits; at the end the watch is closed."""
    poller = watch._engine._shared.poller
    before = len(poller._waiting)
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, watch, None)
        assert comes_true(lambda: len(poller._waiting) > before)
        try:
            yield future
        finally:
            watch.close()


@pytest.fixture
def varied(store: evstore.Store) -> evstore.Store:
    """A store with batches, transactions over several sessions, forks, and ends."""
    trip, other = store.session("trip"), store.session("other")
    trip.variables["x"] = 1
    with trip.batch() as batch:
        for number in range(5):
            batch.variables[f"v{number}"] = "long " * 200 * number
    with store.transaction() as both:
        for session in (other, trip):
            both.batch(session).variables.update(a=1, b=2, c=3)
    trip.fork("what-if", at=4).record("app.thought", [1])
    trip.fork("silent")
    store.delete("other")
    trip.record("app.end")
    return store


# A store.


def test_a_store_is_watched_from_its_beginning(varied):
    """From 0 on, a watch gives all events of all sessions, by position and then by sequence."""
    found = rest(varied.watch(after=0))
    assert places(found) == sorted(places(found))
    logs = [varied.session(uid=uid) for uid in dict.fromkeys(event.uid for event in found)]
    recorded = [event for log in logs for event in log.events() if event.uid == log.uid]
    assert sorted(found, key=lambda event: (event.position, event.seq)) == found
    assert sorted(recorded, key=lambda event: (event.position, event.seq)) == found
    assert {"trip", "other", "what-if"} == {event.session for event in found}


def test_a_watch_resumes_after_any_event(varied):
    """After each event a watch goes on with the next one, also in the middle of a batch."""
    found = rest(varied.watch(after=0))
    for index, event in enumerate(found):
        assert found[index + 1 :] == rest(varied.watch(after=event)), event
    assert [] == varied.watch(after=found[-1]).poll(0.01)


def test_a_position_stands_for_whole_batches(varied):
    """After a position a watch begins with the batch behind it."""
    found = rest(varied.watch(after=0))
    for position in range(varied.engine.position() + 1):
        behind = [event for event in found if event.position > position]
        assert behind == rest(varied.watch(after=position))


def test_now_is_when_the_watch_was_asked_for(store):
    """Without `after` a watch begins at the call, not when it is first looked at."""
    session = store.session("trip")
    session.record("app.before")
    watches = [store.watch(), session.watch()]
    session.record("app.after")
    assert [["app.after"], ["app.after"]] == [[e.kind for e in w.poll()] for w in watches]


def test_a_large_batch_comes_in_pages(store):
    """A watch holds a page of a batch, not all of it, and goes on anywhere in its middle."""
    with store.session("trip").batch() as batch:
        for number in range(4 * PAGE_EVENTS + 3):
            batch.record("app.x", number)
    for watch in (store.watch(after=0), store.session("trip").watch(after=0)):
        pages = [watch.poll() for _ in range(6)]
        assert [*[PAGE_EVENTS] * 4, 3, 0] == [len(page) for page in pages]
        events = [event for page in pages for event in page]
        assert list(range(1, 4 * PAGE_EVENTS + 4)) == seqs(events)
        assert seqs(events[300:900]) == seqs(list(islice(store.watch(after=events[299]), 600)))


def test_batches_without_events_are_passed_over(store):
    """The births of forks hold no event: a watch goes on behind them."""
    trip = store.session("trip")
    trip.record("app.first")
    watch = store.watch()
    for number in range(3):
        trip.fork(f"fork{number}")
    assert [] == watch.poll()
    trip.record("app.second")
    assert [(5, 2)] == places(watch.poll())
    assert [(5, 2)] == places(rest(store.watch(after=2)))


@pytest.mark.parametrize(
    "after", [-1, 4, True, "3", 1.0, datetime(2026, 1, 1, tzinfo=UTC)], ids=repr
)
def test_what_is_not_there_cannot_be_watched_after(store, after):
    """A moment that a watch cannot begin after is Refused, with the ones that it can."""
    session = store.session("trip")
    for _ in range(3):
        session.record("app.x")
    with pytest.raises(Refused, match="give a position from 0 to 3, an event of this store, or"):
        store.watch(after=after)
    with pytest.raises(Refused, match="give a sequence from 0 to 3, an event that it shows, or"):
        session.watch(after=after)


def test_only_what_the_store_recorded_can_be_watched_after(store, memory):
    """An event of another store, or another session, is Refused."""
    (ours,) = store.session("trip").record("app.x")
    (theirs,) = memory.session("trip").record("app.x")
    for strange in (
        theirs,
        evstore.Event(9, 1, 0, "app.x", None, "", None, None, "trip", ours.uid),
        evstore.Event(1, 9, 0, "app.x", None, "", None, None, "trip", ours.uid),
        evstore.Event(1, 1, 0, "app.x", None, "", None, None, "trip", "no uid"),
    ):
        with pytest.raises(Refused, match="an event of this store"):
            store.watch(after=strange)
    for session in (store.session("trip"), store.session("unborn")):
        with pytest.raises(Refused, match="an event that it shows"):
            session.watch(after=theirs)


# A session.


def test_a_session_is_watched_through_its_shared_past(varied):
    """A watch of a fork gives what the fork shows, and resumes after any event of it."""
    fork, trip = varied.session("what-if"), varied.session("trip")
    events = list(fork.events())
    assert [1, 2, 3, 4, 5] == seqs(events)
    assert events == rest(fork.watch(after=0))
    for index, event in enumerate(events):
        assert events[index + 1 :] == rest(fork.watch(after=event))
        assert events[index + 1 :] == rest(fork.watch(after=event.seq))
    beyond = list(trip.events())[4]
    with pytest.raises(Refused, match="an event that it shows"):
        fork.watch(after=beyond)
    watch = fork.watch()
    trip.record("app.elsewhere")
    fork.record("app.here")
    assert ["app.here"] == [event.kind for event in rest(watch)]


@pytest.mark.parametrize("after", [None, 0])
def test_an_unborn_session_is_waited_for(store, after):
    """A session that is not born yet is watched from its birth on, by whatever handle."""
    watch = store.session("trip").watch(after=after)
    assert [] == watch.poll()
    with waiting(watch) as coming:
        store.session("other").record("app.x")
        assert [] == watch.poll(2 * PAUSE_S_MAX)
        (born,) = store.session("trip").record("app.born")
        assert born == coming.result(CHILD_S_MAX)


@pytest.mark.parametrize(("after", "expected"), [(None, [4]), (0, [1, 2, 3, 4])])
def test_of_a_fork_to_be_the_past_is_shown_on_demand(store, after, expected):
    """Of a fork that is born while it is watched, the shared past is shown after 0, not now."""
    watch = store.session("fork").watch(after=after)
    trip = store.session("trip")
    trip.variables.update(a=1, b=2, c=3)
    fork = trip.fork("fork")
    assert expected[:-1] == seqs(watch.poll())
    fork.record("app.own")
    assert expected[-1:] == seqs(watch.poll())


def test_a_watch_stays_with_a_life(store):
    """Ends and returns are events like others; what comes under the same id later is not shown."""
    unborn, trip = store.session("trip").watch(), store.session("trip")
    trip.record("app.first")
    bound = trip.watch(after=0)
    store.delete("trip")
    store.session("trip").record("app.other")
    store.delete("trip")
    found = bound.poll()
    store.restore(found[0].uid).record("app.last")
    expected = ["app.first", "session.deleted", "session.restored", "app.last"]
    assert expected == [event.kind for event in found + rest(bound)]
    assert expected == [event.kind for event in rest(unborn)]


def test_an_ended_life_is_watched_by_its_uid(store):
    """A life that is over is watched through a handle by uid; one by id is not found."""
    trip = store.session("trip")
    (first,) = trip.record("app.first")
    store.delete("trip")
    with pytest.raises(SessionNotFound):
        trip.watch()
    watch = store.session(uid=first.uid).watch(after=first)
    assert ["session.deleted"] == [event.kind for event in watch.poll()]
    store.restore(first.uid)
    assert ["session.restored"] == [event.kind for event in watch.poll()]


def test_expiry_is_an_event_of_the_old_life(path):
    """The record that a life has expired is shown with that life, not with the next."""
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with evstore.open(path, clock=lambda: now[0]) as store:
        old = store.session("trip", ttl=60)
        old.record("app.old")
        watching_old = old.watch()
        now[0] += timedelta(minutes=2)
        watching_new = store.session("trip").watch(after=0)
        assert [] == watching_new.poll()
        store.session("trip").record("app.new")
        assert ["session.expired"] == [event.kind for event in rest(watching_old)]
        assert ["app.new"] == [event.kind for event in rest(watching_new)]


def test_a_session_that_returns_is_watched_from_its_return(store):
    """Where an id has no life, the watch shows what is recorded from now on under it."""
    (first,) = store.session("trip").record("app.first")
    store.delete("trip")
    watch = store.session("trip").watch()
    store.restore(first.uid)
    assert ["session.restored"] == [event.kind for event in watch.poll()]


# Waiting, and how it ends.


def test_a_watch_waits_for_another_thread(store):
    """`next` returns the event that another thread records while it waits."""
    with waiting(store.watch()) as coming:
        (event,) = store.session("trip").record("app.x")
        assert event == coming.result(CHILD_S_MAX)


def test_poll_waits_no_longer_than_it_is_told(store):
    """`poll` returns what comes within its time, and nothing after it."""
    watch = store.watch()
    begun = time.monotonic()
    assert [] == watch.poll(0.1)
    assert 0.1 <= time.monotonic() - begun < CHILD_S_MAX
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(watch.poll, float("inf"))
        (event,) = store.session("trip").record("app.x")
        assert [event] == coming.result(CHILD_S_MAX)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(Refused, match="give 0 or more"):
            watch.poll(wrong)


def test_closing_a_watch_ends_it_quietly(store):
    """Closed from another thread, a watch has no next event; so has one that is left."""
    with waiting(store.watch()) as coming:
        pass
    assert coming.result(CHILD_S_MAX) is None
    with store.watch(after=0) as watch:
        store.session("trip").record("app.x")
    assert [] == list(watch)
    assert [] == watch.poll(CHILD_S_MAX)
    watch.close()


def test_closing_the_store_is_closed_to_its_watches(path):
    """Who waits in a handle that is closed gets Closed; watches of another handle go on."""
    with evstore.open(path) as other:
        store = evstore.open(path)
        with waiting(store.watch()) as closed, waiting(other.watch()) as coming:
            store.close()
            with pytest.raises(Closed):
                closed.result(CHILD_S_MAX)
            (event,) = other.session("trip").record("app.x")
            assert event == coming.result(CHILD_S_MAX)
        watch = other.watch()
    for use in (lambda: next(watch), watch.poll, other.watch):
        with pytest.raises(Closed):
            use()
    watch.close()
    assert comes_true(lambda: not poller_threads())


def test_a_damaged_store_does_not_let_anybody_wait(path):
    """Where the file cannot be read any more, those who wait for it learn why."""
    store = evstore.open(path)
    with waiting(store.watch()) as coming:
        with store.engine.database.writing("normal") as cursor:
            cursor.execute("alter table batch rename to lost")
        with pytest.raises(Corrupt):
            coming.result(CHILD_S_MAX)
    store.close()


def test_an_interrupt_reaches_who_waits(tmp_path):
    """Ctrl-C ends the wait for the next event."""
    code = """
import sys, evstore
with evstore.open(sys.argv[1]) as store:
    print("waits", flush=True)
    try:
        next(store.watch())
    except KeyboardInterrupt:
        raise SystemExit(7)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "store.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert b"waits\n" == child.stdout.readline()
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        assert 7 == child.wait(CHILD_S_MAX)


def test_a_store_in_memory_is_watched(memory):
    """A store without a file is watched like any other."""
    with waiting(memory.watch()) as coming:
        (event,) = memory.session("trip").record("app.x")
        assert event == coming.result(CHILD_S_MAX)


def test_a_long_write_in_memory_is_waited_for(memory, monkeypatch):
    """A write to a store in memory may take longer than a reader waits: its watchers go on."""
    monkeypatch.setattr("evstore.sqlite.database.WAIT_S", 0.01)
    with waiting(memory.watch()) as coming:
        with memory.engine.database.writing("full"):
            time.sleep(0.1)
        (event,) = memory.session("trip").record("app.x")
        assert event == coming.result(CHILD_S_MAX)


# The one who looks.


def test_one_thread_looks_for_all(store, path):
    """However many wait, in however many handles, one thread looks, and only while they wait."""
    assert comes_true(lambda: not poller_threads())
    with evstore.open(path, read_only=True) as reading:
        session = store.session("trip")
        watches = [watched.watch() for watched in [store, reading, session] * 10]
        with ThreadPoolExecutor(len(watches)) as threads:
            coming = [threads.submit(next, watch) for watch in watches]
            assert comes_true(lambda: len(watches) == len(store.engine._shared.poller._waiting))
            assert 1 == len(poller_threads())
            (event,) = session.record("app.x")
            assert {event} == {future.result(CHILD_S_MAX) for future in coming}
    assert comes_true(lambda: not poller_threads())
    assert [] == store.watch().poll()
    assert [] == poller_threads()


@pytest.mark.parametrize("place", ["store", "memory"])
def test_waiting_costs_next_to_nothing(request, place):
    """A hundred who wait for what does not come use a few percent of a core at the very most."""
    store = request.getfixturevalue(place)
    watches = [store.watch() for _ in range(100)]
    with ThreadPoolExecutor(len(watches)) as threads:
        coming = [threads.submit(next, watch, None) for watch in watches]
        assert comes_true(lambda: len(watches) == len(store.engine._shared.poller._waiting))
        used_s, begun = time.process_time(), time.monotonic()
        time.sleep(1)
        used_s, passed_s = time.process_time() - used_s, time.monotonic() - begun
        for watch in watches:
            watch.close()
        assert {None} == {future.result(CHILD_S_MAX) for future in coming}
    assert used_s < 0.05 * passed_s


@needs_fork
def test_a_watch_is_closed_in_a_forked_child(path):
    """In a forked child every inherited watch is Closed, whoever waits in the parent goes on."""
    with evstore.open(path) as store:
        session = store.session("trip")
        unused, half = store.watch(), store.watch(after=0)
        session.variables.update(a=1, b=2)
        assert 1 == next(half).seq
        with waiting(store.watch(after=store.engine.position())) as coming:

            def all_closed() -> None:
                for use in (lambda: next(unused), lambda: next(half), half.poll, store.watch):
                    with pytest.raises(Closed, match="parent process"):
                        use()
                half.close()
                store.close()

            assert forked(all_closed)
            (event,) = session.record("app.x")
            assert event == coming.result(CHILD_S_MAX)
        assert 2 == next(half).seq


@needs_fork
def test_a_child_may_watch_a_store_of_its_own(path):
    """A child that opens the store again watches what its parent writes."""
    with evstore.open(path, durability="normal") as store:
        session = store.session("trip")
        session.record("app.before")
        with waiting(store.watch()) as coming:

            def watch() -> None:
                with evstore.open(path, read_only=True) as own:
                    (event, *_) = own.watch(after=1).poll(CHILD_S_MAX)
                    assert "app.after" == event.kind

            child = threading.Timer(0.2, session.record, ("app.after",))
            child.start()
            assert forked(watch)
            child.join()
            assert "app.after" == coming.result(CHILD_S_MAX).kind


# Other processes.

WRITES = """
import random, sys, evstore
chance, left = random.Random(sys.argv[2]), int(sys.argv[3])
with evstore.open(sys.argv[1], durability="normal") as store:
    while left:
        size = min(left, chance.choice((1, 2, 5, 40, 300)))
        left -= size
        with store.transaction() as both:
            half = size // chance.choice((1, 2)) or size
            with_two = half < size
            names = chance.sample("abc", 2)
            batch = both.batch(store.session(names[0]), expect=evstore.ANY)
            for number in range(half):
                batch.record("app.x", number)
            if with_two:
                batch = both.batch(store.session(names[1]), expect=evstore.ANY)
                for number in range(size - half):
                    batch.record("app.y", number)
"""

# It writes down each event before it asks for the next, and goes on after the last one it finds.
WATCHES = """
import sys, evstore
with evstore.open(sys.argv[1], read_only=True) as store, open(sys.argv[2], "a") as notes:
    after = 0
    if len(sys.argv) > 3:
        seq, position, uid = sys.argv[3:]
        after = evstore.Event(int(seq), int(position), 0, "", None, "", None, None, None, uid)
    for event in store.watch(after=after):
        notes.write(f"{event.seq} {event.position} {event.uid}\\n")
        notes.flush()
"""


def noted(notes: Path, *, repair: bool = False) -> list[list[str]]:
    """What a watcher has written down; a line that was cut short does not count."""
    text = notes.read_bytes() if notes.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if repair:
        notes.write_bytes(whole)
    return [line.split() for line in whole.decode().splitlines()]


def test_a_watcher_that_is_killed_and_resumed_misses_nothing(tmp_path):
    """A watcher that is killed now and then sees what four processes write once, and in order."""
    path, notes, chance = tmp_path / "store.db", tmp_path / "notes", random.Random(7)
    evstore.open(path).close()
    writers = [started(WRITES, path, seed, EVENTS_EACH) for seed in range(WRITERS)]
    seen: list[list[str]] = []
    resumed = 0
    while len(seen) < WRITERS * EVENTS_EACH:
        watcher = started(WATCHES, path, notes, *(seen[-1] if seen else ()))
        wanted = min(len(seen) + chance.randrange(1, 3000), WRITERS * EVENTS_EACH)
        while len(seen) < wanted and watcher.poll() is None:
            time.sleep(0.002)
            seen = noted(notes)
        watcher.kill()
        assert -signal.SIGKILL == watcher.wait(CHILD_S_MAX)
        seen = noted(notes, repair=True)
        resumed += 1
    assert ended_well(*writers)
    with evstore.open(path) as store:
        events = [f"{e.seq} {e.position} {e.uid}".split() for e in rest(store.watch(after=0))]
    assert events == seen
    assert resumed > 1


def test_an_event_of_another_process_comes_at_once(path):
    """What another process records arrives within some hundredths of a second."""
    code = """
import sys, time, evstore
with evstore.open(sys.argv[1], durability="normal") as store:
    session = store.session("trip")
    for _ in range(20):
        time.sleep(0.05)
        session.record("app.x", time.monotonic())
"""
    with evstore.open(path) as store:
        watch = store.watch()
        writer = started(code, path)
        late_s = sorted(time.monotonic() - event.data for event in islice(watch, 20))
        assert ended_well(writer)
    assert late_s[10] < 0.05
    assert PAUSE_S_MAX < 0.02


def test_a_fork_that_wrote_nothing_is_watched_from_its_birth(path: Path):
    """A watch that waited for an id sees the expiry of the fork that took it."""
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with evstore.open(path, ttl=50, clock=lambda: now[0]) as store:
        trip = store.session("trip")
        trip.variables["city"] = "Rome"
        with store.session("what-if").watch() as watch:
            trip.fork("what-if")
            now[0] += timedelta(seconds=100)
            store.sweep()
            assert ["session.expired"] == [event.kind for event in watch.poll()]


def test_watching_is_no_use(path: Path):
    """To watch a session does not move its deadline, and so commits nothing."""
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    with evstore.open(path, ttl=100, clock=lambda: now[0]) as store:
        store.session("trip").variables["city"] = "Rome"
        (before,) = store.sessions()
        now[0] += timedelta(seconds=50)
        with store.session("trip").watch() as watch:
            assert [] == watch.poll()
        assert [before] == list(store.sessions())
