"""A small program of a user, for the type checker: it says which types a user sees."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import evstore

Changes = dict[str, tuple[Any, Any]]


def use(path: Path) -> int:
    """Use what there is once; never run, only checked."""
    with evstore.open(path, durability="normal", limits=evstore.Limits(variables_max=5)) as store:
        assert_type(store, evstore.Store)
        trip = store.session("trip", metadata={"title": "Rome"})
        assert_type(trip, evstore.Session)
        assert_type((trip.id, trip.uid, trip.head), tuple[str, str | None, int])
        assert_type(trip.created_at, datetime | None)
        assert_type(trip.parent, evstore.Parent | None)
        use_doors(trip)
        use_batches(trip)
        use_the_past(trip)
        take_back(trip)
        assert_type(store.sessions("t", limit=5), Iterator[evstore.SessionInfo])
        assert_type("trip" in store, bool)
        assert_type(store.delete("trip"), evstore.Event)
        assert_type(store.watch(after=0).poll(), list[evstore.Event])
        with trip.watch() as watch:
            assert_type(next(watch), evstore.Event)
        assert_type(store.stats(), evstore.Stats)
        return store.stats().events


def take_up(trip: evstore.Session) -> None:
    """What was recorded in an older form is read in a newer one."""
    evstore.upcast("app.order.placed", 1)(lambda order: order | {"currency": "EUR"})
    assert_type(trip.record("app.order.placed", {}, version=1), Sequence[evstore.Event])
    assert_type(next(trip.events()).version, int)


def use_doors(trip: evstore.Session) -> None:
    """Variables are a mapping of text to anything, messages a sequence."""
    trip.variables["budget"] = 1200
    trip.variables |= {"city": "Rome"}
    trip.messages += [{"role": "user"}]
    assert_type(trip.variables["budget"], Any)
    assert_type(trip.variables.set("a", 1, expect=evstore.ABSENT), Sequence[evstore.Event])
    assert_type(trip.variables.info("a"), evstore.VariableInfo)
    assert_type(trip.variables.match("cfg.*"), dict[str, Any])
    assert_type(trip.messages.append({"role": "user"}), Sequence[evstore.Event])
    assert_type(trip.messages[:2], list[Any])
    assert_type(trip.messages.tail(max_bytes=100, size=len), list[Any])
    assert_type(trip.messages.info(0), evstore.MessageInfo)


def use_batches(trip: evstore.Session) -> None:
    """A batch has the doors of a session, and transact returns what the function returns."""
    with trip.batch(actor="planner", expect=evstore.ANY, key="k") as batch:
        assert_type(batch, evstore.Batch)
        batch.metadata["a"] = 1
        batch.messages.replace(0, {"role": "user"}, reason="better")
    assert_type(batch.events, Sequence[evstore.Event])
    assert_type(batch.events[0].data, Any)
    assert_type(trip.transact(lambda pending: len(pending.messages)), int)


def use_the_past(trip: evstore.Session) -> None:
    """A view has the doors too, and a fork is a session."""
    assert_type(trip.at(3), evstore.View)
    assert_type(trip.at(3).time, datetime | None)
    assert_type(trip.view().variables, evstore.Variables)
    assert_type(trip.view().messages, evstore.Messages)
    assert_type(trip.events(name="a", reverse=True), Iterator[evstore.Event])
    assert_type(trip.fork("what-if", at=2), evstore.Session)


def take_back(trip: evstore.Session) -> None:
    """Moments have names, differ, and can be gone back to; all of it records events."""
    assert_type(trip.label("booked"), Sequence[evstore.Event])
    assert_type(
        trip.label("begun", at=datetime.fromisoformat("2024-01-31")), Sequence[evstore.Event]
    )
    assert_type(trip.at("booked").labels, dict[str, int])
    assert_type(trip.history("budget"), Iterator[evstore.Event])
    assert_type(trip.blame("budget").actor, str | None)
    diff = trip.diff("booked", trip.view())
    assert_type(diff, evstore.Diff)
    assert_type(trip.at(2).diff(trip.view()), evstore.Diff)
    assert_type((diff.variables, diff.metadata), tuple[Changes, Changes])
    assert_type((diff.added, diff.removed), tuple[list[Any], list[Any]])
    assert_type(trip.revert("booked"), Sequence[evstore.Event])
    assert_type(trip.undo(), Sequence[evstore.Event])
    assert_type(trip.redo()[0], evstore.Event)


async def use_awaited(path: Path) -> int:
    """The same nouns, awaited."""
    async with evstore.aio.open(path, durability="normal") as store:
        assert_type(store, evstore.aio.Store)
        trip = await store.session("trip")
        assert_type(trip, evstore.aio.Session)
        assert_type(await trip.head(), int)
        assert_type(await trip.variables.set("a", 1), Sequence[evstore.Event])
        assert_type(await trip.variables.get("a"), Any)
        assert_type(await trip.messages.get(slice(2)), list[Any])
        async with trip.batch(key="k") as batch:
            assert_type(batch, evstore.Batch)
        assert_type(await trip.transact(lambda pending: len(pending.messages)), int)
        assert_type(await trip.transact(count_later), int)
        async for event in trip.watch(after=0):
            assert_type(event, evstore.Event)
        assert_type([info async for info in store.sessions()], list[evstore.SessionInfo])
        async with store.transaction() as both:
            assert_type(await both.batch(trip), evstore.Batch)
        return (await store.stats()).events


async def count_later(batch: evstore.Batch) -> int:
    """Count messages in a batch, by and by."""
    return len(batch.messages)
