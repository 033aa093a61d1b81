"""The benchmark runs to its end and means what it says; how fast anything is, no test asks."""

import asyncio
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import evstore
from tools.bench import child, made
from tools.bench.__main__ import WORKLOADS, choose
from tools.bench.bench import Bench
from tools.bench.measured import Rounds, Spread, interleave, quantile, spread
from tools.bench.report import Report
from tools.bench.targets import TARGETS, Figure, Target, verdict
from tools.bench.together import Member, count_wrong
from tools.charts import GROWTH, draw_growth, draw_peers, scale
from tools.peers.__main__ import PEERS
from tools.peers.environments import OURS
from tools.peers.worker import Worker
from tools.performance_docs import PAGE, filled

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--quick", "--scale", "0.0001", "--rounds", "1"]
AWAITED = {"tasks_one", "tasks_many", "tasks_wrong", "tasks_wait"}


def bench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the benchmark as a person would, with small sizes."""
    command = [sys.executable, "-m", "tools.bench", *SMALL, "--folder", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_row_is_measured(tmp_path: Path):
    """Each row of the table has a figure, unless its feature does not exist."""
    result = bench(tmp_path)
    assert 0 == result.returncode, result.stdout + result.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {target.name for targets in TARGETS.values() for target in targets} == set(rows)
    absent = {name for name, row in rows.items() if row["verdict"] == "not built yet"}
    assert absent <= AWAITED
    for name in set(rows) - absent:
        values = [rows[name][key] for key in ("low", "median", "high")]
        assert sorted(values) == values, name
        assert all(map(math.isfinite, values)), name
    assert {"events", "sessions", "names", "sizes", "processes"} == {
        point["curve"] for point in found["points"]
    }


def test_a_run_leaves_its_figures_alone(tmp_path: Path):
    """After a run the disk holds the figures that were asked for, and no stores."""
    result = bench(tmp_path, "--only", "load", "--json", str(tmp_path / "here.json"))
    assert 0 == result.returncode, result.stderr
    assert ["here.json"] == [path.name for path in tmp_path.iterdir()]
    found = json.loads((tmp_path / "here.json").read_text())
    assert ["load"] == [row["name"] for row in found["rows"]]
    assert {"rows", "messages"} == set(found["rows"][0]["samples"])
    assert found["machine"]["sqlite"]


def test_an_unknown_name_is_misuse(tmp_path: Path):
    """What is not a workload or a row is refused before anything is measured."""
    result = bench(tmp_path, "--only", "speed")
    assert 2 == result.returncode
    assert "'speed'" in result.stderr
    assert not (tmp_path / "bench.json").exists()


def test_a_row_brings_its_workload():
    """A row can be asked for by its own name, and a workload brings all its rows."""
    assert {"reads": ["load"]} == {
        workload: [target.name for target in targets]
        for workload, targets in choose(["load"]).items()
    }
    assert {"care": list(TARGETS["care"])} == choose(["care"])
    assert set(TARGETS) == set(WORKLOADS) == set(choose(None))


@pytest.mark.parametrize(
    ("bound", "at_least", "value", "said"),
    [
        (2, False, 2, "met"),
        (2, False, 2.1, "missed"),
        (2, True, 2, "met"),
        (2, True, 1.9, "missed"),
        (None, False, 2, "measured"),
    ],
)
def test_a_verdict_follows_from_the_bound(bound: Any, at_least: Any, value: Any, said: Any):
    """A bound is met when it is reached, from its own side."""
    target = Target("row", "work", "ms", bound, at_least=at_least)
    assert said == verdict(target, Figure("row", Spread(value, value, value)))


def test_what_is_absent_has_no_verdict():
    """A feature that does not exist is neither met nor missed."""
    assert "not built yet" == verdict(Target("row", "work", "ms", 2), None)


def test_what_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A workload that fails has its reason in every row it owes, and the others still run."""

    def fail(_bench: Bench) -> Any:
        raise OSError("the disk has gone")

    monkeypatch.setitem(WORKLOADS, "batches", fail)
    from tools.bench.__main__ import measure

    report = Report(0.0001, 1)
    measure(Bench(tmp_path, 0.0001, 1), "batches", list(TARGETS["batches"]), report)
    said = [(row["verdict"], row["failure"]) for row in report.rows]
    assert [("failed", "OSError: the disk has gone")] * len(TARGETS["batches"]) == said


def test_a_spread_is_the_middle_half():
    """The quartiles lie where half of all values lie between them."""
    assert Spread(3, 2, 4) == spread([5, 1, 3, 2, 4])
    assert 2.5 == quantile([1, 2, 3, 4], 0.5)
    assert Spread(7, 7, 7) == spread([7])


def test_works_take_turns():
    """In every round each work has its turn, in a new order, and the first round is forgotten."""
    calls: list[str] = []
    works = {"one": lambda: calls.append("one"), "two": lambda: calls.append("two")}
    took = interleave(works, 50, 2, before={"two": lambda: calls.append("before")})
    order = "".join({"one": "1", "two": "2", "before": "b"}[call] for call in calls)
    assert re.fullmatch("(11b22|b2211){51}", order)
    assert {"11b22", "b2211"} == {order[turn : turn + 5] for turn in range(0, len(order), 5)}
    assert 100 == took.summaries()["one"].calls


def test_a_ratio_is_taken_inside_a_round():
    """A machine that became nine times as slow in between changes no ratio, but every time."""
    took = Rounds([{"one": [1.0], "two": [2.0]}, {"one": [9.0], "two": [18.0]}])
    assert Spread(2, 2, 2) == took.ratio("two", "one")
    assert Spread(5, 3, 7) == took.difference("two", "one")
    assert Spread(5, 3, 7) == took.each("one")


def test_a_rate_pays_for_slow_calls():
    """A rate counts the rare slow call, which a median leaves out."""
    took = Rounds([{"one": [10.0, 10.0, 10.0, 970.0]}])
    assert 4000 == took.rate("one").median


def test_lost_doubled_and_moved_messages_are_counted(store: evstore.Store):
    """Whatever is not where it was acknowledged counts, and so does what had failed."""
    session = store.session("session-0")
    good, lost, doubled, moved, failed = (Member(number, session) for number in range(5))
    numbers = {good: [0, 1], lost: [0], doubled: [0, 1, 1], moved: [1, 0], failed: [0, 1, -1]}
    for member, appended in numbers.items():
        member.acknowledged = 2
        session.messages.extend(member.message(number) for number in appended)
    assert [0, 1, 1, 2, 1] == [count_of(store, member) for member in numbers]


def count_of(store: evstore.Store, member: Member) -> int:
    """How many messages of one member are wrong: those of strangers count as well."""
    session = store.session("session-0")
    strangers = len([each for each in session.messages if each["member"] != member.number])
    return count_wrong(store, [member]) - strangers


def test_the_long_store_uses_all_its_names(path: Path):
    """A long session has the events and the names it was asked for, and grows when asked again."""
    made.lengthen(path, 500, names=10)
    made.lengthen(path, 1500, names=10)
    with evstore.open(path) as store:
        session = store.session("long")
        assert (1500, 10, 450) == (
            session.head,
            len(session.variables),
            len(session.messages),
        )
        assert [] == list(evstore.replay.verify(store, level="full"))


def test_a_child_that_fails_says_so(path: Path):
    """A measuring process that ends without a figure is an error of the run."""
    with pytest.raises(RuntimeError, match="ended early"):
        child.run("read_last", path=str(path.parent))


def test_a_peer_that_cannot_be_had_stays_in_the_table(tmp_path: Path):
    """What cannot be installed or started is named with its reason, and the others are measured."""
    cache = tmp_path / "cache"
    (cache / "redis_server").mkdir(parents=True)
    wanted = (ROOT / "tools" / "peers" / "requirements" / "redis_server.txt").read_text()
    (cache / "redis_server" / "ready").write_text(wanted)  # but its Python is missing
    command = [sys.executable, "-m", "tools.peers", "--quick", "--folder", str(tmp_path / "disk")]
    command += ["--cache", str(cache), "--only", "by_hand", "--only", "redis_server"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == result.returncode, result.stderr
    assert "not measured" in result.stdout
    found = json.loads((tmp_path / "disk" / "peers.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {"evstore", "by_hand", "redis_server"} == set(rows)
    assert "No such file" in rows["redis_server"]["failure"]
    for name in ("evstore", "by_hand"):
        assert {"append", "set", "load"} == set(rows[name]["works"])
        assert all(work["median_us"] > 0 for work in rows[name]["works"].values())
        assert 500 + 2 * 10 + 2 * 4 * 5 == rows[name]["kept"]
        assert 200 < rows[name]["each_bytes"] < 2000  # a message of 300 bytes
    assert 1 == rows["evstore"]["works"]["append"]["ratio"]["median"]


def test_a_peer_that_loses_messages_is_out(tmp_path: Path):
    """A peer whose conversation does not come back whole has no figures, only a reason."""

    class Forgetful:
        def fill(self, messages: list[Any]) -> None:
            self.kept = messages[1:]

        def load(self) -> list[Any]:
            return self.kept

    loop = asyncio.new_event_loop()
    worker = Worker(Forgetful(), loop)
    assert {"count": 10} == worker.run("fill", 10)
    with pytest.raises(ValueError, match="10 messages were kept, 9 came back"):
        worker.run("load", 1)
    assert {"took_us": None} == worker.run("set", 1)
    loop.close()


def test_every_peer_has_its_script_and_its_requirements():
    """A peer in the table has a worker, and what it needs is written down with versions."""
    scripts = {path.stem for path in (ROOT / "tools" / "peers" / "workers").glob("*.py")}
    assert set(PEERS) == scripts
    for name in set(PEERS) - set(OURS):
        first, *_ = (ROOT / "tools" / "peers" / "requirements" / f"{name}.txt").read_text().split()
        assert "==" in first, name


def test_the_charts_show_what_was_measured(tmp_path: Path):
    """Every curve and every peer is drawn, peers without figures too, as well-formed SVG."""
    took = {"low_us": 90, "median_us": 100, "high_us": 2000}
    points: list[dict[str, Any]] = [
        {"curve": curve, "work": work, "x": x, **took}
        for curve in GROWTH
        for work in ("append <one>", "read")
        for x in (1, 1000)
    ]
    works = {"append": {"ratio": {"median": 2.5}}, "set": None, "load": {"ratio": {"median": 40}}}
    peers = [
        {"name": "evstore", "title": "evstore", "works": works},
        {"name": "redis_server", "title": "Redis & friends", "failure": "none"},
    ]
    draw_growth({"points": points}, tmp_path)
    draw_peers({"rows": peers}, tmp_path)
    found = tmp_path.glob("*.svg")
    drawn = {path.stem: ET.parse(path) for path in found}  # noqa: S314 - we drew it
    assert {"peers", *(f"growth-{curve}" for curve in GROWTH)} == set(drawn)
    words = ["".join(element.itertext()) for element in drawn["peers"].iter()]
    assert {"2.50 \u00d7", "40 \u00d7", "Redis & friends: not measured here"} <= set(words)
    paths = [element for element in drawn["growth-events"].iter() if element.tag.endswith("path")]
    assert 4 == len(paths)  # of each work a band and a line


def test_an_axis_has_room_for_all_values():
    """All values lie on the axis, even if there is only one, at a power of ten."""
    axis = scale([3, 400], 0, 300)
    assert (1, 1000) == (axis.low, axis.high)
    assert [1, 10, 100, 1000] == list(axis.ticks())
    assert 100 == pytest.approx(axis.place(10))
    alone = scale([10], 0, 300)
    assert (10, 100) == (alone.low, alone.high)


def test_the_page_is_filled_between_its_marks():
    """Figures replace what stands between two marks, and nothing else; both have to be there."""
    assert "a <!-- x -->\n1\n<!-- /x --> b" == filled("a <!-- x -->\nold\n<!-- /x --> b", "x", "1")
    with pytest.raises(ValueError, match="has to have"):
        filled("a <!-- x --> b", "x", "1")
    page = PAGE.read_text("utf-8")
    for name in ("rows", "growth", "peers"):
        assert "found\n" in filled(page, name, "found")
    for picture in re.findall(r"\((charts/[^)]+)\)", page):
        assert (PAGE.parent / picture).exists(), picture
