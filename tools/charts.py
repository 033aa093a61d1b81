"""Draw what was measured: the peers beside evstore, and how costs grow, as SVG without scripts."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from tools.bench.report import shown

STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .title { font-size: 15px; font-weight: 600; } .soft { fill: #59636e; }
  .grid { stroke: #d1d9e0; } .axis { stroke: #59636e; } .end { text-anchor: end; }
  .middle { text-anchor: middle; }
  .line { fill: none; stroke-width: 2; } .band { opacity: 0.15; }
  .c0 { stroke: #3b6fd4; } .f0 { fill: #3b6fd4; } .c1 { stroke: #c2571a; } .f1 { fill: #c2571a; }
  .c2 { stroke: #1a8f6f; } .f2 { fill: #1a8f6f; } .c3 { stroke: #9146b5; } .f3 { fill: #9146b5; }
  .c4 { stroke: #94811b; } .f4 { fill: #94811b; } .c5 { stroke: #c23b6b; } .f5 { fill: #c23b6b; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .soft { fill: #9198a1; } .grid { stroke: #3d444d; }
    .axis { stroke: #9198a1; }
  }
"""

# What each growth chart is called, and what lies along its axis.
GROWTH = {
    "events": ("Cost as a session grows", "events in the session"),
    "sessions": ("Cost as sessions are added", "sessions in the file"),
    "names": ("Cost as variables are added", "variables of the session"),
    "sizes": ("Cost as a value grows", "bytes of the value"),
    "processes": ("Durable appends of several processes", "processes"),
}
WORKS = {"append": "append a message", "set": "set a variable", "load": "load a conversation"}
LEFT, RIGHT, TOP, WIDTH, HEIGHT = 64, 44, 64, 616, 250  # of the area of a growth chart, in pixels


class Scale(NamedTuple):
    """A logarithmic axis: from where to where, in values and in pixels."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        """Yield the powers of ten in it."""
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            if self.low * 0.999 <= 10.0**power <= self.high * 1.001:
                yield 10.0**power


def scale(values: Sequence[float], start: float, end: float) -> Scale:
    """Return an axis of whole powers of ten on which all values have their place."""
    low, high = (math.log10(bound) for bound in (min(values), max(values)))
    return Scale(
        10.0 ** math.floor(low), 10.0 ** max(math.floor(low) + 1, math.ceil(high)), start, end
    )


def svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """Return a whole picture."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
    lines = [f'{head} width="{width:g}" role="img" aria-label="{escape(title)}">']
    lines += [f"<style>{STYLE}</style>", text(12, 24, title, "title"), *parts, "</svg>"]
    return "\n".join(lines) + "\n"


def text(x: float, y: float, words: str, style: str = "") -> str:
    """Return one line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def path(points: Sequence[tuple[float, float]], style: str, end: str = "") -> str:
    """Return a line through some points."""
    through = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<path d="M{through}{end}" class="{style}"/>'


def time_shown(time_us: float) -> str:
    """Return a time as it stands beside an axis."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if time_us >= size:
            return f"{time_us / size:g} {unit}"
    return f"{time_us:g} µs"


def growth(curve: str, points: Sequence[dict[str, Any]]) -> str:
    """Draw how the cost of some works grows; the middle half of the samples is shaded."""
    title, along = GROWTH[curve]
    bottom = TOP + HEIGHT
    across = scale([point["x"] for point in points], LEFT, LEFT + WIDTH)
    if curve == "processes":  # too few for powers of ten
        across = Scale(0.9, max(point["x"] for point in points) * 1.1, LEFT, LEFT + WIDTH)
    up = scale([point[key] for point in points for key in ("low_us", "high_us")], bottom, TOP)
    works: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for point in points:
        works[point["work"]].append(point)
    parts = [*_frame(across, up, sorted({point["x"] for point in points}))]
    parts.append(text(LEFT + WIDTH, bottom + 36, along, "soft end"))
    x: float = 12
    for number, (work, found) in enumerate(works.items()):
        parts += _curve(sorted(found, key=lambda point: float(point["x"])), across, up, number)
        parts.append(f'<circle cx="{x + 5:.1f}" cy="42" r="5" class="f{number}"/>')
        parts.append(text(x + 15, 46, work))
        x += 35 + 7 * len(work)
    return svg(title, LEFT + WIDTH + RIGHT, bottom + 46, parts)


def _frame(across: Scale, up: Scale, xs: Sequence[float]) -> Iterator[str]:
    for tick in up.ticks():
        yield line(across.start, up.place(tick), across.end, up.place(tick), "grid")
        yield text(across.start - 8, up.place(tick) + 4, time_shown(tick), "soft end")
    for x in xs:
        yield text(across.place(x), up.start + 18, f"{x:,.0f}", "soft middle")
    yield line(across.start, up.start, across.end, up.start, "axis")


def _curve(found: list[dict[str, Any]], across: Scale, up: Scale, number: int) -> Iterator[str]:
    def along(key: str) -> list[tuple[float, float]]:
        return [(across.place(point["x"]), up.place(point[key])) for point in found]

    yield path([*along("low_us"), *reversed(along("high_us"))], f"band f{number}", "Z")
    yield path(along("median_us"), f"line c{number}")
    for x, y in along("median_us"):
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="f{number}"/>'


def peers(rows: Sequence[dict[str, Any]]) -> str:
    """Draw how many times as long as evstore each peer takes; to the left of 1 it is quicker."""
    parts = [
        text(12, 44, "all durable; the scale is logarithmic, and left of 1 × is quicker", "soft")
    ]
    y: float = 60
    ratios = [
        work["ratio"]["median"] for row in rows for work in row.get("works", {}).values() if work
    ]
    across = scale([*ratios, 1], 270, 600)
    for work, title in WORKS.items():
        compared = [
            (row["works"][work]["ratio"]["median"], row)
            for row in rows
            if row.get("works", {}).get(work)
        ]
        compared.sort(key=itemgetter(0))
        parts += [text(12, y + 16, title, "title")]
        bottom = y + 30 + 22 * len(compared)
        for tick in across.ticks():
            style = "axis" if tick == 1 else "grid"
            parts.append(line(across.place(tick), y + 24, across.place(tick), bottom, style))
            parts.append(text(across.place(tick), y + 18, f"{tick:g} ×", "soft middle"))
        for place, (ratio, row) in enumerate(compared):
            parts += _bar(row, ratio, y + 30 + 22 * place, across)
        y = bottom + 14
    for row in rows:
        if "failure" in row:
            y += 18
            parts.append(text(12, y, f"{row['title']}: not measured here", "soft"))
    return svg("Time as a multiple of evstore's", 690, y + 14, parts)


def _bar(row: dict[str, Any], ratio: float, y: float, across: Scale) -> Iterator[str]:
    start, end = sorted((across.place(1), across.place(ratio)))
    yield text(262, y + 13, row["title"], "end")
    yield (
        f'<rect x="{start:.1f}" y="{y:.1f}" width="{max(2, end - start):.1f}" height="17" '
        f'rx="2" class="f{0 if row["name"] == "evstore" else 1}"/>'
    )
    yield text(end + 6, y + 13, f"{shown(ratio)} ×")


def draw_growth(found: Any, folder: Path) -> None:
    """Draw the curves of a run of the benchmark."""
    curves: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for point in found["points"]:
        curves[point["curve"]].append(point)
    for curve, points in curves.items():
        (folder / f"growth-{curve}.svg").write_text(growth(curve, points))


def draw_peers(found: Any, folder: Path) -> None:
    """Draw the peers of a run."""
    (folder / "peers.svg").write_text(peers(found["rows"]))
