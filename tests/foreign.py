"""What the tests of importing share: files made on the spot, and what a store holds of them."""

import json
from pathlib import Path
from typing import Any

import evstore
from evstore import replay, values
from evstore.chain import Batch, Entry
from evstore.events import MESSAGE_ADDED, SETS
from evstore.transfer import Imported, Reported, import_from


def json_file(path: Path, value: Any) -> Path:
    """A file with one JSON value."""
    path.write_text(json.dumps(value), "utf-8")
    return path


def lines_file(path: Path, *values: Any) -> Path:
    """A JSON Lines file; what is bytes already stands there as it is."""
    path.write_bytes(
        b"".join(v if isinstance(v, bytes) else json.dumps(v).encode() + b"\n" for v in values)
    )
    return path


def said(text: str, role: str = "user", **more: Any) -> dict[str, Any]:
    """A message."""
    return {"role": role, "content": text, **more}


def take(
    store: evstore.Store, format: str, source: Path, **how: Any
) -> tuple[Imported, list[Reported]]:
    """Import, with the store found sound after it; return what was added and what was reported."""
    reports: list[Reported] = []
    added = import_from(store, format, source, report=reports.append, **how)
    assert added.reported == len(reports)
    assert [] == list(replay.verify(store, level="full"))
    return added, reports


def messages(store: evstore.Store) -> dict[str, list[Any]]:
    """All messages, by session."""
    return {str(info.id): list(store.session(str(info.id)).messages) for info in store.sessions()}


def texts(store: evstore.Store) -> dict[str, list[Any]]:
    """What all messages say, by session."""
    return {name: [item["content"] for item in items] for name, items in messages(store).items()}


def recorded(store: evstore.Store, prefix: str) -> dict[str, list[tuple[Batch, list[Any]]]]:
    """What was imported, by what follows a prefix in its key: each batch with its data."""
    found: dict[str, list[tuple[Batch, list[Any]]]] = {}
    after = 0
    while page := store.engine.changes(after):
        for batch in page:
            after = batch.position
            if batch.key is not None and batch.key.startswith(prefix):
                data = list(map(_data, batch.entries))
                found.setdefault(batch.key.removeprefix(prefix), []).append((batch, data))
    return found


def _data(entry: Entry) -> Any:
    """The message of an entry, or the value that it sets, or else all its data."""
    data = values.decode(entry.text or b"null")
    if entry.kind == MESSAGE_ADDED:
        return data["message"]
    return data["value"] if entry.kind in SETS.values() else data
