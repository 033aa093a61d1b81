"""Migrations that are killed and resumed: `python -m tests.crash.migration --kills 50` is long.

Whatever the moment of a kill, the target gets its name only once it is whole, and resuming adds
just what is missing: in the end it is what a migration that nobody disturbed has made.
"""

import argparse
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import evstore
from evstore import replay
from evstore.replay import Commit, changed
from tests.crash.audit import all_batches
from tests.crash.inspection import scratch
from tools.bench import made

MIGRATE = """
import sys, evstore
from evstore import replay
from tests.crash import migration
transform = getattr(migration, sys.argv[3], None)
with evstore.open(sys.argv[1], read_only=True) as store:
    replay.migrate(store, sys.argv[2], transform, resume=True)
"""
WAIT_S_MAX = 600


def spread(commit: Commit) -> list[Commit]:
    """Give each session a second one for its messages, and each event that stays a note."""
    talk = [event for event in commit.events if event.kind == "message.added"]
    rest: list[evstore.Event] = []
    for event in commit.events:
        if event.kind != "message.added" and event.seq % 5:
            rest += [event, changed(event, event.seq, kind="app.note", name=None)]
    return [
        commit.having(rest),
        Commit(
            f"{commit.session}/talk",
            commit.uid,
            commit.time,
            commit.actor,
            commit.cause,
            commit.key,
            tuple(talk),
        ),
    ]


def filled(path: Path, events: int) -> None:
    """Make a store with one long session, many short ones, a fork, and a deleted one."""
    made.lengthen(path, events, names=50)
    made.populate(path, 0, events // 20)
    with evstore.open(path, durability="normal") as store:
        long = store.session("long")
        long.variables["large"] = "Rome and Naples " * 500
        fork = long.fork("what-if", at=events // 2)
        fork.variables.clear()
        store.delete("session-1")
        store.session("session-2", ttl=86_400).touch()


def kill_and_resume(folder: Path, kills: int, events: int, transform: str, seed: int) -> int:
    """Kill a migration at random moments until it ends; return how many kills hit it at work."""
    source, target, whole = (folder / f"{name}.db" for name in ("source", "target", "whole"))
    filled(source, events)
    started_s = time.monotonic()
    with evstore.open(source, read_only=True) as store:
        replay.migrate(store, whole, globals().get(transform))
    undisturbed_s = time.monotonic() - started_s
    chance, hit = random.Random(seed), 0
    command = [sys.executable, "-c", MIGRATE, str(source), str(target), transform]
    for _ in range(kills):
        migration = subprocess.Popen(command)
        try:
            migration.wait(chance.uniform(0.1, 0.2 + undisturbed_s))
        except subprocess.TimeoutExpired:
            migration.send_signal(signal.SIGKILL)
            hit += -signal.SIGKILL == migration.wait(WAIT_S_MAX)
            # Killed right after it got its name, it is as whole as any other.
        if target.exists():
            compare(whole, target)
            target.unlink()
    if not target.exists():
        subprocess.run(command, check=True, timeout=WAIT_S_MAX)
    compare(whole, target)
    return hit


def compare(whole: Path, target: Path) -> None:
    """Check that a target is the same log, with the same deadlines, and nothing lies beside it."""
    logs, leases = [], []
    for path in (whole, target):
        with evstore.open(path, read_only=True) as store:
            assert not list(replay.verify(store, level="full"))
            batches = all_batches(store)
            logs.append([b.link for b in batches if not (b.key or "").startswith("evstore.")])
            assert len(batches) - len(logs[-1]) <= 1, "the record is doubled"
            with store.engine.database.snapshot() as cursor:
                leases.append(cursor.execute("select session, expires, ttl from lease").fetchall())
    assert logs[0] == logs[1], "something is lost or doubled"
    assert leases[0] == leases[1]
    assert not list(target.parent.glob(f"{target.name}.migrating*"))


def main() -> int:
    """Kill as often as was asked for, exact copies and transforms in turn, and say what it was."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.migration", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    started_s = time.monotonic()
    for transform in ("", "spread"):
        with scratch() as folder:
            kills = wanted.kills // 2
            hit = kill_and_resume(Path(folder), kills, wanted.events, transform, wanted.seed)
        sys.stdout.write(f"{transform or 'exact'}: {hit} of {kills} kills hit it at work\n")
    sys.stdout.write(f"nothing lost, nothing doubled, {time.monotonic() - started_s:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
