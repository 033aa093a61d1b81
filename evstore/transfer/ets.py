"""Dumps of Erlang's ETS tables, in which Elixir keeps its sessions: each becomes a session.

`ets:tab2file` writes a log of disk_log, checked with Erlang/OTP 25: 8 bytes, then

    <<Size:32, "bWLA", Term:Size/binary>>      or, from 65,528 bytes on, with 16 bytes of MD5 in it
    <<Size:32, "bWLA", MD5:16/binary, Term:Size/binary>>

of which the first term describes the table and each of the others is a row. What
`term_to_binary(ets:tab2list(Table))` gives is a list of the rows. For terms see
`evstore.transfer.ets_terms`. A row is either of

    {SessionId, Session, …}          a map or a struct; its `variables` or `variable_store` are the
                                     variables (a plain map without these is the variables itself),
                                     `created_at` or `inserted_at` the time; all else is kept raw
    {{SessionId, Name}, Value, …}    one variable

in which ids and names are binaries, atoms, charlists or integers. A variable store is a map, or a
struct that holds it as `variables`, `values`, `entries` or `data`; there a variable may be a map of
its `value` and of when it was set. Variables are recorded in the order of those times.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

from evstore.errors import Unavailable
from evstore.events import to_microseconds
from evstore.transfer import ets_terms, records
from evstore.transfer.conversations import Conversation, Item, Kept, Reported, Variable, time_us
from evstore.transfer.ets_terms import STRUCT, TERM_BYTES_MAX, Unreadable

_LOG = b"\1\2\3\4"
_STATUS_BYTES = 4
_VERSION = b"\x83"
_MAGIC = b"bWLA"
_HEAD_BYTES = 8
_PAIR = 2
_CHECKED_BYTES_MIN, _MD5_BYTES = 65_528, 16
PLACES = ("variables", "variable_store")
INSIDE = ("variables", "values", "entries", "data")  # what a struct may call its map of variables
CREATED = ("created_at", "inserted_at")
CHANGED = ("updated_at", "set_at", *CREATED)
END = "$end_of_table"

Row = Callable[[int], Any]  # gives a row again, or Reported, by its number


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the session of each id, in the order in which the dump first names them."""
    changed_us = records.changed_us(path)
    with records.opened(path) as file:
        beginning = file.read(len(_LOG))
        if beginning == _LOG:
            file.read(_STATUS_BYTES)
            yield from _sessions(_logged(file), lambda at: _row(file, at), changed_us)
        elif beginning.startswith(_VERSION):
            rows = _listed(path, beginning + file.read(TERM_BYTES_MAX))
            yield from _sessions(enumerate(rows), rows.__getitem__, changed_us)
        else:
            reason = "it is no dump of a table: name what ets:tab2file has written"
            raise Unavailable(path, reason)


def _listed(path: str, data: bytes) -> Sequence[Any]:
    try:
        found = ets_terms.decode(data)
    except Unreadable as error:
        raise Unavailable(path, str(error)) from None
    if type(found) is not list:
        raise Unavailable(path, "it is no list of rows: give term_to_binary what ets:tab2list gave")
    return found


def _logged(file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """Yield each row of a log, or Reported, with where it stands; tell if there are too few."""
    start = at = file.tell()
    size, seen = None, 0
    while not isinstance(row := _row(file, at), _End):
        if at == start and not isinstance(row, Reported):
            size = _size(row)
        elif type(row) is not list or row[:1] != [END]:
            seen += 1
            yield at, row
        at = file.tell()
    if row.is_early or (type(size) is int and size > seen):
        reason = "it is cut off, and the rest of its rows are missing: dump the table again"
        yield at, Reported(f"byte {at}", "a dump", reason)


def _size(table: Any) -> Any:
    """Return how many rows a table has, by its description."""
    parts = table if type(table) is tuple else ()
    return next((part[1] for part in parts if type(part) is tuple and part[:1] == ("size",)), None)


class _End:
    """There are no more rows; `is_early` where one had begun."""

    def __init__(self, *, is_early: bool) -> None:
        self.is_early = is_early


def _row(file: IO[bytes], at: int) -> Any:
    """Return the row that stands at a place, Reported if it cannot be read, or _End."""
    file.seek(at)
    head = file.read(_HEAD_BYTES)
    size_bytes = int.from_bytes(head[:4])
    if head[4:] != _MAGIC:
        return _End(is_early=head != b"")
    if size_bytes >= _CHECKED_BYTES_MIN:
        file.read(_MD5_BYTES)
    data = file.read(min(size_bytes, TERM_BYTES_MAX + 1))
    if len(data) < min(size_bytes, TERM_BYTES_MAX + 1):
        return _End(is_early=True)
    file.seek(size_bytes - len(data), 1)
    try:
        return ets_terms.decode(data)
    except Unreadable as error:
        return Reported(f"byte {at}", "a row", str(error))


def _sessions(
    rows: Iterator[tuple[int, Any]], row: Row, changed_us: int
) -> Iterator[Conversation | Reported]:
    found: dict[tuple[str, str], array[int]] = {}
    for number, given in rows:
        session = _session_of(given)
        if isinstance(given, Reported):
            yield given
        elif session is None:
            reason = "it is neither {SessionId, Session} nor {{SessionId, Name}, Value}: drop it"
            yield Reported(f"row at {number}", "a row", reason)
        else:
            found.setdefault(session, array("q")).append(number)
    for (kind, name), numbers in found.items():
        yield _conversation(name, f"{kind}:{name}", map(row, numbers), changed_us)


def _session_of(row: Any) -> tuple[str, str] | None:
    """Return the id of the session that a row is of, with the kind of term that says it."""
    if type(row) is not tuple or len(row) < _PAIR:
        return None
    found = row[0]
    if type(found) is tuple and len(found) == _PAIR:
        found, _ = found
    elif type(row[1]) is not dict:
        return None
    name = _text(found)
    return None if name is None else (type(found).__name__, name)


def _text(value: Any) -> str | None:
    """Return what names a session or a variable, as text."""
    if type(value) is list and value and all(type(item) is int for item in value):
        try:
            return "".join(map(chr, value))
        except (ValueError, OverflowError):
            return None
    return str(value) if type(value) in (str, int) else None


def _conversation(name: str, source: str, rows: Iterator[Any], changed_us: int) -> Conversation:
    """Return a session, its variables in the order in which they were set."""
    created_us: int | None = None
    items: list[Item | Reported] = []
    for row in rows:
        if _session_of(row) is None:
            items.append(Reported(name, "a row", "it is not there any more: dump the table again"))
            continue
        key, value, *more = row
        beside = {"row": more} if more else {}
        if type(key) is tuple:
            said = [_Set(key[1], value, None, beside)]
        else:
            created_us = _time_us(value, CREATED)
            kept, said = _session(value)
            if kept or beside:
                # Named so that no variable has its name; those are known by theirs.
                items.append(Item("", created_us, (Kept({**kept, **beside}),)))
        items += [_item(name, found) for found in said]
    items.sort(key=lambda item: getattr(item, "time_us", None) or created_us or 0)
    return Conversation(name, source, changed_us, items)


class _Set(NamedTuple):
    """A variable, when it was set, and what else is said about it."""

    name: Any
    value: Any
    time_us: int | None
    beside: dict[Any, Any]


def _item(session: str, found: _Set) -> Item | Reported:
    name = _text(found.name)
    if name is None:
        reason = f"its name {found.name!r} is no text: give it another"
        return Reported(session, "a variable", reason)
    source_id = name if found.time_us is None else f"{name}@{found.time_us}"
    kept = (Kept({"variable": name, **found.beside}),) if found.beside else ()
    return Item(source_id, found.time_us, (Variable(name, found.value), *kept))


def _session(session: dict[Any, Any]) -> tuple[dict[Any, Any], list[_Set]]:
    """Return what is kept raw of a session, and its variables."""
    for place in PLACES:
        if type(session.get(place)) is dict:
            kept = {name: value for name, value in session.items() if name != place}
            rest, found = _stored(session[place])
            return (kept | {place: rest} if rest else kept), found
    if session.keys().isdisjoint((STRUCT, *PLACES, *CREATED)):
        return _stored(session)
    return session, []


def _stored(store: dict[Any, Any]) -> tuple[dict[Any, Any], list[_Set]]:
    """Return what is kept raw of a store of variables, and these."""
    if STRUCT not in store:
        return {}, [_Set(name, value, None, {}) for name, value in store.items()]
    place = next((name for name in INSIDE if type(store.get(name)) is dict), None)
    if place is None:
        return store, []
    rest = {name: value for name, value in store.items() if name != place}
    return rest, [_Set(name, *_entry(entry)) for name, entry in store[place].items()]


def _entry(entry: Any) -> tuple[Any, int | None, dict[Any, Any]]:
    """Return the value of a variable, when it was set, and what else its entry says."""
    if type(entry) is dict and "value" in entry:
        at = _time_us(entry, CHANGED)
        if at is not None:
            return entry["value"], at, {key: entry[key] for key in entry if key != "value"}
    return entry, None, {}


def _time_us(fields: dict[Any, Any], names: Sequence[str]) -> int | None:
    """Return the first time that one of these fields holds; what has no zone is in UTC."""
    for name in names:
        found = fields.get(name)
        if isinstance(found, datetime):
            return to_microseconds(found if found.tzinfo else found.replace(tzinfo=UTC))
        at = time_us(found)
        if at is not None:
            return at
    return None
