"""An audit: who changed which variable, when, from what to what, and proof that it is so.

The log is the audit trail. Nothing has to be switched on, and nobody can change it through evstore.

Prints:
Mon 09:00  ada      budget: - -> 1200
Mon 09:00  planner  hotel: - -> 'Locarno'
Tue 17:30  planner  budget: 1200 -> 2000  (upgrade)
Wed 08:15  ada      budget: 2000 -> 1200  (undo:3)
changed by the planner: ['budget', 'hotel']
findings: []
"""

from datetime import UTC, datetime
from typing import Any

import evstore
from evstore import replay

now = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)


def changes(session: evstore.Session) -> list[tuple[evstore.Event, Any, Any]]:
    """Return (event, value before, value after) of all that happened to variables."""
    values: dict[str, Any] = {}
    found = []
    for event in session.events():
        if event.kind.startswith("variable.") and event.name is not None:
            before = values.get(event.name, evstore.ABSENT)
            after = event.data.get("value", evstore.ABSENT)
            values[event.name] = after
            found.append((event, before, after))
    return found


def shown(value: Any) -> str:
    """Return a value as it stands in the list."""
    return "-" if value is evstore.ABSENT else repr(value)


with evstore.open("agents.db", clock=lambda: now) as store:
    ada, planner = store.session("trip", actor="ada"), store.session("trip", actor="planner")
    ada.variables["budget"] = 1200
    planner.variables["hotel"] = "Locarno"
    now = datetime(2025, 6, 3, 17, 30, tzinfo=UTC)
    with planner.batch(cause="upgrade") as batch:
        batch.variables["budget"] = 2000
    now = datetime(2025, 6, 4, 8, 15, tzinfo=UTC)
    ada.undo()

with evstore.open("agents.db", read_only=True) as store:
    audited = changes(store.session("trip"))
    for event, before, after in audited:
        why = f"  ({event.cause})" if event.cause else ""
        what = f"{event.name}: {shown(before)} -> {shown(after)}"
        print(f"{event.time:%a %H:%M}  {event.actor:<7}  {what}{why}")
    by_planner = {event.name for event, _, _ in audited if event.actor == "planner"}
    print("changed by the planner:", sorted(name for name in by_planner if name))
    print("findings:", list(replay.verify(store, level="full")))
