"""Journals: where a conversation and its turns are written down, step by step.

Over a store each step is also an event, in one batch with the message it belongs to, so that the
log tells what the model said and what the tools did, and a turn can be played again from it:

| kind | data |
|---|---|
| `app.agent.run.started` | `text`, `max_iterations`, `model` (its name), `tools` (names), `key` |
| `app.agent.model.replied` | `reply`: the model's words as they came |
| `app.agent.tool.called` | `name`, `arguments` |
| `app.agent.tool.returned` | `name`, and `result` or `error`: the text that the model was shown |
| `app.agent.run.ended` | `success`, `reason`, `result` |

The cause of all these batches is `run:` and the seq of the event with which the run began.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import attrs

from evstore.agent.decisions import is_observation, is_over
from evstore.agent.models import Message
from evstore.agent.storage import ConversationStorage
from evstore.agent.stored import SqliteStorage
from evstore.attempts import attempt
from evstore.errors import Conflict, Unsupported
from evstore.events import (
    MESSAGE_ADDED,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    MESSAGES_CLEARED,
    MESSAGES_REVERTED,
    RUN,
    Event,
)

RUN_STARTED = "app.agent.run.started"
MODEL_REPLIED = "app.agent.model.replied"
TOOL_CALLED = "app.agent.tool.called"
TOOL_RETURNED = "app.agent.tool.returned"
RUN_ENDED = "app.agent.run.ended"
ATTEMPTS = 8
# What makes the conversation another one; a message that is replaced only reads differently.
_MOVING = frozenset({MESSAGE_ADDED, MESSAGE_REMOVED, MESSAGES_CLEARED, MESSAGES_REVERTED})


@attrs.frozen
class Happened:
    """Something that happened in a run besides a message: an event's kind and data."""

    kind: str
    data: dict[str, Any]


Entry = Message | Happened


@attrs.frozen
class Begun:
    """With what a run begins; `key` makes it the only one of that key."""

    text: str
    max_iterations: int
    model: str
    tools: list[str]
    key: str | None


@attrs.define
class Run:
    """One turn as written down: `own` are the messages that followed the user's, in order."""

    cause: str
    text: str
    max_iterations: int | None
    own: list[Message]
    ended: dict[str, Any] | None = None


class Journal(Protocol):
    """Where one session's conversation is written down; each call is whole or has not happened."""

    messages: list[Message]  # the conversation, as of the last refresh and what was written since

    def refresh(self) -> None:
        """Take in what others have written."""

    def unfinished(self) -> Run | None:
        """Return the run that was begun and has not ended, if there is one and it still holds."""

    def keyed(self, key: str) -> Run | None:
        """Return the run that was begun with a key; raises Unsupported where keys are not kept."""

    def reread(self, run: Run) -> Run:
        """Return a run as it was written down, after a writing that may have been interrupted.

        Raises Conflict where others have taken it back meanwhile.
        """

    def begin(self, begun: Begun, messages: Sequence[Message]) -> Run:
        """Begin a run with its first messages, the last of which is the user's."""

    def write(self, run: Run, entries: Sequence[Entry]) -> None:
        """Write down what happened next; raises Conflict where others wrote messages meanwhile."""

    def clear(self) -> None:
        """Forget the conversation, in the storage as well."""


def _messages(entries: Sequence[Entry]) -> list[Message]:
    return [entry for entry in entries if not isinstance(entry, Happened)]


def _end(entries: Sequence[Entry]) -> dict[str, Any] | None:
    """Return what an end says of its run, if there is one among the entries."""
    ends = (entry for entry in entries if isinstance(entry, Happened) and entry.kind == RUN_ENDED)
    return next((end.data for end in ends), None)


class PlainJournal:
    """A journal over any ConversationStorage: the messages alone, all saved with every step.

    A turn that was cut off is told from the last message: a question without an answer.
    """

    def __init__(self, storage: ConversationStorage, session_id: str) -> None:
        self._storage = storage
        self._session_id = session_id
        self.messages: list[Message] = []
        self._saving: list[Message] = []  # what an interrupted saving may have left

    def refresh(self) -> None:
        """Take in what others have written."""
        self.messages = self._saving = self._storage.load(self._session_id)

    def unfinished(self) -> Run | None:
        """Return the run that was begun and has not ended, if there is one."""
        if is_over(self.messages):
            return None
        for index in range(len(self.messages) - 1, -1, -1):
            message = self.messages[index]
            if message.get("role") == "user" and not is_observation(message):
                own = self.messages[index + 1 :]
                return Run("", str(message.get("content")), None, own)
        return None

    def keyed(self, key: str) -> Run | None:
        """Raise Unsupported: among messages alone there is no place for keys."""
        raise Unsupported(
            type(self._storage).__name__, f"turns with a key ({key!r}): use SqliteStorage for them"
        )

    def reread(self, run: Run) -> Run:
        """Return the run: what is saved next replaces what an interrupted saving may have left."""
        return run

    def begin(self, begun: Begun, messages: Sequence[Message]) -> Run:
        """Begin a run with its first messages, the last of which is the user's."""
        self._save(messages)
        return Run("", begun.text, begun.max_iterations, [])

    def write(self, run: Run, entries: Sequence[Entry]) -> None:
        """Save the conversation with what happened next; raises Conflict as `_save` does."""
        self._save(_messages(entries))
        run.own += _messages(entries)
        run.ended = _end(entries)

    def clear(self) -> None:
        """Forget the conversation, in the storage as well."""
        self._storage.delete(self._session_id)
        self.messages = self._saving = []

    def _save(self, messages: Sequence[Message]) -> None:
        """Save the conversation with what was said next; raises Conflict where others have saved.

        No lock lies around both: who saves between the look and the saving is not seen.
        """
        stored = self._storage.load(self._session_id)
        if stored not in (self.messages, self._saving):
            expected, found = len(self.messages), len(stored)
            raise Conflict(self._session_id, f"its {expected} messages", f"{found} of others")
        self._saving = [*self.messages, *messages]
        self._storage.save(self._session_id, self._saving)
        self.messages = self._saving


class StoreJournal:
    """A journal in a session of a store: messages and events, one batch a step."""

    def __init__(self, storage: SqliteStorage, session_id: str) -> None:
        self._storage = storage
        self._session_id = session_id
        self._forget()

    def _forget(self) -> None:
        self._session = self._storage.session(self._session_id)
        self._uid: str | None = None
        self._head = 0
        self._started: dict[str, Event] = {}  # by their causes
        self._ended: dict[str, Event] = {}
        self._causes: dict[str | None, str] = {}  # by the keys
        self.messages: list[Message] = []

    def refresh(self) -> None:
        """Take in what others have written; a new life of the session begins anew."""
        session = self._storage.session(self._session_id)
        head, uid = session.head, session.uid
        if (head, uid) == (self._head, self._uid):
            return
        if uid != self._uid:
            self._forget()
        self._session = session
        view = session.view()
        self.messages = list(view.messages)
        self._take_runs(view.events(self._head, kind=RUN_STARTED))
        self._take_runs(view.events(self._head, kind=RUN_ENDED))
        self._head, self._uid = view.seq, view.uid

    def _take_runs(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind == RUN_STARTED:
                self._started[str(event.cause)] = event
                self._causes[event.data["key"]] = str(event.cause)
            elif event.kind == RUN_ENDED:
                self._ended[str(event.cause)] = event

    def unfinished(self) -> Run | None:
        """Return the run that was begun and has not ended, if there is one and it still holds."""
        newest = next(reversed(self._started), None)
        return None if newest is None or newest in self._ended else self._run(newest)

    def keyed(self, key: str) -> Run | None:
        """Return the run that was begun with a key."""
        cause = self._causes.get(key)
        return None if cause is None else self._run(cause)

    def reread(self, run: Run) -> Run:
        """Return a run as it was written down, after a writing that may have been interrupted."""
        head = self._session.head  # Raises SessionNotFound: in another life, the run is another.
        self.refresh()
        found = self._run(run.cause)
        if found is None:
            raise Conflict(self._session_id, f"the turn {run.cause!r}", f"{head} without it")
        return found

    def _run(self, cause: str) -> Run | None:
        """Return a run; None where no word of the user is left of one that has not ended.

        It was taken back then, or the session was forked within the batch that began it.
        """
        started, ended = self._started[cause], self._ended.get(cause)
        until = ended.seq if ended else self._newest_message()
        said = [
            event.data["message"]
            for event in self._session.events(started.seq, until, kind=MESSAGE_ADDED)
            if event.cause == cause
        ]
        roles = [message["role"] for message in said]
        if "user" not in roles:
            return None
        own = said[roles.index("user") + 1 :]
        data, end = started.data, ended.data if ended else None
        return Run(cause, data["text"], data["max_iterations"], own, end)

    def _newest_message(self) -> int:
        """Return the seq of the newest message; 0 where there is none."""
        return self._session.at(self._head).messages.info(-1).seq if self.messages else 0

    def begin(self, begun: Begun, messages: Sequence[Message]) -> Run:
        """Begin a run with its first messages, the last of which is the user's."""
        started = Happened(RUN_STARTED, attrs.asdict(begun))
        cause = self._record(None, [started, *messages])
        return Run(cause, begun.text, begun.max_iterations, [])

    def write(self, run: Run, entries: Sequence[Entry]) -> None:
        """Write down what happened next; raises Conflict where others wrote messages meanwhile."""
        self._record(run.cause, entries)
        run.own += _messages(entries)
        run.ended = _end(entries)

    def clear(self) -> None:
        """End the life of the session; its log stays readable by its uid."""
        self._storage.delete(self._session_id)
        self._forget()

    def _record(self, cause: str | None, entries: Sequence[Entry]) -> str:
        """Append a batch to the conversation as it is known here; return its cause."""
        uid, self._uid = self._uid, ""  # so that all is read anew, should this be interrupted

        def act() -> tuple[str, Sequence[Event], set[str]]:
            now = self._session.head
            others = {event.kind for event in self._session.events(self._head, now)}
            said = cause or f"{RUN}{now + 1}"
            if others & _MOVING:
                return said, (), others
            with self._session.batch(expect=now, cause=said) as batch:
                for entry in entries:
                    if isinstance(entry, Happened):
                        batch.record(entry.kind, entry.data)
                    else:
                        batch.messages.append(entry)
            return said, batch.events, others

        said, events, others = attempt(act, ATTEMPTS)
        if others & _MOVING:
            raise Conflict(self._session_id, self._head, self._session.head)
        self._take_runs(events)
        self._head, self._uid = events[-1].seq, uid or self._session.uid
        if MESSAGE_REPLACED in others:
            self.messages = list(self._session.at(self._head).messages)
        else:
            self.messages += _messages(entries)
        return said
