"""The present, made anew from the log, and fingerprinted."""

from hashlib import sha256

import orjson

from evstore import values
from evstore.errors import SessionNotFound
from evstore.session import Session
from evstore.sqlite.finding import Finding
from evstore.store import Store


def rebuild(store: Store, session: Session | str | None = None) -> list[Finding]:
    """Make the present and the checkpoints what the log says; return what was not so.

    The log is only read. Others read and write meanwhile: only rows that differ are written, a few
    at a time, so that a sound store costs no write. An index of words is made anew where it holds
    other messages than the log. With a session (or the id of a living one) only that and the
    ancestors whose past it shares. Where the log itself is damaged, that is a Finding as well.

    Raises SessionNotFound, ReadOnly, Busy and Unavailable.
    """
    if session is None:
        return store.engine.rebuild()
    if isinstance(session, str):
        session = store.session(session, create=False)
    life, _ = store.engine.find_uid(bytes.fromhex(session.uid or ""))
    if life is None:
        raise SessionNotFound(session.id)
    return store.engine.rebuild(life)


def fingerprint(store: Store) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of the present of all living sessions.

    It covers id, head, variables, metadata and messages, as they are read through the projection.
    """
    digest = sha256()
    for info in store.sessions():
        session = store.session(uid=info.uid)
        view = session.view()
        present = [
            info.id,
            view.seq,
            [[name, values.encode(value).decode()] for name, value in view.variables.items()],
            [[name, values.encode(value).decode()] for name, value in view.metadata.items()],
        ]
        digest.update(orjson.dumps(present))
        for message in view.messages:
            digest.update(values.encode(message) + b"\n")
    return digest.hexdigest()
