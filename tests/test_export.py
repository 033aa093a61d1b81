"""Exports: every format, of all sessions or one, at any moment, whole or not there at all."""

import json
import os
import sqlite3
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore.agent import FileSystemStorage
from evstore.chain import birth_leaf, said_by
from evstore.errors import MissingExtra, NoSuchMoment, Refused, SessionNotFound, Unavailable
from evstore.transfer import (
    EXPORTS,
    Reported,
    export_lines,
    export_stream,
    export_to,
    import_from,
    import_lines,
)
from tests.command_line import filled, run
from tests.histories import HISTORIES, fresh_store, live_through
from tests.values_strategy import plain_json, texts

STREAMS = ("jsonlines", "markdown", "openai-jsonl")
PLACES = tuple(sorted(set(EXPORTS) - set(STREAMS)))


def said(text: Any, role: str = "user") -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": text}


def files(path: Path) -> dict[str, Any]:
    """What a folder of conversations says, by file."""
    return {file.name: json.loads(file.read_bytes()) for file in path.glob("*.json")}


def rows(path: Path, query: str) -> list[Any]:
    """What a query of a file of tables finds."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def ids(path: Path) -> list[str]:
    """The sessions in a file of tables."""
    return [id for (id,) in rows(path, "select session from sessions order by session")]


# A folder of conversations.


@settings(max_examples=50)
@given(HISTORIES)
def test_a_folder_of_conversations_comes_back(tmp_path_factory, history):
    """What session-dir exports is imported again: the same sessions with the same messages."""
    folder = tmp_path_factory.mktemp("export") / "sessions"
    with fresh_store() as store, fresh_store() as copy:
        live_through(store, history)
        export_to(store, "session-dir", folder)
        import_from(copy, "session-dir", folder)
        for info in store.sessions():
            messages = list(store.session(info.id).messages)
            assert messages == list(copy.session(info.id).messages)


@settings(max_examples=20)
@given(st.lists(st.builds(said, plain_json, texts), max_size=5))
def test_a_folder_is_what_the_storage_writes(tmp_path_factory, messages):
    """The files are those of FileSystemStorage, to the byte, and it loads them."""
    folder = tmp_path_factory.mktemp("export")
    storage = FileSystemStorage(folder / "storage")
    with evstore.open(":memory:") as store:
        for id in ("trip", "a/b", "Ü", "x" * 200, "Ü" * 200):
            store.session(id, metadata={"a": 1}).messages.extend(messages)
            store.session(id).variables["x"] = 1
            storage.save(id, messages)
        export_to(store, "session-dir", folder / "export")
    for kept in (folder / "storage").iterdir():
        assert kept.read_bytes() == (folder / "export" / kept.name).read_bytes()
    assert messages == FileSystemStorage(folder / "export").load("Ü" * 200)


def test_what_json_lacks_is_tagged(store, tmp_path):
    """A message that plain JSON can hold stands as it is; what it lacks is a tagged object."""
    deep: Any = b"x"
    for _ in range(90):
        deep = {1: deep}  # three levels of JSON each
    given = [said({"$tuple": [1]}), said((1, b"\0")), said({1: 2}), said(float("nan")), said(deep)]
    store.session("trip").messages.extend(given)
    export_to(store, "session-dir", tmp_path / "sessions")
    contents = [m["content"] for m in files(tmp_path / "sessions")["trip.json"]]
    assert {"$tuple": [1]} == contents[0]
    assert {"$tuple": [1, {"$bytes": "AA=="}]} == contents[1]
    assert {"$dict": [[1, 2]]} == contents[2]
    assert {"$float": "nan"} == contents[3]
    assert '{"$dict":[[1,{"$dict":' in json.dumps(contents[4], separators=(",", ":"))
    assert b'{"$dict":[[1,{"$dict":' in b"".join(export_stream(store, "markdown"))


@pytest.mark.parametrize("format", sorted(EXPORTS))
def test_a_key_that_is_no_text_is_its_json(store, tmp_path, format):
    """A message may have any keys, and leaves in every format, with its role."""
    odd: dict[Any, Any] = {5: (b"\0",), None: {"$bytes": "x"}, (1, "a"): {2: 3}}
    store.session("trip").messages.append({**said("Rome?"), **odd})
    export_to(store, format, tmp_path / "out")
    if format == "session-dir":
        assert {
            **said("Rome?"),
            "5": {"$tuple": [{"$bytes": "AA=="}]},
            "null": {"$bytes": "x"},
            '{"$tuple":[1,"a"]}': {"$dict": [[2, 3]]},
        } == files(tmp_path / "out")["trip.json"][0]
    if format == "tables":
        assert [("user", "Rome?")] == rows(tmp_path / "out", "select role, content from messages")


@pytest.mark.parametrize("format", sorted(EXPORTS))
def test_an_export_runs_no_code_of_the_application(store, tmp_path, format):
    """A class that has become stricter since does not stop what it recorded from leaving."""
    is_strict = False

    class Money:
        cents = 5

    def decode(cents: int) -> Money:
        assert not is_strict
        return Money()

    name = f"{__name__}.Money.{format}"
    evstore.register(Money, name=name, encode=lambda money: money.cents, decode=decode)
    store.session("trip").messages.append(said({"price": Money()}))
    is_strict = True
    export_to(store, format, tmp_path / "out")


# Which sessions, and when.


@pytest.mark.parametrize("format", sorted(EXPORTS))
def test_every_format_is_written_whole_or_not_at_all(store, tmp_path, format):
    """A file or folder is for its owner alone; one that is there, or fails, leaves nothing else."""
    trip = store.session("trip")
    trip.messages.append(said("Rome?"))
    done: list[int] = []
    target = tmp_path / "out"
    export_to(store, format, target, progress=done.append)
    assert 0 == stat.S_IMODE(target.stat().st_mode) & 0o077
    assert done[-1] >= 1
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refused, match="is there already"):
        export_to(store, format, target)
    with pytest.raises(NoSuchMoment):
        export_to(store, format, tmp_path / "other", trip, at=99)
    with pytest.raises(SessionNotFound):
        export_to(store, format, tmp_path / "other", "nobody")
    with pytest.raises(SessionNotFound):
        export_to(store, format, tmp_path / "other", store.session("unborn"))
    with pytest.raises(Unavailable):
        export_to(store, format, tmp_path / "nowhere" / "other")
    assert before == sorted(tmp_path.iterdir())


@pytest.mark.parametrize("format", STREAMS)
def test_a_stream_is_what_the_file_holds(store, tmp_path, format):
    """What goes into a pipe is what is written to a file."""
    store.session("trip").messages.append(said("Rome?"))
    export_to(store, format, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"".join(export_stream(store, format))


def test_what_is_no_stream_wants_a_path(store):
    """A format of several files is refused as a stream, and so is one that does not exist."""
    for format in (*PLACES, "docx"):
        with pytest.raises(Refused):
            export_stream(store, format)


def test_the_past_of_one_session(store, tmp_path):
    """A session leaves as it was at a sequence, a label or a time."""
    trip = store.session("trip")
    for number in range(3):
        trip.messages.append(said(str(number)))
    trip.label("two", at=2)
    for at in (2, "two", trip.at(2).time):
        export_to(store, "session-dir", tmp_path / repr(at)[:3], trip, at=at)
        assert [said("0"), said("1")] == files(tmp_path / repr(at)[:3])["trip.json"]


def test_the_past_of_all_sessions(store, tmp_path):
    """At a time all sessions leave that lived then: ended ones too, and none that came later."""
    for id in ("gone", "back", "kept"):
        store.session(id).messages.append(said("a"))
    store.session("kept").fork("fork-then")
    store.restore(store.delete("back").uid)
    early = store.session("kept").messages.append(said("b"))[0].time
    store.delete("gone")
    late = store.session("late").messages.append(said("c"))[0].time
    store.session("late").fork("fork-late")
    uid = next(info.uid for info in store.sessions(deleted=True))
    export_to(store, "tables", tmp_path / "early", at=early)
    export_to(store, "tables", tmp_path / "late", at=late)
    export_to(store, "tables", tmp_path / "one", store.session(uid=uid))
    assert ["back", "fork-then", "gone", "kept"] == ids(tmp_path / "early")
    assert ["back", "fork-then", "kept", "late"] == ids(tmp_path / "late")
    assert ["gone"] == ids(tmp_path / "one")
    for at in (3, "label", datetime(2026, 1, 1)):  # noqa: DTZ001 - naive on purpose
        with pytest.raises(Refused):
            export_to(store, "tables", tmp_path / "no", at=at)
        with pytest.raises(Refused):
            list(export_stream(store, "jsonlines", at=at))


def test_a_session_that_ends_meanwhile_leaves_as_it_was(store, tmp_path):
    """Sessions are read one after the other; one that has ended by then as it was."""
    for id in ("a", "b"):
        store.session(id).variables["x"] = 1

    def end_b(_done: int) -> None:
        if "b" in store:
            store.delete("b")

    export_to(store, "tables", tmp_path / "out", progress=end_b)
    assert ["a", "b"] == ids(tmp_path / "out")


# Lines that lose nothing, up to a moment.


@given(HISTORIES, st.integers(0, 30), st.integers(0, 5))
def test_the_log_up_to_a_moment(history, back, which):
    """The lines up to a moment, imported, are the session up to the batch that holds it."""
    with fresh_store() as store, fresh_store() as copy:
        sessions = live_through(store, history)
        session = sessions[which % len(sessions)]
        if session.uid is None:
            return
        at = max(0, session.head - back)
        import_lines(copy, export_lines(store, session, at))
        fork = session.parent.seq if session.parent else 1
        if at < fork:
            assert session.id not in copy
            return
        same = copy.session(uid=session.uid)
        assert at <= same.head
        events = list(session.events())[: same.head]
        assert events[-1:] == [] or events[-1].seq == same.head
        assert [e.text for e in events] == [e.text for e in same.events()]
        if at < same.head:  # The moment is inside of its batch.
            assert events[at - 1].time == events[-1].time


def test_the_log_of_all_up_to_a_time(store, memory):
    """By a time all batches leave that were recorded by then."""
    first = store.session("a").variables.set("x", 1)[0].time
    store.session("b").variables["x"] = 1
    import_lines(memory, export_lines(store, at=first))
    assert ["a"] == [info.id for info in memory.sessions()]
    before = first - timedelta(days=1)
    assert 2 == len(list(export_lines(store, at=before)))
    assert 3 == len(list(export_stream(store, "jsonlines"))) - 3
    assert datetime.now(UTC) > first


# What was forgotten.


@pytest.fixture
def forgetful(memory):
    """A store with a session whose id was forgotten, and its first message and variable."""
    with evstore.open(":memory:") as source:
        session = source.session("secret")
        with session.batch() as batch:
            batch.messages.append(said("secret"))
            batch.variables["secret"] = 1
            batch.metadata["secret"] = 1
        session.messages.append(said("kept"))
        first, _ = source.engine.changes(0)
        header, birth, batch_line, *rest = map(json.loads, export_lines(source))
        said_of = said_by(first.actor, first.cause, first.key)
        batch_line["events"] = [
            {"kind": entry.kind, "version": 1, "leaf": entry.hashed(said_of).hex()}
            for entry in first.entries
        ]
        lines = [header, birth, batch_line, *rest]
        import_lines(memory, [json.dumps(line).encode() for line in lines])
    return memory


@pytest.mark.parametrize("format", sorted(EXPORTS))
def test_what_was_forgotten_is_left_out(forgetful, tmp_path, format):
    """Every format goes round what was forgotten, and says so where it has no place for it."""
    reports: list[Reported] = []
    export_to(forgetful, format, tmp_path / "out", report=reports.append)
    expected = 1 if format in ("openai-jsonl", "session-dir") else 0
    assert [("secret", "message 0")] * expected == [(r.where, r.what) for r in reports]
    if format == "session-dir":
        assert [said("kept")] == files(tmp_path / "out")["secret.json"]
    if format == "markdown":
        assert "## 0. (forgotten)" in (tmp_path / "out").read_text()
    if format == "tables":
        query = "select message from messages order by number"
        assert None is rows(tmp_path / "out", query)[0][0]


def test_a_forgotten_id_names_no_file(memory, tmp_path):
    """A session without an id leaves under its uid, but not into a folder of named files."""
    with evstore.open(":memory:") as source:
        source.session("secret").messages.append(said("a"))
        (batch,) = source.engine.changes(0)
        header, birth, *rest = map(json.loads, export_lines(source))
        del birth["id"], birth["salt"]
        of = batch.birth
        assert of is not None
        assert of.salt is not None
        assert of.id is not None
        birth["leaf"] = birth_leaf(of.salt, of.id, batch.actor, batch.cause).hex()
        import_lines(memory, [json.dumps(line).encode() for line in [header, birth, *rest]])
    session = memory.session(uid=batch.uid.hex())
    reports: list[Reported] = []
    export_to(memory, "session-dir", tmp_path / "out", session, report=reports.append)
    assert [(session.uid, "a session")] == [(report.where, report.what) for report in reports]
    assert [] == list((tmp_path / "out").iterdir())
    assert f"# `{session.uid}`\n" in b"".join(export_stream(memory, "markdown", session)).decode()


# The verb.


def test_the_verb_exports(path, tmp_path):
    """Streams go to stdout, the rest wants a place; what is left out makes the exit code 1."""
    file = filled(path)
    with evstore.open(path) as store:
        store.session("odd").messages.append({"role": "user", "content": "a", "mood": "odd"})
    markdown = run("export", file, "trip", "--to", "markdown", "--at", "3")
    assert (0, "") == (markdown.exit_code, markdown.stderr)
    assert "> Rome?\n" in markdown.stdout
    assert "`budget`" in markdown.stdout
    tuned = run("export", file, "--to", "openai-jsonl")
    assert 1 == tuned.exit_code
    assert "evstore: odd: message 0: the form has no place for 'mood'" in tuned.stderr
    for format in PLACES:
        assert 2 == run("export", file, "--to", format).exit_code
        out = str(tmp_path / format)
        done = run("export", file, "--to", format, "-o", out, "--at", "2999-01-01T00:00:00Z")
        assert (0, "", "") == (done.exit_code, done.stdout, done.stderr)
        assert 2 == run("export", file, "--to", format, "-o", out).exit_code
    assert 3 == len(files(tmp_path / "session-dir"))
    assert 2 == run("export", file, "--at", "2").exit_code
    assert 1 == run("export", file, "trip", "--at", "2").stdout.count('"batch"')


def test_a_person_sees_harmless_text(path, monkeypatch):
    """On a terminal, what messages say cannot move the cursor, in any stream."""
    with evstore.open(path, durability="normal") as store:
        store.session("trip").messages.append(said("a\n\x1b[2Jb\u202e"))
    monkeypatch.setattr("evstore.cli.terminal.is_terminal", lambda: True)
    for format in STREAMS:
        shown = run("export", str(path), "--to", format).stdout
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "> a\n> \\x1b[2Jb\\u202e\n" in run("export", str(path), "--to", "markdown").stdout


def test_without_pyarrow_the_extra_is_named(store, tmp_path, monkeypatch):
    """Where pyarrow is not installed, nothing is made, and the extra is named."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "evstore.transfer.parquet", raising=False)
    monkeypatch.delattr("evstore.transfer.parquet", raising=False)
    with pytest.raises(MissingExtra, match=r"evstore\[parquet\]"):
        export_to(store, "parquet", tmp_path / "out")
    assert [] == [name for name in os.listdir(tmp_path) if "out" in name or "partial" in name]
