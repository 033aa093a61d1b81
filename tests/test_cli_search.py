"""`evstore search` finds messages, and says where."""

from pathlib import Path

import pytest

import evstore
from evstore.cli import terminal
from tests.command_line import process, run, shown, told
from tests.test_terminal import on_a_terminal


@pytest.fixture
def file(path: Path) -> str:
    """Two sessions that speak of trains, and one that does not."""
    with evstore.open(path) as store:
        trip = store.session("trip")
        trip.messages.append({"role": "user", "content": "A night train to Rome, please."})
        trip.messages.append({"role": "assistant", "content": "There is one at nine."})
        trip.messages.replace(0, {"role": "user", "content": "A flight to Rome, please."})
        store.session("other").messages.append({"role": "user", "content": "Trains! Trains!"})
        store.session("quiet").messages.append({"role": "system", "content": "Be brief."})
    return str(path)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what follows print for a person."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)


def test_a_pipe_gets_all_of_a_hit(file):
    """Each message that is found is a line: where it stands, its role, its time and its words."""
    (hit,) = told("search", file, "rome", "flight")
    (event,) = told("log", file, "trip", "--after", "2")
    assert {
        "session": "trip",
        "seq": 3,
        "index": 0,
        "snippet": "A [flight] to [Rome], please.",
        "score": hit["score"],
        "role": "user",
        "time": event["time"],
    } == hit
    assert [] == told("search", file, "nothing")


def test_a_search_is_where_and_when_it_is_told(file):
    """--session, --at and --limit choose; a word with * stands for all that begin so."""
    assert {"other"} == {hit["session"] for hit in told("search", file, "train*")}
    at = ("--session", "trip", "--at", "1")
    assert ["trip"] == [hit["session"] for hit in told("search", file, "train*", *at)]
    assert [] == told("search", file, "train*", "--session", "trip")
    assert [2, 1, 0] == [
        len(told("search", file, "t*", "--limit", count)) for count in ("2", "1", "0")
    ]
    assert [] == told("search", file, '"rome flight"')
    assert 1 == len(told("search", file, '"to rome"'))


def test_an_ended_life_is_searched_by_its_uid(file):
    """What was deleted is still found in its own life."""
    told("delete", file, "other")
    (life,) = told("ls", file, "--deleted")
    assert [] == told("search", file, "trains")
    (hit,) = told("search", file, "trains", "--session", life["uid"])
    assert ("other", "user") == (hit["session"], hit["role"])


def test_a_person_sees_a_table(file, person):
    """A person sees where it stands, who said it, and the words, the match always among them."""
    titles, row = shown("search", file, "flight").splitlines()
    assert ["session", "seq", "role", "message"] == titles.split()
    assert "trip       3  user  A [flight] to Rome, please." == row
    assert "nothing found\n" == shown("search", file, "nothing")
    told_long = "long words ahead of all " * 5 + "needle"
    shown("say", file, "a-session-with-a-long-name-indeed", "assistant-of-note", told_long)
    (row,) = shown("search", file, "needle").splitlines()[1:]
    assert row.startswith("a-session-with-a-long-n…    1  assistant…  …")
    assert row.endswith("[needle]")
    assert 80 >= len(row)


def test_a_match_is_highlighted(file):
    """On a terminal the words that were found stand out."""
    code, output = on_a_terminal("search", file, "flight")
    assert 0 == code
    assert "A \x1b[1;33m[flight]\x1b[0m to Rome" in output


def test_a_search_brings_the_index_up_to_date(file):
    """What is searched in a file that may be written is in its index from then on."""
    before = Path(file).read_bytes()
    assert 1 == len(told("search", file, "flight"))
    indexed = Path(file).read_bytes()
    assert before != indexed
    assert 1 == len(told("search", file, "flight"))
    assert indexed == Path(file).read_bytes()


def test_what_cannot_be_searched_is_a_sentence(file):
    """A missing file, session or moment is exit code 1, and misuse exit code 2."""
    for code, arguments in (
        (1, (f"{file}.not", "x")),
        (1, (file, "x", "--session", "nobody")),
        (1, (file, "x", "--session", "trip", "--at", "99")),
        (2, (file,)),
        (2, (file, "x", "--at", "1")),
        (2, (file, " ".join("abcdefgh" * 9))),
        (2, (file, "x", "--limit", "-1")),
    ):
        result = run("search", *arguments)
        assert (code, "") == (result.exit_code, result.stdout), arguments
        assert 1 == len(result.stderr.splitlines())
    assert not Path(f"{file}.not").exists()
    assert (1, b"") == (process("search", f"{file}.not", "x").returncode, b"")
