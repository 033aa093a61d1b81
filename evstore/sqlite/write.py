"""The append path: what is said becomes a batch of the log, or nothing does.

body → encode → compress → BEGIN IMMEDIATE → key seen? → head == expect? → limits → link → INSERT →
project → COMMIT → Events. Whatever is pure is done before the lock.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import attrs

from evstore.chain import Birth, leaf, link, said_by
from evstore.deadlines import Lease, Ttl, lease_after
from evstore.errors import (
    Conflict,
    NoSuchMoment,
    TooLarge,
    TooMany,
)
from evstore.events import (
    ANY,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    METADATA,
    METADATA_SET,
    SESSION_EXPIRED,
    VARIABLE_SET,
    VARIABLES,
    Body,
    Event,
    Later,
    Said,
    Sentinel,
    mark,
    operand,
    value_text,
)
from evstore.limits import Limits
from evstore.sqlite import chains
from evstore.sqlite.database import Cursor, Database, Durability
from evstore.sqlite.insert import (
    BatchRow,
    Layout,
    Prepared,
    cached_standing,
    cached_tip,
    insert,
    insert_session,
    lay_out,
    newest,
    put_lease,
    tip_at,
)
from evstore.sqlite.lives import UNBORN, Life, holder
from evstore.sqlite.log import batch_events
from evstore.sqlite.read import Moment

Decision = Callable[[Moment], Said]
_TARGETING = frozenset({MESSAGE_REMOVED, MESSAGE_REPLACED})


@attrs.define(eq=False, repr=False)
class Draft:
    """What one batch is to say, by whom, and on what condition.

    `say` is either the bodies or a function that decides on them under the lock. `birth` are the
    bodies that go first if this batch brings the session into being, and `birth_ttl` says how long
    it lives then; `ttl` says so of any session. `revives` is for the return of a life that is over.
    """

    session_id: str
    life: Life | None
    say: Said | Decision
    limits: Limits
    durability: Durability
    clock: Callable[[], int]
    actor: str | None = None
    cause: str | None = None
    key: str | None = None
    expect: int | Sentinel = ANY
    birth: Sequence[Body] = ()
    birth_ttl: Ttl | None = None
    ttl: Ttl | None = None
    revives: bool = False


class Recorded(NamedTuple):
    """A batch that is in the log; its Events are built when looked at."""

    life: Life | None
    position: int
    time_us: int
    first: int
    actor: str | None
    cause: str | None
    prepared: Sequence[Prepared] = ()
    seen: Sequence[Event] = ()

    def events(self) -> list[Event]:
        """Return the Events, in order."""
        if self.life is None or self.seen:
            return list(self.seen)
        return [
            Event(
                self.first + index,
                self.position,
                self.time_us,
                body.kind,
                body.name,
                body.text.decode(),
                self.actor,
                self.cause,
                self.life.id,
                self.life.uid.hex(),
                body.version,
            )
            for index, (body, *_) in enumerate(self.prepared)
        ]


def prepare(database: Database, drafts: Sequence[Draft]) -> Callable[[Cursor], list[Recorded]]:
    """Return the work that appends batches at consecutive positions, once the lock is held.

    It raises Conflict, SessionNotFound, TooMany and TooLarge.
    """
    return partial(_append, [_Appending(database, draft) for draft in drafts])


def _append(appendings: Sequence["_Appending"], cursor: Cursor) -> list[Recorded]:
    return [appending.run(cursor) for appending in appendings]


def _find_life(
    database: Database, cursor: Cursor, draft: Draft, now_us: int
) -> tuple[Life | None, Lease | None]:
    """Return the life that a batch continues, and its lease; without a life it is a birth.

    A life whose deadline has passed gives its id up first.
    """
    life = draft.life
    if life is not None and not draft.revives:
        now = cached_standing(database, cursor, life)
        if now.ended is not None or now.lease is not None:
            now.check(draft.session_id, now_us)
        return life, now.lease
    current = holder(database, cursor, draft.session_id)
    lease = cached_standing(database, cursor, current).lease if current else None
    if current is not None and lease is not None and lease.expires_us <= now_us:
        expire(database, cursor, draft, current)
        current = lease = None
    return (life, None) if life else (current, lease)


def expire(database: Database, cursor: Cursor, draft: Draft, life: Life) -> None:
    """Record that the deadline of a life has passed, which frees its id."""
    said = [mark(SESSION_EXPIRED)]
    ending = Draft(life.shown, life, said, draft.limits, draft.durability, draft.clock, draft.actor)
    _Appending(database, ending).go_on(cursor, life, None, draft.clock())


def _prepare(
    database: Database, life: Life | None, bodies: Said, said: bytes
) -> list[Prepared | Later]:
    """Do what can be done before the lock: encode and hash the bodies."""
    salts = os.urandom(16 * len(bodies))
    prepared: list[Prepared | Later] = []
    for index, body in enumerate(bodies):
        if callable(body):
            prepared.append(body)
        else:
            salt = salts[16 * index : 16 * index + 16]
            prepared.append(_prepared(database, life, body, salt, said))
    return prepared


def _prepared(
    database: Database, life: Life | None, body: Body, salt: bytes, said: bytes
) -> Prepared:
    hashed = leaf(salt, body.kind, body.name, body.text, said)
    return Prepared(body, chains.encode(database, life, body), salt, hashed)


class _Appending:
    """One append: what can be done before the lock, and then what is decided under it.

    What was read there stays true until the commit.
    """

    def __init__(self, database: Database, draft: Draft) -> None:
        said = draft.say
        self._database = database
        self._draft = draft
        self._said = said_by(draft.actor, draft.cause, draft.key)
        self._birth = _prepare(database, None, draft.birth, self._said) if draft.birth else []
        self._prepared = (
            None if callable(said) else _prepare(database, draft.life, said, self._said)
        )

    def run(self, cursor: Cursor) -> Recorded:
        """Return the batch as recorded: newly, before under the same key, or not at all."""
        now_us = self._draft.clock()
        return self.go_on(cursor, *_find_life(self._database, cursor, self._draft, now_us), now_us)

    def go_on(
        self, cursor: Cursor, life: Life | None, lease: Lease | None, now_us: int
    ) -> Recorded:
        """Go on where it is known which life it is, if any."""
        draft, database = self._draft, self._database
        self._cursor = cursor
        self._life = life
        self._lease = lease
        self._newest = newest(database, cursor)
        self._tip = UNBORN if life is None else cached_tip(database, cursor, life)
        self._now_us = max(now_us, self._newest.time_us, self._tip.time_us + 1)
        moment = Moment(database, cursor, life, None, self._now_us)
        prepared = self._prepared
        seen = None if draft.key is None else self._seen_before()
        if seen is not None:
            return self._same(seen, prepared or [])
        if draft.expect is not ANY and draft.expect != self._tip.head:
            raise Conflict(draft.session_id, draft.expect, self._tip.head)
        if prepared is None:
            assert callable(draft.say)
            prepared = _prepare(database, life, draft.say(moment), self._said)
        if not prepared:
            return Recorded(life, 0, 0, 0, None, None)
        front = self._birth if life is None else []
        first = self._tip.head + 1
        items = [*front, *prepared]
        return self._record(moment, first, self._resolve(items, first + len(front)))

    def _resolve(self, items: list[Any], first: int) -> list[Prepared]:
        if not any(map(callable, items)):
            return items
        return [
            _prepared(self._database, self._life, item(first), os.urandom(16), self._said)
            if callable(item)
            else item
            for item in items
        ]

    # Idempotency.

    def _seen_before(self) -> int | None:
        if self._life is None:
            return None
        position: int | None = self._cursor.execute(
            "select position from batch where session = ? and key = ?",
            (self._life.number, self._draft.key),
        ).get
        return position

    def _same(self, position: int, prepared: list[Prepared | Later]) -> Recorded:
        assert self._life is not None
        events = batch_events(self._database, self._cursor, self._life, position)
        front = max(len(events) - len(prepared), 0)
        kinds = {event.kind for event in events[:front]}
        if position != self._life.position or not kinds <= {METADATA_SET}:
            front = 0  # Only at a birth metadata goes in front, and is ignored later.
        bodies = [item.body for item in self._resolve(prepared, events[0].seq + front)]
        said = [_content(body.kind, body.name, body.text.decode(), body.operand) for body in bodies]
        recorded = [
            _content(event.kind, event.name, event.text, operand(event)) for event in events[front:]
        ]
        if said != recorded:
            expected = f"the events first recorded under key {self._draft.key!r}"
            raise Conflict(self._draft.session_id, expected, "other events")
        return Recorded(self._life, position, 0, 0, None, None, seen=events)

    # The record.

    def _record(self, moment: Moment, first: int, prepared: list[Prepared]) -> Recorded:
        draft = self._draft
        position, time_us = self._newest.position + 1, self._now_us
        layout = lay_out(self._database, self._cursor, moment, first, prepared, position)
        if not _TARGETING.isdisjoint(layout.kinds):
            self._check_targets(moment, first, prepared)
        if layout.named:
            self._check_limits(moment, layout)
        life, origin = self._life, None
        if life is None:
            life, origin = self._bear(time_us, position)
        leaves = [(body.kind, body.version, hashed) for body, _, _, hashed in prepared]
        hashed = link(self._tip.link, life.uid, first, time_us, leaves, origin)
        row = BatchRow(
            position,
            life.number,
            first,
            first + len(prepared) - 1,
            time_us,
            draft.actor,
            draft.cause,
            draft.key,
            hashed,
        )
        begins = self._life is None or draft.revives
        if begins or self._lease is not None or draft.ttl is not None:
            _renew(self._database, self._cursor, draft, life, self._lease, begins=begins)
        insert(self._database, self._cursor, life, row, layout)
        return Recorded(life, position, time_us, first, draft.actor, draft.cause, prepared)

    def _bear(self, time_us: int, position: int) -> tuple[Life, bytes]:
        draft = self._draft
        birth = Birth(os.urandom(16), draft.session_id, time_us, None, None, os.urandom(16))
        life = insert_session(self._database, self._cursor, birth, None, position)
        return life, birth.origin(draft.actor, draft.cause)

    def _check_targets(self, moment: Moment, first: int, prepared: list[Prepared]) -> None:
        """A message named by its seq may have gone since the batch was begun."""
        if callable(self._draft.say):
            return
        for item in prepared:
            seq = item.body.operand
            if seq is None or seq >= first or item.body.kind not in _TARGETING:
                continue
            if not moment.message_list().holds(moment.ordinal(seq)):
                raise Conflict(self._draft.session_id, f"message {seq}", "gone")

    def _check_limits(self, moment: Moment, layout: Layout) -> None:
        limits = self._draft.limits
        if VARIABLE_SET in layout.kinds:
            growth = layout.growth(VARIABLES, self._now_us)
            count = moment.count(VARIABLES) + growth if growth > 0 else 0
            if count > limits.variables_max:
                raise TooMany("variables", count, limits.variables_max)
        if METADATA_SET in layout.kinds:
            size_bytes = _metadata_bytes(moment, layout)
            if size_bytes > limits.metadata_bytes_max:
                what = "the metadata of a session"
                raise TooLarge(what, size_bytes, limits.metadata_bytes_max)


def _metadata_bytes(moment: Moment, layout: Layout) -> int:
    sizes = {
        name: len((found.text or "").encode()) for name, found in moment.variables(METADATA).items()
    }
    for (family, name), named in layout.named.items():
        if family == METADATA:
            sizes[name] = len(named.value or b"")
    return sum(sizes.values())


def _renew(
    database: Database,
    cursor: Cursor,
    draft: Draft,
    life: Life,
    lease: Lease | None,
    *,
    begins: bool,
) -> None:
    """Write down how long a session lives from now on, where that changes."""
    ttl = draft.birth_ttl if begins and draft.ttl is None else draft.ttl
    if ttl is None and lease is None:
        return
    renewed = lease_after(lease, ttl, draft.clock())
    if renewed is not None:
        put_lease(database, cursor, life, renewed)


def _content(
    kind: str, name: str | None, text: str | None, operand: int | None
) -> tuple[str, str | None, str | None]:
    """Return what idempotency compares: kind, name, and the text without a deadline."""
    if text is not None and kind == VARIABLE_SET:
        text = value_text(text, operand)
    return kind, name, text


def fork(database: Database, draft: Draft, origin: Life, at: int) -> Life:
    """Bring a session into being that shares the past of another up to `at`; one small commit.

    Raises Taken where the id lives, and NoSuchMoment where `at` is not there.
    """
    with database.writing(draft.durability) as cursor:
        _find_life(database, cursor, draft, draft.clock())
        last = newest(database, cursor)
        parent = origin.recorder(at)
        head = cached_tip(database, cursor, origin).head
        if at > head:
            raise NoSuchMoment(origin.shown, at, head)
        shared = tip_at(cursor, parent, at)
        position = last.position + 1
        time_us = max(draft.clock(), last.time_us, shared.time_us + 1)
        birth = Birth(os.urandom(16), draft.session_id, time_us, parent.uid, at, os.urandom(16))
        life = insert_session(database, cursor, birth, parent, position)
        born = birth.origin(draft.actor, draft.cause)
        hashed = link(shared.link, life.uid, at + 1, time_us, (), born)
        who = (draft.actor, draft.cause, None)
        row = BatchRow(position, life.number, at + 1, at, time_us, *who, hashed)
        insert(database, cursor, life, row, Layout(life, []))
        _renew(database, cursor, draft, life, None, begins=True)
        return life
