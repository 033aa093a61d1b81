"""Session contexts do what their names say, called and awaited alike, for every storable value."""

import threading
from collections.abc import Callable, Iterator, MutableMapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import aio
from evstore.agent import SessionContext
from evstore.agent.aio import SessionContext as AwaitedContext
from evstore.errors import BadName, NotStorable, TooLarge, TooMany
from tests.event_loops import LOOPS, EventLoop
from tests.values_strategy import same, storable, texts

names = texts.filter(lambda text: "\0" not in text)
variables = st.dictionaries(names, storable, max_size=4)
fresh_ids = map("session-{}".format, count())


@pytest.fixture
def context(session: evstore.Session) -> SessionContext:
    """The context of a session that is not born yet."""
    return SessionContext(session)


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.name)
def loop(request) -> EventLoop:
    """Each of the event loops in turn."""
    found: EventLoop = request.param
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[evstore.Store]:
    """A store for many examples, a session each."""
    path = tmp_path_factory.mktemp("contexts") / "agents.db"
    with evstore.open(path, durability="normal") as store:
        yield store


def test_v4_a_component_reads_its_configuration_and_stores_its_result(context: SessionContext):
    """A missing temperature reads as None, and what is stored is there for later."""

    def process(session_context: SessionContext, result: Any) -> float:
        temperature = session_context.get_variable("temperature")
        if temperature is None:
            temperature = 0.7
        session_context.set_variable("last_result", result)
        return float(temperature)

    assert 0.7 == process(context, {"answer": 42})
    context.set_variable("temperature", 0.2)
    assert 0.2 == process(context, {"answer": 43})
    assert {"answer": 43} == context.get_variable("last_result")
    assert "trip" == context.session_id
    assert "<evstore.agent.SessionContext 'trip'>" == repr(context)


def test_v_test_2_a_session_keeps_its_config(context: SessionContext):
    """The manual test of the document: a config of a dict, set and got."""
    context.set_variable("config", {"temperature": 0.8})
    config = context.get_variable("config")
    assert config["temperature"] == 0.8
    config["temperature"] = 0.1
    assert 0.8 == context.get_variable("config")["temperature"]


def test_an_absent_variable_is_a_default_by_method_and_a_key_error_by_dict(
    context: SessionContext,
):
    """By method an absent variable gives the default and is deleted silently; by dict, KeyError."""
    assert context.get_variable("x") is None
    assert 7 == context.get_variable("x", 7)
    assert not context.has_variable("x")
    context.delete_variable("x")
    with pytest.raises(KeyError):
        context["x"]
    with pytest.raises(KeyError):
        del context["x"]
    context.set_variable("x", None)
    assert context.has_variable("x")
    assert context.get_variable("x", 7) is None
    context.delete_variable("x")
    assert not context.has_variable("x")


def test_deleting_what_is_absent_records_nothing(context: SessionContext, session):
    """A deletion of nothing leaves no event, and no session."""
    context.delete_variable("x")
    assert 0 == session.head


def test_a_context_is_a_mapping(context: SessionContext):
    """Dict-style access, length, iteration and compound steps work, one transaction each."""
    assert isinstance(context, MutableMapping)
    context["b"] = 1
    context |= {"a": 2, "c": 3}
    assert ["a", "b", "c"] == list(context)
    assert 3 == len(context)
    assert "a" in context
    del context["a"]
    assert {"b": 1, "c": 3} == dict(context)
    assert 1 == context.setdefault("b", 9)


def test_many_variables_are_set_in_one_commit(context: SessionContext, session):
    """set_variables is one batch: all or none; get_variables is one snapshot."""
    context.set_variables({"a": 1, "b": 2})
    first, second = session.events()
    assert first.position == second.position
    with pytest.raises(NotStorable):
        context.set_variables({"c": 3, "bad": object()})
    assert {"a": 1, "b": 2} == context.get_variables()
    assert {"a": 1} == context.get_variables(["a", "c"])
    assert {} == context.get_variables([])


def test_names_are_listed_by_a_pattern(context: SessionContext):
    """list_variables returns the names that match a glob, in order."""
    context.set_variables({"cfg.b.c": 1, "cfg.a": 2, "Cfg.a": 3, "x": 4})
    assert ["Cfg.a", "cfg.a", "cfg.b.c", "x"] == context.list_variables()
    assert ["cfg.a", "cfg.b.c"] == context.list_variables("cfg.*")


def test_bad_input_is_refused_and_nothing_is_written(tmp_path: Path):
    """Names and values beyond the limits, or that cannot be stored, are typed errors."""
    limits = evstore.Limits(value_bytes_max=10, variables_max=2)
    with evstore.open(tmp_path / "small.db", limits=limits) as store:
        context = SessionContext(store.session("a"))
        for error, name, value in (
            (TooLarge, "x", "a value that is too long"),
            (TooLarge, "n" * 600, 1),
            (NotStorable, "x", object()),
            (BadName, "\0", 1),
            (BadName, 5, 1),
        ):
            with pytest.raises(error):
                context.set_variable(name, value)  # type: ignore[arg-type]
        assert 0 == len(context)
        context.set_variables({"a": 1, "b": 2})
        with pytest.raises(TooMany):
            context.set_variable("c", 3)
        assert ["a", "b"] == context.list_variables()


@given(given_variables=variables, pattern=st.sampled_from(["*", "a*", "?"]))
def test_every_value_comes_back_through_a_context(shared, given_variables, pattern):
    """Whatever can be stored comes back the same through each way of reading it."""
    context = SessionContext(shared.session(next(fresh_ids)))
    for name, value in given_variables.items():
        context.set_variable(name, value)
        assert same(value, context.get_variable(name))
    kept = context.get_variables()
    assert sorted(given_variables) == sorted(kept) == sorted(context.list_variables())
    for name, value in given_variables.items():
        assert same(value, kept[name])
        assert same(value, context.get_variables([name])[name])
        assert context.has_variable(name)
        context.delete_variable(name)
        assert not context.has_variable(name)
    assert 0 == len(context)


def first_of(watch: evstore.Watch, number: int, act: Callable[[], None]) -> list[tuple[Any, ...]]:
    """What the first events of a watch say that come while something is done."""
    found: list[tuple[Any, ...]] = []

    def look() -> None:
        for event in watch:
            found.append((event.kind, event.name, (event.data or {}).get("value")))
            if len(found) == number:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    act()
    thread.join(30)
    return found


def test_changes_of_variables_are_watched(context: SessionContext, session):
    """A watch yields changes of matching variables alone, through pages of other events."""
    context.set_variable("before", 0)

    def act() -> None:
        session.messages.extend([{"role": "user", "content": str(n)} for n in range(600)])
        context.set_variables({"cfg.a": 1, "other": 2})
        session.messages.append({"role": "user", "content": "more"})
        context.delete_variable("other")
        context.delete_variable("cfg.a")

    with context.watch_variables("cfg.*") as watch:
        expected = [("variable.set", "cfg.a", 1), ("variable.deleted", "cfg.a", None)]
        assert expected == first_of(watch, 2, act)
        assert [] == watch.poll()
    with context.watch_variables(after=0) as watch:
        found = [event.name for _ in range(2) for event in watch.poll()]
    assert ["before", "cfg.a", "other", "other", "cfg.a"] == found


# Awaited.


def test_an_awaited_context_does_what_the_plain_one_does(loop, tmp_path: Path):
    """Each step of the awaited context has the effect and the result of the plain one."""

    async def main() -> None:
        async with aio.open(tmp_path / "awaited.db", durability="normal") as store:
            session = await store.session("trip")
            context = AwaitedContext(session)
            watch = context.watch_variables("c*")
            assert await context.get_variable("temperature") is None
            assert 0.7 == await context.get_variable("temperature", 0.7)
            await context.delete_variable("temperature")
            assert 0 == await session.head()
            await context.set_variable("config", {"temp": 0.7})
            assert {"temp": 0.7} == await context.get_variable("config")
            await context.set_variables({"a": 1, "b": 2})
            assert ["a", "b", "config"] == await context.list_variables()
            assert ["config"] == await context.list_variables("c*")
            assert {"a": 1} == await context.get_variables(["a", "none"])
            assert {"a", "b", "config"} == set(await context.get_variables())
            assert await context.has_variable("a")
            await context.delete_variable("a")
            assert not await context.has_variable("a")
            async with watch:
                assert "config" == (await anext(watch)).name
            with pytest.raises(NotStorable):
                await context.set_variable("bad", object())
            assert "trip" == context.session_id
            assert "<evstore.agent.aio.SessionContext 'trip'>" == repr(context)

    loop.run(main)


@given(given_variables=variables)
def test_every_value_comes_back_through_an_awaited_context(shared, given_variables):
    """Whatever can be stored comes back the same through the awaited context."""
    loop, session_id = LOOPS[0], next(fresh_ids)

    async def main() -> None:
        async with aio.open(shared.engine.path, durability="normal") as store:
            context = AwaitedContext(await store.session(session_id))
            await context.set_variables(given_variables)
            for name, value in given_variables.items():
                assert same(value, await context.get_variable(name))
            for name, value in (await context.get_variables()).items():
                assert same(value, given_variables[name])

    loop.run(main)
    assert sorted(given_variables) == SessionContext(shared.session(session_id)).list_variables()


def test_tasks_set_variables_at_the_same_time_and_none_is_lost(loop, tmp_path: Path):
    """Fifty tasks set a variable each, and add to one number each: all is there."""

    async def main() -> None:
        async with aio.open(tmp_path / "tasks.db", durability="normal") as store:
            session = await store.session("shared")
            context = AwaitedContext(session)

            async def work(number: int) -> None:
                await context.set_variable(f"name{number}", number)

            outcomes = await loop.together(
                *[lambda number=number: work(number) for number in range(50)]
            )
            assert [None] * 50 == outcomes
            assert {f"name{n}": n for n in range(50)} == await context.get_variables()

    loop.run(main)
