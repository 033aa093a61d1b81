"""Rewriting: what a transform makes of a log, batch by batch, with all that refers to it.

The same log and the same transform give the same batches, to the salt: so what was written before
can be told from what was not.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import attrs
import orjson

from evstore import values
from evstore.chain import UNLINKED, Batch, Birth, Entry
from evstore.errors import EvstoreError, Refused
from evstore.events import (
    ABSENT,
    BODIES,
    KINDS,
    LABEL_SET,
    MERGE,
    MESSAGE_ADDED,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    MESSAGES_REVERTED,
    OPERANDS,
    REDO,
    REVERT,
    RUN,
    UNDO,
    Event,
    from_microseconds,
    merge_cause,
    merged_moment,
)
from evstore.evolution import version_to_write
from evstore.limits import Limits
from evstore.registry import VERSION_MAX
from evstore.sqlite.engine import Engine
from evstore.sqlite.lives import Life
from evstore.sqlite.renumbering import Renumbering, Written

# A store with wider limits may have written the source.
_WIDE = Limits(name_bytes_max=1 << 30, session_id_characters_max=1 << 30)
_TARGETING = frozenset({MESSAGE_REMOVED, MESSAGE_REPLACED})
_POINTING = frozenset({MESSAGES_REVERTED, LABEL_SET})
_NUMBERED = re.compile(f"({UNDO}|{REDO}|{REVERT}|{RUN})([0-9]{{1,10}})")


@attrs.frozen
class Commit:
    """A batch as a transform sees it: which session recorded what, when, by whom and why.

    `session` is None once it was forgotten. A transform may change all but `uid` and `time`.
    """

    session: str | None
    uid: str
    time: datetime
    actor: str | None
    cause: str | None
    key: str | None
    events: tuple[Event, ...]

    def having(self, events: Iterable[Event]) -> "Commit":
        """Return the same with other events."""
        return attrs.evolve(self, events=tuple(events))


Transform = Callable[[Commit], Commit | Iterable[Commit] | None]


def changed(event: Event, data: Any = ABSENT, **changes: Any) -> Event:
    """Return an event with other data, and with another `kind`, `name` or `version` where given.

    Data is of the newest version that this program knows of a kind, as `event.data` is, unless a
    version is given. The sequences that it names (of a message to remove, for example) are those
    of the source. Raises NotStorable.
    """
    if data is not ABSENT:
        kind = changes.get("kind", event.kind)
        changes.setdefault("version", max(event.version, version_to_write(kind, None)))
        depth = values.DEPTH_MAX + (kind in KINDS)  # whose data is an object that holds the value
        changes["text"] = values.encode(data, root="data", depth=depth).decode()
    return attrs.evolve(event, **changes)


class Made(NamedTuple):
    """A batch for the target, which seqs of the source are in it, and what is new in it."""

    batch: Batch
    seen: set[int]
    changed: int
    added: int


class Rewriting:
    """One walk over a source: what is written so far, and which seqs that got."""

    def __init__(self, source: Engine, transform: Transform) -> None:
        self._source = source
        self._transform = transform
        self._numbers = Renumbering()

    def untouched(self) -> int:
        """Return how many lives are just as they were."""
        return self._numbers.untouched()

    def close(self) -> None:
        """Give back the space that it took."""
        self._numbers.close()

    def made(self, batch: Batch) -> Iterator[Made]:
        """Yield what the target gets for a batch of the source; it has to be written at once.

        Raises Refused for what a transform may not do.
        """
        life, _ = self._source.find_uid(batch.uid)
        assert life is not None
        commit = _commit(batch, life)
        given = self._asked(commit, batch)
        for each in given:
            _check(batch, commit, each)
        if len({each.session for each in given}) < len(given):
            raise _refused(batch, "gave two batches for one session: give one that has all events")
        uids = set()
        for each in given:
            made = _Making(self._source, self._numbers, life, batch, each).made()
            if made is not None:
                uids.add(made.batch.uid)
                yield made
        written = None if batch.uid in uids else self._numbers.life(batch.uid)
        if written is not None:
            self._numbers.put_life(written._replace(touched=True))

    def _asked(self, commit: Commit, batch: Batch) -> list[Commit]:
        try:
            given = self._transform(commit)
            if given is None:
                return []
            return [given] if isinstance(given, Commit) else list(given)
        except EvstoreError:
            raise
        except Exception as error:  # Whatever the application's own code may raise.
            raise _refused(batch, f"raised {error!r}: mend it") from error


def _commit(batch: Batch, life: Life) -> Commit:
    said = (batch.actor, batch.cause)
    events = tuple(
        Event(
            seq,
            batch.position,
            batch.time_us,
            entry.kind,
            entry.name,
            None if entry.text is None else entry.text.decode(),
            *said,
            life.id,
            batch.uid.hex(),
            entry.version,
        )
        for seq, entry in enumerate(batch.entries, batch.first)
    )
    time = from_microseconds(batch.time_us)
    return Commit(life.id, batch.uid.hex(), time, *said, batch.key, events)


def _check(batch: Batch, commit: Commit, given: object) -> None:
    """Raise Refused, or what is more exact, for what no transform may give."""
    if not isinstance(given, Commit):
        raise _refused(batch, f"gave {type(given).__name__}: give the batch, several, or None")
    if (given.uid, given.time) != (commit.uid, commit.time):
        raise _refused(batch, "gave another uid or time: those stay as they are")
    if given.session != commit.session:
        _WIDE.check_session_id(given.session)
    names = {"actor": given.actor, "cause": given.cause, "key": given.key}
    for what, name in names.items():
        if name is not None:
            _WIDE.check_name(what, name)
    events: object = given.events
    if not isinstance(events, tuple | list):
        raise _refused(batch, f"gave events in a {type(events).__name__}: give them to `having`")
    for event in events:
        _check_event(batch, event)


def _check_event(batch: Batch, event: object) -> None:
    if not isinstance(event, Event) or not batch.first <= event.seq <= batch.last:
        raise _refused(batch, "gave what is no event of the batch: change one with `changed`")
    if event.name is not None:
        _WIDE.check_name("name", event.name)
    kind, version = event.kind, event.version
    if type(kind) is not str:
        raise _refused(batch, f"gave an event the kind {kind!r}: give text")
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        told = f"give a number from 1 to {VERSION_MAX}"
        raise _refused(batch, f"gave an event the version {version!r}: {told}")
    try:
        str.encode(event.text or "")
    except (TypeError, UnicodeEncodeError):
        told = "a text that UTF-8 cannot hold: give its data to `changed`"
        raise _refused(batch, f"gave an event {told}") from None


def _refused(batch: Batch, what: str) -> Refused:
    return Refused(f"for session {batch.uid.hex()} at {batch.first} the transform {what}")


class _Making:
    """One batch in the making: for one session of the target, from one batch of the source."""

    def __init__(
        self, source: Engine, numbers: Renumbering, life: Life, batch: Batch, given: Commit
    ) -> None:
        self._source = source
        self._numbers = numbers
        self._life = life  # of the source
        self._batch = batch
        self._given = given
        self._changed = self._added = 0
        self._seen: set[int] = set()
        self._entries: list[Entry] = []

    def made(self) -> Made | None:
        """Return the batch, or None where nothing is left of it."""
        given, batch = self._given, self._batch
        own = self._numbers.life(batch.uid)
        is_own = own is None or own.session == given.session
        uid = batch.uid if is_own else _derived(batch.uid, given.session)
        written = own if is_own else self._numbers.life(uid)
        birth = None
        if written is None:
            birth = self._birth(uid, is_own=is_own)
            parent, fork = birth.parent_uid, birth.fork or 0
            written = Written(uid, given.session, fork, parent, fork, self._is_touched(birth))
        first = written.head + 1
        cause = self._cause(written)
        self._written = written
        for event in given.events:
            self._take(event)
        if not self._entries and (birth is None or birth.parent_uid is None or batch.entries):
            return None
        said = (given.actor, cause, given.key if self._entries else None)
        made = Batch(uid, first, batch.time_us, *said, UNLINKED, tuple(self._entries), 0, birth)
        as_it_was = made._replace(link=batch.link, position=batch.position)
        touched = written.touched or as_it_was != batch
        head = written.head + len(self._entries)
        self._numbers.put_life(written._replace(head=head, touched=touched))
        return Made(made if touched else as_it_was, self._seen, self._changed, self._added)

    # Births.

    def _birth(self, uid: bytes, *, is_own: bool) -> Birth:
        session, time_us = self._given.session, self._batch.time_us
        birth = self._batch.birth or self._source.changes(self._life.position - 1, 1)[0].birth
        assert birth is not None
        if session != birth.id:
            salt = _salt(birth.salt or birth.leaf or b"", session)
            birth = birth._replace(id=session, salt=salt, leaf=None)
        if not is_own:
            return birth._replace(uid=uid, created_us=time_us, parent_uid=None, fork=None)
        if birth.parent_uid is None:
            return birth
        parent, fork = self._moment_of(birth.parent_uid, birth.fork or 0)
        return birth._replace(parent_uid=parent, fork=None if parent is None else fork)

    def _is_touched(self, birth: Birth) -> bool:
        parent = None if birth.parent_uid is None else self._numbers.life(birth.parent_uid)
        return birth != self._batch.birth or (parent is not None and parent.touched)

    # Events.

    def _take(self, event: Event) -> None:
        """Take in an event, as one or several entries."""
        if event.text is None or event.kind not in _TARGETING | _POINTING:
            self._put(event)
            return
        field = OPERANDS[event.kind]
        old = _number(event, field)
        if event.kind in _POINTING:
            self._put(_renumbered(event, field, old, self._moment(self._written, old)))
            return
        targets = self._messages(old)
        if targets:
            self._put(_renumbered(event, field, old, targets[0]))
        elif event.kind == MESSAGE_REPLACED:  # What it was put in the place of is not there.
            self._put(changed(event, kind=MESSAGE_ADDED, text=_only_message(event.text)))
        for target in targets[1:]:  # The other parts of a message that was split go with it.
            text = orjson.dumps({"seq": target}).decode()
            self._put(changed(event, kind=MESSAGE_REMOVED, text=text))

    def _put(self, event: Event) -> None:
        batch, source = self._batch, self._batch.entries[event.seq - self._batch.first]
        uid, number = self._written.uid, len(self._entries)
        seq = self._written.head + 1 + number
        text = None if event.text is None else event.text.encode()
        entry = Entry(event.kind, event.version, event.name, text, source.salt, source.leaf)
        is_first = event.seq not in self._seen
        self._seen.add(event.seq)
        if entry != source or not is_first:
            salt = _salt(source.salt or source.leaf or b"", batch.uid.hex(), number)
            entry = entry._replace(salt=salt, leaf=None)
            self._changed += is_first
            self._added += not is_first
        self._numbers.put_event(uid, event.seq, seq, carries=event.kind in BODIES)
        self._entries.append(entry)

    # Sequences.

    def _messages(self, old: int) -> list[int]:
        """Return the seqs of the messages that came of an event, as the target shows them."""
        written = self._written
        if old > self._life.fork or written.uid != self._batch.uid:
            return self._numbers.messages(written.uid, old)
        shared = self._numbers.messages(self._life.recorder(old).uid, old)
        return [seq for seq in shared if seq <= written.fork]

    def _moment(self, written: Written, old: int) -> int:
        """Return the moment of the target that is a moment of the source."""
        if old > self._life.fork or written.uid != self._batch.uid:
            found = self._numbers.moment(written.uid, old)
            return written.fork if found is None else found
        _, shared = self._moment_of(self._life.recorder(old).uid, old)
        return min(shared, written.fork)

    def _moment_of(self, uid: bytes, old: int) -> tuple[bytes | None, int]:
        """Return which life recorded a moment of a life in the target, and at which seq."""
        while (written := self._numbers.life(uid)) is None:  # What it shared may be there.
            life, _ = self._source.find_uid(uid)
            if life is None or life.parent is None:
                return None, 0
            old = min(old, life.fork)
            uid = life.recorder(old).uid
        found = self._numbers.moment(uid, old)
        if found is not None:
            return uid, found
        return (uid, 0) if written.parent is None else (written.parent, written.fork)

    def _cause(self, written: Written) -> str | None:
        """Return the cause, with the sequences that it names renumbered."""
        cause = self._given.cause
        if cause is None or cause != self._batch.cause:
            return cause
        if cause.startswith(MERGE):
            uid, seq = merged_moment(cause)
            if self._numbers.life(uid) is None:
                return cause
            return merge_cause(uid, self._moment_of(uid, seq)[1])
        found = _NUMBERED.fullmatch(cause)
        word, number = (found[1], int(found[2])) if found else ("", 0)
        if not 1 <= number <= self._batch.first:  # Others may say "run:" of something else.
            return cause
        if word == REVERT:
            return f"{REVERT}{self._moment(written, number)}"
        return f"{word}{self._moment(written, number - 1) + 1}"


def _derived(uid: bytes, session: str | None) -> bytes:
    return sha256(b"split" + uid + (session or "").encode()).digest()[:16]


def _salt(salt: bytes, *more: object) -> bytes:
    """Return a salt that nobody can guess who does not know the one it comes from."""
    return sha256(salt + repr(more).encode()).digest()[:16]


def _number(event: Event, field: str) -> int:
    try:
        number = orjson.loads(event.text or "")[field]
    except (ValueError, TypeError, KeyError):
        number = None
    if type(number) is not int or number < 0:
        raise Refused(f"a {event.kind} that the transform gave names no {field}: give one")
    return number


def _renumbered(event: Event, field: str, old: int, new: int) -> Event:
    if old == new:
        return event
    data = orjson.loads(event.text or "") | {field: new}
    return attrs.evolve(event, text=values.dump(data).decode())


def _only_message(text: str) -> str:
    return values.dump({"message": orjson.loads(text)["message"]}).decode()
