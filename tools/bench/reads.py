"""What reading costs, now and in the past, and what taking care of a log costs."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import evstore
from evstore import replay
from tools.bench import made
from tools.bench.bare import Bare
from tools.bench.bench import MESSAGE, VALUE, Bench
from tools.bench.measured import Work, interleave, microseconds, spread
from tools.bench.targets import Figure, Point

NAMES = 100
LOADED = 10_000
SLICE = 20
LONG_EVENTS = 1_000_000
TURNS = 200
FIELDS = 1000  # of about a hundred bytes each
_PACKAGES = "import apsw, attrs, hashlib, logging, orjson, threading, zstandard"
_FIRST = """
import sys, evstore
with evstore.open(sys.argv[1]) as store:
    session = store.session("first")
    session.messages.append({"role": "user", "content": "Three days in Rome."})
    session.messages[0]
"""


def reads(bench: Bench) -> Iterator[Figure | Point]:
    """Measure reads of the present: a variable, one in a view, and a whole conversation."""
    loaded = bench.usual(LOADED)
    with (
        evstore.open(bench.folder / "reads.db", durability="normal") as store,
        closing(Bare(bench.folder / "bare-reads.db", "normal", MESSAGE, 1)) as bare,
    ):
        bare.insert_many(loaded)
        session = store.session("reads")
        session.variables.update({f"name{number}": VALUE for number in range(NAMES)})
        session.messages.extend([MESSAGE] * loaded)
        view = session.view()
        works: dict[str, Work] = {
            "variable": lambda: session.variables["name7"],
            "view": lambda: view.variables["name7"],
        }
        took = interleave(works, bench.rounds, 200)
        loads: dict[str, Work] = {
            "rows": lambda: bare.load(loaded),
            "messages": lambda: session.messages[:],
        }
        load = interleave(loads, bench.rounds, 1)
    yield Figure("variable", took.each("variable"), samples=took.summaries())
    yield Figure("variable_view", took.each("view"))
    yield Figure("load", load.ratio("messages", "rows"), loaded, load.summaries())


def past(bench: Bench) -> Iterator[Figure | Point]:
    """Measure moments, slices and forks of a session with a long past."""
    events = bench.sized(LONG_EVENTS, 1000)
    paths = {
        names: bench.made(f"long-{names}", partial(made.lengthen, events=events, names=names))
        for names in (100, 10_000)
    }
    talk = bench.made("talk", lambda path: made.converse(path, events))
    with (
        evstore.open(paths[100]) as few,
        evstore.open(paths[10_000]) as many,
        evstore.open(talk) as talks,
    ):
        session, named = few.session("long"), many.session("long")
        messages = talks.session("talk").messages

        def slice_of_20() -> object:
            start = random.randrange(events - SLICE)
            return messages[start : start + SLICE]

        works: dict[str, Work] = {
            "at, 100 names": lambda: session.at(random.randrange(events)),
            "at, 10,000 names": lambda: named.at(random.randrange(events)),
            "slice": slice_of_20,
        }
        took = interleave(works, bench.rounds, 10)
    yield Figure("at_100", took.each("at, 100 names").times(1e-3), events, took.summaries())
    yield Figure("at_10000", took.each("at, 10,000 names").times(1e-3), events)
    yield Figure("slice", took.each("slice").times(1e-3), events)
    yield from _forks(bench, paths[100], events)


def _forks(bench: Bench, long: Path, events: int) -> Iterator[Figure]:
    """Measure forks in a copy, which others need not carry on."""
    path, number, forked = bench.copied(long, "forked"), count(), bench.usual(200)
    with evstore.open(path) as store:
        session = store.session("long")
        forks: dict[str, Work] = {
            "commit": lambda: session.record("app.nothing"),
            "fork": lambda: session.fork(f"fork-{next(number)}", at=random.randrange(events)),
        }
        took = interleave(forks, bench.rounds, 10)
        before = store.stats().file_bytes
        for _ in range(forked):
            session.fork(f"fork-{next(number)}", at=random.randrange(events))
        added = (store.stats().file_bytes - before) / forked
    yield Figure("fork", took.ratio("fork", "commit"), events, took.summaries())
    yield Figure("fork_bytes", spread([added]))


def versions(bench: Bench) -> Iterator[Figure | Point]:
    """Measure a large variable of which every turn changes one field."""
    words = ["Rome", "Naples", "hotel", "train", "museum", "dinner", "booked", "open", "later"]
    text = {f"field{n}": " ".join(random.choices(words, k=14)) for n in range(FIELDS)}
    turns = bench.usual(TURNS)
    with evstore.open(bench.folder / "versions.db", durability="normal") as store:
        session = store.session("state")
        session.variables["state"] = text
        store.flush()
        before = store.stats()
        for turn in range(turns):
            text[f"field{random.randrange(FIELDS)}"] = f"changed in turn {turn}"
            session.variables["state"] = text
        store.flush()
        after = store.stats()
        works: dict[str, Work] = {
            "version": lambda: session.at(random.randint(1, turns)).variables["state"]
        }
        took = interleave(works, bench.rounds, 5)
    used = (after.file_bytes - after.free_bytes) - (before.file_bytes - before.free_bytes)
    yield Figure("versions_bytes", spread([used / 1024]), turns)
    read = took.each("version").times(1e-3)
    yield Figure("version_read", read, samples=took.summaries())


def care(bench: Bench) -> Iterator[Figure | Point]:
    """Measure verifying and rebuilding a long log."""
    events = bench.sized(LONG_EVENTS, 1000)
    path = bench.made("long-100", lambda path: made.lengthen(path, events, 100))
    with evstore.open(path) as store:
        works: dict[str, Work] = {
            "verify_chain": lambda: list(replay.verify(store, level="chain")),
            "verify_full": lambda: list(replay.verify(store, level="full")),
            "rebuild": lambda: replay.rebuild(store),
        }
        for name, work in works.items():
            times = 3 if bench.rounds > 3 else 1
            rates = [events / took * 1e6 for took in microseconds(work, times)]
            yield Figure(name, spread(rates), events)
        if found := list(replay.verify(store, level="full")):
            raise RuntimeError(f"the log that was measured is damaged: {found[0]}")


def imports(bench: Bench) -> Iterator[Figure | Point]:
    """Measure what `import evstore`, and a first append and read, add to starting Python.

    Modules are compiled once, as for an installed package, whatever this environment says of that.
    """
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": f"{bench.folder}/bytecode"}
    paths = (str(bench.folder / f"first-{number}.db") for number in count())

    def start(program: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, *arguments]
        subprocess.run(command, env=os.environ | compiled, check=True)

    works: dict[str, Work] = {
        "bare": lambda: start(""),
        "import_packages": lambda: start(_PACKAGES),
        "import": lambda: start("import evstore"),
        "import_first": lambda: start(_FIRST, next(paths)),
    }
    took = interleave(works, bench.rounds, 1)
    for name in ("import_packages", "import", "import_first"):
        more = took.difference(name, "bare").times(1e-3)
        yield Figure(name, more, samples=took.summaries())
