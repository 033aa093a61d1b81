"""Calls of tools and their results, paired again, so that model APIs take a conversation.

An API refuses a list in which a tool was called and no result follows at once, or in which a result
stands where no call awaits it. Such lists come from runs that were killed, interrupted or trimmed.
Both forms are understood: OpenAI's (`tool_calls`, answered by messages of the role `tool`) and
Anthropic's (blocks `tool_use` in the content of an assistant, answered by blocks `tool_result` at
the front of the next user message).

A repair is one batch of ordinary events with the cause `repair`. Where a result is missing, the
real one is moved there if it stands further on, and otherwise a synthetic one is made; a result
without a call is removed. No API takes a member of a message that it does not know, so what is
synthetic is marked in the text that it says: it begins with `SYNTHETIC`.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple

import attrs

from evstore.batch import Batch
from evstore.blocks import is_result, is_use
from evstore.errors import Refused
from evstore.events import ERASED, Event, revert_messages
from evstore.session import Session
from evstore.sides import nothing

CAUSE = "repair"
SYNTHETIC = "[evstore repair]"
NO_RESULT = f"{SYNTHETIC} No result of this call was recorded."
NO_CALL = f"{SYNTHETIC} The result of a call that is not in this conversation stood here."

NEW = -1
Form = Literal["openai", "anthropic"]
Key = tuple[Form, str]  # a call: its id, and the form in which it is made and answered


class Missing(NamedTuple):
    """A call whose result should stand before the message at a place, and does not."""

    at: int
    key: Key

    def __str__(self) -> str:
        """Return what is wrong."""
        return f"message {self.at}: before it the result of call {self.key[1]!r} is missing"


class Stray(NamedTuple):
    """A result that no call awaits; `block` is its place in the content, in Anthropic's form.

    `belongs` is the call before it that it belongs to. `between` says that results stand around it.
    """

    at: int
    block: int
    key: Key
    belongs: Missing | None
    between: bool

    def __str__(self) -> str:
        """Return what is wrong."""
        what = "stands too late" if self.belongs else "follows no call that awaits it"
        return f"message {self.at}: the result of call {self.key[1]!r} {what}"


def unpaired(messages: Iterable[Any]) -> Iterator[Missing | Stray]:
    """Yield each call without its result, and each result without its call, as they come.

    Only what has an id that is a text is looked at. Nothing is held but the ids that are open.
    """
    walk = _Walk()
    for index, message in enumerate(messages):
        yield from walk.take(index, message)
    yield from walk.close()


def repair(session: Session, *, actor: str | None = None) -> Sequence[Event]:
    """Pair the calls and results of a session again, in one batch; return its events, if any.

    What follows a place where a result is missing is recorded again behind it, unless the result
    fits into the message there; its times are then those of the repair. Past moments stay as they
    are, and `undo` takes a repair back. Not for a session whose agent is at work: its tool may be,
    too. Raises Conflict where somebody writes meanwhile, TooLarge, and Refused where a forgotten
    message would have to be recorded again.
    """
    with session.batch(cause=CAUSE, actor=actor) as batch:
        if next(unpaired(batch.messages), None) is None:
            return ()
        _write(session, batch, _repaired(list(batch.messages)))
    return batch.events


class _Walk:
    """One pass over messages: which calls await their results at this place."""

    def __init__(self) -> None:
        self._index = 0
        self._open: dict[Key, bool] = {}  # the calls that were just made: is each answered?
        self._answering = False  # whether results have come since
        self._missing: dict[Key, Missing] = {}

    def take(self, index: int, message: Any) -> Iterator[Missing | Stray]:
        """Yield what the next message shows to be unpaired."""
        self._index = index
        role = message.get("role") if type(message) is dict else None
        if role == "assistant":
            calls = list(_calls(message))
            goes_on = all(form == "anthropic" for form, _ in chain(self._open, calls))
            if self._answering or not goes_on:
                yield from self.close()
            for key in calls:
                self._open[key] = False
                self._missing.pop(key, None)
        elif role == "tool" and type(message.get("tool_call_id")) is str:
            yield from self._answer(("openai", message["tool_call_id"]), 0)
        elif role == "user":
            yield from self._take_blocks(message.get("content"))
        else:
            yield from self.close()
        self._index += 1

    def _take_blocks(self, content: Any) -> Iterator[Missing | Stray]:
        blocks = content if type(content) is list and content else [content]
        for number, block in enumerate(blocks):
            if is_result(block):
                yield from self._answer(("anthropic", block["tool_use_id"]), number)
            else:
                yield from self.close()

    def _answer(self, key: Key, block: int) -> Iterator[Stray]:
        if self._open.get(key, True):
            belongs = self._missing.pop(key, None)
            yield Stray(self._index, block, key, belongs, bool(self._open))
        else:
            self._open[key] = self._answering = True

    def close(self) -> Iterator[Missing]:
        """Yield which results are missing, since here none can follow any more."""
        for key, answered in self._open.items():
            if not answered:
                self._missing[key] = Missing(self._index, key)
                yield self._missing[key]
        self._open = {}
        self._answering = False


def _calls(message: dict[str, Any]) -> Iterator[Key]:
    calls, content = message.get("tool_calls"), message.get("content")
    for call in calls if type(calls) is list else ():
        if type(call) is dict and type(call.get("id")) is str:
            yield "openai", call["id"]
    for block in content if type(content) is list else ():
        if is_use(block):
            yield "anthropic", block["id"]


@attrs.define
class _Place:
    """A message of the repaired list: its place in the list before, or NEW; and is it changed."""

    index: int
    message: Any
    is_changed: bool = False


def _repaired(messages: list[Any]) -> list[_Place]:
    """Return the messages as they have to be."""
    found = list(unpaired(messages))
    strays: dict[int, list[Stray]] = {}
    results: dict[Missing, Any] = {}  # real ones that stand elsewhere
    for problem in found:
        if isinstance(problem, Stray):
            strays.setdefault(problem.at, []).append(problem)
            if problem.belongs is not None:
                results[problem.belongs] = _result_at(messages, problem)
    missing: dict[int, list[Any]] = {}
    for problem in found:
        if isinstance(problem, Missing):
            result = results.get(problem) or _synthetic(problem.key)
            missing.setdefault(problem.at, []).append(result)
    places: list[_Place] = []
    for index, message in enumerate([*messages, None]):
        place = _Place(index, message)
        if index in strays:
            place = _without(place, strays[index], places)
        _put_before(places, place, missing.get(index, ()))
    return places


def _result_at(messages: list[Any], stray: Stray) -> Any:
    message = messages[stray.at]
    return message if stray.key[0] == "openai" else message["content"][stray.block]


def _synthetic(key: Key) -> dict[str, Any]:
    """Return what says that a call has no result: a message, or a block of one."""
    form, call_id = key
    if form == "openai":
        return {"role": "tool", "tool_call_id": call_id, "content": NO_RESULT}
    block = {"type": "tool_result", "tool_use_id": call_id, "content": NO_RESULT}
    return {**block, "is_error": True}


def _without(place: _Place, strays: list[Stray], places: list[_Place]) -> _Place:
    """Return a place without the results that do not belong there; its message may be None.

    A user message that is left with nothing says so, where the turns would otherwise not take
    turns; between results it would part them.
    """
    content = place.message.get("content")
    gone = {stray.block for stray in strays}
    rest = [] if place.message["role"] == "tool" else _others(content, gone)
    follows_user = bool(places) and _role(places[-1].message) == "user"
    if not rest:
        if place.message["role"] == "tool" or strays[0].between or follows_user:
            return _Place(NEW, None)
        rest = [{"type": "text", "text": NO_CALL}]
    return _Place(place.index, {**place.message, "content": rest}, is_changed=True)


def _others(blocks: list[Any], gone: set[int]) -> list[Any]:
    return [block for number, block in enumerate(blocks) if number not in gone]


def _role(message: Any) -> Any:
    return message.get("role") if type(message) is dict else None


def _put_before(places: list[_Place], place: _Place, results: Iterable[Any]) -> None:
    """Add a place, with results before it: blocks go into a user message that is there."""
    results = list(results)
    blocks = [result for result in results if is_result(result)]
    places += [_Place(NEW, result) for result in results if not is_result(result)]
    if blocks and _role(place.message) == "user":
        _put_blocks(place, blocks, in_front=True)
    elif blocks and places and _role(places[-1].message) == "user":
        _put_blocks(places[-1], blocks, in_front=False)
    elif blocks:
        places.append(_Place(NEW, {"role": "user", "content": blocks}))
    if place.message is not None:
        places.append(place)


def _put_blocks(place: _Place, blocks: list[Any], *, in_front: bool) -> None:
    content = place.message.get("content")
    if type(content) is str:
        content = [{"type": "text", "text": content}] if content else []
    elif type(content) is not list:
        content = [] if content is None else [content]
    content = [*blocks, *content] if in_front else [*content, *blocks]
    place.message = {**place.message, "content": content}
    place.is_changed = True


def _write(session: Session, batch: Batch, places: list[_Place]) -> None:
    """Say what makes the list of a batch the places: cut it, replace, remove, append."""
    new = (number for number, place in enumerate(places) if place.index == NEW)
    start = next(new, len(places))
    in_place, behind = places[:start], places[start:]
    if any(place.message is ERASED for place in behind):
        raise Refused(
            "the list has a forgotten message behind a call without its result, and what is "
            "forgotten cannot be recorded again: remove that message first"
        )
    length = in_place[-1].index + 1 if in_place else 0
    _cut(session, batch, length)
    for place in in_place:
        if place.is_changed:
            batch.messages.replace(place.index, place.message, CAUSE)
    kept = {place.index for place in in_place}
    for index in reversed(range(length)):
        if index not in kept:
            batch.messages.remove(index, CAUSE)
    batch.messages.extend(place.message for place in behind)


def _cut(session: Session, batch: Batch, length: int) -> None:
    """Shorten the list to a length: by one event, where it once was as it is up to there."""
    count = len(batch.messages)
    if length == 0:
        batch.messages.clear()
    elif length + 1 < count:
        newest = batch.messages.info(length - 1).seq
        with session.at(newest).place.look() as moment:
            then = moment.message_list().ranges
        with session.at(batch.seq).place.look() as moment:
            is_whole = moment.message_list().ordinals(0, length) == then
        if is_whole:
            batch.say([revert_messages(newest)], nothing)
    for index in reversed(range(length, len(batch.messages))):
        batch.messages.remove(index, CAUSE)
