"""What a session manager has told survives: restarts, kills, other processes, failing disks."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from hypothesis import given

import evstore
from evstore import attempts
from evstore.agent import (
    NoPersistence,
    SavedSession,
    SessionManager,
    StorePersistence,
)
from evstore.agent import behind as behind_module
from evstore.errors import Closed, Conflict, ReadOnly, TooMany
from evstore.folding import VariableStore
from evstore.limits import Limits
from tests.test_agent_context import fresh_ids, variables
from tests.test_agent_manager import DictPersistence
from tests.test_deadlines import Clock
from tests.test_processes import forked, needs_fork
from tests.values_strategy import same

SETS = """
import sys
from evstore.agent import SessionManager
manager = SessionManager(sys.argv[1])
number = 0
while True:
    manager.set_variable(f"s{number % 5}", f"name{number}", {"number": number})
    print(number, flush=True)
    number += 1
"""


def test_v6_sessions_survive_a_restart(path: Path):
    """The document's example: what was set before a restart is got after it."""
    with SessionManager(path) as manager:
        manager.set_variable("session-123", "data", "value")
    with SessionManager(path) as manager:
        assert "value" == manager.get_variable("session-123", "data")
        assert ["session-123"] == manager.list_sessions()


@pytest.mark.parametrize("lines", [1, 40, 150])
def test_v6_what_was_told_survives_a_kill(path: Path, lines: int):
    """A process that is killed while it sets variables loses none that it has told."""
    command = [sys.executable, "-c", SETS, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    with SessionManager(path) as manager:
        for number in told:
            value = manager.get_variable(f"s{number % 5}", f"name{number}")
            assert {"number": number} == value


def test_a_persistence_carries_sessions_to_the_next_manager():
    """A persistence of a user's own gives back what the manager before has saved there."""
    below = DictPersistence()
    with SessionManager(below) as manager:
        manager.set_variables("a", {"x": 1, "y": [2]})
    with SessionManager(below, write_behind=True) as manager:
        assert {"x": 1, "y": [2]} == manager.get_all_variables("a")
        manager.set_variable("a", "z", 3)
    with SessionManager(below) as manager:
        assert {"x": 1, "y": [2], "z": 3} == manager.get_all_variables("a")


def test_a_failing_persistence_is_told_to_the_caller():
    """Without writing behind, what the persistence raises is raised by the call."""
    below = DictPersistence()
    with SessionManager(below) as manager:
        manager.set_variable("a", "x", 1)
        below.broken = True
        with pytest.raises(OSError, match="broken"):
            manager.set_variable("a", "x", 2)
        assert 1 == manager.get_variable("a", "x")


def test_a_persistence_that_is_empty_is_used():
    """A persistence with a length is used from its first session on, while it is still empty."""

    class Mapped(dict[str, SavedSession]):
        def save_session(self, session: SavedSession) -> None:
            self[session.id] = session

        def load_session(self, session_id: str) -> SavedSession | None:
            return self.get(session_id)

        def delete_session(self, session_id: str) -> None:
            self.pop(session_id, None)

        def list_sessions(self) -> list[str]:
            return list(self)

    below = Mapped()
    with SessionManager(below) as manager:
        manager.set_variable("a", "x", 1)
    assert {"x": 1} == below["a"].variables.to_map()


def test_a_session_that_cannot_be_read_is_in_nobodys_way(caplog):
    """Of a persistence that cannot read one session the others are listed and swept."""

    class Damaged(DictPersistence):
        def load_session(self, session_id: str) -> SavedSession | None:
            if session_id == "damaged":
                raise ValueError("it cannot be read")
            return super().load_session(session_id)

    below, clock = Damaged(), Clock()
    with SessionManager(below, clock=clock, ttl=60) as manager:
        for session_id in ("a", "damaged", "z"):
            below.kept[session_id] = SavedSession(session_id, clock(), clock())
        below.kept["b"] = SavedSession("b", clock())
        assert ["b", "damaged"] == manager.list_sessions()
        below.kept["a"] = SavedSession("a", clock(), clock())
        below.kept["z"] = SavedSession("z", clock(), clock())
        assert 2 == manager.sweep()
        assert ["b", "damaged"] == sorted(below.kept)
    assert "a session could not be read: ValueError" in caplog.text


def test_eight_times_the_variables_take_some_eight_times_as_long_to_set():
    """A session that is saved whole is not copied anew for each variable of a call."""

    def took_s(count: int) -> float:
        values = {f"name{number}": number for number in range(count)}
        with SessionManager(limits=Limits(variables_max=count)) as manager:
            started_s = time.perf_counter()
            manager.set_variables("a", values)
            return time.perf_counter() - started_s

    assert min(took_s(16_000) for _ in range(3)) < 24 * min(took_s(2_000) for _ in range(3))


# A store as a persistence.


@pytest.fixture(scope="module")
def shared() -> Iterator[evstore.Store]:
    """A store for many examples, a session each."""
    with evstore.open(":memory:") as store:
        yield store


@given(before=variables, after=variables)
def test_a_store_takes_and_gives_whole_sessions(shared, before, after):
    """What is saved in a store is loaded from it; only what differs is recorded."""
    kept, session_id = StorePersistence(shared, ttl=60), next(fresh_ids)
    assert kept.load_session(session_id) is None
    for given_variables in ({"first": 1}, before, after):
        whole = VariableStore()
        for name, value in given_variables.items():
            whole = whole.set(name, value)
        session = SavedSession(session_id, datetime.now(UTC), None, whole)
        kept.save_session(session)
        head = shared.session(session_id).head
        kept.save_session(session)
        assert head == shared.session(session_id).head
        loaded = kept.load_session(session_id)
        assert loaded is not None
        assert same_variables(given_variables, loaded.variables.to_map())
        assert loaded.created_at == shared.session(session_id).created_at
        assert loaded.expires_at is not None
        assert session_id in kept.list_sessions()
    kept.delete_session(session_id)
    kept.delete_session(session_id)
    assert [] == kept.list_sessions()


def test_a_store_without_a_ttl_gives_sessions_that_do_not_expire():
    """A session without a deadline is loaded as one."""
    with evstore.open(":memory:") as store:
        kept = StorePersistence(store)
        whole = VariableStore().set("x", 1)
        kept.save_session(SavedSession("a", datetime.now(UTC), None, whole))
        loaded = kept.load_session("a")
    assert loaded is not None
    assert loaded.expires_at is None


def same_variables(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Whether two sets of variables are alike, in whatever order."""
    return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)


def test_sessions_move_from_one_persistence_to_another(path: Path):
    """Whole sessions are carried from memory into a store by the four verbs alone."""
    memory = NoPersistence()
    with SessionManager(memory) as manager, evstore.open(path) as store:
        manager.set_variables("a", {"x": (1, 2)})
        manager.set_variables("b", {"y": b"3"})
        target = StorePersistence(store)
        for session_id in memory.list_sessions():
            session = memory.load_session(session_id)
            assert session is not None
            target.save_session(session)
        assert {"x": (1, 2)} == dict(store.session("a").variables)
        assert {"y": b"3"} == dict(store.session("b").variables)


# Writing behind.


class Gate(DictPersistence):
    """A persistence that saves when it is let to."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.reached = threading.Event()

    def save_session(self, session: SavedSession) -> None:
        self.reached.set()
        assert self.open.wait(60)
        super().save_session(session)


def test_v6_writing_behind_does_not_block_and_is_seen_at_once():
    """While the persistence hangs, sets return and are seen by reads; at the end all is kept."""
    below = Gate()
    with SessionManager(below, write_behind=True) as manager:
        manager.set_variable("a", "x", 0)
        assert below.reached.wait(60)
        for number in range(1, 1000):
            manager.set_variable("a", "x", number)
            assert number == manager.get_variable("a", "x")
        manager.set_variables("b", {"y": 1, "z": 2})
        assert 3 == manager.update_variable("b", "z", lambda value: value + 1)
        manager.delete_variable("b", "y")
        assert not manager.has_variable("b", "y")
        assert {} == below.kept
        below.open.set()
        manager.flush()
        assert {"x": 999} == below.kept["a"].variables.to_map()
        # The first of a thousand sets was under way; all others became one, and "b" is another.
        assert 3 == below.saves
    assert {"z": 3} == below.kept["b"].variables.to_map()


def test_what_waits_is_laid_over_what_is_below(path: Path):
    """Reads of all kinds join what waits with what the store holds; a deletion hides it."""
    with evstore.open(path) as store, SessionManager(store) as other:
        other.set_variables("a", {"kept": 1, "gone": 2, "changed": 3})
        store.session("only.messages").messages.append({"role": "user", "content": "hi"})
        with evstore.open(path, read_only=True) as reader:
            manager = SessionManager(reader, write_behind=True)
            manager.delete_variable("a", "gone")
            manager.set_variable("a", "changed", 4)
            manager.set_variable("new", "x", 5)
            manager.delete_variable("never", "x")
            assert {"changed": 4, "kept": 1} == manager.get_all_variables("a")
            assert ["changed", "kept"] == manager.list_variables("a")
            assert ["a", "new", "only.messages"] == manager.list_sessions()
            manager.close()
        assert {"changed": 3, "gone": 2, "kept": 1} == other.get_all_variables("a")


def test_v6_failures_of_writing_behind_are_logged_and_told_and_nothing_crashes(path, caplog):
    """A store that cannot be written to: sets go on, the failure is told, at the end as a loss."""
    told: Queue[tuple[str, Exception]] = Queue()
    evstore.open(path).close()
    with evstore.open(path, read_only=True) as store:
        manager = SessionManager(
            store, write_behind=True, on_failure=lambda *failure: told.put(failure)
        )
        manager.set_variable("a", "x", "secret")
        session_id, error = told.get(timeout=60)
        assert "a" == session_id
        assert isinstance(error, ReadOnly)
        assert "secret" == manager.get_variable("a", "x")
        with pytest.raises(ReadOnly):
            manager.flush()
        manager.close()
    assert "changes could not be written and wait: ReadOnly" in caplog.text
    assert "1 changes could not be written and are lost" in caplog.text
    assert "secret" not in caplog.text


def test_what_could_not_be_written_is_tried_again_until_it_can(path: Path, caplog):
    """A full session refuses a variable until another is deleted; then the one that waits goes."""
    failed = threading.Event()

    def complain(_session_id: str, _error: Exception) -> None:
        failed.set()
        raise RuntimeError("nobody listens")

    with evstore.open(path, limits=Limits(variables_max=1)) as store:
        with SessionManager(store, write_behind=True, on_failure=complain) as manager:
            manager.set_variable("a", "first", 1)
            manager.flush()
            manager.set_variable("a", "second", 2)
            assert failed.wait(60)
            store.session("a").variables.pop("first")
            with store.session("a").watch(after=0) as events:
                assert "second" == next(event.name for event in events if event.name == "second")
        assert {"second": 2} == dict(store.session("a").variables)
    assert "on_failure failed: RuntimeError" in caplog.text


def test_what_waits_is_bounded(monkeypatch):
    """Beyond so many changes that wait, a set is TooMany; to change one of them is not."""
    monkeypatch.setattr(behind_module, "PENDING_MAX", 3)
    below = Gate()
    with SessionManager(below, write_behind=True) as manager:
        manager.set_variables("a", {"x": 1, "y": 2, "z": 3})
        assert below.reached.wait(60)
        with pytest.raises(TooMany):
            manager.set_variable("b", "x", 4)
        manager.set_variable("a", "x", 5)
        below.open.set()
        manager.flush()
        manager.set_variable("b", "x", 6)
    assert {"x": 5, "y": 2, "z": 3} == below.kept["a"].variables.to_map()
    assert {"x": 6} == below.kept["b"].variables.to_map()


def test_a_deleted_session_is_not_brought_back_by_what_waited(path: Path):
    """Deleting a session drops its changes that wait."""
    with evstore.open(path) as store, SessionManager(store, write_behind=True) as manager:
        for number in range(50):
            manager.set_variable("a", "x", number)
            manager.delete_session("a")
            assert not manager.has_variable("a", "x")
        manager.flush()
        assert [] == manager.list_sessions()


def test_an_update_behind_runs_again_where_a_set_came_between():
    """An update whose function is overtaken by a set starts from what that has set."""
    with SessionManager(write_behind=True) as manager:
        seen = []

        def grow(value: int) -> int:
            seen.append(value)
            if len(seen) == 1:
                manager.set_variable("a", "x", 10)
            return value + 1

        assert 11 == manager.update_variable("a", "x", grow, 0)
        assert [0, 10] == seen


def test_an_update_behind_waits_for_no_other_session():
    """An update ends at its first attempt, whatever is set in other sessions meanwhile."""
    with SessionManager(write_behind=True) as manager:
        seen = []

        def grow(value: int) -> int:
            seen.append(value)
            if len(seen) < 50:
                manager.set_variable("another", "x", len(seen))
                manager.set_variable("a", "another", len(seen))
            return value + 1

        assert 1 == manager.update_variable("a", "x", grow, 0)
        assert [0] == seen


def test_an_update_behind_that_is_always_overtaken_is_told(monkeypatch):
    """Where others never pause an update is a Conflict, like one that does not write behind."""
    monkeypatch.setattr(attempts, "_PAUSE_S", 0)
    with SessionManager(write_behind=True) as manager:
        numbers = count()

        def overtaken(_value: int) -> int:
            manager.set_variable("a", "x", next(numbers))
            return -1

        with pytest.raises(Conflict, match="'x' in session 'a'"):
            manager.update_variable("a", "x", overtaken, 0)
        assert next(numbers) - 1 == manager.get_variable("a", "x")


@pytest.mark.parametrize("moment", ["before", "while"])
def test_an_update_behind_does_not_bring_back_a_deleted_session(moment: str):
    """An update that has read a session which is then deleted starts from the default."""
    deleting, go_on = threading.Event(), threading.Event()

    class Slow(StorePersistence):
        def delete_session(self, session_id: str) -> None:
            deleting.set()
            assert moment == "before" or go_on.wait(60)
            super().delete_session(session_id)

    with (
        evstore.open(":memory:") as store,
        SessionManager(Slow(store), write_behind=True) as manager,
    ):
        manager.set_variable("a", "x", 41)
        manager.flush()
        deletion = threading.Thread(target=manager.delete_session, args=("a",))
        seen = []

        def grow(value: int) -> int:
            seen.append(value)
            if len(seen) == 1:
                deletion.start()
                assert deleting.wait(60)
                if moment == "before":
                    deletion.join()
            elif len(seen) == 2:
                go_on.set()
            return value + 1

        assert 1 == manager.update_variable("a", "x", grow, 0)
        deletion.join()
        manager.flush()
        assert {"x": 1} == dict(store.session("a").variables)


def test_a_deletion_that_fails_drops_nothing_that_waits(caplog):
    """What waited for a session whose deletion failed is seen as before, and written later."""

    class Failing(DictPersistence):
        def delete_session(self, session_id: str) -> None:
            if self.broken:
                raise OSError("the dict is broken")
            super().delete_session(session_id)

    below = Failing()
    below.broken = True
    with SessionManager(below, write_behind=True) as manager:
        manager.set_variable("a", "x", 1)
        with pytest.raises(OSError, match="broken"):
            manager.delete_session("a")
        assert 1 == manager.get_variable("a", "x")
        below.broken = False
    assert {"x": 1} == below.kept["a"].variables.to_map()


def test_a_session_that_is_refused_holds_up_no_other(monkeypatch):
    """While a session that cannot be written pauses, the changes of others are written."""
    monkeypatch.setattr(behind_module, "PAUSE_S_MIN", 60.0)
    refused, fine = threading.Event(), threading.Semaphore(0)

    class Refusing(DictPersistence):
        def save_session(self, session: SavedSession) -> None:
            if session.id == "refused":
                raise OSError("no room")
            super().save_session(session)
            fine.release()

    below = Refusing()
    with SessionManager(below, write_behind=True, on_failure=lambda *_: refused.set()) as manager:
        manager.set_variable("refused", "x", 1)
        assert refused.wait(60)
        for number in range(10):
            manager.set_variable("fine", "x", number)
            assert fine.acquire(timeout=30)


def test_v6_a_close_that_was_interrupted_is_done_again():
    """Ctrl-C while a close waits for the persistence: the next one goes on, and nothing is lost."""
    below = Gate()
    manager = SessionManager(below, write_behind=True)
    manager.set_variable("a", "x", 1)
    assert below.reached.wait(60)
    manager.set_variable("a", "x", 2)
    manager.set_variable("b", "x", 3)
    main = threading.main_thread().ident or 0
    threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        manager.close()
    with pytest.raises(Closed):
        manager.set_variable("a", "x", 4)
    threading.Timer(0.2, below.open.set).start()
    manager.close()
    assert {"x": 2} == below.kept["a"].variables.to_map()
    assert {"x": 3} == below.kept["b"].variables.to_map()


def test_on_failure_may_close_the_manager(path: Path):
    """Where `on_failure` closes, what waits is tried once more; a close elsewhere ends it all."""
    closed = threading.Event()

    def close(_session_id: str, _error: Exception) -> None:
        manager.close()
        closed.set()

    manager = SessionManager(
        path, limits=Limits(variables_max=1), write_behind=True, on_failure=close
    )
    manager.set_variables("a", {"x": 1, "y": 2})
    assert closed.wait(60)
    with pytest.raises(Closed):
        manager.set_variable("b", "x", 3)
    manager.close()
    assert not path.with_name(path.name + "-wal").exists()


@needs_fork
def test_a_forked_child_never_waits_for_a_thread_of_its_parent(path: Path):
    """Whatever the parent writes at the fork, in the child all is Closed, and a close returns."""
    below = Gate()
    with SessionManager(below, write_behind=True) as behind, SessionManager(path) as direct:
        updating, go_on = threading.Event(), threading.Event()

        def slow(_value: int) -> int:
            updating.set()
            assert go_on.wait(60)
            return 1

        behind.set_variable("a", "x", 1)
        assert below.reached.wait(60)
        thread = threading.Thread(target=direct.update_variable, args=("a", "x", slow, 0))
        thread.start()
        assert updating.wait(60)

        def is_closed() -> None:
            signal.alarm(30)
            uses: list[Callable[[], object]] = [
                lambda: direct.update_variable("a", "x", slow),
                lambda: behind.get_variable("a", "x"),
                lambda: behind.delete_session("a"),
                behind.flush,
                behind.list_sessions,
            ]
            for use in uses:
                with pytest.raises(Closed):
                    use()
            behind.close()

        assert forked(is_closed)
        go_on.set()
        below.open.set()
        thread.join()
    assert {"x": 1} == below.kept["a"].variables.to_map()


@needs_fork
def test_a_forked_child_is_told_that_nobody_writes():
    """In a forked child there is no thread that writes behind: Closed."""
    with SessionManager(write_behind=True) as manager:
        manager.set_variable("a", "x", 1)
        manager.flush()

        def is_closed() -> None:
            with pytest.raises(Closed, match="nothing writes"):
                manager.set_variable("a", "x", 2)

        assert forked(is_closed)
        manager.set_variable("a", "x", 3)
        manager.flush()
        assert 3 == manager.get_variable("a", "x")


def test_what_was_written_behind_is_on_disk_after_flush_and_close(path: Path):
    """Flush puts all that waited into the store, as one batch for each session."""
    with evstore.open(path) as store:
        with SessionManager(store, write_behind=True) as manager:
            for number in range(100):
                manager.set_variable(f"s{number % 3}", f"name{number}", number)
            manager.flush()
            kept = {
                name: n for s in range(3) for name, n in store.session(f"s{s}").variables.items()
            }
            assert {f"name{number}": number for number in range(100)} == kept
            manager.set_variable("s0", "last", True)
        assert store.session("s0").variables["last"] is True
