"""A session manager keeps the variables of many sessions: apart, atomic, bounded, expiring."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

import evstore
from evstore.agent import (
    NoPersistence,
    SavedSession,
    SessionManager,
    StorePersistence,
)
from evstore.errors import BadName, Closed, NotStorable, Refused, TooLarge, TooMany, Unavailable
from evstore.limits import Limits
from evstore.sqlite.recorded import Recorded
from evstore.sqlite.write import Draft
from tests.exports import exporting
from tests.test_agent_context import names, variables
from tests.test_deadlines import Clock
from tests.test_processes import ended_well, started
from tests.values_strategy import same, storable

fresh_ids = map("session-{}".format, count())
DAY = timedelta(hours=24)


class DictPersistence:
    """Sessions in a dict of plain dicts, as a user might write it."""

    def __init__(self) -> None:
        self.kept: dict[str, SavedSession] = {}
        self.broken = False
        self.saves = 0

    def save_session(self, session: SavedSession) -> None:
        if self.broken:
            raise OSError("the dict is broken")
        self.saves += 1
        self.kept[session.id] = session

    def load_session(self, session_id: str) -> SavedSession | None:
        return self.kept.get(session_id)

    def delete_session(self, session_id: str) -> None:
        self.kept.pop(session_id, None)

    def list_sessions(self) -> list[str]:
        return list(self.kept)


def given_path(folder: Path, **how: Any) -> SessionManager:
    return SessionManager(folder / "agents.db", **how)


def given_memory(_folder: Path, **how: Any) -> SessionManager:
    return SessionManager(**how)


def given_dict(_folder: Path, **how: Any) -> SessionManager:
    return SessionManager(DictPersistence(), **how)


def given_behind(folder: Path, **how: Any) -> SessionManager:
    return SessionManager(folder / "agents.db", write_behind=True, **how)


Make = Callable[..., SessionManager]
MAKERS: list[Make] = [given_path, given_memory, given_dict, given_behind]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def make(request, tmp_path: Path) -> Callable[..., SessionManager]:
    """What makes a manager on each kind of persistence in turn."""
    return lambda **how: request.param(tmp_path, **how)


@pytest.fixture
def manager(make) -> Iterator[SessionManager]:
    """A manager on each kind of persistence in turn."""
    with make() as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    """A clock that moves when it is told to."""
    return Clock()


# The document's own examples.


def test_v1_set_and_get_a_variable_of_a_session(manager: SessionManager):
    """Alice is set and got; what is unknown is a KeyError, or the default."""
    manager.set_variable("session-123", "user_name", "Alice")
    assert "Alice" == manager.get_variable("session-123", "user_name")
    with pytest.raises(KeyError, match="unknown"):
        manager.get_variable("session-123", "unknown")
    assert manager.get_variable("session-123", "unknown", None) is None
    with pytest.raises(KeyError):
        manager.get_variable("session-of-nobody", "user_name")


def test_v7_a_config_comes_back_as_it_was_set(manager: SessionManager):
    """Python sets a variable, and a later call reads it."""
    manager.set_variable("test-session", "config", {"temp": 0.7})
    result = manager.get_variable("test-session", "config")
    assert result == {"temp": 0.7}
    result["temp"] = 9
    assert {"temp": 0.7} == manager.get_variable("test-session", "config")


def test_v1_get_or_create_makes_a_session_once(manager: SessionManager):
    """A session has an id, the time of its birth, and variables that are read when asked for."""
    session = manager.get_or_create("session-123")
    assert ["session-123"] == manager.list_sessions()
    assert {} == dict(session.variables)
    manager.set_variables("session-123", {"b": 1, "a": 2})
    again = manager.get_or_create("session-123")
    assert session == again
    assert session.created_at == again.created_at
    assert {"a": 2, "b": 1} == dict(session.variables)
    assert 2 == len(session.variables)
    assert "c" not in session.variables


def test_v1_get_or_create_of_many_threads_makes_one_session(path: Path):
    """Threads that all want a new session get the same one, born once."""
    with evstore.open(path) as store, SessionManager(store) as manager:
        for number in range(20):
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(manager.get_or_create, [f"s{number}"] * 4))
            assert [found[0]] * 4 == found
            (event,) = store.session(f"s{number}").events()
            assert "app.agent.session.created" == event.kind


def test_v_all_verbs_work_on_every_persistence(manager: SessionManager):
    """Setting, listing, updating and deleting do the same whatever lies below."""
    manager.set_variables("a", {"cfg.x": 1, "cfg.y": 2, "z": None})
    assert {"cfg.x": 1, "cfg.y": 2, "z": None} == manager.get_all_variables("a")
    assert ["cfg.x", "cfg.y", "z"] == manager.list_variables("a")
    assert ["cfg.x", "cfg.y"] == manager.list_variables("a", "cfg.*")
    assert manager.get_variable("a", "z") is None
    manager.delete_variable("a", "z")
    manager.delete_variable("a", "z")
    manager.delete_variable("nobody", "z")
    assert not manager.has_variable("a", "z")
    assert manager.has_variable("a", "cfg.x")
    assert 11 == manager.update_variable("a", "cfg.x", lambda number: number + 10)
    assert [1] == manager.update_variable("b", "list", lambda seen: [*seen, 1], [])
    assert ["a", "b"] == manager.list_sessions()
    manager.delete_session("a")
    manager.delete_session("a")
    assert ["b"] == manager.list_sessions()
    assert {} == manager.get_all_variables("a")
    manager.set_variable("a", "new", True)
    assert {"new": True} == manager.get_all_variables("a")


def test_setting_no_variables_does_nothing(manager: SessionManager):
    """An empty set of variables brings no session into being."""
    manager.set_variables("a", {})
    manager.flush()
    assert [] == manager.list_sessions()


def test_v7_sessions_are_isolated(manager: SessionManager):
    """What is set in one session is in no other."""
    for number in range(20):
        manager.set_variables(f"s{number}", {"mine": number, f"own{number}": True})
    for number in range(20):
        expected = {"mine": number, f"own{number}": True}
        assert expected == manager.get_all_variables(f"s{number}")
        assert not manager.has_variable(f"s{number}", f"own{(number + 1) % 20}")


@pytest.fixture(scope="module", params=MAKERS, ids=lambda make: make.__name__)
def shared(request, tmp_path_factory) -> Iterator[SessionManager]:
    """A manager for many examples, a session each."""
    with request.param(tmp_path_factory.mktemp("manager")) as opened:
        yield opened


@given(given_variables=variables, name=names, before=storable, after=storable)
def test_v7_every_value_comes_back_through_a_manager(shared, given_variables, name, before, after):
    """Names and values of every kind come back the same, and the last of two holds."""
    session_id = next(fresh_ids)
    shared.set_variables(session_id, given_variables)
    kept = shared.get_all_variables(session_id)
    assert sorted(given_variables) == list(kept) == shared.list_variables(session_id)
    for each, value in given_variables.items():
        assert same(value, kept[each])
        assert same(value, shared.get_variable(session_id, each))
    for value in (before, after):
        shared.set_variable(session_id, name, value)
        assert same(value, shared.get_variable(session_id, name))
    shared.delete_variable(session_id, name)
    assert shared.get_variable(session_id, name, given_variables) is given_variables


def test_v8_gets_of_a_manager_are_measured(make):
    """Each get is measured by what it found, wherever the sessions are kept."""
    with exporting() as exports, make() as manager:
        manager.set_variable("a", "x", [1])
        for _ in range(3):
            assert [1] == manager.get_variable("a", "x")
        assert manager.get_variable("a", "y", None) is None
        points = exports.points("evstore.session.variable.get.duration")
        counts = {point.attributes["evstore.variable.found"]: point.count for point in points}
        assert {True: 3, False: 1} == counts
        (size,) = exports.points("evstore.session.variable.get.size")
        assert 3 * len("[1]") == size.sum


# Limits.


def test_v_what_is_too_large_or_too_many_is_refused_and_nothing_is_written(make):
    """Limits hold on every persistence, and their errors carry the numbers."""
    with make(limits=Limits(value_bytes_max=10, variables_max=2)) as manager:
        for error, name, value in (
            (TooLarge, "x", "a value that is too long"),
            (TooLarge, "n" * 600, 1),
            (NotStorable, "x", object()),
            (BadName, "\0", 1),
        ):
            with pytest.raises(error):
                manager.set_variables("a", {"fine": 1, name: value})
        with pytest.raises(BadName):
            manager.set_variable("a\n", "x", 1)
        with pytest.raises(BadName):
            manager.list_variables("")
        assert [] == manager.list_sessions()
        manager.set_variables("a", {"b": 1, "c": 2})
        with pytest.raises(TooMany):
            manager.set_variable("a", "d", 3)
            manager.flush()  # Written behind, it is refused once it is written.
        manager.delete_variable("a", "d")
        manager.set_variable("a", "b", 3)
        assert {"b": 3, "c": 2} == manager.get_all_variables("a")


def test_v_a_fallback_makes_unknown_types_storable(make):
    """What cannot be stored is given to the fallback."""
    with make(fallback=repr) as manager:
        manager.set_variable("a", "x", 1 + 2j)
        assert "(1+2j)" == manager.get_variable("a", "x")


# Expiry.


def test_v6_a_session_expires_after_a_day_without_use(make, clock: Clock):
    """A day after its last use a session is gone with its variables, and its id is free."""
    with make(clock=clock) as manager:
        manager.set_variable("a", "x", 1)
        manager.set_variable("b", "x", 2)
        manager.flush()
        for _ in range(3):
            clock.pass_by(timedelta(hours=23))
            assert 1 == manager.get_variable("a", "x")  # which renews the lease of this one
        assert not manager.has_variable("b", "x")
        assert ["a"] == manager.list_sessions()
        clock.pass_by(DAY)
        assert {} == manager.get_all_variables("a")
        assert manager.get_variable("a", "x", None) is None
        assert [] == manager.list_sessions()
        manager.set_variable("a", "y", 3)
        assert {"y": 3} == manager.get_all_variables("a")


def test_v6_expired_sessions_are_swept(make, clock: Clock):
    """A sweep cleans up what has expired, and says how many sessions that were."""
    with make(clock=clock, ttl=60) as manager:
        for number in range(5):
            manager.set_variable(f"s{number}", "x", number)
        manager.flush()
        clock.pass_by(timedelta(seconds=59))
        assert 0 == manager.sweep()
        manager.set_variable("s4", "x", 9)
        manager.flush()
        clock.pass_by(timedelta(seconds=2))
        assert 4 == manager.sweep()
        assert 0 == manager.sweep()
        assert {"x": 9} == manager.get_all_variables("s4")


def test_a_session_without_a_ttl_stays(make, clock: Clock):
    """ttl=None is no expiry."""
    with make(clock=clock, ttl=None) as manager:
        manager.set_variable("a", "x", 1)
        manager.flush()
        clock.pass_by(1000 * DAY)
        assert 1 == manager.get_variable("a", "x")
        assert 0 == manager.sweep()


@pytest.mark.parametrize("use", ["get_or_create", "delete_variable"])
def test_v6_a_session_that_is_used_in_any_way_does_not_expire(make, clock: Clock, use: str):
    """To ask for a session, or to delete what is not there, is a use that renews its lease."""
    with make(clock=clock) as manager:
        manager.set_variable("a", "x", 1)
        manager.flush()
        for _ in range(3):
            clock.pass_by(timedelta(hours=23))
            if use == "get_or_create":
                manager.get_or_create("a")
            else:
                manager.delete_variable("a", "none")
            manager.flush()
        assert 1 == manager.get_variable("a", "x")


def test_a_session_that_is_born_beside_a_deletion_expires(path: Path, monkeypatch):
    """A session that is deleted by others just before a write is born by that with a deadline."""
    with evstore.open(path) as store, SessionManager(store) as manager:
        manager.set_variable("a", "x", 1)
        append = store.engine.append

        def append_late(drafts: Sequence[Draft]) -> list[Recorded]:
            monkeypatch.undo()
            store.delete("a")
            return append(drafts)

        monkeypatch.setattr(store.engine, "append", append_late)
        manager.set_variable("a", "y", 2)
        assert {"y": 2} == manager.get_all_variables("a")
        assert store.session("a").expires_at is not None


def test_a_session_of_others_gets_no_deadline(path: Path, clock: Clock):
    """A manager of an open store gives its ttl to the sessions that are born through it alone."""
    with evstore.open(path, clock=clock) as store, SessionManager(store) as manager:
        theirs = store.session("theirs")
        theirs.messages.append({"role": "user", "content": "hi"})
        manager.set_variable("theirs", "x", 1)
        manager.set_variable("ours", "x", 2)
        assert theirs.expires_at is None
        assert clock.time + DAY == store.session("ours").expires_at
        clock.pass_by(2 * DAY)
        assert ["theirs"] == manager.list_sessions()


def test_the_sweep_runs_by_itself(path: Path, clock: Clock):
    """A thread sweeps at times, and ends with the manager."""
    before = {each for each in threading.enumerate() if each.name == "evstore-sweep"}
    with evstore.open(path, clock=clock) as store:
        with SessionManager(store, sweep_interval_s=0.01) as manager:
            manager.set_variable("a", "x", 1)
            position = store.engine.position()
            clock.pass_by(2 * DAY)
            swept = next(iter(store.watch(after=position)))
            assert "session.expired" == swept.kind
        assert before == {each for each in threading.enumerate() if each.name == "evstore-sweep"}


@pytest.mark.parametrize("interval_s", [0, -1, float("nan"), "60", None, True, DAY])
def test_an_interval_that_no_thread_can_wait_for_is_refused(path: Path, interval_s: Any):
    """The interval of the sweep is seconds, more than 0; else nothing is opened or started."""
    with pytest.raises(Refused, match=r"^sweep_interval_s=.*: give seconds, more than 0$"):
        SessionManager(path, sweep_interval_s=interval_s)
    assert not path.exists()


@pytest.mark.parametrize("interval_s", [1e10, float("inf")])
def test_an_interval_may_be_as_long_as_one_likes(interval_s: float):
    """The thread that sweeps waits for as long as a thread can."""
    with SessionManager(sweep_interval_s=interval_s) as manager:
        assert manager._sweeper.is_alive()


@pytest.mark.parametrize("ttl", [0, -5, "x", float("nan"), timedelta(0)])
def test_a_ttl_that_is_none_is_refused_at_once(make, ttl: Any):
    """A bad ttl is refused when the manager is made, wherever its sessions are kept."""
    with pytest.raises(Refused, match=r"^ttl="):
        make(ttl=ttl)
    with evstore.open(":memory:") as store, pytest.raises(Refused, match=r"^ttl="):
        SessionManager(store, ttl=ttl)


def test_the_sweep_survives_failures_and_logs_them(caplog):
    """A sweep that fails is logged without a value, and tried again."""

    class Failing(NoPersistence):
        def __init__(self) -> None:
            super().__init__()
            self.tries = threading.Semaphore(0)

        def list_sessions(self) -> list[str]:
            self.tries.release()
            raise Unavailable("the dict", "secret")

    failing = Failing()
    caplog.set_level(logging.WARNING, "evstore.agent")
    with SessionManager(failing, sweep_interval_s=0.01):
        for _ in range(3):
            assert failing.tries.acquire(timeout=30)
    assert "sweeping failed: Unavailable" in caplog.text
    assert "secret" not in caplog.text


def test_a_deadline_that_cannot_be_renewed_fails_no_read(clock: Clock, caplog):
    """A read whose renewal cannot be saved still reads."""
    below = DictPersistence()
    with SessionManager(below, clock=clock) as manager:
        manager.set_variable("a", "x", 1)
        clock.pass_by(timedelta(hours=20))
        below.broken = True
        assert 1 == manager.get_variable("a", "x")
    assert "a deadline was not renewed: OSError" in caplog.text


# At the same time.


def test_v1_updates_of_threads_are_not_lost(manager: SessionManager):
    """Eight threads add to one number and set names of their own: all is there."""

    def work(thread: int) -> None:
        for number in range(25):
            manager.update_variable("shared", "sum", lambda value: value + 1, 0)
            manager.set_variable("shared", f"name{thread}.{number}", number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    manager.flush()
    assert 200 == manager.get_variable("shared", "sum")
    assert 200 == len(manager.list_variables("shared", "name*"))


UPDATES = """
import sys
from evstore.agent import SessionManager
with SessionManager(sys.argv[1]) as manager:
    for number in range(60):
        manager.update_variable("shared", "sum", lambda value: value + 1, 0)
        manager.set_variable("shared", f"{sys.argv[2]}.{number}", number)
"""


def test_v1_updates_of_processes_are_not_lost(path: Path):
    """Three processes add to one number and set names of their own: all is there."""
    assert ended_well(*[started(UPDATES, path, f"name{number}") for number in range(3)])
    with SessionManager(path) as manager:
        assert 180 == manager.get_variable("shared", "sum")
        assert 180 == len(manager.list_variables("shared", "name*"))


def test_whoever_deletes_a_session_is_in_nobodys_way(path: Path):
    """Beside a thread that deletes the session again and again every step does what it says."""
    with SessionManager(path) as manager, SessionManager(path) as other:
        over = threading.Event()

        def delete_on() -> None:
            while not over.is_set():
                other.delete_session("a")
                manager.delete_session("a")

        with ThreadPoolExecutor(2) as pool:
            deletions = [pool.submit(delete_on) for _ in range(2)]
            try:
                for number in range(150):
                    assert "a" == manager.get_or_create("a").id
                    assert manager.update_variable("a", "n", lambda n: n + 1, 0) > 0
                    manager.set_variable("a", "x", number)
                    manager.delete_variable("a", "x")
            finally:
                over.set()
            for deletion in deletions:
                deletion.result()


def test_an_update_starts_from_the_default_where_the_session_was_deleted(path: Path):
    """A session that is deleted while a function runs does not come back with its old value."""
    with SessionManager(path) as manager:
        manager.set_variable("a", "n", 41)
        seen: list[int] = []

        def grow(value: int) -> int:
            if not seen:
                manager.delete_session("a")
                manager.set_variable("a", "n", 7)  # with the seq that it had
            seen.append(value)
            return value + 1

        assert 8 == manager.update_variable("a", "n", grow, 0)
        assert [41, 7] == seen


def test_an_update_within_an_update_goes_on(manager: SessionManager):
    """The function of an update may update something else."""
    assert 3 == manager.update_variable(
        "a", "x", lambda _: manager.update_variable("a", "y", lambda _: 2) + 1
    )
    assert {"x": 3, "y": 2} == manager.get_all_variables("a")


# Its life.


def test_each_change_is_one_event(path: Path):
    """A set is one event of the store, many are one batch, and a deletion of nothing is none."""
    with evstore.open(path) as store, SessionManager(store) as manager:
        manager.set_variable("a", "x", 1)
        manager.set_variables("a", {"y": 2, "z": 3})
        manager.delete_variable("a", "none")
        manager.delete_variable("a", "x")
        manager.update_variable("a", "y", lambda value: value + 1)
        found = [(event.kind, event.name) for event in store.session("a").events()]
        kinds = ["variable.set"] * 3 + ["variable.deleted", "variable.set"]
        assert list(zip(kinds, ["x", "y", "z", "x", "y"], strict=True)) == found


@pytest.mark.parametrize("given", [None, NoPersistence, DictPersistence])
def test_without_a_store_nothing_is_written_to_a_disk(given, tmp_path, monkeypatch):
    """By default sessions are kept in memory, and gone with the manager."""
    monkeypatch.chdir(tmp_path)
    with SessionManager(given and given()) as manager:
        manager.set_variable("a", "x", 1)
        assert 1 == manager.get_variable("a", "x")
    assert [] == list(tmp_path.iterdir())
    with SessionManager() as manager:
        assert [] == manager.list_sessions()


def test_a_closed_manager_refuses_and_leaves_a_given_store_open(path: Path):
    """Closing twice is fine, use is Closed, and a store that was given stays open."""
    with evstore.open(path) as store:
        manager = SessionManager(StorePersistence(store))
        manager.set_variable("a", "x", 1)
        manager.close()
        manager.close()
        for use in (
            lambda: manager.get_variable("a", "x"),
            lambda: manager.set_variable("a", "x", 1),
            manager.list_sessions,
            manager.flush,
            manager.sweep,
        ):
            with pytest.raises(Closed, match="the session manager is closed"):
                use()
        assert 1 == store.session("a").variables["x"]


def test_logs_hold_sizes_and_no_values(manager: SessionManager, caplog):
    """Operations are logged under evstore.agent, with sizes and without values or names."""
    caplog.set_level(logging.DEBUG, "evstore.agent")
    manager.set_variable("a", "password", "hunter2")
    manager.update_variable("a", "password", lambda value: value + "!")
    manager.delete_variable("a", "password")
    manager.delete_session("a")
    assert "set 1 variables" in caplog.text
    assert "deleted a variable" in caplog.text
    assert "hunter2" not in caplog.text
    assert "password" not in caplog.text


@given(given_variables=variables)
def test_a_user_written_persistence_gets_plain_dicts(given_variables):
    """What a persistence is given is whole sessions, whose variables it can have as a dict."""
    below = DictPersistence()
    with SessionManager(below) as manager:
        manager.get_or_create("a")
        manager.set_variables("a", given_variables)
    (saved,) = below.kept.values()
    assert "a" == saved.id
    kept = saved.variables.to_map()
    assert sorted(given_variables) == list(kept)
    assert all(same(given_variables[name], kept[name]) for name in kept)
