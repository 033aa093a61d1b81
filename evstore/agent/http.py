"""Models behind HTTP: whatever speaks OpenAI's `/chat/completions`, local or far away.

A reply comes in one piece, or in many where it is streamed. What fails on the way (no connection, a
stream that broke off, a server that is busy or out of order) is asked anew as a whole, after a
pause; what it had said is void. In the end the failure is told.
"""

import random
import time
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import attrs
import orjson

from evstore.agent.models import ANEW, Message, Piece
from evstore.errors import MissingExtra, Refused, Unavailable

try:
    import httpx
except ImportError:
    raise MissingExtra("agent") from None

PAUSE_S = 0.5  # before the second attempt; twice as long before each further one
PAUSE_S_MAX = 30.0
RETRY_AFTER_S_MAX = 120.0  # how long a server may have us wait
ANSWER_BYTES_MAX = 16 << 20
_TOLD_CHARACTERS = 200
_TRANSIENT = frozenset({408, 425, 429})


class Broken(Exception):
    """A response that is no answer, and may be one the next time."""


class How(TypedDict, total=False):
    """How to ask; what is left out is as `Server` says."""

    stream: bool
    timeout_s: float
    whole_timeout_s: float
    attempts: int
    pause_s: float
    options: Mapping[str, Any]


FAILURES = (httpx.TransportError, httpx.DecodingError, Broken)  # what is worth another attempt


def _shown(url: str) -> str:
    """Return an address without the user and password that may stand in it."""
    return str(httpx.URL(url).copy_with(userinfo=b""))


def _check_url(_server: object, _field: object, url: Any) -> None:
    try:
        httpx.URL(url)
    except (httpx.InvalidURL, TypeError):  # Its text may hold a password.
        told = "base_url is no address: give one like 'http://localhost:11434/v1'"
        raise Refused(told) from None


def _stripped(key: str | None) -> str | None:
    """Return a key without the newline of the file that it was read from."""
    return key.strip() if isinstance(key, str) else key


def _check_key(_server: object, _field: object, key: Any) -> None:
    """Refuse what no header can hold: the error of who sends it would show it."""
    if key is not None and not (isinstance(key, str) and key.isascii() and key.isprintable()):
        raise Refused("api_key is no line of printable ASCII: give the key alone, as text")


@attrs.frozen
class Server:
    """Where and how to ask; the key, and a password in the address, are shown nowhere.

    Raises Refused for a key that no header can hold, and for what is no address.
    """

    base_url: str = attrs.field(repr=_shown, validator=_check_url)
    model: str
    api_key: str | None = attrs.field(repr=False, converter=_stripped, validator=_check_key)
    stream: bool = False
    timeout_s: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    whole_timeout_s: float = attrs.field(default=600.0, validator=attrs.validators.gt(0))
    attempts: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    pause_s: float = PAUSE_S
    options: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def url(self) -> str:
        """The address of the questions."""
        return f"{self.base_url.rstrip('/')}/chat/completions"

    @property
    def shown_url(self) -> str:
        """The address of the questions, as errors tell it."""
        return _shown(self.url)

    def headers(self) -> dict[str, str]:
        """Return the headers of a request."""
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"Content-Type": "application/json", **key}

    def body(self, messages: list[Message]) -> bytes:
        """Return the body of a request."""
        asked = {**self.options, "model": self.model, "messages": messages}
        return orjson.dumps({**asked, "stream": True} if self.stream else asked, default=str)

    def pauses(self, answer: "Answer") -> Iterator[float]:
        """Yield how long to pause, in seconds, after each attempt that failed but the last.

        Raises Unavailable after that, or where the pause would last beyond the time for the answer.
        """
        for number in range(self.attempts - 1):
            jittered_s = random.uniform(0.5, 1.0) * self.pause_s * 2**number  # noqa: S311 - jitter
            pause_s = max(min(jittered_s, PAUSE_S_MAX), answer.retry_after_s)
            answer.check_time(pause_s)
            yield pause_s
        why = f"{self.attempts} attempts failed, the last: {answer.problem}"
        raise Unavailable(self.shown_url, why)


class Answer:
    """One question to a server: what came back in the attempt under way, or what went wrong."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._until_s = time.monotonic() + server.whole_timeout_s
        self.problem = ""
        self.retry_after_s = 0.0

    def check_time(self, ahead_s: float = 0.0) -> None:
        """Raise Unavailable where the time for the answer is over, or will be after a wait."""
        if time.monotonic() + ahead_s > self._until_s:
            why = f"there is no answer within {self._server.whole_timeout_s} s"
            raise Unavailable(self._server.shown_url, f"{why}. {self.problem}".rstrip(". "))

    @property
    def wait_s(self) -> float:
        """How long the attempt that begins now may wait for the server each time."""
        left_s = self._until_s - time.monotonic()
        return max(0.001, min(self._server.timeout_s, left_s))

    def fail(self, error: Exception) -> None:
        """Remember what went wrong in an attempt that may be repeated."""
        self.problem = self._told(f"{type(error).__name__}: {error}")

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an attempt's response."""
        self._received = bytearray()
        self._read = 0  # so many bytes of a stream are read already
        self._is_over = False
        self._status = status
        self.retry_after_s = min(_seconds(headers.get("retry-after", "")), RETRY_AFTER_S_MAX)

    def take(self, piece: bytes) -> Iterator[str]:
        """Take in a piece of the response; yield what it says, if that is streamed.

        Raises Unavailable where there is too much, or no time left, and Broken to try again.
        """
        self._received += piece
        if len(self._received) > ANSWER_BYTES_MAX:
            reason = f"its answer has more than {ANSWER_BYTES_MAX} bytes"
            raise Unavailable(self._server.shown_url, reason)
        self.check_time()
        if self._server.stream and self._status == httpx.codes.OK and b"\n" in piece:
            yield from self._streamed(self._received.rindex(b"\n") + 1)

    def end(self) -> Iterator[str]:
        """Yield what is left once all has come in; raises Broken to try again, or Unavailable."""
        if self._status != httpx.codes.OK:
            told = self._told(f"status {self._status}: {self._received.decode(errors='replace')}")
            if self._status in _TRANSIENT or self._status >= httpx.codes.INTERNAL_SERVER_ERROR:
                raise Broken(told)
            raise Unavailable(self._server.shown_url, told)
        if not self._server.stream:
            with _reading():
                text = _text(_first(self._received)["message"]["content"])
            yield text
            return
        yield from self._streamed(len(self._received))
        if not self._is_over:
            raise Broken("what came is no answer: the stream broke off")

    def _streamed(self, until: int) -> Iterator[str]:
        """Yield the pieces of text in the lines of server-sent events that end here."""
        lines, self._read = self._received[self._read : until].splitlines(), until
        for line in lines:
            field, _, data = line.removeprefix(BOM_UTF8).partition(b":")
            if field == b"data" and data.strip() == b"[DONE]":
                self._is_over = True
            elif field == b"data" and data.strip():
                with _reading():
                    choice = _first(data)
                    text = _text((choice.get("delta") or {}).get("content") or "")
                self._is_over = self._is_over or bool(choice.get("finish_reason"))
                if text:
                    yield text

    def _told(self, text: str) -> str:
        """Return a text as it may be shown: short, and without the key, should a server echo it."""
        key = self._server.api_key
        return (text.replace(key, "…") if key else text)[:_TOLD_CHARACTERS].strip()


class OpenAIModel:
    """A model behind an OpenAI-compatible server; close it, or use it in a `with` block.

    `base_url` is what stands before `/chat/completions`; `options` go into each request, such as
    `{"temperature": 0}`. With `stream=True` the reply comes piece by piece. A question is asked
    up to `attempts` times, where the connection fails, the server says 429 or 5xx, or its answer is
    broken. `timeout_s` bounds each wait for the server, and `whole_timeout_s` the answer with all
    its attempts, to the end of the wait that is under way then. In the end, and at once for other
    refusals, Unavailable is raised. Refused is raised for a key that no header can hold, and for
    what is no address. Without httpx the import of this module is MissingExtra.
    """

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, **how: Unpack[How]
    ) -> None:
        self._server = Server(base_url, model, api_key, **how)
        self._client = httpx.Client(timeout=self._server.timeout_s)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._server.model

    def __call__(self, messages: list[Message]) -> Iterator[Piece]:
        """Yield the reply to a conversation as it comes; raises Unavailable."""
        answer = Answer(self._server)
        pauses = self._server.pauses(answer)
        while True:
            try:
                yield from self._attempt(messages, answer)
            except FAILURES as error:
                answer.fail(error)
            else:
                return
            time.sleep(next(pauses))
            yield ANEW

    def _attempt(self, messages: list[Message], answer: Answer) -> Iterator[str]:
        server = self._server
        with self._client.stream(
            "POST",
            server.url,
            content=server.body(messages),
            headers=server.headers(),
            timeout=answer.wait_s,
        ) as response:
            answer.begin(response.status_code, response.headers)
            for piece in response.iter_bytes():
                yield from answer.take(piece)
        yield from answer.end()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def __enter__(self) -> Self:
        """Return the model."""
        return self

    def __exit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        """Close its connections."""
        self.close()

    def __repr__(self) -> str:
        """Return which model this is, without its key."""
        return f"OpenAIModel({self._server!r})"


@contextmanager
def _reading() -> Iterator[None]:
    """Raise Broken where what came is not what is expected."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Broken(f"what came is no answer: {error}") from error


def _first(data: bytes | bytearray) -> dict[str, Any]:
    """Return the first choice of a JSON text; empty where it has none, but figures."""
    found = orjson.loads(data)
    if found.get("error") is not None:
        raise ValueError(f"it is an error: {found['error']}")
    choices: list[dict[str, Any]] | None = found.get("choices")
    return choices[0] if choices else {}


def _text(content: Any) -> str:
    if not isinstance(content, str):
        raise TypeError(f"it gave {type(content).__name__} where text is expected")
    return content


def _seconds(retry_after: str) -> float:
    """Return the seconds that a Retry-After header asks for: a number, or a date."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
