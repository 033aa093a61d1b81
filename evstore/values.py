"""What a value becomes: JSON text that any shell can read and that loses nothing.

Plain JSON stays plain. A type that JSON lacks becomes an object with exactly one member whose name
begins with `$` (`{"$tuple": [1, 2]}`); a dict of an application that happens to look like that is
stored as `{"$dict": [[key, value], ...]}`, so no value can be mistaken for another. A walk decides
before the fast encoder runs, because fast encoders silently turn nan into null and tuples into
lists. Nothing is ever unpickled or imported by a stored name.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs
import orjson

from evstore.errors import Corrupt, NotStorable, Unavailable

DEPTH_MAX = 100
# SQLite's JSON functions and most JSON readers know integers of 64 bits; larger ones are tagged.
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1
_MARK = '{"$'

type_fallback = Callable[[Any], Any] | None


def encode(value: Any, *, fallback: type_fallback = None, root: str = "value") -> bytes:
    """Return the JSON text (UTF-8) of a value.

    `fallback` is called with whatever has no lossless form and returns something that has one.
    `root` is the name of the value in the path that `NotStorable` reports.
    """
    if _is_plain(value, DEPTH_MAX):
        try:
            return orjson.dumps(value)
        except TypeError:
            pass  # A lone surrogate: the walk below finds where.
    return _dump(_Tagger(fallback).tag(value, root, DEPTH_MAX))


def decode(text: str | bytes) -> Any:
    """Return a fresh value from its JSON text; raises Corrupt where it is none of ours."""
    try:
        value = orjson.loads(text)
        marked = _MARK in text if type(text) is str else _MARK.encode() in text  # type: ignore[operator]
        return _untag(value) if marked else value
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise Corrupt("", f"a stored value cannot be decoded ({error})") from error


def type_name(text: str | bytes) -> str:
    """Return the name of the type of a stored value, from its first bytes alone."""
    head = text[:32] if type(text) is str else text[:32].decode("utf-8", "replace")  # type: ignore[union-attr]
    if head.startswith(_MARK):
        return head[len(_MARK) :].split('"', 1)[0]
    if head[:1] in "-0123456789":
        return "float" if any(mark in head for mark in ".eE") else "int"
    return {"{": "dict", "[": "list", '"': "str", "n": "None"}.get(head[:1], "bool")


def _is_plain(value: Any, depth: int) -> bool:
    """Tell whether the fast encoder keeps this value as it is (surrogates it finds by itself)."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return _INT_MIN <= value <= _INT_MAX
    if kind is float:
        return math.isfinite(value)
    if depth == 0:
        return False
    if kind is dict:
        if len(value) == 1 and _looks_tagged(value):
            return False
        for key, item in value.items():
            if type(key) is not str or not (type(item) is str or _is_plain(item, depth - 1)):
                return False
        return True
    if kind is list:
        return all(type(item) is str or _is_plain(item, depth - 1) for item in value)
    return False


def _looks_tagged(value: dict[Any, Any]) -> bool:
    (key,) = value
    return type(key) is str and key.startswith("$")


def _dump(tagged: Any) -> bytes:
    try:
        return orjson.dumps(tagged)
    except TypeError:  # Tags may nest deeper than orjson's 254 levels.
        return json.dumps(tagged, ensure_ascii=False, separators=(",", ":")).encode()


@attrs.frozen
class Unregistered:
    """A stored object whose class this process has not registered; storing it again loses nothing."""

    name: str
    version: int
    data: Any


@attrs.frozen
class Registration:
    """How the objects of one class of an application are stored and brought back."""

    cls: type
    name: str
    version: int
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    upcast: Callable[[Any, int], Any] | None


_registered: dict[type, Registration] = {}
_by_name: dict[str, Registration] = {}


def remember(registration: Registration) -> None:
    """Make a registration known to this process; a later one for the same class replaces it."""
    _registered[registration.cls] = registration
    _by_name[registration.name] = registration


class _Tagger:
    """The walk that turns a value into what JSON can hold, or says where it cannot."""

    def __init__(self, fallback: type_fallback) -> None:
        self._fallback = fallback

    def tag(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            return scalar(value, path)
        if kind in _CONTAINERS or kind is Unregistered or kind in _registered:
            if depth == 0:
                raise NotStorable(path, kind.__name__, f"is nested deeper than {DEPTH_MAX} levels")
            return self._tag_container(value, path, depth - 1)
        if self._fallback is None:
            raise NotStorable(path, kind.__name__)
        return _Tagger(None).tag(self._fallback(value), path, depth)

    def _tag_container(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if kind is dict:
            return self._tag_dict(value, path, depth)
        if kind is list:
            return self._tag_items(value, path, depth)
        if kind is tuple:
            return {"$tuple": self._tag_items(value, path, depth)}
        if kind is set or kind is frozenset:
            items = [self.tag(item, f"{path}{{{item!r}}}", depth) for item in value]
            return {f"${kind.__name__}": sorted(items, key=_dump)}
        if kind is Unregistered:
            name, version, data = value.name, value.version, value.data
        else:
            registration = _registered[kind]
            name, version = registration.name, registration.version
            data = registration.encode(value)
        return {"$object": [name, version, self.tag(data, f"{path}.{name}", depth)]}

    def _tag_items(self, items: Any, path: str, depth: int) -> list[Any]:
        return [self.tag(item, f"{path}[{index}]", depth) for index, item in enumerate(items)]

    def _tag_dict(self, value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        if all(type(key) is str for key in value) and not (len(value) == 1 and _looks_tagged(value)):
            return {
                _tag_str(key, f"{path}: key {key!r}"): self.tag(item, f"{path}[{key!r}]", depth)
                for key, item in value.items()
            }
        pairs = []
        for key, item in value.items():
            _check_key(key, f"{path}: key {key!r}")
            tagged_key = self.tag(key, f"{path}: key {key!r}", depth)
            pairs.append([tagged_key, self.tag(item, f"{path}[{key!r}]", depth)])
        return {"$dict": pairs}


def _check_key(key: Any, path: str) -> None:
    if type(key) is tuple:
        for item in key:
            _check_key(item, path)
    elif type(key) not in _SCALARS:
        raise NotStorable(path, type(key).__name__, "cannot be the key of a stored dict")


def _tag_str(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise NotStorable(path, "str", "holds a lone surrogate") from None
    return value


def _tag_int(value: int, _path: str) -> Any:
    # Hexadecimal, because Python bounds the digits of decimal conversion.
    return value if _INT_MIN <= value <= _INT_MAX else {"$int": hex(value)}


def _tag_float(value: float, _path: str) -> Any:
    return value if math.isfinite(value) else {"$float": repr(value)}


def _tag_moment(value: datetime | time, path: str) -> Any:
    """Tag a datetime or time as its ISO 8601 text, with what that text cannot say beside it."""
    name = f"${type(value).__name__}"
    beside: dict[str, Any] = {"fold": 1} if value.fold else {}
    zone = value.tzinfo
    if zone is not None and type(zone) is not timezone:
        if type(zone) is not ZoneInfo or zone.key is None:
            raise NotStorable(path, type(zone).__name__, "is a time zone without a key")
        beside["zone"] = zone.key
        value = value.replace(tzinfo=None)
    elif zone is not None and (given := _given_name(zone)) is not None:
        beside["name"] = _tag_str(given, path)
    text = value.replace(fold=0).isoformat()
    return {name: [text, beside] if beside else text}


def _given_name(zone: timezone) -> str | None:
    """Return the name that a fixed offset was made with, if it was given one."""
    arguments = zone.__getinitargs__()  # type: ignore[attr-defined]
    return arguments[1] if len(arguments) > 1 else None


def _untag_moment(cls: type[datetime] | type[time], stored: Any) -> datetime | time:
    text, beside = (stored, {}) if type(stored) is str else stored
    value = cls.fromisoformat(text).replace(fold=beside.get("fold", 0))
    zone: tzinfo | None = value.tzinfo
    if "zone" in beside:
        try:
            zone = ZoneInfo(beside["zone"])
        except ZoneInfoNotFoundError:
            reason = "it is not in this machine's time zone data: install tzdata"
            raise Unavailable(f"time zone {beside['zone']!r}", reason) from None
    elif "name" in beside and isinstance(zone, timezone):
        zone = timezone(zone.utcoffset(None), beside["name"])
    return value.replace(tzinfo=zone)


_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})
_SCALARS: dict[type, Callable[[Any, str], Any]] = {
    str: _tag_str,
    int: _tag_int,
    float: _tag_float,
    bool: lambda value, _path: value,
    type(None): lambda value, _path: value,
    bytes: lambda value, _path: {"$bytes": base64.b64encode(value).decode()},
    datetime: _tag_moment,
    time: _tag_moment,
    date: lambda value, _path: {"$date": value.isoformat()},
    timedelta: lambda value, _path: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value, _path: {"$decimal": str(value)},
    UUID: lambda value, _path: {"$uuid": str(value)},
}


def _untag_object(stored: Any) -> Any:
    name, version, data = stored
    value = _untag(data)
    registration = _by_name.get(name)
    if registration is None:
        return Unregistered(name, version, value)
    if version != registration.version:
        if registration.upcast is None:
            return Unregistered(name, version, value)
        value = registration.upcast(value, version)
    return registration.decode(value)


def _untag_dict(stored: Any) -> dict[Any, Any]:
    return {_untag(key): _untag(item) for key, item in stored}


_UNTAG: Mapping[str, Callable[[Any], Any]] = {
    "$int": lambda stored: int(stored, 16),
    "$float": float,
    "$bytes": lambda stored: base64.b64decode(stored, validate=True),
    "$tuple": lambda stored: tuple(map(_untag, stored)),
    "$set": lambda stored: set(map(_untag, stored)),
    "$frozenset": lambda stored: frozenset(map(_untag, stored)),
    "$dict": _untag_dict,
    "$datetime": lambda stored: _untag_moment(datetime, stored),
    "$time": lambda stored: _untag_moment(time, stored),
    "$date": date.fromisoformat,
    "$timedelta": lambda stored: timedelta(*stored),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$object": _untag_object,
}


def _untag(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_untag(item) for item in value]
    if kind is dict:
        if len(value) == 1 and _looks_tagged(value):
            ((tag, stored),) = value.items()
            return _UNTAG[tag](stored)
        return {key: _untag(item) for key, item in value.items()}
    return value
