"""What only fresh processes show: peak memory, and watchers elsewhere."""

import random
import time
from collections.abc import Iterator

import evstore
from tools.bench import child, made
from tools.bench.bench import MESSAGE, Bench
from tools.bench.measured import spread
from tools.bench.targets import Figure, Point

MESSAGES = 1_000_000
SESSIONS = 100_000
FILE_BYTES = 1 << 30
VALUE_BYTES = 500
COMMITS = 200
WATCHERS = 100
TIMES = 3


def memory(bench: Bench) -> Iterator[Figure | Point]:
    """Measure the most memory that large things take."""
    messages, sessions = bench.sized(MESSAGES, 1000), bench.sized(SESSIONS, 100)
    size_bytes = bench.sized(FILE_BYTES, 1 << 20)
    works = {
        "last": ("read_last", messages, bench.made("talk", lambda p: made.converse(p, messages))),
        "list": ("list_all", sessions, bench.made("many", lambda p: made.populate(p, 0, sessions))),
        "export": ("export_all", size_bytes, bench.made("big", lambda p: made.fill(p, size_bytes))),
    }
    for name, (act, size, path) in works.items():
        peaks = [
            child.run(act, path=str(path))["peak_bytes"] / 1e6
            for _ in range(min(TIMES, bench.rounds))
        ]
        yield Figure(f"memory_{name}", spread(peaks), size)
    new = str(bench.folder / "managed.db")
    found = child.run("manage_all", path=new, sessions=sessions, value_bytes=VALUE_BYTES)
    yield Figure("memory_managed", spread([found["peak_bytes"] / 1e6]), sessions)


def watching(bench: Bench) -> Iterator[Figure | Point]:
    """Measure how soon a watcher in another process knows, and what waiting costs."""
    path = bench.folder / "watched.db"
    waits_ms = sorted(_waits_ms(bench, str(path)))
    yield Figure("watch_latency", spread(waits_ms))
    idle = child.run("watch_idly", path=str(path), watchers=WATCHERS, duration_s=bench.seconds(10))
    yield Figure("watch_idle", spread([idle["share"] * 100]))


def _waits_ms(bench: Bench, path: str) -> Iterator[float]:
    commits = min(COMMITS, bench.sized(COMMITS * 10, 10))
    with evstore.open(path) as store:
        session = store.session("watched")
        session.messages.append(MESSAGE)
        with child.Child("watch", path=path, count=commits) as watcher:
            watcher.said()
            committed_ns = {}
            for _ in range(commits):
                # At random moments, or a watcher that looks regularly would be met in step.
                time.sleep(random.uniform(0.005, 0.05))
                (event,) = session.messages.append(MESSAGE)
                committed_ns[event.seq] = time.monotonic_ns()
            arrived_ns = {int(seq): at for seq, at in watcher.said()["arrived_ns"].items()}
    for seq, at_ns in committed_ns.items():
        # A watcher may see a commit before the call that made it has returned.
        yield max(0, arrived_ns[seq] - at_ns) / 1e6
