"""Recorded events against the JSON Schemas that promise what their data looks like."""

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from evstore.errors import BadFile, Closed, Unavailable
from evstore.events import Event
from evstore.store import Store

FOLDER = Path(__file__).parent.parent / "schema" / "events"


@cache
def validator(kind: str) -> Draft202012Validator:
    """Return the validator of a kind; an application's kinds share one."""
    name = "app" if kind.startswith("app.") else kind
    schema = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_events(events: Iterable[Event]) -> set[str]:
    """Assert that the stored data of events is what their kinds promise; return the kinds seen."""
    kinds = set()
    for event in events:
        kinds.add(event.kind)
        check_text(event.kind, event.text)
    return kinds


def check_store(store: Store) -> None:
    """Assert the same of every event of a store that is open and readable."""
    with suppress(Closed, BadFile, Unavailable):
        position, batches = 0, store.engine.changes(0)
        while batches:
            for entry in (entry for batch in batches for entry in batch.entries):
                check_text(entry.kind, entry.text)
            position = batches[-1].position
            batches = store.engine.changes(position)


def check_text(kind: str, text: str | bytes | None) -> None:
    """Assert that a text is what its kind promises; what was forgotten has no text."""
    if text is not None:
        problems = list(validator(kind).iter_errors(json.loads(text)))
        assert [] == [f"{kind}: {problem.message}" for problem in problems]
