"""LangChain's chat histories come in, from tables and from files, message by message."""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from evstore.errors import Unavailable
from evstore.transfer import Imported
from tests.foreign import json_file, messages, recorded, take, texts
from tests.libraries import made_by

KEY = "import:langchain:"
TABLE = 'create table "{}"(id integer primary key, session_id text, message text)'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder with what LangChain has written, and what it reads there itself."""
    folder = tmp_path_factory.mktemp("langchain")
    return folder, made_by("langchain", folder)


def rebuilt(message: dict[str, Any]) -> dict[str, Any]:
    """The message of LangChain that a message was made of, without what says nothing."""
    source = message.get("source", {})
    roles = {"user": "human", "assistant": "ai"}
    kind = source.get("type", roles.get(message["role"], message["role"]))
    data = {"content": message["content"], "type": kind, **source}
    if kind == "chat":
        data["role"] = message["role"]
    data |= {key: message[key] for key in ("name", "tool_call_id") if key in message}
    if "tool_calls" in message:
        data["tool_calls"] = [
            {
                "name": call["function"]["name"],
                "args": json.loads(call["function"]["arguments"]),
                "id": call.get("id"),
                "type": "tool_call",
            }
            for call in message["tool_calls"]
        ]
    return {"type": kind, "data": data}


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A message as LangChain reads it, without fields that are empty or say their default."""
    default = {"status": "success", "example": False}
    fields = {
        key: value
        for key, value in record["data"].items()
        if value not in (None, {}, []) and default.get(key) != value
    }
    return {**record, "data": fields}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("source", "count"), [("one.db", 29), ("two.db", 4), ("files", 24)])
def test_every_message_comes_as_langchain_reads_it(store, made, source, count):
    """Each session holds the messages that LangChain reads, of each type, in their order."""
    folder, found = made
    _, reports = take(store, "langchain", folder / source)
    assert ([], count) == (reports, len(found[source]))
    ours = messages(store)
    for name, theirs in found[source].items():
        session = {"": "%"}.get(name, name)
        if len(name) > 255:
            (session,) = (each for each in ours if each.startswith("xxx"))
        assert list(map(plain, theirs)) == list(map(rebuilt, ours[session]))
    assert (Imported(0, 0, 0), []) == take(store, "langchain", folder / source)


@pytest.mark.timeout(600)
def test_a_file_whose_log_is_not_folded_in_is_read_and_left_as_it_is(store, made, tmp_path):
    """What stands in a write-ahead log comes in; without one, nothing appears beside the file."""
    folder, _ = made
    source, copy = tmp_path / "a.db", tmp_path / "copy"
    shutil.copy(folder / "two.db", source)
    with closing(sqlite3.connect(source)) as db:
        db.execute("pragma journal_mode = wal")
        said = json.dumps({"type": "human", "data": {"content": "late"}})
        with db:
            db.execute("insert into chats(session_id, message) values('s9', ?)", (said,))
        copy.mkdir()
        for name in ("a.db", "a.db-wal"):
            shutil.copy(tmp_path / name, copy / name)
    before = {name: (copy / name).read_bytes() for name in os.listdir(copy)}
    take(store, "langchain", copy / "a.db")
    assert ["late"] == texts(store)["chats/s9"]
    assert before == {name: (copy / name).read_bytes() for name in before}
    assert (Imported(0, 0, 0), []) == take(store, "langchain", source)
    assert ["a.db"] == [name for name in os.listdir(tmp_path) if name.startswith("a.db")]


def table(path, *rows: tuple[Any, Any, Any], name: str = "message_store") -> Any:
    """A file with a table of messages."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(TABLE.format(name))
        db.executemany(f"insert into {name} values(?, ?, ?)", rows)
    return path


def human(text: str, **more: Any) -> str:
    """A message as a row holds it."""
    return json.dumps({"type": "human", "data": {"content": text}, **more})


def test_a_table_that_has_grown_adds_its_new_messages(store, tmp_path):
    """Messages are known by their row."""
    source = table(tmp_path / "a.db", (1, "s", human("a")), (5, "s", human("b")))
    take(store, "langchain", source)
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("insert into message_store values(9, 's', ?)", (human("c"),))
    assert (Imported(0, 1, 1), []) == take(store, "langchain", source)
    assert ["a", "b", "c"] == texts(store)["s"]
    assert {"1", "5", "9"} == set(recorded(store, KEY))


def test_what_is_no_message_is_kept(store, tmp_path):
    """Records of types that are unknown are kept whole, and so is what stands beside a message."""
    remove = {"type": "remove", "data": {"id": "1", "content": ""}}
    records = [remove, [1], {"type": "human"}, {"type": 5, "data": {}}, json.loads(human("a", x=1))]
    take(store, "langchain", json_file(tmp_path / "chat.json", records))
    assert [{"role": "user", "content": "a", "source": {"x": 1}}] == messages(store)["chat"]
    assert records[:4] == [recorded(store, KEY)[name][0][1][0] for name in "1234"]


def test_what_is_broken_stops_only_itself(store, tmp_path):
    """Rows and sessions that cannot be read are told, and all others come in."""
    source = table(
        tmp_path / "a.db",
        (1, "s", human("a")),
        (2, "s", "{cut"),
        (3, "s", None),
        (4, "s", sqlite3.Binary(b"\xff")),
        (5, "s", human("\ud800")),
        (6, "s", "[" * 100_000),
        (7, "s", human("b")),
        (8, None, human("nobody's")),
        (9, b"\xff", human("nobody's")),
        (10, "nul\0", human("c")),
    )
    with closing(sqlite3.connect(source)) as db, db:
        db.execute("insert into message_store values(11, cast(x'ff' as text), '{}')")
        db.execute("insert into message_store values(12, 's', cast(x'22ff22' as text))")
    _, reports = take(store, "langchain", source)
    assert {"s": ["a", "b"], "nul%00": ["c"]} == texts(store)
    assert 9 == len(reports), reports


def test_a_program_may_go_on_writing_meanwhile(store, tmp_path):
    """What is not deleted meanwhile comes in, also where the log is folded into the file."""
    said = [f"{number} {'x' * 3000}" for number in range(900)]
    rows = [(number, "abz"[number % 3], human(text)) for number, text in enumerate(said)]
    source = table(tmp_path / "a.db", *rows)
    with closing(sqlite3.connect(source)) as db:
        db.execute("pragma journal_mode=wal")

    def write(seen: int) -> None:
        if seen == 10:
            with closing(sqlite3.connect(source)) as db:
                with db:
                    db.execute("delete from message_store where session_id = 'z'")
                db.execute("vacuum")
                db.execute("pragma wal_checkpoint(truncate)")

    _, reports = take(store, "langchain", source, progress=write)
    assert {"a": said[::3], "b": said[1::3]} == texts(store)
    assert {"it is not there any more: import again"} == {found.reason for found in reports}
    assert ["a.db"] == [name for name in os.listdir(tmp_path) if name.startswith("a.db")]


@pytest.mark.parametrize(
    ("format", "name", "text"),
    [
        ("session-dir", "{}.json", '[{"role": "user", "content": "hi"}]'),
        ("langchain", "{}.json", json.dumps([{"type": "human", "data": {"content": "hi"}}])),
        ("claude-code", "{}.jsonl", '{"uuid": "u", "message": {"role": "user", "content": "hi"}}'),
    ],
)
def test_what_only_looks_like_a_file_stops_nothing(store, tmp_path, format, name, text):
    """A folder or a link to nowhere among files is told, and all others come in."""
    for good in "ad":
        (tmp_path / name.format(good)).write_text(text)
    (tmp_path / name.format("b")).mkdir()
    (tmp_path / name.format("c")).symlink_to(tmp_path / "nowhere")
    _, reports = take(store, format, tmp_path)
    assert {"a": ["hi"], "d": ["hi"]} == texts(store)
    told = {found.where for found in reports}
    assert name.format("c") in told
    assert told <= {name.format("b"), name.format("c")}


def test_files_that_are_broken_stop_only_themselves(store, tmp_path):
    """In a folder, what is no array of messages is told, and what is hidden passed over."""
    json_file(tmp_path / "a.json", [json.loads(human("a"))])
    json_file(tmp_path / "b.json", {"no": "array"})
    (tmp_path / "c.json").write_text("[{")
    (tmp_path / ".d.json").write_text("[{")
    (tmp_path / "e.txt").write_text("[{")
    _, reports = take(store, "langchain", tmp_path)
    assert ({"a": ["a"]}, ["b.json", "c.json"]) == (texts(store), [each.where for each in reports])


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_an_error(store, tmp_path, share):
    """A database of which the end is missing is Unavailable, however little it is."""
    rows = [(number, f"s{number % 7}", human("x" * 500)) for number in range(200)]
    source = table(tmp_path / "a.db", *rows)
    data = source.read_bytes()
    source.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(Unavailable):
        take(store, "langchain", source)


@pytest.mark.parametrize("page", range(2, 31, 7))
def test_a_page_that_is_overwritten_is_told(store, tmp_path, page):
    """Where a page of the file is no more what it was, the import says so, and does not crash."""
    rows = [(number, f"s{number % 7}", human("x" * 500)) for number in range(200)]
    source = table(tmp_path / "a.db", *rows)
    data = bytearray(source.read_bytes())
    data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    source.write_bytes(data)
    try:
        _, reports = take(store, "langchain", source)
    except Unavailable:
        return
    assert reports


def test_what_is_no_chat_history_is_refused(store, tmp_path):
    """A database without such a table, and a place that is not there, are told apart."""
    with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
        db.execute("create table message_store(id, message)")
        db.execute("create view chats as select 1 as id, 's' as session_id, '{}' as message")
    with pytest.raises(Unavailable, match="no table of id, session_id and message"):
        take(store, "langchain", tmp_path / "a.db")
    with pytest.raises(Unavailable):
        take(store, "langchain", tmp_path / "missing")


def test_what_sqlite_cannot_open_is_unavailable(store, tmp_path):
    """A file with only the beginning of a database, and one too deep in folders, are refused."""
    source = tmp_path / "a.db"
    source.write_bytes(b"SQLite format 3\0" + bytes(65520))
    with pytest.raises(Unavailable, match="cannot be read"):
        take(store, "langchain", source)
    source.unlink()
    deep = tmp_path.joinpath(*["d" * 200] * 4)
    deep.mkdir(parents=True)
    moved = table(source).rename(deep / "a.db")
    with pytest.raises(Unavailable, match="cannot be read"):
        take(store, "langchain", moved)


def test_a_folder_that_cannot_be_listed_is_unavailable(store, tmp_path, monkeypatch):
    """Where the system forbids to look, the import says so."""
    monkeypatch.setattr(os, "listdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(Unavailable, match="name a folder that can be read"):
        take(store, "langchain", tmp_path)
