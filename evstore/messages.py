"""The door `messages`: the list of messages as a sequence whose every change is an event."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self, overload

import attrs
import orjson

from evstore import values
from evstore.errors import Corrupt
from evstore.events import (
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    MESSAGES_CLEARED,
    Body,
    Event,
    Later,
    Said,
    message_of,
)
from evstore.sides import Decided, Present, Side, recorded, shown_time

PAGE_MESSAGES = 500


@attrs.frozen
class MessageInfo:
    """What is known about a message besides its content; sizes in bytes of its own stored text."""

    seq: int
    time: datetime | None
    actor: str | None
    size_bytes: int


class Messages(Sequence[Any]):
    """The list of messages: JSON objects with a `role`, every other key kept as given.

    Indices and slices are range reads, and only what is asked for is read. A message read is a
    fresh object: changing it changes nothing.
    """

    def __init__(self, side: Side) -> None:
        self._side = side

    @property
    def place(self) -> int:
        """Which door this is: of which side."""
        return id(self._side)

    # Reading.

    def __len__(self) -> int:
        """Return how many messages are in the list."""
        with self._side.look() as present:
            return present.message_count()

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        """Return a message, or the list of messages of a slice; raises IndexError."""
        with self._side.look() as present:
            if not isinstance(index, slice):
                return message_of(_find(present, index)[1])
            start, stop, stride = index.indices(present.message_count())
            if stride < 0:  # Read the same messages forwards.
                picked = range(start, stop, stride)[::-1]
                start, stop = (picked.start, picked.stop) if picked else (0, 0)
            messages = present.contents(start, max(start, stop))[:: abs(stride)]
        return messages[::-1] if stride < 0 else messages

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the messages of one snapshot, read in pages."""
        still = self._side.still()
        start, page_length = 0, PAGE_MESSAGES
        while page_length == PAGE_MESSAGES:
            with still.look() as present:
                page = present.contents(start, start + PAGE_MESSAGES)
            start, page_length = start + PAGE_MESSAGES, len(page)
            yield from page

    def __reversed__(self) -> Iterator[Any]:
        """Iterate over the messages of one snapshot, the newest first."""
        return iter(self[::-1])

    def tail(
        self,
        max_items: int | None = None,
        max_bytes: int | None = None,
        size: Callable[[Any], int] | None = None,
    ) -> list[Any]:
        """Return the newest messages that fit a context window, in order.

        `max_bytes` bounds the sum of their sizes: bytes of stored text, or what `size(message)`
        says (tokens, for example).
        """
        still = self._side.still()
        with still.look() as present:
            count = present.message_count()
        start = 0 if max_items is None else max(0, count - max_items)
        chosen: list[Any] = []
        for end in range(count, start, -PAGE_MESSAGES):
            with still.look() as present:
                page = present.messages(max(start, end - PAGE_MESSAGES), end)
            for _, text in reversed(page):  # outside of the read: `size` may take its time
                message = message_of(text)
                if max_bytes is not None:
                    max_bytes -= _size_bytes(text) if size is None else size(message)
                    if max_bytes < 0:
                        return chosen[::-1]
                chosen.append(message)
        return chosen[::-1]

    def info(self, index: int) -> MessageInfo:
        """Return what is known about a message besides its content; raises IndexError."""
        with self._side.look() as present:
            seq, text = _find(present, index)
            facts = present.facts(seq)
        return MessageInfo(seq, shown_time(facts.time_us), facts.actor, _size_bytes(text))

    def __eq__(self, other: object) -> bool:
        """Tell whether the other holds equal messages in the same order."""
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the messages as a list would show them."""
        return repr(list(self))

    # Writing.

    def append(self, message: Mapping[str, Any]) -> Sequence[Event]:
        """Append a message and return the recorded events; raises NotStorable and TooLarge."""
        return self._side.say([self._side.writer.add(message)], recorded)

    def extend(self, messages: Iterable[Mapping[str, Any]]) -> Sequence[Event]:
        """Append many messages, in one transaction."""
        return self._side.say([self._side.writer.add(message) for message in messages], recorded)

    def __iadd__(self, messages: Iterable[Mapping[str, Any]]) -> Self:
        """Append many messages, in one transaction."""
        self.extend(messages)
        return self

    def pop(self, index: int = -1) -> Any:
        """Remove a message and return it; raises IndexError."""
        message = None

        def decide(present: Present) -> Said:
            nonlocal message
            seq, text = _find(present, index)
            message = message_of(text)
            return [self._removal(seq)]

        return self._side.say(Decided(MESSAGE_REMOVED, decide), lambda _: message)

    def remove(self, index: int, reason: str | None = None) -> Sequence[Event]:
        """Remove the message at an index; raises IndexError, and NotStorable for a reason."""
        why = self._side.writer.reason(reason)

        def decide(present: Present) -> Said:
            return [self._removal(_find(present, index)[0], why)]

        return self._side.say(Decided(MESSAGE_REMOVED, decide), recorded)

    def replace(
        self, index: int, message: Mapping[str, Any], reason: str | None = None
    ) -> Sequence[Event]:
        """Put another message in the place of one; raises IndexError, NotStorable, TooLarge."""
        replace = self._side.writer.replace
        stored, why = self._side.writer.message(message), self._side.writer.reason(reason)

        def decide(present: Present) -> Said:
            seq, _ = _find(present, index)
            if seq < 0:
                return [lambda first: replace(first - seq - 1, stored, why)]
            return [replace(seq, stored, why)]

        return self._side.say(Decided(MESSAGE_REPLACED, decide), recorded)

    def clear(self) -> Sequence[Event]:
        """Remove all messages: one event, or none where the list is empty."""
        body = self._side.writer.clear()
        decide = Decided(MESSAGES_CLEARED, lambda now: [body] if now.message_count() else ())
        return self._side.say(decide, recorded)

    def _removal(self, seq: int, why: bytes = b"") -> Body | Later:
        remove = self._side.writer.remove
        if seq < 0:  # A message of this very batch: its seq is known at the commit.
            return lambda first: remove(first - seq - 1, why)
        return remove(seq, why)


def _size_bytes(text: str | None) -> int:
    """Return how long the text of a message is: what else its event says, a reason, is no part."""
    try:
        return 0 if text is None else len(values.dump(orjson.loads(text)["message"]))
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt("", "an event carries no message") from error


def _find(present: Present, index: int) -> tuple[int, str | None]:
    count = present.message_count()
    position = index + count if index < 0 else index
    if not 0 <= position < count:
        raise IndexError(f"there are {count} messages, and none at {index}")
    return present.messages(position, position + 1)[0]
