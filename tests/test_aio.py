"""What is awaited does what the plain calls do: the same nouns, steps, results and errors."""

import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore import aio, replay
from evstore.aio.hands import HERE_BYTES_MAX, Hands
from evstore.aio.workers import Workers
from evstore.errors import (
    BadFile,
    Closed,
    Conflict,
    NoSuchMoment,
    NotStorable,
    ReadOnly,
    Refused,
    SessionNotFound,
    Taken,
)
from evstore.sqlite import sharing
from evstore.sqlite.engine import Engine
from tests.event_loops import LOOPS, EventLoop
from tests.test_processes import forked, needs_fork

USER = {"role": "user", "content": "hello"}
STEPS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("variables", "set", ("a", 1)),
    ("variables", "setdefault", ("a", 9)),
    ("variables", "setdefault", ("b", [2])),
    ("variables", "update", ({"c.x": 3, "c.y": {"deep": 4}},)),
    ("variables", "get", ("c.y",)),
    ("variables", "get", ("none", 5)),
    ("variables", "match", ("c.*",)),
    ("variables", "keys", ()),
    ("variables", "values", ()),
    ("variables", "items", ()),
    ("variables", "pop", ("a",)),
    ("variables", "pop", ("a",)),
    ("variables", "pop", ("a", 6)),
    ("variables", "popitem", ()),
    ("variables", "set", ("bad", object())),
    ("variables", "info", ("none",)),
    ("variables", "clear", ()),
    ("variables", "popitem", ()),
    ("metadata", "update", ({"title": "Rome", "budget": 1200},)),
    ("metadata", "items", ()),
    ("messages", "append", (USER,)),
    ("messages", "append", ({"content": "nobody says it"},)),
    ("messages", "extend", ([{"role": "tool", "number": number} for number in range(5)],)),
    ("messages", "pop", ()),
    ("messages", "pop", (0,)),
    ("messages", "pop", (99,)),
    ("messages", "remove", (1, "too long")),
    ("messages", "replace", (0, {"role": "tool", "better": True}, "why")),
    ("messages", "tail", (1,)),
    ("messages", "info", (7,)),
    ("messages", "clear", ()),
    ("messages", "clear", ()),
    ("messages", "remove", (0,)),
]


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.name)
def loop(request) -> EventLoop:
    """Each of the event loops in turn."""
    found: EventLoop = request.param
    return found


def shown(result: Any) -> Any:
    """What can be compared of a result, or of an error."""
    if isinstance(result, Exception):
        return type(result), str(result)
    if isinstance(result, evstore.Event):
        return result.seq, result.kind, result.name, result.data, result.actor, result.cause
    if type(result).__name__ in {"Recorded", "list"}:
        return [*map(shown, result)]
    return list(result) if type(result).__name__.startswith("dict_") else result


def outcome(act: Callable[[], Any]) -> Any:
    """What a plain step comes to."""
    try:
        return act()
    except Exception as error:  # noqa: BLE001 - it is what came of it
        return error


def test_every_step_does_what_the_plain_one_does(loop, tmp_path: Path):
    """Steps of the doors return, raise and record the same, whether they are awaited or not."""

    async def awaited() -> list[Any]:
        async with aio.open(tmp_path / "awaited.db", actor="me") as store:
            session = await store.session("trip")
            found = []
            for door, name, arguments in STEPS:
                step = partial(getattr(getattr(session, door), name), *arguments)
                found += await loop.together(step)
            events = [event async for event in session.events()]
            return [*map(shown, found), [*map(shown, events)]]

    with evstore.open(tmp_path / "plain.db", actor="me") as store:
        session = store.session("trip")
        expected = [
            shown(
                outcome(
                    lambda door=door, name=name, arguments=arguments: getattr(  # type: ignore[misc]
                        getattr(session, door), name
                    )(*arguments)
                )
            )
            for door, name, arguments in STEPS
        ]
        expected.append([*map(shown, session.events())])
    assert expected == loop.run(awaited)
    kinds = {KeyError, IndexError, NotStorable}
    assert kinds <= {found[0] for found in expected if isinstance(found, tuple)}


def test_reading_a_door(loop, path: Path):
    """Counts, membership, indices, slices and whole lists are those of the plain doors."""

    async def main() -> None:
        async with aio.open(path) as store:
            session = await store.session("trip")
            assert (0, 0) == (await session.variables.count(), await session.messages.count())
            await session.variables.set("a", 1, ttl=1000)
            await session.messages.extend({"role": "user", "n": number} for number in range(1200))
            plain = session.plain
            assert await session.variables.contains("a")
            assert not await session.variables.contains("b")
            assert plain.variables.info("a") == await session.variables.info("a")
            assert plain.messages.info(-1) == await session.messages.info(-1)
            assert 1200 == await session.messages.count()
            assert 1199 == (await session.messages.get(-1))["n"]
            assert plain.messages[5:9] == await session.messages.get(slice(5, 9))
            assert list(plain.messages) == [message async for message in session.messages]
            assert plain.messages.tail(max_bytes=90, size=lambda _: 40) == (
                await session.messages.tail(max_bytes=90, size=lambda _: 40)
            )
            await session.variables.delete("a")
            with pytest.raises(KeyError):
                await session.variables.delete("a")
            assert 7 == await session.variables.pop("a", default=7)
            with pytest.raises(Conflict):
                await session.variables.set("c", 1, expect=7)

    loop.run(main)


def test_a_value_is_taken_as_it_is_at_the_call(loop, path: Path):
    """What is written is encoded at once: to change the value afterwards changes nothing."""

    async def main() -> None:
        async with aio.open(path) as store:
            session = await store.session("trip")
            value = ["before"]

            async def write() -> None:
                await session.variables.set("a", value)

            async def change() -> None:
                while not loop_has_sent(store):
                    await loop.sleep(0)
                value[0] = "after"

            assert [None, None] == await loop.together(write, change)
            assert ["before"] == await session.variables.get("a")

    def loop_has_sent(store: aio.Store) -> bool:
        group = store.plain.engine.database.group
        return group._leader is not None or store.plain.session("trip").head > 0

    loop.run(main)


def test_a_crowd_is_encoded_as_its_steps_begin(loop, path: Path):
    """A task that waits for its turn in a crowd has encoded what it writes before it waits."""

    async def crowd(step: Callable[[int, dict[str, str]], Any]) -> None:
        boxes = [{"role": "user", "content": "before"} for _ in range(1000)]
        begun: list[int] = []

        async def write(number: int) -> None:
            begun.append(number)
            await step(number, boxes[number])

        async def change() -> None:
            while len(begun) < len(boxes):
                await loop.sleep(0)
            for box in boxes:
                box["content"] = "after"

        await loop.together(change, *(partial(write, number) for number in range(len(boxes))))

    async def main() -> None:
        async with aio.open(path, durability="normal") as store:
            session = await store.session("trip")
            await crowd(lambda number, box: session.variables.set(f"v{number}", box))
            await crowd(lambda _, box: session.messages.append(box))
            await crowd(lambda _, box: session.record("app.fact", box))
            written = [*await session.variables.values(), *await session.messages.get(slice(None))]
            written += [event.data async for event in session.events(kind="app.fact")]
            assert [{"role": "user", "content": "before"}] * 3000 == written

    loop.run(main)


def test_the_verbs_of_a_session(loop, path: Path):
    """Moments, branches and taking back are those of the plain session."""

    async def main() -> None:
        async with aio.open(path, actor="me") as store:
            trip = await store.session("trip", metadata={"title": "Rome"}, actor="you")
            assert ("trip", None, 0) == (trip.id, await trip.uid(), await trip.head())
            assert [None] * 2 == [await trip.created_at(), await trip.updated_at()]
            await trip.variables.set("a", 1)
            plain = trip.plain
            assert (plain.uid, 2) == (await trip.uid(), await trip.head())
            assert (plain.created_at, plain.updated_at) == (
                await trip.created_at(),
                await trip.updated_at(),
            )
            await trip.label("begun")
            await trip.variables.set("a", 2)
            await trip.record("app.seen", {"what": "it"})
            assert ["app.seen"] == [event.kind async for event in trip.events(after=4)]
            assert [4, 2] == [event.seq async for event in trip.history("a")]
            assert ("you", 4) == ((await trip.blame("a")).actor, (await trip.blame("a")).seq)
            view = await trip.at("begun")
            assert {"a": (1, 2)} == (await trip.diff(view, 5)).variables
            assert {"a": (1, 2)} == (await view.diff(await trip.view())).variables
            other = await trip.fork("other", at="begun")
            assert plain.fork("again", at="begun").parent == await other.parent()
            await other.variables.set("b", 3)
            merged = await trip.merge(other)
            assert (["b"], ()) == ([event.name for event in merged.events], merged.conflicts)
            await trip.undo()
            assert not await trip.variables.contains("b")
            await trip.redo()
            assert 3 == await trip.variables.get("b")
            await trip.revert("begun")
            assert [("a", 1)] == list(await trip.variables.items())
            with pytest.raises(NoSuchMoment):
                await trip.at("nowhere")
            with pytest.raises(Taken):
                await trip.fork("other")
            assert "<evstore.aio.Session 'trip'>" == repr(trip)
            assert [] == list(replay.verify(store.plain, level="full"))

    loop.run(main)


def test_a_view_has_its_variables_in_memory(loop, path: Path, monkeypatch):
    """A view is the plain one, whose names are read without the disk; its messages are awaited."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.update(a=1, b=2)
            await trip.metadata.set("title", "Rome")
            await trip.messages.append(USER)
            await trip.label("now")
            view = await trip.view()
            await trip.variables.clear()
            with monkeypatch.context() as patch:
                patch.setattr(Engine, "past", None)  # by which a view asks the disk
                assert {"a": 1, "b": 2} == dict(view.variables)
                assert {"title": "Rome"} == view.metadata
            plain = view.plain
            assert ("trip", plain.uid, 5) == (view.id, view.uid, view.seq)
            assert (plain.time, {"now": 4}) == (view.time, view.labels)
            assert [USER] == [message async for message in view.messages]
            assert [1, 2, 3, 4, 5] == [event.seq async for event in view.events()]
            with pytest.raises(ReadOnly):
                await view.messages.append(USER)
            assert "<evstore.aio.View of 'trip' at 5>" == repr(view)

    loop.run(main)


def test_a_batch_is_plain_inside_and_awaited_around(loop, path: Path, monkeypatch):
    """Its block reads what was fetched at entry, and its end commits all events or none."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.update(a=1, b=2)
            await trip.messages.append(USER)
            async with trip.batch(actor="planner", cause="plan") as batch:
                assert isinstance(batch, evstore.Batch)
                with monkeypatch.context() as patch:
                    patch.setattr(Engine, "past", None)  # by which a batch asks the disk
                    assert {"a": 1, "b": 2} == batch.variables
                    batch.variables["a"] += 1
                    batch.messages.append(USER)
                    assert 2 == len(batch.messages)
                assert [USER, USER] == batch.messages
            assert [("planner", "plan")] * 2 == [
                (event.actor, event.cause) for event in batch.events
            ]
            with pytest.raises(ZeroDivisionError):
                async with trip.batch() as batch:
                    batch.variables["a"] = 1 // 0
            assert (5, ()) == (await trip.head(), batch.events)
            with pytest.raises(Conflict):
                async with trip.batch() as batch:
                    await trip.variables.set("other", 1)
                    batch.variables["a"] = 9
            for _ in range(2):
                async with trip.batch(key="once") as batch:
                    batch.variables["once"] = 1
            assert 7 == batch.events[0].seq
            async with trip.batch() as batch:
                pass
            with pytest.raises(Closed):
                batch.variables["late"] = 1
            assert 7 == await trip.head()

    loop.run(main)


def test_transact_tries_again(loop, path: Path):
    """A function, plain or async, runs until nobody came in between, or attempts are over."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.set("a", 0)

            def spend(batch: evstore.Batch) -> int:
                batch.variables["a"] += 1
                return int(batch.variables["a"])

            async def think(batch: evstore.Batch) -> int:
                await loop.sleep(0.001)
                return spend(batch)

            steps = [partial(trip.transact, function, 50) for function in (spend, think) * 3]
            assert {1, 2, 3, 4, 5, 6} == set(await loop.together(*steps))

            async def disturbed(batch: evstore.Batch) -> None:
                await trip.variables.set("other", 1)
                batch.variables["a"] = -1

            with pytest.raises(Conflict):
                await trip.transact(disturbed, attempts=2)
            with pytest.raises(Refused):
                await trip.transact(spend, attempts=0)
            assert 6 == await trip.variables.get("a")

    loop.run(main)


def test_a_transaction_is_one_commit(loop, path: Path, monkeypatch):
    """Batches of several sessions are recorded at consecutive positions, or none is."""
    real = Engine.moment

    def slow(self: Any, *arguments: Any, **named: Any) -> Any:
        time.sleep(0.02)
        return real(self, *arguments, **named)

    async def main() -> None:
        async with aio.open(path) as store:
            ada, bob = await store.session("ada"), await store.session("bob")
            async with store.transaction() as both:
                begun = await loop.together(partial(both.batch, ada), partial(both.batch, bob))
                for batch in begun:
                    batch.variables["coins"] = 10
                with pytest.raises(Refused):
                    await both.batch(ada)
                third = await store.session("third")
                monkeypatch.setattr(Engine, "moment", slow)
                twice = await loop.together(*[partial(both.batch, third)] * 2)
                assert {evstore.Batch, Refused} == {*map(type, twice)}
            assert [1, 2] == sorted(batch.events[0].position for batch in begun)
            with pytest.raises(Conflict):
                async with store.transaction() as both:
                    (await both.batch(ada)).variables["coins"] = 7
                    (await both.batch(bob)).variables["coins"] = 13
                    await bob.variables.set("coins", 0)
            with pytest.raises(Closed):
                await both.batch(ada)
            assert (10, 0) == (await ada.variables.get("coins"), await bob.variables.get("coins"))

    loop.run(main)


def test_the_verbs_of_a_store(loop, path: Path):
    """Listing, ends of life, search and care are those of the plain store."""

    async def main() -> None:
        async with aio.open(path) as store:
            handles = [await store.session(f"s-{number:03}") for number in range(120)]
            for number, session in enumerate(handles):
                await session.metadata.set("odd", bool(number % 2))
            session = handles[-1]
            assert 120 == len([info async for info in store.sessions()])
            assert 60 == len([info async for info in store.sessions(where={"odd": True})])
            assert ["s-000", "s-001"] == [info.id async for info in store.sessions(limit=2)]
            await session.messages.append({"role": "user", "content": "a word in time"})
            assert "word" in (await store.search("word", session=session))[0].snippet
            uid = await session.uid()
            assert "session.deleted" == (await store.delete(session.id)).kind
            assert not await store.contains(session.id)
            with pytest.raises(SessionNotFound):
                await store.session(session.id, create=False)
            assert 3 == await (await store.session(uid=uid)).head()
            assert session.id == (await store.restore(str(uid))).id
            soon = await store.session("soon", ttl=timedelta(microseconds=1))
            await soon.variables.set("a", 1)
            lasting = await store.session("lasting", ttl=1000)
            await lasting.variables.set("a", 1)
            await lasting.touch()
            assert datetime.now(UTC) < (await lasting.expires_at() or datetime.now(UTC))
            assert 1 == await store.sweep()
            assert 122 == (await store.stats()).sessions + (await store.stats()).ended
            await store.compact()
            await store.flush()
            assert f"<evstore.aio.Store {str(path)!r}>" == repr(store)

    loop.run(main)


def test_opening_takes_what_the_plain_one_takes(loop, path: Path):
    """Arguments and errors of `open` are the same; what could not be opened leaves no thread."""
    assert inspect.signature(evstore.open).parameters == inspect.signature(aio.open).parameters

    async def main() -> None:
        with pytest.raises(BadFile):
            async with aio.open(path):
                pass
        async with aio.open(":memory:", durability="normal", actor="me") as store:
            trip = await store.session("trip")
            assert "me" == (await trip.variables.set("a", 1))[0].actor
            assert 1 == await trip.variables.get("a")
            await store.close()
            with pytest.raises(Closed):
                await trip.variables.get("a")
            with pytest.raises(Closed):
                await trip.variables.set("a", 1)

    path.write_text("something else")
    before = threading.active_count()
    loop.run(main)
    for thread in threading.enumerate():
        if thread.name.startswith("evstore"):
            thread.join(5)
    assert before >= threading.active_count()


def test_an_opening_that_is_cancelled_leaves_nothing_open(loop, path: Path, monkeypatch):
    """Who gives up while a store is being opened has not got it, and nobody else has."""
    real = evstore.store.open

    def slow(*arguments: Any, **named: Any) -> evstore.Store:
        time.sleep(0.05)
        return real(*arguments, **named)

    monkeypatch.setattr(evstore.store, "open", slow)

    async def enter() -> None:
        async with aio.open(path):
            await loop.sleep(1)

    async def main() -> None:
        assert not await loop.within(0.01, enter)

    loop.run(main)
    assert path.exists()
    assert not [database for database in sharing._open.values() if database.path == str(path)]


def test_a_handle_serves_several_event_loops(path: Path):
    """One store may be awaited in any number of loops and threads at the same time."""
    with evstore.open(path, durability="normal") as plain:
        hands = Hands(plain.engine, Workers(1))
        session = aio.Session(hands, plain.session("trip"))

        def run(number: int) -> None:
            async def append(step: int) -> None:
                await session.messages.append({"role": "user", "who": number, "step": step})

            async def main() -> None:
                steps = [partial(append, step) for step in range(10)]
                assert [None] * 10 == await LOOPS[number % 2].together(*steps)
                assert await session.messages.count() >= 10

            for _ in range(2):
                LOOPS[number % 2].run(main)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            plain.session("trip").messages.append({"role": "user", "who": "thread"})
        for thread in threads:
            thread.join(30)
        said = [(message["who"], message.get("step")) for message in plain.session("trip").messages]
        assert 140 == len(said)
        assert {(who, step): 2 for who in range(6) for step in range(10)} == {
            place: said.count(place) for place in said if place[0] != "thread"
        }


@needs_fork
def test_in_a_forked_child_it_is_closed(loop, path: Path):
    """Where threads of the parent would do the work, a forked child does not wait for them."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.set("a", await trip.messages.count())
            watch = store.watch()

            async def use() -> None:
                for step in (
                    partial(trip.variables.set, "a", 1),
                    partial(trip.variables.set, "a", "x" * HERE_BYTES_MAX),
                    partial(trip.variables.get, "a"),
                    trip.undo,
                    partial(anext, watch),
                ):
                    with pytest.raises(Closed, match="parent process"):
                        await step()
                await store.close()

            def run() -> None:
                ended: list[Any] = []
                act = partial(LOOPS[0].run, use)
                thread = threading.Thread(target=lambda: ended.append(act()), daemon=True)
                thread.start()  # No event loop runs in it yet.
                thread.join(10)
                assert [None] == ended

            assert forked(run)
            await trip.variables.set("a", 2)
            assert 2 == await trip.variables.get("a")

    loop.run(main)


def test_outside_of_an_event_loop_it_is_refused(store: evstore.Store):
    """Who drives a coroutine without asyncio and trio is told what to do instead."""
    session = aio.Session(Hands(store.engine, Workers(1)), store.session("trip"))
    for step in (session.head(), session.variables.set("a", 1)):
        with pytest.raises(Refused, match=r"evstore\.open"):
            step.send(None)


def test_what_takes_long_to_prepare_is_prepared_elsewhere(loop, path: Path, monkeypatch):
    """Compressing and hashing what is large is not done by the thread of the event loop."""
    threads = []
    real = Engine.prepare

    def prepare(self: Any, drafts: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(self, drafts)

    monkeypatch.setattr(Engine, "prepare", prepare)

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.set("small", 1)
            await trip.variables.set("large", "x" * HERE_BYTES_MAX)
            async with trip.batch() as batch:
                batch.messages.extend([USER] * 200)

    loop.run(main)
    assert [threading.current_thread().name, "evstore-worker", "evstore-worker"] == threads


def test_asyncio_is_loaded_by_those_who_use_it():
    """`import evstore` brings no event loop; `evstore.aio` and `evstore.replay` come when asked."""
    program = (
        "import sys, evstore\n"
        "assert not {'asyncio', 'trio'} & set(sys.modules)\n"
        "assert evstore.replay.verify and evstore.aio.open\n"
        "assert 'asyncio' in sys.modules and 'trio' not in sys.modules\n"
        "evstore.nothing\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "AttributeError: module 'evstore' has no attribute 'nothing'" in result.stderr
    assert "AssertionError" not in result.stderr
