"""Agent sessions: conversations over many turns, kept in a storage and gone on with later."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
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
from evstore.agent.journal import Journal, PlainJournal, StoreJournal
from evstore.agent.loop import ITERATIONS_MAX, Agent, ReAct
from evstore.agent.models import Model, text_of
from evstore.agent.offline import OfflineModel
from evstore.agent.storage import ConversationStorage, InMemoryStorage
from evstore.agent.stored import SqliteStorage
from evstore.agent.tools import Tool
from evstore.agent.turns import AgentResult
from evstore.errors import Refused

IN_ITS_TURN = "a turn is under way, which would wait for itself: do this after it"


def create_session(
    session_id: str,
    storage: ConversationStorage | None = None,
    *,
    agent: Agent | None = None,
    model: Model | None = None,
    tools: Iterable[Tool | Callable[..., Any]] = (),
    on_progress: Listener | None = None,
) -> "AgentSession":
    """Create a session, or load the one that the storage has; without a storage in memory only.

    The agent is a ReAct loop over a model (one that works offline by a few rules, unless another
    is given) and Python functions as tools. `on_progress` is called while a turn runs: with an Ask
    when the model is asked (again, where what it has said is void), with each piece of its reply,
    and with a Call before a tool is called. Raises Refused for what has to be awaited.
    """
    answering = agent_of(agent, model, tools)
    if answering.is_async:
        raise Refused("a model or tool that is awaited: use evstore.agent.aio.create_session")
    return AgentSession(session_id, journal_of(session_id, storage), answering, on_progress)


def agent_of(agent: Agent | None, model: Any, tools: Iterable[Tool | Callable[..., Any]]) -> Agent:
    """Return the agent that was given, or the default one with a model and tools."""
    if agent is None:
        return ReAct(OfflineModel() if model is None else model, tools)
    if model is not None or tools:
        raise Refused("an agent has its model and its tools: give either it or them")
    return agent


def journal_of(session_id: str, storage: ConversationStorage | None) -> Journal:
    """Return the journal of a session in a storage, up to date."""
    journal: Journal
    if isinstance(storage, SqliteStorage):
        journal = StoreJournal(storage, session_id)
    else:
        journal = PlainJournal(InMemoryStorage() if storage is None else storage, session_id)
    journal.refresh()
    return journal


class AgentSession:
    """A conversation with an agent; threads that send at the same time are answered in turn.

    A tool or listener that asks the session of its own turn for more than `cancel` is Refused.
    """

    def __init__(
        self,
        session_id: str,
        journal: Journal,
        agent: Agent,
        on_progress: Listener | None = None,
    ) -> None:
        self._session_id = session_id
        self._journal = journal
        self._agent = agent
        self._tell = partial(tell, on_progress)
        self._turn = threading.Lock()
        self._in_turn: int | None = None  # the thread
        self._cancelled = threading.Event()

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self._session_id

    @property
    def message_count(self) -> int:
        """How many messages the conversation has: user, assistant and system."""
        return len(self._journal.messages)

    def send_message(self, text: str, *, key: str | None = None) -> AgentResult:
        """Have a message answered, in 10 iterations of the loop at most.

        A `key` makes a turn the only one of its kind: sent again, it returns the result that is
        recorded; cut off by the end of its process, it goes on where it stood. Then a tool whose
        outcome was not recorded is called again, and each message is there once. Keys need a
        SqliteStorage, Unsupported is raised elsewhere. What fails is told by the result; raised are
        errors of the storage, and Conflict where others write to the same conversation.
        """
        return self.send_message_with_iterations(text, ITERATIONS_MAX, key=key)

    def send_message_with_iterations(
        self, text: str, max_iterations: int, *, key: str | None = None
    ) -> AgentResult:
        """Have a message answered in so many iterations of the loop at most."""
        return self._do(turns.send(self._journal, self._agent, text, max_iterations, key))

    def cut_off(self) -> str | None:
        """Return what was said in the turn that `resume` would finish; None where there is none."""
        with self._taking_turn():
            return turns.cut_off(self._journal)

    def resume(self) -> AgentResult | None:
        """Finish the turn that was cut off when its process ended; None where there is none."""
        return self._do(turns.resume(self._journal, self._agent))

    def abandon(self) -> None:
        """End the turn that `resume` would finish as cancelled, if there is one."""
        self._do(turns.abandon(self._journal))

    def clear_history(self) -> None:
        """Forget the conversation, and remove it from the storage as well."""
        with self._taking_turn():
            self._journal.clear()

    def cancel(self) -> None:
        """End the turn that another thread is in, before its next step; it has no answer then.

        A model or tool that is at work is waited for, one that answers in pieces until the next.
        """
        self._cancelled.set()

    @contextmanager
    def _taking_turn(self) -> Iterator[None]:
        """Wait for the turns of other threads; raises Refused where one waits for its own."""
        if self._in_turn == threading.get_ident() and self._turn.locked():
            raise Refused(IN_ITS_TURN)
        with self._turn:
            self._in_turn = threading.get_ident()
            try:
                yield
            finally:
                self._in_turn = None

    def _do(self, steps: Steps[Outcome]) -> Outcome:
        """Drive a turn; Ctrl-C and `cancel` end it with a result that says so."""
        with self._taking_turn():
            self._cancelled.clear()
            running = Running(steps)
            while (effect := running.next()) is not None:
                try:
                    running.take(self._perform(effect))
                except BaseException as error:  # noqa: BLE001 - the turn deals with it
                    running.fail(effect, error)
        if running.raised is None or isinstance(running.raised, KeyboardInterrupt | Stopped):
            result: Outcome = running.result
            return result
        raise running.raised

    def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, Ask):
            self._check()
            self._tell(effect)
            return text_of(effect.model(effect.messages), hearing(effect, self._tell), self._check)
        if isinstance(effect, Call):
            self._check()
            self._tell(effect)
            return shown(effect.tool.function(**effect.arguments))
        return effect.act()

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise Stopped
