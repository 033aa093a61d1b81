"""What a person sees: one line for one thing, within the width of the terminal, and ages."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from rich.text import Text

import evstore
from evstore.cli import terminal
from evstore.cli.terminal import Column, Folded
from tests.command_line import run, shown, told
from tests.test_terminal import on_a_terminal

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
WIDE = "漢字" * 60
EMOJI = "\N{THUMBS UP SIGN}\U0001f3fd\N{HEAVY BLACK HEART}\ufe0f" * 40
HIDDEN = "\U000e0041\U000e0042"


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what follows print for a person."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)


def columns_at_most(line: str) -> int:
    """How many columns a line takes on a terminal that shows each sign by itself."""
    wide = re.compile("[\u2e80-\u9fff\U0001f300-\U0001faff]")
    return len(line) + len(wide.findall(line))


# Ages.


@pytest.mark.parametrize(
    ("before", "age"),
    [
        ({"microseconds": 900_000}, "now"),
        ({"seconds": 59}, "59s ago"),
        ({"seconds": 60}, "1m ago"),
        ({"minutes": 59, "seconds": 59}, "59m ago"),
        ({"hours": 23}, "23h ago"),
        ({"days": 364}, "364d ago"),
        ({"days": 800}, "2y ago"),
        ({"hours": -2, "seconds": -1}, "in 2h"),
        ({"microseconds": -900_000}, "now"),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_an_age_has_one_unit(before, age):
    """How long ago, or ahead, is told in one unit, rounded towards now."""
    assert age == terminal.age(NOW - timedelta(**before), NOW)


def test_a_log_tells_ages_and_days(path, person):
    """Of the last day a log shows ages, of the days before the time, under each day; a pipe all."""
    now = datetime.now(UTC)
    times = [now - timedelta(days=3), now - timedelta(hours=2, minutes=1), now]
    clock = times[:1]
    with evstore.open(path, clock=lambda: clock[0], actor="ada") as store:
        for clock[0] in times:
            store.session("s").variables["x"] = 1
    lines = shown("log", str(path), "s").splitlines()
    assert ["seq", "time", "by", "kind", "what", "happened"] == lines[0].split()
    days = [line for line in lines if line.endswith(" UTC")]
    assert sorted({f"{time:%Y-%m-%d} UTC" for time in times}) == days
    ages = [line.split("ada")[0].split(maxsplit=1)[1].strip() for line in lines if "ada" in line]
    assert [f"{times[0]:%H:%M:%S}", "2h ago"] == ages[:2]
    assert ages[2] in {"now", "1s ago", "2s ago"}
    exact = run("log", str(path), "s", "--json").stdout.splitlines()
    assert times == [datetime.fromisoformat(json.loads(line)["time"]) for line in exact]


# Widths.


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(path, person, monkeypatch, width):
    """Long, wide and composed signs are cut so that no terminal wraps a line."""
    file = str(path)
    with evstore.open(path, actor=WIDE) as store:
        trip = store.session(WIDE, ttl=timedelta(hours=1))
        for number, text in enumerate((WIDE, EMOJI, "x" * 500, "a\nb\x1b[2J" * 50, HIDDEN * 99)):
            trip.variables[f"{number}{text}"[:100]] = text
            trip.metadata[f"{number}"] = text
            trip.messages.append({"role": text[:50], "content": f"{text} word", "tool": [text]})
        trip.variables.set("late", WIDE, ttl=timedelta(hours=1))
        trip.fork(WIDE + "2", at=9).variables["late"] = EMOJI
        trip.variables["late"] = EMOJI + "!"
        trip.label(WIDE)
    monkeypatch.setattr(terminal, "out", lambda: Console(file=sys.stdout, width=width))
    for arguments in (
        ("ls", file),
        ("log", file, WIDE),
        ("diff", file, WIDE, "0"),
        ("diff", file, WIDE, "9"),
        ("search", file, "word"),
        ("history", file, WIDE, "late"),
        ("label", file, WIDE),
        ("get", file, WIDE),
    ):
        for line in shown(*arguments).splitlines():
            assert columns_at_most(line) <= width, (arguments, line)
    result = run("merge", file, WIDE, WIDE + "2")
    assert 1 == result.exit_code
    assert max(map(columns_at_most, result.stdout.splitlines())) <= width


def test_what_is_cut_ends_with_its_size():
    """A text that fits is whole; of one that does not there is the beginning, and its size."""
    assert "12345678" == terminal.folded(Folded(Text("12345678"), 8), 8).plain
    assert "1…  5 B" == terminal.folded(Folded(Text("12345678"), 5), 7).plain
    assert "漢…  12 B" == terminal.folded(Folded(Text("漢字漢字漢"), 12), 9).plain
    assert "漢…" == terminal.cut(Text("漢字漢字"), 4).plain
    assert 8 == terminal.columns_of(EMOJI[:4]) + terminal.columns_of("漢")


def test_a_table_takes_what_it_needs(capsys):
    """A fitted table leaves out a column that is empty throughout, and no other."""
    columns = (Column("name", 10), Column("by", 9), Column("what"))
    rows: list[terminal.Row] = [["a", "", "x"], Text("a heading"), ["b", "", "y"]]
    terminal.print_table(columns, rows, fit=True)
    assert ["name  what", "a     x", "a heading", "b     y"] == capsys.readouterr().out.splitlines()
    terminal.print_table(columns, [], fit=True)
    assert "name  by  what\n" == capsys.readouterr().out
    many = [["a", "", "x"]] * terminal.FITTED_ROWS_MAX
    terminal.print_table(columns, [*many, ["b", "ada", "y"]], fit=True)
    assert "b     a…  y" == capsys.readouterr().out.splitlines()[-1]


def test_hidden_text_is_spelled_out(path, person):
    """Signs that hide a text are visible, and in JSON stay what they are."""
    shown("set", str(path), "s", "x", f"a{HIDDEN}")
    assert "a\\U000e0041\\U000e0042\n" == shown("get", str(path), "s", "x")
    line = run("get", str(path), "s", "x", "--json").stdout
    assert line.isascii()
    assert f"a{HIDDEN}" == json.loads(line)


def test_a_change_takes_one_line(path, person):
    """However long it is, what was recorded is told in one line that ends with its size."""
    text = shown("say", str(path), "s", "user", "two\n\n  lines " + "x" * 5000)
    assert text.startswith("1  message.added  user: two ↵ lines xxx")
    assert text.endswith("x…  4.9 KiB\n")
    assert 81 == len(text)


def test_a_terminal_without_the_signs_is_no_error(path, monkeypatch):
    """Where the terminal knows ASCII alone, what it lacks is spelled out."""
    told("set", str(path), "s", "x", "\N{GREEK SMALL LETTER ALPHA}" * 100)
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    code, output = on_a_terminal("get", str(path), "s")
    assert 0 == code
    assert "\\u03b1\\u03b1" in output
