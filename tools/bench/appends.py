"""What one append costs: single, over many sessions, and in batches, each beside its baseline."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from typing import Literal

import evstore
from tools.bench.bare import Bare, ByHand, Floor
from tools.bench.bench import MESSAGE, VALUE, Bench
from tools.bench.by_hand import Rows
from tools.bench.measured import Work, interleave
from tools.bench.straight import Straight
from tools.bench.targets import Figure, Point

NAMES = 100
SESSIONS = 1000
BATCH_EVENTS = 1000
CALLS = 50  # in each round


class Stores:
    """A store for each kind of append, so that none pays for the checkpoints of another."""

    def __init__(
        self, bench: Bench, durability: Literal["full", "normal"], stack: ExitStack
    ) -> None:
        self.warm = 4000 if bench.scale >= 1 else bench.usual(1000)
        self.turn = count()
        opened = {
            name: stack.enter_context(
                evstore.open(bench.folder / f"{name}-{durability}.db", durability=durability)
            )
            for name in ("message", "variable", "sessions")
        }
        self.message = opened["message"].session("one")
        self.variable = opened["variable"].session("one")
        self.many = [
            opened["sessions"].session(f"session-{n}") for n in range(bench.usual(SESSIONS))
        ]
        for _ in range(self.warm):
            self.append()
            self.set()

    def append(self) -> None:
        """Append one message to one session."""
        self.message.messages.append(MESSAGE)

    def set(self) -> None:
        """Set one of the variables of one session."""
        self.variable.variables.set(self.name(), VALUE)

    def name(self) -> str:
        """Return the next of some names."""
        return f"name{next(self.turn) % NAMES}"

    def number(self) -> int:
        """Return the next of many sessions."""
        return next(self.turn) % len(self.many)

    def append_in_turn(self) -> None:
        """Append one message to the next of many sessions."""
        self.many[self.number()].messages.append(MESSAGE)


class Floors:
    """The same three kinds of append in one function, each in a file of its own."""

    def __init__(
        self, bench: Bench, durability: Literal["full", "normal"], stores: Stores, stack: ExitStack
    ) -> None:
        self.stores = stores
        self.message, self.variable, self.many = (
            stack.enter_context(
                closing(Straight(bench.folder / f"straight-{name}-{durability}.db", durability))
            )
            for name in ("message", "variable", "sessions")
        )
        for _ in range(stores.warm):
            self.append()
            self.set()
            self.append_in_turn()

    def append(self) -> None:
        """Append one message to one session."""
        self.message.append(1, MESSAGE)

    def set(self) -> None:
        """Set one of the variables of one session."""
        self.variable.set(1, self.stores.name(), VALUE)

    def append_in_turn(self) -> None:
        """Append one message to the next of many sessions."""
        self.many.append(self.stores.number(), MESSAGE)


def full(bench: Bench) -> Iterator[Figure | Point]:
    """Measure appends that survive a power cut."""
    with ExitStack() as stack:
        stores = Stores(bench, "full", stack)
        for _ in stores.many:
            stores.append_in_turn()
        folder = bench.folder
        bare = Bare(folder / "bare-full.db", "full", MESSAGE, stores.warm)
        value = Bare(folder / "value-full.db", "full", VALUE, stores.warm)
        fresh = Bare(folder / "fresh-full.db", "full", MESSAGE, 0)
        by_hand = ByHand(folder / "by-hand.db", MESSAGE, stores.warm)
        floor = Floor(folder / "floor")
        rows = Rows(folder / "rows-full.db", "full", MESSAGE, stores.warm)
        value_rows = Rows(folder / "value-rows-full.db", "full", VALUE, stores.warm)
        many_rows = Rows(folder / "many-rows-full.db", "full", MESSAGE, stores.warm)
        many_rows.append_together(range(len(stores.many)))
        floors = Floors(bench, "full", stores, stack)
        for each in (bare, value, fresh, by_hand, floor, rows, value_rows, many_rows):
            stack.enter_context(closing(each))
        works: dict[str, Work] = {
            "floor": floor.write,
            "bare": bare.insert,
            "bare value": value.insert,
            "bare, fresh log": fresh.insert,
            "by hand": by_hand.insert,
            "rows": rows.append,
            "value rows": lambda: value_rows.set(stores.name()),
            "straight message": floors.append,
            "straight variable": floors.set,
            "straight sessions": floors.append_in_turn,
            "message": stores.append,
            "variable": stores.set,
            "sessions rows": lambda: many_rows.append_together([stores.number()]),
            "sessions": stores.append_in_turn,
        }
        took = interleave(works, bench.rounds, bench.usual(CALLS), {"bare, fresh log": fresh.renew})
    yield Figure("flush", took.ratio("bare", "floor"), samples=took.summaries())
    yield Figure("sqlite3", took.ratio("by hand", "bare"))
    yield Figure("message_rows_full", took.ratio("rows", "bare"))
    yield Figure("message_straight_full", took.ratio("straight message", "bare"))
    yield Figure("variable_rows_full", took.ratio("value rows", "bare value"))
    yield Figure("variable_straight_full", took.ratio("straight variable", "bare value"))
    yield Figure("message_full", took.ratio("message", "bare"))
    yield Figure("message_fresh", took.ratio("message", "bare, fresh log"))
    yield Figure("variable_full", took.ratio("variable", "bare value"))
    yield Figure("sessions_rows_full", took.ratio("sessions rows", "bare"), len(stores.many))
    yield Figure("sessions_straight_full", took.ratio("straight sessions", "bare"))
    yield Figure("sessions_full", took.ratio("sessions", "bare"), len(stores.many))


def normal(bench: Bench) -> Iterator[Figure | Point]:
    """Measure appends that survive a crash of the process."""
    with ExitStack() as stack:
        stores = Stores(bench, "normal", stack)
        bare = Bare(bench.folder / "bare-normal.db", "normal", MESSAGE, stores.warm)
        value = Bare(bench.folder / "value-normal.db", "normal", VALUE, stores.warm)
        rows = Rows(bench.folder / "rows-normal.db", "normal", MESSAGE, stores.warm)
        value_rows = Rows(bench.folder / "value-rows-normal.db", "normal", VALUE, stores.warm)
        floors = Floors(bench, "normal", stores, stack)
        for each in (bare, value, rows, value_rows):
            stack.enter_context(closing(each))
        works: dict[str, Work] = {
            "bare": bare.insert,
            "bare value": value.insert,
            "rows": rows.append,
            "value rows": lambda: value_rows.set(stores.name()),
            "straight message": floors.append,
            "straight variable": floors.set,
            "message": stores.append,
            "variable": stores.set,
        }
        took = interleave(works, bench.rounds, bench.usual(CALLS * 4))
    yield Figure("message_rows_normal", took.ratio("rows", "bare"))
    yield Figure("message_straight_normal", took.ratio("straight message", "bare"))
    yield Figure("variable_rows_normal", took.ratio("value rows", "bare value"))
    yield Figure("variable_straight_normal", took.ratio("straight variable", "bare value"))
    yield Figure("message_normal", took.ratio("message", "bare"), samples=took.summaries())
    yield Figure("variable_normal", took.ratio("variable", "bare value"))
    yield Figure("rate_normal", took.rate("message"))


def batches(bench: Bench) -> Iterator[Figure | Point]:
    """Measure batches against executemany."""
    with (
        evstore.open(bench.folder / "batches.db") as store,
        closing(Bare(bench.folder / "bare-batches.db", "full", MESSAGE, 100)) as bare,
        closing(Rows(bench.folder / "rows-batches.db", "full", MESSAGE)) as rows,
    ):
        session = store.session("batches")

        def batch() -> None:
            with session.batch() as batch:
                batch.messages.extend([MESSAGE] * BATCH_EVENTS)

        works: dict[str, Work] = {
            "executemany": lambda: bare.insert_many(BATCH_EVENTS),
            "rows": lambda: rows.append_many(BATCH_EVENTS),
            "batch": batch,
        }
        took = interleave(works, bench.rounds, 4)
    yield Figure("batch_rows", took.ratio("rows", "executemany"), BATCH_EVENTS)
    yield Figure("batch", took.ratio("batch", "executemany"), BATCH_EVENTS, took.summaries())
