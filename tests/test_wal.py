"""The write-ahead log is warm: made longer ahead of commits, without making the store larger."""

import os
import time
from pathlib import Path

import apsw
import pytest

import evstore
from evstore import replay
from evstore.errors import Unavailable
from evstore.sqlite import wal


def wal_bytes(path: Path) -> int:
    """How long the log is on the disk."""
    return os.path.getsize(f"{path}-wal")


def test_the_log_is_made_longer_ahead_of_commits(path: Path):
    """After a few durable commits the log has room for many more, and they overwrite it."""
    with evstore.open(path) as store:
        trip = store.session("trip")
        for number in range(wal.WARM_AFTER_COMMITS):
            trip.variables["a"] = number
        assert wal_bytes(path) < 1_000_000
        store_bytes = path.stat().st_size
        for number in range(4):
            trip.variables["a"] = number
        warmed = wal_bytes(path)
        assert 1_000_000 < warmed < 1_300_000
        for number in range(50):
            trip.variables["a"] = number
        assert warmed == wal_bytes(path)
        assert store_bytes == path.stat().st_size
        assert 49 == trip.variables["a"]
        assert [] == list(replay.verify(store, level="full"))
    assert [path.name] == [file.name for file in path.parent.iterdir()]
    with evstore.open(path) as store:
        assert 49 == store.session("trip").variables["a"]


def test_a_warm_log_is_bounded(path: Path):
    """However many commits there are, the log stays about as long as the copying of it asks."""
    with evstore.open(path) as store:
        trip = store.session("trip")
        for number in range(1500):
            trip.variables["a"] = number
        assert wal_bytes(path) < (wal.PAGES + 400) * 4120
        assert path.stat().st_size < 2_000_000


def test_who_asks_for_no_sync_needs_no_warm_log(path: Path):
    """Without durable commits the log is as long as what was written."""
    with evstore.open(path, durability="normal") as store:
        for number in range(50):
            store.session("trip").variables["a"] = number
        assert wal_bytes(path) < 1_000_000


def test_what_warming_leaves_behind_belongs_to_no_commit(path: Path, tmp_path: Path):
    """A file and its warm log, copied as a crash leaves them, hold just what was written."""
    with evstore.open(path) as store:
        trip = store.session("trip")
        for number in range(20):
            trip.variables["a"] = number
        assert wal_bytes(path) > 1_000_000
        for end in ("", "-wal"):
            (tmp_path / f"copy.db{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    with evstore.open(tmp_path / "copy.db") as copy:
        assert 20 == copy.session("trip").head
        assert [] == list(replay.verify(copy, level="full"))
        assert (tmp_path / "copy.db").stat().st_size < 500_000


def test_a_disk_that_fails_after_a_commit_is_told_with_the_next(path: Path, monkeypatch):
    """Where the log cannot be copied into the file, the commit holds, and the next use is told."""
    store = evstore.open(path)
    trip = store.session("trip")
    trip.variables["a"] = 1

    def failing(_self: wal.Wal, *, durable: bool) -> None:
        raise apsw.IOError(f"the disk is gone ({durable})")

    monkeypatch.setattr(wal.Wal, "care", failing)
    trip.variables["a"] = 2
    with pytest.raises(Unavailable):
        trip.variables["a"] = 3
    monkeypatch.undo()
    store.close()
    with evstore.open(path) as again:
        assert 2 == again.session("trip").variables["a"]


@pytest.mark.skipif(os.name == "nt", reason="there no file is removed that is open")
@pytest.mark.parametrize("pages", [wal.PAGES, 50])
def test_a_log_that_was_removed_is_the_end(path: Path, monkeypatch, pages: int):
    """Whoever removes the files of an open store is not written to for long: it is Unavailable."""
    monkeypatch.setattr(wal, "PAGES", pages)
    store = evstore.open(path)
    trip = store.session("trip")
    trip.variables["a"] = 0
    for name in os.listdir(path.parent):
        (path.parent / name).unlink()

    def write() -> None:
        for number in range(40):
            trip.variables["a"] = "x" * 1000 * number

    with pytest.raises(Unavailable, match="its log was removed"):
        write()
    with pytest.raises(Unavailable):
        dict(trip.variables)
    store.close()
    with evstore.open(path) as again:
        again.session("trip").variables["a"] = 1


def test_a_warm_log_is_worth_no_waiting(path: Path, monkeypatch):
    """Where somebody else writes by the time the log is to be warmed, a commit returns at once."""
    real = wal.Wal.care
    with evstore.open(path) as store:
        trip = store.session("trip")
        for number in range(wal.WARM_AFTER_COMMITS):
            trip.variables["a"] = number
        other = apsw.Connection(str(path), vfs="cksmvfs")

        def care(self: wal.Wal, *, durable: bool) -> None:
            other.execute("begin immediate")
            real(self, durable=durable)
            other.execute("rollback")

        monkeypatch.setattr(wal.Wal, "care", care)
        started_s = time.monotonic()
        trip.variables["a"] = -1
        assert 1 > time.monotonic() - started_s
        assert -1 == trip.variables["a"]
        assert wal_bytes(path) < 1_000_000
        other.close()
        monkeypatch.undo()
        trip.variables["a"] = -2
        assert wal_bytes(path) > 1_000_000
