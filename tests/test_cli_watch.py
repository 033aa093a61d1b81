"""`evstore watch` shows what is there and what comes, until it is stopped or nobody listens."""

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import evstore
from tests.command_line import EVSTORE, filled, process, run
from tests.test_processes import CHILD_S_MAX


@pytest.fixture
def file(path: Path) -> str:
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(path)


@contextmanager
def watching(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """An `evstore watch` with its output in a pipe, killed at the end if it still runs."""
    environment = os.environ.copy()
    environment.pop("PYTHONUNBUFFERED", None)
    with subprocess.Popen(
        [*EVSTORE, "watch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def lines(child: "subprocess.Popen[bytes]", count: int) -> list[Any]:
    """The next lines that a process prints."""
    assert child.stdout is not None
    return [json.loads(child.stdout.readline()) for _ in range(count)]


def test_what_comes_is_printed_at_once(file):
    """In a pipe each event is a line of JSON, the newest first 10, and then each as it comes."""
    with watching(file, "trip") as child, evstore.open(file) as store:
        trip = store.session("trip")
        assert [event.seq for event in trip.events()] == [line["seq"] for line in lines(child, 5)]
        trip.variables["city"] = "Oslo"
        store.session("other").record("app.x")
        store.delete("trip")
        city, end = lines(child, 2)
    assert (6, "city", {"value": "Oslo"}) == (city["seq"], city["name"], city["data"])
    assert (7, "session.deleted") == (end["seq"], end["kind"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), slice(6, None)),
        (("--after", "3"), slice(5, None)),
        (("--from-start",), slice(None)),
        (("trip",), slice(None, 5)),
        (("trip", "--after", "2"), slice(2, 5)),
        (("other",), slice(8, None)),
    ],
    ids=["newest", "position", "start", "session", "sequence", "newest of session"],
)
def test_a_watch_begins_where_it_is_told(file, arguments, expected):
    """It begins with the 10 newest events, also inside a batch, or where it is told to."""
    with evstore.open(file) as store:
        with store.session("other").batch() as batch:
            for _ in range(8):
                batch.record("app.x")
        recorded = [(event.position, event.seq) for event in store.watch(after=0).poll()]
    assert 16 == len(recorded)
    with watching(file, *arguments) as child:
        printed = lines(child, len(recorded[expected]))
    assert recorded[expected] == [(line["position"], line["seq"]) for line in printed]


def test_a_session_that_is_not_there_is_waited_for(file):
    """A session that is not born yet is shown from its birth on."""
    with watching(file, "newborn") as child, evstore.open(file) as store:
        time.sleep(1)  # Now it waits.
        store.session("newborn").record("app.born")
        (line,) = lines(child, 1)
    assert ("newborn", "app.born", 1) == (line["session"], line["kind"], line["seq"])


def test_an_interrupt_ends_a_watch_quietly(file):
    """Ctrl-C is how a watch ends: exit code 0, and no word."""
    with watching(file) as child:
        lines(child, 8)
        child.send_signal(signal.SIGINT)
        assert (b"", b"") == child.communicate(timeout=CHILD_S_MAX)
    assert 0 == child.returncode


def test_a_reader_that_leaves_ends_a_watch(file):
    """When nobody reads any more, a watch ends without a word, even if nothing comes."""
    with watching(file) as child:
        lines(child, 8)
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert b"" == child.stderr.read()
        assert 141 == child.wait(CHILD_S_MAX)


def test_a_watch_is_told_one_beginning(file):
    """Two beginnings, or one that is not there yet, are misuse, and so is no store."""
    result = run("watch", file, "--after", "1", "--from-start")
    assert 2 == result.exit_code
    assert "give one of them" in result.stderr
    for arguments in (("--after", "8"), ("trip", "--after", "6")):
        result = run("watch", file, *arguments)
        assert 2 == result.exit_code
        assert "cannot be watched after" in result.stderr
    assert 1 == process("watch", f"{file}.not").returncode


@pytest.mark.parametrize(
    ("arguments", "row", "end"),
    [
        ((), "gone                   1  ", b"session.deleted"),
        (("trip",), "     2  ", b"message.replaced"),
    ],
    ids=["store", "session"],
)
def test_a_person_sees_a_coloured_line_for_each_event(file, arguments, row, end):
    """On a terminal the events are rows of a table, those of a store with their session."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    output = b""
    with subprocess.Popen(
        [*EVSTORE, "watch", file, *arguments], stdout=follower, stderr=follower, env=environment
    ) as child:
        os.close(follower)
        while end not in output:
            output += os.read(leader, 1 << 16)
        child.send_signal(signal.SIGINT)
        with suppress(OSError):  # Linux says so when the other side is gone.
            while piece := os.read(leader, 1 << 16):
                output += piece
    os.close(leader)
    assert 0 == child.returncode
    (line,) = [line for line in output.decode().splitlines() if line.startswith(row)]
    assert "\x1b[36mvariable.set" in line
