"""Crash images are inspected: each is opened by the real engine, and nothing promised may lack."""

import hashlib
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import attrs

import evstore
import evstore.replay
from evstore.sqlite.database import Durability
from tests.crash.audit import Present, all_batches, expected, presents
from tests.crash.disk import Disk, Image, Mark, Operation

FILE = "store.db"
PROCESS, POWER = "process crash", "power cut"
_RECORD = """
import pickle, sys
from tests.crash.workloads import run
name, durability, seed, path, fault, target = sys.argv[1:]
recorder = run(name, durability, int(seed), path, fault=fault)
with open(target, "wb") as file:
    pickle.dump(recorder.operations, file)
"""


class Recording(NamedTuple):
    """A workload as it was recorded."""

    name: str
    durability: Durability
    seed: int
    operations: list[Operation]


class Suspect(NamedTuple):
    """An image, what the program knew when the crash came, and how it came about."""

    cause: str
    image: Image
    mark: Mark


@attrs.define
class Findings:
    """How many images were looked at, and what was wrong with some."""

    images: Counter[str] = attrs.field(factory=Counter)
    distinct: int = 0
    losses: list[str] = attrs.field(factory=list)

    def add(self, other: "Findings") -> None:
        """Take in what another inspection found."""
        self.images += other.images
        self.distinct += other.distinct
        self.losses += other.losses


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder, in memory where that is possible: images are many, and soon gone."""
    shared = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    return tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)


def recorded(name: str, durability: Durability, seed: int, fault: str = "") -> Recording:
    """Run a workload in a process of its own and return what it did to its disk."""
    with scratch() as folder:
        target = f"{folder}/operations"
        (Path(folder) / "recorded").mkdir()
        path = f"{folder}/recorded/{FILE}"
        command = [sys.executable, "-c", _RECORD, name, durability, str(seed), path, fault, target]
        subprocess.run(command, check=True, timeout=100)
        operations = pickle.loads(Path(target).read_bytes())  # noqa: S301 - we have just written it
    return Recording(name, durability, seed, operations)


def suspects(recording: Recording, power_cuts: int) -> Iterator[Suspect]:
    """Yield the images that crashes between and in the middle of operations may leave."""
    disk = Disk()
    chance = random.Random(f"{recording.name} {recording.durability} {recording.seed}")
    for operation in recording.operations:
        if operation.kind == "write":
            yield Suspect(PROCESS, disk.after_torn_write(operation, chance), disk.mark)
        disk.apply(operation)
        yield Suspect(PROCESS, disk.after_process_crash(), disk.mark)
        for _ in range(power_cuts):
            yield Suspect(POWER, disk.after_power_cut(chance), disk.mark)


def inspect(recording: Recording, power_cuts: int) -> Findings:
    """Look at every image of a recording."""
    with scratch() as folder:
        inspection = _Inspection(recording, Path(folder))
        for suspect in suspects(recording, power_cuts):
            inspection.look(suspect)
    return inspection.findings


class _Inspection:
    """What is known while the images of one recording are looked at."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        self.findings = Findings()
        self._folder = folder
        self._recording = recording
        self._results: dict[tuple[bool, bytes], int | str] = {}
        self._expected: dict[int, dict[str, Present]] = {}
        disk = Disk()
        for operation in recording.operations:
            disk.apply(operation)
        with self._opened(disk.after_process_crash(), create=False) as store:
            self._truth = all_batches(store)
        assert disk.mark.acknowledged == len(self._truth)

    def look(self, suspect: Suspect) -> None:
        """Check one image, unless its like was seen before."""
        self.findings.images[suspect.cause] += 1
        digest = hashlib.sha256()
        for name, content in suspect.image.items():
            digest.update(b"%d %d " % (len(name), len(content)) + name.encode() + content)
        key = suspect.mark.created, digest.digest()
        if key not in self._results:
            self.findings.distinct += 1
            try:
                self._results[key] = self._newest(suspect)
            except Exception as error:  # noqa: BLE001 - whatever is raised, the image is lost
                self._results[key] = f"{type(error).__name__} {error}"
        problem = self._problem(self._results[key], suspect)
        if problem is not None:
            name, durability, seed, _ = self._recording
            count = self.findings.images.total()
            self.findings.losses.append(
                f"{name} {durability} seed {seed} image {count} {suspect.cause}: {problem}"
            )

    def _problem(self, newest: int | str, suspect: Suspect) -> str | None:
        if isinstance(newest, str):
            return newest
        mark = suspect.mark
        promised = mark.acknowledged if suspect.cause == PROCESS else mark.durable
        if newest < promised:
            return f"ends at {newest} where {promised} was promised"
        if newest > mark.acknowledged + 1:
            return f"ends at {newest} where nothing after {mark.acknowledged + 1} was begun"
        return None

    def _newest(self, suspect: Suspect) -> int:
        """Return the newest position in an image whose content is all as it was recorded."""
        with self._opened(suspect.image, create=not suspect.mark.created) as store:
            batches = all_batches(store)
            newest = len(batches)
            assert batches == self._truth[:newest], "the log is not a beginning of what was written"
            if newest not in self._expected:
                self._expected[newest] = expected(batches)
            assert self._expected[newest] == presents(store), "the present is not what the log says"
            self._look_closer(store)
            if self.findings.distinct % 8 == 0:
                store.session("after the crash").variables["alive"] = True
                assert newest + 1 == len(all_batches(store)), "the store cannot be written to"
        return newest

    def _look_closer(self, store: evstore.Store) -> None:
        level: evstore.replay.Level = "full" if self.findings.distinct % 16 == 0 else "chain"
        assert not list(evstore.replay.verify(store, level=level)), (
            f"verify {level} finds something"
        )
        if self.findings.distinct % 4 == 0:
            with store.engine.database.snapshot() as cursor:
                assert cursor.execute("pragma integrity_check").get == "ok", "integrity_check"
            said = [
                str(message["content"]).split()
                for info in store.sessions()
                for message in store.session(info.id).messages
            ]
            hits = store.search("common", limit=1000)
            assert sum("common" in words for words in said) == len(hits), "a search misses some"

    def _opened(self, image: Image, *, create: bool) -> evstore.Store:
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        for name, content in image.items():
            (self._folder / name).write_bytes(content)
        if self.findings.distinct % 8 == 1 and image.get(FILE):  # what shared memory may look like
            (self._folder / f"{FILE}-shm").write_bytes(random.Random(0).randbytes(32768))
        return evstore.open(self._folder / FILE, create=create)
