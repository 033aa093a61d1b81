"""Batches recorded elsewhere enter the log as they are, with their uids, times, salts and links."""

from collections.abc import Iterable
from typing import Any

import orjson

from evstore.chain import UNLINKED, ZERO, Batch, Entry
from evstore.errors import Corrupt, FromTheFuture, Refused, Taken
from evstore.events import (
    BODIES,
    FAMILY,
    KINDS,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    OPERANDS,
    SETS,
    TIME_US_MAX,
    Body,
    value_text,
)
from evstore.evolution import is_application_kind, known_version
from evstore.sqlite import payload
from evstore.sqlite.database import Cursor, Database, Durability
from evstore.sqlite.deltas import Encoded
from evstore.sqlite.insert import (
    Prepared,
    cached_edge,
    insert,
    insert_session,
    lay_out,
    newest_position,
    tip_at,
)
from evstore.sqlite.lives import Life, by_uid
from evstore.sqlite.read import Moment

WHAT_IS_ADOPTED = "what is imported"  # where it is damaged, and not the store itself


def adopt(
    database: Database,
    batches: Iterable[Batch],
    durability: Durability,
    after: int | None = None,
) -> tuple[int, int]:
    """Append batches in their order, in one transaction; return how many batches and events.

    A batch that is there already is passed over. With `after` the store has to end at that
    position. Raises Taken where a uid has another log or an id belongs to another life, Refused
    where something before a batch is missing, and Corrupt where a batch is not what its link says.
    """
    batch_count = event_count = 0
    with database.writing(durability) as cursor:
        position = newest_position(database, cursor)
        if after is not None and position != after:
            raise Refused(f"the store went on to {position}: add to one that nobody else writes")
        for batch in batches:
            if not batch.entries and (batch.birth is None or batch.key is not None):
                raise _damaged(batch, "a batch without events is no birth, or has a key")
            life = by_uid(database, cursor, batch.uid)
            if life is not None and _is_there(database, cursor, life, batch):
                continue
            position += 1
            _take(database, cursor, life, batch, position)
            batch_count += 1
            event_count += len(batch.entries)
    return batch_count, event_count


def _is_there(database: Database, cursor: Cursor, life: Life, batch: Batch) -> bool:
    head = cached_edge(database, cursor, life).head
    if batch.first > head and batch.entries:
        return False
    position = life.position
    if batch.entries and batch.first > life.fork:
        position = cursor.execute(
            "select position from event where id = ?", (life.event_id(batch.first),)
        ).get
    link = cursor.execute("select link from batch where position = ?", (position,)).get
    if link != batch.link:
        raise Taken(life.shown)
    return True


def _take(
    database: Database, cursor: Cursor, life: Life | None, batch: Batch, position: int
) -> None:
    prepared = _prepare(batch)
    parent = None
    if life is not None:
        end = cached_edge(database, cursor, life)
        head, previous, time_us = end.head, end.link, end.time_us
    else:
        parent = _parent(database, cursor, batch)
        head = (batch.birth and batch.birth.fork) or 0
        shared = tip_at(cursor, parent, head) if parent else None
        previous, time_us = (shared.link, shared.time_us) if shared else (ZERO, 0)
    if batch.first != head + 1 or (batch.birth is None) != (life is not None):
        raise Refused(
            f"session {batch.uid.hex()} ends at {head} and its next batch begins at {batch.first}: "
            "import what lies between first"
        )
    link = batch.continues(previous)
    if batch.link not in (link, UNLINKED) or batch.time_us <= time_us:
        raise _damaged(batch, "a batch is not what its link says")
    if life is not None and batch.key is not None:
        known = "select 1 from batch where session = ? and key = ?"
        if cursor.execute(known, (life.number, batch.key)).get:
            raise _damaged(batch, "its key is that of another batch")
    if life is None:
        assert batch.birth is not None
        life = insert_session(database, cursor, batch.birth, parent, position)
    moment = Moment(database, cursor, life)
    _check_targets(moment, batch, prepared)
    layout = lay_out(database, cursor, moment, position, batch.first, prepared)
    who = (batch.actor, batch.cause, batch.key)
    insert(database, cursor, life, layout, batch.time_us, who, link)


def _check_targets(moment: Moment, batch: Batch, prepared: list[Prepared]) -> None:
    """What removes or replaces a message has to name the event that carries one."""
    for body, *_ in prepared:
        if body.kind not in (MESSAGE_REMOVED, MESSAGE_REPLACED) or body.operand is None:
            continue
        inside = body.operand - batch.first
        kind = batch.entries[inside].kind if inside >= 0 else moment.kind_at(body.operand)
        if kind not in BODIES:
            raise _damaged(batch, f"sequence {body.operand} carries no message to remove")


def _parent(database: Database, cursor: Cursor, batch: Batch) -> Life | None:
    if batch.birth is None:
        raise Refused(
            f"session {batch.uid.hex()} comes without its birth: import it from its start"
        )
    if batch.birth.parent_uid is None:
        return None
    parent = by_uid(database, cursor, batch.birth.parent_uid)
    fork = batch.birth.fork or 0
    if parent is None or fork > cached_edge(database, cursor, parent).head:
        raise Refused(
            f"session {batch.uid.hex()} continues {batch.birth.parent_uid.hex()} at {fork}, which "
            "is not there: import that first"
        )
    return parent


def _prepare(batch: Batch) -> list[Prepared]:
    return [_prepared(batch, seq, entry) for seq, entry in enumerate(batch.entries, batch.first)]


def _prepared(batch: Batch, seq: int, entry: Entry) -> Prepared:
    if entry.kind not in KINDS and not is_application_kind(entry.kind):
        raise _damaged(batch, f"an event has the unknown kind {entry.kind!r}")
    if entry.kind in KINDS and entry.version > known_version(entry.kind):
        raise FromTheFuture("what is imported", entry.version, known_version(entry.kind))
    if entry.text is None:
        if entry.leaf is None:
            raise _damaged(batch, "an event has neither data nor a leaf")
        body = Body(entry.kind, None, b"", None, entry.version)
        return body, Encoded(payload.FORGOTTEN, entry.leaf), None, b""
    if (entry.kind in FAMILY) != (entry.name is not None) or entry.salt is None:
        raise _damaged(batch, "an event has a name and needs none, or the other way round")
    body = Body(entry.kind, entry.name, entry.text, _operand(batch, seq, entry), entry.version)
    encoded = Encoded(*payload.pack(entry.text))
    return body, encoded, entry.salt, b""  # The link is known, and needs no hash here.


def _operand(batch: Batch, seq: int, entry: Entry) -> int | None:
    """Return the number that the fold needs, after a look at the shape of the data."""
    try:
        data = orjson.loads(entry.text or b"")
    except ValueError:
        raise _damaged(batch, "the data of an event is not JSON") from None
    if entry.kind not in KINDS:
        return None
    if type(data) is not dict:
        raise _damaged(batch, f"the data of a {entry.kind} is no object")
    if entry.kind in BODIES and not _is_message(data.get("message")):
        raise _damaged(batch, f"a {entry.kind} carries no message with a role")
    number = data.get(OPERANDS.get(entry.kind, ""))
    if entry.kind in SETS.values():
        if not _is_set(entry.text or b"", number):
            raise _damaged(batch, f"the data of a {entry.kind} is not a value and its deadline")
    elif entry.kind in OPERANDS and (type(number) is not int or not 0 <= number < seq):
        raise _damaged(batch, f"the {OPERANDS[entry.kind]} of a {entry.kind} is not in its past")
    return number


def _is_message(stored: Any) -> bool:
    """Tell whether a stored value is a dict with a text as its role, whatever its other keys."""
    if type(stored) is not dict:
        return False
    if (*stored,) == ("$dict",):
        try:
            roles = [type(value) for key, value in stored["$dict"] if key == "role"]
        except (TypeError, ValueError):
            return False
        return roles == [str]
    return type(stored.get("role")) is str


def _is_set(text: bytes, deadline: Any) -> bool:
    """Tell whether a text is `{"value":…}`, or that with its deadline, and nothing else."""
    end = b"}"
    if deadline is not None:
        if type(deadline) is not int or not 0 <= deadline <= TIME_US_MAX:
            return False
        end = b',"expires_at":%d}' % deadline
    try:
        orjson.loads(value_text(text, deadline))
    except ValueError:
        return False
    return text.startswith(b'{"value":') and text.endswith(end)


def _damaged(batch: Batch, reason: str) -> Corrupt:
    return Corrupt(WHAT_IS_ADOPTED, reason, batch.uid.hex(), batch.first)
