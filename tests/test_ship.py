"""What is shipped can be restored: always a beginning of the log, and all that a shipment held.

The long run with kills is `python -m tests.crash.ship --kills 500`.
"""

import multiprocessing
import os
import shutil
import stat
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings

import evstore
from evstore import replay
from evstore.chain import Batch
from evstore.errors import Closed, Corrupt, ReadOnly, Refused, Unavailable
from evstore.transfer import (
    Restored,
    Shipped,
    follow,
    import_lines,
    restore_from,
    segments,
    ship,
    shipping,
)
from tests.crash.audit import all_batches
from tests.crash.ship import kill_and_cut
from tests.histories import HISTORIES, live_through
from tests.test_backup import fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where segments can be: a folder that does not exist yet."""
    return tmp_path / "segments"


@pytest.fixture
def shipped(store: evstore.Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> evstore.Store:
    """A store that is shipped in many small segments."""
    monkeypatch.setattr(segments, "BYTES_MAX", 8000)
    fill(store)
    assert 5 < ship(store, folder).segments
    return store


@pytest.fixture
def target(tmp_path: Path) -> Iterator[evstore.Store]:
    """An empty store to restore into, which verifies at the end."""
    with evstore.open(tmp_path / "restored.db", durability="normal") as opened:
        yield opened
        assert [] == list(replay.verify(opened, level="full"))


def named(folder: Path) -> list[Path]:
    """The segments in a folder, in their order."""
    return sorted(folder.glob("*.zst"))


def content(path: Path) -> list[bytes]:
    """The lines of a segment."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines()


def put(path: Path, lines: list[bytes], *, hashed: bool = False) -> None:
    """Write lines as a segment, with the hash that they have where that is wanted."""
    text = b"".join(line + b"\n" for line in lines)
    if hashed:
        text = b"".join(line + b"\n" for line in lines[:-1])
        text += orjson.dumps({"hash": sha256(text).hexdigest()}) + b"\n"
    path.write_bytes(zstandard.ZstdCompressor().compress(text))


# There and back.


def test_what_is_shipped_can_be_restored(shipped, folder, target):
    """A restored store has the same log at the same positions, and the same present."""
    restored = restore_from(target, folder)
    batches = all_batches(shipped)
    events = sum(len(batch.entries) for batch in batches)
    assert Restored(len(named(folder)), len(batches), events, len(batches), None) == restored
    assert batches == all_batches(target)
    assert replay.fingerprint(shipped) == replay.fingerprint(target)


def test_only_what_is_new_is_shipped_and_restored(shipped, folder, target):
    """A second time nothing happens, and then only the new part; no segment ever changes."""
    position = shipped.engine.position()
    before = {path: path.read_bytes() for path in named(folder)}
    restore_from(target, folder)
    assert Shipped(0, 0, position) == ship(shipped, folder)
    assert Restored(0, 0, 0, position, None) == restore_from(target, folder)
    shipped.session("trip").variables["late"] = True
    assert Shipped(1, 1, position + 1) == ship(shipped, folder)
    assert Restored(1, 1, 1, position + 1, None) == restore_from(target, folder)
    assert before.items() <= {path: path.read_bytes() for path in named(folder)}.items()
    assert all_batches(shipped) == all_batches(target)


@settings(max_examples=30)
@given(HISTORIES)
def test_any_history_comes_back(tmp_path_factory, history):
    """Sessions and forks with random histories are restored as they were."""
    folder = tmp_path_factory.mktemp("segments")
    with evstore.open(":memory:") as store, evstore.open(":memory:") as target:
        sessions = live_through(store, history)
        ship(store, folder)
        for number, session in enumerate(sessions):
            session.variables["late"] = number
        ship(store, folder)
        assert restore_from(target, folder).stopped is None
        assert all_batches(store) == all_batches(target)
        assert [] == list(replay.verify(target, level="full"))


def test_an_empty_store_ships_nothing(store, folder):
    """Without a batch there is no segment, and nothing can be restored from the folder."""
    assert Shipped(0, 0, 0) == ship(store, folder)
    with pytest.raises(Unavailable, match="no segments"):
        restore_from(store, folder)


def test_what_is_shipped_is_durable_first(store, folder):
    """A power cut takes nothing from the store that was shipped, whatever its durability."""
    store.session("s").variables["a"] = 1
    assert "normal" == store.engine.database._synchronous
    ship(store, folder)
    assert "full" == store.engine.database._synchronous


def test_segments_belong_to_their_owner_and_sort_by_position(shipped, folder):
    """Names are positions of 20 digits, sizes are bounded, and nobody else may read them."""
    for path, following in zip(named(folder), [*named(folder)[1:], None], strict=True):
        begin, *_, end, _ = map(orjson.loads, content(path))
        assert f"{begin['first']:020}.jsonl.zst" == path.name
        if following is not None:
            assert begin["first"] + end["end"] == int(following.name[:20])
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert len(b"".join(content(path))) < 8000 + 5000
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)


def test_the_lines_between_are_an_export(shipped, folder, target):
    """Without its first and last line a segment is what `import` takes in."""
    for path in named(folder):
        import_lines(target, content(path)[1:-1])
    assert all_batches(shipped) == all_batches(target)


def test_a_backup_is_brought_up_to_date(shipped, folder, tmp_path):
    """Segments continue a backup of the same store, whatever its deadlines are by now."""
    shipped.session("brief", ttl=0.01).variables["x"] = 1
    shipped.backup(tmp_path / "backup.db")
    shipped.session("trip").variables["late"] = True
    ship(shipped, folder)
    with evstore.open(tmp_path / "backup.db") as copy:
        assert 1 == restore_from(copy, folder).batches
        assert all_batches(shipped) == all_batches(copy)


def test_a_large_segment_comes_in_by_parts(shipped, folder, target, monkeypatch):
    """However many transactions a segment takes, all of it is restored."""
    monkeypatch.setattr(shipping, "CHUNK_BATCHES_MAX", 3)
    assert restore_from(target, folder).stopped is None
    assert all_batches(shipped) == all_batches(target)


def test_progress_is_told(shipped, folder, target):
    """Restoring tells how many segments are done, and of how many."""
    told: list[tuple[int, int]] = []
    restore_from(target, folder, lambda *far: told.append(far))
    count = len(named(folder))
    assert [(number, count) for number in range(1, count + 1)] == told


# What is wrong ends it, and what came before stays.


def cut_off(paths: list[Path]) -> None:
    """Leave half of a segment."""
    paths[3].write_bytes(paths[3].read_bytes()[: paths[3].stat().st_size // 2])


def empty(paths: list[Path]) -> None:
    """Leave only the name of a segment."""
    paths[3].write_bytes(b"")


def take_away(paths: list[Path]) -> None:
    """Remove a segment."""
    paths[3].unlink()


def swap(paths: list[Path]) -> None:
    """Give two segments the names of each other."""
    one, two = paths[3].read_bytes(), paths[4].read_bytes()
    paths[3].write_bytes(two)
    paths[4].write_bytes(one)


def flip(paths: list[Path]) -> None:
    """Change one byte."""
    changed = bytearray(paths[3].read_bytes())
    changed[len(changed) // 2] ^= 1
    paths[3].write_bytes(changed)


def append(paths: list[Path]) -> None:
    """Add bytes to the end."""
    paths[3].write_bytes(paths[3].read_bytes() + b"more")


def append_frame(paths: list[Path]) -> None:
    """Add another frame to the end."""
    more = zstandard.ZstdCompressor().compress(b'{"end":1}\n')
    paths[3].write_bytes(paths[3].read_bytes() + more)


def reword(paths: list[Path]) -> None:
    """Change what an event says, and leave the hash."""
    put(paths[3], [line.replace(b"hello", b"howdy") for line in content(paths[3])])


def forge(paths: list[Path]) -> None:
    """Change what an event says, and the hash with it."""
    put(paths[3], [line.replace(b"hello", b"howdy") for line in content(paths[3])], hashed=True)


def drop_batch(paths: list[Path]) -> None:
    """Leave out a batch, and make a hash that fits."""
    lines = content(paths[3])
    put(paths[3], [*lines[:2], *lines[3:]], hashed=True)


def reorder(paths: list[Path]) -> None:
    """Put two batches of one session the other way round, and make a hash that fits."""
    lines = content(paths[3])
    put(paths[3], [*lines[:2], lines[3], lines[2], *lines[4:]], hashed=True)


def unchain(paths: list[Path]) -> None:
    """Let a segment name another one as the one before it, and make a hash that fits."""
    begin, *lines = content(paths[3])
    put(
        paths[3], [orjson.dumps({**orjson.loads(begin), "previous": "1" * 64}), *lines], hashed=True
    )


def estrange(paths: list[Path]) -> None:
    """Let a segment be of another store, and make a hash that fits."""
    begin, *lines = content(paths[3])
    put(paths[3], [orjson.dumps({**orjson.loads(begin), "store": "1" * 64}), *lines], hashed=True)


def make_newer(paths: list[Path]) -> None:
    """Let a segment be of a format that is not known yet, and make a hash that fits."""
    begin, *lines = content(paths[3])
    put(paths[3], [orjson.dumps({**orjson.loads(begin), "segment": 2}), *lines], hashed=True)


def make_newer_inside(paths: list[Path]) -> None:
    """Let the lines in a segment be of a newer format, and make a hash that fits."""
    lines = content(paths[3])
    put(paths[3], [lines[0], b'{"evstore":99}', *lines[2:]], hashed=True)


def speak_otherwise(paths: list[Path]) -> None:
    """Let a segment begin with JSON that says something else, and end with what is none."""
    put(paths[3], [b"[1]", *content(paths[3])[1:-1], b'{"hash"'])


def mistype(paths: list[Path]) -> None:
    """Let a segment begin at what is no number, and make a hash that fits."""
    begin, *lines = content(paths[3])
    put(paths[3], [orjson.dumps({**orjson.loads(begin), "first": "x"}), *lines], hashed=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (mistype, "no segment"),
        (cut_off, "cut off"),
        (empty, "cut off"),
        (take_away, "is missing"),
        (swap, "give it the name"),
        (flip, "fetch it again"),
        (append, "damaged"),
        (append_frame, "cut off"),
        (reword, "hash says"),
        (forge, "not what its link says"),
        (drop_batch, "batches"),
        (reorder, "import what lies between"),
        (unchain, "does not continue"),
        (estrange, "another store"),
        (make_newer, "upgrade"),
        (make_newer_inside, "upgrade"),
        (speak_otherwise, "cut off"),
    ],
)
def test_a_bad_segment_ends_it(shipped, folder, target, damage, reason):
    """All before it is restored, it is told where and why, and once it is mended it goes on."""
    shutil.copytree(folder, folder.parent / "kept")
    paths = named(folder)
    damage(paths)
    restored = restore_from(target, folder)
    assert int(paths[3].name[:20]) - 1 == restored.position
    assert 3 == restored.segments
    assert restored.stopped is not None
    assert restored.stopped.where in (paths[3].name, paths[4].name)
    assert reason in restored.stopped.reason
    assert all_batches(shipped)[: restored.position] == all_batches(target)
    assert restore_from(target, folder).stopped == restored.stopped
    assert restore_from(target, folder.parent / "kept").stopped is None
    assert all_batches(shipped) == all_batches(target)


def test_each_cut_of_the_newest_segment_is_seen(store, folder):
    """Wherever the newest segment is cut off, no part of what it says is taken for the whole.

    Its last bytes say only that the frame ends: without them it still says everything.
    """
    store.session("s").variables["a"] = 1
    ship(store, folder)
    store.session("s").variables["a"] = 2
    ship(store, folder)
    newest = named(folder)[-1]
    whole = newest.read_bytes()
    for length in range(len(whole)):
        newest.write_bytes(whole[:length])
        with evstore.open(":memory:") as target:
            restored = restore_from(target, folder)
        if length >= len(whole) - 4 and restored.stopped is None:
            assert 2 == restored.position
            continue
        assert restored.stopped is not None
        assert 1 == restored.position
        with pytest.raises(Unavailable, match="move it away to ship it anew"):
            ship(store, folder)
    newest.unlink()
    assert Shipped(1, 1, 2) == ship(store, folder)
    assert whole == newest.read_bytes()


def test_a_segment_has_its_name_when_it_is_whole(shipped, tmp_path):
    """While a segment is written, and if that is cut short, no file has its name."""
    path = str(tmp_path)
    store = all_batches(shipped)[0].link.hex()

    def batches(count: int) -> Iterator[Batch]:
        for batch in all_batches(shipped)[:count]:
            assert [] == segments.names(path)
            yield batch
        if count < 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segments.write(path, store, 1, segments.NO_HASH, batches(3))
    assert [] == segments.names(path)
    written = segments.write(path, store, 1, segments.NO_HASH, batches(20))
    assert written == segments.check(str(tmp_path / segments.name(1)))


def test_half_written_segments_are_not_seen_and_go(shipped, folder, target):
    """What a killed shipper has left is no segment, and the next shipment clears it away."""
    (folder / ".00000000000000000099.jsonl.zst.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    assert restore_from(target, folder).stopped is None
    ship(shipped, folder)
    assert {"notes.txt", "ship.lock"} == set(os.listdir(folder)) - {p.name for p in named(folder)}


# What does not belong together.


def test_another_store_is_not_shipped_into_the_folder(shipped, folder, tmp_path):
    """A folder holds one log: another store, even an empty one, is Refused."""
    before = sorted(os.listdir(folder))
    with evstore.open(tmp_path / "other.db") as other:
        with pytest.raises(Refused, match="another store"):
            ship(other, folder)
        fill(other)
        with pytest.raises(Refused, match="another store"):
            ship(other, folder)
    assert before == sorted(os.listdir(folder))


def test_an_older_copy_is_not_shipped(shipped, folder, tmp_path):
    """A store that was replaced by an older copy is Refused, also once it has gone on."""
    position = shipped.engine.position()
    shipped.backup(tmp_path / "older.db", at=position - 10)
    with evstore.open(tmp_path / "older.db") as older:
        with pytest.raises(Refused, match=f"up to position {position} and the store ends at"):
            ship(older, folder)
        for number in range(20):
            older.session("trip").variables["other"] = number
        with pytest.raises(Refused, match="the store has another batch"):
            ship(older, folder)


def test_segments_are_not_restored_into_another_store(shipped, folder, target):
    """A store with a log of its own is Refused, and stays as it was."""
    target.session("mine").variables["a"] = 1
    with pytest.raises(Refused, match="another batch than"):
        restore_from(target, folder)
    assert 1 == target.engine.position()


def test_a_restored_store_that_went_on_takes_no_more(shipped, folder, target):
    """Once a restored store has been written to, it is another log."""
    restore_from(target, folder)
    target.session("trip").variables["mine"] = 1
    restore_from(target, folder)  # there is nothing that would not fit
    shipped.session("trip").variables["late"] = True
    ship(shipped, folder)
    with pytest.raises(Refused, match="another batch than"):
        restore_from(target, folder)


def test_a_store_that_is_written_meanwhile_is_not_mixed(shipped, folder, target):
    """Who writes to the target while it is restored ends that."""

    def write(done: int, total: int) -> None:
        if done == 2:
            target.session("mine").variables["a"] = 1

    restored = restore_from(target, folder, write)
    assert restored.stopped is not None
    assert "nobody else writes" in restored.stopped.reason
    assert (2, restored.batches + 1) == (restored.segments, restored.position)


def test_a_handle_that_only_reads_takes_nothing_in(shipped, folder, tmp_path):
    """Restoring into a read-only handle is ReadOnly; shipping from one works."""
    with evstore.open(tmp_path / "empty.db"):
        pass
    with evstore.open(tmp_path / "empty.db", read_only=True) as reader, pytest.raises(ReadOnly):
        restore_from(reader, folder)
    shipped.session("trip").variables["late"] = True
    with evstore.open(shipped.engine.path, read_only=True) as reader:
        assert 1 == ship(reader, folder).batches


def test_folders_that_cannot_be_used_are_told(shipped, folder, tmp_path):
    """A file in the place of the folder, or no folder above it, is Unavailable."""
    (tmp_path / "file").write_text("mine")
    for place in ("file", "nowhere/segments"):
        with pytest.raises(Unavailable):
            ship(shipped, tmp_path / place)
        with pytest.raises(Unavailable):
            restore_from(shipped, tmp_path / place)
    (folder / segments.name(1)).unlink()
    (folder / segments.name(1)).mkdir()
    with evstore.open(":memory:") as target, pytest.raises(Unavailable, match="can be read"):
        restore_from(target, folder)


def test_a_segment_is_never_overwritten(shipped, folder):
    """Where the newest file has a wrong name, or the next name is taken, nothing is shipped."""
    misnamed = folder / segments.name(10**6)
    shutil.copy(named(folder)[2], misnamed)
    shipped.session("trip").variables["late"] = True
    before = {path: path.read_bytes() for path in named(folder)}
    with pytest.raises(Unavailable, match="give it the name of that"):
        ship(shipped, folder)
    misnamed.unlink()
    newest = segments.check(str(named(folder)[-1]))
    next_batch = iter(shipped.engine.changes(newest.last - 1, 1))
    with pytest.raises(Refused, match="left untouched"):
        segments.write(str(folder), newest.store, newest.first, newest.previous, next_batch)
    assert before.items() >= {path: path.read_bytes() for path in named(folder)}.items()


def test_what_could_not_be_read_again_is_not_shipped(store, folder, monkeypatch):
    """A batch that is too long for a line leaves no segment behind it."""
    monkeypatch.setattr(segments, "LINE_BYTES_MAX", 500)
    store.session("s").variables["small"] = 1
    ship(store, folder)
    store.session("s").variables["large"] = "x" * 1000
    with pytest.raises(Refused, match="make a backup"):
        ship(store, folder)
    assert [segments.name(1)] == [path.name for path in named(folder)]


def test_a_damaged_store_is_not_shipped(store, folder):
    """Where a batch is missing nothing is shipped from there on, and that is Corrupt."""
    fill(store)
    with store.engine.database.writing("normal") as cursor:
        cursor.execute("drop trigger batch_kept")
        cursor.execute("delete from batch where position = 2")
    with pytest.raises(Corrupt, match="no batch at position 2"):
        ship(store, folder)
    assert [] == named(folder)


def test_a_damaged_target_is_not_taken_for_a_damaged_segment(shipped, folder, tmp_path):
    """What is wrong with the store that takes in is Corrupt, and no segment is blamed."""
    with evstore.open(tmp_path / "damaged.db") as target:
        restore_from(target, folder)
        with target.engine.database.writing("normal") as cursor:
            for (name,) in cursor.execute(
                "select name from sqlite_schema where type = 'trigger'"
            ).fetchall():
                cursor.execute(f"drop trigger {name}")
            cursor.execute("update session set parent = 99, fork = 0 where id = 'trip'")
            target.engine.database.forget()
        shipped.session("trip").variables["late"] = True
        ship(shipped, folder)
        with pytest.raises(Corrupt, match="continues what is not in its past"):
            restore_from(target, folder)


# At the same time.


def test_two_shippers_do_not_mix(shipped, folder):
    """While one process ships into a folder another is refused, and may once that has ended."""
    shipments = follow(shipped, folder, gathered_s=0)
    shipped.session("trip").variables["late"] = True
    assert 1 == next(shipments).batches
    with pytest.raises(Unavailable, match="another process ships"):
        ship(shipped, folder)
    shipments.close()  # type: ignore[attr-defined]
    assert 0 == ship(shipped, folder).batches


def many_shipments(path: str, folder: str, name: str) -> None:
    """Write and ship in turn; another may hold the folder."""
    with evstore.open(path, durability="normal") as store:
        for number in range(20):
            store.session(name).variables["n"] = number
            try:
                ship(store, folder)
            except Unavailable as error:
                assert "another process ships" in str(error)  # noqa: PT017 - at times it does


def test_processes_that_ship_into_one_folder_make_one_log(store, path, folder, target):
    """Four processes that write and ship at once leave a folder that can be restored."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=many_shipments, args=(str(path), str(folder), f"s{number}"))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert 0 == process.exitcode
    ship(store, folder)
    assert 80 == restore_from(target, folder).position
    assert all_batches(store) == all_batches(target)


def test_following_ships_what_comes(store, folder, target):
    """A follower ships each commit once it is there, until the store is closed."""
    session = store.session("s")
    shipments = follow(store, folder, gathered_s=0)
    for number in range(5):
        writing = threading.Timer(0.05, session.variables.set, ("n", number))
        writing.start()
        assert Shipped(1, 1, number + 1) == next(shipments)
        writing.join()
    assert 5 == restore_from(target, folder).position
    closing = threading.Timer(0.05, store.close)
    closing.start()
    with pytest.raises(Closed):
        next(shipments)
    closing.join()


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_a_killed_shipper_loses_nothing(tmp_path, seed):
    """All that a completed shipment held can be restored; of a cut segment, all before it."""
    assert kill_and_cut(tmp_path, seed, kills=3) > 0
