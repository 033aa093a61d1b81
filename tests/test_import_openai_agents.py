"""What the OpenAI Agents SDK has stored becomes sessions: every item, and every branch."""

import json
import shutil
import sqlite3
from typing import Any

import pytest

import evstore
from evstore.errors import Unavailable
from evstore.transfer import Imported
from tests.foreign import messages, said, take, texts
from tests.libraries import made_by

pytestmark = pytest.mark.timeout(600)  # its environment may have to be made first
KEPT = "app.imported.openai-agents"
TABLES = """
create table agent_sessions (session_id text primary key);
create table agent_messages (
    id integer primary key, session_id text, message_data text, created_at text,
    foreign key (session_id) references agent_sessions (session_id));
create table message_structure (
    id integer primary key, session_id text, message_id integer, branch_id text,
    sequence_number integer, user_turn_number integer,
    foreign key (message_id) references agent_messages (id));
create table turn_usage (
    id integer primary key, session_id text, branch_id text, user_turn_number integer,
    created_at text);
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with files that the library has written, and what it reads there."""
    folder = tmp_path_factory.mktemp("openai_agents")
    return folder, made_by("openai_agents", folder)


@pytest.fixture
def written(tmp_path):
    """Return a file with the tables and these rows: (session, item), or a branch's list of ids."""

    def write(*rows, branches=(), usage=()):
        with sqlite3.connect(tmp_path / "sessions.db") as file:
            file.executescript(TABLES)
            file.executemany(
                "insert into agent_messages (session_id, message_data, created_at)"
                " values (?, ?, '2026-01-31 12:00:00')",
                [(name, item if type(item) is bytes else json.dumps(item)) for name, item in rows],
            )
            file.executemany(
                "insert into message_structure (session_id, branch_id, message_id,"
                " sequence_number, user_turn_number) values (?, ?, ?, ?, ?)",
                [
                    (name, branch, number, at, at)
                    for name, branch, ids in branches
                    for at, number in enumerate(ids)
                ],
            )
            file.executemany(
                "insert into turn_usage (session_id, branch_id, user_turn_number) values (?, ?, ?)",
                usage,
            )
        file.close()
        return tmp_path / "sessions.db"

    return write


def items(session):
    """The items of the Responses API that a session was made of, put together again."""
    for event in session.events():
        if event.kind == KEPT and not is_usage(event.data):
            yield event.data
        elif event.kind == "message.added":
            yield _item(event.data["message"])


def is_usage(record):
    """Tell whether what was kept is what a turn used."""
    return type(record) is dict and "turn_usage" in record


def _item(message):
    rest = message.get("source", {})
    if message["role"] == "tool":
        return {"call_id": message["tool_call_id"], "output": message["content"], **rest}
    if "tool_calls" not in message:
        return message
    (call,) = message["tool_calls"]
    return {"call_id": call["id"], **call[call["type"]], **rest}


def test_every_item_comes_in_as_the_library_reads_it(store, made):
    """Sessions of plain tables have the items that the library has, in its order."""
    folder, found = made
    added, reports = take(store, "openai-agents", folder / "plain.db")
    assert [] == reports
    assert 17 == len(found["plain"]) == added.sessions
    assert found["plain"] == {
        str(info.id): list(items(store.session(str(info.id)))) for info in store.sessions()
    }
    later = store.session("async")
    assert {"user", "assistant", "tool"} == {message["role"] for message in later.messages}
    kept = {event.data["type"] for event in later.events(kind=KEPT)}
    assert {"reasoning", "web_search_call"} == kept
    assert (Imported(0, 0, 0), []) == take(store, "openai-agents", folder / "plain.db")


def test_tables_may_have_any_names(store, made):
    """A session of SQLAlchemy in tables of other names comes in under its own id."""
    folder, found = made
    take(store, "openai-agents", folder / "alchemy.db")
    assert found["alchemy"] == {
        str(info.id): list(items(store.session(str(info.id)))) for info in store.sessions()
    }


def test_branches_are_forks(store, made):
    """Every branch says what the library reads of it, and shares its past with its origin."""
    folder, found = made
    _, reports = take(store, "openai-agents", folder / "branches.db")
    assert [] == reports
    assert 4 == len(found["branches"])
    for name, told in found["branches"].items():
        assert 4 == len(told["branches"])
        for branch, expected in told["branches"].items():
            session = store.session(name if branch == "main" else f"{name}/{branch}")
            assert expected == list(items(session)), (name, branch)
        assert f"{name}/early" == store.session(f"{name}/of a branch").parent.id
        assert name == store.session(f"{name}/early").parent.id
    assert (Imported(0, 0, 0), []) == take(store, "openai-agents", folder / "branches.db")


def test_the_usage_of_turns_is_kept(store, made):
    """What a turn used stands behind it, in the branch in which it was used."""
    folder, found = made
    take(store, "openai-agents", folder / "branches.db")
    for name, told in found["branches"].items():
        for branch, expected in told["usage"].items():
            session = store.session(name if branch == "main" else f"{name}/{branch}")
            own = [
                event.data["turn_usage"]
                for event in session.events(kind=KEPT)
                if is_usage(event.data) and event.data["turn_usage"]["branch_id"] == branch
            ]
            columns = ("user_turn_number", "input_tokens", "total_tokens")
            assert [[row[column] for column in columns] for row in expected] == [
                [row[column] for column in columns] for row in own
            ]
    first = [event.kind for event in store.session("branching 0").events()][:3]
    assert ["message.added", "message.added", KEPT] == first


def test_what_is_encrypted_is_refused(store, made):
    """A session that nobody reads without its key is told, once, and others come in."""
    folder, _ = made
    _, (reported,) = take(store, "openai-agents", folder / "encrypted.db")
    assert ("secret", "9 items") == (reported.where, reported.what)
    assert "EncryptedSession wrote them" in reported.reason
    assert ["open"] == list(messages(store))


def test_a_file_that_grows_adds_what_is_new(store, written):
    """New messages go on in their session, and each has the time at which it was stored."""
    source = written(("a", said("one")))
    take(store, "openai-agents", source)
    with sqlite3.connect(source) as file:
        file.execute(
            "insert into agent_messages values (2, 'a', ?, '2026-01-31 12:00:07')",
            (json.dumps(said("two")),),
        )
    assert (Imported(0, 1, 1), []) == take(store, "openai-agents", source)
    times = [event.time.isoformat() for event in store.session("a").events()]
    assert ["2026-01-31T12:00:00+00:00", "2026-01-31T12:00:07+00:00"] == times


def test_a_file_in_use_is_read_with_what_is_in_its_log(store, tmp_path, written):
    """What a program has written and not folded in yet is there, and its files stay as they are."""
    source = written(("a", said("one")))
    with sqlite3.connect(source) as file:
        file.execute("pragma journal_mode=wal")
        file.execute(
            "insert into agent_messages values (2, 'a', ?, null)", (json.dumps(said("two")),)
        )
        file.commit()
        copy = tmp_path / "copy"
        copy.mkdir()
        for part in tmp_path.glob("sessions.db*"):
            shutil.copy(part, copy)
        before = {part.name: part.read_bytes() for part in copy.glob("*l")}
        take(store, "openai-agents", copy / "sessions.db")
        assert ["one", "two"] == [message["content"] for message in store.session("a").messages]
        assert before == {part.name: part.read_bytes() for part in copy.glob("*l")}


def test_what_is_no_message_is_kept(store, written):
    """Whatever an item is, it stands in its place, whole."""
    strange: list[Any] = [
        None,
        [],
        "text",
        {"role": 5},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": ["function_call"], "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": {}},
        {"type": "function_call", "call_id": "c", "name": None, "arguments": "{}"},
        {"type": "function_call", "call_id": 1, "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c"},
        {"type": "custom_tool_call", "call_id": "c", "name": "f"},
        {"type": "computer_call", "call_id": "c", "action": {"type": "click"}},
        {"__enc__": 1, "kid": "a plain item"},
    ]
    source = written(*(("a", item) for item in strange))
    added, reports = take(store, "openai-agents", source)
    assert (len(strange), []) == (added.kept, reports)
    assert strange == list(items(store.session("a")))


def test_what_is_broken_stops_only_itself(store, written):
    """An item that is cut off or no text is told and kept, and those around it come in."""
    source = written(
        ("a", said("one")),
        ("a", b'{"role": "user", "conte'),
        ("a", b"[" * 100_000),
        ("a", said("two")),
        (b"\xff", said("whose?")),
    )
    with sqlite3.connect(source) as file:
        file.execute("update agent_messages set created_at = cast(x'ff' as text) where id = 4")
        file.execute("insert into agent_messages values (6, 'a', 7, 'soon')")
        file.execute("insert into agent_messages values (7, cast(x'ff' as text), '{}', null)")
        file.execute("insert into agent_messages values (8, 'a', '{\"role\": \"end\"}', null)")
    added, reports = take(store, "openai-agents", source)
    assert ["one", None] == [message.get("content") for message in store.session("a").messages]
    assert 4 == added.kept
    assert [
        "a, message 2",
        "a, message 3",
        "a, message 4",
        "agent_messages, row 5",
        "agent_messages, row 7",
    ] == sorted(found.where for found in reports)


def test_branches_may_be_anything(store, written):
    """Lists of branches that share nothing, or hold what is not there, still come in."""
    source = written(
        *(("a", said(str(number))) for number in range(1, 7)),
        branches=[
            ("a", "other", [1, 2, 99, 1]),
            ("a", "main", [1, 2, 3]),
            ("a", "alone", [4]),
            ("a", b"\xff", [5]),
            ("a", "same", [1, 2]),
        ],
        usage=[("a", "other", 77), ("a", "main", 1)],
    )
    with sqlite3.connect(source) as file:
        file.execute(
            "insert into message_structure values (50, 'a', 1, cast(x'ff' as text), 1, null)"
        )
        file.execute("insert into turn_usage values (3, 'a', 'main', 2, cast(x'ff' as text))")
    _, reports = take(store, "openai-agents", source)
    assert {"a": ["1", "2", "3"], "a/alone": ["4"], "a/other": ["1", "2", "1"]} == texts(store)
    assert {
        ("a, message_structure 9", "a branch"),
        ("a, message_structure 50", "a record"),
        ("a, turn_usage 3", "a record"),
        ("a", "2 messages"),
        ("a/same", "a conversation"),
    } == {(found.where, found.what) for found in reports}


def test_a_number_that_is_none_is_told(store, written):
    """Where a column of numbers cannot be read, that is said as for any damaged file."""
    source = written(("s", {"role": "user", "content": "a"}), branches=[("s", "main", [1])])
    with sqlite3.connect(source) as file:
        file.execute("update message_structure set user_turn_number = cast(x'ff' as text)")
    file.close()
    with pytest.raises(Unavailable, match="repair it"):
        take(store, "openai-agents", source)


def test_two_tables_in_a_file_are_told_apart(store, written):
    """The sessions of several tables of messages stand under the names of these."""
    source = written(("a", said("one")), branches=[("a", "main", [1])])
    with sqlite3.connect(source) as file:
        file.execute(
            "create table other (id integer primary key, session_id, message_data, created_at)"
        )
        file.execute("insert into other values (1, 'a', ?, null)", (json.dumps(said("two")),))
    take(store, "openai-agents", source)
    assert {"agent_messages/a", "other/a"} == set(messages(store))


def test_a_file_of_something_else_is_refused(memory, tmp_path):
    """Without a table of messages there is nothing to read, and without a database neither."""
    with sqlite3.connect(tmp_path / "a.db") as file:
        file.execute("create table agent_messages (id, message)")
    with pytest.raises(Unavailable, match="no table of messages"):
        take(memory, "openai-agents", tmp_path / "a.db")
    (tmp_path / "b.db").write_text("no database")
    with pytest.raises(Unavailable, match="no SQLite database"):
        take(memory, "openai-agents", tmp_path / "b.db")


def test_a_damaged_file_gives_what_can_be_read(made, tmp_path):
    """Wherever a file is cut off or overwritten, it is told, and nothing worse happens."""
    whole = (made[0] / "branches.db").read_bytes()
    refused = came_in = 0
    for number in range(1, 40):
        damaged = bytearray(whole[: len(whole) * number // 40] if number % 2 else whole)
        at = len(damaged) * number // 41
        damaged[at : at + 64] = b"\xa5" * 64
        (tmp_path / "cut.db").write_bytes(damaged)
        with evstore.open(":memory:") as store:
            try:
                came_in += take(store, "openai-agents", tmp_path / "cut.db")[0].sessions > 0
            except Unavailable:
                refused += 1
    assert refused > 0
    assert came_in > 0
