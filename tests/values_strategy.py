"""Hypothesis strategies for all that can be stored, and a comparison that forgives nothing."""

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]
ZONES = ("Europe/Rome", "America/New_York", "Asia/Kolkata", "UTC")

# Text that UTF-8 can hold: everything but lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
small_integers = st.integers(-(1 << 63), (1 << 63) - 1)
integers = st.one_of(
    st.integers(),
    st.sampled_from([-(1 << 63), (1 << 63) - 1, -(1 << 63) - 1, 1 << 63, 1 << 64]),
    st.builds(lambda number, shift: number << shift, st.integers(), st.sampled_from([64, 20_000])),
)
floats = st.floats()  # nan, inf and -0.0 among them
plain_scalars = st.one_of(
    st.none(),
    st.booleans(),
    small_integers,
    texts,
    st.floats(allow_nan=False, allow_infinity=False),
)

offsets = st.builds(
    lambda seconds, microseconds: timedelta(seconds=seconds, microseconds=microseconds),
    st.integers(-86_000, 86_000),
    st.sampled_from([0, 0, 0, 1, 999_999]),
)
time_zones = st.one_of(
    st.none(),
    st.builds(timezone, offsets),
    st.builds(timezone, offsets, texts),
    st.sampled_from(ZONES).map(ZoneInfo),
)


def _with_fold(moment: Any, fold: int, zone: Any) -> Any:
    return moment.replace(fold=fold, tzinfo=zone)


datetimes = st.builds(_with_fold, st.datetimes(), st.integers(0, 1), time_zones)
times = st.builds(_with_fold, st.times(), st.integers(0, 1), time_zones)
# A signalling NaN cannot be hashed, so it is a value, but neither a key nor an element of a set.
signalling = st.sampled_from([Decimal("sNaN"), Decimal("-sNaN42")])
decimals = st.one_of(
    st.decimals().filter(lambda number: not number.is_snan()),
    st.sampled_from(list(map(Decimal, ["1E+5", "1E-999999", "-0", "0E+3", "NaN123", "-Infinity"]))),
)

hashable_scalars = st.one_of(
    plain_scalars,
    integers,
    floats,
    st.binary(max_size=20),
    datetimes,
    st.dates(),
    times,
    st.timedeltas(),
    decimals,
    st.uuids(),
)
scalars = hashable_scalars | signalling

# What the key of a stored dict can be: any scalar, and tuples of them.
keys: Strategy = st.recursive(
    hashable_scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4
)

_elements = st.recursive(
    hashable_scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)

# Names that look like tags, with whatever beside or below them.
_tag_names = st.sampled_from(["$tuple", "$dict", "$int", "$object", "$set", "$", "$unknown"])
_names = st.one_of(texts, _tag_names)


def _containers(inner: Strategy) -> Strategy:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(_names, inner, max_size=4),
        st.dictionaries(_tag_names, inner, min_size=1, max_size=1),
        st.dictionaries(keys, inner, max_size=3),
        st.sets(_elements, max_size=4),
        st.frozensets(_elements, max_size=4),
    )


# Every value that can be stored without registering a class.
storable: Strategy = st.recursive(scalars, _containers, max_leaves=12)


def _plain_containers(inner: Strategy) -> Strategy:
    plain_names = texts.filter(lambda name: not name.startswith("$"))
    return st.lists(inner, max_size=4) | st.dictionaries(plain_names, inner, max_size=4)


# What JSON itself can hold, and what is therefore stored as it is.
plain_json: Strategy = st.recursive(plain_scalars, _plain_containers, max_leaves=12)

# Messages as model APIs speak them: a role, and any other keys.
messages: Strategy = st.builds(
    lambda more, role, content: {**more, "role": role, "content": content},
    st.dictionaries(_names, plain_json | storable, max_size=3),
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.one_of(texts, st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}))),
)


def same(left: Any, right: Any) -> bool:
    """Whether two values are alike in every type, sign, order, fold and zone, nan included."""
    return fingerprint(left) == fingerprint(right)


def fingerprint(value: Any) -> str:
    """Return a text that is the same for the same values only."""
    return f"{type(value).__qualname__}<{_content(value)}>"


def _content(value: Any) -> str:
    match value:
        case bool() | None | str() | bytes():
            return repr(value)
        case int():
            return hex(value)
        case float():
            return value.hex()
        case Decimal():
            return repr(value.as_tuple())
        case UUID():
            return value.hex
        case timedelta():
            return f"{value.days} {value.seconds} {value.microseconds}"
        case datetime() | time():
            naive = value.replace(tzinfo=None, fold=0).isoformat()
            return f"{naive} {value.fold} {_zone(value.tzinfo)}"
        case date():
            return value.isoformat()
        case dict():
            return ", ".join(f"{fingerprint(key)}: {fingerprint(value[key])}" for key in value)
        case set() | frozenset():
            return ", ".join(sorted(map(fingerprint, value)))
        case list() | tuple():
            return ", ".join(map(fingerprint, value))
    return repr(value)


def _zone(zone: Any) -> str:
    if isinstance(zone, timezone):  # Its offset, and the name it was given, if any.
        return repr(zone.__getinitargs__())  # type: ignore[attr-defined]
    return f"{type(zone).__name__} {getattr(zone, 'key', None)}"
