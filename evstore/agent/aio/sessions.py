"""Agent sessions, awaited: the same turns, for the tasks of asyncio and of trio."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from inspect import isawaitable
from typing import Any

from evstore.agent import turns
from evstore.agent.decisions import shown
from evstore.agent.effects import (
    Ask,
    Call,
    Effect,
    Listener,
    Outcome,
    Running,
    Steps,
    Stopped,
    hearing,
    tell,
)
from evstore.agent.journal import Journal
from evstore.agent.loop import ITERATIONS_MAX, Agent
from evstore.agent.models import AwaitedModel, Piece, Reply, text_of
from evstore.agent.session import IN_ITS_TURN, agent_of, journal_of
from evstore.agent.storage import ConversationStorage
from evstore.agent.tools import Tool, is_async
from evstore.agent.turns import AgentResult
from evstore.aio.loops import AsyncioLoop
from evstore.aio.running import current
from evstore.aio.workers import Workers
from evstore.errors import Refused


async def create_session(
    session_id: str,
    storage: ConversationStorage | None = None,
    *,
    agent: Agent | None = None,
    model: AwaitedModel | None = None,
    tools: Iterable[Tool | Callable[..., Any]] = (),
    on_progress: Listener | None = None,
) -> "AgentSession":
    """Create a session, or load the one that the storage has; without a storage in memory only.

    Models and tools may be awaited; those that are not, and the storage, are called in threads.
    `on_progress` is as for `evstore.agent.create_session`; of a model that is not awaited, it
    hears the pieces in the thread of that model.
    """
    keeping = Workers(1)
    answering = agent_of(agent, model, tools)
    journal = await keeping.read(partial(journal_of, session_id, storage))
    return AgentSession(session_id, journal, answering, keeping, on_progress)


class AgentSession:
    """A conversation with an agent; tasks that send at the same time are answered in turn.

    A task that is cancelled in its turn learns of it once the end of the turn is written down. A
    tool or model that is called in a thread is then left behind, and what it does is unknown. A
    tool that asks the session of its own turn for anything is Refused.
    """

    def __init__(
        self,
        session_id: str,
        journal: Journal,
        agent: Agent,
        keeping: Workers,
        on_progress: Listener | None = None,
    ) -> None:
        self._session_id = session_id
        self._journal = journal
        self._agent = agent
        self._keeping = keeping  # a thread for the storage, which no tool can hold up
        self._calling = Workers(1)  # a thread for the model and the tools
        self._tell = partial(tell, on_progress)
        self._turn = _lock()
        self._in_turn: object = None  # the task

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self._session_id

    @property
    def message_count(self) -> int:
        """How many messages the conversation has: user, assistant and system."""
        return len(self._journal.messages)

    async def send_message(self, text: str, *, key: str | None = None) -> AgentResult:
        """Have a message answered, as `evstore.agent.AgentSession.send_message` does."""
        return await self.send_message_with_iterations(text, ITERATIONS_MAX, key=key)

    async def send_message_with_iterations(
        self, text: str, max_iterations: int, *, key: str | None = None
    ) -> AgentResult:
        """Have a message answered in so many iterations of the loop at most."""
        steps = turns.send(self._journal, self._agent, text, max_iterations, key)
        return await self._do(steps)

    async def cut_off(self) -> str | None:
        """Return what was said in the turn that `resume` would finish; None where there is none."""
        async with self._taking_turn():
            return await self._keeping.finish(partial(turns.cut_off, self._journal))

    async def resume(self) -> AgentResult | None:
        """Finish the turn that was cut off when its process ended; None where there is none."""
        return await self._do(turns.resume(self._journal, self._agent))

    async def abandon(self) -> None:
        """End the turn that `resume` would finish as cancelled, if there is one."""
        await self._do(turns.abandon(self._journal))

    async def clear_history(self) -> None:
        """Forget the conversation, and remove it from the storage as well."""
        async with self._taking_turn():
            await self._keeping.finish(self._journal.clear)

    @asynccontextmanager
    async def _taking_turn(self) -> AsyncIterator[None]:
        """Wait for the turns of other tasks; raises Refused where one waits for its own."""
        task = _task()
        if self._in_turn is task:
            raise Refused(IN_ITS_TURN)
        async with self._turn:
            self._in_turn = task
            try:
                yield
            finally:
                self._in_turn = None

    async def _do(self, steps: Steps[Outcome]) -> Outcome:
        """Drive a turn; what ends it from outside is raised once the end is written down."""
        async with self._taking_turn():
            running = Running(steps)
            while (effect := running.next()) is not None:
                try:
                    running.take(await self._perform(effect))
                except BaseException as error:  # noqa: BLE001 - the turn deals with it
                    running.fail(effect, error)
        if running.raised is not None:
            raise running.raised
        result: Outcome = running.result
        return result

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Ask):
            self._tell(effect)
            return await self._ask(effect)
        if isinstance(effect, Call):
            self._tell(effect)
            called = partial(effect.tool.function, **effect.arguments)
            return shown(await self._called(effect.tool.function, called))
        return await self._keeping.finish(effect.act)

    async def _ask(self, ask: Ask) -> str:
        heard, is_left = hearing(ask, self._tell), threading.Event()

        def hear(piece: Piece) -> None:
            if is_left.is_set():  # A model that was left behind in its thread is heard no more.
                raise Stopped
            heard(piece)

        def asked() -> Any:
            reply = ask.model(ask.messages)
            is_awaited = isawaitable(reply) or isinstance(reply, AsyncIterable)
            return _text_of(reply, hear) if is_awaited else text_of(reply, hear)

        try:
            text: str = await self._called(ask.model, asked)
        finally:
            is_left.set()
        return text

    async def _called(self, function: Callable[..., Any], call: Callable[[], Any]) -> Any:
        """Return what a call gives, made in a thread unless the function is one to be awaited."""
        result = call() if is_async(function) else await self._in_thread(call)
        return await result if isawaitable(result) else result

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        try:
            return await self._calling.read(call)
        except Exception:
            raise
        except BaseException:  # It may be at work for ever: what is called next has a new thread.
            self._calling.close()
            self._calling = Workers(1)
            raise


async def _text_of(reply: Any, hear: Callable[[Piece], None]) -> str:
    """Return the text of a reply that is awaited, at once or piece by piece; each is heard."""
    if isawaitable(reply):
        reply = await reply
    if not isinstance(reply, AsyncIterable):
        return text_of(reply, hear)
    whole = Reply()
    try:
        async for piece in reply:
            whole.take(piece)
            hear(piece)
    finally:
        if isinstance(reply, AsyncGenerator):
            await reply.aclose()
    return whole.text


def _task() -> object:
    """Return the task that is running."""
    if isinstance(current(), AsyncioLoop):
        return asyncio.current_task()
    import trio

    return trio.lowlevel.current_task()


def _lock() -> AbstractAsyncContextManager[Any]:
    """Return the lock of the event loop that is running."""
    if isinstance(current(), AsyncioLoop):
        return asyncio.Lock()
    import trio

    return trio.Lock()
