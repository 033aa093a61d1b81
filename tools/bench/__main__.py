"""Measure evstore beside its baselines in one run, and say which targets are met.

Ratios count, not microseconds: works that are compared take turns, and each ratio is taken inside
a round. Without arguments everything is measured at its full size, which takes some ten minutes and
four gigabytes of disk; --quick takes less than half a minute.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from tools.bench import appends, carrying, fresh, growth, reads, together
from tools.bench.bench import Bench, Workload
from tools.bench.report import Report
from tools.bench.targets import TARGETS, Figure, Point, Target

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK_SCALE, QUICK_ROUNDS = 0.01, 5
FULL_ROUNDS = 31

# In the order in which they run: those that make large files come last.
WORKLOADS: dict[str, Workload] = {
    "appends_full": appends.full,
    "appends_normal": appends.normal,
    "batches": appends.batches,
    "reads": reads.reads,
    "imports": reads.imports,
    "versions": reads.versions,
    "threads": together.threads,
    "tasks": together.tasks,
    "endurance": together.endurance,
    "watching": fresh.watching,
    "names": growth.names,
    "sizes": growth.sizes,
    "processes": growth.processes,
    "sessions": growth.sessions,
    "past": reads.past,
    "care": reads.care,
    "migrating": carrying.migrating,
    "mending": carrying.mending,
    "memory": fresh.memory,
    "events": growth.events,
}


def main() -> int:
    """Run what was asked for; 1 if something could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="one workload or row; may be repeated"
    )
    parser.add_argument("--scale", type=float, help="1 is the full size, 0.01 that of --quick")
    parser.add_argument("--rounds", type=int, help="how often all works of a workload take turns")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="its disk")
    parser.add_argument("--json", type=Path, help="where the figures go; in the folder by default")
    parser.add_argument("--list", action="store_true", help="print the names, and measure nothing")
    arguments = parser.parse_args()
    if arguments.list:
        for workload in WORKLOADS:
            print(*_names(workload))
        return 0
    try:
        chosen = choose(arguments.only)
    except KeyError as error:
        parser.error(f"no workload or row is called {error.args[0]!r}: --list prints the names")
    scale = arguments.scale or (QUICK_SCALE if arguments.quick else 1)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else FULL_ROUNDS)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    report = Report(scale, rounds)
    folder = Path(tempfile.mkdtemp(dir=arguments.folder.resolve()))
    try:
        bench = Bench(folder, scale, rounds)
        for workload, targets in chosen.items():
            print(f"» {workload}", end="", file=sys.stderr, flush=True)
            start = time.perf_counter()
            measure(bench, workload, targets, report)
            print(f" {time.perf_counter() - start:.1f} s", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.show(Console(width=None if sys.stdout.isatty() else 120))
    report.write(arguments.json or arguments.folder / "bench.json")
    return int(any(row["verdict"] == "failed" for row in report.rows))


def choose(only: list[str] | None) -> dict[str, list[Target]]:
    """Return the rows that were asked for, by workload, in the order in which these run."""
    names = {name for workload in WORKLOADS for name in _names(workload)}
    for name in only or ():
        if name not in names:
            raise KeyError(name)
    rows = {
        workload: [
            target
            for target in TARGETS[workload]
            if only is None or workload in only or target.name in only
        ]
        for workload in WORKLOADS
    }
    return {workload: targets for workload, targets in rows.items() if targets}


def _names(workload: str) -> Iterator[str]:
    yield workload
    yield from (target.name for target in TARGETS[workload])


def measure(bench: Bench, workload: str, targets: list[Target], report: Report) -> None:
    """Run one workload and add its rows; what goes wrong in it does not stop the others."""
    report.feel()
    figures: dict[str, Figure] = {}
    failure = ""
    try:
        for found in WORKLOADS[workload](bench):
            if isinstance(found, Point):
                report.points.append(found)
            else:
                figures[found.name] = found
    except Exception as error:  # noqa: BLE001 - the row says so, and the run ends with 1
        failure = f"{type(error).__name__}: {error}"
    for target in targets:
        figure = figures.get(target.name)
        report.add(target, figure, failure if figure is None else "")
    report.feel()


if __name__ == "__main__":
    sys.exit(main())
