"""What calls give back: what is known of sessions and stores, and what was found in them."""

from datetime import datetime

import attrs

from evstore.sqlite.lives import Life


@attrs.frozen
class Parent:
    """Where a fork comes from: the life that recorded its fork point, and that sequence."""

    id: str | None
    uid: str
    seq: int


def parent_of(life: Life | None) -> Parent | None:
    """Return where a life was forked from, if it was."""
    if life is None or life.parent is None:
        return None
    return Parent(life.parent.id, life.parent.uid.hex(), life.fork)


@attrs.frozen
class SessionInfo:
    """What a listing tells about a session: `messages` and `variables` are counts."""

    id: str | None
    uid: str
    head: int
    created_at: datetime
    updated_at: datetime
    parent: Parent | None
    messages: int
    variables: int
    expires_at: datetime | None


@attrs.frozen
class Hit:
    """A message that a search found: where it stands in its session, and the words around it.

    `seq` is the event that carries it, `index` its place in the list of messages; in the snippet
    the words that match stand in brackets. The greater the `score`, the better.
    """

    session: str | None
    seq: int
    index: int
    snippet: str
    score: float


@attrs.frozen
class Gain:
    """What a compaction gained: events encoded anew, and the size of the file before and after."""

    events: int
    before_bytes: int
    after_bytes: int


@attrs.frozen
class Stats:
    """How much a store holds; `text_bytes` is before encoding, `data_bytes` after.

    A session counts as ended from its deadline on, swept or not.
    """

    path: str
    sessions: int
    ended: int
    batches: int
    events: int
    text_bytes: int
    data_bytes: int
    file_bytes: int
    free_bytes: int
    wal_bytes: int
