"""Recorded events against the JSON Schemas that promise what their data looks like."""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from jsonschema import Draft202012Validator

from evstore.events import Event

FOLDER = Path(__file__).parent.parent / "schema" / "events"


@cache
def validator(kind: str) -> Draft202012Validator:
    """Return the validator of a kind; an application's kinds share one."""
    name = "app" if kind.startswith("app.") else kind
    schema = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_events(events: Iterable[Event]) -> set[str]:
    """Assert that the stored data of events is what their kinds promise; return the kinds seen.

    What was forgotten has no data to look at.
    """
    kinds = set()
    for event in events:
        kinds.add(event.kind)
        if event.text is not None:
            problems = list(validator(event.kind).iter_errors(json.loads(event.text)))
            assert [] == [f"{event.seq} {event.kind}: {problem.message}" for problem in problems]
    return kinds
