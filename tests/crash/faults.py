"""Faults: a VFS below evstore's own whose disk fails at the operation it is told to fail at.

Like the recorder it has to be the default VFS before the first store of its process is opened.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apsw

import evstore
import evstore.replay
from evstore.errors import EvstoreError, Unavailable
from evstore.sqlite import wal
from tests.crash.audit import audit
from tests.crash.recorder import BASE

FAULTS = {
    "write": (apsw.SQLITE_IOERR_WRITE, apsw.IOError),
    "sync": (apsw.SQLITE_IOERR_FSYNC, apsw.IOError),
    "full": (apsw.SQLITE_FULL, apsw.FullError),
    "read": (apsw.SQLITE_IOERR_READ, apsw.IOError),
}
OPERATIONS = {"write": "write", "sync": "sync", "full": "write", "read": "read"}


class FaultyDisk(apsw.VFS):
    """The VFS; `fail(fault, after, lasting)` makes an operation fail, once or from then on."""

    def __init__(self) -> None:
        self.failed = 0
        self._fault, self._left, self._lasting = "", 0, False
        super().__init__("faulty", BASE, makedefault=True)

    def fail(self, fault: str, after: int = 0, *, lasting: bool = False) -> None:
        """Let the operation after so many of its kind fail, by name of fault; "" for no more."""
        self._fault, self._left, self._lasting, self.failed = fault, after, lasting, 0

    def happen(self, operation: str) -> None:
        """Raise if it is the turn of this operation."""
        if OPERATIONS.get(self._fault) != operation:
            return
        self._left -= 1
        if self._left == -1 or (self._lasting and self._left < 0):
            self.failed += 1
            code, cls = FAULTS[self._fault]
            error: Any = cls(f"injected {self._fault}")
            error.extendedresult = code
            raise error

    def xOpen(self, name: Any, flags: list[int]) -> "FaultyFile":  # noqa: N802 - SQLite named it
        """Open a file that may fail."""
        return FaultyFile(self, name, flags)


class FaultyFile(apsw.VFSFile):
    """A file that may fail."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(BASE, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite named it
        self._disk.happen("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite named it
        self._disk.happen("sync")
        super().xSync(flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite named it
        self._disk.happen("read")
        return super().xRead(amount, offset)


def survives(disk: FaultyDisk, path: Path, fault: str, after: int, *, lasting: bool) -> str:
    """Return what a program sees when its disk fails, after checking that nothing told is lost."""
    seen, told = "nothing", 0
    store = evstore.open(path)
    session, other = store.session("a"), evstore.open(path)
    told = session.head
    disk.fail(fault, after, lasting=lasting)
    try:
        for number in range(6):
            with session.batch() as batch:
                batch.variables["number"] = number
                batch.messages.append({"role": "user", "content": "x" * 3000})
            told = batch.events[-1].seq
            assert number == session.variables["number"]
    except EvstoreError as error:
        seen = type(error).__name__
        if fault == "sync" and session_failed(store):
            poisoned(other)
    failed = disk.failed
    disk.fail("")
    for handle in (store, other):
        handle.close()
    assert failed or seen == "nothing"
    with evstore.open(path, create=False) as again:
        audit(again)
        assert [] == list(evstore.replay.verify(again, level="full"))
        head = again.session("a").head
        assert told <= head <= told + 2, (told, head)
        assert head % 2 == 0, "half a batch is there"
        again.session("a").variables.update(number=-1, more=-1)
    return seen if failed else "no fault"


def session_failed(store: evstore.Store) -> bool:
    """Whether the file was given up."""
    return store.engine.database._failed is not None


def poisoned(store: evstore.Store) -> None:
    """Check that another handle of a file whose fsync failed is of no more use either."""
    for use in (
        lambda: store.session("a").variables.update(x=1),
        lambda: store.session("a").head,
        store.flush,
    ):
        try:
            use()
        except Unavailable:
            continue
        raise AssertionError("a handle goes on after a failed fsync")


def main() -> int:
    """Let each of the first forty operations of a kind fail, and say how often what was seen."""
    path, fault, lasting, wal_pages = sys.argv[1:]
    disk = FaultyDisk()
    wal.PAGES = int(wal_pages)
    seen: Counter[str] = Counter()
    evstore.open(path).close()
    for after in range(40):
        seen[survives(disk, Path(path), fault, after, lasting=lasting == "lasting")] += 1
    sys.stdout.write(repr(dict(seen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
