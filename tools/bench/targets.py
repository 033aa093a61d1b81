"""Every row of the table: what is measured, in which unit, and what it has to reach."""

from typing import Literal, NamedTuple

from tools.bench.measured import Spread, Summary

Verdict = Literal["met", "missed", "measured", "not built yet", "failed"]


class Target(NamedTuple):
    """One row: a name to ask for it, the work (`{size}` is its size), its unit and its bound.

    A row without a bound is measured for comparison.
    """

    name: str
    work: str
    unit: str
    bound: float | None = None
    at_least: bool = False


class Figure(NamedTuple):
    """What was measured for a row."""

    name: str
    spread: Spread
    size: int = 0
    samples: dict[str, Summary] | None = None


class Point(NamedTuple):
    """One point of a curve: how a cost in µs grows with something."""

    curve: str
    work: str
    x: float
    took: Spread


TARGETS: dict[str, tuple[Target, ...]] = {
    "appends_full": (
        Target("flush", "bare insert / flush of one page in place", "×"),
        Target("sqlite3", "insert with sqlite3 and json by hand / bare insert", "×"),
        Target("message_rows_full", "rows and hashes of a message, by hand, full / bare", "×"),
        Target("message_straight_full", "all it owes, in one function, full / bare", "×"),
        Target("message_full", "one message, full / bare insert", "×", 1.35),
        Target("message_fresh", "one message, full / bare insert on a fresh log", "×", 1),
        Target("variable_rows_full", "rows and hashes of a variable, by hand, full / bare", "×"),
        Target("variable_straight_full", "all it owes, in one function, full / bare", "×"),
        Target("variable_full", "one variable, full / bare insert", "×", 1.45),
        Target("sessions_rows_full", "the same to {size} sessions in turn, by hand / bare", "×"),
        Target("sessions_straight_full", "all they owe, in one function, full / bare", "×"),
        Target("sessions_full", "messages to {size} sessions in turn, full / bare", "×", 1.65),
    ),
    "appends_normal": (
        Target("message_rows_normal", "rows and hashes of a message, by hand, normal / bare", "×"),
        Target("message_straight_normal", "all it owes, in one function, normal / bare", "×"),
        Target("message_normal", "one message, normal / bare insert", "×", 2.3),
        Target("variable_rows_normal", "rows and hashes of a variable, by hand / bare", "×"),
        Target("variable_straight_normal", "all it owes, in one function, normal / bare", "×"),
        Target("variable_normal", "one variable, normal / bare insert", "×", 2.8),
        Target("rate_normal", "messages, normal", "/s", 22_000, at_least=True),
    ),
    "batches": (
        Target("batch_rows", "rows and hashes of a batch of {size}, by hand / executemany", "×"),
        Target("batch", "a batch of {size} / executemany of encoded rows", "×", 3.5),
    ),
    "threads": (
        Target("threads_rows_one", "64 threads share commits of rows by hand / one caller", "×"),
        Target("threads_rows_many", "the same, each to a session of its own / one caller", "×"),
        Target("threads_one", "64 threads on one session / one caller", "×", 4, at_least=True),
        Target("threads_many", "64 threads on 64 sessions / one caller", "×", 2.5, at_least=True),
    ),
    "tasks": (
        Target("tasks_rows_one", "{size} tasks share commits of rows by hand / one caller", "×"),
        Target("tasks_rows_many", "the same, each to a session of its own / one caller", "×"),
        Target("tasks_one", "{size} tasks on one session / one caller", "×", 12, at_least=True),
        Target("tasks_many", "{size} tasks, a session each / one caller", "×", 4.5, at_least=True),
        Target("tasks_lag", "{size} tasks: lag of their event loop, 99th percentile", "ms", 5),
        Target("tasks_lag_own", "the longest of it, while no garbage is collected", "ms", 5),
    ),
    "endurance": (
        Target("threads_wrong", "64 threads, some fail: messages lost, doubled, moved", "", 0),
        Target("threads_wait", "64 threads, some fail: wait, 99.9th percentile / median", "×", 50),
        Target("tasks_wrong", "1,000 tasks, some fail: messages lost, doubled, moved", "", 0),
        Target("tasks_wait", "1,000 tasks, some fail: wait, 99.9th percentile / median", "×", 50),
    ),
    "reads": (
        Target("variable", "read a small variable", "µs", 6),
        Target("variable_view", "read it inside a view", "µs", 2),
        Target("load", "load {size} messages / rows and orjson", "×", 1.3),
    ),
    "past": (
        Target("at_100", "state at a moment of {size} events, 100 names", "ms", 1),
        Target("at_10000", "state at a moment of {size} events, 10,000 names", "ms", 30),
        Target("slice", "20 messages out of {size}", "ms", 1),
        Target("fork", "fork a session of {size} events / one-event commit", "×", 2),
        Target("fork_bytes", "what one fork adds to the file", "B", 500),
    ),
    "versions": (
        Target("versions_bytes", "{size} turns on a variable of 100 KB: added", "KB", 64),
        Target("version_read", "read one of its versions, at random", "ms", 1),
    ),
    "care": (
        Target("verify_chain", "events verified, level chain", "/s", 300_000, at_least=True),
        Target("verify_full", "events verified, level full", "/s", 120_000, at_least=True),
        Target("rebuild", "events rebuilt", "/s", 1_000_000, at_least=True),
    ),
    "migrating": (
        Target("migrate", "events migrated as they are, all links checked", "/s"),
        Target("migrate_rows", "migrate {size} events / copy their rows by SQL", "×"),
        Target("migrate_memory", "peak memory: migrate {size} events", "MB", 100),
    ),
    "mending": (
        Target("mend_held", "{size} wrong names mended: lock held, 99.9th percentile", "ms", 10),
        Target("mend", "wrong names mended, of {size}", "/s"),
    ),
    "imports": (
        Target("import", "import evstore, over bare Python", "ms", 60),
        Target("import_first", "import it, open a file, append and read, over bare Python", "ms"),
        Target("import_packages", "import the packages it needs, over bare Python", "ms"),
    ),
    "events": (
        Target("open", "open {size} events, not in memory, and read", "ms", 10),
        Target("append_growth", "append at {size} events / at a hundredth", "×", 1.3),
        Target("read_growth", "read a variable at {size} events / at a hundredth", "×", 1.3),
        Target("slice_growth", "read 20 messages at {size} events / at a hundredth", "×", 1.3),
        Target("fork_growth", "fork a session of {size} events / of a hundredth", "×", 1.3),
        Target("at_growth", "state at a moment at {size} events / at a hundredth", "×", 1.3),
    ),
    "sessions": (
        Target("sessions_growth", "append with {size} sessions in the file / with one", "×"),
    ),
    "names": (Target("names_growth", "set one of {size} names / one of 10", "×"),),
    "sizes": (Target("sizes_growth", "set a value of {size} bytes / of 100 bytes", "×"),),
    "processes": (
        Target("processes_growth", "{size} processes, appends a second, full / one", "×"),
    ),
    "memory": (
        Target("memory_last", "peak memory: last of {size} messages", "MB", 100),
        Target("memory_list", "peak memory: list {size} sessions", "MB", 100),
        Target("memory_managed", "peak memory: {size} sessions through a manager", "MB", 200),
        Target("memory_export", "peak memory: export a file of {size} bytes", "MB", 100),
    ),
    "watching": (
        Target("watch_latency", "from a commit to a watcher in another process", "ms", 20),
        Target("watch_idle", "100 idle watchers, share of a core", "%", 1),
    ),
}


def verdict(target: Target, figure: Figure | None) -> Verdict:
    """Return what a figure says about its target; a feature that is absent has none."""
    if figure is None:
        return "not built yet"
    if target.bound is None:
        return "measured"
    value = figure.spread.median
    met = value >= target.bound if target.at_least else value <= target.bound
    return "met" if met else "missed"
