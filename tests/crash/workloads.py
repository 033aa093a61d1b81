"""Workloads: what the recorded program does, each in every durability, from one seed."""

import random
from collections.abc import Callable
from contextlib import ExitStack

import evstore
from evstore.sqlite import database, deltas, schema, wal
from evstore.sqlite.database import Durability
from tests.crash.disk import Mark
from tests.crash.recorder import Recorder


class Program:
    """A program that writes to one store, and notes what it was told about each write."""

    def __init__(self, recorder: Recorder, path: str, durability: Durability, seed: int) -> None:
        self.chance = random.Random(seed)
        self._recorder = recorder
        self._path = path
        self._durability = durability
        self._stores = ExitStack()
        self.store = self.open()

    def open(self, durability: Durability | None = None) -> evstore.Store:
        """Open the store, or one more handle on it."""
        store = evstore.open(self._path, durability=durability or self._durability)
        self.note(store, durable=False)
        return self._stores.enter_context(store)

    def reopen(self) -> None:
        """Close all handles, and open the store anew."""
        self._stores.close()
        self.store = self.open()

    def close(self) -> None:
        """Close all handles."""
        self._stores.close()

    def note(self, store: evstore.Store | None = None, *, durable: bool | None = None) -> None:
        """Note that the last call has returned; `durable`, that nothing so far may be lost."""
        newest = (store or self.store).engine.counts().batches
        if durable is None:
            durable = self._durability == "full"
        safe = newest if durable else self._recorder.mark.durable
        self._recorder.acknowledge(Mark(created=True, acknowledged=newest, durable=safe))

    def text(self) -> str:
        """Return a text that is short, or long enough to be compressed or to fill pages."""
        size = self.chance.choice((3, 40, 700, 6000))
        return "".join(self.chance.choice("abcdefgh ") for _ in range(size))

    def message(self) -> dict[str, str]:
        """Return a message."""
        return {"role": "user", "content": self.text()}


def creation(program: Program) -> None:
    """A store is made, written to once, and closed."""
    session = program.store.session("first")
    session.variables["name"] = program.text()
    program.note()
    program.reopen()
    session = program.store.session("first")
    session.messages.append(program.message())
    program.note()


def singles(program: Program) -> None:
    """Variables and messages come one by one, and go."""
    session = program.store.session("singles")
    for number in range(14):
        match program.chance.randrange(4):
            case 0:
                session.messages.append(program.message())
            case 1 if len(session.messages) > 1:
                session.messages.remove(0)
            case 2 if "name1" in session.variables:
                del session.variables["name1"]
            case _:
                session.variables[f"name{number % 3}"] = program.text()
        program.note()


def batches(program: Program) -> None:
    """Batches of several events are one commit each."""
    session = program.store.session("batches")
    for number in range(8):
        with session.batch(actor="planner", key=f"key{number}") as batch:
            for index in range(program.chance.randrange(1, 6)):
                batch.variables[f"name{index}"] = program.text()
                batch.messages.append(program.message())
        program.note()


def sessions(program: Program) -> None:
    """Several sessions are written in turn; they are forked, deleted and brought back."""
    uids: list[str] = []
    for number in range(12):
        name = f"session{program.chance.randrange(3)}"
        session = program.store.session(name, metadata={"topic": "travel"})
        session.variables["text"] = program.text()
        program.note()
        if number % 3 == 1:
            fork = session.fork(f"fork{number}")
            program.note()
            fork.messages.append(program.message())
            program.note()
        if number % 5 == 3:
            uids.append(session.uid or "")
            program.store.delete(name)
            program.note()
        if number % 6 == 5 and uids:
            name = program.store.session(uid=uids[-1]).id
            if name not in program.store:
                program.store.restore(uids.pop())
                program.note()


def checkpoints(program: Program) -> None:
    """The log is folded into the file while writing goes on, across clean closes."""
    for round_number in range(3):
        session = program.store.session("checkpoints")
        for number in range(5):
            with session.batch() as batch:
                for index in range(4):
                    batch.variables[f"name{round_number}{number}{index}"] = program.text()
            program.note()
        program.reopen()


def long_log(program: Program) -> None:
    """A session grows beyond a thousand events, so that its state is written down."""
    session = program.store.session("long")
    for number in range(9):
        with session.batch() as batch:
            for index in range(120):
                batch.variables[f"name{index % 20}"] = number
                if index % 10 == 0:
                    batch.messages.append({"role": "user", "content": str(index)})
        program.note()
    session.messages.pop()
    program.note()


def flushes(program: Program) -> None:
    """Now and then a program asks that nothing so far may be lost."""
    session = program.store.session("flushes")
    for number in range(12):
        session.variables[f"name{number % 4}"] = program.text()
        program.note()
        if number % 4 == 2:
            program.store.flush()
            program.note(durable=True)


def two_handles(program: Program) -> None:
    """One handle is full and the other normal: a full commit carries the others along."""
    full, normal = program.open("full"), program.open("normal")
    for number in range(6):
        normal.session("two").variables[f"name{number}"] = program.text()
        program.note(durable=False)
        if number % 3 == 2:
            full.session("one").messages.append(program.message())
            program.note(durable=True)


def searches(program: Program) -> None:
    """What is said is searched now and then, which brings the index up to date."""
    session = program.store.session("searches")
    for number in range(7):
        session.messages.append({"role": "user", "content": f"common {program.text()}"})
        program.note()
        if number % 3 == 1:
            program.store.search("common")
        if number % 5 == 4:
            session.messages.remove(number // 2)
            program.note()


def upgrade(program: Program) -> None:
    """A file of version 1, as `run` lets it be made, is upgraded and searched."""
    creation(program)
    schema.scripts = _all_scripts
    program.reopen()
    searches(program)


def compaction(program: Program) -> None:
    """Large values are written in full, then encoded anew, and the file as well."""
    limit, deltas.TEXT_BYTES_MAX = deltas.TEXT_BYTES_MAX, 0
    session = program.store.session("compaction")
    lines = [program.text() for _ in range(6)]
    for number in range(6):
        session.variables["lines"] = [*lines, number]
        program.note()
    deltas.TEXT_BYTES_MAX = limit
    gain = program.store.compact()
    assert gain.after_bytes < gain.before_bytes
    session.variables["lines"] = lines
    program.note()


_all_scripts = schema.scripts
WORKLOADS: dict[str, Callable[[Program], None]] = {
    work.__name__: work
    for work in (
        creation,
        singles,
        batches,
        sessions,
        checkpoints,
        long_log,
        flushes,
        two_handles,
        searches,
        upgrade,
        compaction,
    )
}


def run(name: str, durability: Durability, seed: int, path: str, *, fault: str = "") -> Recorder:
    """Record one workload; `fault` names a mistake that the engine is made to make."""
    recorder = Recorder(folders_are_synced=fault != "folders unsynced")
    recorder.install()
    wal.PAGES = 12  # so that small workloads see many checkpoints
    if fault == "never synced":
        database.Database._set_synchronous = _never_sync  # type: ignore[method-assign]
    if name == "upgrade":
        schema.scripts = lambda: _all_scripts()[:1]  # type: ignore[assignment]
    program = Program(recorder, path, durability, seed)
    WORKLOADS[name](program)
    program.close()
    return recorder


def _never_sync(self: database.Database, cursor: database.Cursor, durability: Durability) -> None:
    cursor.execute("pragma synchronous=off")
