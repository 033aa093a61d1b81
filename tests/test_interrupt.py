"""Interruptions: Ctrl-C between any two calls leaves the store whole, and everybody else unharmed.

Python lets a signal in where a call begins or returns, and nowhere else. So a KeyboardInterrupt is
raised at each of those places in turn.
"""

import inspect
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import evstore
from evstore import replay
from evstore.errors import Busy, Closed, Conflict

HELLO = {"role": "user", "content": "hello"}
SOON_S = 10


def ctrl_c() -> None:
    """What Ctrl-C does."""
    raise KeyboardInterrupt


def is_interrupted(act: Callable[[], Any], at: int, handler: Callable[[], None] = ctrl_c) -> bool:
    """Act, with a signal at a place given by its number; tell whether it came so far."""
    came = False
    places = itertools.count(1)

    def interrupt(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal came
        # Where a generator yields, the place is where `next` returns.
        yields = event == "return" and frame.f_code.co_flags & inspect.CO_GENERATOR
        if event != "c_call" and not yields and next(places) == at:
            sys.setprofile(None)
            came = True
            handler()

    try:
        sys.setprofile(interrupt)
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return came


def interrupted_everywhere(
    act: Callable[[], Any], handler: Callable[[], None] = ctrl_c
) -> Iterator[int]:
    """Act again and again, interrupted at one place after the other."""
    for at in itertools.count(1):
        came = is_interrupted(act, at, handler)
        yield at
        if not came:
            return


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    """Another thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.mark.parametrize("target", ["store.db", ":memory:"])
@pytest.mark.parametrize("durability", ["full", "normal"])
def test_an_interrupted_write_is_whole_or_not_there(tmp_path, other, target, durability):
    """After it others can write, and the session has all of the batch or nothing."""
    path = tmp_path / target if target == "store.db" else target
    with evstore.open(path, durability=durability) as store:
        trip = store.session("trip")

        def say() -> None:
            with trip.batch() as batch:
                batch.messages.extend([HELLO, HELLO])
                batch.variables["turn"] = 1

        say()
        for at in interrupted_everywhere(say):
            assert 0 == trip.head % 3, at
            other.submit(say).result(SOON_S)
        assert at > 100
        assert [] == list(replay.verify(store, level="full"))


@pytest.mark.parametrize("commit", ["fork", "touch", "flush"])
def test_an_interrupted_step_of_another_kind_holds_nothing(tmp_path, other, commit):
    """What does not go through a group lets the lock go as well."""
    with evstore.open(tmp_path / "store.db") as store:
        trip = store.session("trip", ttl=1000)
        trip.messages.append(HELLO)
        numbers = itertools.count()
        acts = {
            "fork": lambda: trip.fork(f"fork-{next(numbers)}"),
            "touch": trip.touch,
            "flush": store.flush,
        }
        for _ in interrupted_everywhere(acts[commit]):
            other.submit(trip.messages.append, HELLO).result(SOON_S)
        assert [] == list(replay.verify(store, level="full"))


@pytest.mark.parametrize("target", ["store.db", ":memory:"])
def test_an_interrupted_read_holds_nothing(tmp_path, other, target):
    """Others can write, no reader stays in an old moment, and the process can be forked."""
    path = tmp_path / target if target == "store.db" else target
    with evstore.open(path) as store:
        trip = store.session("trip")
        trip.variables["x"] = {"long": "x" * 1000}
        trip.messages.append(HELLO)

        def look() -> None:
            assert 1 == len(trip.messages)
            assert {"long": "x" * 1000} == trip.variables["x"]

        for _ in interrupted_everywhere(look):
            other.submit(trip.variables.set, "y", 1).result(SOON_S)
        readers = store.engine.database.readers
        readers.rest(time.monotonic() + SOON_S)
        assert readers.resting is not None
        assert not any(cursor.connection.in_transaction for cursor in readers.resting)
        readers.go_on()


def test_an_interrupted_leader_harms_nobody(path: Path, other: ThreadPoolExecutor):
    """Whoever was taken along is told what came of it, whatever place the leader had come to."""
    with evstore.open(path, durability="normal") as store:
        group, database = store.engine.group, store.engine.database
        trip = store.session("trip")

        def lead() -> None:
            trip.variables.set("seat", "leader", expect=before)

        def follow() -> None:
            while group._leader is None and not over.is_set():
                time.sleep(0.0001)
            trip.variables.set("seat", "follower", expect=before)

        def hold_until_both_wait() -> None:
            cursor = database.begin("normal", SOON_S, time.monotonic())
            held.set()
            while not (group._waiting or over.is_set()):
                time.sleep(0.0001)
            database.finish(cursor)

        with ThreadPoolExecutor(1) as third:
            for at in itertools.count(1):
                trip.variables["seat"] = None
                held, over, before = threading.Event(), threading.Event(), trip.head
                holding = third.submit(hold_until_both_wait)
                held.wait(SOON_S)
                following = other.submit(follow)
                came = is_interrupted(lead, at)
                over.set()
                error = following.exception(SOON_S)
                holding.result(SOON_S)
                assert error is None or type(error) is Conflict, at
                assert trip.variables["seat"] == ("leader" if error else "follower"), at
                assert before + 1 == trip.head, at
                if not came:
                    break
        assert at > 100
        assert [] == list(replay.verify(store, level="full"))


def test_a_closed_store_is_one_file_while_others_read(path: Path, other: ThreadPoolExecutor):
    """A read under way is told that the store is closed, and the log is in the file."""
    store = evstore.open(path)
    store.session("trip").messages.extend([HELLO] * 100)
    begun = threading.Event()

    def read() -> None:
        with store.engine.database.snapshot() as cursor:
            begun.set()
            cursor.execute(
                "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
            ).fetchall()

    reading = other.submit(read)
    begun.wait(SOON_S)
    store.close()
    assert [path.name] == os.listdir(path.parent)
    assert Closed is type(reading.exception(SOON_S))
    with evstore.open(path) as again:
        assert 100 == len(again.session("trip").messages)


def test_a_signal_handler_that_writes_waits_for_nobody(
    path: Path, other: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
):
    """In the middle of a write of its own thread it writes, or is told at once that it is busy."""
    monkeypatch.setattr("evstore.sqlite.database.WAIT_S", 5.0)
    with evstore.open(path, durability="normal") as store:
        trip, goodbye = store.session("trip"), store.session("goodbye")
        told = {"written": 0, "busy": 0}

        def say() -> None:
            trip.messages.append(HELLO)

        def handler() -> None:
            since_s = time.monotonic()
            try:
                goodbye.record("app.goodbye", 1)
                told["written"] += 1
            except Busy:
                told["busy"] += 1
            assert time.monotonic() - since_s < 1

        say()
        for at in interrupted_everywhere(say, handler):
            assert at + 1 == len(trip.messages)
        assert 0 < told["busy"]
        assert 0 < told["written"] == goodbye.head
        other.submit(say).result(SOON_S)
        assert [] == list(replay.verify(store, level="full"))


@pytest.mark.skipif(os.name == "nt", reason="there a signal ends the process")
def test_a_signal_handler_that_writes_while_its_thread_waits_is_busy(
    path: Path, other: ThreadPoolExecutor
):
    """Behind a write of its own thread it would wait for ever; that one goes on."""
    with evstore.open(path, durability="normal") as store:
        trip, database = store.session("trip"), store.engine.database
        trip.messages.append(HELLO)
        leading, signalled = threading.Event(), threading.Event()
        waited_s: list[float] = []

        def lead(_cursor: Any) -> None:
            leading.set()
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            signalled.wait(SOON_S)

        def handler(*_: Any) -> None:
            since_s = time.monotonic()
            with pytest.raises(Busy):
                trip.record("app.goodbye", 1)
            waited_s.append(time.monotonic() - since_s)
            signalled.set()

        before = signal.signal(signal.SIGTERM, handler)
        try:
            led = other.submit(database.commit, lead, "normal")
            assert leading.wait(SOON_S)
            trip.messages.append(HELLO)
        finally:
            signal.signal(signal.SIGTERM, before)
        led.result(SOON_S)
        assert 1 == len(waited_s)
        assert waited_s[0] < 1
        assert 2 == trip.head
