"""What LangGraph has stored becomes sessions: each checkpoint is a moment with the same state."""

import json
import sqlite3
import sys
import uuid
from collections import Counter
from datetime import date, timedelta
from typing import Any

import attrs
import ormsgpack
import pytest

import evstore
from evstore.errors import MissingExtra, Unavailable
from evstore.transfer import Imported, export_lines, import_lines
from evstore.transfer.conversations import Variable
from evstore.transfer.langgraph_state import differences
from tests.foreign import messages, said, take, texts
from tests.libraries import made_by

pytestmark = pytest.mark.timeout(600)  # its environment may have to be made first
KEPT = "app.imported.langgraph"
TYPES = {"user": "human", "assistant": "ai", "system": "system", "tool": "tool"}
DEFAULTS = {"additional_kwargs": {}, "response_metadata": {}, "status": "success"}
TABLES = """
create table checkpoints (
    thread_id text, checkpoint_ns text, checkpoint_id text, parent_checkpoint_id text, type text,
    checkpoint blob, metadata blob, primary key (thread_id, checkpoint_ns, checkpoint_id));
create table writes (
    thread_id text, checkpoint_ns text, checkpoint_id text, task_id text, idx integer,
    channel text, type text, value blob);
create table store (prefix text, key text, value text, updated_at text, primary key (prefix, key));
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The file that the library has written, and what it reads there."""
    folder = tmp_path_factory.mktemp("langgraph")
    found = made_by("langgraph", folder)
    return folder / "langgraph.db", found


@pytest.fixture
def written(tmp_path):
    """Return a file with these checkpoints: (id, parent, values), and whatever else is given."""

    def write(*checkpoints, rows=(), writes=(), store=()):
        source = tmp_path / "threads.db"
        with sqlite3.connect(source) as file:
            file.executescript(TABLES)
            given = [
                ("t", "", name, parent, "msgpack", packed(name, values), b"{}")
                for name, parent, values in checkpoints
            ]
            marks = "insert into {} values ({})".format
            file.executemany(marks("checkpoints", "?, ?, ?, ?, ?, ?, ?"), [*given, *rows])
            file.executemany(marks("writes", "'t', '', ?, ?, ?, ?, ?, ?"), writes)
            file.executemany(marks("store", "?, ?, ?, ?"), store)
        file.close()
        return source

    return write


def packed(name, values):
    """A checkpoint as it is stored."""
    fields = {"id": name, "ts": f"2026-01-31T12:00:{len(name):02}+00:00", "channel_values": values}
    return ormsgpack.packb(fields)


def instance(code, *parts):
    """An object as it is stored."""
    return ormsgpack.Ext(code, ormsgpack.packb(parts))


def moments(store):
    """The view of each checkpoint, by its id; of those that several sessions share, each is one."""
    found = {}
    for info in store.sessions():
        session = store.session(str(info.id))
        for event in session.events(kind=KEPT):
            if "checkpoint" in event.data:
                found[event.data["checkpoint"]["id"]] = (session, event)
    return found


def as_fields(message):
    """The fields of LangChain that a message was made of, put together again."""
    if type(message) is not dict or "role" not in message:
        return message
    fields: dict[str, Any] = {**DEFAULTS, "type": TYPES.get(message["role"])}
    fields |= {name: value for name, value in message.items() if name not in ("role", "source")}
    if fields["type"] is None:
        fields |= {"type": "chat", "role": message["role"]}
    fields["tool_calls"] = [
        {
            "name": call["function"]["name"],
            "args": json.loads(call["function"]["arguments"]),
            "id": call["id"],
            "type": "tool_call",
        }
        for call in fields.get("tool_calls", ())
    ]
    return fields | message.get("source", {})


def shown(value):
    """What the script that made a file would print of a value."""
    if type(value) is set:
        return sorted(value)
    return value.hex() if type(value) is bytes else str(value)


def through_json(value):
    return json.loads(json.dumps(value, default=shown))


def has_all(expected, fields):
    """Tell whether fields say what is expected; what is not there has an empty default."""
    return all(
        fields.get(name) == value or (name not in fields and not value)
        for name, value in expected.items()
    )


def test_every_checkpoint_is_a_moment_with_its_state(store, made):
    """At each checkpoint the messages and variables are those that the library reads there."""
    source, found = made
    added, reports = take(store, "langgraph", source)
    assert {"channel noted"} == {reported.what for reported in reports}
    assert 20 <= len({checkpoint["thread"] for checkpoint in found["checkpoints"]})
    assert 200 < len(found["checkpoints"]) < added.batches
    there = moments(store)
    for expected in found["checkpoints"]:
        session, event = there[expected["id"]]
        view = session.at(event.seq)
        values = expected["values"] if type(expected["values"]) is dict else None
        said_there = [as_fields(through_json(message)) for message in view.messages]
        channel = "talk" if expected["thread"] == "renamed" else "messages"
        for one, other in zip((values or {}).get(channel, []), said_there, strict=True):
            assert has_all(one, other), (one, other)
        rest = {
            name: value
            for name, value in (values or {"__root__": expected["values"]}).items()
            if name not in ("messages", "talk") and value is not None
        }
        if rest.get("noted"):
            del rest["noted"]  # of which only changes are stored, as the next test tells
        assert rest == through_json(dict(view.variables)), expected["id"]
        assert expected["metadata"] == event.data["metadata"]
        assert expected["ts"] == event.time.isoformat()
    assert Imported(0, 0, 0) == attrs.evolve(take(store, "langgraph", source)[0], reported=0)


def test_what_only_its_program_adds_up_is_kept(store, made):
    """Changes of a channel that are no messages are kept raw, all of them, and told once a way."""
    source, found = made
    _, reports = take(store, "langgraph", source)
    assert 2 == len(reports)
    session = store.session("changes")
    writes = [write for e in session.events(kind=KEPT) for write in e.data.get("writes", [])]
    noted = [text for write in writes if write["channel"] == "noted" for text in write["value"]]
    *_, newest = (one for one in found["checkpoints"] if one["thread"] == "changes")
    assert len(noted) > 1
    assert newest["values"]["noted"] == noted
    assert "noted" not in session.variables


def test_ways_that_part_are_forks(store, made):
    """The path to the newest checkpoint is the session; each other one begins at its parent."""
    source, found = made
    take(store, "langgraph", source)
    there = moments(store)
    parents = {checkpoint["id"]: checkpoint["parent"] for checkpoint in found["checkpoints"]}
    newest = {checkpoint["thread"]: checkpoint["id"] for checkpoint in found["checkpoints"]}
    for thread, name in newest.items():
        way = [event.data["checkpoint"]["id"] for event in store.session(thread).events(kind=KEPT)]
        expected = [name]
        while parents[expected[-1]] is not None:
            expected.append(parents[expected[-1]])
        assert expected[::-1] == way
    forked = [session for session, _ in there.values() if session.parent is not None]
    parting = [count for count in Counter(parents.values()).values() if count > 1]
    assert {session.id for session in forked}
    assert len(parting) <= len({session.id for session in forked})


def test_a_subgraph_is_a_session_of_its_own(store, made):
    """What runs inside of a node stands under the name of its namespace."""
    source, found = made
    take(store, "langgraph", source)
    there = moments(store)
    assert found["inner"]
    for expected in found["inner"]:
        session, event = there[expected["checkpoint_id"]]
        assert f"outer/{expected['checkpoint_ns']}" == session.id
        contents = [message["content"] for message in session.at(event.seq).messages]
        assert contents == [m["content"] for m in expected["values"].get("messages", [])]
        assert expected["checkpoint_ns"] == session.metadata["checkpoint_ns"]


def test_what_waits_for_an_answer_is_kept(store, made):
    """An interrupt stands in a session beside its thread, and what was answered in the thread."""
    source, found = made
    take(store, "langgraph", source)
    ((task, channel, value),) = found["waiting"]["waiting"]
    (name,) = (name for name in messages(store) if name.endswith("/pending"))
    (write,) = store.session(name).events(kind=KEPT)
    assert [task, channel] == [write.data["task_id"], write.data["channel"]]
    assert value == write.data["value"]
    assert name == f"waiting/{store.session(name).metadata['checkpoint_id']}/pending"
    kept = [event.data for event in store.session("answered").events(kind=KEPT)]
    channels = [write["channel"] for record in kept for write in record.get("writes", [])]
    assert ["__interrupt__", "__resume__"] == sorted(set(channels))


def test_what_a_store_remembers_becomes_variables(store, made):
    """Each prefix of a SqliteStore is a session, with the values that it has."""
    source, found = made
    take(store, "langgraph", source)
    assert {"users.u0", "users.u1"} == set(found["store"])
    for prefix, values in found["store"].items():
        assert values == dict(store.session(f"store/{prefix}").variables)


def test_a_file_that_grows_adds_what_is_new(store, written):
    """A thread goes on in its session; a value that was put again is told, and stays."""
    one, two, three = (said(word) for word in ("one", "two", "three"))
    first = ("1", None, {"messages": [one], "a": 1})
    source = written(first, store=[("p", "k", "1", "2026-01-31 12:00:00")])
    take(store, "langgraph", source)
    with sqlite3.connect(source) as file:
        add = "insert into checkpoints values ('t', '', ?, ?, 'msgpack', ?, '{}')"
        file.execute(add, ("22", "1", packed("22", {"messages": [one, two]})))
        file.execute(add, ("333", "22", packed("333", {"messages": [two, three], "a": True})))
        file.execute("update store set value = '2', updated_at = '2026-01-31 13:00:00'")
        file.execute(add, ("4444", "333", packed("4444", {"messages": [two, three], "a": 1})))
    added, (reported,) = take(store, "langgraph", source)
    assert (Imported(0, 3, 10, kept=3, reported=1), "store/p") == (added, reported.where)
    assert ["two", "three"] == texts(store)["t"]
    third, fourth = (moments(store)[name][1].seq for name in ("333", "4444"))
    values = [store.session("t").at(seq).variables["a"] for seq in (third, fourth)]
    assert ["True", "1"] == list(map(repr, values))
    second = moments(store)["22"][1]
    assert ["one", "two"] == [m["content"] for m in store.session("t").at(second.seq).messages]
    assert {} == dict(store.session("t").at(second.seq).variables)
    assert {"k": 1} == dict(store.session("store/p").variables)


def test_messages_of_every_kind(store, written):
    """What LangChain's messages say comes in, and what is too strange for that stays as it is."""
    human = {"type": "human", "content": "hi", "example": False, "additional_kwargs": {}}
    call = {"name": "f", "args": {"a": 1}, "id": None, "type": "tool_call", "index": 0}
    known = {"name": "f", "args": {"a": 1}, "id": "c", "type": "tool_call"}
    odd = {"name": "f", "args": instance(1, "datetime", "date", (2026, 1, 31)), "id": "c"}
    classes = ["langchain_core.messages.human", "HumanMessage"]
    source = written(
        (
            "1",
            None,
            {
                "messages": [
                    instance(5, *classes, human, "model_validate_json"),
                    instance(4, "langchain.schema", "AIMessage", {"content": "", "name": 5}),
                    instance(2, *classes, {**human, "type": "AIMessageChunk", "id": "x"}),
                    instance(5, *classes, {"type": "chat", "role": "boss", "content": None}),
                    instance(5, *classes, {"type": "ai", "tool_calls": [call]}),
                    instance(5, *classes, {"type": "ai", "tool_calls": [odd]}),
                    instance(5, *classes, {"type": "ai", "tool_calls": [7], "source": 1}),
                    instance(5, *classes, {"type": "ai", "tool_calls": [known]}),
                    {"role": "user", "content": "plain"},
                ],
                "others": [
                    instance(5, *classes, {"type": "chat", "role": 5}),
                    instance(5, *classes, {"type": 5}),
                    instance(5, *classes, [human]),
                ],
            },
        )
    )
    take(store, "langgraph", source)
    function = {"name": "f", "arguments": '{"a": 1}'}
    assert [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "source": {"type": "AIMessage", "name": 5}},
        {"role": "assistant", "content": "hi", "source": {"type": "AIMessageChunk", "id": "x"}},
        {"role": "boss", "content": None, "source": {"type": "chat"}},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": function}],
            "source": {"tool_calls": [call]},
        },
        {
            "role": "assistant",
            "content": None,
            "source": {"tool_calls": [{**odd, "args": date(2026, 1, 31)}]},
        },
        {"role": "assistant", "content": None, "source": {"tool_calls": [7], "source": 1}},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        },
        {"role": "user", "content": "plain"},
    ] == list(store.session("t").messages)
    others = store.session("t").variables["others"]
    assert [{"type": "chat", "role": 5}, {"type": 5}, [human]] == others


def test_objects_become_plain_data(store, written):
    """No class is imported: an object is its arguments, and the names of classes are told."""
    values = {
        "trip": instance(5, "os", "system", {"city": "Rome"}, "model_validate_json"),
        "bad date": instance(1, "datetime", "date", [2026, 13, 1]),
        "bad id": instance(0, "uuid", "UUID", 5),
        "array": instance(6, "<i4", [2], "C", b"\0" * 8),
        "unknown": ormsgpack.Ext(99, b"?"),
        "deep": instance(0, "collections", "deque", [instance(0, "a.b", "C", 1)]),
    }
    source = written(("1", None, values))
    take(store, "langgraph", source)
    session = store.session("t")
    assert {
        "trip": {"city": "Rome"},
        "bad date": [2026, 13, 1],
        "bad id": 5,
        "array": {"dtype": "<i4", "shape": [2], "order": "C", "data": bytes(8)},
        "unknown": {"ext": 99, "data": b"?"},
        "deep": [1],
    } == dict(session.variables)
    (kept,) = session.events(kind=KEPT)
    assert ["a.b.C", "datetime.date", "os.system", "uuid.UUID"] == kept.data["classes"]


def test_the_older_form_in_json_is_read(store, written):
    """Before msgpack, checkpoints were JSON with a constructor in the place of an object."""
    human = ["langchain", "schema", "messages", "HumanMessage"]
    values = {
        "messages": [{"lc": 1, "type": "constructor", "id": human, "kwargs": {"content": "hi"}}],
        "when": {"lc": 2, "type": "constructor", "id": ["uuid", "UUID"], "args": ["0" * 32]},
        "took": {"lc": 2, "type": "constructor", "id": ["datetime", "timedelta"], "args": [1, 2]},
        "plain": {"type": "constructor", "id": "x", "lc": 2},
        "empty": {"type": "constructor", "id": [], "lc": 2},
    }
    text = json.dumps({"id": "1", "ts": "soon", "channel_values": values})
    source = written(rows=[("t", "", "1", None, "json", text, "[]")])
    take(store, "langgraph", source)
    session = store.session("t")
    assert [("user", "hi")] == [(said["role"], said["content"]) for said in session.messages]
    variables = dict(session.variables)
    assert uuid.UUID(int=0) == variables.pop("when")
    assert timedelta(1, 2) == variables.pop("took")
    assert {"plain": values["plain"], "empty": None} == variables
    assert {"raw": "[]"} == next(iter(session.events(kind=KEPT))).data["metadata"]


def test_what_cannot_be_read_is_kept_and_told(store, written):
    """Pickles, ciphers and what is cut off stay raw, and the thread goes on after them."""
    good = packed("1", {"messages": [said("one")]})
    after = packed("zz", {"messages": [said("one"), said("two")]})
    rows = [
        ("t", "", "1", None, "msgpack", good, b"{}"),
        ("t", "", "2", "1", "pickle", b"cos\nsystem\n(S'true'\ntR.", b"{}"),
        ("t", "", "3", "2", "msgpack+aes", b"secret", b"{}"),
        ("t", "", "4", "3", "msgpack", good[:-9], b"{}"),
        ("t", "", "5", "4", "msgpack", b"\x91" * 10_000, b"{}"),
        ("t", "", "6", "5", "json", b"[" * 100_000, b"{}"),
        ("t", "", "7", "6", "msgpack", ormsgpack.packb(5), b"{}"),
        ("t", "", "8", "7", "bytes", b"raw", b"{}"),
        ("t", "", "9", "8", "null", None, b"{}"),
        ("t", "", "a", "9", "msgpack", None, None),
        ("t", "", "b", "a", "msgpack", ormsgpack.packb({"x": instance(5, 1)}), b"{}"),
        ("t", "", "zz", "b", "msgpack", after, b"not json"),
        ("t", "", "aside", "4", "msgpack", after, b"{}"),
        (b"\xff", "", "1", None, "msgpack", good, b"{}"),
        ("t", "", b"\xff", None, "msgpack", good, b"{}"),
    ]
    source = written(rows=rows)
    with sqlite3.connect(source) as file:
        file.execute(
            "update checkpoints set metadata = cast(x'ff' as text) where checkpoint_id = '3'"
        )
        file.execute(
            "insert into checkpoints values (cast(x'ff' as text), '', '1', '', '', '', '')"
        )
        file.execute(
            "insert into checkpoints values ('t', '', cast(x'ff' as text), '', '', '', '')"
        )
    added, reports = take(store, "langgraph", source)
    assert ["one", "two"] == texts(store)["t"] == texts(store)["t/aside"]
    assert 13 == added.kept
    kept = [event.data for event in store.session("t").events(kind=KEPT)]
    assert {"type": "pickle", "checkpoint": rows[1][5], "metadata": b"{}"} == kept[1]
    assert {f"t, checkpoint {name}" for name in "23456789ab"} <= {one.where for one in reports}
    assert 14 == len(reports)
    (pickled,) = (one for one in reports if one.where.endswith("checkpoint 2"))
    assert "nothing is unpickled" in pickled.reason


@pytest.mark.parametrize("name", ["a\0b", "n" * 600])
def test_a_channel_that_cannot_be_named_goes_as_it_came(store, memory, written, name):
    """A name that was left out is not in the log either when its channel is gone."""
    source = written(("1", None, {name: 1}), ("2", "1", {"other": 2}))
    _, reports = take(store, "langgraph", source)
    assert ["t, item 1", "t, item 2"] == [found.where for found in reports]
    assert {"other": 2} == dict(store.session("t").variables)
    import_lines(memory, export_lines(store))


def test_a_large_value_leaves_the_rest_in(path, written):
    """A variable beyond the limits is told, while the messages beside it come in."""
    source = written(("1", None, {"messages": [said("one")], "big": "x" * 500, "small": 1}))
    with evstore.open(path, limits=evstore.Limits(value_bytes_max=100)) as store:
        _, (reported,) = take(store, "langgraph", source)
        assert "t, item 1" == reported.where
        assert ["one"] == texts(store)["t"]
        assert {"small": 1} == dict(store.session("t").variables)
        assert (Imported(0, 0, 0), []) == take(store, "langgraph", source)


def test_writes_may_be_anything(store, written):
    """What was written and cannot be used is kept or told, wherever it stands."""
    delta = json.dumps({"counters_since_delta_snapshot": {"messages": [1, 1]}})
    told = ormsgpack.packb([said("one", id="1"), said("two")])
    over = ormsgpack.packb({"value": None, "type": "__overwrite__"})
    gone = ormsgpack.packb([{"type": "remove", "id": "__remove_all__"}, said("three", id="3")])
    last = ormsgpack.packb([{"type": "remove", "id": "3"}, {"type": "remove", "id": "?"}])
    empty = {"id": "x", "channel_values": {}}
    rows = [
        ("t", "", name, parent, "msgpack", ormsgpack.packb(empty), delta)
        for name, parent in zip("123456", [None, *"12345"], strict=True)
    ]
    writes = [
        ("1", "task", 0, "messages", "msgpack", told),
        ("2", "task", 0, "messages", "msgpack", gone),
        ("3", "task", 0, "messages", "msgpack", told),
        ("3", "task", 1, "messages", "msgpack", last),
        ("4", "task", 0, "messages", "msgpack", over),
        ("5", "task", 0, "messages", "msgpack", b"\xc1"),
        ("5", "task", 1, "__error__", "pickle", b"."),
        ("6", "task", 0, "a", "pickle", b"."),
        ("6", "task", 1, "b", "null", None),
        ("nowhere", "task", 0, "a", "null", None),
    ]
    source = written(rows=rows, writes=writes)
    with sqlite3.connect(source) as file:
        file.execute(
            "insert into writes values ('t', '', '6', cast(x'ff' as text), 2, 'c', '', '')"
        )
    _, reports = take(store, "langgraph", source)
    there = moments(store)
    assert {"x"} == set(there)
    kept = list(store.session("t").events(kind=KEPT))
    said_at = [[m["content"] for m in store.session("t").at(e.seq).messages] for e in kept]
    assert [[], ["one", "two"], ["three"], ["one", "two"], [], []] == said_at
    assert [b".", b"\xc1"] == [write["raw"] for write in kept[5].data["writes"]]
    pending = [event.data for event in store.session("t/6/pending").events(kind=KEPT)]
    assert [("a", b"."), ("b", None)] == [
        (write["channel"], write.get("raw", write.get("value"))) for write in pending[:2]
    ]
    counts = Counter(reported.what for reported in reports)
    assert {"channel messages": 1, "a write": 3, "a record": 1, "1 writes": 1} == counts


def test_checkpoints_may_follow_one_another_in_a_circle(store, written):
    """What goes round is told; what stands beside it comes in."""
    source = written(
        ("1", "2", {}),
        ("2", "1", {}),
        ("3", None, {"messages": [said("one")]}),
        ("4", "5", {"a": 1}),
    )
    _, reports = take(store, "langgraph", source)
    assert [("t", "2 checkpoints")] == [(found.where, found.what) for found in reports]
    assert {"t": [], "t/3": ["one"]} == texts(store)


def test_what_a_store_remembers_may_be_broken(store, written):
    """A value that is no JSON is told, and so is a prefix that is no text."""
    rows = [("p", "a", "{", None), ("p", "b", "1", "soon"), (b"\xff", "c", "1", None)]
    source = written(store=rows)
    with sqlite3.connect(source) as file:
        file.execute("insert into store values (cast(x'ff' as text), 'd', '1', null)")
        file.execute("insert into store values ('p', cast(x'ff' as text), '1', null)")
    _, reports = take(store, "langgraph", source)
    assert {"b": 1} == dict(store.session("store/p").variables)
    assert 4 == len(reports)


def test_a_thread_without_the_table_of_writes_is_read(store, written):
    """Checkpoints alone are enough; a file without them is refused."""
    source = written(("1", None, {"messages": [said("one")]}), ("2", "1", {"talk": []}))
    with sqlite3.connect(source) as file:
        file.execute("drop table writes")
        file.execute("alter table store rename to put_aside")
    assert [] == take(store, "langgraph", source)[1]
    with sqlite3.connect(source) as file:
        file.execute("drop table checkpoints")
        file.execute("alter table put_aside rename to store")
    assert (Imported(0, 0, 0), []) == take(store, "langgraph", source)
    with sqlite3.connect(source) as file:
        file.execute("drop table store")
    with pytest.raises(Unavailable, match="no table of checkpoints"):
        take(store, "langgraph", source)


def test_values_of_any_depth_are_compared():
    """What is too deep to be compared counts as changed."""
    one: list[Any] = []
    other: list[Any] = []
    for _ in range(100_000):
        one, other = [one], [other]
    (found,) = differences({"a": one}, {"a": other}, "messages")
    assert isinstance(found, Variable)


def test_msgpack_is_an_extra(store, written, monkeypatch):
    """Without the library for it, the error names what to install."""
    source = written(("1", None, {}))
    monkeypatch.setitem(sys.modules, "ormsgpack", None)
    with pytest.raises(MissingExtra, match=r"evstore\[langgraph\]"):
        take(store, "langgraph", source)


def test_a_damaged_file_gives_what_can_be_read(made, tmp_path):
    """Wherever a file is cut off or overwritten, it is told, and nothing worse happens."""
    whole = made[0].read_bytes()
    refused = came_in = 0
    for number in range(1, 24):
        damaged = bytearray(whole[: len(whole) * number // 24] if number % 2 else whole)
        at = len(damaged) * number // 25
        damaged[at : at + 64] = b"\xa5" * 64
        (tmp_path / "cut.db").write_bytes(damaged)
        with evstore.open(":memory:") as store:
            try:
                came_in += take(store, "langgraph", tmp_path / "cut.db")[0].sessions > 0
            except Unavailable:
                refused += 1
    assert refused > 0
    assert came_in > 0
