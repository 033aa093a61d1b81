"""Shipping: what is new in a log goes to a folder as segments; from them a store is built again.

When `ship` returns, all that was recorded before is in segments that are whole and on the disk.
What `restore_from` takes in is always a beginning of the log, each link of it checked.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import attrs

from evstore.chain import Batch
from evstore.errors import Corrupt, FromTheFuture, Refused, Unavailable
from evstore.sqlite.engine import Engine
from evstore.sqlite.files import sync_folder
from evstore.store import Store
from evstore.transfer import segments
from evstore.transfer.conversations import Reported
from evstore.transfer.jsonlines import CHUNK_BATCHES_MAX, CHUNK_BYTES_MAX
from evstore.transfer.segments import Segment

LOCK = "ship.lock"
GATHERED_S = 1.0  # how long `follow` waits for more, so that not every commit is a file


@attrs.frozen
class Shipped:
    """What a shipment added, and the position up to which all is shipped now."""

    segments: int
    batches: int
    position: int


@attrs.frozen
class Restored:
    """What came into a store, the position where it ends, and the segment that stopped it, if any.

    Counted is what was not there before.
    """

    segments: int
    batches: int
    events: int
    position: int
    stopped: Reported | None


# To a folder.


def ship(store: Store, folder: str | os.PathLike[str]) -> Shipped:
    """Add what is new in a store to the segments in a folder, which is made if it is not there.

    Raises Refused where the folder holds another log than this store, or a batch is too large for a
    segment, Unavailable where another process ships into it or its newest segment is damaged, and
    Corrupt.
    """
    path = os.path.abspath(os.fspath(folder))
    with _alone(path):
        return _ship(store.engine, path)


def follow(
    store: Store, folder: str | os.PathLike[str], gathered_s: float = GATHERED_S
) -> Iterator[Shipped]:
    """Go on shipping as commits come: yield what each shipment added, where it added anything.

    After the first commit it waits `gathered_s` seconds for more. Raises what `ship` does.
    """
    path = os.path.abspath(os.fspath(folder))
    with _alone(path):
        while True:
            shipped = _ship(store.engine, path)
            if shipped.segments:
                yield shipped
            store.engine.wait(shipped.position, None, _never)
            time.sleep(gathered_s)


def _never() -> bool:
    return False


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Have a folder to oneself, by a lock that the system drops when the process ends."""
    try:
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
            sync_folder(folder)
        handle = os.open(os.path.join(folder, LOCK), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            segments.tidy(folder)
            yield
        finally:
            os.close(handle)
    except BlockingIOError as error:
        reason = "another process ships into it: let that one do it, or wait for its end"
        raise Unavailable(folder, reason) from error
    except OSError as error:
        reason = f"{error.strerror}: see that it is a folder with room that can be written"
        raise Unavailable(folder, reason) from error


def _ship(engine: Engine, folder: str) -> Shipped:
    """Write segments until all is shipped that was recorded when it began."""
    newest = _newest(folder)
    if newest is not None:
        _check_same_log(engine, folder, newest)
    until = engine.position()
    position = begun = newest.last if newest else 0
    count = 0
    if position < until:
        # A power cut must not take from the store what the segments keep.
        engine.flush()
    batches = _batches(engine, position, until)
    for batch in batches:
        store = newest.store if newest else batch.link.hex()
        previous = newest.hash if newest else segments.NO_HASH
        newest = segments.write(folder, store, position + 1, previous, chain([batch], batches))
        position = newest.last
        count += 1
    return Shipped(count, position - begun, position)


def _batches(engine: Engine, position: int, until: int) -> Iterator[Batch]:
    """Yield the batches after a position up to another; raises Corrupt where one is missing."""
    while position < until:
        for batch in engine.changes(position, until - position):
            position += 1
            if batch.position != position:
                raise Corrupt(engine.path, f"there is no batch at position {position}")
            yield batch


def _newest(folder: str) -> Segment | None:
    names = segments.names(folder)
    if not names:
        return None
    try:
        return segments.check(os.path.join(folder, names[-1]))
    except Refused as error:
        reason = f"{names[-1]} cannot be continued, since {error}, or move it away to ship it anew"
        raise Unavailable(folder, reason) from error


def _check_same_log(engine: Engine, folder: str, newest: Segment) -> None:
    """Raise Refused unless the log begins with what was shipped.

    That is shown by its first batch and all of the newest segment: what lies between is what the
    links of these continue.
    """
    begin = engine.changes(0, 1)
    if not begin or begin[0].link.hex() != newest.store:
        raise Refused(f"{folder} holds the log of another store: give this one its own folder")
    position = engine.position()
    if position < newest.last:
        raise Refused(
            f"{folder} holds the log up to position {newest.last} and the store ends at {position},"
            " as an older copy would: restore from the folder, or ship to a new one"
        )
    path = os.path.join(folder, segments.name(newest.first))
    recorded = engine.links(newest.first - 1, newest.last - newest.first + 1)
    for number, (batch, link) in enumerate(zip(segments.batches(path), recorded, strict=True)):
        if batch.link != link:
            raise Refused(
                f"at position {newest.first + number} the store has another batch than {folder}, "
                "as an older copy that went its own way would: restore from the folder, or ship to "
                "a new one"
            )


# From a folder.


def restore_from(
    store: Store,
    folder: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
) -> Restored:
    """Add to a store what the segments in a folder hold and it lacks: all of it, if it is new.

    The store is empty, or holds a beginning of the same log: an earlier restore, or a backup. What
    is missing, cut off, changed, or of another log ends it there: `stopped` says where and why, and
    all before that is restored. `progress` is told how many segments are done, and of how many.

    Raises Refused where the store holds another log, Unavailable where the folder holds no
    segments, ReadOnly, and Corrupt where the store itself is damaged.
    """
    path = os.path.abspath(os.fspath(folder))
    return _Restoring(store.engine, path).run(segments.found(path), progress)


class _Restoring:
    """One run over segments: how far it came."""

    def __init__(self, engine: Engine, folder: str) -> None:
        self._engine = engine
        self._folder = folder
        self._known = engine.position()  # what is there already
        self._newest: Segment | None = None
        self._segments = self._batches = self._events = 0
        engine.adopt((), self._known)  # raises ReadOnly

    def run(self, names: list[str], progress: Callable[[int, int], None] | None) -> Restored:
        stopped = None
        for count, name in enumerate(names, 1):
            stopped = self._take(name)
            if stopped is not None:
                break
            if progress is not None:
                progress(count, len(names))
        counts = (self._segments, self._batches, self._events)
        return Restored(*counts, self._engine.position(), stopped)

    def _take(self, name: str) -> Reported | None:
        """Take a segment in, or tell why not; raises Refused where the store has another log."""
        before, other = self._batches, None
        try:
            segment = self._check(name)
            for chunk in _chunks(os.path.join(self._folder, name), segment.first):
                other = self._other(chunk)
                if other is not None:
                    break
                self._adopt(chunk)
        except Corrupt as error:
            if error.path == self._engine.path:  # The store itself is what is damaged.
                raise
            return Reported(name, "a segment", f"{error.reason}: fetch it again")
        except (Refused, FromTheFuture) as error:
            return Reported(name, "a segment", str(error))
        if other is not None:
            raise Refused(
                f"{self._engine.path} has another batch than {self._folder} at position {other}: "
                "restore into a new file, or into a backup of that log"
            )
        self._newest = segment
        self._segments += self._batches > before
        return None

    def _check(self, name: str) -> Segment:
        """Return what a segment says of itself, if it is whole and comes next."""
        segment = segments.check(os.path.join(self._folder, name))
        store, last, previous = segment.store, 0, segments.NO_HASH
        if self._newest is not None:
            store, last, previous = self._newest.store, self._newest.last, self._newest.hash
        if segment.store != store:
            raise Refused("it is of another store: move it away")
        if segment.first != last + 1:
            raise Refused(f"what comes after position {last} is missing: fetch that first")
        if segment.previous != previous:
            raise Refused("it does not continue the segment before it: fetch both again")
        return segment

    def _other(self, chunk: list[Batch]) -> int | None:
        """Return the first position where the store has another batch already, or None."""
        count = min(self._known, chunk[-1].position) - chunk[0].position + 1
        recorded = self._engine.links(chunk[0].position - 1, max(count, 0))
        for batch, link in zip(chunk, recorded, strict=False):
            if batch.link != link:
                return batch.position
        return None

    def _adopt(self, chunk: list[Batch]) -> None:
        new = [batch for batch in chunk if batch.position > self._known]
        if new:
            batches, events = self._engine.adopt(new, new[0].position - 1)
            self._batches += batches
            self._events += events


def _chunks(path: str, first: int) -> Iterator[list[Batch]]:
    """Yield the batches of a segment, with their positions, as many as are taken in together."""
    chunk: list[Batch] = []
    size_bytes = 0
    for position, batch in enumerate(segments.batches(path), first):
        chunk.append(batch._replace(position=position))
        size_bytes += sum(len(entry.text or b"") for entry in batch.entries)
        if len(chunk) >= CHUNK_BATCHES_MAX or size_bytes >= CHUNK_BYTES_MAX:
            yield chunk
            chunk, size_bytes = [], 0
    if chunk:
        yield chunk
