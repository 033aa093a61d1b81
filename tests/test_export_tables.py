"""Tables: SQLite and Parquet hold what sessions hold, in rows that need no evstore to be read."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import evstore
from evstore import values
from evstore.errors import Unavailable
from evstore.transfer import export_to, table_file
from evstore.transfer import parquet as writing
from evstore.transfer.rows import TABLES
from tests.histories import HISTORIES, alike, fresh_store, live_through
from tests.values_strategy import messages, same, storable

Row = dict[str, Any]
Tables = dict[str, list[Row]]


def from_sqlite(path: Path) -> Tables:
    """The tables of a SQLite file."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return {
            table.name: [
                {**row, **{name: time_of(row[name]) for name in times(table.columns)}}
                for row in map(dict, connection.execute(f"select * from {table.name}"))
            ]
            for table in TABLES
        }
    finally:
        connection.close()


def times(columns: Any) -> list[str]:
    """The columns that are times."""
    return [name for name, kind in columns if kind == "time"]


def time_of(text: str | None) -> datetime | None:
    """The moment that a text means."""
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def from_parquet(path: Path) -> Tables:
    """The tables of a folder of Parquet files."""
    return {
        table.name: parquet.read_table(path / f"{table.name}.parquet").to_pylist()
        for table in TABLES
    }


READERS = {"tables": from_sqlite, "parquet": from_parquet}


def check(session: evstore.Session, tables: Tables) -> None:
    """What the rows of a session say is what the session says."""
    own = {
        name: [row for row in rows if row["uid"] == session.uid] for name, rows in tables.items()
    }
    (row,) = own["sessions"]
    parent = session.parent
    assert (session.id, session.head) == (row["session"], row["seq"])
    assert (session.created_at, session.view().time) == (row["created"], row["time"])
    assert (parent and parent.uid, parent and parent.seq) == (row["parent"], row["fork"])
    assert (len(session.messages), len(session.variables)) == (row["messages"], row["variables"])
    assert same(dict(session.metadata), values_by_name(row["metadata"]))
    assert session.view().labels == values.decode(row["labels"])
    assert same(list(session.messages), [values.decode(row["message"]) for row in own["messages"]])
    for number, (row, message) in enumerate(zip(own["messages"], session.messages, strict=True)):
        info = session.messages.info(number)
        content = message.get("content")
        assert (number, info.seq, info.time) == (row["number"], row["seq"], row["time"])
        assert (info.actor, message["role"]) == (row["actor"], row["role"])
        assert row["content"] == (content if type(content) is str else None)
    assert alike(dict(session.variables)) == alike(
        {row["name"]: values.decode(row["value"]) for row in own["variables"]}
    )
    for row in own["variables"]:
        known = session.variables.info(row["name"])
        assert (known.seq, known.time, known.type) == (row["seq"], row["time"], row["type"])
        assert (known.actor, known.expires_at) == (row["actor"], row["expires"])
    assert [
        (e.seq, e.position, e.time, e.kind, e.name, e.actor, e.cause, e.uid, e.text)
        for e in session.events()
    ] == [tuple(row.values())[2:] for row in own["events"]]


def values_by_name(text: str) -> dict[str, Any]:
    """The values of a JSON object, each read by itself."""
    import orjson

    return {name: values.decode(orjson.dumps(value)) for name, value in orjson.loads(text).items()}


@pytest.mark.parametrize("format", READERS)
@settings(max_examples=30)
@given(history=HISTORIES)
def test_tables_hold_what_sessions_hold(tmp_path_factory, format, history):
    """Whatever happened, rows read back by other libraries say the same as the sessions."""
    path = tmp_path_factory.mktemp("export") / "out"
    with fresh_store() as store:
        live_through(store, history)
        export_to(store, format, path)
        tables = READERS[format](path)
        for info in store.sessions():
            check(store.session(info.id), tables)


@pytest.mark.parametrize("format", READERS)
@settings(max_examples=30)
@given(message=messages, value=storable)
def test_any_value_is_its_stored_text(tmp_path_factory, format, message, value):
    """What JSON lacks is a tagged object in the text, and is read back as it was."""
    path = tmp_path_factory.mktemp("export") / "out"
    with evstore.open(":memory:", actor="ada") as store:
        session = store.session("trip")
        session.messages.append(message)
        session.variables.set("x", value, ttl=1000)
        session.metadata["x"] = value
        export_to(store, format, path)
        check(session, READERS[format](path))


def test_a_moment_of_the_past_is_in_the_tables(store, tmp_path):
    """At a moment the rows are what the session was then."""
    trip = store.session("trip")
    trip.variables["x"] = 1
    trip.variables["x"] = 2
    export_to(store, "tables", tmp_path / "then", trip, at=1)
    tables = from_sqlite(tmp_path / "then")
    assert ["1"] == [row["value"] for row in tables["variables"]]
    assert [1] == [row["seq"] for row in tables["events"]]


@settings(max_examples=5)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4))
def test_rows_leave_in_groups(tmp_path_factory, sizes):
    """A Parquet file is written in groups of rows, by number or by size, whichever comes first."""
    path = tmp_path_factory.mktemp("export") / "out"
    with pytest.MonkeyPatch.context() as patch, evstore.open(":memory:") as store:
        patch.setattr(writing, "GROUP_ROWS_MAX", 3)
        patch.setattr(writing, "GROUP_CHARACTERS_MAX", 5000)
        for number, size in enumerate(sizes):
            for _ in range(size):
                content = "x" * 6000 * (number % 2)
                store.session(str(number)).messages.append({"role": "user", "content": content})
        export_to(store, "parquet", path)
    file = parquet.ParquetFile(path / "messages.parquet")
    assert sum(sizes) == file.metadata.num_rows
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert all(rows <= 3 for rows in groups)
    large = sum(size for number, size in enumerate(sizes) if number % 2)
    assert large <= len(groups) <= large + 1 + sum(sizes) // 3


def test_an_empty_store_has_empty_tables(store, tmp_path):
    """Where there is nothing, the tables are there and empty."""
    for format, read in READERS.items():
        export_to(store, format, tmp_path / format)
        assert {table.name: [] for table in TABLES} == read(tmp_path / format)


def test_a_disk_that_fails_is_told(store, tmp_path, monkeypatch):
    """Where the disk says no, the error is one of evstore's, and nothing is left."""
    store.session("trip").variables["x"] = 1

    def fail(*_: object) -> None:
        raise apsw.FullError("no room")

    monkeypatch.setattr(table_file, "_definition", fail)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Unavailable):
        export_to(store, "tables", tmp_path / "out")
    assert before == sorted(tmp_path.iterdir())
