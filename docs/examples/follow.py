"""One process works, another one follows it live, stops, and goes on later where it stopped.

A watch yields each event once and in order, whichever process recorded it. Who keeps the last event
that it has dealt with misses nothing in between.

Prints:
1 app.started
2 variable.set budget
and now it looks away
3 variable.set hotel
4 app.finished
"""

import subprocess
import sys

import evstore

AGENT = """
import evstore
with evstore.open("agents.db") as store:
    trip = store.session("trip")
    trip.record("app.started")
    trip.variables["budget"] = 1200
    trip.variables["hotel"] = "Locarno"
    trip.record("app.finished")
"""


def shown(event: evstore.Event) -> str:
    """Return an event as it stands in the list."""
    return f"{event.seq} {event.kind} {event.name or ''}".rstrip()


with evstore.open("agents.db") as store:
    trip = store.session("trip")
    with trip.watch(after=0) as watch, subprocess.Popen([sys.executable, "-c", AGENT]):
        for event in watch:  # waits for the process
            print(shown(event))
            if event.name == "budget":
                break
    print("and now it looks away")
    with store.watch(after=event) as watch:
        for event in watch:
            print(shown(event))
            if event.kind == "app.finished":
                break
