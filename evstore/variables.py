"""The doors `variables` and `metadata`: mutable mappings whose every change is an event."""

from collections.abc import (
    ItemsView,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    Sequence,
    ValuesView,
)
from functools import partial
from typing import Any, Self, overload

from evstore import observing, values
from evstore.deadlines import Ttl, lease
from evstore.errors import Refused
from evstore.events import ANY, DELETIONS, ERASED, SETS, VARIABLES, Event, Said, Sentinel
from evstore.sides import Decided, Found, Present, Side, is_name, nothing, recorded, shown_time
from evstore.state import VariableInfo

_NO_DEFAULT: Any = object()


def value_of(found: Found) -> Any:
    """Return a fresh copy of the value that was found, or ERASED where it was forgotten."""
    if found.text is None:
        return ERASED
    if (observer := observing.observer) is None:
        return values.decode(found.text)
    return observer.serialize("decode", partial(values.decode, found.text))


class Variables(MutableMapping[str, Any]):
    """Named values; every assignment is one event, every compound step one transaction.

    A value read is a fresh object: changing it changes nothing. Names come in order.
    """

    def __init__(self, side: Side, family: int) -> None:
        self._side = side
        self._family = family

    @property
    def place(self) -> tuple[int, int]:
        """Which door this is: of which side, to which family."""
        return id(self._side), self._family

    # Reading.

    def __getitem__(self, name: str) -> Any:
        """Return the value; raises KeyError where the name is absent."""
        if (observer := observing.observer) is None:
            found = self._find(self._side, name)
        else:
            find = partial(self._find, self._side, name)
            found = observer.read(self._family, name, find)
        if found is None:
            raise KeyError(name)
        return value_of(found)

    def __contains__(self, name: object) -> bool:
        """Tell whether the name is there."""
        return self._find(self._side, name) is not None

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
        from fnmatch import fnmatchcase

        found = self._all()
        return {name: value_of(found[name]) for name in found if fnmatchcase(name, pattern)}

    def info(self, name: str) -> VariableInfo:
        """Return what is known about a variable besides its value; raises KeyError."""
        with self._side.look() as present:
            found = self._find(present, name)
            if found is None:
                raise KeyError(name)
            facts = present.facts(found.seq)
            created = present.facts(found.created)
        text = found.text or ""
        return VariableInfo(
            seq=found.seq,
            time=shown_time(facts.time_us),
            created_at=shown_time(created.time_us),
            actor=facts.actor,
            size_bytes=len(text.encode()),
            type=values.type_name(text),
            expires_at=shown_time(found.operand),
        )

    def __repr__(self) -> str:
        """Return the variables as a dict would show them."""
        return repr(self._snapshot())

    def _find(self, present: Side | Present, name: object) -> Found | None:
        """Return what a name stands for; what cannot be a name stands for nothing."""
        return present.variable(self._family, name) if is_name(name) else None

    def _all(self) -> Mapping[str, Found]:
        with self._side.look() as present:
            return present.variables(self._family)

    def _snapshot(self) -> dict[str, Any]:
        return {name: value_of(found) for name, found in self._all().items()}

    # Writing.

    def __setitem__(self, name: str, value: Any) -> None:
        """Set a variable: one event."""
        self.set(name, value)

    def set(
        self, name: str, value: Any, *, expect: int | Sentinel = ANY, ttl: Ttl | None = None
    ) -> Sequence[Event]:
        """Set a variable and return the recorded events.

        `expect` is the seq of the event that last set it, or ABSENT; otherwise it is a Conflict.
        In a batch it may be one that `info` tells of the batch's own events.
        From its deadline on it is absent: `ttl` seconds or a timedelta from now, or an aware
        datetime. Raises NotStorable, TooLarge, TooMany, BadName, and Refused for a bad ttl.
        """
        writer, deadline = self._side.writer, None
        if ttl is not None and self._family != VARIABLES:
            raise Refused("metadata has no deadline: give one to the session, or to a variable")
        if ttl is not None:
            deadline = lease(ttl, writer.clock()).expires_us
        return self._side.say([writer.set(self._family, name, value, expect, deadline)], recorded)

    def __delitem__(self, name: str) -> None:
        """Delete a variable; raises KeyError where it is absent."""

        def decide(present: Present) -> Said:
            if self._find(present, name) is None:
                raise KeyError(name)
            return [self._side.writer.delete(self._family, name)]

        return self._side.say(Decided(DELETIONS[self._family], decide), nothing)

    @overload
    def pop(self, name: str, /) -> Any: ...
    @overload
    def pop(self, name: str, /, default: Any) -> Any: ...
    def pop(self, name: str, /, default: Any = _NO_DEFAULT) -> Any:
        """Delete a variable and return its value, or the default where it is absent."""
        value = default

        def decide(present: Present) -> Said:
            nonlocal value
            found = self._find(present, name)
            if found is None and default is _NO_DEFAULT:
                raise KeyError(name)
            value = default if found is None else value_of(found)
            return () if found is None else [self._side.writer.delete(self._family, name)]

        return self._side.say(Decided(DELETIONS[self._family], decide), lambda _: value)

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
            item = (name, value_of(found[name]))
            return [self._side.writer.delete(self._family, name)]

        return self._side.say(Decided(DELETIONS[self._family], decide), lambda _: item)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return the value; where the name is absent, set it to the default first."""
        body = self._side.writer.set(self._family, name, default)
        value = default

        def decide(present: Present) -> Said:
            nonlocal value
            found = present.variable(self._family, name)
            value = default if found is None else value_of(found)
            return [body] if found is None else ()

        return self._side.say(Decided(SETS[self._family], decide), lambda _: value)

    def clear(self) -> None:
        """Delete all variables, in one transaction."""
        delete = self._side.writer.delete

        def decide(present: Present) -> Said:
            return [delete(self._family, name) for name in present.variables(self._family)]

        return self._side.say(Decided(DELETIONS[self._family], decide), nothing)

    def update(self, other: Any = (), /, **named: Any) -> None:
        """Set many variables, in one transaction; those of another door are one snapshot."""
        write = self._side.writer.set
        items = dict(other.items() if isinstance(other, Mapping) else other, **named).items()
        return self._side.say([write(self._family, *item) for item in items], nothing)

    def __ior__(self, other: Any) -> Self:
        """Set many variables, in one transaction."""
        self.update(other)
        return self
