"""The summary tells how sessions grow, and which variables are used most, from the file."""

import json
from datetime import UTC, datetime, timedelta

import pytest

import evstore
from evstore import telemetry
from evstore.cli import terminal
from evstore.telemetry import access
from tests.command_line import run, shown, told
from tests.exports import exporting


def test_growth_counts_what_each_session_recorded(path):
    """The largest session comes first, with what was added in the last 24 hours."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with evstore.open(path, clock=lambda: now) as store:
        old, large = store.session("old"), store.session("large")
        old.variables["a"] = "x" * 100
        large.messages.append({"role": "user", "content": "x" * 10_000})
        now += timedelta(days=2)
        old.variables["a"] = "y" * 50
        old.fork("empty")
        store.delete("large")
        first, second = telemetry.summary(store).growth
        (only,) = telemetry.summary(store, limit=1).growth
    assert ("large", 2) == (first.session, first.events)
    assert (1, 2) == (first.recent_events, first.recent_bytes)
    assert first.text_bytes > 10_000 > first.data_bytes
    assert ("old", 2, 1) == (second.session, second.events, second.recent_events)
    assert second.text_bytes - 112 == second.recent_bytes == 62
    assert first == only


def test_writes_count_sets_of_each_variable(store, session):
    """A variable counts once for each set, in the session that recorded it; deletions do not."""
    for number in range(3):
        session.variables["often"] = number
    session.variables["once"] = 1
    del session.variables["once"]
    session.metadata["often"] = 1
    session.fork("branch").variables["often"] = 5
    written = telemetry.summary(store).written
    assert [("trip", "often", 3), ("trip", "once", 1), ("branch", "often", 1)] == [
        (each.session, each.name, each.count) for each in written
    ]
    assert 3 * len('{"value":0}') == written[0].text_bytes


def test_types_are_those_of_living_sessions_now(path):
    """Each living session counts what it shows: shared, large and lasting variables as well."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with evstore.open(path, clock=lambda: now) as store:
        trip = store.session("trip")
        trip.variables.update(a=1, b=None, c=[1], large={"x": "y" * 5000}, gone=1.5)
        trip.variables.set("soon", (1, 2), ttl=60)
        trip.variables.set("later", {"x" * 600}, ttl=6000)
        branch = trip.fork("branch")
        branch.variables["a"] = "text"
        del trip.variables["gone"]
        store.session("over").variables["x"] = b"1"
        store.delete("over")
        store.session("expires", ttl=60).variables["x"] = b"1"
        now += timedelta(seconds=600)
        types = telemetry.summary(store).types
    assert {"None": 2, "list": 2, "dict": 2, "set": 2, "int": 1, "str": 1, "float": 1} == types


def test_what_was_forgotten_has_no_type(store, session):
    """A variable whose content is gone is passed over, of its own session and of a fork."""
    session.variables.update(a="x" * 600, b=1)
    session.fork("branch")
    with store.engine.database.writing("normal") as cursor:
        cursor.execute(
            "update event set encoding = 3, salt = null, name = null, data = zeroblob(32)"
            " where name = 'a'"
        )
    summary = telemetry.summary(store)
    assert {"int": 2} == summary.types
    assert ["b"] == [each.name for each in summary.written]


def test_reads_are_counted_while_telemetry_is_on(store, session, monkeypatch):
    """The names that are read most come first; memory is bounded, and the frequent ones stay."""
    monkeypatch.setattr(access, "NAMES_MAX", 4)
    session.variables.update({f"n{number}": number for number in range(9)})
    assert 0 == session.variables["n0"]
    with exporting():
        for _ in range(5):
            assert 1 == session.variables["n1"]
        for number in range(9):
            assert number == session.variables[f"n{number}"]
        assert "absent" not in session.variables
        accessed = telemetry.summary(store).accessed
    assert ("n1", 6) == (accessed[0].name, accessed[0].count)
    assert len(accessed) <= 4
    assert accessed == telemetry.summary(store).accessed


def test_an_empty_store_has_an_empty_summary(store):
    """Nothing recorded, nothing told."""
    with exporting():
        assert telemetry.Summary([], [], [], {}) == telemetry.summary(store)


def test_a_summary_is_as_long_as_the_limit(store, session):
    """Each list has as many as are asked for; a limit below 0 is as 0."""
    session.variables.update(a=1, b=2)
    for limit, count in ((-1, 0), (0, 0), (1, 1), (1 << 63, 2)):
        assert count == len(telemetry.summary(store, limit).written)


@pytest.fixture
def file(path):
    """A store with two sessions, a fork and a variable that is set often."""
    with evstore.open(path) as store:
        trip = store.session("trip")
        for number in range(1200):
            trip.variables["step"] = number
        trip.fork("branch").variables["city"] = "Rome"
        store.session("gone").variables["x"] = {1, 2}
    return str(path)


def test_stats_tells_what_a_store_is_used_for(file):
    """A pipe gets growth, writes and types with the counts; --limit says how much of them."""
    (found,) = told("stats", file)
    assert 3 == found["sessions"]
    assert ["trip", "gone", "branch"] == [each["session"] for each in found["growth"]]
    assert ("step", 1200) == (found["written"][0]["name"], found["written"][0]["count"])
    assert {"int": 2, "str": 1, "set": 1} == found["types"]
    (found,) = told("stats", file, "--limit", "1")
    assert (1, 1) == (len(found["growth"]), len(found["written"]))
    assert 2 == run("stats", file, "--limit", "-1").exit_code


def test_stats_shows_tables(file, path, monkeypatch):
    """A person sees a table of each below the counts; of an empty store, the counts alone."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    facts, growth, written, types = shown("stats", file).split("\n\n")
    assert ["sessions", "3"] == facts.splitlines()[1].split()
    assert ["trip", "1,200"] == growth.splitlines()[1].split()[:2]
    assert ["trip", "step", "1,200"] == written.splitlines()[1].split()[:3]
    assert [["type", "variables"], ["int", "2"]] == [row.split() for row in types.splitlines()[:2]]
    with evstore.open(path.with_name("empty.db")):
        pass
    assert "\n\n" not in shown("stats", str(path.with_name("empty.db")))
    assert json.loads(run("stats", file, "--json").stdout)["events"] == 1202
