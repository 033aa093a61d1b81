"""The long run: `python -m tests.crash --images 100000 --seed 1` checks that many images."""

import argparse
import itertools
import sys
import time

from evstore.sqlite.database import Durability
from tests.crash.inspection import POWER, PROCESS, Findings, inspect, recorded
from tests.crash.workloads import WORKLOADS

DURABILITIES: tuple[Durability, ...] = ("full", "normal")


def main() -> int:
    """Inspect images until there were enough, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--power-cuts", type=int, default=8, help="after each operation")
    parser.add_argument("--fault", default="", help="'never synced' or 'folders unsynced'")
    wanted = parser.parse_args()
    started, found = time.monotonic(), Findings()
    for seed in itertools.count(wanted.seed):
        for name, durability in itertools.product(WORKLOADS, DURABILITIES):
            found.add(inspect(recorded(name, durability, seed, wanted.fault), wanted.power_cuts))
            report(found, time.monotonic() - started)
            if found.images.total() >= wanted.images:
                return 1 if found.losses else 0
    return 0


def report(found: Findings, seconds: float) -> None:
    """Say what was found so far."""
    images = found.images
    sys.stdout.write(
        f"{images.total()} images ({images[PROCESS]} of process crashes, {images[POWER]} of power "
        f"cuts, {found.distinct} distinct) in {seconds:.0f} s: {len(found.losses)} losses\n"
    )
    for loss in found.losses[:20]:
        sys.stdout.write(f"  {loss}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
