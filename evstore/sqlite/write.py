"""The append path: what is said becomes a batch of the log, or nothing does.

body → encode → compress → BEGIN IMMEDIATE → key seen? → head == expect? → limits → link → INSERT →
project → COMMIT → Events. Whatever is pure is done before the lock.
"""

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from evstore.chain import Birth, leaf, link, linked, said_by
from evstore.deadlines import Lease, Ttl, lease_after
from evstore.errors import (
    Conflict,
    NoSuchMoment,
    TooLarge,
    TooMany,
)
from evstore.events import (
    ABSENT,
    ANY,
    FAMILY,
    METADATA,
    METADATA_SET,
    SESSION_EXPIRED,
    VARIABLE_SET,
    VARIABLES,
    Body,
    Later,
    Said,
    Sentinel,
    mark,
    operand,
    to_microseconds,
    value_text,
)
from evstore.limits import Limits
from evstore.sqlite import chains
from evstore.sqlite.database import Cursor, Database, Durability
from evstore.sqlite.insert import (
    Layout,
    Prepared,
    cached_edge,
    cached_standing,
    insert,
    insert_session,
    lay_out,
    newest_position,
    put_lease,
    tip_at,
)
from evstore.sqlite.lives import UNBORN, Life, holder
from evstore.sqlite.log import batch_events
from evstore.sqlite.payload import ZSTD_FROM_BYTES
from evstore.sqlite.read import Moment
from evstore.sqlite.recorded import Recorded
from evstore.sqlite.salts import salt
from evstore.state import is_there

Decision = Callable[[Moment], Said]
_linked_of = itemgetter(3)  # of what is prepared
_SEEN = "select position from batch where session = ? and key = ?"


class Terms(NamedTuple):
    """What all batches have in common that one handle says to a session.

    `birth` are the bodies that go first in the batch that brings the session into being, and
    `birth_ttl` says how long it lives then; `ttl` says so of any session.
    """

    session_id: str
    limits: Limits
    durability: Durability
    clock: Callable[[], int]
    actor: str | None = None
    birth: Sequence[Body] = ()
    birth_ttl: Ttl | None = None
    ttl: Ttl | None = None


class Draft:
    """What one batch is to say, by whom and on what condition, on its way into the log.

    `say` is either the bodies or a function that decides on them under the lock. `revives` is for
    the return of a life that is over. What can be done before the lock is done by `prepare`, and
    the rest by `record`, once or more often.
    """

    __slots__ = (
        "_birth",
        "_database",
        "_prepared",
        "_said_by",
        "actor",
        "cause",
        "expect",
        "key",
        "life",
        "revives",
        "say",
        "terms",
    )

    def __init__(
        self,
        terms: Terms,
        life: Life | None,
        say: Said | Decision,
        actor: str | None = None,
        cause: str | None = None,
        key: str | None = None,
        expect: int | Sentinel = ANY,
        *,
        revives: bool = False,
    ) -> None:
        self.terms = terms
        self.life = life
        self.say = say
        self.actor = terms.actor if actor is None else actor
        self.cause = cause
        self.key = key
        self.expect = expect
        self.revives = revives

    def prepare(self, database: Database) -> None:
        """Do what can be done before the lock: encode and hash the bodies."""
        self._database = database
        self._said_by = said_by(self.actor, self.cause, self.key)
        birth, say = self.terms.birth, self.say
        self._birth = self._ready(None, birth) if birth else ()
        self._prepared = None if callable(say) else self._ready(self.life, say)

    def _ready(self, life: Life | None, bodies: Said) -> list[Any]:
        """Return bodies as far as they are known, with a salt, encoded and hashed."""
        prepared: list[Prepared | Later] = []
        for body in bodies:
            if callable(body):
                prepared.append(body)
                continue
            kind, text, salted = body.kind, body.text, salt()
            hashed = linked(kind, body.version, leaf(salted, kind, body.name, text, self._said_by))
            is_short = len(text) < ZSTD_FROM_BYTES  # and is stored as it is
            encoded = None if is_short else chains.encode(self._database, life, body)
            prepared.append((body, encoded, salted, hashed))
        return prepared

    def record(self, cursor: Cursor) -> Recorded:
        """Return the batch as recorded: newly, before under the same key, or not at all.

        Raises Conflict, SessionNotFound, TooMany and TooLarge.
        """
        database, life, now_us = self._database, self.life, self.terms.clock()
        if life is None or self.revives:
            life, lease = _find_life(database, cursor, self, now_us)
        else:
            now = cached_standing(database, cursor, life)
            lease = now.lease
            if lease is not None or now.ended is not None:
                now.check(self.terms.session_id, now_us)
        return self.go_on(cursor, life, lease, now_us)

    def record_alone(self, cursor: Cursor) -> list[Recorded]:
        """Return the batch as recorded, as the only one of its commit."""
        return [self.record(cursor)]

    def go_on(
        self, cursor: Cursor, life: Life | None, lease: Lease | None, now_us: int
    ) -> Recorded:
        """Go on where it is known which life it is, if any."""
        database, prepared = self._database, self._prepared
        position = newest_position(database, cursor) + 1
        before = UNBORN if life is None else cached_edge(database, cursor, life)
        # A batch may have to be later than the clock, which alone tells what has expired.
        time_us = max(now_us, database.current.time_us, before.time_us + 1)
        moment = Moment(database, cursor, life, None, now_us)
        if self.key is not None and life is not None:
            seen = cursor.execute(_SEEN, (life.number, self.key)).get
            if seen is not None:
                return self._same(cursor, life, seen, prepared or [])
        if self.expect is not ANY and self.expect != before.head:
            raise Conflict(self.terms.session_id, self.expect, before.head)
        if prepared is None:
            assert callable(self.say)
            prepared = self._ready(life, self.say(moment))
        if not prepared:
            return Recorded(life)
        first = before.head + 1
        said_from = first + len(self._birth) if life is None else first
        if any(map(callable, prepared)):
            prepared = self._resolved(life, prepared, said_from)
        if life is None:
            prepared = [*self._birth, *prepared]
        layout = lay_out(database, cursor, moment, position, first, prepared)
        if layout.expecting:
            self._check_expected(layout, said_from)
        if layout.targets and not callable(self.say):
            self._check_targets(layout)
        if layout.named:
            self._check_limits(layout, now_us)
        return self._insert(cursor, layout, before.link, lease, time_us, prepared)

    def _insert(
        self,
        cursor: Cursor,
        layout: Layout,
        previous: bytes,
        lease: Lease | None,
        time_us: int,
        prepared: list[Prepared],
    ) -> Recorded:
        life, origin, position, first = layout.life, None, layout.position, layout.first
        if life is None:
            life, origin = self._bear(cursor, position, time_us)
        hashed = link(previous, life.uid, first, time_us, [*map(_linked_of, prepared)], origin)
        begins = origin is not None or self.revives
        if begins or lease is not None or self.terms.ttl is not None:
            _renew(self._database, cursor, self.terms, life, lease, begins=begins)
        who = (self.actor, self.cause, self.key)
        insert(self._database, cursor, life, layout, time_us, who, hashed)
        return Recorded(life, position, time_us, first, self.actor, self.cause, prepared)

    def _resolved(self, life: Life | None, items: Sequence[Any], first: int) -> list[Prepared]:
        """Return all as bodies, now that it is known at which seq they begin."""
        return [
            *chain.from_iterable(
                self._ready(life, [item(first)]) if callable(item) else [item] for item in items
            )
        ]

    def _same(self, cursor: Cursor, life: Life, position: int, prepared: Sequence[Any]) -> Recorded:
        """Return what was recorded before under the same key, if it says the same."""
        events = batch_events(self._database, cursor, life, position)
        front = max(len(events) - len(prepared), 0)
        kinds = {event.kind for event in events[:front]}
        if position != life.position or not kinds <= {METADATA_SET}:
            front = 0  # Only at a birth metadata goes in front, and is ignored later.
        bodies = [body for body, *_ in self._resolved(life, prepared, events[0].seq + front)]
        said = [_content(body.kind, body.name, body.text.decode(), body.operand) for body in bodies]
        recorded = [
            _content(event.kind, event.name, event.text, operand(event)) for event in events[front:]
        ]
        if said != recorded:
            expected = f"the events first recorded under key {self.key!r}"
            remedy = "use another key for other events"
            raise Conflict(self.terms.session_id, expected, "other events", None, remedy)
        return Recorded(life, position, seen=events)

    def _bear(self, cursor: Cursor, position: int, time_us: int) -> tuple[Life, bytes]:
        session_id = self.terms.session_id
        birth = Birth(os.urandom(16), session_id, time_us, None, None, salt())
        life = insert_session(self._database, cursor, birth, None, position)
        return life, birth.origin(self.actor, self.cause)

    def _check_expected(self, layout: Layout, said_from: int) -> None:
        """Each name has to stand where its body expects it, before the birth if that is now."""
        for body, before in layout.expecting:
            actual: int | Sentinel = ABSENT
            is_seen = layout.life is not None or (before is not None and before.seq >= said_from)
            if before and is_seen and is_there(FAMILY[body.kind], before, layout.moment.now_us):
                actual = before.seq
            expected = body.expected
            if isinstance(expected, int) and expected < 0:  # an event of this very batch
                expected = said_from - expected - 1
            if actual != expected:
                raise Conflict(self.terms.session_id, body.expected, actual, body.name)

    def _check_targets(self, layout: Layout) -> None:
        """A message named by its seq may have gone since the batch was begun."""
        moment = layout.moment
        for seq in layout.targets:
            if seq < layout.first and not moment.message_list().holds(moment.ordinal(seq)):
                raise Conflict(self.terms.session_id, f"message {seq}", "gone")

    def _check_limits(self, layout: Layout, now_us: int) -> None:
        limits, moment = self.terms.limits, layout.moment
        kinds = {named.body.kind for named in layout.named.values()}
        if VARIABLE_SET in kinds:
            growth = layout.growth(VARIABLES, now_us)
            count = moment.count(VARIABLES) + growth if growth > 0 else 0
            if count > limits.variables_max:
                raise TooMany("variables", count, limits.variables_max)
        if METADATA_SET in kinds:
            size_bytes = _metadata_bytes(layout)
            if size_bytes > limits.metadata_bytes_max:
                what = "the metadata of a session"
                raise TooLarge(what, size_bytes, limits.metadata_bytes_max)


def prepare(database: Database, drafts: Sequence[Draft]) -> Callable[[Cursor], list[Recorded]]:
    """Return the work that appends batches at consecutive positions, once the lock is held."""
    for draft in drafts:
        draft.prepare(database)
    return drafts[0].record_alone if len(drafts) == 1 else partial(_record, drafts)


def _record(drafts: Sequence[Draft], cursor: Cursor) -> list[Recorded]:
    return [draft.record(cursor) for draft in drafts]


def _find_life(
    database: Database, cursor: Cursor, draft: Draft, now_us: int
) -> tuple[Life | None, Lease | None]:
    """Return the life that has the id of a draft, and its lease; without a life it is a birth.

    A life whose deadline has passed gives its id up first, and so it does for one that revives.
    """
    current = holder(database, cursor, draft.terms.session_id)
    lease = cached_standing(database, cursor, current).lease if current else None
    if current is not None and lease is not None and lease.expires_us <= now_us:
        expire(database, cursor, draft.terms, current, draft.actor)
        current = lease = None
    return (draft.life, None) if draft.life else (current, lease)


def expire(database: Database, cursor: Cursor, terms: Terms, life: Life, actor: str | None) -> None:
    """Record that the deadline of a life has passed, which frees its id."""
    own = Terms(life.shown, terms.limits, terms.durability, terms.clock)
    ending = Draft(own, life, [mark(SESSION_EXPIRED)], actor)
    ending.prepare(database)
    ending.go_on(cursor, life, None, terms.clock())


def _metadata_bytes(layout: Layout) -> int:
    sizes = {
        name: len(name.encode()) + len((found.text or "").encode())
        for name, found in layout.moment.variables(METADATA).items()
    }
    for (family, name), named in layout.named.items():
        if family == METADATA:
            sizes[name] = 0 if named.value is None else len(name.encode()) + len(named.value)
    return sum(sizes.values())


def _renew(
    database: Database,
    cursor: Cursor,
    terms: Terms,
    life: Life,
    lease: Lease | None,
    *,
    begins: bool,
) -> None:
    """Write down how long a session lives from now on, where that changes."""
    ttl = terms.birth_ttl if begins and terms.ttl is None else terms.ttl
    if ttl is None and lease is None:
        return
    now_us = terms.clock()
    if lease is not None and isinstance(ttl, datetime) and to_microseconds(ttl) <= now_us:
        ttl = None  # Another handle has moved the deadline that this one has given.
    renewed = lease_after(lease, ttl, now_us)
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
    terms, who = draft.terms, (draft.actor, draft.cause, None)
    with database.writing(terms.durability) as cursor:
        _find_life(database, cursor, draft, terms.clock())
        position = newest_position(database, cursor) + 1
        parent = origin.recorder(at)
        head = cached_edge(database, cursor, origin).head
        if at > head:
            raise NoSuchMoment(origin.shown, at, head)
        shared = tip_at(cursor, parent, at)
        time_us = max(terms.clock(), database.current.time_us, shared.time_us + 1)
        birth = Birth(os.urandom(16), terms.session_id, time_us, parent.uid, at, salt())
        life = insert_session(database, cursor, birth, parent, position)
        born = birth.origin(draft.actor, draft.cause)
        hashed = link(shared.link, life.uid, at + 1, time_us, (), born)
        layout = Layout(database, Moment(database, cursor, life), position, at + 1)
        insert(database, cursor, life, layout, time_us, who, hashed)
        _renew(database, cursor, terms, life, None, begins=True)
        return life
