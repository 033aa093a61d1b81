"""A walk through a log: every event between the session before it and the session after it."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from evstore import view
from evstore.errors import Refused
from evstore.events import FAMILY, LABELS, METADATA, VARIABLES, Event, operand
from evstore.session import Session
from evstore.sqlite.found import Found, found
from evstore.state import Reference, is_there, step
from evstore.view import View


class Change(NamedTuple):
    """An event, and the session just before and just after it."""

    before: View
    event: Event
    after: View


def walk(
    session: Session,
    after: int = 0,
    until: int | None = None,
    *,
    kinds: Collection[str] | None = None,
    names: Collection[str] | None = None,
) -> Iterator[Change]:
    """Yield the events with `after` < seq <= `until`, each with the session before and after it.

    With `kinds` or `names` only events of those are yielded. The log, of a fork its shared past
    too, is read once, in pages, and folded on the way. A view may be kept; it reads its messages at
    use. Raises NoSuchMoment for an `after` that is not there, and Refused for a text where a
    collection of texts is asked for.
    """
    for wanted in (kinds, names):
        if isinstance(wanted, str):
            raise Refused(f"{wanted!r} is one text: give a collection, as in [{wanted!r}]")
    head = session.head
    walker = _Walker(session.at(after))
    return _changes(walker, head if until is None else min(until, head), kinds, names)


def _changes(
    walker: "_Walker", until: int, kinds: Collection[str] | None, names: Collection[str] | None
) -> Iterator[Change]:
    for event in walker.events(until):
        is_wanted = kinds is None or event.kind in kinds
        if is_wanted and (names is None or event.name in names):
            before = walker.view()
            walker.take(event)
            yield Change(before, event, walker.view())
        else:
            walker.take(event)


class _Walker:
    """A session that takes one event after the other, and shows itself as a view."""

    def __init__(self, start: View) -> None:
        self._place = start.place
        self._time_us = 0
        self._view: View | None = start
        # At time 0 no deadline has passed: what is over keeps its birth until it is deleted.
        with self._place.engine.past(self._place.life, self._place.seq, 0) as moment:
            self._names = {
                family: _Names(dict(moment.variables(family))) for family in (VARIABLES, METADATA)
            }
        self._labels = start.labels

    def events(self, until: int) -> Iterator[Event]:
        """Yield the events from here on."""
        return view.events(self._place.engine, self._place.life, self._place.seq, until)

    def take(self, event: Event) -> None:
        """Take in the next event."""
        family = FAMILY.get(event.kind)
        if family is not None and event.name is not None:
            number = operand(event)
            if family == LABELS:
                self._labels = dict(sorted({**self._labels, event.name: number or 0}.items()))
            else:
                self._names[family].take(event, event.name, number)
        self._time_us = event.time_us
        self._place = self._place._replace(seq=event.seq, now_us=event.time_us)
        self._view = None

    def view(self) -> View:
        """Return the session as it is now; what has not changed is shared with earlier views."""
        if self._view is None:
            shown = {
                family: names.at(family, self._time_us) for family, names in self._names.items()
            }
            self._view = View(self._place, self._time_us, shown, self._labels)
        return self._view


class _Names:
    """What the names of one family stand for, as events change that."""

    def __init__(self, known: dict[str, Found]) -> None:
        self._known = known
        self._in_order = True
        self._may_end = any(each.operand is not None for each in known.values())
        self._shown: Mapping[str, Found] | None = None

    def take(self, event: Event, name: str, deadline: int | None) -> None:
        """Take in an event about a name."""
        before = self._known.get(name)
        stood = None if before is None else Reference(*before[:3])
        reference = step(stood, event.seq, event.kind, deadline)
        if reference.created is None:
            self._known.pop(name, None)
        else:
            self._known[name] = found(reference, event.text)
            self._in_order = self._in_order and before is not None
        self._may_end = self._may_end or deadline is not None
        self._shown = None

    def at(self, family: int, time_us: int) -> Mapping[str, Found]:
        """Return the names that are there at a time, in order of name; it stays as it is."""
        if self._shown is None or self._may_end:
            if not self._in_order:
                self._known, self._in_order = dict(sorted(self._known.items())), True
            self._shown = (
                {
                    name: kept
                    for name, kept in self._known.items()
                    if is_there(family, Reference(*kept[:3]), time_us)
                }
                if self._may_end
                else self._known.copy()
            )
        return self._shown
