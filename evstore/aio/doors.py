"""The doors of a session, awaited: each step is that of the plain door, and waits for no disk."""

from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    ItemsView,
    Iterable,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from typing import Any, Generic, TypeVar, cast, overload

from evstore.aio.hands import Hands
from evstore.deadlines import Ttl
from evstore.events import ANY, Event, Said, Sentinel, Writer
from evstore.messages import PAGE_MESSAGES, MessageInfo
from evstore.messages import Messages as PlainMessages
from evstore.session import Session as PlainSession
from evstore.sides import Present, Side
from evstore.state import VariableInfo
from evstore.variables import Variables as PlainVariables

Result = TypeVar("Result")
Plain = TypeVar("Plain", PlainVariables, PlainMessages)


class Telling:
    """A side whose answers have to be awaited: what it is told goes into the next group.

    The plain doors write through it: what they say, and how they decide, is the same everywhere.
    """

    def __init__(self, hands: Hands, plain: PlainSession) -> None:
        self._hands = hands
        self._plain = plain

    def as_side(self) -> Side:
        """Return itself, for doors to write through; whatever they return is to be awaited."""
        return cast("Side", self)

    @property
    def writer(self) -> Writer:
        """What makes bodies, within the limits of the store."""
        return self._plain.writer

    def say(
        self,
        said: Said | Callable[[Present], Said],
        result: Callable[[Sequence[Event]], Result],
    ) -> Coroutine[Any, Any, Result]:
        """Have the next group append what is said, as one batch; what is awaited is its result."""
        return self._hands.say(self._plain, self._plain.drafted(said), result)


def _awaited(answer: Result) -> Awaitable[Result]:
    """Return what gives the answer of a door that writes through `Telling`."""
    return cast("Awaitable[Result]", answer)


class _Door(ABC, Generic[Plain]):
    """A door that reads as the plain door of one side, and writes as that of another."""

    def __init__(self, hands: Hands, reading: Side, writing: Side) -> None:
        self._hands = hands
        self._reading = reading
        self._writing = writing

    @abstractmethod
    def _door(self, side: Side) -> Plain:
        """Return the plain door of a side."""

    async def _read(self, step: Callable[[Plain], Result]) -> Result:
        door = self._door(self._reading)
        return await self._hands.read(lambda: step(door))


class Variables(_Door[PlainVariables]):
    """Named values, as `evstore.Variables` has them; each step is awaited.

    What is written is encoded when the step begins: changing the value afterwards changes nothing.
    """

    def __init__(self, hands: Hands, reading: Side, writing: Side, family: int) -> None:
        super().__init__(hands, reading, writing)
        self._family = family

    def _door(self, side: Side) -> PlainVariables:
        return PlainVariables(side, self._family)

    async def get(self, name: str, default: Any = None) -> Any:
        """Return the value, or the default where the name is absent."""
        return await self._read(lambda door: door.get(name, default))

    async def contains(self, name: str) -> bool:
        """Tell whether the name is there."""
        return await self._read(lambda door: name in door)

    async def count(self) -> int:
        """Return how many names are there."""
        return await self._read(len)

    async def keys(self) -> KeysView[str]:
        """Return the names, from one snapshot."""
        return await self._read(lambda door: door.keys())

    async def values(self) -> ValuesView[Any]:
        """Return the values in order of name, from one snapshot."""
        return await self._read(lambda door: door.values())

    async def items(self) -> ItemsView[str, Any]:
        """Return names and values, from one snapshot."""
        return await self._read(lambda door: door.items())

    async def match(self, pattern: str) -> dict[str, Any]:
        """Return the variables whose names match a case-sensitive glob; `*` crosses dots."""
        return await self._read(lambda door: door.match(pattern))

    async def info(self, name: str) -> VariableInfo:
        """Return what is known about a variable besides its value; raises KeyError."""
        return await self._read(lambda door: door.info(name))

    async def set(
        self, name: str, value: Any, *, expect: int | Sentinel = ANY, ttl: Ttl | None = None
    ) -> Sequence[Event]:
        """Set a variable and return the recorded events; all is as in `evstore.Variables.set`."""
        return await _awaited(self._door(self._writing).set(name, value, expect=expect, ttl=ttl))

    async def delete(self, name: str) -> None:
        """Delete a variable; raises KeyError where it is absent."""
        door = self._door(self._writing)
        said = door.__delitem__(name)  # type: ignore[func-returns-value] # it is to be awaited
        await _awaited(said)

    @overload
    async def pop(self, name: str, /) -> Any: ...
    @overload
    async def pop(self, name: str, /, default: Any) -> Any: ...
    async def pop(self, name: str, /, *default: Any, **named: Any) -> Any:
        """Delete a variable and return its value, or the default where it is absent."""
        return await _awaited(self._door(self._writing).pop(name, *default, **named))

    async def popitem(self) -> tuple[str, Any]:
        """Delete the variable that was set last and return it; raises KeyError where none is."""
        return await _awaited(self._door(self._writing).popitem())

    async def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value; where the name is absent, set it to the default first."""
        return await _awaited(self._door(self._writing).setdefault(name, default))

    async def clear(self) -> None:
        """Delete all variables, in one transaction."""
        door = self._door(self._writing)
        await _awaited(door.clear())  # type: ignore[func-returns-value] # as above

    async def update(self, other: Any = (), /, **named: Any) -> None:
        """Set many variables, in one transaction."""
        door = self._door(self._writing)
        said = door.update(other, **named)  # type: ignore[func-returns-value] # as above
        await _awaited(said)


class Messages(_Door[PlainMessages]):
    """The list of messages, as `evstore.Messages` has it; each step is awaited."""

    def _door(self, side: Side) -> PlainMessages:
        return PlainMessages(side)

    async def count(self) -> int:
        """Return how many messages are in the list."""
        return await self._read(len)

    @overload
    async def get(self, index: int) -> Any: ...
    @overload
    async def get(self, index: slice) -> list[Any]: ...
    async def get(self, index: int | slice) -> Any:
        """Return a message, or the list of messages of a slice; raises IndexError."""
        return await self._read(lambda door: door[index])

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the messages of one snapshot, read in pages."""
        door = self._door(self._reading)
        return self._hands.pages(lambda: iter(door), PAGE_MESSAGES)

    async def tail(
        self,
        max_items: int | None = None,
        max_bytes: int | None = None,
        size: Callable[[Any], int] | None = None,
    ) -> list[Any]:
        """Return the newest messages that fit a context window, in order.

        All is as in `evstore.Messages.tail`; `size` is called in another thread.
        """
        return await self._read(lambda door: door.tail(max_items, max_bytes, size))

    async def info(self, index: int) -> MessageInfo:
        """Return what is known about a message besides its content; raises IndexError."""
        return await self._read(lambda door: door.info(index))

    async def append(self, message: Mapping[str, Any]) -> Sequence[Event]:
        """Append a message and return the recorded events; raises NotStorable and TooLarge."""
        return await _awaited(self._door(self._writing).append(message))

    async def extend(self, messages: Iterable[Mapping[str, Any]]) -> Sequence[Event]:
        """Append many messages, in one transaction."""
        return await _awaited(self._door(self._writing).extend(messages))

    async def pop(self, index: int = -1) -> Any:
        """Remove a message and return it; raises IndexError."""
        return await _awaited(self._door(self._writing).pop(index))

    async def remove(self, index: int, reason: str | None = None) -> Sequence[Event]:
        """Remove the message at an index; raises IndexError."""
        return await _awaited(self._door(self._writing).remove(index, reason))

    async def replace(
        self, index: int, message: Mapping[str, Any], reason: str | None = None
    ) -> Sequence[Event]:
        """Put another message in the place of one; raises IndexError, NotStorable, TooLarge."""
        return await _awaited(self._door(self._writing).replace(index, message, reason))

    async def clear(self) -> Sequence[Event]:
        """Remove all messages: one event, or none where the list is empty."""
        return await _awaited(self._door(self._writing).clear())
