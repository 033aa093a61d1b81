"""An agent goes on after a crash, and no step is recorded twice, by whomever it is repeated.

A variable says what is done, and a key names each step. Two workers that get past the variable at
the same time bring two answers under one key: the first is recorded, the other is a Conflict.

Prints:
first run: ['book train: done']
second run: ['book train: was done', 'find hotel: done']
two workers: ['write summary: done', 'write summary: somebody else did it']
3 answers
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import evstore
from evstore.errors import Conflict

answers = count(1)
both_have_looked = Barrier(2, timeout=30)


def model(prompt: str) -> dict[str, str]:
    """Stand in for a model, which never answers the same twice."""
    return {"role": "assistant", "content": f"{prompt}: answer {next(answers)}"}


def take(session: evstore.Session, step: str) -> str:
    """Take a step, unless it was taken."""
    if f"done.{step}" in session.variables:
        return f"{step}: was done"
    if step == "write summary":
        both_have_looked.wait()  # for this page alone, to have two workers at the same place
    answer = model(step)
    try:
        with session.batch(key=step, expect=evstore.ANY, actor="agent") as batch:
            batch.messages.append(answer)
            batch.variables[f"done.{step}"] = True
    except Conflict:
        return f"{step}: somebody else did it"
    return f"{step}: done"


with evstore.open("agents.db") as store:
    print("first run:", [take(store.session("trip"), "book train")])

with evstore.open("agents.db") as store:  # the process was killed, and starts again
    trip = store.session("trip")
    print("second run:", [take(trip, step) for step in ("book train", "find hotel")])
    with ThreadPoolExecutor(2) as workers:
        taken = workers.map(lambda _: take(trip, "write summary"), range(2))
        print("two workers:", sorted(taken))
    print(len(trip.messages), "answers")
