"""Crashes and power cuts lose nothing that was promised, in thousands of recorded images.

The long run is `python -m tests.crash --images 100000 --seed 1`.
"""

import random

import pytest

import evstore
from evstore import replay
from tests.crash.disk import Disk, Mark, Operation
from tests.crash.inspection import FILE, POWER, PROCESS, inspect, recorded, suspects
from tests.crash.workloads import WORKLOADS

POWER_CUTS = 3  # images of power cuts after every operation
IMAGES_MIN = 300  # of each recording: twenty recordings make at least 5,000


@pytest.mark.parametrize("durability", ["full", "normal"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_crash_loses_nothing_that_was_promised(workload, durability):
    """A crash at any operation leaves a sound store that ends where it was promised, or later.

    Sound means: verified, linked, the present as folded from the log, and the log a beginning of
    what was written. Promised is all that was acknowledged; after a power cut with `normal`, all up
    to the last flush, full commit of another handle, and the creation itself.
    """
    found = inspect(recorded(workload, durability, seed=1), POWER_CUTS)
    assert [] == found.losses
    assert found.images.total() >= IMAGES_MIN
    assert found.images[PROCESS] > 0
    assert found.images[POWER] > 0


@pytest.mark.parametrize("fault", ["never synced", "folders unsynced"])
def test_the_inspection_sees_a_loss(fault):
    """An engine that does not sync its log, or never its folder, is found out."""
    found = inspect(recorded("creation", "full", seed=1, fault=fault), POWER_CUTS)
    assert found.losses != []
    assert all(POWER in loss for loss in found.losses)


def test_normal_really_may_lose_a_suffix():
    """The inspection sees the suffix that `normal` may lose, as it would one lost by `full`."""
    recording = recorded("singles", "normal", seed=1)
    promised_more = recording._replace(
        operations=[
            operation._replace(mark=operation.mark._replace(durable=operation.mark.acknowledged))
            for operation in recording.operations
        ]
    )
    losses = inspect(promised_more, POWER_CUTS).losses
    assert losses != []
    assert all("was promised" in loss for loss in losses)


def test_recordings_are_of_the_real_thing():
    """Recordings hold the writes, syncs and checkpoints of the engine, and what it promised."""
    recording = recorded("checkpoints", "full", seed=1)
    kinds = {operation.kind for operation in recording.operations}
    assert {"create", "write", "sync", "sync_folder", "truncate", "unlink", "mark"} >= kinds
    assert {"create", "write", "sync", "sync_folder", "unlink", "mark"} <= kinds
    names = {operation.name for operation in recording.operations if operation.kind == "write"}
    assert {"store.db", "store.db-journal", "store.db-wal"} == names
    assert 15 == max(operation.mark.acknowledged for operation in recording.operations)


def test_the_disk_keeps_what_was_synced():
    """In the model a synced write always survives, an unsynced one sometimes, its sectors apart."""
    disk = Disk()
    for operation in (
        Operation("create", 1, "a"),
        Operation("sync_folder"),
        Operation("write", 1, "a", 0, b"safe"),
        Operation("sync", 1),
        Operation("write", 1, "a", 4, bytes(508) + b"x" * 512),
        Operation("create", 2, "b"),
    ):
        disk.apply(operation)
    chance = random.Random(1)
    images = [disk.after_power_cut(chance) for _ in range(300)]
    assert all(image["a"].startswith(b"safe") for image in images)
    contents = {image["a"] for image in images}
    whole = b"safe" + bytes(508) + b"x" * 512
    assert {b"safe", whole[:512], whole} == contents | {b"safe"}
    assert {True, False} == {"b" in image for image in images}
    assert {"a": whole, "b": b""} == disk.after_process_crash()


def test_a_name_comes_back_unless_its_folder_was_synced():
    """In the model a file removed without a sync of its folder may be back after a power cut."""
    disk = Disk()
    for operation in (
        Operation("create", 1, "a"),
        Operation("sync_folder"),
        Operation("unlink", 1, "a"),
    ):
        disk.apply(operation)
    chance = random.Random(1)
    assert {True, False} == {"a" in disk.after_power_cut(chance) for _ in range(100)}
    disk.apply(Operation("sync_folder"))
    assert {False} == {"a" in disk.after_power_cut(chance) for _ in range(100)}


def test_images_come_with_what_was_known():
    """An image between two promises is held to the first of them."""
    operations = [
        Operation("create", 1, "a"),
        Operation("mark", mark=Mark(created=True, acknowledged=1, durable=1)),
        Operation("write", 1, "a", 0, b"1"),
    ]
    recording = recorded("creation", "full", seed=1)._replace(operations=operations)
    marks = [suspect.mark.acknowledged for suspect in suspects(recording, power_cuts=1)]
    assert [0, 0, 1, 1, 1, 1, 1] == marks


@pytest.mark.parametrize("length", [1, 50, 93, 99, 100, 511, 4095])
def test_a_creation_cut_short_in_its_first_page_is_begun_anew(tmp_path, length):
    """A first page that was torn anywhere is taken back by its journal, and the store created."""
    recording = recorded("creation", "full", 1)
    disk = Disk()
    for operation in recording.operations:
        if operation.kind == "write" and operation.data.startswith(b"SQLite format 3\0"):
            break
        disk.apply(operation)
    image = {**disk.after_process_crash(), FILE: operation.data[:length]}
    assert f"{FILE}-journal" in image
    for name, content in image.items():
        (tmp_path / name).write_bytes(content)

    with evstore.open(tmp_path / FILE) as store:
        store.session("s").variables["a"] = 1
        assert [] == list(replay.verify(store, level="full"))
    assert [FILE] == [path.name for path in tmp_path.iterdir()]
