"""The append path: the only module that inserts into the log.

body → encode → compress → BEGIN IMMEDIATE → key seen? → head == expect? → limits → link → INSERT →
project → COMMIT → Events. Whatever is pure is done before the lock.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import attrs

from evstore.chain import Birth, leaf, link, said_by
from evstore.errors import Conflict, NoSuchMoment, SessionNotFound, Taken, TooLarge, TooMany
from evstore.events import (
    ABSENT,
    ANY,
    ENDINGS,
    FAMILY,
    METADATA,
    METADATA_SET,
    SESSION_RESTORED,
    VARIABLE_SET,
    VARIABLES,
    Body,
    Event,
    Sentinel,
    operand,
    value_text,
)
from evstore.limits import Limits
from evstore.sqlite import payload
from evstore.sqlite.database import Columns, Cursor, Database, Durability
from evstore.sqlite.insert import (
    Named,
    cached_tip,
    copy_metadata,
    insert_batch,
    insert_checkpoint,
    insert_events,
    insert_session,
    kind_number,
    newest,
    project,
    remember_tip,
    set_ended,
    tip_at,
)
from evstore.sqlite.lives import UNBORN, Life, Tip, has_ended, living
from evstore.sqlite.log import batch_events
from evstore.sqlite.read import Moment
from evstore.state import Reference, step

Later = Callable[[int], Body]  # a body that has to know the first seq of its batch
Said = Sequence[Body | Later]
Decision = Callable[[Moment], Said]


class Prepared(NamedTuple):
    """A body with all that can be computed before the lock."""

    body: Body
    encoding: int
    data: str | bytes
    salt: bytes
    leaf: bytes


@attrs.define
class Draft:
    """What one batch is to say, by whom, and on what condition.

    `say` is either the bodies or a function that decides on them under the lock. `birth` are the
    bodies that go first if this batch brings the session into being.
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
    revives: bool = False


@attrs.frozen
class Recorded:
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
            )
            for index, (body, *_) in enumerate(self.prepared)
        ]


_NOTHING = Recorded(None, 0, 0, 0, None, None)


def append(database: Database, draft: Draft) -> Recorded:
    """Append one batch; raises Conflict, SessionNotFound, TooMany, TooLarge, Busy, Unavailable."""
    said = said_by(draft.actor, draft.cause, draft.key)
    birth = _prepare(draft.birth, said)
    prepared = None if callable(draft.say) else _prepare(draft.say, said)
    with database.writing(draft.durability) as cursor:
        return _Appending(database, cursor, draft, said).run(birth, prepared)


def _prepare(bodies: Said, said: bytes) -> list[Prepared | Later]:
    salts = os.urandom(16 * len(bodies))
    return [
        body if callable(body) else _prepared(body, salts[16 * index : 16 * index + 16], said)
        for index, body in enumerate(bodies)
    ]


def _prepared(body: Body, salt: bytes, said: bytes) -> Prepared:
    encoding, data = payload.pack(body.text)
    hashed = leaf(salt, body.kind, body.name, body.text, said)
    return Prepared(body, encoding, data, salt, hashed)


class _Appending:
    """One append under the lock: what was read stays true until the commit."""

    def __init__(
        self, database: Database, cursor: Cursor, draft: Draft, said: bytes
    ) -> None:
        self._database = database
        self._cursor = cursor
        self._draft = draft
        self._said = said
        self._newest = newest(database, cursor)
        self._life = self._find_life()
        self._tip = UNBORN if self._life is None else cached_tip(database, cursor, self._life)
        self._moment = Moment(database, cursor, self._life)

    def run(
        self, birth: list[Prepared | Later], prepared: list[Prepared | Later] | None
    ) -> Recorded:
        """Return the batch as recorded: newly, before under the same key, or not at all."""
        draft = self._draft
        seen = self._seen_before()
        if seen is not None:
            return self._same(seen, birth, prepared or [])
        if draft.expect is not ANY and draft.expect != self._tip.head:
            raise Conflict(draft.session_id, draft.expect, self._tip.head)
        if prepared is None:
            assert callable(draft.say)
            prepared = _prepare(draft.say(self._moment), self._said)
        if not prepared:
            return _NOTHING
        front = birth if self._life is None else []
        items = [*front, *prepared]
        first = self._tip.head + 1
        return self._record(first, self._resolve(items, first + len(front)))

    def _find_life(self) -> Life | None:
        life, draft = self._draft.life, self._draft
        if life is None:
            return living(self._database, self._cursor, draft.session_id)
        if not draft.revives and has_ended(self._cursor, life):
            raise SessionNotFound(draft.session_id)
        return life

    def _resolve(self, items: Sequence[Prepared | Later], first: int) -> list[Prepared]:
        return [
            _prepared(item(first), os.urandom(16), self._said) if callable(item) else item
            for item in items
        ]

    # Idempotency.

    def _seen_before(self) -> int | None:
        if self._draft.key is None or self._life is None:
            return None
        return self._cursor.execute(
            "select position from batch where session = ? and key = ?",
            (self._life.number, self._draft.key),
        ).get

    def _same(
        self, position: int, birth: list[Prepared | Later], prepared: list[Prepared | Later]
    ) -> Recorded:
        assert self._life is not None
        events = batch_events(self._database, self._cursor, self._life, position)
        front = len(events) - len(prepared)
        items = [*(birth if front else []), *prepared]
        bodies = [item.body for item in self._resolve(items, events[0].seq + front)]
        said = [
            _content(body.kind, body.name, body.text.decode(), body.operand) for body in bodies
        ]
        recorded = [
            _content(event.kind, event.name, event.text, operand(event.kind, event.data))
            for event in events
        ]
        if said != recorded:
            expected = f"the events first recorded under key {self._draft.key!r}"
            raise Conflict(self._draft.session_id, expected, "other events")
        return Recorded(self._life, position, 0, 0, None, None, seen=events)

    # The record.

    def _record(self, first: int, prepared: list[Prepared]) -> Recorded:
        draft = self._draft
        position, time_us = self._newest.position + 1, self._now_us()
        rows, projected = self._rows(first, prepared, position)
        self._check_limits(prepared, projected)
        life, origin = self._life, None
        if life is None:
            life, origin = self._bear(time_us, position)
        leaves = [(item.body.kind, item.body.version, item.leaf) for item in prepared]
        hashed = link(self._tip.link, life.uid, first, time_us, leaves, origin)
        last = first + len(prepared) - 1
        batch = (position, life.number, first, last, time_us)
        insert_batch(self._cursor, (*batch, draft.actor, draft.cause, draft.key, hashed))
        insert_events(self._cursor, life, rows)
        project(self._cursor, life, projected)
        self._follow_life(life, prepared)
        insert_checkpoint(self._database, self._cursor, life, last)
        remember_tip(self._database, life, position, Tip(last, time_us, hashed))
        return Recorded(life, position, time_us, first, draft.actor, draft.cause, prepared)

    def _now_us(self) -> int:
        return max(self._draft.clock(), self._newest.time_us, self._tip.time_us + 1)

    def _bear(self, time_us: int, position: int) -> tuple[Life, bytes]:
        draft = self._draft
        uid, salt = os.urandom(16), os.urandom(16)
        birth = Birth(uid, draft.session_id, time_us, None, None, salt)
        number = insert_session(self._cursor, birth, None, position)
        life = Life(number, uid, draft.session_id, time_us, None, 0, position)
        return life, birth.origin(draft.actor, draft.cause)

    def _rows(
        self, first: int, prepared: list[Prepared], position: int
    ) -> tuple[list[Columns], dict[tuple[int, str], Named]]:
        """Return the event rows, and for every name that they touch where it stands after them."""
        rows: list[Columns] = []
        named: dict[tuple[int, str], Named] = {}
        for seq, (body, encoding, data, salt, _) in enumerate(prepared, first):
            base = None
            family = FAMILY.get(body.kind)
            if family is not None and body.name is not None:
                known = named.get((family, body.name))
                before = known.now if known else self._moment.newest(family, body.name)
                self._check_expected(body, before)
                base = before.seq if before else None
                started = known.before if known else before
                now = step(before, seq, body.kind, body.operand)
                named[family, body.name] = Named(started, now, body)
            elif body.operand is not None and body.operand < first:
                self._check_there(body.operand)
            number = kind_number(self._database, self._cursor, body.kind)
            rows.append(
                (seq, number, body.version, body.name, base, body.operand)
                + (encoding, len(body.text), position, salt, data)
            )
        return rows, named

    def _check_expected(self, body: Body, before: Reference | None) -> None:
        if body.expected is ANY:
            return
        actual = before.seq if before and before.created is not None else ABSENT
        if actual != body.expected:
            raise Conflict(self._draft.session_id, body.expected, actual)

    def _check_there(self, seq: int) -> None:
        """A message named by its seq may have gone since a batch under ANY was begun."""
        if self._draft.expect is not ANY or callable(self._draft.say):
            return
        if not self._moment.message_list().holds(self._moment.ordinal(seq)):
            raise Conflict(self._draft.session_id, f"message {seq}", "gone")

    def _check_limits(
        self, prepared: list[Prepared], projected: dict[tuple[int, str], Named]
    ) -> None:
        limits = self._draft.limits
        kinds = {item.body.kind for item in prepared}
        if VARIABLE_SET in kinds:
            growth = sum(
                named.is_there - named.was_there
                for (family, _), named in projected.items()
                if family == VARIABLES
            )
            if growth > 0:
                count = self._moment.count(VARIABLES) + growth
                if count > limits.variables_max:
                    raise TooMany("variables", count, limits.variables_max)
        if METADATA_SET in kinds:
            self._check_metadata(projected)

    def _check_metadata(self, projected: dict[tuple[int, str], Named]) -> None:
        sizes = {
            name: len(found.text or "") for name, found in self._moment.variables(METADATA).items()
        }
        for (family, name), named in projected.items():
            if family == METADATA:
                sizes[name] = len(named.value or b"")
        size_bytes_max = self._draft.limits.metadata_bytes_max
        if sum(sizes.values()) > size_bytes_max:
            raise TooLarge("the metadata of a session", sum(sizes.values()), size_bytes_max)

    def _follow_life(self, life: Life, prepared: list[Prepared]) -> None:
        for body, *_ in prepared:
            if body.kind in ENDINGS:
                set_ended(self._cursor, life, kind_number(self._database, self._cursor, body.kind))
            elif body.kind == SESSION_RESTORED:
                if living(self._database, self._cursor, life.shown) is not None:
                    raise Taken(life.shown)
                set_ended(self._cursor, life, None)


def _content(
    kind: str, name: str | None, text: str | None, operand: int | None
) -> tuple[str, str | None, str | None]:
    """Return what idempotency compares: kind, name, and the text without a deadline."""
    if text is not None and kind == VARIABLE_SET:
        text = value_text(text, operand)
    return kind, name, text


def fork(
    database: Database, draft: Draft, origin: Life, at: int
) -> Life:
    """Bring a session into being that shares the past of another up to `at`; one small commit.

    Raises Taken where the id lives, and Conflict where `at` is not there.
    """
    with database.writing(draft.durability) as cursor:
        if living(database, cursor, draft.session_id) is not None:
            raise Taken(draft.session_id)
        parent = origin.recorder(at)
        head = cached_tip(database, cursor, origin).head
        if at > head:
            raise NoSuchMoment(origin.shown, at, head)
        last = newest(database, cursor)
        position = last.position + 1
        shared = tip_at(cursor, parent, at)
        time_us = max(draft.clock(), last.time_us, shared.time_us + 1)
        uid, salt = os.urandom(16), os.urandom(16)
        birth = Birth(uid, draft.session_id, time_us, parent.uid, at, salt)
        number = insert_session(cursor, birth, parent.number, position)
        life = Life(number, uid, draft.session_id, time_us, parent, at, position)
        born = birth.origin(draft.actor, draft.cause)
        hashed = link(shared.link, uid, at + 1, time_us, (), born)
        batch = (position, number, at + 1, at, time_us, draft.actor, draft.cause, None, hashed)
        insert_batch(cursor, batch)
        copy_metadata(database, cursor, life)
        return life
