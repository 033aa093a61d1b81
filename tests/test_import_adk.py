"""Google ADK's sessions come in: messages, states over time, and what was rewound as forks."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

import evstore
from evstore.errors import Unavailable
from evstore.events import MESSAGE_ADDED, VARIABLE_SET
from evstore.transfer import Imported, Reported, adk
from evstore.transfer.conversations import Conversation, Item
from tests.foreign import messages, recorded, take, texts
from tests.libraries import made_by

NOON = 1_700_000_000.25
KEY = "import:adk:"
TABLES = """
create table sessions(app_name text, user_id text, id text, state text, create_time real,
    update_time real, primary key(app_name, user_id, id));
create table events(id text, app_name text, user_id text, session_id text, invocation_id text,
    timestamp real, event_data text);
create table app_states(app_name text primary key, state text, update_time real);
create table user_states(app_name text, user_id text, state text, update_time real,
    primary key(app_name, user_id));
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder with what ADK has written, and what ADK itself reads there."""
    folder = tmp_path_factory.mktemp("adk")
    return folder, made_by("adk", folder)


def said_in(batch, data) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """The record that a batch keeps, its messages, and what it sets."""
    kinds = [entry.kind for entry in batch.entries]
    found = [value for kind, value in zip(kinds, data, strict=True) if kind == MESSAGE_ADDED]
    sets = {
        entry.name: value
        for entry, value in zip(batch.entries, data, strict=True)
        if entry.kind == VARIABLE_SET
    }
    return found[0]["source"] if found else data[0], found, sets


def rebuilt(batch, data) -> dict[str, Any]:
    """The event that a batch was made of, from what evstore has of it."""
    source, found, sets = said_in(batch, data)
    event = {**source, "author": batch.actor}
    if found and "content" not in event:
        parts: list[Any] = []
        for message in found:
            if message["role"] == "tool":
                told = {"id": message["tool_call_id"], "name": message["name"]}
                response = json.loads(message["content"])
                parts.append({"function_response": {**told, "response": response}})
                continue
            parts += [{"text": message["content"]}] if message["content"] else []
            for call in message.get("tool_calls", ()):
                arguments = json.loads(call["function"]["arguments"])
                told = {"id": call["id"], "name": call["function"]["name"], "args": arguments}
                parts.append({"function_call": told})
        event["content"] = {"parts": parts, "role": None}
    if sets:
        event["actions"] = {**event.get("actions", {}), "state_delta": sets}
    return event


def plain(event: dict[str, Any], against: dict[str, Any]) -> dict[str, Any]:
    """An event as ADK reads it, without what is empty, and the role where a message tells it."""
    actions = {key: value for key, value in event["actions"].items() if value not in ({}, [])}
    delta = actions.get("state_delta", {})
    if delta := {key: value for key, value in delta.items() if not key.startswith("temp:")}:
        actions["state_delta"] = delta
    content = event.get("content")
    if content and against["content"]["role"] is None:
        content = {**content, "role": None}
    found = {**event, "actions": actions, "content": content}
    return {key: value for key, value in found.items() if value and key != "timestamp"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", ["sqlite", "database"])
def test_every_event_comes_as_adk_reads_it(store, made, service):
    """Each event of a session can be told again from what was recorded of it, at its time."""
    folder, found = made
    _, reports = take(store, "adk", folder / f"{service}.db")
    assert ([], 24) == (reports, len(found[service]))
    batches = recorded(store, KEY)
    compared = 0
    for session in found[service]:
        for event in session["events"]:
            ((batch, data),) = batches[event["id"]]
            ours = rebuilt(batch, data)
            assert plain(event, ours) == {key: value for key, value in ours.items() if value}
            assert abs(event["timestamp"] - batch.time_us / 1e6) < 0.00001
            compared += 1
    assert compared > 100


@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", ["sqlite", "database"])
def test_a_session_is_what_adk_holds_to_be_live(store, made, service):
    """Messages are those that no rewind took back, and the state is that which ADK tells."""
    folder, found = made
    take(store, "adk", folder / f"{service}.db")
    batches = recorded(store, KEY)
    for session in found[service]:
        owner = f"{session['app_name'].replace('/', '%2F')}/{session['user_id']}"
        ours = store.session(f"{owner}/{session['session_id']}")
        live = [batches[name][0] for name in session["live"]]
        assert [m for each in live for m in said_in(*each)[1]] == list(ours.messages)
        shared = {**store.session(owner).variables}
        if owner.split("/", maxsplit=1)[0] in texts(store):
            shared |= store.session(owner.split("/", maxsplit=1)[0]).variables
        mine = {name: value for name, value in ours.variables.items() if ":" not in name}
        assert session["state"] == {**mine, **shared}
    undone = {e["id"] for s in found[service] for e in s["events"]} - {
        name for session in found[service] for name in session["live"]
    }
    forks = [info for info in store.sessions() if len(str(info.id).split("/")) == 4]
    assert len(undone) > len(forks) > 3
    assert (0, []) == (
        take(store, "adk", folder / f"{service}.db")[0].events,
        take(store, "adk", folder / f"{service}.db")[1],
    )


def event(name: str, text: str | None, at: float = NOON, **more: Any) -> tuple[str, float, str]:
    """A row of an event by a user: its id, time and JSON."""
    record: dict[str, Any] = {"author": "user", "timestamp": at, **more}
    if text is not None:
        record["content"] = {"role": "user", "parts": [{"text": text}]}
    return name, at, json.dumps(record)


def database(path, *events, state: Any = "{}", shared: Any = "{}") -> Any:
    """A file as SqliteSessionService writes it, with one session trip/anna/s; made anew."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(TABLES)
        db.execute("insert into sessions values('trip', 'anna', 's', ?, ?, 1)", (state, NOON))
        db.execute("insert into app_states values('trip', ?, ?)", (shared, NOON))
        for number, (name, at, data) in enumerate(events):
            invocation = json.loads(data).get("invocation_id", f"i{number}") if data else ""
            row = (name, "trip", "anna", "s", invocation, at, data)
            db.execute("insert into events values(?, ?, ?, ?, ?, ?, ?)", row)
    return path


def test_a_rewind_goes_on_from_what_was_before(store, tmp_path):
    """What was taken back is a fork, also once the session was imported before the rewind."""
    before = [event("e1", "a", NOON), event("e2", "b", NOON + 1), event("e3", "c", NOON + 2)]
    rewind = {"rewind_before_invocation_id": "i1", "state_delta": {"x": None}}
    after = [event("e4", None, NOON + 3, actions=rewind), event("e5", "d", NOON + 4)]
    other = event("e6", None, NOON + 5, actions={"rewind_before_invocation_id": "nothing"})
    source = database(tmp_path / "a.db", *before)
    take(store, "adk", source)
    assert ["a", "b", "c"] == texts(store)["trip/anna/s"]
    database(source, *before, *after, other, state='{"x": null}')
    added, reports = take(store, "adk", source)
    assert (1, []) == (added.sessions, reports)
    assert ["a", "d"] == texts(store)["trip/anna/s/e4"]
    with evstore.open(":memory:") as anew:
        take(anew, "adk", source)
        assert ["a", "d"] == texts(anew)["trip/anna/s"]
        assert ["a", "b", "c"] == texts(anew)["trip/anna/s/e2"]
        assert {"x": None} == dict(anew.session("trip/anna/s").variables)


def test_a_rewind_to_the_beginning_keeps_what_was_there_at_first(store, tmp_path):
    """The fork of all that was taken back has the state with which the session was created."""
    rewind = {"rewind_before_invocation_id": "i0"}
    events = [event("e1", "a"), event("e2", None, NOON + 1, actions=rewind)]
    take(store, "adk", database(tmp_path / "a.db", *events, state='{"budget": 5}'))
    assert {"trip/anna/s": [], "trip/anna/s/e1": ["a"], "trip": []} == texts(store)
    assert {"budget": 5} == dict(store.session("trip/anna/s/e1").variables)


def test_a_state_that_changes_later_is_no_fork(store, tmp_path):
    """What the session was created with stays its beginning when an event sets it anew."""
    source = database(tmp_path / "a.db", state='{"a": 1, "b": 2}', shared='{"x": 1}')
    take(store, "adk", source)
    delta = {"state_delta": {"b": 3, "app:x": 2, "temp:y": 4}}
    database(
        source,
        event("e1", "a", NOON + 1, actions=delta),
        state='{"a": 1, "b": 3}',
        shared='{"x": 2}',
    )
    added, reports = take(store, "adk", source)
    assert (Imported(0, 2, 4), []) == (added, reports)
    assert {"a": 1, "b": 3, "app:x": 2} == dict(store.session("trip/anna/s").variables)
    assert {"app:x": 2} == dict(store.session("trip").variables)
    assert {"app:x": 1} == dict(store.session("trip").at(3).variables)


def test_a_state_that_no_event_explains_is_reported(store, tmp_path):
    """Where a state is not what the events made it, these are believed, and it is said."""
    delta = {"state_delta": {"a": 1, "b": 2, "user:c": 3}}
    source = database(tmp_path / "a.db", event("e1", "a", actions=delta), state='{"a": 1, "b": 9}')
    _, reports = take(store, "adk", source)
    assert [("trip/anna/s", "1 variables, the first of them 'b'")] == [
        (found.where, found.what) for found in reports
    ]
    assert {"a": 1, "b": 2, "user:c": 3} == dict(store.session("trip/anna/s").variables)


@pytest.mark.parametrize(
    ("part", "expected", "is_whole"),
    [
        ({"text": "a"}, {"role": "user", "content": "a"}, True),
        ({"text": "a", "thought": True}, {"role": "user", "content": ""}, False),
        ({"text": "a", "thought_signature": "x"}, {"role": "user", "content": "a"}, False),
        ({"text": 5}, {"role": "user", "content": ""}, False),
        ("a", {"role": "user", "content": ""}, False),
        (
            {"function_response": {"response": {"x": 1}}},
            {"role": "tool", "content": '{"x": 1}'},
            True,
        ),
        (
            {"function_response": {"id": "1", "name": "f", "parts": []}},
            {"role": "tool", "content": "null", "tool_call_id": "1", "name": "f"},
            False,
        ),
        (
            {"function_call": {"name": "f", "args": {}}},
            {
                "role": "user",
                "content": "",
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            True,
        ),
    ],
)
def test_parts_become_messages(store, tmp_path, part, expected, is_whole):
    """Text, calls and results are said as model APIs do; what is more stands under `source`."""
    content = {"role": "user", "parts": [part]}
    take(store, "adk", database(tmp_path / "a.db", event("e1", None, content=content)))
    (message,) = messages(store)["trip/anna/s"]
    source = message.pop("source")
    assert (expected, is_whole) == (message, "content" not in source)
    assert is_whole or content == source["content"]


@pytest.mark.parametrize("content", [None, "text", [], {"parts": "x"}, {"parts": []}, {"role": []}])
def test_an_event_that_says_nothing_is_kept(store, tmp_path, content):
    """An event without a message is an event here, too."""
    source = database(tmp_path / "a.db", event("e1", None, content=content, author=7, actions=[1]))
    take(store, "adk", source)
    (kept,) = [data for _, (data,) in recorded(store, KEY)["e1"]]
    assert ("e1", content, [1]) == (kept["id"], kept["content"], kept["actions"])


def test_what_is_broken_stops_only_itself(store, tmp_path):
    """Rows that cannot be read are told, and all others come in."""
    deep = "[" * 100_000 + "]" * 100_000
    near = '{"content": {"parts": [{"function_call": {"name": "f", "args": '
    near += '{"a":' * 900 + "1" + "}" * 900 + "}}]}}"
    rows = [
        event("e1", "a"),
        ("e2", NOON + 1, None),
        ("e1", NOON + 2, "{}"),
        ("e5", NOON + 4, near),
        event("e6", "\ud800", NOON + 5),
        event("e7", "x" * 5_000_000, NOON + 6),
        ("e8", NOON + 7, json.dumps({"timestamp": "never", "content": {"parts": [{"text": "b"}]}})),
        event("\0", "nul", NOON + 8),
    ]
    source = database(tmp_path / "a.db", *rows, state="[]", shared="{")
    with closing(sqlite3.connect(source)) as db, db:
        said = "insert into events values(?, 'trip', 'anna', 's', 'i', ?, ?)"
        db.execute(said, (b"e9", NOON, "{}"))
        db.execute(said, ("f1", NOON, deep))
        db.execute(said, ("f2", NOON, "[1]"))
        db.execute(said, ("f3", NOON, "{cut"))
        db.execute(said, ("f4", NOON, sqlite3.Binary(b"\xff")))
        db.execute("insert into events values(cast(x'ff' as text), 'trip', 'anna', 's', 'i', 1, 1)")
        db.execute("insert into sessions values('trip', x'05', 's', '{}', 1, 1)")
        db.execute("insert into sessions values('trip', cast(x'ff' as text), 's', '{}', 1, 1)")
        db.execute("insert into sessions values('trip', 'bob', 's', '{', 'never', 1)")
        db.execute("insert into app_states values(x'00', '{}', 1)")
        db.execute("insert into app_states values(cast(x'ff' as text), '{}', 1)")
    _, reports = take(store, "adk", source)
    assert ["a", "b", "nul"] == texts(store)["trip/anna/s"]
    assert [] == texts(store)["trip/bob/s"]
    assert 18 == len(reports), reports
    again, reports_again = take(store, "adk", source)
    assert (0, 15) == (again.events, len(reports_again))


def test_what_goes_away_while_it_is_read_is_told(tmp_path):
    """Another program may write to the file meanwhile: what it takes away is reported."""
    delta = {"state_delta": {"app:x": 1}}
    source = database(tmp_path / "a.db", event("e1", "a", invocation_id=None, actions=delta))
    reading = adk.read(str(source))
    session = next(reading)
    assert isinstance(session, Conversation)
    assert [Item, Item] == [type(each) for each in session.items]
    shared = next(reading)
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("delete from events")
        db.execute("drop table user_states")
    assert isinstance(shared, Conversation)
    assert [Item, Reported] == [type(each) for each in shared.items]
    assert ([], 2) == (list(reading), len(list(adk.read(str(source)))))


def test_what_is_no_store_of_adk_is_refused(store, tmp_path):
    """Other files are told apart, also those with pickles, which nobody opens here."""
    source = tmp_path / "a.db"
    source.write_bytes(b"")
    with pytest.raises(Unavailable, match="no SQLite database"):
        take(store, "adk", source)
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("create table sessions(x)")
    with pytest.raises(Unavailable, match="no sessions of Google ADK"):
        take(store, "adk", source)
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("drop table sessions")
        db.execute("create table sessions(app_name, user_id, id, state)")
        db.execute("create table events(id, app_name, user_id, session_id, actions blob)")
    with pytest.raises(Unavailable, match="pickles"):
        take(store, "adk", source)
