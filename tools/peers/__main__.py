"""Measure what others need to append one message, set one variable, and load a conversation.

Every peer runs in a process of its own, in an environment of its own; all have their turn in each
round, in a new order, and what evstore needs in the same round is the measure of each. A peer that
cannot be installed or started stays in the table, with the reason. What the columns compare is not
what the peers are: most keep no history, and some are servers for many machines.
"""

import argparse
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench.measured import Rounds
from tools.bench.report import machine, shown
from tools.environments import NotInstallable
from tools.peers.environments import python

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build"
MEASURE = "evstore"
LOADED = 10_000
WARM = 400  # appends, so that logs which are reused have stopped growing

PEERS = {
    "evstore": "evstore",
    "by_hand": "sqlite3 and json by hand",
    "openai_agents": "OpenAI Agents SDK, SQLiteSession",
    "langgraph": "LangGraph, SqliteSaver",
    "google_adk": "Google ADK, SqliteSessionService",
    "langchain": "LangChain, SQLChatMessageHistory",
    "eventsourced": "eventsourcing",
    "disk_cache": "diskcache",
    "salamander": "salamander-db",
    "redis_server": "Redis",
    "postgres": "PostgreSQL",
}
WORKS = {"append": "append a message", "set": "set a variable", "load": "load, per message"}


class Peer:
    """A worker process of one peer, which answers line by line; raises OSError when it cannot."""

    def __init__(self, name: str, program: str, folder: Path) -> None:
        folder.mkdir()
        command = [program, str(HERE / "worker.py"), name, str(folder)]
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            self.facts = self._answer()
        except OSError:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            raise OSError(answer["error"])
        return answer

    def ask(self, work: str, times: int) -> dict[str, Any]:
        """Have a work done some times."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"work": work, "times": times}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise OSError("its process ended") from None
        return self._answer()

    def close(self) -> None:
        """Let it close its files and end."""
        self._process.communicate()


class Trial:
    """All peers that could be started, and what they took in each round."""

    def __init__(self, folder: Path, cache: Path, names: list[str]) -> None:
        self.failures: dict[str, str] = {}
        self.peers: dict[str, Peer] = {}
        self.filled: dict[str, int] = {}
        self._folder = folder
        self._empty_bytes: dict[str, int] = {}
        self._kept: Counter[str] = Counter()  # how many messages and variables each was given
        self._rounds: list[dict[str, list[float]]] = []
        for name in names:
            try:
                self.peers[name] = Peer(name, python(name, cache), folder / name)
                self._empty_bytes[name] = _size_bytes(folder / name)
            except (NotInstallable, OSError, subprocess.SubprocessError) as error:
                self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
        """Remember why a peer has no figures, without saying whose folders these are."""
        self.failures[name] = str(error).replace(str(ROOT), ".")

    def prepare(self, loaded: int, warm: int) -> None:
        """Let every peer keep the conversation that it will load, and write until it is warm."""
        for name in list(self.peers):
            print(f"» preparing {name}", file=sys.stderr, flush=True)
            for work, times in (("fill", loaded), ("append", warm), ("set", warm)):
                if (answer := self._asked(name, work, times)) and "count" in answer:
                    self.filled[name] = answer["count"]
            self._kept[name] += self.filled.get(name, 0)

    def _asked(self, name: str, work: str, times: int) -> dict[str, Any]:
        """Return an answer; a peer that fails is out, and its reason stays."""
        if name not in self.peers:
            return {}
        try:
            answer = self.peers[name].ask(work, times)
        except OSError as error:
            self.fail(name, error)
            self.peers.pop(name).close()
            return {}
        if work in ("append", "set"):
            self._kept[name] += len(answer["took_us"] or ())
        return answer

    def run(self, rounds: int, calls: int) -> None:
        """Let all have their turns."""
        for number in range(rounds + 1):
            print(f"\r» round {number} of {rounds}", end="", file=sys.stderr, flush=True)
            took: dict[str, list[float]] = {}
            for name in random.sample(list(self.peers), len(self.peers)):
                for work in WORKS:
                    answer = self._asked(name, work, 1 if work == "load" else calls)
                    if answer.get("took_us"):
                        each = self.filled[name] if work == "load" else 1
                        took[f"{name} {work}"] = [value / each for value in answer["took_us"]]
            if number:  # the first one warms up
                self._rounds.append(took)
        print(file=sys.stderr)

    def close(self) -> None:
        """End all processes, which leaves on the disk what they keep."""
        for peer in self.peers.values():
            peer.close()
        for log in self._folder.rglob("*-wal"):  # Some leave it to whoever comes next.
            with closing(sqlite3.connect(str(log).removesuffix("-wal"))) as connection:
                connection.execute("pragma wal_checkpoint(truncate)").fetchall()

    def _each_bytes(self, name: str) -> float:
        """Return what a message or variable has added to the folder of a peer."""
        return (_size_bytes(self._folder / name) - self._empty_bytes[name]) / self._kept[name]

    def rows(self) -> list[dict[str, Any]]:
        """Return what was found of each peer, and why nothing was of some."""
        took = Rounds(self._rounds)
        found = []
        for name, title in PEERS.items():
            row: dict[str, Any] = {"name": name, "title": title}
            if name in self.failures:
                found.append(row | {"failure": self.failures[name]})
            elif name in self.peers:
                works = {work: self._work(took, name, work) for work in WORKS}
                facts = self.peers[name].facts | {"loaded": self.filled[name]}
                size = {"kept": self._kept[name], "each_bytes": self._each_bytes(name)}
                found.append(row | facts | size | {"works": works})
        return found

    def _work(self, took: Rounds, name: str, work: str) -> dict[str, Any] | None:
        mine, measure = f"{name} {work}", f"{MEASURE} {work}"
        if not all(mine in each and measure in each for each in self._rounds):
            return None
        each = {f"{key}_us": value for key, value in took.each(mine)._asdict().items()}
        return each | {"ratio": took.ratio(mine, measure)._asdict()}


def _size_bytes(folder: Path) -> int:
    """Return how much of the disk the files in a folder take."""
    return sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())


def main() -> int:
    """Measure the peers that can be had, and print and keep what was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(PEERS))
    parser.add_argument("--quick", action="store_true", help="few rounds, short conversations")
    parser.add_argument("--folder", type=Path, default=BUILD / "bench", help="whose disk to use")
    parser.add_argument("--cache", type=Path, default=BUILD / "peers", help="the environments")
    parser.add_argument("--json", type=Path, help="where the figures go; in the folder by default")
    arguments = parser.parse_args()
    rounds, calls = (3, 5) if arguments.quick else (15, 20)
    loaded, warm = (500, 10) if arguments.quick else (LOADED, WARM)
    names = [name for name in PEERS if name in {MEASURE, *(arguments.only or PEERS)}]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=arguments.folder.resolve()))
    folder.chmod(0o755)  # a server may run as another user
    try:
        trial = Trial(folder, arguments.cache, names)
        try:
            trial.prepare(loaded, warm)
            trial.run(rounds, calls)
        finally:
            trial.close()
        rows = trial.rows()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(rows)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": rounds,
        "calls": calls,
        "appended": warm + (rounds + 1) * calls,  # some peers cost more the longer a conversation
        "rows": rows,
    }
    path = arguments.json or arguments.folder / "peers.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return int(MEASURE in trial.failures)  # without evstore there is no ratio


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table: times, and how many times as long as evstore each takes."""
    table = Table(box=None, pad_edge=False)
    table.add_column("peer", overflow="fold")
    for title in WORKS.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("on disk", justify="right", no_wrap=True)
    table.add_column("durability", overflow="fold")
    for row in rows:
        name = f"{row['title']} {row.get('version', '')}"
        if "failure" in row:
            table.add_row(name, "", "", "", "", f"not measured: {row['failure']}", style="yellow")
        else:
            cells = (_cell(row["works"][work]) for work in WORKS)
            table.add_row(name, *cells, f"{row['each_bytes']:,.0f} B", row["durability"])
    Console(width=None if sys.stdout.isatty() else 130, highlight=False).print(table)


def _cell(work: Mapping[str, Any] | None) -> str:
    if work is None:
        return "–"
    return f"{shown(work['median_us'])} µs  {shown(work['ratio']['median'])} ×"


if __name__ == "__main__":
    sys.exit(main())
