"""How events, values and messages are shown: exact to a program, folded to one line to a person."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from rich.text import Text

from evstore import values
from evstore.cli import terminal
from evstore.cli.terminal import Column, Folded, Row, harmless, json_line, stored
from evstore.events import ERASED, Event, from_microseconds

_STYLES = {"variable": "cyan", "metadata": "blue", "message": "green", "messages": "green"}
LOG_COLUMNS = (
    Column("seq", 6, right=True),
    Column("time", 8, style="dim"),
    Column("by", 9),
    Column("kind", 17),
    Column("what happened"),
)
STORE_LOG_COLUMNS = (Column("session", 16), *LOG_COLUMNS)
_NEW_LINES = re.compile(r"\s*\n\s*")
_RECENT = timedelta(days=1)


def text_of(value: Any) -> bytes:
    """Return the stored JSON text of a value; what was forgotten is null."""
    return b"null" if value is ERASED else values.encode(value)


def event_line(event: Event) -> bytes:
    """Return all of an event as one line of JSON, its data as stored."""
    return json_line(
        {
            "seq": event.seq,
            "position": event.position,
            "time": event.time,
            "kind": event.kind,
            "name": event.name,
            "data": stored(event.text),
            "actor": event.actor,
            "cause": event.cause,
            "session": event.session,
            "uid": event.uid,
        }
    )


def event_rows(
    events: Iterable[Event], *, of_store: bool = False, now: datetime | None = None
) -> Iterator[Row]:
    """Yield a row for each event, and a heading wherever the day is another.

    The events of one batch show their time and actor once; those of a store begin with their
    session. Where it is known what time it is `now`, recent events show their age.
    """
    day, position = None, None
    for event in events:
        if event.time.date() != day:
            day = event.time.date()
            yield Text(f"{day} UTC", "bold")
        is_first = event.position != position
        position = event.position
        kind = Text(harmless(event.kind), _STYLES.get(event.kind.split(".")[0], "magenta"))
        session = [event.session or "(forgotten)"] if of_store else []
        yield [
            *session,
            str(event.seq),
            _time(event.time, now) if is_first else "",
            said_by(event) if is_first else "",
            kind,
            told_event(event),
        ]


def _time(time: datetime, now: datetime | None) -> str:
    if now is not None and timedelta() <= now - time < _RECENT:
        return terminal.age(time, now)
    return f"{time:%H:%M:%S}"


def said_by(event: Event) -> Text:
    """Return who said an event, and why."""
    by = Text(harmless((event.actor or "")[: terminal.CELL_CHARACTERS_MAX]))
    if event.cause is not None:
        cause = harmless(event.cause[: terminal.CELL_CHARACTERS_MAX])
        by.append(f"{' ' if by else ''}{cause}", "dim")
    return by


def told_event(event: Event) -> Folded:
    """Return for a cell what an event says, and its size."""
    words = (part[: terminal.CELL_CHARACTERS_MAX] for part in _happened(event))
    subject, rest = map(harmless, words)
    return Folded(Text.assemble((subject, "bold"), rest), len((event.text or "").encode()))


def _happened(event: Event) -> tuple[str, str]:
    """Return what an event is about, a name or a role, and what it says of it."""
    if event.text is None:
        return "", "(forgotten)"
    data = event.data
    match event.kind.split("."):
        case ["app", *_]:
            return "", event.text
        case [_, "set"]:
            until = data.get("expires_at")
            end = "" if until is None else f" until {terminal.moment(from_microseconds(until))}"
            value = _folded(data.get("value", data.get("at")))
            return event.name or "", f" = {value}{end}"
        case [_, "added"]:
            return said_parts(data["message"])
        case [_, "replaced"]:
            return f"{data['seq']} by ", said(data["message"])
        case [_, "removed"]:
            return "", f"message {data['seq']}"
        case [_, "reverted"]:
            return "", f"to {data['to']}"
    return event.name or "", ""


def said(message: Any) -> str:
    """Return a message in one line: its role, its content, and what else it carries."""
    return "".join(said_parts(message))


def said_parts(message: Any) -> tuple[str, str]:
    """Return the role of a message, and in one line its content and what else it carries."""
    content, rest = parts(message)
    content = _NEW_LINES.sub(" ↵ ", content)
    return f"{message.get('role')}", f": {content}{' ' if content and rest else ''}{rest}"


def told_message(message: Any) -> Folded:
    """Return a message for a line of its own, or what is left of one that was forgotten."""
    if message is ERASED:
        return Folded(Text("(forgotten)", "dim"), 0)
    role, rest = (harmless(part[: terminal.CELL_CHARACTERS_MAX]) for part in said_parts(message))
    return Folded(Text.assemble((role, "bold"), rest), len(text_of(message)))


def told_value(value: Any, text: str | None = None) -> Folded:
    """Return a value for a cell: as its JSON, or as the text that is given for it."""
    exact = text_of(value)
    shown = exact.decode() if text is None else text
    return Folded(Text(harmless(shown[: terminal.CELL_CHARACTERS_MAX])), len(exact))


def parts(message: dict[str, Any]) -> tuple[str, str]:
    """Return the content of a message as text, and the rest of it as JSON (or nothing)."""
    rest = {name: item for name, item in message.items() if name not in ("role", "content")}
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        content = _folded(content)
    return content or "", _folded(rest) if rest else ""


def _folded(value: Any) -> str:
    return text_of(value).decode()


def one_line(value: Any) -> str:
    """Return a value in one line: text as it is, everything else as its JSON."""
    return value if isinstance(value, str) else _folded(value)
