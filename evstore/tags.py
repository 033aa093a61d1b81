"""The tags: how each scalar type that JSON lacks is written in JSON's own, and read back."""

import math
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID

from evstore.errors import Unavailable

# SQLite's JSON functions and most JSON readers know integers of 64 bits; larger ones are tagged.
INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1


class Lossy(Exception):
    """Raised with the name of a type, what is wrong and its remedy; the walk knows where."""


def _tag_str(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        remedy = "remove it, or store the text as bytes"
        raise Lossy("str", "holds a lone surrogate", remedy) from None
    return value


def _tag_moment(value: datetime | time) -> Any:
    """Tag a datetime or time as its ISO 8601 text, with what that text cannot say beside it."""
    beside: dict[str, Any] = {"fold": 1} if value.fold else {}
    zone = value.tzinfo
    if type(zone) is timezone:
        offset, *given = zone.__getinitargs__()  # type: ignore[attr-defined]
        if given:
            beside["name"] = _tag_str(given[0])
        if offset.microseconds:  # Python writes them, but does not always read them.
            beside["offset_us"] = offset // timedelta(microseconds=1)
            value = value.replace(tzinfo=None)
    elif zone is not None:
        beside["zone"] = _zone_key(zone)
        value = value.replace(tzinfo=None)
    text = value.replace(fold=0).isoformat()
    return {f"${type(value).__name__}": [text, beside] if beside else text}


def _zone_key(zone: tzinfo) -> str:
    # Time zones are rare, and what finds them would take a tenth of the start of a program.
    from pickle import PicklingError
    from zoneinfo import ZoneInfo

    if type(zone) is ZoneInfo and zone.key is not None:
        try:
            zone.__reduce__()
        except PicklingError:  # It was read from a file, whatever key it was given.
            pass
        else:
            return _tag_str(zone.key)
    raise Lossy(type(zone).__name__, "is a time zone that cannot be found again by its key")


def _untag_timedelta(stored: list[Any]) -> timedelta:
    days, seconds, microseconds = map(_integer, stored)
    return timedelta(days, seconds, microseconds)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an integer")
    return value


def _untag_moment(cls: type[datetime] | type[time], stored: Any) -> datetime | time:
    text, beside = (stored, {}) if type(stored) is str else stored
    if type(beside) is not dict:
        raise TypeError("what stands beside a time is not an object")
    value = cls.fromisoformat(text).replace(fold=beside.get("fold", 0))
    if "zone" in beside:
        return value.replace(tzinfo=_zone(beside["zone"]))
    offset = value.utcoffset()
    if "offset_us" in beside:
        offset = timedelta(microseconds=_integer(beside["offset_us"]))
    if offset is None:
        return value
    name = [beside["name"]] if "name" in beside else []
    return value.replace(tzinfo=timezone(offset, *name))


def _zone(key: Any) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if type(key) is not str:
        raise TypeError("the key of a time zone is not text")
    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, OSError):
        reason = "it is not in this machine's time zone data: install tzdata"
        raise Unavailable(f"time zone {key[:60]!r}", reason) from None


TO_TAG: dict[type, Callable[[Any], Any]] = {
    str: _tag_str,
    # Hexadecimal, because Python bounds the digits of decimal conversion.
    int: lambda value: value if INT_MIN <= value <= INT_MAX else {"$int": hex(value)},
    float: lambda value: value if math.isfinite(value) else {"$float": repr(value)},
    bool: lambda value: value,
    type(None): lambda value: value,
    bytes: lambda value: {"$bytes": b2a_base64(value, newline=False).decode()},
    datetime: _tag_moment,
    time: _tag_moment,
    date: lambda value: {"$date": value.isoformat()},
    timedelta: lambda value: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value: {"$decimal": str(value)},
    UUID: lambda value: {"$uuid": str(value)},
}

# Each nan becomes an object of its own, because a set takes the same object for one element.
_FLOATS = {name: name for name in ("nan", "inf", "-inf")}

# For every tag the types that may stand behind it, and what makes the value of them.
FROM_TAG: Mapping[str, tuple[tuple[type, ...], Callable[[Any], Any]]] = {
    "$int": ((str,), lambda stored: int(stored, 16)),
    "$float": ((str,), lambda stored: float(_FLOATS[stored])),
    "$bytes": ((str,), lambda stored: a2b_base64(stored, strict_mode=True)),
    "$datetime": ((str, list), lambda stored: _untag_moment(datetime, stored)),
    "$time": ((str, list), lambda stored: _untag_moment(time, stored)),
    "$date": ((str,), date.fromisoformat),
    "$timedelta": ((list,), _untag_timedelta),
    "$decimal": ((str,), Decimal),
    "$uuid": ((str,), UUID),
}
