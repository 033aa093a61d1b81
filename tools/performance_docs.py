"""Write the figures of docs/performance.md, and its charts, from what was measured."""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from tools import charts
from tools.bench.report import cells, shown
from tools.peers.__main__ import WORKS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
CHARTS = ROOT / "docs" / "charts"
MEASURED = ROOT / "build" / "bench"


def machine(found: Any) -> str:
    """Return where and when it was measured, as a sentence."""
    where, packages = found["machine"], found["machine"]["packages"]
    return (
        f"Measured on {found['date'][:10]}: {where['cpus']} × {where['processor']}, "
        f"{where['system']} {where['release']}, Python {where['python']}, "
        f"APSW {packages['apsw']}, evstore {packages['evstore']}."
    )


def rows(found: Any) -> str:
    """Return the table of a run of the benchmark."""
    lines = [machine(found), "", "| work | measured | middle half | to reach | |"]
    lines.append("|---|--:|--:|--:|---|")
    if found["scale"] != 1:
        lines[0] += f" Sizes were multiplied by {found['scale']:g}."
    for row in found["rows"]:
        said = "" if row["verdict"] == "measured" else row["verdict"]
        lines.append("| " + " | ".join((row["work"], *cells(row), said)) + " |")
    return "\n".join(lines)


def peers(found: Any) -> str:
    """Return the table of a run of the peers."""
    titles = " | ".join(WORKS.values())
    lines = [machine(found), "", f"| | {titles} | on disk, each | durability |"]
    lines.append("|---|--:|--:|--:|--:|---|")
    for row in found["rows"]:
        name = f"{row['title']} {row.get('version', '')}".strip()
        if "failure" in row:
            lines.append(f"| {name} | | | | | not measured here |")
            continue
        cells = " | ".join(_cell(row["works"][work]) for work in WORKS)
        lines.append(f"| {name} | {cells} | {row['each_bytes']:,.0f} B | {row['durability']} |")
    return "\n".join(lines)


def _cell(work: Any) -> str:
    return f"{shown(work['ratio']['median'])} × ({shown(work['median_us'])} µs)" if work else "–"


def growth(found: Any) -> str:
    """Return the charts of growth, as pictures of a page."""
    curves = {point["curve"] for point in found["points"]}
    return "\n".join(
        f"![{title}](charts/growth-{curve}.svg)"
        for curve, (title, _) in charts.GROWTH.items()
        if curve in curves
    )


def filled(page: str, name: str, words: str) -> str:
    """Return a page with new words between two marks, which are comments of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    whole, count = re.subn(pattern, lambda _: f"{begin}\n{words}\n{end}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page has to have {begin} and {end} once")
    return whole


def main() -> int:
    """Draw the charts, fill the page, and keep the figures beside them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, default=MEASURED / "bench.json")
    parser.add_argument("--peers", type=Path, default=MEASURED / "peers.json")
    arguments = parser.parse_args()
    for source, target in ((arguments.bench, "make bench"), (arguments.peers, "make bench-peers")):
        if not source.exists():
            print(f"{source} is not there: run `{target}` first", file=sys.stderr)
            return 1
    bench, others = (json.loads(path.read_text()) for path in (arguments.bench, arguments.peers))
    CHARTS.mkdir(parents=True, exist_ok=True)
    charts.draw_growth(bench, CHARTS)
    charts.draw_peers(others, CHARTS)
    shutil.copyfile(arguments.bench, CHARTS / "bench.json")
    shutil.copyfile(arguments.peers, CHARTS / "peers.json")
    page = PAGE.read_text("utf-8")
    for name, words in (("rows", rows(bench)), ("growth", growth(bench)), ("peers", peers(others))):
        page = filled(page, name, words)
    PAGE.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
