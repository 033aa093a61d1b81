"""What a run found, as a table for people and as JSON for programs."""

import json
import os
import platform
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import apsw
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.bench.measured import Spread, spin_us, spread
from tools.bench.targets import Figure, Point, Target, Verdict, verdict

PACKAGES = ("evstore", "apsw", "attrs", "cattrs", "orjson", "zstandard")
STYLES: dict[Verdict, str] = {
    "met": "green",
    "missed": "bold red",
    "measured": "dim",
    "not built yet": "yellow",
    "failed": "bold red",
}
UNSTEADY = 1.25  # where the processor's own speed varied by more, the figures are not to be kept


class Report:
    """The rows of one run, in their order, and what was around it."""

    def __init__(self, scale: float, rounds: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self.points: list[Point] = []
        self._scale = scale
        self._rounds = rounds
        self._start_s = time.perf_counter()
        self._spins_us: list[float] = []
        self._load_before = os.getloadavg()[0]

    def feel(self) -> None:
        """Take the processor's speed, to know in the end whether it stayed the same."""
        self._spins_us.append(spread(spin_us() for _ in range(20)).median)

    def add(self, target: Target, figure: Figure | None, failure: str = "") -> None:
        """Add a row: measured, absent, or failed."""
        said: Verdict = "failed" if failure else verdict(target, figure)
        row: dict[str, Any] = {
            "name": target.name,
            "work": target.work.format(size=f"{figure.size if figure else 0:,}"),
            "unit": target.unit,
            "target": target.bound,
            "at_least": target.at_least,
            "verdict": said,
        }
        if figure is None:
            row["work"] = target.work.replace("{size} ", "").replace("{size}", "many")
        else:
            row |= figure.spread._asdict()
        if figure and figure.samples:
            row["samples"] = {name: each._asdict() for name, each in figure.samples.items()}
        if failure:
            row["failure"] = failure
        self.rows.append(row)

    def steadiness(self) -> float:
        """Return how many times as long as the quickest the slowest of equal spins took."""
        return max(self._spins_us) / min(self._spins_us)

    def to_json(self) -> dict[str, Any]:
        """Return everything, as it is written down."""
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.perf_counter() - self._start_s, 1),
            "scale": self._scale,
            "rounds": self._rounds,
            "machine": machine(),
            "load_before": self._load_before,
            "load_after": os.getloadavg()[0],
            "unsteadiness": self.steadiness(),
            "rows": self.rows,
            "points": [
                {"curve": each.curve, "work": each.work, "x": each.x} | _in_us(each.took)
                for each in self.points
            ],
        }

    def write(self, path: Path) -> None:
        """Write everything down."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def show(self, console: Console) -> None:
        """Print the table, and what makes it doubtful."""
        table = Table(box=None, pad_edge=False)
        table.add_column("work", overflow="fold")
        for title in ("measured", "middle half", "target"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        for row in self.rows:
            said = row["verdict"]
            table.add_row(row["work"], *cells(row), Text(said, STYLES[said]))
        console.print(table)
        if self._scale < 1:
            console.print(f"Sizes were multiplied by {self._scale:g}: the targets are for 1.")
        for row in self.rows:
            if "failure" in row:
                console.print(Text(f"{row['name']} failed: {row['failure']}", "red"))
        if self.steadiness() > UNSTEADY:
            console.print(
                f"The processor's own speed varied by a factor of {self.steadiness():.2f} in this "
                "run: its ratios may hold, its times do not; measure again on a quiet machine."
            )


def _in_us(took: Spread) -> dict[str, float]:
    return {f"{name}_us": value for name, value in took._asdict().items()}


def cells(row: dict[str, Any]) -> tuple[str, str, str]:
    """Return what was measured for a row, its middle half, and its target, as a table says it."""
    unit = row["unit"]
    measured = middle = target = ""
    if "median" in row:
        measured = f"{shown(row['median'])} {unit}".rstrip()
        if row["low"] != row["high"]:
            middle = f"{shown(row['low'])} – {shown(row['high'])}"
    if row["target"] is not None:
        sign = "≥" if row["at_least"] else "≤"
        target = f"{sign} {row['target']:,.10g} {unit}".rstrip()
    return measured, middle, target


def shown(value: float) -> str:
    """Return a number with three or so digits that count."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> dict[str, Any]:
    """Return what one has to know about the machine to read its figures."""
    return {
        "system": platform.system(),
        "release": ".".join(platform.release().split(".")[:2]),  # the rest is the builder's
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
