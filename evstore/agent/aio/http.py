"""Models behind HTTP, awaited: as `evstore.agent.http`, under asyncio and trio."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Self, Unpack

# First this, which names the missing extra where httpx is not installed.
from evstore.agent.http import FAILURES, Answer, How, Server
from evstore.agent.models import ANEW, Message, Piece
from evstore.aio.running import current

# isort: split
import httpx


class OpenAIModel:
    """A model behind an OpenAI-compatible server, as `evstore.agent.http.OpenAIModel` is one.

    It belongs to the event loop that first asks it; close it there, or use it in `async with`.
    """

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, **how: Unpack[How]
    ) -> None:
        self._server = Server(base_url, model, api_key, **how)
        self._client = httpx.AsyncClient(timeout=self._server.timeout_s)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._server.model

    async def __call__(self, messages: list[Message]) -> AsyncIterator[Piece]:
        """Yield the reply to a conversation as it comes; raises Unavailable."""
        answer = Answer(self._server)
        pauses = self._server.pauses(answer)
        while True:
            try:
                async with aclosing(self._attempt(messages, answer)) as pieces:
                    async for piece in pieces:
                        yield piece
            except FAILURES as error:
                answer.fail(error)
            else:
                return
            await current().pause(next(pauses))
            yield ANEW

    async def _attempt(self, messages: list[Message], answer: Answer) -> AsyncGenerator[str, None]:
        server = self._server
        async with self._client.stream(
            "POST",
            server.url,
            content=server.body(messages),
            headers=server.headers(),
            timeout=answer.wait_s,
        ) as response:
            answer.begin(response.status_code, response.headers)
            async for piece in response.aiter_bytes():
                for text in answer.take(piece):
                    yield text
        for text in answer.end():
            yield text

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        """Return the model."""
        return self

    async def __aexit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        """Close its connections."""
        await self.close()

    def __repr__(self) -> str:
        """Return which model this is, without its key."""
        return f"OpenAIModel({self._server!r})"
