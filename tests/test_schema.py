"""The file is what schema/ says: tables, triggers, views, kinds and values, word for word."""

import json
import re
import subprocess
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from shutil import which
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import apsw
import pytest

import evstore
from evstore import events, values
from evstore.sqlite import schema
from evstore.sqlite.pages import checksum_vfs
from evstore.state import MessageList
from evstore.tags import FROM_TAG
from tests.event_schemas import FOLDER, check_events, validator

ROOT = Path(__file__).parent.parent
README = (ROOT / "schema" / "README.md").read_text("utf-8")
NAMES: dict[str, Any] = {
    "datetime": datetime,
    "date": date,
    "time": time,
    "timedelta": timedelta,
    "timezone": timezone,
    "UTC": UTC,
    "ZoneInfo": ZoneInfo,
    "Decimal": Decimal,
    "UUID": UUID,
    "Unregistered": evstore.Unregistered,
}


def section(title: str) -> str:
    """Return the part of schema/README.md under a heading."""
    level, _ = title.split(" ", 1)
    body = README.split(f"\n{title}\n", 1)[1]
    next_title = "|".join("#" * count for count in range(1, len(level) + 1))
    return re.split(f"^({next_title}) ", body, flags=re.MULTILINE)[0]


def table(text: str) -> list[list[str]]:
    """Return the cells of the rows of the tables in a text, without their headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in row] for row in cells]


def workload(store: evstore.Store) -> None:
    """Record something of every kind that this version records."""
    odd: dict[Any, Any] = {"role": "tool", 1: ("x",)}
    trip = store.session("trip", metadata={"user": "Anna", "tags": ("a", "b")})
    trip.variables["city"] = "Rome"
    trip.variables["city"] = "Milan"
    trip.variables["large"] = "x" * 10_000
    trip.variables["budget"] = Decimal("12.50")
    trip.variables["gone"] = None
    del trip.variables["gone"]
    del trip.metadata["tags"]
    with trip.batch(actor="planner", key="k1", cause="because") as batch:
        batch.messages.append({"role": "user", "content": "Three days in Rome."})
        batch.messages.append({"role": "assistant", "content": [{"type": "text", "text": "a"}]})
        batch.messages.append(odd)
        batch.record("app.order.placed", {"total": Decimal(3)})
    trip.messages.remove(0, reason="private")
    trip.messages.replace(0, {"role": "assistant", "content": "b"}, reason="wrong")
    trip.messages.replace(0, {"role": "assistant", "content": "c"})
    trip.messages.pop()
    trip.record("app.note")
    fork = trip.fork("what-if", at=3)
    fork.variables["city"] = "Naples"
    fork.messages.append({"role": "user", "content": "y" * 2000})
    ended = store.session("ended")
    ended.messages.append({"role": "user", "content": "hello"})
    ended.messages.clear()
    uid = str(ended.uid)
    store.delete("ended")
    store.restore(uid)
    store.delete("ended")


@pytest.fixture
def cursor(path):
    """A cursor on a closed file with something of everything."""
    with evstore.open(path, actor="planner") as store:
        workload(store)
    with apsw.Connection(str(path), vfs=checksum_vfs()) as connection:
        yield connection.cursor()
    connection.close()


# Tables.


def test_a_fresh_file_holds_the_schema_and_nothing_else(path):
    """The catalog of a new file is that of the SQL files, and its header names the format."""
    evstore.open(path).close()
    scripts = sorted((ROOT / "schema" / "sqlite").glob("*.sql"))
    expected = apsw.Connection(":memory:")
    for script in scripts:
        expected.execute(script.read_text("utf-8")).fetchall()
    catalog = "select type, name, tbl_name, sql from sqlite_schema order by 1, 2"
    found = apsw.Connection(str(path), vfs=checksum_vfs())
    assert expected.execute(catalog).fetchall() == found.execute(catalog).fetchall()
    assert int.from_bytes(b"evst") == found.execute("pragma application_id").get
    assert len(scripts) == found.execute("pragma user_version").get == schema.version()
    assert "wal" == found.execute("pragma journal_mode").get
    found.close()


def test_every_column_is_explained(cursor):
    """schema/README.md has a row for every column of every table, and for no other."""
    tables = cursor.execute(
        "select name from pragma_table_list where type in ('table', 'virtual')"
        " and schema = 'main' and name not like 'sqlite_%'"
    ).fetchall()
    assert ("search",) in tables
    for (name,) in tables:
        rows = table(section(f"### {name}"))
        explained = [column for row in rows for column in re.findall(r"`(\w+)`", row[0])]
        columns = [row[1] for row in cursor.execute(f"pragma table_info({name})").fetchall()]
        if name == "event":
            explained = explained[: len(columns)]
        assert sorted(columns) == sorted(explained), name


def test_every_view_is_explained(cursor):
    """schema/README.md names every view with its columns, and no other."""
    explained = {
        row[0].strip("`"): row[1].split(", ") for row in table(section("## Views for people"))[1:]
    }
    found = cursor.execute("select name from sqlite_schema where type = 'view'").fetchall()
    assert {name for (name,) in found} == set(explained)
    for name, columns in explained.items():
        rows = cursor.execute(f"pragma table_info({name})").fetchall()
        assert sorted(row[1] for row in rows) == sorted(columns)


FORBIDDEN = {
    "update event set kind = 2 where name = 'city'": "events never change",
    "update event set name = 'town' where name = 'city'": "events never change",
    "update event set salt = zeroblob(16)": "events never change",
    "update event set size = 1, encoding = 3, salt = null, name = null": "events never change",
    "delete from event": "events are kept",
    "update batch set link = zeroblob(32)": "batches never change",
    "update batch set actor = 'me'": "batches never change",
    "delete from batch": "batches are kept",
    "update session set uid = zeroblob(16)": "a birth never changes",
    "update session set id = 'x' where id = 'trip'": "a birth never changes",
    "delete from session": "sessions are kept",
    "update kind set name = 'x' where number = 1": "kinds never change",
    "delete from kind": "kinds are kept",
}


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_log_is_held_append_only(cursor, statement):
    """A trigger refuses every change of the log that is neither a new encoding nor forgetting."""
    with pytest.raises(apsw.ConstraintError, match=FORBIDDEN[statement]):
        cursor.execute(statement)


def test_the_log_may_be_forgotten(cursor):
    """The triggers let the payload of an event and the words of a batch and a birth go."""
    cursor.execute(
        "update event set encoding = 3, salt = null, name = null, data = zeroblob(32);"
        "update batch set actor = null, cause = null, key = null;"
        "update session set id = null, salt = null, leaf = zeroblob(32)"
    )
    assert 0 == cursor.execute("select count(*) from event where salt is not null").get
    with pytest.raises(apsw.ConstraintError, match="events never change"):
        cursor.execute(
            "update event set data = zeroblob(32) where id = (select min(id) from event)"
        )


# Values and kinds.


def test_every_tag_is_explained():
    """Each example of schema/README.md is stored as it says, and every tag has an example."""
    rows = [
        re.findall(r"^`(.*)`$", cell) for row in table(section("## Values"))[1:] for cell in row
    ]
    examples = {left[0]: right[0] for left, right in zip(rows[::2], rows[1::2], strict=True)}
    for expression, stored in examples.items():
        value = eval(expression, dict(NAMES))  # noqa: S307 - the examples of our own page
        assert stored == values.encode(value).decode()
    tags = {match for stored in examples.values() for match in re.findall(r'^\{"(\$\w+)":', stored)}
    known = {*FROM_TAG, *values.FROM_LIST, "$dict", "$object"}
    assert known == tags - {"$schema"}


def test_every_kind_is_explained(cursor):
    """The kinds of schema/README.md, of the file and of the program are the same."""
    rows = table(section("## Kinds"))[1:-1]
    explained = [(int(row[0]), row[1].strip("`")) for row in rows]
    assert list(enumerate(events.KINDS, 1)) == explained
    stored = cursor.execute("select number, name from kind order by number").fetchall()
    assert explained == stored[: len(explained)]
    assert [(16, "app.order.placed"), (17, "app.note")] == stored[len(explained) :]
    operands = {row[1].strip("`"): row[3].strip("`") for row in rows if row[3]}
    assert events.OPERANDS == operands


def test_every_kind_has_a_schema():
    """There is one JSON Schema for every kind and one for the application's, and no other."""
    assert {*events.KINDS, "app"} == {file.stem for file in FOLDER.glob("*.json")}
    for kind in (*events.KINDS, "app.x"):
        described = validator(kind).schema
        assert isinstance(described, dict)
        assert described["title"]
        assert described["description"]


def test_recorded_events_fit_their_schemas(store):
    """What is recorded has the form that the schema of its kind promises."""
    workload(store)
    back = store.session("back")
    back.messages.append({"role": "user", "content": "Once more."})
    back.label("start", at=0)
    back.revert("start")
    seen = set()
    for info in [*store.sessions(), *store.sessions(deleted=True)]:
        seen |= check_events(store.session(uid=info.uid).events())
    later = {"session.expired", "session.erased", "session.checkpointed"}
    assert {*events.KINDS} - later | {"app.order.placed", "app.note"} == seen


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("variable.set", {}),
        ("variable.set", {"value": 1, "more": 2}),
        ("variable.deleted", {"value": 1}),
        ("message.added", {"message": {"content": "no role"}}),
        ("message.added", {"message": {"$dict": [[1, 2]]}}),
        ("message.removed", {"seq": 0}),
        ("message.replaced", {"seq": 1}),
        ("messages.reverted", {"to": -1}),
        ("label.set", {"at": "yesterday"}),
        ("session.deleted", None),
    ],
)
def test_schemas_are_strict(kind, data):
    """Data with a member missing, too many, or of another form does not fit."""
    assert not validator(kind).is_valid(data)


class _Example:
    """The past that the worked example of schema/README.md asks about."""

    def __init__(self) -> None:
        self.ordinals: dict[int, int] = {}
        self.ranges: dict[int, list[tuple[int, int]]] = {}

    def ordinal(self, seq: int) -> int:
        return self.ordinals[seq]

    def ranges_at(self, seq: int) -> list[tuple[int, int]]:
        return list(self.ranges[seq])


def test_the_worked_example_of_ranges():
    """The ordinals, ranges and lists of schema/README.md are those that the fold gives."""
    past, messages, bodies = _Example(), MessageList(), list[str]()
    for seq, event, ordinal, ranges, shown in table(section("## Messages, ordinals and ranges"))[
        1:
    ]:
        kind, *words = event.replace("`", "").split()
        if ordinal:
            assert len(bodies) == int(ordinal)
            past.ordinals[int(seq)] = len(bodies)
            bodies.append(words[-1])
        target = int(words[-1]) if words and words[-1].isdigit() else None
        if kind in ("message.removed", "message.replaced"):
            target = {past.ordinals[known]: known for known in past.ordinals}[
                bodies.index(words[0])
            ]
        messages.apply(kind, target, past)
        past.ranges[int(seq)] = list(messages.ranges)
        assert json.loads(ranges.strip("`")) == [list(pair) for pair in messages.ranges]
        found = [bodies[place] for first, end in messages.ranges for place in range(first, end)]
        assert shown.split() == found


# Views.


def test_the_views_show_what_they_promise(cursor):
    """The views tell a person what evstore itself tells."""
    session = cursor.execute(
        "select id, head, parent, fork, ended from sessions order by id"
    ).fetchall()
    assert [
        ("ended", 5, None, None, "session.deleted"),
        ("trip", 18, None, None, None),
        ("what-if", 5, "trip", 3, None),
    ] == session
    query = "select name, value from variables where session = ? order by name"
    assert [("budget", '{"$decimal":"12.50"}'), ("city", '"Milan"'), ("large", None)] == (
        cursor.execute(query, ("trip",)).fetchall()
    )
    assert [("city", '"Naples"')] == cursor.execute(query, ("what-if",)).fetchall()
    query = (
        "select seq, kind, name, data, actor from events where session = 'trip' and seq in (1, 3)"
    )
    assert [
        (1, "metadata.set", "user", '{"value":"Anna"}', "planner"),
        (3, "variable.set", "city", '{"value":"Rome"}', "planner"),
    ] == cursor.execute(query).fetchall()
    query = "select seq, role, gone from messages where session = 'trip' order by seq"
    assert [
        (10, "user", 14),
        (11, "assistant", 15),
        (12, None, 17),
        (15, "assistant", 16),
        (16, "assistant", None),
    ] == cursor.execute(query).fetchall()


def test_the_view_of_messages_knows_reverts(path):
    """A message that a revert took out of the list is gone from there on."""
    with evstore.open(path) as store:
        session = store.session("trip")
        for content in "ab":
            session.messages.append({"role": "user", "content": content})
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    connection.execute(
        "insert into event(id, kind, operand, encoding, size, position, salt, data)"
        " select max(id) + 1, 9, 1, 0, 8, max(position), zeroblob(16), '{\"to\":1}' from event"
    )
    assert [("a", None), ("b", 3)] == connection.execute(
        "select content, gone from messages"
    ).fetchall()
    connection.close()


def queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", section("## Views for people"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(queries())))
def test_the_queries_of_the_page_work(cursor, number):
    """Each query that schema/README.md suggests finds something."""
    assert cursor.execute(queries()[number]).fetchall()


@pytest.mark.skipif(which("sqlite3") is None, reason="no sqlite3 shell on this machine")
def test_any_shell_can_read_a_store(cursor, path):
    """A plain sqlite3 shell, without page checksums, reads the same through the views."""
    for query in queries():
        rows = cursor.execute(query).fetchall()
        command = ["sqlite3", "-readonly", "-json", str(path)]
        shown = subprocess.run(
            command, input=query.encode(), capture_output=True, check=True
        ).stdout
        assert rows == [tuple(row.values()) for row in json.loads(shown)]


def test_values_in_views_are_json_whether_stored_inline_or_not(path):
    """A long value that does not compress is shown in the same form as a short one."""
    noise = "".join(map(chr, range(0x4E00, 0x4E00 + 200)))
    with evstore.open(path) as store:
        store.session("trip").variables.update(long=noise, short="x")
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    for (value,) in connection.execute("select value from variables where value is not null"):
        assert isinstance(json.loads(value), str)
    connection.close()
