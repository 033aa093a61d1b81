"""Segments: files that hold a log in its order, each whole, and chained to the one before it.

A segment is one zstd frame. In it are the lines of an export (see layout.py), with one line before
them and one after them:

    {"segment":1,"store":LINK,"first":POSITION,"previous":HASH}
    {"evstore":1}
    …
    {"end":COUNT}
    {"hash":HASH}

`store` is the link of the first batch of the log, which no other log has; `first` is the position
of the first batch in here. A HASH is the SHA-256 of all bytes before the line it stands in, in 64
hexadecimal digits, and `previous` that of the segment before, zeros in the first one. A file has
its name, `first` in 20 digits, only once it is whole and on the disk.
"""

import os
import re
from collections.abc import Iterator
from hashlib import sha256
from io import BufferedReader
from typing import Any

import attrs
import orjson
import zstandard

from evstore.chain import Batch
from evstore.errors import Refused, Unavailable
from evstore.sqlite.files import put_in_place
from evstore.transfer.layout import HEADER, Reader, batch_lines, end_line

VERSION = 1
BYTES_MAX = 8 << 20  # of lines: with the batch that goes beyond, a segment ends
LINE_BYTES_MAX = 1 << 30
_PIECE_BYTES = 1 << 17
_BATCH = b'{"batch":'  # how the line of a batch begins
NO_HASH = "0" * 64
SUFFIX = ".jsonl.zst"
_NAME = re.compile(r"[0-9]{20}\.jsonl\.zst")
_TEMPORARY = re.compile(r"\.[0-9]{20}\.jsonl\.zst\.tmp")


@attrs.frozen
class Segment:
    """What a whole segment says of itself: its place in the log, and its hash."""

    store: str
    first: int
    last: int
    previous: str
    hash: str


def name(first: int) -> str:
    """Return the file name of the segment that begins at a position."""
    return f"{first:020}{SUFFIX}"


def names(folder: str) -> list[str]:
    """Return the names of the segments in a folder, in their order; raises Unavailable."""
    try:
        return sorted(there for there in os.listdir(folder) if _NAME.fullmatch(there))
    except OSError as error:
        raise Unavailable(folder, f"{error.strerror}: name a folder that can be read") from error


def found(folder: str) -> list[str]:
    """Return the names of the segments in a folder; raises Unavailable where there is none."""
    there = names(folder)
    if not there:
        raise Unavailable(folder, "it holds no segments: name the folder that was shipped to")
    return there


def tidy(folder: str) -> None:
    """Remove what killed shippers have left half written."""
    for left in os.listdir(folder):
        if _TEMPORARY.fullmatch(left):
            os.unlink(os.path.join(folder, left))


def write(folder: str, store: str, first: int, previous: str, batches: Iterator[Batch]) -> Segment:
    """Write a segment of the next batches, of which there is one at least, and return it.

    It takes as many from the iterator as its size allows; they begin at `first`. Raises Refused
    where there is one already, which never changes, and for a batch that could not be read again.
    """
    path = os.path.join(folder, name(first))
    if os.path.lexists(path):
        raise Refused(f"{path} is there already and was left untouched: move it away")
    temporary = os.path.join(folder, f".{name(first)}.tmp")
    digest, count, size_bytes = sha256(), 0, 0
    begin = {"segment": VERSION, "store": store, "first": first, "previous": previous}
    handle = os.open(temporary, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with open(handle, "wb") as file:
        compressor = zstandard.ZstdCompressor()
        with compressor.stream_writer(file, closefd=False) as stream:
            for line in (orjson.dumps(begin) + b"\n", HEADER):
                digest.update(line)
                stream.write(line)
            for batch in batches:
                for line in batch_lines(batch):
                    if len(line) > LINE_BYTES_MAX:
                        raise Refused(
                            f"the batch at position {first + count} takes {len(line)} bytes where "
                            f"a segment holds {LINE_BYTES_MAX} in one line: make a backup instead"
                        )
                    digest.update(line)
                    stream.write(line)
                    size_bytes += len(line)
                count += 1
                if size_bytes >= BYTES_MAX:
                    break
            digest.update(end_line(count))
            stream.write(end_line(count))
            stream.write(orjson.dumps({"hash": digest.hexdigest()}) + b"\n")
    put_in_place(temporary, path)
    return Segment(store, first, first + count - 1, previous, digest.hexdigest())


def check(path: str) -> Segment:
    """Return what a segment says of itself, once its hash has shown that it is whole.

    Raises Refused where it is not as it was written, or has another name, and Unavailable.
    """
    digest, before, last, begin, count = sha256(), b"", b"", None, 0
    for line in _lines(path):
        digest.update(last)
        before, last, begin = last, line, begin or line
        count += line.startswith(_BATCH)
    fields = _members(begin or b"", segment=int, store=str, first=int, previous=str)
    told: int = _members(before, end=int)["end"]
    hashed: str = _members(last, hash=str)["hash"]
    if hashed != digest.hexdigest():
        raise Refused("its content is not what its hash says: fetch it again")
    if told != count:
        raise Refused(f"it says that it has {told} batches and has {count}: fetch it again")
    if fields["segment"] != VERSION:
        raise Refused(f"it has format {fields['segment']}, and {VERSION} is known: upgrade evstore")
    first: int = fields["first"]
    if first < 1 or os.path.basename(path) != name(first):
        raise Refused(f"it begins at position {first}: give it the name of that")
    return Segment(fields["store"], first, first + count - 1, fields["previous"], hashed)


def batches(path: str) -> Iterator[Batch]:
    """Yield the batches of a segment; raises Refused where its lines are no export."""
    reader = Reader()
    lines = _lines(path)
    next(lines, None)
    for line in lines:
        if reader.ended:  # What follows is the hash.
            return
        batch = reader.read(line)
        if batch is not None:
            yield batch


def _members(line: bytes, **expected: type) -> dict[str, Any]:
    """Return the members of a line, which are these in this order, each of its type."""
    try:
        found = orjson.loads(line)
    except ValueError:
        found = None
    fields: dict[str, Any] = found if type(found) is dict else {}
    if [(key, type(value)) for key, value in fields.items()] != [*expected.items()]:
        raise Refused("it is cut off, or no segment: fetch it again")
    return fields


def _lines(path: str) -> Iterator[bytes]:
    """Yield lines of a bounded length; raises Refused where the frame is damaged."""
    try:
        with open(path, "rb") as file:
            frames = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            stream = BufferedReader(frames, _PIECE_BYTES)
            while line := stream.readline(LINE_BYTES_MAX):
                yield line
    except zstandard.ZstdError as error:
        raise Refused(f"it is damaged ({error}): fetch it again") from error
    except OSError as error:
        raise Unavailable(path, f"{error.strerror}: see that it can be read") from error
