"""What has to be measured in a process of its own: `python -m tools.bench.child` and its owner."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import evstore
from evstore import replay
from evstore.agent import SessionManager
from evstore.transfer import export_lines
from tools.bench.bench import MESSAGE

ROOT = Path(__file__).resolve().parent.parent.parent


class Child:
    """A fresh process that performs one act and says what it found, line by line."""

    def __init__(self, act: str, **how: Any) -> None:
        command = [sys.executable, "-m", "tools.bench.child", act, json.dumps(how)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """End it, if it has not ended by itself."""
        if kind is not None:
            self._process.kill()
        self._process.communicate()

    def said(self) -> dict[str, Any]:
        """Wait for the next line that it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process that measures ended early: its reason stands above")
        found: dict[str, Any] = json.loads(line)
        return found

    def tell(self, word: str) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()


def run(act: str, **how: Any) -> dict[str, Any]:
    """Return what a fresh process finds."""
    with Child(act, **how) as child:
        return child.said()


def _say(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def append(path: str, session: str, duration_s: float) -> None:
    """Append durably, from the word on, and say how many a second it were."""
    with evstore.open(path) as store:
        messages = store.session(session).messages
        messages.append(MESSAGE)
        _say(ready=True)
        sys.stdin.readline()
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + duration_s:
            messages.append(MESSAGE)
            count += 1
        _say(rate=count / (time.perf_counter() - start))


def open_and_read(path: str) -> None:
    """Open a store whose file is not in memory, and read one variable."""
    _drop_from_memory(path)
    start = time.perf_counter()
    with evstore.open(path) as store:
        value = store.session("long").variables["name7"]
        took_us = (time.perf_counter() - start) * 1e6
    _say(took_us=took_us, value=value)


def _drop_from_memory(path: str) -> None:
    if sys.platform == "linux":  # elsewhere there is no such call, and the file stays in memory
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_last(path: str) -> None:
    """Read the last message of a long session, and say how much memory that took."""
    with evstore.open(path) as store:
        message = store.session("talk").messages[-1]
    _say(peak_bytes=_peak_bytes(), message=message)


def list_all(path: str) -> None:
    """List all sessions, and say how much memory that took."""
    with evstore.open(path) as store:
        count = sum(1 for _ in store.sessions())
    _say(peak_bytes=_peak_bytes(), count=count)


def export_all(path: str) -> None:
    """Export a store, and say how much memory that took."""
    size_bytes = 0
    with evstore.open(path) as store, open(os.devnull, "wb") as out:
        for line in export_lines(store):
            size_bytes += out.write(line)
    _say(peak_bytes=_peak_bytes(), size_bytes=size_bytes)


def migrate_all(path: str, target: str) -> None:
    """Copy a store into a new file, and say how long that took and how much memory."""
    with evstore.open(path, read_only=True) as store:
        start = time.perf_counter()
        replay.migrate(store, target)
        took_s = time.perf_counter() - start
    _say(peak_bytes=_peak_bytes(), took_s=took_s)


def manage_all(path: str, sessions: int, value_bytes: int) -> None:
    """Set and read a variable of many sessions by a manager; say how much memory that took."""
    read_bytes = 0
    with evstore.open(path, durability="normal") as store, SessionManager(store) as manager:
        for number in range(sessions):
            manager.set_variable(f"session-{number}", "profile", "x" * value_bytes)
        for number in range(sessions):
            read_bytes += len(manager.get_variable(f"session-{number}", "profile"))
    _say(peak_bytes=_peak_bytes(), read_bytes=read_bytes)


def _peak_bytes() -> int:
    """Return the most memory this program ever had.

    Where /proc says so: what getrusage says includes what the process was before it became this
    program, which is a copy of its parent.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def watch(path: str, count: int) -> None:
    """Watch a session for some events, and say when each arrived."""
    arrived_ns: dict[int, int] = {}
    with evstore.open(path) as store, store.session("watched").watch() as events:
        _say(ready=True)
        for event in events:
            arrived_ns[event.seq] = time.monotonic_ns()
            if len(arrived_ns) == count:
                break
    _say(arrived_ns=arrived_ns)


def watch_idly(path: str, watchers: int, duration_s: float) -> None:
    """Let many watch sessions in which nothing happens, and say the share of a core they take."""
    store = evstore.open(path)
    for number in range(watchers):
        events = store.session(f"idle-{number}").watch()
        threading.Thread(target=events.__next__, daemon=True).start()
    time.sleep(min(1, duration_s))  # until all of them wait
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    time.sleep(duration_s)
    share = (time.process_time() - start_cpu_s) / (time.perf_counter() - start_s)
    _say(share=share)
    os._exit(0)  # the watchers wait for ever


ACTS: dict[str, Callable[..., None]] = {
    act.__name__: act
    for act in (
        append,
        open_and_read,
        read_last,
        list_all,
        export_all,
        migrate_all,
        manage_all,
        watch,
        watch_idly,
    )
}

if __name__ == "__main__":
    ACTS[sys.argv[1]](**json.loads(sys.argv[2]))
