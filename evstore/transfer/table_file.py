"""A plain SQLite file of tables, for whoever has a SQLite shell and no evstore.

The tables are those of `rows`, with times as texts in UTC, `2026-01-31 12:00:00.000000`, which
SQLite's own functions of dates understand.
"""

from collections.abc import Iterable, Iterator

import apsw

from evstore.events import from_microseconds
from evstore.sqlite.failures import translate
from evstore.transfer.chosen import Chosen, Report
from evstore.transfer.rows import TABLES, Row, Table

_TYPES = {"text": "text", "integer": "integer", "time": "text"}


def write(path: str, chosen: Iterable[Chosen], _report: Report) -> None:
    """Write the tables into an empty file; raises Unavailable where the disk says no."""
    try:
        connection = apsw.Connection(path)
        try:
            # A file that is cut short never gets its name, so nothing has to be taken back.
            connection.execute("pragma journal_mode=off; pragma synchronous=off").fetchall()
            with connection:
                for table in TABLES:
                    connection.execute(_definition(table))
                for session in chosen:
                    for table in TABLES:
                        marks = ",".join("?" * len(table.columns))
                        statement = f"insert into {table.name} values ({marks})"
                        connection.executemany(statement, _rows(table, session))
        finally:
            connection.close()
    except apsw.Error as error:
        raise translate(error, path, 0) from error


def _definition(table: Table) -> str:
    columns = ", ".join(f"{name} {_TYPES[kind]}" for name, kind in table.columns)
    return f"create table {table.name} ({columns})"


def _rows(table: Table, chosen: Chosen) -> Iterator[Row]:
    times = [index for index, (_, kind) in enumerate(table.columns) if kind == "time"]
    for row in table.rows(chosen):
        shown = list(row)
        for index in times:
            if shown[index] is not None:
                shown[index] = f"{from_microseconds(shown[index]):%Y-%m-%d %H:%M:%S.%f}"
        yield tuple(shown)
