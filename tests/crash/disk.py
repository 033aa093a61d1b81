"""A disk that remembers every operation, and tells what a crash may leave of the files on it.

The model is as harsh as POSIX allows. After a crash of the process all operations are there, and
the last one perhaps in part. After a power cut a file holds what was synced, plus any subset of
what was written since, in sectors of 512 bytes; a name is there for certain only when its folder
was synced after it was made, and is gone for certain only when it was synced after the removal.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

SECTOR_BYTES = 512
Image = dict[str, bytes]


class Mark(NamedTuple):
    """What the program knew at a moment: newest acknowledged and newest durable position."""

    created: bool
    acknowledged: int
    durable: int


UNKNOWING = Mark(created=False, acknowledged=0, durable=0)


class Operation(NamedTuple):
    """One step: write, truncate or sync of a file, create, unlink, sync_folder, or a mark."""

    kind: str
    file: int = 0
    name: str = ""
    offset: int = 0
    data: bytes = b""
    mark: Mark = UNKNOWING


class Disk:
    """The files of one folder: what programs see now, and what is safe from a power cut."""

    def __init__(self) -> None:
        self.mark = UNKNOWING
        self._names: dict[str, int] = {}
        self._safe_names: dict[str, int] = {}
        self._loose_names: list[Operation] = []
        self._contents: dict[int, bytearray] = {}
        self._safe: dict[int, bytearray] = {}
        self._loose: dict[int, list[Operation]] = {}

    def apply(self, operation: Operation) -> None:
        """Carry one operation out."""
        kind, file, *_ = operation
        if kind == "mark":
            self.mark = operation.mark
        elif kind == "create":
            self._contents[file], self._safe[file] = bytearray(), bytearray()
            self._loose[file] = []
            self._change_name(operation)
        elif kind == "unlink":
            self._change_name(operation)
        elif kind == "sync_folder":
            self._safe_names = dict(self._names)
            self._loose_names = []
        elif kind == "sync":
            for loose in self._loose[file]:
                _write(self._safe[file], loose)
            self._loose[file] = []
        else:
            _write(self._contents[file], operation)
            self._loose[file].append(operation)

    def _change_name(self, operation: Operation) -> None:
        _rename(self._names, operation)
        self._loose_names.append(operation)

    def after_process_crash(self) -> Image:
        """Return what is there when the process dies and the system lives on."""
        return {name: bytes(self._contents[file]) for name, file in self._names.items()}

    def after_torn_write(self, operation: Operation, chance: random.Random) -> Image:
        """Return what is there when the process dies in the middle of its next write."""
        image = self.after_process_crash()
        kept = operation._replace(data=operation.data[: chance.randrange(len(operation.data) + 1)])
        for name, file in self._names.items():
            if file == operation.file:
                content = bytearray(image[name])
                _write(content, kept)
                image[name] = bytes(content)
        return image

    def after_power_cut(self, chance: random.Random) -> Image:
        """Return one of the many things that may be there when the power comes back."""
        names = dict(self._safe_names)
        share = chance.choice((0.0, 0.5, 0.5, 1.0))
        for operation in self._loose_names:
            if chance.random() < share:
                _rename(names, operation)
        return {name: self._survived(file, chance) for name, file in sorted(names.items())}

    def _survived(self, file: int, chance: random.Random) -> bytes:
        content = bytearray(self._safe[file])
        share = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        torn = chance.choice((0.0, 0.3, 1.0))
        for operation in self._loose[file]:
            if operation.kind == "write" and chance.random() < torn:
                for sector in _sectors(operation):
                    if chance.random() < share:
                        _write(content, sector)
            elif chance.random() < share:
                _write(content, operation)
        return bytes(content)


def _rename(names: dict[str, int], operation: Operation) -> None:
    if operation.kind == "create":
        names[operation.name] = operation.file
    elif names.get(operation.name) == operation.file:
        del names[operation.name]


def _write(content: bytearray, operation: Operation) -> None:
    offset, data = operation.offset, operation.data
    if operation.kind == "truncate":
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


def _sectors(operation: Operation) -> Iterator[Operation]:
    start, end = operation.offset, operation.offset + len(operation.data)
    while start < end:
        stop = min(end, start - start % SECTOR_BYTES + SECTOR_BYTES)
        data = operation.data[start - operation.offset : stop - operation.offset]
        yield operation._replace(offset=start, data=data)
        start = stop
