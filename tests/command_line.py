"""What the tests of the command line share: a store to work on, and ways to run evstore."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import evstore
from evstore.cli.verbs import app

EVSTORE = (sys.executable, "-c", "from evstore.cli import main; raise SystemExit(main())")


def filled(path: Path) -> str:
    """Make a store with a conversation, a fork, and a session that was deleted; return its path."""
    with evstore.open(path, durability="normal", actor="ada") as store:
        trip = store.session("trip", metadata={"owner": "ada"})
        trip.variables["budget"] = 1200
        trip.messages.append({"role": "user", "content": "Rome?"})
        with trip.batch(actor="planner") as batch:
            batch.variables["city"] = "Rome"
            batch.messages.replace(0, {"role": "user", "content": "Rome!", "name": "Ada"})
        trip.fork("what-if", at=2).record("app.thought", [1])
        store.session("gone").variables["x"] = {1, 2}
        store.delete("gone")
    return str(path)


def run(*arguments: str, given: str | bytes = "") -> Result:
    """Run the command line in this process, as a pipe."""
    return CliRunner().invoke(app, arguments, input=given)


def told(*arguments: str, given: str | bytes = "") -> list[Any]:
    """What a run that must succeed prints, line by line as JSON."""
    result = run(*arguments, given=given)
    assert (0, "") == (result.exit_code, result.stderr)
    return [json.loads(line) for line in result.stdout.splitlines()]


def shown(*arguments: str) -> str:
    """What a run that must succeed shows."""
    result = run(*arguments)
    assert (0, "") == (result.exit_code, result.stderr)
    return result.stdout


def process(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run evstore as a program."""
    return subprocess.run([*EVSTORE, *arguments], input=given, capture_output=True, check=False)


def damage(file: str) -> None:
    """Change what an event says, behind the back of evstore."""
    with evstore.open(file) as store, store.engine.database.writing("normal") as cursor:
        cursor.execute("drop trigger event_frozen")
        cursor.execute("update event set data = replace(data, 'Rome?', 'Oslo?')")
        definition = Path("schema/sqlite/0001_store.sql").read_text("utf-8")
        start = definition.index("create trigger event_frozen")
        cursor.execute(definition[start : definition.index("end;", start) + 3])
