"""What it costs to carry a log into a new file, and to mend what is derived beside its writers."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

import evstore
from evstore import replay
from evstore.sqlite.pages import checksum_vfs
from tools.bench import child, made
from tools.bench.bench import Bench
from tools.bench.measured import microseconds, quantile, spread
from tools.bench.targets import Figure, Point

EVENTS = 1_000_000
WRONG_NAMES = 10_000
TIMES = 3
_COPIES = """
insert into kind select * from source.kind; insert into session select * from source.session;
insert into batch select * from source.batch; insert into event select * from source.event;
"""


def migrating(bench: Bench) -> Iterator[Figure | Point]:
    """Measure an exact copy of a long log, all links checked, and its rows copied by SQL alone."""
    events = bench.sized(EVENTS, 1000)
    path = bench.made("long-100", lambda path: made.lengthen(path, events, 100))
    rates, ratios, peaks = [], [], []
    for turn in range(min(TIMES, bench.rounds)):
        target = bench.folder / f"migrated-{turn}.db"
        copied_us = microseconds(lambda: _copy_rows(path, bench.folder / "rows.db"), 1)[0]
        found = child.run("migrate_all", path=str(path), target=str(target))
        target.unlink()
        rates.append(events / found["took_s"])
        ratios.append(found["took_s"] * 1e6 / copied_us)
        peaks.append(found["peak_bytes"] / 1e6)
    yield Figure("migrate", spread(rates), events)
    yield Figure("migrate_rows", spread(ratios), events)
    yield Figure("migrate_memory", spread(peaks), events)


def _copy_rows(path: Path, target: Path) -> None:
    """Copy the rows of a log by one statement for each table, into tables of the same form."""
    connection = apsw.Connection(str(target), vfs=checksum_vfs())
    connection.execute("pragma journal_mode=wal; pragma synchronous=normal").fetchall()
    connection.execute("attach ? as source", (str(path),))
    connection.execute("begin")
    tables = "select sql from source.sqlite_schema where name in ('kind','session','batch','event')"
    for (definition,) in connection.execute(tables).fetchall():
        connection.execute(str(definition))
    connection.execute(_COPIES).fetchall()
    connection.execute("commit")
    connection.close()
    target.unlink()


def mending(bench: Bench) -> Iterator[Figure | Point]:
    """Measure how long the lock is held while the present of many names is mended."""
    names = bench.sized(WRONG_NAMES, 1000)
    path = bench.folder / "mended.db"
    with evstore.open(path, durability="normal") as store:
        variables = store.session("names").variables
        variables.update({f"name{number}": number for number in range(names)})
        database, held_ms, began_s = store.engine.database, [], [0.0]
        begin, finish = database.begin, database.finish

        def beginning(durability: Any, wait_s: float, since_s: float) -> Any:
            cursor = begin(durability, wait_s, since_s)
            began_s[0] = time.perf_counter()
            return cursor

        def finishing(cursor: Any) -> None:
            finish(cursor)
            held_ms.append(1000 * (time.perf_counter() - began_s[0]))

        rates = []
        for _ in range(min(TIMES, bench.rounds)):
            with database.writing("normal") as cursor:
                cursor.execute("update variable set value = '-1'")
            database.begin, database.finish = beginning, finishing  # type: ignore[method-assign]
            rates += [1e6 * names / took for took in microseconds(lambda: replay.rebuild(store), 1)]
            database.begin, database.finish = begin, finish  # type: ignore[method-assign]
        if found := list(replay.verify(store, level="full")):
            raise RuntimeError(f"what was mended is damaged: {found[0]}")
    held_ms.sort()
    yield Figure("mend_held", spread([quantile(held_ms, 0.999)]), names)
    yield Figure("mend", spread(rates), names)
