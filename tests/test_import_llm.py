"""llm's logs come in from both of its layouts: conversations, threads, and what was forked off."""

import json
import shutil
import sqlite3
from base64 import b64encode
from contextlib import closing
from datetime import datetime
from typing import Any

import pytest

import evstore
from evstore.errors import Unavailable
from evstore.transfer import Imported, Reported, llm
from evstore.transfer.conversations import Conversation, Item
from tests.foreign import messages, recorded, take, texts
from tests.libraries import made_by

KEY = "import:llm:"
NOON = "2026-01-31T12:00:00+00:00"
NOON_US = 1_769_860_800_000_000
OLDER = """
create table conversations(id text primary key, name text, model text);
create table responses(id text primary key, model text, prompt text, system text, prompt_json text,
    options_json text, response text, response_json text, conversation_id text,
    duration_ms integer, datetime_utc text);
"""
TOOLS = """
create table tool_calls(id integer primary key, response_id text, name text, arguments text,
    tool_call_id text);
create table tool_results(id integer primary key, response_id text, name text, output text,
    tool_call_id text, exception text);
create table tool_results_attachments(tool_result_id integer, attachment_id text, "order" integer);
create table prompt_attachments(response_id text, attachment_id text, "order" integer);
create table prompt_fragments(response_id text, fragment_id integer, "order" integer);
"""
SHARED = """
create table fragments(id integer primary key, content text);
create table attachments(id text primary key, type text, path text, url text, content blob);
"""
THREADS = """
create table messages(hash text primary key, parent_hash text, role text, provider_metadata text);
create table parts(id integer primary key, message_hash text, position integer, type text,
    tool_name text, text text, payload text);
create table threads(id text primary key, name text, tip_message_hash text, forked_from text,
    datetime_utc text);
create table turns(id text primary key, thread_id text, parent_message_hash text,
    tip_message_hash text, model text, options_json text, duration_ms integer, datetime_utc text);
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folders with an older logs.db, and with that gone on with; and what llm reads there."""
    older, newer = tmp_path_factory.mktemp("older"), tmp_path_factory.mktemp("newer")
    responses = made_by("llm_before_threads", older)
    shutil.copy(older / "logs.db", newer / "logs.db")
    return older, responses, newer, made_by("llm", newer)


def calls_of(message: dict[str, Any]) -> list[list[Any]]:
    """The calls of a message as [name, arguments, id]."""
    return [
        [call["function"]["name"], json.loads(call["function"]["arguments"]), call.get("id")]
        for call in message.get("tool_calls", ())
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_newer", [False, True])
def test_every_response_comes_as_llm_reads_it(store, made, is_newer):
    """Prompts, systems, files, results, answers, calls and usage are those that llm tells."""
    older, responses, newer, _ = made
    _, reports = take(store, "llm", (newer if is_newer else older) / "logs.db")
    assert [] == reports
    batches = recorded(store, KEY)
    systems: dict[str, str] = {}
    assert len(responses) > 50
    for theirs in responses:
        ((batch, (answer,)),) = batches[theirs["id"]]
        assert (theirs["text"], theirs["tool_calls"]) == (answer["content"], calls_of(answer))
        source = answer["source"]
        usage = [source.get(f"{name}_tokens") for name in ("input", "output")]
        assert theirs["usage"] == [*usage, source.get("token_details")]
        began = datetime.fromisoformat(theirs["datetime_utc"]).timestamp()
        assert abs(began + theirs["duration_ms"] / 1000 - batch.time_us / 1e6) < 0.0001
        prompts = batches.get(f"{theirs['id']}/prompt", ())
        asked = [each for _, data in prompts for each in _messages(data)]
        by_role: dict[str, list[Any]] = {}
        for message in asked:
            by_role.setdefault(message["role"], []).append(message)
        found = [[m["name"], m["content"], m["tool_call_id"]] for m in by_role.get("tool", ())]
        assert theirs["tool_results"] == found
        (user,) = by_role.get("user", [{"content": ""}])
        assert theirs["prompt"] == user["content"]
        files = user.get("source", {}).get("attachments", [])
        encoded = [
            [t, u, b64encode(bytes.fromhex(c)).decode()] for t, u, c in theirs["attachments"]
        ]
        assert encoded == [[f["type"], f.get("url"), f.get("content", "")] for f in files]
        before = systems.get(theirs["conversation"], "")
        systems[theirs["conversation"]] = theirs["system"] or before
        changed = [theirs["system"]] if theirs["system"] not in ("", before) else []
        assert changed == [each["content"] for each in by_role.get("system", ())]


def rebuilt(said: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of llm that messages were made of, which all come in one batch."""
    source = said[0].get("source", {})
    role = said[0]["role"]
    parts: list[Any] = []
    for message in said:
        told = {"name": message.get("name"), "tool_call_id": message.get("tool_call_id")}
        if message["role"] == "tool":
            parts.append({"type": "tool_result", "output": message["content"], **told})
            continue
        if message["content"]:
            parts.append({"type": "text", "text": message["content"]})
        for name, arguments, number in calls_of(message):
            call = {"name": name, "arguments": arguments, "tool_call_id": number}
            parts.append({"type": "tool_call", **call})
    found = {"role": role, "parts": source.get("parts", parts)}
    if "provider_metadata" in source:
        found["provider_metadata"] = source["provider_metadata"]
    return found


@pytest.mark.timeout(600)
def test_every_thread_and_turn_comes_as_llm_reads_it(store, made):
    """The chain of each thread is a session, and that of each turn a session or a part of one."""
    _, responses, newer, found = made
    _, reports = take(store, "llm", newer / "logs.db")
    assert [] == reports
    uids = {store.session(str(info.id)).uid: str(info.id) for info in store.sessions()}
    older = {theirs["conversation"] for theirs in responses}
    chains: dict[str, list[Any]] = {}
    for info in store.sessions():
        chains[str(info.id)] = list(store.session(str(info.id)).messages)
    for thread in found["threads"]:
        name = thread["id"] + ("/thread" if thread["id"] in older else "")
        assert flat(thread["chain"]) == list(map(bare, chains[name]))
        if thread["forked_from"]:
            assert store.session(name).parent is not None
        else:
            assert thread["name"] == store.session(name).metadata["name"]
    for turn in found["turns"]:
        expected = flat(turn["chain"])
        assert any(list(map(bare, chain))[: len(expected)] == expected for chain in chains.values())
    batches = recorded(store, KEY)
    for turn in found["turns"]:
        said = [data for _, data in batches[turn["tip_message_hash"]]]
        assert all(turn["chain"][-1] == rebuilt(_messages(data)) for data in said)
        told = [each for data in said for each in _messages(data)[0]["source"].get("turns", ())]
        assert turn["id"] in [each["id"] for each in told]
    forks = [name for name in uids.values() if "b2:" in name]
    assert len(forks) > 3 < len([thread for thread in found["threads"] if thread["forked_from"]])
    assert (Imported(0, 0, 0), []) == take(store, "llm", newer / "logs.db")


def _messages(data: list[Any]) -> list[dict[str, Any]]:
    return [each for each in data if type(each) is dict and "role" in each]


def bare(message: dict[str, Any]) -> list[Any]:
    """What of a message can be compared with a part of llm's: role, text, calls, id."""
    said = [message["role"], message["content"], calls_of(message)]
    return [*said, message.get("tool_call_id"), message.get("source", {}).get("parts")]


def flat(chain: list[Any]) -> list[Any]:
    """The same of a chain as llm reads it: results of tools each by themselves."""
    found = []
    for message in chain:
        parts = message["parts"]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        calls = [part for part in parts if part["type"] == "tool_call"]
        results = [part for part in parts if part["type"] == "tool_result"]
        kinds = [part["type"] for part in parts]
        keys = {key for part in parts for key in part} - {"type", "text", "name", "arguments"}
        is_plain = (
            sorted(kinds, key=["text", "tool_call", "tool_result"].index) == kinds
            if {"text", "tool_call", "tool_result"}.issuperset(kinds)
            else False
        )
        is_plain = is_plain and len(texts) < 2 and keys <= {"tool_call_id", "output"}
        said: list[list[Any]] = []
        if texts or calls or not results:
            told = [[call["name"], call["arguments"], call["tool_call_id"]] for call in calls]
            said.append([message["role"], "".join(texts), told, None])
        said += [["tool", part["output"], [], part["tool_call_id"]] for part in results]
        found += [
            [*each, None if is_plain or number else parts] for number, each in enumerate(said)
        ]
    return found


@pytest.mark.timeout(600)
def test_logs_that_were_imported_before_the_upgrade_go_on(store, made):
    """What came from the older layout stays, and the newer one adds to it only what is new."""
    older, _, newer, _ = made
    take(store, "llm", older / "logs.db")
    before = texts(store)
    added, reports = take(store, "llm", newer / "logs.db")
    assert ([], before) == (reports, {name: texts(store)[name] for name in before})
    with evstore.open(":memory:") as anew:
        take(anew, "llm", newer / "logs.db")
        assert texts(anew) == texts(store)
    assert added.sessions == len(texts(store)) - len(before)


def database(path, schema: str, **tables: list[tuple[Any, ...]]) -> Any:
    """A file with tables and rows in them."""
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(schema)
        for name, rows in tables.items():
            for row in rows:
                db.execute(f"insert into {name} values({', '.join('?' * len(row))})", row)
    return path


def response(name: Any, text: str, answer: Any, conversation: Any = "c1", **more: Any) -> Any:
    """A row of a response."""
    told = ("m", text, more.get("system"), None, "{}", answer, more.get("json"), conversation)
    return (name, *told, more.get("took_ms", 1500), more.get("at", NOON))


def test_the_first_layouts_have_less(store, tmp_path):
    """A file from before usage and tools is read, and a response without a conversation."""
    source = database(
        tmp_path / "logs.db",
        OLDER,
        conversations=[("c1", "trip", "m")],
        responses=[
            response("r1", "a", "b"),
            response("r3", "", "e"),
            response("r2", "c", "d", None, at="never", json="{"),
        ],
    )
    assert (Imported(2, 5, 7), []) == take(store, "llm", source)
    assert {"c1": ["a", "b", "e"], "r2": ["c", "d"]} == texts(store)
    assert {"name": "trip", "model": "m"} == dict(store.session("c1").metadata)
    ((batch, _),) = recorded(store, KEY)["r1"]
    assert NOON_US + 1_500_000 == batch.time_us
    assert "{" == messages(store)["r2"][1]["source"]["response_json"]


def test_what_is_broken_in_the_older_layout_stops_only_itself(store, tmp_path):
    """Responses that cannot be read are told, and so is what stands beside them and cannot."""
    large = bytes(300 << 10)
    bad = sqlite3.Binary(b"\xff")
    source = database(
        tmp_path / "logs.db",
        OLDER + TOOLS + SHARED,
        responses=[
            response("r1", "a", None),
            response("r2", "", "b", took_ms=-5),
            response("r3", "c", "x" * 5_000_000),
            response(b"r4", "d", "e"),
            response("r5", "f", "\ud800".encode("utf-8", "surrogatepass"), "nul\0"),
            response("r6", "g", "h", 5),
        ],
        tool_calls=[(1, "r2", "f", "{", None), (2, "nobody", "f", "{}", None)],
        tool_results=[(1, "r2", "f", "out", "c1", "Oops"), (2, "r2", None, None, None, None)],
        tool_results_attachments=[(1, "big", 0)],
        prompt_attachments=[
            ("r1", "big", 0),
            ("r1", "none", 1),
            ("r1", "empty", 2),
            ("r1", "bad", 3),
        ],
        prompt_fragments=[("r1", 1, 0), ("r1", 2, 1), ("r1", 9, 2)],
        fragments=[(1, "told"), (2, bad)],
        attachments=[("big", "t", None, None, large), ("empty", "t", "p", None, None)],
    )
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("update responses set system = cast(x'ff' as text) where id = 'r6'")
        db.execute("update tool_calls set name = cast(x'ff' as text) where id = 1")
        db.execute("insert into tool_calls values(3, 'r2', 'f', '{}', 'c3')")
        db.execute("insert into tool_results values(4, 'r2', cast(x'ff' as text), '', '', '')")
        db.execute("insert into conversations values('c1', cast(x'ff' as text), 'm')")
        db.execute("insert into attachments values('bad', cast(x'ff' as text), '', '', '')")
    _, reports = take(store, "llm", source)
    found = messages(store)
    assert ["told\na", "", "out", None, "b", "c"] == [each["content"] for each in found["c1"]]
    assert {"exception": "Oops"}.items() <= found["c1"][2]["source"].items()
    assert [["f", {}, "c3"]] == calls_of(found["c1"][4])
    told = {"type": "t", "id": "big", "size_bytes": 300 << 10}
    assert [told, {"type": "t", "path": "p"}, {}] == found["c1"][0]["source"]["attachments"]
    assert ["f", ""] == texts(store)["nul%00"]
    assert 11 == len(reports), reports


def chain(*texts: str) -> dict[str, list[Any]]:
    """Messages one after the other, each named after what it says."""
    parents = (None, *texts)
    said = [(text, parent, "user", None) for text, parent in zip(texts, parents, strict=False)]
    return {
        "messages": said,
        "parts": [(None, text, 0, "text", None, text, None) for text in texts],
    }


def test_forks_of_forks_and_turns_beside_the_way(store, tmp_path):
    """Each fork begins where it parts from all before it, and a turn that was redone is a fork."""
    both, other = chain("a", "b", "c"), chain("x", "y")
    both["messages"] += [("d", "b", "user", None), ("e", "d", "user", None)]
    both["parts"] += chain("d", "e")["parts"]
    source = database(
        tmp_path / "logs.db",
        THREADS,
        messages=both["messages"] + other["messages"],
        parts=both["parts"] + other["parts"],
        threads=[
            ("t3", "third", "e", "t2", NOON),
            ("t1", "first", "c", None, NOON),
            ("t2", "second", "d", "t1", NOON),
            ("t4", None, "b", "t1", NOON),
            ("t5", "same", "c", None, NOON),
            ("t6", "gone", "x", "nobody", NOON),
            ("t7", "empty", None, None, NOON),
            ("t8", "round", "a", "t9", NOON),
            ("t9", "round", "a", "t8", NOON),
            ("t0", "unlike", "y", "t1", NOON),
        ],
        turns=[
            ("u1", "t6", "x", "y", "m", "{}", 2000, NOON),
            ("u2", "t4", "a", "b", "m", None, None, "never"),
        ],
    )
    _, reports = take(store, "llm", source)
    assert {
        "t1": ["a", "b", "c"],
        "t2": ["a", "b", "d"],
        "t3": ["a", "b", "d", "e"],
        "t4": ["a", "b"],
        "t5": ["a", "b", "c"],
        "t6": ["x"],
        "t6/y": ["x", "y"],
        "t0": ["x", "y"],
    } == texts(store)
    parents = {name: str(store.session(name).parent.id) for name in ("t2", "t3", "t4", "t0")}
    assert {"t2": "t1", "t3": "t2", "t4": "t1", "t0": "t1"} == parents
    assert ["t7", "threads"] == [found.where for found in reports]
    ((_, (told,)),) = recorded(store, KEY)["turn:u2"]
    assert "u2" == told["id"]
    *_, (given, _) = recorded(store, KEY)["x"]
    *_, (added, _) = recorded(store, KEY)["y"]
    assert 2_000_000 == added.time_us - given.time_us


def test_what_stands_in_both_layouts_comes_once(store, tmp_path):
    """A response that is a turn as well comes in with its thread, which has the name."""
    source = database(
        tmp_path / "logs.db",
        OLDER + THREADS,
        **chain("a", "b"),
        threads=[("c1", None, "b", None, NOON)],
        turns=[("r1", "c1", "a", "b", "m", None, None, NOON)],
        conversations=[("c1", "trip", "m")],
        responses=[response("r1", "a", "b")],
    )
    assert (Imported(1, 2, 2), []) == take(store, "llm", source)
    assert {"c1": ["a", "b"]} == texts(store)


PIECES = {
    "payload": '{"text_ref": [{"literal": "a"}, {"fragment": 1}, {"fragment": 9}, {"x": 1}, 5]}',
    "file": '{"attachment": {"id": "big"}}',
    "files": '{"output": "o", "name": "f", "attachments": [{"id": "small"}, {"id": "none"}, 7]}',
}


def test_what_is_broken_in_the_newer_layout_stops_only_itself(store, tmp_path):
    """Messages that lack something come in without it, and what is lacking is told."""
    source = database(
        tmp_path / "logs.db",
        THREADS + SHARED,
        messages=[
            ("m1", "lost", "user", "{cut"),
            ("m2", "m1", 5.5, None),
            ("m3", "m2", b"\xff", None),
            ("m4", "m3", "assistant", '{"k": 1}'),
            ("c1", "c2", "user", None),
            ("c2", "c1", "user", None),
        ],
        parts=[
            (1, "m1", 0, "text", None, None, PIECES["payload"]),
            (2, "m1", 1, "attachment", None, None, PIECES["file"]),
            (3, "m2", 0, None, None, None, "[1]"),
            (4, "m4", 0, "tool_result", None, None, PIECES["files"]),
            (5, "m4", 1, "new kind", None, None, '{"y": 1}'),
        ],
        threads=[
            ("t1", "first", "m4", None, NOON),
            (b"\xff", None, None, None, None),
            ("t2", None, "c1", None, NOON),
        ],
        turns=[("u1", "t1", None, None, "m", None, None, NOON)],
        fragments=[(1, "b")],
        attachments=[
            ("big", "t", None, None, bytes(300 << 10)),
            ("small", "t", None, None, b"file"),
        ],
    )
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("insert into parts values(6, 'm4', 2, cast(x'ff' as text), null, null, null)")
        db.execute("insert into turns values('u2', 't1', null, 'm4', cast(x'ff' as text), 0, 0, 0)")
        db.execute("insert into threads values(cast(x'ff' as text), 0, 0, 0, 0)")
    _, reports = take(store, "llm", source)
    found = messages(store)["t1"]
    said = [(each["role"], each["content"]) for each in found]
    assert [("user", "ab"), ("5.5", ""), ("assistant", ""), ("tool", "o")] == said
    assert "{cut" == found[0]["source"]["provider_metadata"]
    assert {"k": 1} == found[2]["source"]["provider_metadata"]
    file, *lost = found[2]["source"]["parts"][0]["attachments"]
    assert ({"type": "t", "content": "ZmlsZQ=="}, [{"id": "none"}, 7]) == (file, lost)
    ((_, (kept,)),) = recorded(store, KEY)["m3"]
    assert {"role": b"\xff", "parts": []} == kept
    assert [["", ""]] == [texts(store)["t2"]]
    assert 13 == len(reports), reports


def test_what_goes_away_while_it_is_read_is_told(tmp_path):
    """Another program may write to the file meanwhile: what it takes away is reported."""
    said = chain("a")
    source = database(
        tmp_path / "logs.db",
        THREADS,
        **said,
        threads=[("t1", None, "a", None, NOON), ("t2", None, "a", None, NOON)],
        turns=[("u1", "t1", None, None, "m", None, None, NOON)],
    )
    reading = llm.read(str(source))
    first = next(reading)
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("delete from turns")
        db.execute("delete from threads where id = 't2'")
    assert isinstance(first, Conversation)
    turn, message = first.items
    assert (Reported, Item) == (type(turn), type(message))
    assert [Reported] == [type(each) for each in reading]


def test_what_is_no_log_of_llm_is_refused(store, tmp_path):
    """A database of another program is told apart."""
    source = database(tmp_path / "a.db", "create table responses(id, text)")
    with pytest.raises(Unavailable, match="no logs of llm"):
        take(store, "llm", source)
