"""How events, values and messages are shown: exact to a program, folded to one line to a person."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.text import Text

from evstore import values
from evstore.cli.terminal import Column, harmless, json_line, size, stored
from evstore.events import ERASED, Event

_STYLES = {"variable": "cyan", "metadata": "blue", "message": "green", "messages": "green"}
LOG_COLUMNS = (
    Column("seq", 6, right=True),
    Column("time", 8, style="dim"),
    Column("kind", 17),
    Column("what happened"),
    Column("size", 9, right=True, style="dim"),
)


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


def event_rows(events: Iterable[Event]) -> Iterator[list[str | Text]]:
    """Yield a row for each event, and one wherever the day or the actor is another.

    The events of one batch show their time once.
    """
    heading, position = None, None
    for event in events:
        if (f"{event.time:%Y-%m-%d}", event.actor) != heading:
            heading = (f"{event.time:%Y-%m-%d}", event.actor)
            by = "" if event.actor is None else f"by {harmless(event.actor[:100])}"
            yield ["", "", Text(heading[0], "bold"), Text(by, "bold"), ""]
        time = "" if event.position == position else f"{event.time:%H:%M:%S}"
        position = event.position
        size_bytes = len((event.text or "").encode())
        kind = Text(harmless(event.kind), _STYLES.get(event.kind.split(".")[0], "magenta"))
        yield [str(event.seq), time, kind, happened(event), size(size_bytes)]


def happened(event: Event) -> str:
    """Return in a few words what an event says."""
    if event.text is None:
        return "(forgotten)"
    data = event.data
    match event.kind.split("."):
        case ["app", *_]:
            return event.text
        case [_, "set"]:
            return f"{event.name} = {_folded(data.get('value', data.get('at')))}"
        case [_, "added" | "replaced"]:
            target = "" if event.kind.endswith("added") else f"{data['seq']} by "
            return target + said(data["message"])
        case [_, "removed"]:
            return f"message {data['seq']}"
        case [_, "reverted"]:
            return f"to {data['to']}"
    return event.name or ""


def said(message: Any) -> str:
    """Return a message in one line: its role, its content, and what else it carries."""
    content, rest = parts(message)
    return f"{message.get('role')}: {content or ''}{' ' if content and rest else ''}{rest}"


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
