"""The cache of a session manager is never stale, whoever writes, and never larger than allowed."""

import gc
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore.agent import SessionManager
from evstore.agent.cache import SESSION_BYTES, Reading, VariableCache
from evstore.agent.recorded import RecordedSessions
from evstore.deadlines import Lease
from tests.test_deadlines import Clock
from tools.bench import child

ROUNDS = 400
WRITES = """
import sys, evstore
from evstore.agent import SessionManager
with evstore.open(sys.argv[1]) as store, SessionManager(store) as manager:
    for line in sys.stdin:
        verb, value = line.split()
        if verb == "set":
            manager.set_variables("shared", {"x": value, "y": value})
        elif verb == "delete":
            manager.delete_variable("shared", "x")
        elif verb == "end":
            manager.delete_session("shared")
        else:
            manager.set_variable("another", "x", value)
        kept = dict(store.session("shared").variables)  # without any cache
        print(*[kept.get(name, "absent") for name in "xy"], flush=True)
"""
MIB = 1 << 20


def cache_of(manager: SessionManager) -> VariableCache:
    sessions = manager._sessions
    assert isinstance(sessions, RecordedSessions)
    return sessions.cache


@pytest.mark.parametrize("threads", [1, 4])
def test_a_read_after_a_write_of_another_process_is_never_stale(path: Path, threads: int):
    """Two processes take turns: each reads what the other has just been told is written."""
    command = [sys.executable, "-c", WRITES, str(path)]
    over = threading.Event()

    def read_on() -> None:
        while not over.is_set():
            manager.get_variable("shared", "x", None)

    with (
        SessionManager(path) as manager,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other,
    ):
        readers = [threading.Thread(target=read_on) for _ in range(threads - 1)]
        for reader in readers:
            reader.start()
        assert other.stdin is not None
        assert other.stdout is not None
        for number in range(ROUNDS // threads):
            verb = ("set", "set", "elsewhere", "delete", "set", "end")[number % 6]
            other.stdin.write(f"{verb} {number}\n")
            other.stdin.flush()
            told = other.stdout.readline().split()
            for _ in range(3):  # The first fills the cache, and the others are answered by it.
                found = [manager.get_variable("shared", name, "absent") for name in "xy"]
                assert told == found, (number, verb)
            if number % 3 == 0:
                manager.set_variable("shared", "x", f"mine{number}")
                assert f"mine{number}" == manager.get_variable("shared", "x")
        over.set()
        for reader in readers:
            reader.join()
        other.stdin.close()


def test_a_hot_variable_is_read_from_the_cache(path: Path, monkeypatch):
    """As long as nobody commits, a variable is read from the file once; after any commit, again."""
    with evstore.open(path) as store, SessionManager(store) as manager:
        manager.set_variable("a", "x", [1])
        manager.set_variable("b", "x", [2])
        looks: list[str] = []
        moment = store.engine.moment

        def looked(session_id: str) -> object:
            looks.append(session_id)
            return moment(session_id)

        monkeypatch.setattr(store.engine, "moment", looked)
        for _ in range(3):
            assert [1] == manager.get_variable("a", "x")
            assert not manager.has_variable("a", "none")
        assert ["a", "a"] == looks
        store.session("b").messages.append({"role": "user", "content": "hi"})
        assert [1] == manager.get_variable("a", "x")
        assert not manager.has_variable("a", "none")
        assert ["a"] * 3 == looks  # One look finds that the session is as it was.


def test_a_store_in_memory_is_never_stale_either():
    """Where one connection does all, its own changes count as those of others do."""
    with evstore.open(":memory:") as store, SessionManager(store) as manager:
        for number in range(20):
            store.session("a").variables["x"] = number
            assert number == manager.get_variable("a", "x") == manager.get_variable("a", "x")
        store.delete("a")
        assert manager.get_variable("a", "x", None) is None


def test_a_value_with_a_deadline_of_its_own_is_not_kept_beyond_it(path: Path):
    """A variable that others gave a deadline is absent from then on, cache or not."""
    clock = Clock()
    with evstore.open(path, clock=clock) as store, SessionManager(store) as manager:
        store.session("a").variables.set("x", 1, ttl=60)
        assert 1 == manager.get_variable("a", "x") == manager.get_variable("a", "x")
        clock.pass_by(timedelta(seconds=60))
        assert manager.get_variable("a", "x", None) is None


def test_a_cached_session_expires_and_its_lease_is_renewed(path: Path):
    """The cache neither outlives a deadline nor keeps a session that is in use from renewing it."""
    clock = Clock()
    with evstore.open(path, clock=clock) as store, SessionManager(store, ttl=3600) as manager:
        manager.set_variable("a", "x", 1)
        for _ in range(100):
            clock.pass_by(timedelta(minutes=10))
            for _ in range(3):  # The last of them is answered by the cache.
                assert 1 == manager.get_variable("a", "x")
        assert store.session("a").expires_at == clock.time + timedelta(hours=1)
        clock.pass_by(timedelta(hours=1))
        assert manager.get_variable("a", "x", None) is None


def test_the_cache_holds_the_hottest_sessions_within_its_bound(path: Path):
    """What is kept stays within the bytes allowed, and what was used last is kept."""
    with (
        evstore.open(path, durability="normal") as store,
        SessionManager(store, cache_bytes_max=200_000) as manager,
    ):
        cache = cache_of(manager)
        for number in range(300):
            manager.set_variable(f"s{number}", "x", "y" * 1000)
        for number in range(300):
            manager.get_variable(f"s{number}", "x")
            manager.get_variable("s0", "x")
            assert cache.size_bytes <= 200_000
        assert 200_000 // 3000 < len(cache) < 300
        since = store.engine.unchanged_since()
        now_us = store.engine.clock()
        assert cache.find("s0", "x", since, now_us) is not None
        assert cache.find("s1", "x", since, now_us) is None


def test_a_cache_without_room_keeps_nothing(path: Path):
    """With no bytes allowed every read goes to the file."""
    with SessionManager(path, cache_bytes_max=0) as manager:
        manager.set_variable("a", "x", 1)
        assert 1 == manager.get_variable("a", "x")
        assert 0 == len(cache_of(manager)) == cache_of(manager).size_bytes


readings = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["x", "y", "z"]),
    st.integers(1, 5),  # when it was read
    st.integers(1, 2),  # of which life
)


def reading_of(name: str, stamp_ns: int, life: int) -> Reading:
    """What is read of a variable: in one life at one head, always the same."""
    return Reading(stamp_ns, life, life * 10, None, None if name == "z" else name * 100 * life)


@given(steps=st.lists(readings, max_size=30), room=st.sampled_from([0, 1000, 2000, 1 << 20]))
def test_the_cache_knows_what_was_read_and_nothing_older_than_asked_for(steps, room):
    """Readings may come in any order: what is found is as new as it says, and counted once."""
    cache = VariableCache(room)
    newest: dict[str, int] = {}
    for session_id, name, stamp_ns, life in steps:
        cache.keep(session_id, name, reading_of(name, stamp_ns, life))
        newest[session_id] = max(stamp_ns, newest.get(session_id, 0))
        if room == 1 << 20 and stamp_ns == newest[session_id]:
            assert reading_of(name, stamp_ns, life) == cache.find(session_id, name, stamp_ns, 0)
        for known, since_ns in (("x", 1), ("y", 3), ("z", 5), (name, newest[session_id] + 1)):
            found = cache.find(session_id, known, since_ns, 0)
            assert found is None or found.stamp_ns >= since_ns
            assert found is None or found.text == reading_of(known, 0, found.life or 0).text
        assert len(cache) * SESSION_BYTES <= cache.size_bytes <= room
        assert (len(cache) == 0) == (cache.size_bytes == 0)


def test_what_the_cache_counts_is_what_it_takes():
    """The bytes that are counted are those that Python allocates, give or take a quarter."""
    for names in (1, 4, 40):
        cache = VariableCache(1 << 30)
        gc.collect()
        tracemalloc.start()
        for number in range(4000 // names):
            for name in range(names):
                lease = Lease(10**15 + number, 10**10 + number)
                reading = Reading(time.monotonic_ns(), 1000 + number, 5, lease, f'"text {name}"')
                cache.keep(f"session-{number}", f"name-{name}", reading)
        gc.collect()
        taken_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0.75 <= cache.size_bytes / taken_bytes <= 1.25


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a child is read from /proc")
def test_the_memory_of_a_manager_stays_bounded(tmp_path: Path):
    """Eight thousand sessions with 250 MiB of variables go through a process of 200 MiB."""
    found = child.run(
        "manage_all", path=str(tmp_path / "many.db"), sessions=8000, value_bytes=32 << 10
    )
    assert found["read_bytes"] == 8000 * (32 << 10)
    assert 64 * MIB < found["peak_bytes"] < 200 * MIB
