"""The same step is tried with three prompts, each in a fork; the best result comes home.

Forks cost one small commit each, and share the whole past up to the moment they start from. The
branches that lost stay where they are, to be looked at later.

Prints:
try-1: 'Be thorough.' costs 840
try-2: 'Be thrifty.' costs 610
try-3: 'Be fast.' costs 930
home: {'cost': 610, 'destination': 'Rome', 'hotel': 'Hostel'} from try-2
"""

import evstore

PROMPTS = {
    "Be thorough.": ("Locarno", 840),
    "Be thrifty.": ("Hostel", 610),
    "Be fast.": ("W", 930),
}


def agent(session: evstore.Session, prompt: str) -> None:
    """Stand in for an agent that plans by a prompt."""
    hotel, cost = PROMPTS[prompt]
    with session.batch(actor="agent", cause=prompt) as batch:
        batch.messages.append({"role": "system", "content": prompt})
        batch.variables.update(hotel=hotel, cost=cost)


with evstore.open("agents.db") as store:
    trip = store.session("trip")
    trip.variables["destination"] = "Rome"
    trip.label("before-planning")

    tries = []
    for number, prompt in enumerate(PROMPTS, start=1):
        attempt = trip.fork(f"try-{number}", at="before-planning")
        agent(attempt, prompt)
        tries.append(attempt)
        print(f"{attempt.id}: {prompt!r} costs {attempt.variables['cost']}")

    best = min(tries, key=lambda attempt: attempt.variables["cost"])
    merged = trip.merge(best)
    assert not merged.conflicts
    print("home:", trip.variables, "from", best.id)
