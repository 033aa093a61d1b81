"""Agent sessions, awaited: the same turns in the tasks of asyncio and of trio."""

import json
import threading
import time
from functools import partial
from typing import Any

import pytest

from evstore import agent
from evstore.agent import aio
from evstore.agent.journal import RUN_ENDED, RUN_STARTED
from tests.agent_storages import opened
from tests.event_loops import LOOPS
from tests.model_server import serving


@pytest.fixture(params=LOOPS, ids=[loop.name for loop in LOOPS])
def loop(request):
    """An event loop."""
    return request.param


@pytest.fixture(params=["memory", "files", "sqlite"])
def storage(request, tmp_path):
    """Each storage there is, empty."""
    with opened(request.param, tmp_path) as found:
        yield found


def answer(text: str) -> str:
    return json.dumps({"thought": "", "final_answer": text})


ACTION = '{"thought": "", "action": "look", "input": {"what": "there"}}'


def decide(messages) -> str:
    return answer("done") if messages[-1]["content"] == "Observation: seen" else ACTION


async def decide_later(messages) -> str:
    return decide(messages)


async def stream_later(messages):
    text = decide(messages)
    for piece in (text[:7], text[7:]):
        yield piece


def look(what: str) -> str:
    """Look somewhere."""
    return "seen"


async def look_later(what: str) -> str:
    """Look somewhere."""
    return "seen"


def look_eventually(what: str) -> Any:
    """Look somewhere."""
    return look_later(what)


MODELS = {
    "plain": decide,
    "awaited": decide_later,
    "streamed": lambda messages: iter([decide(messages)]),
    "streamed, awaited": stream_later,
    "lambda, awaited": lambda messages: decide_later([*messages]),
    "lambda, streamed": lambda messages: stream_later([*messages]),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("function", [look, look_later, look_eventually])
def test_a_turn_is_the_same_awaited(loop, model, function):
    """Models and tools may be plain, awaited or streamed: the conversation is that of threads."""
    made = agent.Tool("look", "Look somewhere.", agent.tool(look).schema, function)

    async def main():
        session = await aio.create_session("s", kept, model=MODELS[model], tools=[made])
        return await session.send_message("Look."), session.message_count

    kept, plain = agent.InMemoryStorage(), agent.InMemoryStorage()
    expected = agent.create_session("s", plain, model=decide, tools=[look]).send_message("Look.")
    assert (expected, 5) == loop.run(main)
    assert plain.load("s") == kept.load("s")


def test_a_session_goes_on_in_every_storage(loop, storage):
    """S, pattern 2 and 3, awaited: it remembers, counts, and is cleared in the storage as well."""

    async def main():
        session = await aio.create_session("user-123", storage)
        await session.send_message("Remember: my name is Alice")
        session = await aio.create_session("user-123", storage)
        assert ("user-123", 3) == (session.session_id, session.message_count)
        result = await session.send_message_with_iterations("What is my name?", 2)
        assert "Your name is Alice" == result.result
        assert await session.resume() is None
        await session.clear_history()
        assert 0 == session.message_count

    loop.run(main)
    assert not storage.exists("user-123")


def test_tasks_are_answered_in_turn(loop, storage):
    """Messages that tasks send at once are turns after one another, each with its answer."""

    async def echo(messages):
        await loop.sleep(0)
        return answer(messages[-1]["content"])

    async def main():
        session = await aio.create_session("s", storage, model=echo)

        def sending(number: int):
            return lambda: session.send_message(str(number))

        return await loop.together(*map(sending, range(12)))

    results = loop.run(main)
    assert [str(number) for number in range(12)] == [result.result for result in results]
    said = [message["content"] for message in storage.load("s")[1:]]
    assert said[::2] == [json.loads(each)["final_answer"] for each in said[1::2]]


@pytest.mark.parametrize("where", ["model", "tool", "tool in a thread", "model in a thread"])
def test_a_cancelled_turn_has_an_end(loop, storage, where):
    """Cancelled in a model or a tool, a task learns of it once the end is written down."""
    released = threading.Event()

    async def model(messages):
        if where == "model":
            await loop.sleep(60)
        return decide(messages)

    def waiting_model(messages):
        released.wait(30)
        return ACTION

    async def look(what: str) -> None:
        await loop.sleep(60)

    def waiting_look(what: str) -> None:
        released.wait(30)

    made = agent.Tool("look", "", {}, waiting_look if where == "tool in a thread" else look)
    asked = waiting_model if where == "model in a thread" else model

    async def main():
        session = await aio.create_session("s", storage, model=asked, tools=[made])
        assert not await loop.within(0.2, lambda: session.send_message("Look."))
        last = storage.load("s")[-1]["content"]
        assert last.startswith("Observation: Stopped: the turn was cancelled.")
        assert ("What 'look' has done is not known" in last) == where.startswith("tool")
        after = await aio.create_session("s", storage)
        assert (await after.send_message("Hello")).success
        return session.message_count

    try:
        loop.run(main)
    finally:
        released.set()
    if isinstance(storage, agent.SqliteStorage):
        kinds = [event.kind for event in storage.session("s").events()]
        assert 2 == kinds.count(RUN_STARTED) == kinds.count(RUN_ENDED)


def test_a_turn_can_be_cancelled_however_many_were(loop):
    """Tools that were left behind in their threads keep no other turn from beginning or ending."""
    released = threading.Event()
    made = agent.Tool("look", "", {}, lambda what: released.wait(30))

    async def main():
        session = await aio.create_session("s", model=decide, tools=[made])
        return [await loop.within(0.1, lambda: session.send_message("Look.")) for _ in range(12)]

    began_s = time.monotonic()
    try:
        assert [False] * 12 == loop.run(main)
        assert time.monotonic() < began_s + 20
    finally:
        released.set()


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_model_that_was_left_behind_is_heard_no_more(loop, is_streamed):
    """Whoever listens hears of one turn at a time: the end of a turn is its end for them too."""
    released, left = threading.Event(), threading.Event()
    heard: list[Any] = []

    def streamed():
        try:
            for number in range(3):
                yield str(number)
                released.wait(30)
        finally:
            left.set()

    def whole() -> str:
        released.wait(30)
        threading.Timer(0.1, left.set).start()
        return "0"

    def model(messages):
        if messages[-1]["content"] == "Again.":
            return answer("ok")
        return streamed() if is_streamed else whole()

    async def main():
        session = await aio.create_session("s", model=model, on_progress=heard.append)
        assert not await loop.within(0.2, lambda: session.send_message("Go."))
        released.set()
        assert (await session.send_message("Again.")).success

    loop.run(main)
    assert left.wait(30)
    pieces = ["0"] if is_streamed else []
    assert [*pieces, answer("ok")] == [each for each in heard if isinstance(each, str)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_turn_that_is_cancelled_in_its_beginning_has_an_end(loop, storage, moment):
    """Cancelled while the beginning is written down, a turn leaves nothing to be resumed."""

    async def main():
        session = await aio.create_session("s", storage, model=decide)
        journal: Any = session._journal
        begin = journal.begin

        def slow(*arguments):
            time.sleep(0.3 * (moment == "before"))
            run = begin(*arguments)
            time.sleep(0.3 * (moment == "after"))
            return run

        journal.begin = slow
        assert not await loop.within(0.1, lambda: session.send_message("Delete all."))
        assert await session.resume() is None

    loop.run(main)
    stop = "Observation: Stopped: the turn was cancelled."
    assert ["Delete all.", stop] == [message["content"] for message in storage.load("s")[1:]]


@pytest.mark.parametrize("what", ["send_message", "clear_history", "cut_off", "resume", "abandon"])
def test_a_tool_cannot_await_its_own_turn(loop, what):
    """A tool that asks its own session for what has to wait for the turn is told so at once."""
    steps: list[Any] = []

    async def look(what: str) -> None:
        await steps[0]()

    def model(messages):
        return ACTION if len(messages) < 3 else answer("ok")

    made = agent.Tool("look", "", {}, look)

    async def main():
        session = await aio.create_session("s", model=model, tools=[made])
        steps.append(partial(getattr(session, what), *["Hello"] * (what == "send_message")))
        results = []

        async def send():
            results.append(await session.send_message("Go."))

        assert await loop.within(20, send)
        assert "Refused: a turn is under way" in results[0].steps[0].observation
        assert (await session.send_message("Again.")).success

    loop.run(main)


def test_a_key_is_one_turn(loop, tmp_path):
    """A keyed turn that was cancelled has its end; one that was answered is answered again."""

    async def main():
        with agent.SqliteStorage(tmp_path / "agents.db") as storage:
            session = await aio.create_session("s", storage)
            first = await session.send_message("Hello", key="a")
            assert first == await session.send_message("Hello", key="a")
            assert 3 == session.message_count

    loop.run(main)


def test_a_model_over_http_is_awaited(loop, monkeypatch):
    """The awaited model behind HTTP answers an awaited session, and its failure is a result."""
    monkeypatch.setenv("NO_PROXY", "*")

    async def main(server):
        async with aio.OpenAIModel(server.url, "tiny", stream=True, pause_s=0.001) as model:
            session = await aio.create_session("s", model=model)
            first = await session.send_message("Hello")
            server.script = [lambda handler: handler.send(500, "")] * 4
            return "tiny" == model.name, first, await session.send_message("Hello")

    with serving(lambda _: answer("So it is.")) as server:
        is_named, first, second = loop.run(lambda: main(server))
    assert is_named
    assert "So it is." == first.result
    assert (False, "model_error") == (second.success, second.reason)
