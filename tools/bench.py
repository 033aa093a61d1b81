"""Measure evstore against bare SQLite in one run, and say which targets are met.

Every workload is interleaved with its baseline, so that a busy machine slows both; ratios count,
not microseconds. `--quick` runs a tenth of everything; `--json FILE` keeps the figures.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import apsw
import orjson

import evstore
from evstore import replay

MESSAGE = {"role": "user", "content": "The trip should begin in Rome and end in Naples. " * 6}
VALUE = {"city": "Rome", "nights": 3}
NAMES = 100


class Row(NamedTuple):
    """One line of the table: a figure, the bound it has to keep, and its unit."""

    work: str
    measured: float
    target: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is kept."""
        return self.measured >= self.target if self.at_least else self.measured <= self.target


class Bare:
    """The baseline: one table of encoded rows on a warm write-ahead log."""

    def __init__(self, path: Path, synchronous: str) -> None:
        connection = apsw.Connection(str(path))
        self.cursor = connection.cursor()
        self.cursor.execute("pragma journal_mode=wal").fetchall()
        self.cursor.execute(f"pragma synchronous={synchronous}")
        self.cursor.execute("create table event(id integer primary key, data text)")
        self.text = orjson.dumps(MESSAGE).decode()
        for _ in range(5000):  # until the log overwrites itself, as it does in a long life
            self.insert()

    def insert(self) -> None:
        """Insert one encoded row durably."""
        self.cursor.execute("insert into event(data) values(?)", (self.text,))

    def insert_many(self, count: int) -> None:
        """Insert encoded rows in one transaction."""
        rows = [(self.text,)] * count
        self.cursor.execute("begin immediate")
        self.cursor.executemany("insert into event(data) values(?)", rows)
        self.cursor.execute("commit")


def microseconds(function: Callable[[], object], times: int = 1) -> list[float]:
    """Return how long each of some calls took."""
    found = []
    for _ in range(times):
        start = time.perf_counter_ns()
        function()
        found.append((time.perf_counter_ns() - start) / 1000)
    return found


def interleave(works: dict[str, Callable[[], object]], cycles: int, times: int) -> dict[str, float]:
    """Return the median time of each work in µs, all shuffled together."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(cycles):
        for name in random.sample(list(works), len(works)):
            found[name] += microseconds(works[name], times)
    return {name: statistics.median(times_us) for name, times_us in found.items()}


def appends(folder: Path, durability: Literal["full", "normal"], cycles: int) -> list[Row]:
    """Single appends: a message, a variable, and one of 1,000 sessions in turn."""
    bare = Bare(folder / "bare.db", durability)
    store = evstore.open(folder / "evstore.db", durability=durability)
    one = store.session("one")
    many = [store.session(f"session-{number}") for number in range(1000)]
    turn = iter(range(1 << 60))
    for session in many:
        session.messages.append(MESSAGE)
    for _ in range(5000):
        one.messages.append(MESSAGE)
    works: dict[str, Callable[[], object]] = {
        "bare": bare.insert,
        "message": lambda: one.messages.append(MESSAGE),
        "variable": lambda: one.variables.set(f"name{next(turn) % NAMES}", VALUE),
        "sessions": lambda: many[next(turn) % 1000].messages.append(MESSAGE),
    }
    took = interleave(works, cycles, 50)
    store.close()
    message, variable = (1.35, 1.45) if durability == "full" else (2.3, 2.8)
    rows = [
        Row(f"message, {durability} / bare", took["message"] / took["bare"], message, "×"),
        Row(f"variable, {durability} / bare", took["variable"] / took["bare"], variable, "×"),
    ]
    if durability == "full":
        fresh = fresh_wal(folder)
        rows.append(Row("message, full / bare, fresh WAL", took["message"] / fresh, 1, "×"))
        rows.append(Row("1,000 sessions, full / bare", took["sessions"] / took["bare"], 1.65, "×"))
    else:
        rows.append(Row("messages, normal", 1e6 / took["message"], 22_000, "/s", at_least=True))
    return rows


def fresh_wal(folder: Path) -> float:
    """Return the median of a bare durable insert while the log still grows, in µs."""
    connection = apsw.Connection(str(folder / "fresh.db"))
    connection.execute("pragma journal_mode=wal").fetchall()
    connection.execute("pragma synchronous=full; create table event(data text)")
    text, cursor = orjson.dumps(MESSAGE).decode(), connection.cursor()
    return statistics.median(
        microseconds(lambda: cursor.execute("insert into event values(?)", (text,)), 400)
    )


def batches(folder: Path, cycles: int) -> list[Row]:
    """Batches of 1,000 messages against executemany of encoded rows."""
    bare = Bare(folder / "bare.db", "full")
    with evstore.open(folder / "evstore.db") as store:
        session = store.session("batches")

        def batch() -> None:
            with session.batch() as batch:
                batch.messages.extend([MESSAGE] * 1000)

        works: dict[str, Callable[[], object]] = {
            "bare": lambda: bare.insert_many(1000),
            "batch": batch,
        }
        took = interleave(works, cycles, 2)
    return [Row("batch of 1,000 / executemany", took["batch"] / took["bare"], 3.5, "×")]


def reads(folder: Path, cycles: int) -> list[Row]:
    """Reads of the present: a variable, one in a view, and 10,000 messages."""
    bare = Bare(folder / "bare.db", "normal")
    bare.insert_many(5000)
    with evstore.open(folder / "evstore.db", durability="normal") as store:
        session = store.session("reads")
        session.variables.update({f"name{number}": VALUE for number in range(NAMES)})
        session.messages.extend([MESSAGE] * 10_000)
        view = session.view()
        query = "select data from event limit 10000"
        works: dict[str, Callable[[], object]] = {
            "variable": lambda: session.variables["name7"],
            "view": lambda: view.variables["name7"],
        }
        single = interleave(works, cycles, 200)
        loads: dict[str, Callable[[], object]] = {
            "rows": lambda: [orjson.loads(text) for (text,) in bare.cursor.execute(query)],
            "messages": lambda: session.messages[:],
        }
        load = interleave(loads, cycles, 1)
    return [
        Row("read a small variable", single["variable"], 6, "µs"),
        Row("read it inside a view", single["view"], 2, "µs"),
        Row("load 10,000 messages / rows", load["messages"] / load["rows"], 1.3, "×"),
    ]


def history(folder: Path, events: int) -> list[Row]:
    """The past of one long session: slices, moments, forks, opening, verifying, rebuilding."""
    path = folder / "history.db"
    with evstore.open(path, durability="normal") as store:
        session = store.session("long")
        for start in range(0, events, 1000):
            with session.batch() as batch:
                for number in range(start, start + 1000):
                    if number % 10 < 3:
                        batch.messages.append({"role": "user", "content": f"message {number}"})
                    else:
                        batch.variables[f"name{number % NAMES}"] = number
    store = evstore.open(path)
    session = store.session("long")
    count = len(session.messages)

    def slice_of_20() -> object:
        start = random.randrange(count - 20)
        return session.messages[start : start + 20]

    slices = statistics.median(microseconds(slice_of_20, 200))
    moments = statistics.median(microseconds(lambda: session.at(random.randrange(events)), 200))
    forks = iter(range(1 << 60))
    works: dict[str, Callable[[], object]] = {
        "commit": lambda: session.record("app.nothing"),
        "fork": lambda: session.fork(f"fork-{next(forks)}", at=random.randrange(events)),
    }
    took = interleave(works, 10, 10)
    store.close()

    def open_and_read() -> object:
        with evstore.open(path) as store:
            return store.session("long").variables["name3"]

    opening = statistics.median(microseconds(open_and_read, 20))
    rows = [
        Row(f"slice of 20 in {count:,} messages", slices / 1000, 1, "ms"),
        Row(f"state at a moment of {events:,} events", moments / 1000, 1, "ms"),
        Row("fork / one-event commits", took["fork"] / took["commit"], 2, "×"),
        Row(f"open {events:,} events and read", opening / 1000, 10, "ms"),
    ]
    with evstore.open(path) as store:
        cares: dict[str, tuple[Callable[[], object], int]] = {
            "verify chain": (lambda: list(replay.verify(store, level="chain")), 300_000),
            "verify full": (lambda: list(replay.verify(store, level="full")), 120_000),
            "rebuild": (lambda: replay.rebuild(store), 1_000_000),
        }
        for care, (work, target) in cares.items():
            (spent,) = microseconds(work)
            rows.append(Row(care, events / spent * 1e6, target, "/s", at_least=True))
    return rows


def imports() -> list[Row]:
    """The time that `import evstore` adds to starting Python."""
    works: dict[str, Callable[[], object]] = {
        "bare": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        "evstore": lambda: subprocess.run([sys.executable, "-c", "import evstore"], check=True),
    }
    took = interleave(works, 10, 1)
    return [Row("import evstore", (took["evstore"] - took["bare"]) / 1000, 60, "ms")]


def main() -> int:
    """Run all workloads and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a tenth of everything")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    scale = 1 if arguments.quick else 10
    rows: list[Row] = []
    works: list[Callable[[Path], list[Row]]] = [
        lambda folder: appends(folder, "full", 6 * scale),
        lambda folder: appends(folder, "normal", 6 * scale),
        lambda folder: batches(folder, 3 * scale),
        lambda folder: reads(folder, 3 * scale),
        lambda folder: history(folder, 100_000 * scale),
        lambda _folder: imports(),
    ]
    print(f"{'work':44} {'measured':>12} {'target':>12}")
    for work in works:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            for row in work(Path(folder)):
                rows.append(row)
                sign = "≥" if row.at_least else "≤"
                verdict = "" if row.met else "  missed"
                target = f"{sign} {row.target:,.10g} {row.unit}"
                measured = f"{row.measured:,.2f} {row.unit}"
                print(f"{row.work:44} {measured:>14} {target:>14}{verdict}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
