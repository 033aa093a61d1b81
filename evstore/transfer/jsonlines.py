"""JSON Lines that lose nothing: what one store exports another imports, every link unchanged."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import attrs

from evstore import view
from evstore.chain import Batch
from evstore.errors import Corrupt, FromTheFuture, Refused, SessionNotFound, Taken
from evstore.moments import When, of_all, position_of
from evstore.session import Session
from evstore.sqlite.engine import Engine
from evstore.sqlite.lives import Life
from evstore.store import Store
from evstore.transfer.layout import HEADER, Reader, batch_lines, end_line

# What is imported together: enough to pay for the commit, little enough to be soon done.
CHUNK_BATCHES_MAX = 500
CHUNK_BYTES_MAX = 8 << 20


@attrs.frozen
class Imported:
    """What an import added: lives, batches and events that were not there before.

    From a foreign format: how many records were kept as they were, and how much was reported.
    """

    sessions: int
    batches: int
    events: int
    kept: int = 0
    reported: int = 0


def export_lines(
    store: Store, session: Session | str | None = None, at: When | None = None
) -> Iterator[bytes]:
    """Yield the lines of a whole store, deleted lives included, or of one session.

    What a session shares with its ancestors goes before it: their batches up to the one that holds
    the fork point. The commits of others do not disturb it: what they add meanwhile is left out.
    `at` ends it with the batch that holds a moment of the session; a whole store ends before the
    first batch that is later than an aware datetime.

    Raises SessionNotFound, NoSuchMoment and Refused.
    """
    if isinstance(session, str):
        session = store.session(session, create=False)
    engine = store.engine
    if session is not None:
        return _lines(_of(engine, session, at))
    until = engine.position() if at is None else position_of(engine, of_all(at))
    return _lines(_all(engine, until))


def _lines(batches: Iterator[Batch]) -> Iterator[bytes]:
    yield HEADER
    count = 0
    for batch in batches:
        yield from batch_lines(batch)
        count += 1
    yield end_line(count)


def _all(engine: Engine, last: int) -> Iterator[Batch]:
    position = 0
    while position < last:
        for batch in engine.changes(position):
            position = batch.position
            if position <= last:
                yield batch


def _of(engine: Engine, session: Session, at: When | None) -> Iterator[Batch]:
    uid = session.uid
    life, _ = engine.find_uid(bytes.fromhex(uid)) if uid else (None, False)
    if life is None:
        raise SessionNotFound(session.id)
    until = session.head if at is None else session.at(at).seq
    while life.parent is not None and until < life.fork:  # It was not born yet, and its parent was.
        life = life.parent
    if life.parent is None and until == 0:
        return iter(())
    return _shared_and_own(engine, life, until)


def _shared_and_own(engine: Engine, life: Life, head: int) -> Iterator[Batch]:
    seen = 0
    for position in _positions(engine, life, head):
        if position != seen:
            yield from engine.changes(position - 1, 1)
            seen = position


def _positions(engine: Engine, life: Life, until: int) -> Iterator[int]:
    """Yield the position of every event of a lineage, oldest first, and those of the births."""
    lineage = [(life, until)]
    while life.parent is not None:
        lineage.append((life.parent, life.fork))
        life = life.parent
    for recorder, last in reversed(lineage):
        yield recorder.position
        for event in view.events(engine, recorder, recorder.fork, last):
            yield event.position


def import_lines(
    store: Store, lines: Iterable[bytes], progress: Callable[[int], None] | None = None
) -> Imported:
    """Add what exported lines hold and this store lacks; return how much that was.

    Lines enter in chunks, each in one transaction. A chunk with a bad line is not written; what
    came before it stays, and importing again goes on from there. `progress` is called with the
    number of bytes taken in so far.

    Raises Refused, FromTheFuture, Corrupt, and Taken where an id belongs to another life.
    """
    return _Import(store.engine, progress).run(lines)


def begun(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Return the same lines, once they are seen to begin as an export does.

    Raises Refused and FromTheFuture, as importing them would.
    """
    lines, seen = iter(lines), []
    for line in lines:
        seen.append(line)
        if line.strip():
            _read(Reader(), len(seen), line)
            return chain(seen, lines)
    raise _cut_off(len(seen))


def _read(reader: Reader, number: int, line: bytes) -> Batch | None:
    try:
        return reader.read(line)
    except FromTheFuture:
        raise
    except Refused as error:
        raise Refused(f"line {number} cannot be imported: {error}") from error


def _cut_off(number: int) -> Refused:
    return Refused(
        f"after line {number} the end of the export is missing: export it again, and import it "
        "again; what is already there will be passed over"
    )


class _Import:
    """One run over lines: the chunk that is being gathered, and what was added so far."""

    def __init__(self, engine: Engine, progress: Callable[[int], None] | None) -> None:
        self._engine = engine
        self._progress = progress
        self._reader = Reader()
        self._line = 0
        self._chunk: list[tuple[int, Batch]] = []
        self._chunk_bytes = 0
        self._bytes = 0
        self._added = Imported(0, 0, 0)

    def run(self, lines: Iterable[bytes]) -> Imported:
        for self._line, line in enumerate(lines, 1):
            self._bytes += len(line)
            self._chunk_bytes += len(line)
            batch = _read(self._reader, self._line, line) if line.strip() else None
            if batch is not None:
                self._chunk.append((self._line, batch))
            if len(self._chunk) >= CHUNK_BATCHES_MAX or self._chunk_bytes >= CHUNK_BYTES_MAX:
                self._write()
        if not self._reader.ended:
            raise _cut_off(self._line)
        self._write()
        return self._added

    def _write(self) -> None:
        chunk, self._chunk, self._chunk_bytes = self._chunk, [], 0
        births = {batch.uid for _, batch in chunk if batch.birth is not None}
        sessions = sum(self._engine.find_uid(uid)[0] is None for uid in births)
        at = self._line

        def batches() -> Iterator[Batch]:
            nonlocal at
            for at, batch in chunk:  # noqa: B007 - told to the error below
                yield batch

        try:
            count, events = self._engine.adopt(batches())
        except Corrupt as error:
            if error.path == self._engine.path:  # The store itself is what is damaged.
                raise
            where = f"line {at} of what is imported"
            raise Corrupt(where, error.reason, error.session, error.seq) from error
        except Taken as error:
            raise Taken(error.session, "import into a new store") from error
        except Refused as error:
            if type(error) is not Refused:
                raise
            raise Refused(f"line {at} cannot be imported: {error}") from error
        added = self._added
        self._added = Imported(
            added.sessions + sessions, added.batches + count, added.events + events
        )
        if self._progress is not None:
            self._progress(self._bytes)
