"""One run of the benchmark: its folder, its scale, and the files that its workloads share."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.bench.targets import Figure, Point

MESSAGE = {"role": "user", "content": "The trip should begin in Rome and end in Naples. " * 6}
VALUE = {"city": "Rome", "nights": 3}


class Bench:
    """How much is to be done in this run, and where."""

    def __init__(self, folder: Path, scale: float, rounds: int) -> None:
        self.folder = folder
        self.scale = scale
        self.rounds = rounds
        self._made: dict[str, Path] = {}

    def sized(self, size: int, least: int = 1) -> int:
        """Return a size at the scale of this run."""
        return max(least, round(size * self.scale))

    def usual(self, number: int) -> int:
        """Return a number that is the same at every scale but those of a mere trial."""
        return number if self.scale >= 0.01 else max(2, round(number * self.scale * 100))

    def seconds(self, seconds: float) -> float:
        """Return a duration at the scale of this run; it is never so short that nothing happens."""
        return max(0.05, seconds * min(1, self.scale * 10))

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return a store that takes long to make, making it when it is first asked for."""
        if name not in self._made:
            path = self.folder / f"{name}.db"
            make(path)
            self._made[name] = path
        return self._made[name]

    def copied(self, path: Path, name: str) -> Path:
        """Return a copy of a closed store."""
        return Path(shutil.copyfile(path, self.folder / f"{name}.db"))


Workload = Callable[[Bench], Iterator[Figure | Point]]
