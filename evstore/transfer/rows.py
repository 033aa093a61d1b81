"""Tables of what sessions hold, in columns that any program of data understands.

`sessions`, `messages`, `variables` and `events` are told apart by `uid`, the uid of the session.
Values, messages and data of events are JSON text as it is stored; null is what is absent, or was
forgotten. The shared past of a fork is in its rows as well; `recorder` is the uid that recorded it.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import orjson

from evstore import values
from evstore.events import METADATA, VARIABLES, to_microseconds
from evstore.transfer.chosen import Chosen, messages

Kind = Literal["text", "integer", "time"]  # a time in µs since 1970
Row = tuple[Any, ...]


class Table(NamedTuple):
    """A table: its name, its columns, and what a session has for it."""

    name: str
    columns: tuple[tuple[str, Kind], ...]
    rows: Callable[[Chosen], Iterator[Row]]


def _session(chosen: Chosen) -> Iterator[Row]:
    session, view = chosen
    parent = session.parent
    with view.look() as present:
        metadata = {
            name: None if found.text is None else orjson.Fragment(found.text)
            for name, found in present.variables(METADATA).items()
        }
    yield (
        view.uid,
        view.id,
        view.seq,
        _us(session.created_at),
        _us(view.time),
        parent and parent.uid,
        parent and parent.seq,
        len(view.messages),
        len(view.variables),
        orjson.dumps(metadata).decode(),
        orjson.dumps(view.labels).decode(),
    )


def _messages(chosen: Chosen) -> Iterator[Row]:
    view = chosen.view
    for said in messages(view):
        role = content = text = None
        if said.text is not None:
            message = said.message()
            role, text = message["role"], said.text.decode()
            content = message.get("content")
        if type(content) is not str:
            content = None
        known = (view.uid, view.id, said.number, said.seq, said.time_us, said.actor)
        yield (*known, role, content, text)


def _variables(chosen: Chosen) -> Iterator[Row]:
    view = chosen.view
    with view.look() as present:
        found = present.variables(VARIABLES)
    for name, variable in found.items():
        with view.place.look() as past:
            facts = past.facts(variable.seq)
        kind = None if variable.text is None else values.type_name(variable.text)
        known = (view.uid, view.id, name, variable.seq, facts.time_us, facts.actor)
        yield (*known, variable.operand, kind, variable.text)


def _events(chosen: Chosen) -> Iterator[Row]:
    view = chosen.view
    for event in view.events():
        said = (event.kind, event.name, event.actor, event.cause)
        place = (view.uid, view.id, event.seq, event.position, event.time_us)
        yield (*place, *said, event.uid, event.text)


def _us(time: Any) -> int | None:
    return None if time is None else to_microseconds(time)


_WHOSE: tuple[tuple[str, Kind], ...] = (("uid", "text"), ("session", "text"))
TABLES = (
    Table(
        "sessions",
        (
            *_WHOSE,
            ("seq", "integer"),
            ("created", "time"),
            ("time", "time"),
            ("parent", "text"),
            ("fork", "integer"),
            ("messages", "integer"),
            ("variables", "integer"),
            ("metadata", "text"),
            ("labels", "text"),
        ),
        _session,
    ),
    Table(
        "messages",
        (
            *_WHOSE,
            ("number", "integer"),
            ("seq", "integer"),
            ("time", "time"),
            ("actor", "text"),
            ("role", "text"),
            ("content", "text"),
            ("message", "text"),
        ),
        _messages,
    ),
    Table(
        "variables",
        (
            *_WHOSE,
            ("name", "text"),
            ("seq", "integer"),
            ("time", "time"),
            ("actor", "text"),
            ("expires", "time"),
            ("type", "text"),
            ("value", "text"),
        ),
        _variables,
    ),
    Table(
        "events",
        (
            *_WHOSE,
            ("seq", "integer"),
            ("position", "integer"),
            ("time", "time"),
            ("kind", "text"),
            ("name", "text"),
            ("actor", "text"),
            ("cause", "text"),
            ("recorder", "text"),
            ("data", "text"),
        ),
        _events,
    ),
)
