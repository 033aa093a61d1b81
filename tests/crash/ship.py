"""Shippers that are killed at work: `python -m tests.crash.ship --kills 500` is the long run.

A process writes and ships in turn, and tells of every shipment once it has returned. It is killed,
and begun again, a few times; then a segment is cut off. What is restored has to be a beginning of
the log that verifies, and to hold all that had been shipped, or all before the cut.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import evstore
import evstore.replay
from evstore.chain import Batch
from evstore.transfer import Restored, restore_from, segments, ship
from tests.crash.audit import all_batches
from tests.crash.inspection import scratch

MOMENT_S_MAX = 0.15  # between the first shipment that is told of and the kill
SEGMENT_BYTES_MAX = 20_000  # so that a shipment takes several


def work(path: str, folder: str, seed: str) -> None:
    """Write and ship for ever, and tell of every shipment once it has returned."""
    chance = random.Random(seed)
    segments.BYTES_MAX = SEGMENT_BYTES_MAX
    store = evstore.open(path, durability=chance.choice(("full", "normal")))
    while True:
        for _ in range(chance.randrange(1, 40)):
            session = store.session(f"s{chance.randrange(4)}")
            with session.batch(actor="writer") as batch:
                for number in range(chance.randrange(1, 4)):
                    batch.variables[f"name{number}"] = os.urandom(chance.randrange(800)).hex()
        shipped = ship(store, folder)
        os.write(sys.stdout.fileno(), b"%d\n" % shipped.position)


def killed(path: Path, folder: Path, seed: int) -> int:
    """Let a process write and ship, kill it, and return the last position that it told of."""
    code = "import sys; from tests.crash.ship import work; work(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(path), str(folder), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        said = child.stdout.readline()
        time.sleep(random.Random(seed).uniform(0, MOMENT_S_MAX))  # The moment is what is random.
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read()
    return int(said.split(b"\n")[-2])  # What comes after the last newline may be torn.


def restored(folder: Path, target: Path, log: list[Batch]) -> Restored:
    """Restore, and return how far it came, once it is shown to be a beginning of the log."""
    with evstore.open(target, durability="normal") as store:
        found = restore_from(store, folder)
        assert log[: found.position] == all_batches(store)
        assert [] == list(evstore.replay.verify(store, level="full"))
        assert Restored(0, 0, 0, found.position, found.stopped) == restore_from(store, folder)
    return found


def kill_and_cut(scene: Path, seed: int, kills: int) -> int:
    """Kill a shipper some times on one folder, cut a segment off, and return what was restored."""
    chance, path, folder = random.Random(seed), scene / "store.db", scene / "segments"
    told = 0
    log: list[Batch] = []
    for number in range(kills):
        told = max(told, killed(path, folder, seed + number))
        with evstore.open(path, create=False) as store:
            log = all_batches(store)
        whole = restored(folder, scene / f"restored{number}.db", log)
        assert whole.stopped is None
        assert whole.position >= told
    cut = chance.choice(segments.names(str(folder)))
    content = (folder / cut).read_bytes()
    (folder / cut).write_bytes(content[: chance.randrange(len(content))])
    partly = restored(folder, scene / "cut.db", log)
    assert partly.stopped is not None
    assert (cut, int(cut[:20]) - 1) == (partly.stopped.where, partly.position)
    (folder / cut).write_bytes(content)
    again = restored(folder, scene / "cut.db", log)
    assert again.stopped is None
    assert again.position >= told
    return again.position


def main() -> int:
    """Kill as often as was asked for, five times on each store, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.ship", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    started, batches = time.monotonic(), 0
    for number in range(wanted.kills // 5):
        with scratch() as scene:
            batches += kill_and_cut(Path(scene), wanted.seed + 10 * number, 5)
    seconds = time.monotonic() - started
    sys.stdout.write(f"{wanted.kills} kills, {batches} batches restored, {seconds:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
