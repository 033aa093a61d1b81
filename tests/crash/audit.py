"""An audit that trusts nothing: the log is linked and gap-free, the present what it adds up to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from evstore import Event, Store
from evstore.chain import ZERO, Batch
from evstore.events import ENDINGS, SESSION_RESTORED
from evstore.folding import State, fold


class Life(NamedTuple):
    """One life of a session, as the log tells it."""

    id: str | None
    events: list[Event]
    link: bytes
    time_us: int
    ended: bool


class Present(NamedTuple):
    """What a reader sees of one life."""

    id: str | None
    head: int
    ended: bool
    variables: dict[str, Any]
    metadata: dict[str, Any]
    messages: list[Any]


def all_batches(store: Store) -> list[Batch]:
    """Return the whole log in commit order."""
    found: list[Batch] = []
    while page := store.engine.changes(found[-1].position if found else 0):
        found += page
    return found


def audit(store: Store) -> list[Batch]:
    """Return the whole log after checking that all of the store is sound."""
    batches = all_batches(store)
    assert list(range(1, len(batches) + 1)) == [batch.position for batch in batches]
    assert expected(batches) == presents(store)
    with store.engine.database.snapshot() as cursor:
        assert cursor.execute("pragma integrity_check").get == "ok"
    return batches


def expected(batches: Sequence[Batch]) -> dict[str, Present]:
    """Return what readers must see after these batches; checks their links on the way."""
    return {
        uid: present(life.id, life.ended, fold(life.events)) for uid, life in lives(batches).items()
    }


def present(session_id: str | None, ended: bool, state: State) -> Present:
    """Return what readers must see of a state."""
    return Present(
        session_id,
        state.seq,
        ended,
        state.variables.to_map(),
        state.metadata.to_map(),
        [message.data["message"] for message in state.messages],
    )


def lives(batches: Sequence[Batch]) -> dict[str, Life]:
    """Return every life with its whole log, the shared past of forks included."""
    found: dict[str, Life] = {}
    links: dict[tuple[str, int], tuple[bytes, int]] = {}  # by the last seq of each batch
    for batch in batches:
        uid = batch.uid.hex()
        if batch.birth is not None:
            found[uid] = _born(batch, found, links)
        life = found[uid]
        head = life.events[-1].seq if life.events else 0
        assert head + 1 == batch.first, (uid, batch.position)
        assert batch.continues(life.link) == batch.link, (uid, batch.position)
        assert life.time_us < batch.time_us, (uid, batch.position)
        events = [*life.events, *_events(batch, life.id)]
        ended = life.ended
        for entry in batch.entries:
            ended = entry.kind in ENDINGS or (ended and entry.kind != SESSION_RESTORED)
        found[uid] = Life(life.id, events, batch.link, batch.time_us, ended)
        for event in events[head:]:
            links[uid, event.seq] = (batch.link, batch.time_us)
    return found


def _born(
    batch: Batch, found: dict[str, Life], links: dict[tuple[str, int], tuple[bytes, int]]
) -> Life:
    birth = batch.birth
    assert birth is not None
    if birth.parent_uid is None:
        return Life(birth.id, [], ZERO, 0, ended=False)
    parent, at = found[birth.parent_uid.hex()], birth.fork or 0
    recorder = parent.events[at - 1].uid if at else ""
    link, time_us = links.get((recorder, at), (ZERO, 0))
    return Life(birth.id, parent.events[:at], link, time_us, ended=False)


def _events(batch: Batch, session_id: str | None) -> list[Event]:
    return [
        Event(
            seq,
            batch.position,
            batch.time_us,
            entry.kind,
            entry.name,
            None if entry.text is None else entry.text.decode(),
            batch.actor,
            batch.cause,
            session_id,
            batch.uid.hex(),
        )
        for seq, entry in enumerate(batch.entries, batch.first)
    ]


def presents(store: Store) -> dict[str, Present]:
    """Return what readers see of every life, the ended ones too."""
    found = {}
    for ended in (False, True):
        for info in store.sessions(deleted=ended):
            session = store.session(uid=info.uid)
            found[info.uid] = Present(
                info.id,
                session.head,
                ended,
                dict(session.variables.items()),
                dict(session.metadata.items()),
                list(session.messages),
            )
    return found
