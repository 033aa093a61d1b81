"""Models behind HTTP: one whole reply or an error that says why, whatever the server does."""

import json
import logging
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from evstore import agent
from evstore.agent import aio, http
from evstore.agent.models import Reply, text_of
from evstore.errors import Refused, Unavailable
from tests.event_loops import LOOPS
from tests.model_server import Handler, serving

KEY = "sk-very-secret"
QUESTION = [{"role": "user", "content": "Is it so, Zoë?"}]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached without a proxy."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server():
    with serving(lambda _: "Yes, Zoë 🦊.") as running:
        yield running


def plainly(url: str, **how) -> str:
    with agent.OpenAIModel(url, "tiny", KEY, **{"pause_s": 0.001, **how}) as model:
        return text_of(model(QUESTION), lambda _: None)


def awaited(loop):
    def ask(url: str, **how) -> str:
        async def main():
            async with aio.OpenAIModel(url, "tiny", KEY, **{"pause_s": 0.001, **how}) as model:
                whole = Reply()
                async for piece in model(QUESTION):
                    whole.take(piece)
                return whole.text

        return str(loop.run(main))

    return ask


@pytest.fixture(params=[plainly, *map(awaited, LOOPS)], ids=["plain", "asyncio", "trio"])
def ask(request):
    """Asks a server once, plainly or awaited."""
    return request.param


def no_connection(handler: Handler) -> None:
    handler.close_connection = True


def status(code: int, body: str = "{}", **headers: str):
    return lambda handler: handler.send(code, body, **headers)


def half(handler: Handler) -> None:
    """Close in the middle of a body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.close_connection = True


def stream_that_breaks(handler: Handler) -> None:
    handler.stream(["Yes", ", Z"], is_whole=False)


def stream_of_an_error(handler: Handler) -> None:
    handler.send(200, 'data: {"error": {"message": "overloaded"}}\n\n')


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_is_the_text_of_the_first_choice(ask, server, stream):
    """What is asked are model, messages and options, with the key; the reply comes as it is."""
    options = {"temperature": 0}
    assert "Yes, Zoë 🦊." == ask(server.url, stream=stream, options=options)
    ((body, headers),) = server.requests
    assert body == {
        "model": "tiny",
        "messages": QUESTION,
        "temperature": 0,
        **({"stream": True} if stream else {}),
    }
    assert f"Bearer {KEY}" == headers["Authorization"]


FAILURES = {
    "no connection": (no_connection, False),
    "too many requests": (status(429, Retry_After="0"), False),
    "out of order": (status(500, "out of order"), False),
    "busy until now": (status(503, Retry_After=format_datetime(datetime.now(UTC))), True),
    "timeout over there": (status(408, Retry_After="soon"), False),
    "no JSON": (status(200, "no JSON"), False),
    "no choice": (status(200, '{"choices": []}'), False),
    "no object": (status(200, "[]"), False),
    "no text": (status(200, '{"choices": [{"message": {"content": ["a"]}}]}'), False),
    "half an answer": (half, False),
    "half a stream": (stream_that_breaks, True),
    "an error in the stream": (stream_of_an_error, True),
}


@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")  # left half read
@pytest.mark.parametrize("failure", FAILURES)
def test_what_fails_on_the_way_is_asked_anew(ask, server, failure):
    """A server that fails twice and then answers has answered, once and whole."""
    act, stream = FAILURES[failure]
    server.script = [act, act]
    assert "Yes, Zoë 🦊." == ask(server.url, stream=stream)
    assert [QUESTION] * 3 == [body["messages"] for body, _ in server.requests]


def test_a_server_that_stays_silent_is_given_up(ask, server):
    """Each wait has its bound, and the error tells where, how often and why."""
    released = threading.Event()
    server.script = [lambda _: released.wait(30)] * 2
    with pytest.raises(Unavailable) as raised:
        ask(server.url, timeout_s=0.1, attempts=2)
    released.set()
    assert f"{server.url}/chat/completions" == raised.value.target
    assert "2 attempts failed, the last: ReadTimeout" in str(raised.value)


def test_nobody_there_is_unavailable(ask):
    """Where nothing listens, the connection fails and is told."""
    with serving() as server:
        url = server.url
    with pytest.raises(Unavailable, match=r"3 attempts failed, the last: ConnectError"):
        ask(url, attempts=3)


@pytest.mark.parametrize("code", [400, 401, 404])
def test_a_refusal_is_told_at_once_and_without_the_key(ask, server, code):
    """What would be refused again is not asked again; a key that the server echoes is left out."""
    server.script = [status(code, f"what is {KEY}? " + "x" * 1000)]
    with pytest.raises(Unavailable) as raised:
        ask(server.url)
    assert 1 == len(server.requests)
    assert f"status {code}: what is …? xxx" in str(raised.value)
    assert len(str(raised.value)) < 400


def test_no_wait_goes_beyond_the_time_for_the_answer(ask, server):
    """A silent server is left once the time for the answer is over, though a wait may be longer."""
    released = threading.Event()
    server.script = [lambda _: released.wait(30)]
    began_s = time.monotonic()
    try:
        with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
            ask(server.url, timeout_s=20, whole_timeout_s=0.2)
        assert time.monotonic() < began_s + 10
    finally:
        released.set()


def lines(*events: str) -> str:
    return "".join(f"data:{event}\n\n" for event in events)


SAID = '{"choices": [{"delta": {"content": "Yes"}}]}'
SAID_LAST = '{"choices": [{"delta": {"content": "Yes"}, "finish_reason": "stop"}]}'
SHAPES = {
    "no error": ('{"error": null, "choices": [{"message": {"content": "Yes"}}]}', False),
    "no error in a stream": (lines('{"error": null, ' + SAID[1:], "[DONE]"), True),
    "no delta at the end": (
        lines(SAID, '{"choices": [{"delta": null, "finish_reason": "stop"}]}'),
        True,
    ),
    "figures without choices": (lines(SAID_LAST, '{"usage": {}}', "[DONE]"), True),
    "figures, no choices": (lines(SAID_LAST, '{"usage": {}, "choices": null}'), True),
    "a line without data": (lines(SAID_LAST, "", "[DONE]"), True),
    "a byte order mark": ("\ufeff" + lines(SAID, "[DONE]"), True),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_may_have_more_than_text(ask, server, shape):
    """What servers send beside the text does not void it."""
    body, stream = SHAPES[shape]
    server.script = [status(200, body)]
    assert "Yes" == ask(server.url, stream=stream, attempts=1)


@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")  # left half read
def test_too_long_an_answer_is_not_taken(ask, server, monkeypatch):
    """An answer without end is left before it fills the memory."""
    monkeypatch.setattr(http, "ANSWER_BYTES_MAX", 1000)
    server.script = [status(200, " " * 2000)]
    with pytest.raises(Unavailable, match="more than 1000 bytes"):
        ask(server.url)


def test_the_key_is_shown_nowhere(ask, server, caplog):
    """Neither what a model shows of itself nor any log holds the key."""
    with caplog.at_level(logging.DEBUG):
        ask(server.url)
    model = agent.OpenAIModel(server.url, "tiny", KEY)
    model.close()
    shown = f"{model!r} {model} {aio.OpenAIModel(server.url, 'tiny', KEY)!r} {caplog.text}"
    assert KEY not in shown
    assert "tiny" in shown
    assert "tiny" == model.name


@pytest.mark.parametrize("place", [agent, aio])
def test_a_key_that_no_header_can_hold_is_refused(place):
    """Such a key would else be told by the error of who tries to send it."""
    for key in ("sk-very\nsecret", "schlüssel", "sk\0", 5):
        with pytest.raises(Refused) as raised:
            place.OpenAIModel("http://x", "tiny", key)
        assert "sk" not in str(raised.value)
        assert "schl" not in str(raised.value)


def test_a_key_is_sent_without_the_space_around_it(server):
    """A key that was read from a file may end with a newline."""
    with agent.OpenAIModel(server.url, "tiny", f" {KEY}\n") as model:
        text_of(model(QUESTION), lambda _: None)
    assert f"Bearer {KEY}" == server.requests[0][1]["Authorization"]


@pytest.mark.parametrize("url", ["http://[::1", "http://u:secret@a\nb", "http://u:p@secret@x:y"])
def test_what_is_no_address_is_refused(url):
    """An address that cannot be is told when the model is made, without what it holds."""
    with pytest.raises(Refused, match="base_url") as raised:
        agent.OpenAIModel(url, "tiny")
    assert "secret" not in str(raised.value)


def test_a_password_in_the_address_is_used_and_shown_nowhere(ask, server):
    """Neither an error nor what a model shows of itself holds what stands before the host."""
    url = server.url.replace("//", "//zoe:hunter2@")
    server.script = [status(401)]
    with pytest.raises(Unavailable) as raised:
        ask(url)
    assert f"{server.url}/chat/completions" == raised.value.target
    with agent.OpenAIModel(url, "tiny") as model:
        shown = f"{model!r} {raised.value!r} {raised.value}"
        text_of(model(QUESTION), lambda _: None)
    assert "hunter2" not in shown
    assert server.requests[-1][1]["Authorization"].startswith("Basic ")


def test_a_server_that_needs_no_key_is_sent_none(server):
    """Without a key there is no header for it."""
    with agent.OpenAIModel(server.url + "/", "tiny") as model:
        text_of(model(QUESTION), lambda _: None)
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("", 0, 0),
        ("7", 7, 7),
        ("-1", 0, 0),
        ("99999", 120, 120),
        ("Fri, 01 Jan 2100 00:00:00 -0000", 120, 120),
        ("Thu, 01 Jan 2015 00:00:00 -0000", 0, 0),
        ("in a while", 0, 0),
    ],
)
def test_a_server_may_ask_for_patience(header, low, high):
    """Retry-After is heeded, in seconds or as a date, up to two minutes; pauses grow otherwise."""
    server = http.Server("http://x", "tiny", None, pause_s=0.01)
    answer = http.Answer(server)
    answer.begin(429, {"retry-after": header})
    assert low <= answer.retry_after_s <= high
    pauses = server.pauses(answer)
    first, second = next(pauses), next(pauses)
    assert max(0.005, low) <= first <= max(0.01, high)
    assert max(0.01, low) <= second <= max(0.02, high)


def test_what_cannot_be_is_refused():
    """No attempts and no time are mistakes of the caller."""
    with pytest.raises(ValueError):
        agent.OpenAIModel("http://x", "tiny", attempts=0)
    with pytest.raises(ValueError):
        agent.OpenAIModel("http://x", "tiny", timeout_s=0)


MISSING = """
import sys
sys.modules["httpx"] = None
import evstore.agent
from evstore.errors import MissingExtra
for place in (evstore.agent, evstore.agent.aio):
    try:
        place.OpenAIModel
    except MissingExtra as error:
        print(error)
    try:
        place.Nothing
    except AttributeError as error:
        print(error)
"""


def test_without_httpx_everything_else_works():
    """The package loads without httpx, and what needs it names the extra to install."""
    code = MISSING.replace("import evstore.agent\n", "import evstore.agent.aio\n", 1)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert ["this needs the 'agent' extra: pip install 'evstore[agent]'"] * 2 == lines[::2]
    assert all("has no attribute 'Nothing'" in line for line in lines[1::2])


def test_a_session_is_answered_over_http(server):
    """A model behind HTTP answers a session, and its failure is an honest result."""
    answer = {"thought": "", "final_answer": "So it is."}
    server.rule = lambda _: json.dumps(answer)
    with agent.OpenAIModel(server.url, "tiny", pause_s=0.001) as model:
        session = agent.create_session("zoe", model=model)
        assert "So it is." == session.send_message("Is it?").result
        server.script = [status(500)] * 4
        failed = session.send_message("Is it?")
    assert (False, "model_error") == (failed.success, failed.reason)
    assert "4 attempts failed" in failed.result
