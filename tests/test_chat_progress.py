"""Who listens to a turn hears it while it runs, plainly and awaited, and cannot spoil its log."""

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from evstore import agent
from evstore.agent import Ask, Call, aio
from evstore.agent.journal import RUN_ENDED
from evstore.agent.models import ANEW, Reply
from evstore.errors import Unavailable
from tests.event_loops import LOOPS
from tests.model_server import Handler, serving

ACTION = '{"thought": "", "action": "look", "input": {}}'
ANSWER = '{"thought": "", "final_answer": "done"}'
Listener = Callable[[Any], None]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached without a proxy."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def storage(path):
    with agent.SqliteStorage(path) as opened:
        yield opened


def look() -> str:
    """Look."""
    return "seen"


def decide(messages: list[dict[str, Any]]) -> str:
    return ANSWER if messages[-1]["content"] == "Observation: seen" else ACTION


def at_once(messages):
    return decide(messages)


def in_pieces(messages):
    text = decide(messages)
    yield from ("void", ANEW, text[:5], text[5:])


async def later(messages):
    return decide(messages)


async def later_in_pieces(messages):
    for piece in in_pieces(messages):
        yield piece


async def later_pieces(messages):
    return in_pieces(messages)


def plainly(storage, model, listener: Listener) -> agent.AgentResult:
    session = agent.create_session("s", storage, model=model, tools=[look], on_progress=listener)
    return session.send_message("Look.")


def awaited(loop):
    def send(storage, model, listener: Listener) -> agent.AgentResult:
        async def main():
            session = await aio.create_session(
                "s", storage, model=model, tools=[look], on_progress=listener
            )
            return await session.send_message("Look.")

        result: agent.AgentResult = loop.run(main)
        return result

    return send


SENDERS = {"plain": plainly, **{loop.name: awaited(loop) for loop in LOOPS}}
MODELS = [at_once, in_pieces, later, later_in_pieces, later_pieces]
CASES = [
    pytest.param(send, model, id=f"{name}-{model.__name__}")
    for name, send in SENDERS.items()
    for model in MODELS
    if name != "plain" or model in (at_once, in_pieces)
]


@pytest.mark.parametrize(("send", "model"), CASES)
def test_a_turn_is_heard_in_order(storage, send, model):
    """That the model is asked, what it says, that it begins anew, and what is called."""
    heard: list[Any] = []
    assert "done" == send(storage, model, heard.append).result
    said, replies = "", []
    for each in heard:
        if isinstance(each, str):
            said += each
        else:
            replies.append(said)
            said = ""
    is_whole = model in (at_once, later)
    asked = [Ask] if is_whole else [Ask, Ask]
    assert [*asked, Call, *asked] == [type(each) for each in heard if not isinstance(each, str)]
    assert (["", ACTION, ""] if is_whole else ["", "void", ACTION, "", "void"]) == replies
    assert ANSWER == said
    assert [{}] == [each.arguments for each in heard if isinstance(each, Call)]


class Deaf(Exception):
    """A listener had enough."""


@pytest.mark.parametrize("heard_before", [Ask, str, Call])
@pytest.mark.parametrize(("send", "model"), CASES)
def test_an_error_of_the_listener_is_none_of_the_model(storage, send, model, heard_before):
    """It is raised as it is, once the end of the turn is written down; no tool was called."""

    def listener(progress: Any) -> None:
        if isinstance(progress, heard_before):
            raise Deaf

    with pytest.raises(Deaf):
        send(storage, model, listener)
    (ended,) = storage.session("s").events(kind=RUN_ENDED)
    assert "cancelled" == ended.data["reason"]
    assert "seen" not in str(storage.load("s"))


@pytest.mark.parametrize("loop", LOOPS, ids=[loop.name for loop in LOOPS])
def test_a_turn_that_was_cut_off_is_told_to_tasks(storage, loop):
    """`cut_off` tells what was said, and `abandon` ends that turn without an answer."""
    plain = agent.create_session("s", storage)

    def begin_and_stop(*arguments: Any) -> None:
        begin(*arguments)
        raise Unavailable("the disk", "it is full")  # Nothing more is written, as after a kill.

    begin = plain._journal.begin
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(plain._journal, "begin", begin_and_stop)
        plain.send_message("Hello")

    async def main():
        session = await aio.create_session("s", storage)
        first = await session.cut_off()
        await session.abandon()
        await session.abandon()
        return first, await session.cut_off(), await session.resume()

    assert ("Hello", None, None) == loop.run(main)
    (ended,) = storage.session("s").events(kind=RUN_ENDED)
    assert "cancelled" == ended.data["reason"]


# Over HTTP.


def ask_plainly(url: str, heard: list[Any], **how: Any) -> None:
    with agent.OpenAIModel(url, "tiny", stream=True, pause_s=0.001, **how) as model:
        heard.extend(model([]))


def ask_awaited(loop):
    def ask(url: str, heard: list[Any], **how: Any) -> None:
        async def main():
            async with aio.OpenAIModel(url, "tiny", stream=True, pause_s=0.001, **how) as model:
                async for piece in model([]):
                    heard.append(piece)  # noqa: PERF401 - each is heard as it comes

        loop.run(main)

    return ask


ASKERS = pytest.mark.parametrize(
    "ask", [ask_plainly, *map(ask_awaited, LOOPS)], ids=["plain", *(loop.name for loop in LOOPS)]
)


@ASKERS
def test_a_stream_is_heard_piece_by_piece(ask):
    """A piece is heard before the next one is sent; after a break all begins anew."""
    heard: list[Any] = []

    def slowly(handler: Handler) -> None:
        handler.stream(["Yes", ", Z"], is_whole=False)
        while len(heard) < 2:
            threading.Event().wait(0.01)

    with serving(lambda _: "Yes, Zoë.") as server:
        server.script = [slowly]
        ask(server.url, heard)
    assert ["Yes", ", Z", ANEW, "Yes", ", Z", "oë."] == heard


@ASKERS
def test_lines_may_end_in_any_way(ask):
    """Events are read however their lines end, and without an end of the last one."""
    event = json.dumps({"choices": [{"delta": {"content": "x"}}]})
    last = json.dumps({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    for end in ("\n", "\r\n", "\r"):
        heard: list[Any] = []
        with serving() as server:
            body = f"data: {event}{end}{end}data: {event}{end}{end}data: {last}"
            server.script = [partial(Handler.send, status=200, body=body)]
            ask(server.url, heard)
        assert ["x", "x"] == heard


@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")  # left half read
@ASKERS
def test_an_answer_without_end_is_given_up(ask):
    """However steadily a server sends pieces, the whole answer has its bound."""
    released = threading.Event()

    def dribble(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not released.wait(0.01):
            handler.wfile.write(b": still here\n")
            handler.wfile.flush()

    with serving() as server:
        server.script = [dribble]
        try:
            with pytest.raises(Unavailable, match=r"there is no answer within 0\.2 s"):
                ask(server.url, [], whole_timeout_s=0.2)
        finally:
            released.set()


@ASKERS
def test_a_pause_beyond_the_bound_is_not_waited_for(ask):
    """Where a server asks for more patience than there is, the answer is given up at once."""
    with serving() as server:
        server.script = [lambda handler: handler.send(503, "busy", Retry_After="60")]
        with pytest.raises(Unavailable, match=r"no answer within 30 s.*status 503"):
            ask(server.url, [], whole_timeout_s=30)


def test_a_reply_that_begins_anew_is_what_followed():
    """The pieces before are void, and their length does not count."""
    reply = Reply()
    for piece in ("x" * 600_000, ANEW, "y" * 600_000):
        reply.take(piece)
    assert "y" * 600_000 == reply.text
