"""A folder of Parquet files, one for each table, for whoever analyses many sessions.

The tables are those of `rows`; times are timestamps in UTC. Rows leave in groups, so that no more
than one group of each table is in memory, however many sessions there are. Importing this module
needs the extra `parquet`.
"""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

from evstore.errors import MissingExtra
from evstore.transfer.chosen import Chosen, Report
from evstore.transfer.rows import TABLES, Row, Table

try:
    from pyarrow import RecordBatch, array, int64, schema, string, timestamp
    from pyarrow.parquet import ParquetWriter
except ImportError:
    raise MissingExtra("parquet") from None

GROUP_ROWS_MAX = 50_000
GROUP_CHARACTERS_MAX = 16 << 20
_TYPES = {
    "text": string(),
    "integer": int64(),
    "time": timestamp("us", tz="UTC"),
}


def write(path: str, chosen: Iterable[Chosen], _report: Report) -> None:
    """Write TABLE.parquet into an empty folder for each table."""
    with ExitStack() as files:
        writers = [files.enter_context(_Writer(path, table)) for table in TABLES]
        for session in chosen:
            for writer in writers:
                for row in writer.table.rows(session):
                    writer.add(row)


class _Writer:
    """One file, and the rows that wait for their group to be full."""

    def __init__(self, folder: str, table: Table) -> None:
        self.table = table
        self._schema = schema([(name, _TYPES[kind]) for name, kind in table.columns])
        self._path = os.path.join(folder, f"{table.name}.parquet")
        self._file = ParquetWriter(self._path, self._schema, compression="zstd")
        self._waiting: list[Row] = []
        self._characters = 0

    def add(self, row: Row) -> None:
        self._waiting.append(row)
        self._characters += sum(len(cell) for cell in row if type(cell) is str)
        if len(self._waiting) >= GROUP_ROWS_MAX or self._characters >= GROUP_CHARACTERS_MAX:
            self._write()

    def _write(self) -> None:
        columns = zip(self._schema.types, zip(*self._waiting, strict=True), strict=True)
        arrays = [array(cells, type=kind) for kind, cells in columns]
        self._file.write_batch(RecordBatch.from_arrays(arrays, schema=self._schema))
        self._waiting.clear()
        self._characters = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None and self._waiting:
            self._write()
        self._file.close()
        with open(self._path, "rb+") as file:
            os.fsync(file.fileno())
