"""Deadlines at the command line: set by --ttl, shown where there is one, and swept."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import evstore
from evstore.cli import terminal
from tests.command_line import run, shown, told

HOUR = timedelta(hours=1)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what follows print for a person."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)


def deadlines(file: str, session: str) -> dict[str, datetime]:
    """The deadlines of variables, as `show` tells them to a program."""
    (now,) = told("show", file, session)
    return {name: datetime.fromisoformat(time) for name, time in now["deadlines"].items()}


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [("30m", 1800), ("2h", 7200), ("7d", 604800), ("90", 90), ("90s", 90), ("1.5h", 5400)],
)
def test_a_ttl_is_a_duration(path, ttl, seconds):
    """A number of seconds, or of the unit behind it, counts from now on."""
    before = datetime.now(UTC)
    (event,) = told("set", str(path), "s", "seat", "12A", "--ttl", ttl)
    after = datetime.now(UTC)
    deadline = deadlines(str(path), "s")["seat"]
    assert before <= deadline - timedelta(seconds=seconds) <= after
    assert "12A" == event["data"]["value"]


@pytest.mark.parametrize(
    ("ttl", "deadline"),
    [
        ("2099-01-31", datetime(2099, 1, 31, tzinfo=UTC)),
        ("2099-01-31T12:00Z", datetime(2099, 1, 31, 12, tzinfo=UTC)),
        ("2099-01-31T12:00:00+02:00", datetime(2099, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_ttl_is_a_date_or_time(path, ttl, deadline):
    """A date begins in UTC, and a time has a zone of its own."""
    told("set", str(path), "s", "seat", "12A", "--ttl", ttl)
    assert {"seat": deadline} == deadlines(str(path), "s")


@pytest.mark.parametrize(
    "ttl", ["soon", "-1", "0", "1w", "2099-01-31T12:00", "2000-01-01", "9" * 30, "9" * 30 + "d", ""]
)
def test_what_is_no_ttl_is_misuse(path, ttl):
    """What is no deadline to come is exit code 2, and nothing is written."""
    result = run("set", str(path), "s", "seat", "12A", f"--ttl={ttl}")
    assert (2, "") == (result.exit_code, result.stdout)
    assert 1 == len(result.stderr.splitlines())
    assert 2 == run("set", str(path), "s", "seat", "x", "--ttl", "1h", "--metadata").exit_code
    assert not path.exists() or [] == told("ls", str(path))


def test_a_variable_without_deadline_has_none(path):
    """Only what has a deadline is told to have one."""
    told("set", str(path), "s", "seat", "12A", "--ttl", "1h")
    told("set", str(path), "s", "seat", "12A")
    assert {} == deadlines(str(path), "s")


def test_a_person_sees_deadlines_where_there_are_some(path, person):
    """A person reads when a variable and a session expire; without deadlines there is no word."""
    file = str(path)
    shown("set", file, "plain", "city", "Rome")
    with evstore.open(path) as store:
        store.session("leased", ttl=timedelta(minutes=90, seconds=30)).variables["city"] = "Rome"
    for arguments in (("show", file, "plain"), ("get", file, "plain"), ("ls", file, "pl")):
        assert "expires" not in shown(*arguments)
    text = shown("set", file, "leased", "seat", "12A", "--ttl", "2099-01-31")
    assert '2  variable.set  seat = "12A" until 2099-01-31 00:00:00Z\n' == text
    titles, plain_or_leased, _ = shown("ls", file).splitlines()
    assert titles.endswith("updated  expires")
    assert plain_or_leased.endswith("in 1h")
    text = shown("show", file, "leased")
    assert ", in 1h\n" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["name", "type", "value", "expires"] in rows
    assert ["seat", "str", "12A", "in"] in [row[:4] for row in rows]
    assert ["city", "str", "Rome"] in rows
    assert 'seat = "12A" until 2099-01-31 00:00:00Z' in shown("log", file, "leased")


def test_a_pipe_gets_the_deadline_of_a_session(path):
    """A session tells its deadline to a program, and null where it has none."""
    with evstore.open(path) as store:
        store.session("leased", ttl=HOUR).variables["x"] = 1
        store.session("plain").variables["x"] = 1
        deadline = store.session("leased").expires_at
    for session, expected in (("leased", deadline), ("plain", None)):
        for line in (told("show", str(path), session)[0], told("ls", str(path), session)[0]):
            found = line["expires_at"]
            assert expected == (found and datetime.fromisoformat(found))


@pytest.fixture
def expired(path: Path) -> str:
    """A store in which two sessions expired, unswept, and one lives."""
    yesterday = datetime.now(UTC) - 24 * HOUR
    with evstore.open(path, clock=lambda: yesterday) as store:
        for name, ttl in (("a", HOUR), ("b", 2 * HOUR), ("c", 48 * HOUR)):
            store.session(name, ttl=ttl).variables["x"] = 1
    return str(path)


def test_a_sweep_tells_which_sessions_expired(expired):
    """Each session that expired is told once, with the uid that brings it back."""
    events = told("sweep", expired, "--actor", "cron")
    assert [("session.expired", "cron")] * 2 == [(line["kind"], line["actor"]) for line in events]
    assert ["a", "b"] == sorted(line["session"] for line in events)
    ended = {info["uid"] for info in told("ls", expired, "--deleted")}
    assert ended == {line["uid"] for line in events}
    assert [] == told("sweep", expired)
    assert ["c"] == [info["id"] for info in told("ls", expired)]
    told("restore", expired, events[0]["uid"])
    assert 2 == len(told("ls", expired))


def test_a_sweep_is_told_to_a_person(expired, person):
    """A person sees the sessions, and how many there were."""
    lines = shown("sweep", expired).splitlines()
    assert ["session", "uid"] == lines[0].split()
    ended = map(json.loads, run("ls", expired, "--deleted", "--json").stdout.splitlines())
    uids = {info["id"]: info["uid"] for info in ended}
    assert {("a", uids["a"]), ("b", uids["b"])} == {tuple(line.split()) for line in lines[1:3]}
    assert ["2 sessions expired"] == lines[3:]
    assert "no sessions expired\n" == shown("sweep", expired)


def test_an_expired_life_says_so(path, person):
    """Opened by its uid, a life that expired, and was not swept, says when that was."""
    yesterday = datetime.now(UTC) - 24 * HOUR
    with evstore.open(path, clock=lambda: yesterday) as store:
        session = store.session("a", ttl=HOUR)
        session.variables["x"] = 1
        uid = str(session.uid)
    text = shown("show", str(path), uid)
    assert "expired 20" in text
    assert ", 23h ago" in text
    assert 1 == run("sweep", f"{path}.not").exit_code
