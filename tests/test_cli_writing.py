"""A verb that writes writes to the session that it was told, or writes nothing anywhere."""

import os
from pathlib import Path

import pytest

import evstore
from tests.command_line import filled, run, shown, told


@pytest.fixture
def file(path: Path) -> str:
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(path)


def test_a_uid_is_written_to_as_it_is_read(file):
    """What is set, said and deleted by a uid is in the session that it is the uid of."""
    (trip,) = told("show", file, "trip")
    assert ["trip"] == [event["session"] for event in told("set", file, trip["uid"], "a", "1")]
    assert ["trip"] == [event["session"] for event in told("say", file, trip["uid"], "user", "x")]
    assert "1\n" == shown("get", file, "trip", "a")
    assert ["trip"] == [event["session"] for event in told("delete", file, trip["uid"], "a")]
    assert 1 == run("get", file, "trip", "a").exit_code
    assert ["trip", "what-if"] == sorted(info["id"] for info in told("ls", file))
    assert 0 == run("chat", file, trip["uid"], given="/count\n").exit_code
    assert ["trip", "what-if"] == sorted(info["id"] for info in told("ls", file))
    assert ["session.deleted"] == [event["kind"] for event in told("delete", file, trip["uid"])]
    assert ["what-if"] == [info["id"] for info in told("ls", file)]


def test_a_life_that_is_over_is_not_written_to(file):
    """By its uid no other life is changed in its place, whoever has its id now."""
    (gone,) = told("ls", file, "--deleted")
    for begun in (False, True):
        if begun:
            shown("set", file, "gone", "y", "1")
        before = Path(file).read_bytes()
        for verb, *more in (("set", "x", "1"), ("say", "user", "x"), ("delete",), ("delete", "x")):
            result = run(verb, file, gone["uid"], *more)
            assert (2, "") == (result.exit_code, result.stdout)
            assert "is read-only: restore it by its uid" in result.stderr
        assert 2 == run("chat", file, gone["uid"], given="hi\n").exit_code
        assert before == Path(file).read_bytes()
    assert "1\n" == shown("get", file, "gone", "y")


def test_what_looks_like_a_uid_may_begin(file):
    """A text that is no uid here is an id like any other."""
    assert ["0" * 32] == [event["session"] for event in told("set", file, "0" * 32, "x", "1")]
    assert "1\n" == shown("get", file, "0" * 32, "x")


@pytest.mark.parametrize(
    "arguments",
    [
        ("set", "", "x", "1"),
        ("set", "s", "x", "1", "--ttl", "2020-01-01"),
        ("set", "s", "x", "1", "--expect", "5"),
        ("set", "s", "x", "1e400"),
        ("set", "s", "x", "x" * (1 << 21)),
        ("say", "", "user", "x"),
        ("say", "s", "user", "x", "--expect", "5"),
        ("say", "s", "user", "x", "--extra", '{"role": 5}'),
    ],
)
def test_what_is_refused_leaves_no_store(path, arguments):
    """A file that is not there comes into being with a write, and not without."""
    verb, *more = arguments
    assert run(verb, str(path), *more).exit_code in (1, 2)
    assert [] == os.listdir(path.parent)


@pytest.mark.parametrize("value", ["1e400", "[1, -1e999]", '{"$float": 1e400}'])
def test_a_number_beyond_floats_is_refused(file, value):
    """No number becomes another one without a word; as text it may stand there."""
    result = run("set", file, "trip", "x", value)
    assert (2, "") == (result.exit_code, result.stdout)
    assert "write a smaller one, or use --string" in result.stderr
    shown("set", file, "trip", "x", value, "--string")
    assert [value] == told("get", file, "trip", "x")


def test_a_number_in_a_text_is_text(file):
    """Only JSON is taken for JSON, whatever it begins with."""
    shown("set", file, "trip", "x", "1e400 is large")
    with evstore.open(file) as store:
        assert "1e400 is large" == store.session("trip").variables["x"]


def test_a_past_without_a_variable_is_not_all_of_it(file):
    """Before a variable was there, its history says so, and not that it never was."""
    result = run("history", file, "trip", "city", "--at", "1")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "had by then no variable 'city': see its past without --at" in result.stderr
    result = run("history", file, "trip", "nothing")
    assert "never had a variable 'nothing': see what it has with get" in result.stderr


def test_what_cannot_be_read_says_what_to_check(file):
    """A file that the system cannot open is named, with what to look at."""
    result = run("import", file, "nope")
    assert 1 == result.exit_code
    what = "evstore: nope cannot be used: No such file or directory"
    assert f"{what}: check the path, its permissions and the disk\n" == result.stderr
