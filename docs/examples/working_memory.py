"""A working memory: what an agent notes for a while is forgotten by itself, and stays on record.

A variable with a ttl is absent from its deadline on; a session with one expires when nobody uses it
for that long. Both happen by the clock alone, without anybody sweeping.

Prints:
after the call: {'goal': 'Rome', 'train_price': 89}
an hour later: {'goal': 'Rome'}
the agent knew at 09:05: {'goal': 'Rome', 'train_price': 89}
the next day: expired
on record: {'goal': 'Rome'} and then session.expired
"""

from datetime import UTC, datetime, timedelta

import evstore
from evstore.errors import SessionExpired

now = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)  # a clock that can be put forward

with evstore.open("agents.db", clock=lambda: now) as store:
    memory = store.session("trip/memory", ttl=timedelta(hours=8))  # slides with every use
    memory.variables["goal"] = "Rome"
    memory.variables.set("train_price", 89, ttl=600)  # seconds, from now on
    print("after the call:", memory.variables)

    now += timedelta(hours=1)
    print("an hour later:", memory.variables)
    at_five_past = now.replace(hour=9, minute=5)
    print("the agent knew at 09:05:", memory.at(at_five_past).variables)

    uid = memory.uid
    now += timedelta(days=1)
    try:
        memory.variables["goal"]
    except SessionExpired:
        print("the next day: expired")

    store.sweep()  # not needed for anything above: it only puts the end on record
    life = store.session(uid=uid)
    print("on record:", life.variables, "and then", list(life.events())[-1].kind)
