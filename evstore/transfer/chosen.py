"""What an export shows: the sessions that are asked for, each as it was at one moment.

Values leave as the JSON text that is stored, and no code of the application runs. A type that JSON
lacks is a tagged object there (`{"$bytes": …}`, `{"$tuple": …}`, `{"$float": "nan"}`), which any
reader of JSON can tell.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

import orjson

from evstore.errors import SessionNotFound
from evstore.events import ENDINGS
from evstore.messages import PAGE_MESSAGES
from evstore.moments import When, of_all
from evstore.session import Session
from evstore.store import Store
from evstore.transfer.conversations import Reported
from evstore.view import View

Report = Callable[[Reported], None]


class Chosen(NamedTuple):
    """A session and the moment at which it leaves."""

    session: Session
    view: View

    @property
    def name(self) -> str:
        """Its id, or its uid where the id was forgotten."""
        return self.view.id or self.view.uid or ""


class Said(NamedTuple):
    """A message of the list: its place, the event that carries it, and its text as stored."""

    number: int
    seq: int
    time_us: int | None
    actor: str | None
    text: bytes | None  # None where it was forgotten

    def message(self) -> dict[str, Any]:
        """Return the message in JSON's types, with tags only for what plain JSON cannot say.

        A key of its own that is no text stands there as its JSON text.
        """
        plain: dict[str, Any] = orjson.loads(self.text or b"{}")
        if self.text is not None and b'{"$' in self.text:
            plain = _plain(plain)
            if (*plain,) == ("$dict",):
                plain = {_key(key): _plain(value) for key, value in plain["$dict"]}
        return plain


def chosen(
    store: Store, session: Session | str | None = None, at: When | None = None
) -> Iterator[Chosen]:
    """Yield one session, or all that live; with `at`, as it was, or as they were, at that moment.

    All sessions have only times in common: those are shown that lived at an aware datetime.
    Raises SessionNotFound, NoSuchMoment and Refused.
    """
    if session is not None:
        found = store.session(session, create=False) if isinstance(session, str) else session
        if found.uid is None:
            raise SessionNotFound(found.id)
        yield Chosen(found, found.view() if at is None else found.at(at))
    elif at is None:
        for info in store.sessions():
            with suppress(SessionNotFound):  # It has ended meanwhile.
                found = store.session(uid=info.uid)
                yield Chosen(found, found.view())
    else:
        yield from _lived(store, of_all(at))


def _lived(store: Store, at: datetime) -> Iterator[Chosen]:
    for info in chain(store.sessions(), store.sessions(deleted=True)):
        if info.created_at > at:
            continue
        with suppress(SessionNotFound):
            found = store.session(uid=info.uid)
            view = found.at(at)
            newest = next(view.events(view.seq - 1), None)
            if newest is None or newest.uid != info.uid or newest.kind not in ENDINGS:
                yield Chosen(found, view)


def messages(view: View) -> Iterator[Said]:
    """Yield the messages of a view in their order, read in pages."""
    start, length = 0, PAGE_MESSAGES
    while length == PAGE_MESSAGES:
        with view.place.look() as present:
            page = present.messages(start, start + PAGE_MESSAGES)
            facts = [present.facts(seq) for seq, _ in page]
        for number, ((seq, text), known) in enumerate(zip(page, facts, strict=True), start):
            stored = None if text is None else json_text(orjson.loads(text)["message"])
            yield Said(number, seq, known.time_us, known.actor, stored)
        length = len(page)
        start += length


def json_text(value: Any) -> bytes:
    """Return the text of a value in JSON's types, however deep tags have nested it."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _plain(stored: Any) -> Any:
    """Return a stored value with its dicts as objects where all of their keys are texts."""
    if type(stored) is list:
        return [_plain(item) for item in stored]
    if type(stored) is not dict:
        return stored
    if len(stored) == 1 and next(iter(stored)).startswith("$"):
        try:
            members = dict(stored["$dict"])
        except (KeyError, TypeError, ValueError):  # Another tag, or keys that are no texts.
            return stored
        if not all(type(key) is str for key in members):
            return stored
        stored = members
    return {key: _plain(item) for key, item in stored.items()}


def _key(key: Any) -> str:
    return key if type(key) is str else json_text(key).decode()


def forgotten(chosen: Chosen, said: Said) -> Reported:
    """Return the report of a message whose content is no more."""
    return Reported(chosen.name, f"message {said.number}", "it was forgotten, and is left out")
