"""How costs grow with what a store holds: events, sessions, names, sizes, and processes.

The stores of different sizes are open at the same time and take turns, so that the growth that is
found is that of the store, and not of what else the machine did in the meantime.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import evstore
from tools.bench import child, made
from tools.bench.bench import MESSAGE, VALUE, Bench
from tools.bench.measured import Rounds, Work, interleave, spread
from tools.bench.targets import Figure, Point

EVENTS = (100_000, 1_000_000, 10_000_000)
SESSIONS = (1, 100, 10_000, 100_000)
NAMES = (10, 100, 1000, 10_000)
SIZES_BYTES = (100, 1000, 10_000, 100_000, 1_000_000)
PROCESSES = (1, 2, 4, 8)
OPENED_TIMES = 10
_PIECE_BYTES = 1 << 20


def events(bench: Bench) -> Iterator[Figure | Point]:
    """Measure the same steps at three lengths of a session."""
    sizes = [bench.sized(size, 100) for size in EVENTS]
    paths = _grown(bench, "events", sizes, lambda path, _, stop: made.lengthen(path, stop))
    opened = {size: _opened_us(path, bench) for size, path in paths.items()}
    yield Figure("open", spread(opened[sizes[-1]]).times(1e-3), sizes[-1])
    for size, took_us in opened.items():
        yield Point("events", "open and read", size, spread(took_us))
    for path in paths.values():  # what was opened without it comes back into memory
        _read_through(path)
    with ExitStack() as stack:
        works: dict[str, Work] = {}
        for size, path in paths.items():
            store = stack.enter_context(evstore.open(path, durability="normal"))
            for name, work in _steps(store.session("long"), size).items():
                works[f"{name} {size}"] = work
        took = interleave(works, bench.rounds, 20)
    for name in ("append", "read", "slice", "at", "fork"):
        yield from _curve("events", name, sizes, took)
        yield Figure(f"{name}_growth", _growth(took, name, sizes), sizes[-1])


def _steps(session: evstore.Session, size: int) -> dict[str, Work]:
    messages, number, forks = len(session.messages), count(), count()

    def slice_of_20() -> object:
        start = random.randrange(max(1, messages - 20))
        return session.messages[start : start + 20]

    return {
        "append": lambda: session.messages.append(MESSAGE),
        "read": lambda: session.variables[f"name{next(number) % 100}"],
        "slice": slice_of_20,
        "at": lambda: session.at(random.randrange(size)),
        "fork": lambda: session.fork(f"fork-{next(forks)}", at=random.randrange(size)),
    }


def _opened_us(path: Path, bench: Bench) -> list[float]:
    times = min(OPENED_TIMES, bench.rounds)
    return [child.run("open_and_read", path=str(path))["took_us"] for _ in range(times)]


def _read_through(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(_PIECE_BYTES):
            pass


def _grown(
    bench: Bench, name: str, sizes: list[int], grow: Callable[[Path, int, int], None]
) -> dict[int, Path]:
    """Return a store of each size; each is the one before, grown."""
    path = bench.folder / f"{name}-growing.db"
    found = {}
    for start, stop in pairwise([0, *sizes]):
        grow(path, start, stop)
        found[stop] = bench.copied(path, f"{name}-{stop}")
    path.unlink()
    return found


def _growth(took: Rounds, name: str, sizes: list[int]) -> Any:
    return took.ratio(f"{name} {sizes[-1]}", f"{name} {sizes[0]}")


def _curve(curve: str, name: str, sizes: list[int], took: Rounds) -> Iterator[Point]:
    for size in sizes:
        yield Point(curve, name, size, took.each(f"{name} {size}"))


def sessions(bench: Bench) -> Iterator[Figure | Point]:
    """Measure an append and a first read with more and more sessions in the file."""
    sizes = sorted({bench.sized(size) for size in SESSIONS})
    paths = _grown(bench, "sessions", sizes, made.populate)
    with ExitStack() as stack:
        works: dict[str, Work] = {}
        for size, path in paths.items():
            store = stack.enter_context(evstore.open(path, durability="normal"))
            for name, work in _crowd_steps(store, size).items():
                works[f"{name} {size}"] = work
        took = interleave(works, bench.rounds, 20)
    for name in ("append", "first read", "list 100"):
        yield from _curve("sessions", name, sizes, took)
    yield Figure("sessions_growth", _growth(took, "append", sizes), sizes[-1])


def _crowd_steps(store: evstore.Store, size: int) -> dict[str, Work]:
    session = store.session("session-0")
    return {
        "append": lambda: session.messages.append(MESSAGE),
        "first read": lambda: store.session(f"session-{random.randrange(size)}").messages[-1],
        "list 100": lambda: list(store.sessions(limit=100)),
    }


def names(bench: Bench) -> Iterator[Figure | Point]:
    """Measure steps of sessions with more and more names."""
    sizes = [size for size in NAMES if size <= 100 or bench.scale >= 0.01]
    with evstore.open(bench.folder / "names.db", durability="normal") as store:
        works: dict[str, Work] = {}
        for size in sizes:
            session = store.session(f"names-{size}")
            session.variables.update({f"name{number}": VALUE for number in range(size)})
            for name, work in _named_steps(session, size).items():
                works[f"{name} {size}"] = work
        took = interleave(works, bench.rounds, 10)
    for name in ("set", "read", "view"):
        yield from _curve("names", name, sizes, took)
    yield Figure("names_growth", _growth(took, "set", sizes), sizes[-1])


def _named_steps(session: evstore.Session, size: int) -> dict[str, Work]:
    return {
        "set": lambda: session.variables.set(f"name{random.randrange(size)}", VALUE),
        "read": lambda: session.variables[f"name{random.randrange(size)}"],
        "view": session.view,
    }


def sizes(bench: Bench) -> Iterator[Figure | Point]:
    """Measure setting and reading values of more and more bytes."""
    chosen = [size for size in SIZES_BYTES if size <= 10_000 or bench.scale >= 0.01]
    with evstore.open(bench.folder / "sizes.db", durability="normal") as store:
        works: dict[str, Work] = {}
        for size in chosen:
            session, text = store.session(f"bytes-{size}"), _text(size)
            for name, work in _sized_steps(session, text).items():
                works[f"{name} {size}"] = work
        took = interleave(works, bench.rounds, 4)
    for name in ("set", "read"):
        yield from _curve("sizes", name, chosen, took)
    yield Figure("sizes_growth", _growth(took, "set", chosen), chosen[-1])


def _text(size_bytes: int) -> str:
    words = ["Rome", "Naples", "hotel", "train", "museum", "dinner", "booked", "open", "later"]
    return " ".join(random.choices(words, k=size_bytes // 4))[:size_bytes]


def _sized_steps(session: evstore.Session, text: str) -> dict[str, Work]:
    number = count()
    session.variables["text"] = text
    return {
        # Each time other words come first, as values change from turn to turn.
        "set": lambda: session.variables.set("text", f"{next(number):08}" + text[8:]),
        "read": lambda: session.variables["text"],
    }


def processes(bench: Bench) -> Iterator[Figure | Point]:
    """Measure durable appends of more and more processes to one file, a session each."""
    chosen = [number for number in PROCESSES if number <= 2 or bench.scale >= 0.1]
    rates: dict[int, list[float]] = {number: [] for number in chosen}
    for turn in range(min(3, bench.rounds)):
        for number in random.sample(chosen, len(chosen)):
            path = bench.folder / f"processes-{number}-{turn}.db"
            with evstore.open(path):
                pass  # creating it is no part of the race
            rates[number].append(_race(path, number, bench.seconds(1)))
    for number, found in rates.items():
        yield Point("processes", "append", number, spread(1e6 / rate for rate in found))
    growth = spread(a / b for a, b in zip(rates[chosen[-1]], rates[1], strict=True))
    yield Figure("processes_growth", growth, chosen[-1])


def _race(path: Path, number: int, duration_s: float) -> float:
    """Return how many appends a second some processes make together."""
    with ExitStack() as stack:
        racers = [
            stack.enter_context(
                child.Child("append", path=str(path), session=f"racer-{n}", duration_s=duration_s)
            )
            for n in range(number)
        ]
        for racer in racers:
            racer.said()  # all are ready
        for racer in racers:
            racer.tell("go")
        return float(sum(racer.said()["rate"] for racer in racers))
