"""Erlang's terms become Python's values, once it is sure that a term does no harm to its reader.

erlang_py (checked with 2.0.7) reads the External Term Format, and believes what it is told: a few
compressed bytes may become gigabytes, nested ones even again and again, and a large integer takes
it hours. So every term is walked first, without making anything of it. Nothing is looked up by a
name in a term. What becomes of it:

    atom            text; true, false, and None for nil and undefined
    binary          text where it is UTF-8, else bytes
    tuple, list     tuple and list; a list of small integers stays one
    map             dict, or a list of (key, value) where two keys become one or one cannot be a key
    DateTime and NaiveDateTime, Date, Time, MapSet, Decimal of Elixir    those of Python
    other structs   a dict, with the name of the struct as `__struct__`
    the rest        {"erlang": what it is, "term": its bytes}, for pids, references, funs and such
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from evstore.errors import MissingExtra

TERM_BYTES_MAX = 64 << 20
TERMS_MAX = 4_000_000
DEPTH_MAX = 200
INTEGER_BYTES_MAX = 1024
STRUCT = "__struct__"

_VERSION, _COMPRESSED = 131, 80
_INTEGERS = frozenset({110, 111})
_BYTE = 8  # bits
# By tag: how what follows it begins, and how many bytes a count in that stands for, with how many
# more. A fun counts its own length.
_LEAVES: Mapping[int, tuple[str, int, int]] = {
    70: ("", 0, 8),  # a float
    77: (">I", 1, 1),  # a bitstring
    97: ("", 0, 1),  # an integer
    98: ("", 0, 4),
    99: ("", 0, 31),  # a float, as text
    100: (">H", 1, 0),  # an atom
    106: ("", 0, 0),  # the empty list
    107: (">H", 1, 0),  # a list of small integers
    109: (">I", 1, 0),  # a binary
    110: (">B", 1, 1),  # an integer, with its sign
    111: (">I", 1, 1),
    112: (">I", 1, -4),  # a fun
    115: (">B", 1, 0),  # an atom
    118: (">H", 1, 0),
    119: (">B", 1, 0),
}
# By tag: how the count begins, how many terms it stands for, and how many more there are.
_BRANCHES: Mapping[int, tuple[str, int, int]] = {
    104: (">B", 1, 0),  # a tuple
    105: (">I", 1, 0),
    108: (">I", 1, 1),  # a list, with its tail
    113: ("", 0, 3),  # a fun of a module
    116: (">I", 2, 0),  # a map
}
# By tag: how the count before an atom begins, how many bytes it stands for behind that, and how
# many more there are.
_NODES: Mapping[int, tuple[str, int, int]] = {
    88: ("", 0, 12),  # a pid
    89: ("", 0, 8),  # a port
    90: (">H", 4, 4),  # a reference
    101: ("", 0, 5),
    102: ("", 0, 5),
    103: ("", 0, 9),
    114: (">H", 4, 1),
    120: ("", 0, 12),
}
_COUNTS = {**_LEAVES, **_BRANCHES}
_ATOMS = frozenset({100, 115, 118, 119})


class Unreadable(Exception):
    """A term cannot be read; the message says why, and what to do."""


def decode(data: bytes) -> Any:
    """Return the value of a term; raises Unreadable, and MissingExtra without erlang_py."""
    try:
        import erlang
    except ImportError:
        raise MissingExtra("ets") from None
    try:
        plain = _plain(data)
        _check(plain)
        found = erlang.binary_to_term(plain)
    except (IndexError, struct.error, zlib.error):
        raise Unreadable("it is cut off or damaged: dump the table again") from None
    except (ValueError, TypeError, AttributeError, erlang.ParseException) as error:
        raise Unreadable(f"it is no term ({error}): dump the table again") from None
    return _value(found, erlang)


def _plain(data: bytes) -> bytes:
    """Return a term with its version and without compression."""
    if data[0] != _VERSION:
        raise Unreadable("it does not begin as a term does: name what term_to_binary has made")
    if data[1] == _COMPRESSED:
        (size_bytes,) = struct.unpack_from(">I", data, 2)
        if size_bytes > TERM_BYTES_MAX:
            raise _too_large()
        found = zlib.decompressobj().decompress(data[6:], size_bytes + 1)
        if len(found) != size_bytes:
            raise Unreadable("it is not as large as it says: dump the table again")
        data = bytes([_VERSION]) + found
    if len(data) > TERM_BYTES_MAX:
        raise _too_large()
    return data


def _too_large() -> Unreadable:
    size = f"{TERM_BYTES_MAX >> 20} MiB"
    return Unreadable(f"it takes more than {size}: dump the table by ets:tab2file")


def _check(data: bytes) -> None:
    """Walk a term to its end; raises Unreadable for one that would take too much to read."""
    at, terms, waiting = 1, 1, [1]  # how many terms each of those around still holds
    while waiting:
        if waiting[-1] == 0:
            waiting.pop()
            continue
        waiting[-1] -= 1
        tag = data[at]
        count, at = _count(data, at)
        if tag in _BRANCHES:
            terms += count
            waiting.append(count)
            if terms > TERMS_MAX or len(waiting) > DEPTH_MAX:
                most = f"{TERMS_MAX} terms or {DEPTH_MAX} levels"
                raise Unreadable(f"it holds more than {most}: dump the table by ets:tab2file")
        else:
            at += count
            if tag in _INTEGERS and count - 1 > INTEGER_BYTES_MAX:
                most = f"more than {INTEGER_BYTES_MAX} bytes"
                raise Unreadable(f"it holds an integer of {most}: write that as text")


def _count(data: bytes, at: int) -> tuple[int, int]:
    """Return the count that a tag has behind it, and where what is counted begins."""
    tag = data[at]
    form, factor, more = _COUNTS.get(tag) or _NODES.get(tag) or _unknown(tag)
    size_bytes = struct.calcsize(form)
    many = int.from_bytes(data[at + 1 : at + 1 + size_bytes])
    at += 1 + size_bytes
    if tag in _NODES:
        if data[at] not in _ATOMS:
            raise Unreadable("it names no node: dump the table again")
        length, at = _count(data, at)
        more += length
    return many * factor + more, at


def _unknown(tag: int) -> tuple[str, int, int]:
    raise Unreadable(f"it holds a term of the unknown kind {tag}: dump the table again")


def _value(term: Any, erlang: Any) -> Any:
    """Return the value that a term stands for, as erlang_py gives it."""
    kind = type(term)
    if kind is erlang.OtpErlangAtom:
        name = term.value.decode("latin-1") if type(term.value) is bytes else term.value
        return None if name == "nil" else name
    if kind is erlang.OtpErlangBinary and term.bits == _BYTE:
        try:
            return term.value.decode()
        except UnicodeDecodeError:
            return term.value
    if isinstance(term, dict):
        return _map([(_value(key, erlang), _value(term[key], erlang)) for key in term])
    if kind is bytes:
        return list(term)
    if kind is tuple or kind is list:
        return kind(_value(item, erlang) for item in term)
    if kind is erlang.OtpErlangList and not term.improper:
        return [_value(item, erlang) for item in term.value]
    if kind in (int, float, bool, type(None)):
        return term
    name = kind.__name__.removeprefix("OtpErlang").lower()
    return {"erlang": name, "term": bytes([_VERSION]) + term.binary()}


def _map(pairs: list[tuple[Any, Any]]) -> Any:
    try:
        found = dict(pairs)
    except TypeError:  # A map or a list is a key.
        return pairs
    if len(found) != len(pairs):
        return pairs
    try:
        return _STRUCTS[found[STRUCT]](found)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return found


def _date(fields: Mapping[str, Any]) -> date:
    return date(*(fields[name] for name in ("year", "month", "day")))


def _time(fields: Mapping[str, Any]) -> time:
    microsecond, _ = fields["microsecond"]
    return time(fields["hour"], fields["minute"], fields["second"], microsecond)


def _naive(fields: Mapping[str, Any]) -> datetime:
    return datetime.combine(_date(fields), _time(fields))


def _moment(fields: Mapping[str, Any]) -> datetime:
    offset = timedelta(seconds=fields["utc_offset"] + fields["std_offset"])
    zone = UTC if fields["time_zone"] == "Etc/UTC" else timezone(offset, fields["time_zone"])
    return _naive(fields).replace(tzinfo=zone)


def _decimal(fields: Mapping[str, Any]) -> Decimal:
    sign, coefficient, exponent = (fields[name] for name in ("sign", "coef", "exp"))
    if type(coefficient) is int:
        return Decimal((sign < 0, tuple(map(int, str(coefficient))), exponent))
    return Decimal({"NaN": "nan", "inf": "inf"}[coefficient]).copy_sign(Decimal(sign))


# What takes the fields of a struct; it stays a dict where those are not as they should be.
_STRUCTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "Elixir.Date": _date,
    "Elixir.DateTime": _moment,
    "Elixir.Decimal": _decimal,
    "Elixir.MapSet": lambda fields: set(fields["map"].keys()),
    "Elixir.NaiveDateTime": _naive,
    "Elixir.Time": _time,
}
