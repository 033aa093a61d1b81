"""Writers that are killed in mid-write: `python -m tests.crash.kill --kills 500` is the long run.

A writer tells every acknowledgement through a pipe. What it told must be in the store afterwards,
and at most one batch more, whole.
"""

import argparse
import itertools
import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson

import evstore
import evstore.replay
from tests.crash.audit import audit
from tests.crash.inspection import scratch

MOMENT_S_MAX = 0.06  # between the first acknowledgement that is seen and the kill
START_S_MAX = 60
Told = list[tuple[int, str, int]]  # position, uid and newest seq of a batch


def write(path: str, name: str, seed: str) -> None:
    """Write for ever, and tell of every batch once it is acknowledged."""
    chance = random.Random(seed)
    store = evstore.open(path, durability=chance.choice(("full", "normal")))
    session = store.session(name)
    for number in itertools.count():
        match chance.randrange(7) if number else 0:
            case 0:
                events = session.variables.set(f"name{chance.randrange(5)}", "x" * 900)
            case 1:
                events = session.messages.append({"role": "user", "content": "hello " * 90})
            case 2:
                session = session.fork(f"{name} {os.urandom(8).hex()}")
                continue
            case _:
                with session.batch(actor="writer") as batch:
                    for index in range(4):
                        batch.variables[f"part{index}"] = batch.seq
                events = batch.events
        newest = events if isinstance(events, evstore.Event) else events[-1]
        line = b"%d %b %d\n" % (newest.position, newest.uid.encode(), newest.seq)
        os.write(sys.stdout.fileno(), line)


class Writer:
    """A writing process, and what it has told."""

    def __init__(self, path: Path, name: str, seed: int) -> None:
        arguments = [str(path), name, str(seed)]
        code = "import sys; from tests.crash.kill import write; write(*sys.argv[1:])"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE
        )
        self._said = b""

    def listen(self) -> None:
        """Wait until it has told of something."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S_MAX)
        assert ready, "the writer did not begin"
        self._said += os.read(self._process.stdout.fileno(), 1 << 16)
        assert self._said, "the writer has failed"

    def kill(self) -> Told:
        """Kill it at once, and return all that it has told."""
        self._process.send_signal(signal.SIGKILL)
        assert self._process.stdout is not None
        self._said += self._process.stdout.read()
        assert -signal.SIGKILL == self._process.wait(START_S_MAX)
        self._process.stdout.close()
        lines = self._said.split(b"\n")[:-1]  # the last one may be torn
        return [
            (int(position), uid.decode(), int(seq))
            for position, uid, seq in map(bytes.split, lines)
        ]


def check(path: Path, told: Told, writers: int, before: int) -> int:
    """Return how many batches there are, after checking that none is missing and none is half."""
    with evstore.open(path, create=False) as store:
        batches = {batch.position: batch for batch in audit(store)}
        assert not list(evstore.replay.verify(store, level="full"))
    for position, uid, seq in told:
        assert (uid, seq) == (batches[position].uid.hex(), batches[position].last)
    for batch in batches.values():
        values = [entry.text for entry in batch.entries if (entry.name or "").startswith("part")]
        assert values == [orjson.dumps({"value": batch.first - 1})] * len(values)
        assert len(values) in (0, 4)
    written = [batch for batch in batches.values() if batch.position > before and batch.entries]
    assert len(written) <= len(told) + writers
    return len(batches)


def kill_once(path: Path, seed: int, writers: int = 1, before: int = 0) -> int:
    """Kill some writers in turn at random moments, and return how many batches there are."""
    chance = random.Random(seed)
    running = [Writer(path, f"writer {index}", seed + index) for index in range(writers)]
    told: Told = []
    try:
        for writer in running:
            writer.listen()
    finally:
        for writer in running:
            time.sleep(chance.uniform(0, MOMENT_S_MAX))  # The moment is what is random here.
            told += writer.kill()
    return check(path, told, writers, before)


def main() -> int:
    """Kill as often as was asked for, on a new store every time, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--writers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    started, batches = time.monotonic(), 0
    for number in range(wanted.kills // wanted.writers):
        with scratch() as folder:
            path = Path(folder) / "store.db"
            batches += kill_once(path, wanted.seed + 10 * number, wanted.writers)
    seconds = time.monotonic() - started
    sys.stdout.write(
        f"{wanted.kills} kills of {wanted.writers} at once, {batches} batches, {seconds:.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
