"""The doors: `variables`, `metadata` and `messages`, the same on a Session, a View and a Batch.

A door holds nothing. It asks its side what is there (`look`) and tells it what happened (`say`).
"""

from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from contextlib import AbstractContextManager
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Protocol, overload

import attrs

from evstore import values
from evstore.events import ANY, ERASED, Body, Event, Sentinel, Writer, from_microseconds
from evstore.state import VariableInfo

Later = Callable[[int], Body]
Said = Sequence[Body | Later]
PAGE_MESSAGES = 500
_NO_DEFAULT: Any = object()


class Found(Protocol):
    """A variable as found: the seq that set it, the seq since which it was never deleted, its
    deadline (µs), and the text of its value."""

    @property
    def seq(self) -> int: ...
    @property
    def created(self) -> int: ...
    @property
    def operand(self) -> int | None: ...
    @property
    def text(self) -> str | None: ...


class Facts(Protocol):
    """What is known of an event besides its data."""

    @property
    def time_us(self) -> int | None: ...
    @property
    def actor(self) -> str | None: ...
    @property
    def size_bytes(self) -> int: ...


class Present(Protocol):
    """What a side lets its doors see; message texts are the texts of their events."""

    def variable(self, family: int, name: str) -> Found | None: ...
    def variables(self, family: int) -> Mapping[str, Found]: ...
    def count(self, family: int) -> int: ...
    def message_count(self) -> int: ...
    def messages(self, start: int, stop: int) -> list[tuple[int, str | None]]: ...
    def facts(self, seq: int) -> Facts: ...


class Side(Protocol):
    """What a door belongs to: a Session, a View or a Batch."""

    @property
    def writer(self) -> Writer: ...
    def look(self) -> AbstractContextManager[Present]: ...
    def still(self) -> "Side": ...
    def say(self, said: Said | Callable[[Present], Said]) -> Sequence[Event]: ...


def _time(time_us: int | None) -> datetime | None:
    return None if time_us is None else from_microseconds(time_us)


def _value(found: Found) -> Any:
    return ERASED if found.text is None else values.decode(found.text)


def _message(text: str | None) -> Any:
    return ERASED if text is None else values.decode(text)["message"]


class Variables(MutableMapping[str, Any]):
    """Named values; every assignment is one event, every compound step one transaction.

    A value read is a fresh object: changing it changes nothing. Names come in order.
    """

    def __init__(self, side: Side, family: int) -> None:
        self._side = side
        self._family = family

    # Reading.

    def __getitem__(self, name: str) -> Any:
        """Return the value; raises KeyError where the name is absent."""
        with self._side.look() as present:
            found = present.variable(self._family, name)
        if found is None:
            raise KeyError(name)
        return _value(found)

    def __contains__(self, name: object) -> bool:
        """Tell whether the name is there."""
        if not isinstance(name, str):
            return False
        with self._side.look() as present:
            return present.variable(self._family, name) is not None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in order, from one snapshot."""
        return iter(self._all())

    def __len__(self) -> int:
        """Return how many names are there."""
        with self._side.look() as present:
            return present.count(self._family)

    def keys(self) -> KeysView[str]:
        """Return the names, from one snapshot."""
        return self._all().keys()

    def values(self) -> ValuesView[Any]:
        """Return the values in order of name, from one snapshot."""
        return self._snapshot().values()

    def items(self) -> ItemsView[str, Any]:
        """Return names and values, from one snapshot."""
        return self._snapshot().items()

    def match(self, pattern: str) -> dict[str, Any]:
        """Return the variables whose names match a case-sensitive glob; `*` crosses dots."""
        found = self._all()
        return {name: _value(found[name]) for name in found if fnmatchcase(name, pattern)}

    def info(self, name: str) -> VariableInfo:
        """Return what is known about a variable besides its value; raises KeyError."""
        with self._side.look() as present:
            found = present.variable(self._family, name)
            if found is None:
                raise KeyError(name)
            facts = present.facts(found.seq)
            created = present.facts(found.created)
        text = found.text or ""
        return VariableInfo(
            seq=found.seq,
            time=_time(facts.time_us),
            created_at=_time(created.time_us),
            actor=facts.actor,
            size_bytes=len(text.encode()),
            type=values.type_name(text),
            expires_at=_time(found.operand),
        )

    def __repr__(self) -> str:
        """Return the variables as a dict would show them."""
        return repr(self._snapshot())

    def _all(self) -> Mapping[str, Found]:
        with self._side.look() as present:
            return present.variables(self._family)

    def _snapshot(self) -> dict[str, Any]:
        return {name: _value(found) for name, found in self._all().items()}

    # Writing.

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a variable: one event."""
        self.set(name, value)

    def set(self, name: str, value: Any, *, expect: int | Sentinel = ANY) -> Sequence[Event]:
        """Set a variable and return the recorded events.

        `expect` is the seq of the event that last set it, or ABSENT; otherwise it is a Conflict.
        Raises NotStorable, TooLarge, TooMany and BadName.
        """
        return self._side.say([self._side.writer.set(self._family, name, value, expect)])

    def __delitem__(self, name: str) -> None:
        """Delete a variable; raises KeyError where it is absent."""
        self.pop(name)

    @overload
    def pop(self, name: str, /) -> Any: ...
    @overload
    def pop(self, name: str, /, default: Any) -> Any: ...
    def pop(self, name: str, /, default: Any = _NO_DEFAULT) -> Any:
        """Delete a variable and return its value, or the default where it is absent."""
        value = default

        def decide(present: Present) -> Said:
            nonlocal value
            found = present.variable(self._family, name)
            if found is None and default is _NO_DEFAULT:
                raise KeyError(name)
            if found is None:
                return ()
            value = _value(found)
            return [self._side.writer.delete(self._family, name)]

        self._side.say(decide)
        return value

    def popitem(self) -> tuple[str, Any]:
        """Delete the variable that was set last and return it; raises KeyError where none is."""
        item: tuple[str, Any] = ("", None)

        def decide(present: Present) -> Said:
            nonlocal item
            found = present.variables(self._family)
            if not found:
                raise KeyError("there are no variables")
            # A pending batch numbers its own events -1, -2, … and they are newer than all others.
            name = max(found, key=lambda name: (found[name].seq < 0, abs(found[name].seq)))
            item = (name, _value(found[name]))
            return [self._side.writer.delete(self._family, name)]

        self._side.say(decide)
        return item

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value; where the name is absent, set it to the default first."""
        body = self._side.writer.set(self._family, name, default)
        value = default

        def decide(present: Present) -> Said:
            nonlocal value
            found = present.variable(self._family, name)
            if found is None:
                return [body]
            value = _value(found)
            return ()

        self._side.say(decide)
        return value

    def clear(self) -> None:
        """Delete all variables, in one transaction."""
        delete = self._side.writer.delete
        self._side.say(
            lambda present: [delete(self._family, name) for name in present.variables(self._family)]
        )

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Set many variables, in one transaction."""
        write = self._side.writer.set
        self._side.say(
            [write(self._family, name, value) for name, value in dict(other, **named).items()]
        )

    def __ior__(self, other: Any) -> "Variables":
        """Set many variables, in one transaction."""
        self.update(other)
        return self


@attrs.frozen
class MessageInfo:
    """What is known about a message besides its content; sizes in bytes of the stored text."""

    seq: int
    time: datetime | None
    actor: str | None
    size_bytes: int


class Messages(Sequence[Any]):
    """The list of messages: JSON objects with a `role`, every other key kept as given.

    Indices and slices are range reads, and only what is asked for is read. A message read is a fresh
    object: changing it changes nothing.
    """

    def __init__(self, side: Side) -> None:
        self._side = side

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
                return _message(_find(present, index)[1])
            start, stop, stride = index.indices(present.message_count())
            if stride < 0:  # Read the same messages forwards.
                picked = range(start, stop, stride)[::-1]
                start, stop = (picked.start, picked.stop) if picked else (0, 0)
            found = present.messages(start, max(start, stop))
        messages = [_message(text) for _, text in found[:: abs(stride)]]
        return messages[::-1] if stride < 0 else messages

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the messages of one snapshot, read in pages."""
        still = self._side.still()
        start, page_length = 0, PAGE_MESSAGES
        while page_length == PAGE_MESSAGES:
            with still.look() as present:
                page = present.messages(start, start + PAGE_MESSAGES)
            start, page_length = start + PAGE_MESSAGES, len(page)
            for _, text in page:
                yield _message(text)

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
        with self._side.look() as present:
            count = present.message_count()
            start = 0 if max_items is None else max(0, count - max_items)
            if max_bytes is None:
                return [_message(text) for _, text in present.messages(start, count)]
            chosen: list[Any] = []
            for page in range(count, start, -PAGE_MESSAGES):
                for _, text in reversed(present.messages(max(start, page - PAGE_MESSAGES), page)):
                    message = _message(text)
                    max_bytes -= len((text or "").encode()) if size is None else size(message)
                    if max_bytes < 0:
                        return chosen[::-1]
                    chosen.append(message)
            return chosen[::-1]

    def info(self, index: int) -> MessageInfo:
        """Return what is known about a message besides its content; raises IndexError."""
        with self._side.look() as present:
            seq, _ = _find(present, index)
            facts = present.facts(seq)
        return MessageInfo(seq, _time(facts.time_us), facts.actor, facts.size_bytes)

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
        return self._side.say([self._side.writer.add(message)])

    def extend(self, messages: Iterable[Mapping[str, Any]]) -> Sequence[Event]:
        """Append many messages, in one transaction."""
        return self._side.say([self._side.writer.add(message) for message in messages])

    def __iadd__(self, messages: Iterable[Mapping[str, Any]]) -> "Messages":
        """Append many messages, in one transaction."""
        self.extend(messages)
        return self

    def pop(self, index: int = -1) -> Any:
        """Remove a message and return it; raises IndexError."""
        message = None

        def decide(present: Present) -> Said:
            nonlocal message
            seq, text = _find(present, index)
            message = _message(text)
            return [self._removal(seq, None)]

        self._side.say(decide)
        return message

    def remove(self, index: int, reason: str | None = None) -> Sequence[Event]:
        """Remove the message at an index; raises IndexError."""
        return self._side.say(lambda present: [self._removal(_find(present, index)[0], reason)])

    def replace(
        self, index: int, message: Mapping[str, Any], reason: str | None = None
    ) -> Sequence[Event]:
        """Put another message in the place of one; raises IndexError, NotStorable, TooLarge."""
        replace = self._side.writer.replace
        stored = self._side.writer.message(message)

        def decide(present: Present) -> Said:
            seq, _ = _find(present, index)
            if seq < 0:
                return [lambda first: replace(first - seq - 1, stored, reason)]
            return [replace(seq, stored, reason)]

        return self._side.say(decide)

    def clear(self) -> Sequence[Event]:
        """Remove all messages: one event, or none where the list is empty."""
        body = self._side.writer.clear()
        return self._side.say(lambda present: [body] if present.message_count() else ())

    def _removal(self, seq: int, reason: str | None) -> Body | Later:
        remove = self._side.writer.remove
        if seq < 0:  # A message of this very batch: its seq is known at the commit.
            return lambda first: remove(first - seq - 1, reason)
        return remove(seq, reason)


def _find(present: Present, index: int) -> tuple[int, str | None]:
    count = present.message_count()
    position = index + count if index < 0 else index
    if not 0 <= position < count:
        raise IndexError(f"there are {count} messages, and none at {index}")
    return present.messages(position, position + 1)[0]
