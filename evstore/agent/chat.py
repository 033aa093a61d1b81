"""A chat: one conversation with an agent in a store, and what its commands do, without a screen."""

import ast
import operator
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from evstore.agent.context import SessionContext
from evstore.agent.effects import Listener, Outcome
from evstore.agent.journal import RUN_STARTED
from evstore.agent.loop import ITERATIONS_MAX
from evstore.agent.models import Model, name_of
from evstore.agent.session import AgentSession, create_session
from evstore.agent.stored import SqliteStorage
from evstore.agent.turns import AgentResult
from evstore.errors import Refused
from evstore.events import REDO, REVERT, UNDO, Event
from evstore.moments import When
from evstore.session import Session
from evstore.view import View

EXPRESSION_CHARACTERS_MAX = 200
BITS_MAX = 4096  # of a whole number that a calculation comes to
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


class Chat:
    """A conversation that can be taken back by turns, looked at in the past, and gone on in forks.

    The agent may calculate, look at the clock, and read and set the variables of the session.
    Raises what the storage raises.
    """

    def __init__(
        self,
        storage: SqliteStorage,
        session_id: str,
        model: Model,
        *,
        max_iterations: int = ITERATIONS_MAX,
        on_progress: Listener | None = None,
    ) -> None:
        self._storage = storage
        self._model = model
        self._max_iterations = max_iterations
        self._on_progress = on_progress
        self._agent = self._open(session_id)

    def _open(self, session_id: str) -> AgentSession:
        tools: list[Callable[..., Any]] = [
            calculate,
            now,
            self.get_variable,
            self.set_variable,
            self.list_variables,
        ]
        return create_session(
            session_id,
            self._storage,
            model=self._model,
            tools=tools,
            on_progress=self._on_progress,
        )

    @property
    def session(self) -> Session:
        """The session underneath; after `clear`, one that is not born yet."""
        return self._storage.session(self._agent.session_id)

    @property
    def model_name(self) -> str:
        """The name of the model that is asked."""
        return name_of(self._model)

    # What is said.

    def say(self, text: str) -> AgentResult:
        """Have a message answered."""
        return self._closed(
            lambda: self._agent.send_message_with_iterations(text, self._max_iterations)
        )

    @property
    def cut_off(self) -> str | None:
        """What the user said in the turn that was cut off; None where there is none."""
        return self._agent.cut_off()

    def resume(self) -> AgentResult | None:
        """Finish the turn that was cut off; None where there is none."""
        return self._closed(self._agent.resume)

    def _closed(self, act: Callable[[], Outcome]) -> Outcome:
        """Do something that leaves no turn open, even where Ctrl-C comes between two steps."""
        try:
            return act()
        except KeyboardInterrupt:
            self._agent.abandon()
            raise

    # What the agent may use.

    def get_variable(self, name: str) -> Any:
        """Return the value of a variable of this session; null where there is none."""
        return SessionContext(self.session).get_variable(name)

    def set_variable(self, name: str, value: Any) -> str:
        """Set a variable of this session."""
        SessionContext(self.session).set_variable(name, value)
        return f"{name} is set."

    def list_variables(self) -> list[str]:
        """Return the names of the variables of this session."""
        return SessionContext(self.session).list_variables()

    # What the commands do.

    def clear(self) -> str | None:
        """End the life of the session; return its uid, under which its log stays, if it lived."""
        uid = self.session.uid
        self._agent.clear_history()
        return uid

    def undo(self) -> str | None:
        """Take back the newest turn that holds, all of it and what came after it, as one batch.

        Variables and messages are as before it; further undos take back the turns before. Return
        what the user said in it; None where no turn is left.
        """
        session = self.session
        for event in _holding(session):
            if event.kind == RUN_STARTED and session.revert(event.seq - 1):
                return str(event.data["text"])
        return None

    def redo(self) -> str | None:
        """Bring back the turn that the newest undo took back, until something else is recorded.

        Return what the user said in it; None where there is none.
        """
        session, seq = self.session, self.session.head
        while (batch := _batch(session, seq)) and (to := _returned_to(batch[0])) is not None:
            (after,) = session.events(to, limit=1)
            if after.kind == RUN_STARTED:
                session.revert(batch[0].seq - 1)
                return str(after.data["text"])
            seq = to
        return None

    def fork(self, name: str) -> None:
        """Fork the session as it is, and go on in the fork; raises Taken and SessionNotFound."""
        self.session.fork(name)
        self._agent = self._open(name)

    def at(self, moment: When) -> View:
        """Return the session at a moment, without changing it; raises NoSuchMoment."""
        return self.session.at(moment)


def _batch(session: Session, seq: int) -> list[Event]:
    """Return the batch that ends at a seq, the oldest event first; empty at 0."""
    events = session.events(0, seq, reverse=True)
    newest = next(events, None)
    if newest is None:
        return []
    others = takewhile(lambda event: event.position == newest.position, events)
    return [newest, *others][::-1]


def _returned_to(event: Event) -> int | None:
    """Return the moment to which the batch of an event returned, if it did."""
    cause, _, number = (event.cause or "").partition(":")
    if not number.isdecimal():
        return None
    moments = {REVERT: int(number), UNDO: int(number) - 1, REDO: int(number) - 1}
    to = moments.get(f"{cause}:", event.seq)
    return to if to < event.seq else None


def _holding(session: Session) -> Iterator[Event]:
    """Yield the events that make the session what it is, the newest first.

    Where a batch has returned to a moment, what lies between has no effect any more.
    """
    seq: int | None = session.head
    while seq is not None:
        at, seq = seq, None
        for event in session.events(0, at, reverse=True):
            seq = _returned_to(event)
            if seq is not None:
                break
            yield event


def now() -> str:
    """Return the date and time, in UTC."""
    return f"{datetime.now(UTC):%A, %Y-%m-%d %H:%M:%S} UTC"


def calculate(expression: str) -> Any:
    """Return the value of an expression of numbers, + - * / // % ** and parentheses."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise Refused(f"an expression has at most {EXPRESSION_CHARACTERS_MAX} characters")
    return _value(ast.parse(expression.strip(), mode="eval").body)


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op, operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand))
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            first, second = _value(left), _value(right)
            _check_size(op, first, second)
            return _OPERATORS[type(op)](first, second)
    raise Refused(f"{ast.unparse(node)!r} is no number: use numbers, + - * / // % ** and ( )")


def _check_size(op: ast.operator, first: Any, second: Any) -> None:
    """Raise Refused for a power that would take memory without end."""
    is_whole = isinstance(first, int) and isinstance(second, int)
    if isinstance(op, ast.Pow) and is_whole and first.bit_length() * abs(second) > BITS_MAX:
        raise Refused(f"{first}**{second} has more than {BITS_MAX} bits: use smaller numbers")
