"""Sessions that grow by batches with times of their own: known at once, and written in chunks."""

import os
from collections.abc import Sequence

import attrs

from evstore.chain import ZERO, Batch, Birth, Entry
from evstore.errors import Conflict, Refused, SessionNotFound, Taken
from evstore.events import TIME_US_MAX, Body
from evstore.sqlite.lives import Life
from evstore.store import Store
from evstore.transfer.jsonlines import CHUNK_BATCHES_MAX, CHUNK_BYTES_MAX, Imported

STRANDS_MAX = 1000


@attrs.define(eq=False)
class Strand:
    """The log of one session as it is once all that waits is written.

    `birth` comes with its next batch, if it is not born yet; `life` is there once it is written.
    """

    uid: bytes
    head: int = 0
    time_us: int = 0
    link: bytes = ZERO
    birth: Birth | None = None
    life: Life | None = None
    names: set[str] | None = None  # of its variables, once anybody has asked


class Strands:
    """The sessions of a store that an import writes: what is appended waits for `write`."""

    def __init__(self, store: Store) -> None:
        self.added = Imported(0, 0, 0)
        self._store = store
        self._engine = store.engine
        self._strands: dict[bytes, Strand] = {}
        self._waiting: list[Batch] = []
        self._waiting_bytes = 0
        self._keyed: dict[tuple[bytes, str | None], Batch] = {}
        self._ids: set[str | None] = set()  # of those whose birth waits

    def begin(self) -> None:
        """Let go of sessions: those found so far are not held any more."""
        if len(self._strands) > STRANDS_MAX:
            self.write()
            self._strands.clear()

    def find(self, uid: bytes) -> Strand | None:
        """Return the session with this uid, or None; raises SessionNotFound where it is over."""
        if uid not in self._strands:
            life, is_over = self._engine.find_uid(uid)
            if life is None:
                return None
            if is_over:
                raise SessionNotFound(life.shown)
            self._strands[uid] = Strand(uid, *self._engine.tip(life), life=life)
        return self._strands[uid]

    def bear(self, birth: Birth, time_us: int, link: bytes) -> Strand:
        """Return a session that is born with its first batch, which comes after a time and link.

        Raises Taken where its id is that of another.
        """
        session_id = birth.id or ""
        if session_id in self._ids or self._engine.find(session_id) is not None:
            raise Taken(session_id, "give another prefix")
        strand = Strand(birth.uid, birth.fork or 0, time_us, link, birth)
        self._strands[birth.uid] = strand
        return strand

    def recorded(self, strand: Strand, key: str) -> Batch | None:
        """Return the batch that a session itself has under a key, or None."""
        waiting = self._keyed.get((strand.uid, key))
        if waiting is not None or strand.life is None:
            return waiting
        return self._engine.keyed(strand.life, key)

    def names(self, strand: Strand) -> set[str]:
        """Return the names of the variables of a session, for whoever sets more to add to."""
        if strand.names is None:
            self.write()
            strand.names = set()
            if strand.life is not None:
                strand.names.update(self._store.session(uid=strand.uid.hex()).variables)
        return strand.names

    def append(
        self,
        strand: Strand,
        bodies: Sequence[Body],
        time_us: int,
        *,
        actor: str | None = None,
        cause: str | None = None,
        key: str | None = None,
    ) -> Batch:
        """Append a batch at a time, moved by 1 µs after the one before it if need be.

        Raises Refused where the one before it is at the last moment that there is.
        """
        entries = tuple(
            Entry(body.kind, body.version, body.name, body.text, os.urandom(16)) for body in bodies
        )
        time_us = max(time_us, strand.time_us + 1)
        if time_us > TIME_US_MAX:
            raise Refused(
                f"session {strand.uid.hex()} ends in the year 9999: import into a new store"
            )
        birth = strand.birth and strand.birth._replace(created_us=time_us)
        said = (actor, cause, key)
        batch = Batch(strand.uid, strand.head + 1, time_us, *said, b"", entries, birth=birth)
        batch = batch._replace(link=batch.continues(strand.link))
        strand.head, strand.time_us, strand.link = batch.last, time_us, batch.link
        if birth is not None:
            strand.birth = None
            self._ids.add(birth.id)
        self._keyed[strand.uid, key] = batch
        self._waiting.append(batch)
        self._waiting_bytes += sum(len(body.text) for body in bodies)
        if len(self._waiting) >= CHUNK_BATCHES_MAX or self._waiting_bytes >= CHUNK_BYTES_MAX:
            self.write()
        return batch

    def write(self) -> None:
        """Write what waits, in one transaction; raises Conflict where somebody else wrote there."""
        if not self._waiting:
            return
        try:
            batches, events = self._engine.adopt(self._waiting)
        except Taken as error:
            raise Conflict(error.session, "where the import saw it", "another place") from error
        added = self.added
        births = sum(batch.birth is not None for batch in self._waiting)
        self.added = Imported(
            added.sessions + births, added.batches + batches, added.events + events
        )
        for uid in {batch.uid for batch in self._waiting}:
            strand = self._strands[uid]
            if strand.life is None:
                strand.life, _ = self._engine.find_uid(uid)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._keyed.clear()
        self._ids.clear()
