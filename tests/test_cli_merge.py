"""`evstore merge` brings a branch home, or shows what is contested and writes nothing."""

import json

import pytest

import evstore
from evstore.cli import terminal
from tests.command_line import filled, run, shown, told


@pytest.fixture
def file(path):
    """A session and its fork, which both went on; the budget is contested."""
    file = filled(path)
    with evstore.open(file) as store:
        store.session("trip").variables["budget"] = 900
        branch = store.session("what-if")
        branch.label("early")
        branch.variables |= {"budget": 700, "hotel": "Locarno"}
        branch.messages.append({"role": "user", "content": "By night train."})
    return file


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what follows print for a person."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)


def test_a_conflict_is_exit_1_and_writes_nothing(file):
    """Where both sides changed a variable differently, each is a line, and nothing is written."""
    before = told("show", file, "trip")
    result = run("merge", file, "trip", "what-if")
    assert 1 == result.exit_code
    assert [{"name": "budget", "base": 1200, "ours": 900, "theirs": 700}] == [
        json.loads(line) for line in result.stdout.splitlines()
    ]
    assert result.stderr.startswith("evstore: 1 conflict, and nothing was written: decide with")
    assert before == told("show", file, "trip")


def test_what_is_absent_on_a_side_is_no_value(file):
    """A side that lacks the variable has no value in a pipe, and says so to a person."""
    told("delete", file, "trip", "budget")
    told("set", file, "trip", "hotel", "null")
    assert [
        {"name": "budget", "base": 1200, "theirs": 700},
        {"name": "hotel", "ours": None, "theirs": "Locarno"},
    ] == [json.loads(line) for line in run("merge", file, "trip", "what-if").stdout.splitlines()]


@pytest.mark.parametrize(("side", "budget"), [("ours", 900), ("theirs", 700)])
def test_prefer_decides(file, side, budget):
    """With --prefer one side wins; what only the other one changed, and its messages, come in."""
    events = told("merge", file, "trip", "what-if", "--prefer", side, "--actor", "eve")
    assert {"eve"} == {event["actor"] for event in events}
    (now,) = told("show", file, "trip")
    assert {"budget": budget, "city": "Rome", "hotel": "Locarno"} == now["variables"]
    assert ["Rome!", "By night train."] == [message["content"] for message in now["messages"]]
    assert [] == told("merge", file, "trip", "what-if")


def test_a_branch_is_merged_as_it_was(file):
    """With --at only what the branch was at that moment comes in."""
    told("delete", file, "what-if", "hotel")
    assert [] == told("merge", file, "trip", "what-if", "--at", "early")
    (taken,) = told("merge", file, "trip", "what-if", "--at", "6", "--prefer", "ours")
    assert ("hotel", "variable.set") == (taken["name"], taken["kind"])


def test_a_merge_is_told_to_a_person(file, person):
    """A person sees the contested values beside each other, and what a merge recorded."""
    shown("delete", file, "trip", "budget")
    shown("set", file, "trip", "hotel", "x" * 100)
    titles, budget, hotel = run("merge", file, "trip", "what-if").stdout.splitlines()
    assert ["name", "base", "ours", "theirs"] == titles.split()
    assert ["budget", "1200", "(absent)", "700"] == budget.split()
    assert hotel.startswith('hotel   (absent)                "xxxxxxxxxxxxx…  102 B  "Locarno"')
    said = "merged 'what-if' into 'trip': "
    text = shown("merge", file, "trip", "what-if", "--prefer", "theirs")
    assert f"{said}3 events recorded, now at 11\n" == text
    assert f"{said}nothing new, still at 11\n" == shown("merge", file, "trip", "what-if")


def test_what_cannot_be_merged_is_a_sentence(file):
    """Strangers are misuse; what is not there is exit code 1."""
    told("set", file, "stranger", "x", "1")
    for code, arguments in (
        (2, ("trip", "stranger")),
        (2, ("trip", "what-if", "--prefer", "both")),
        (1, ("trip", "nobody")),
        (1, ("nobody", "trip")),
        (1, ("trip", "what-if", "--at", "99")),
    ):
        result = run("merge", file, *arguments)
        assert (code, "") == (result.exit_code, result.stdout), arguments
        assert 1 == len(result.stderr.splitlines())
