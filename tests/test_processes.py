"""Processes and threads share a file: nothing is lost, seen by halves, or disturbed."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

import evstore
from evstore.errors import Busy, Closed, ReadOnly, Unavailable
from evstore.sqlite import connect, database
from tests.crash.audit import all_batches, audit

CHILD_S_MAX = 60
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

APPENDS = """
import sys, evstore
with evstore.open(sys.argv[1], actor=sys.argv[2]) as store:
    session = store.session("shared")
    for number in range(500):
        session.variables[f"name{number % 7}"] = number
"""

# Every batch sets both names to its own head, and adds two messages.
PAIRS = """
import sys, evstore
with evstore.open(sys.argv[1], durability="normal") as store:
    session = store.session("pairs")
    for number in range(300):
        with session.batch() as batch:
            batch.variables["left"] = batch.seq
            batch.messages.append({"role": "user", "content": str(number)})
            batch.variables["right"] = batch.seq
            batch.messages.append({"role": "user", "content": str(number)})
"""

READS = """
import sys, time, evstore
end = time.monotonic() + 60  # whoever writes may have been killed
with evstore.open(sys.argv[1], read_only=True) as store:
    session, seen, position = store.session("pairs"), 0, 0
    while seen < 1200:
        assert time.monotonic() < end
        view = session.view()
        assert view.seq >= seen and view.seq % 4 == 0, view.seq
        seen = view.seq
        if seen:
            assert view.variables["left"] == view.variables["right"] == seen - 4
            assert len(view.messages) == seen // 2
            assert view.messages[-1] == view.messages[-2]
        assert all(len(batch.entries) == 4 for batch in store.engine.changes(position))
        position = seen // 4
"""

# They meet where a file is created, and where the last one closes it.
OPENS = """
import sys, evstore
sys.stdin.readline()
for number in range(60):
    with evstore.open(f"{sys.argv[1]}/{number}.db") as store:
        store.session("shared").messages.append({"role": "user"})
"""


def started(code: str, *arguments: object) -> "subprocess.Popen[bytes]":
    """A Python process that runs some code."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])


def ended_well(*processes: "subprocess.Popen[bytes]") -> bool:
    """Whether all processes succeed."""
    return [0] * len(processes) == [process.wait(CHILD_S_MAX) for process in processes]


def forked(work: Callable[[], None], *, leave: Callable[[], None] = lambda: os._exit(0)) -> bool:
    """Whether some work succeeds in a forked child, which then leaves in one way or another."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child must not go on as a second test run
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        leave()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def test_four_processes_write_one_session_without_a_gap(tmp_path):
    """Four processes append 500 events each to one session: seq and position have no gap."""
    path = tmp_path / "store.db"
    assert ended_well(*[started(APPENDS, path, f"writer{number}") for number in range(4)])
    with evstore.open(path) as store:
        events = list(store.session("shared").events())
        audit(store)
    assert list(range(1, 2001)) == [event.seq for event in events]
    assert list(range(1, 2001)) == [event.position for event in events]
    for number in range(4):
        written = [event.data["value"] for event in events if event.actor == f"writer{number}"]
        assert list(range(500)) == written


def test_processes_open_and_close_new_files_at_the_same_time(tmp_path):
    """Whoever comes first creates a file, and whoever closes last folds it: none is refused."""
    command = [sys.executable, "-c", OPENS, str(tmp_path)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(6)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert ended_well(*processes)
    for path in tmp_path.glob("*.db"):
        with evstore.open(path) as store:
            assert 6 == len(store.session("shared").messages)
    assert 60 == len(list(tmp_path.iterdir()))


def test_readers_in_other_processes_see_whole_batches(tmp_path):
    """A reader never sees a part of a batch, nor runs back, while another process writes."""
    path = tmp_path / "store.db"
    evstore.open(path).close()
    readers = [started(READS, path) for _ in range(2)]
    assert ended_well(started(PAIRS, path), *readers)


@needs_fork
def test_handles_are_closed_in_a_forked_child(tmp_path):
    """In a forked child every kind of handle is Closed; closing them there is harmless."""
    store = evstore.open(tmp_path / "store.db")
    session = store.session("a")
    session.messages.append({"role": "user", "content": "before"})
    view, batch = session.view(), session.batch()
    uses: list[Callable[[], object]] = [
        lambda: store.session("a").variables.get("x"),
        lambda: store.session("b", create=False),
        lambda: list(store.sessions()),
        lambda: "a" in store,
        lambda: store.delete("a"),
        store.stats,
        store.flush,
        lambda: session.head,
        lambda: session.variables.update(x=1),
        lambda: session.fork("b"),
        lambda: list(session.events()),
        lambda: list(view.messages),
        lambda: list(view.events()),
        lambda: batch.__enter__().variables.get("x"),
    ]

    def all_closed() -> None:
        for use in uses:
            with pytest.raises(Closed, match="parent process"):
                use()
        store.close()

    assert forked(all_closed)
    session.messages.append({"role": "user", "content": "after"})
    assert ["before", "after"] == [message["content"] for message in session.messages]
    assert [1, 2] == [batch.position for batch in audit(store)]
    store.close()


@needs_fork
@pytest.mark.parametrize("leave", [lambda: os._exit(0), sys.exit], ids=["_exit", "exit"])
def test_the_end_of_a_forked_child_disturbs_nothing(tmp_path, leave):
    """After a child has left, in a hurry or in order, the parent holds its locks and its log."""
    code = """
import os, sys, evstore, apsw
path, way = sys.argv[1:]
store = evstore.open(path)
session = store.session("a")
session.variables["x"] = 1
child = os.fork()
if child == 0:
    os._exit(0) if way == "hurry" else sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.path.exists(path + "-wal") and os.path.exists(path + "-shm")
locks = [line for line in open("/proc/locks") if f":{os.stat(path).st_ino} " in line]
assert any(line.split()[4] == str(os.getpid()) for line in locks), locks
session.variables["x"] = 2
import subprocess
other = "import sys, evstore; evstore.open(sys.argv[1]).session('a').variables['y'] = 3"
subprocess.run([sys.executable, "-c", other, path], check=True)
session.variables["x"] = 4
assert dict(session.variables) == {"x": 4, "y": 3}
"""
    if not Path("/proc/locks").exists():
        pytest.skip("this system does not show its locks")
    way = "order" if leave is sys.exit else "hurry"
    path = tmp_path / "store.db"
    assert ended_well(started(code, path, way))
    with evstore.open(path) as store:
        assert [1, 2, 3, 4] == [batch.position for batch in audit(store)]


@needs_fork
def test_a_forked_child_opens_the_store_anew(tmp_path):
    """A child that opens the same file for itself writes to it beside its parent."""
    store = evstore.open(tmp_path / "store.db")
    session = store.session("a")
    session.variables["parent"] = 1

    def write() -> None:
        with evstore.open(tmp_path / "store.db") as own:
            own.session("a").variables["child"] = 2
            assert {"child": 2, "parent": 1} == dict(own.session("a").variables)

    assert forked(write)
    session.variables["parent"] = 3
    assert {"child": 2, "parent": 3} == dict(session.variables)
    assert 3 == len(audit(store))
    store.close()


@needs_fork
def test_a_child_forked_while_a_reader_is_opened_leaves_the_file_alone(tmp_path, monkeypatch):
    """What was half opened may hold locks of the parent: the child does not touch the file."""
    monkeypatch.setattr(database, "STILL_S", 0.05)
    store = evstore.open(tmp_path / "store.db")
    store.session("a").variables["x"] = 1
    opening, opened = threading.Event(), threading.Event()

    def slow(*arguments, **named):
        opening.set()
        opened.wait(10)
        return connect.open_reader(*arguments, **named)

    def child() -> None:
        with pytest.raises(Unavailable, match="while the store was in use"):
            evstore.open(tmp_path / "store.db")

    monkeypatch.setattr("evstore.sqlite.readers.open_reader", slow)
    reading = threading.Thread(target=store.session("a").view)
    reading.start()
    opening.wait(10)
    try:
        assert forked(child)
    finally:
        opened.set()
        reading.join()
    assert {"x": 1} == dict(store.session("a").variables)
    store.close()


@needs_fork
def test_a_child_forked_beside_a_thread_that_reads_opens_the_store_anew(tmp_path):
    """Who reads without a pause lets the process fork, and the child may open the store again."""
    store = evstore.open(tmp_path / "store.db")
    session = store.session("a")
    session.messages.extend([{"role": "user"}] * 50)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            assert 3 == len(session.messages[-3:])

    def child() -> None:
        with evstore.open(tmp_path / "store.db") as own:
            own.session("b").variables["x"] = 1

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert all(forked(child) for _ in range(10))
    finally:
        stop.set()
        reader.join()
    assert 10 == store.session("b").head
    store.close()


@needs_fork
def test_a_fork_does_not_wait_for_itself(tmp_path):
    """What reads in the thread that forks, while nothing may be under way, is told so at once."""
    store = evstore.open(tmp_path / "store.db")
    store.session("a").variables["x"] = 1
    shared = store.engine.database
    shared.hold_still()
    try:
        with pytest.raises(Busy):
            store.session("a").view()
    finally:
        shared.move_on()
    assert {"x": 1} == dict(store.session("a").variables)
    store.close()


@needs_fork
def test_a_child_forked_in_mid_write_is_not_stuck(tmp_path):
    """A child forked while a thread of its parent writes finds its handle Closed at once."""
    store = evstore.open(tmp_path / "store.db")
    session = store.session("a")
    session.variables["x"] = 0
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            session.variables["x"] = number = number + 1

    def child() -> None:
        with pytest.raises(Closed):
            session.variables["x"] = -1
        with evstore.open(tmp_path / "store.db") as own:
            own.session("b").variables["x"] = 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(forked(child) for _ in range(10))
    finally:
        stop.set()
        writer.join()
    audit(store)
    assert store.session("b").head == 10
    store.close()


def test_waiting_for_another_process_ends(tmp_path, monkeypatch):
    """A write that another process holds up is Busy after the deadline, and works afterwards."""
    path = tmp_path / "store.db"
    monkeypatch.setattr(database, "WAIT_S", 0.2)
    with evstore.open(path) as store:
        session = store.session("a")
        session.variables["x"] = 1
        other = apsw.Connection(str(path), vfs="cksmvfs")
        other.execute("begin immediate")
        started_s = time.monotonic()
        with pytest.raises(Busy) as caught:
            session.variables["x"] = 2
        assert 0.2 <= time.monotonic() - started_s < 2
        assert 200 <= caught.value.waited_ms < 2000
        assert 1 == session.variables["x"]  # Readers do not wait for writers.
        other.execute("rollback")
        other.close()
        session.variables["x"] = 3
        assert [1, 3] == [event.data["value"] for event in session.events()]


def test_a_write_waits_for_a_thread_no_longer_than_the_deadline(tmp_path, monkeypatch):
    """The deadline holds for waiting inside the process, too."""
    monkeypatch.setattr(database, "WAIT_S", 0.1)
    with evstore.open(tmp_path / "store.db") as store:
        session = store.session("a")
        entered, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with store.engine.database.writing("normal"):
                entered.set()
                leave.wait(CHILD_S_MAX)

        holder = threading.Thread(target=hold)
        holder.start()
        entered.wait(CHILD_S_MAX)
        with pytest.raises(Busy):
            session.variables["x"] = 1
        leave.set()
        holder.join()
        session.variables["x"] = 2
        assert [2] == [event.data["value"] for event in session.events()]


def test_sixteen_threads_share_a_store(tmp_path):
    """Sixteen threads write to a session of their own and to a shared one, and read meanwhile."""
    with evstore.open(tmp_path / "store.db", durability="normal") as store:
        shared = store.session("shared")

        def work(thread: int) -> None:
            own = store.session(f"own{thread}")
            for number in range(30):
                own.variables["number"] = number
                shared.messages.append({"role": "user", "content": f"{thread} {number}"})
                assert number == own.variables["number"]
                view = shared.view()
                assert len(view.messages) == view.seq

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(work, range(16)))
        assert 2 * 16 * 30 == len(audit(store))
        said = [message["content"].split() for message in shared.messages]
        for thread in range(16):
            numbers = [int(number) for name, number in said if int(name) == thread]
            assert list(range(30)) == numbers


def test_closing_while_threads_work_is_closed_to_them(tmp_path):
    """Threads that use a store while it is closed get Closed, and what they wrote is there."""
    for attempt in range(15):
        path = tmp_path / f"store{attempt}.db"
        store = evstore.open(path, durability="normal")
        begun = threading.Barrier(9)

        def work(
            number: int, store: evstore.Store = store, begun: threading.Barrier = begun
        ) -> int:
            session = store.session(f"session{number}")
            session.variables["x"] = written = 1
            begun.wait(CHILD_S_MAX)
            try:
                while True:
                    session.variables["x"] = written + 1
                    written += 1
                    assert written == session.variables["x"]
                    list(session.events())
            except Closed:
                return written

        with ThreadPoolExecutor(8) as threads:
            results = [threads.submit(work, number) for number in range(8)]
            begun.wait(CHILD_S_MAX)
            store.close()
            written = [result.result() for result in results]
        with evstore.open(path) as again:
            audit(again)
            assert written == [again.session(f"session{number}").head for number in range(8)]


def test_handles_open_and_close_beside_each_other(tmp_path):
    """Threads that open, use and close handles of one file at once do not close it for others."""

    def work(thread: int) -> None:
        for number in range(25):
            with evstore.open(tmp_path / "store.db", durability="normal") as store:
                store.session("a").variables[f"{thread}"] = number

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    with evstore.open(tmp_path / "store.db") as store:
        assert 6 * 25 == len(audit(store))
    assert ["store.db"] == os.listdir(tmp_path)


def test_handles_of_one_file_keep_their_own_settings(tmp_path):
    """Two handles share the file, each with its own durability, actor and right to write."""
    path = tmp_path / "store.db"
    with (
        evstore.open(path, durability="full", actor="careful") as full,
        evstore.open(path, durability="normal", actor="quick") as normal,
        evstore.open(path, read_only=True) as reading,
    ):
        assert full.engine.database is normal.engine.database is reading.engine.database
        full.session("a").variables["x"] = 1
        normal.session("a").variables["x"] = 2
        with pytest.raises(ReadOnly):
            reading.session("a").variables["x"] = 3
        assert ["careful", "quick"] == [event.actor for event in reading.session("a").events()]
    with evstore.open(path) as again:
        assert 2 == again.session("a").variables["x"]


def test_a_file_is_one_file_by_any_name(tmp_path, monkeypatch):
    """Other spellings of a path, URLs and symbolic links lead to the same open file."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "store.db"
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "short").symlink_to(tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    with evstore.open(path) as store:
        for name in (
            str(path),
            tmp_path / "folder" / ".." / "folder" / "store.db",
            "folder/store.db",
            "./folder//store.db",
            f"sqlite:{path}",
            "sqlite:folder/store.db",
            "link.db",
            tmp_path / "short" / "store.db",
        ):
            with evstore.open(name) as other:
                assert store.engine.database is other.engine.database, name
    assert ["store.db"] == os.listdir(tmp_path / "folder")


@pytest.mark.skipif(os.name == "nt", reason="there no file is replaced that is open")
def test_a_file_that_replaced_an_open_one_is_refused(tmp_path):
    """Two stores would share one log: the one that was there has to be closed, its log to go."""
    path = tmp_path / "store.db"
    store = evstore.open(path)
    store.session("a").variables["x"] = 1
    store.backup(tmp_path / "backup.db")
    store.session("a").variables["x"] = 2
    os.replace(tmp_path / "backup.db", path)
    with pytest.raises(Unavailable, match=re.escape(f"then remove {path}-wal")):
        evstore.open(path)
    store.close()
    Path(f"{path}-wal").unlink()
    with evstore.open(path) as again:
        assert {"x": 1} == dict(again.session("a").variables)
        again.session("a").variables["x"] = 3
        assert 2 == len(audit(again))
    assert ["store.db"] == os.listdir(tmp_path)


def test_hard_links_are_refused(tmp_path):
    """A file with two names would get two logs: it is Unavailable under both, and left as it is."""
    path = tmp_path / "store.db"
    with evstore.open(path) as store:
        store.session("a").variables["x"] = 1
    content = path.read_bytes()
    os.link(path, tmp_path / "other.db")
    for name in ("store.db", "other.db"):
        with pytest.raises(Unavailable, match=re.escape("2 hard links")):
            evstore.open(tmp_path / name)
    assert content == path.read_bytes()
    assert {"store.db", "other.db"} == set(os.listdir(tmp_path))
    (tmp_path / "other.db").unlink()
    with evstore.open(path) as store:
        assert 1 == len(all_batches(store))
