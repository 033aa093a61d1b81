"""Classes of an application: how their objects are stored, by a name that the application chose."""

import enum
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs

from evstore.errors import Refused
from evstore.values import Registration, remember

_BUILT_IN = (str, int, float, bytes, list, tuple, dict, set, frozenset, datetime, date, time)
_LEFT_ALONE = (bytes, datetime, date, time, timedelta, Decimal, UUID)
Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def register(
    cls: type,
    *,
    name: str | None = None,
    version: int = 1,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
    upcast: Callable[[Any, int], Any] | None = None,
) -> None:
    """Let the objects of a class be stored, in this process, under a name (that of the class).

    attrs and dataclass classes, pydantic models, Enums, numpy arrays and scalars, and subclasses of
    storable types need no more; for others give `encode(object)`, which returns something storable,
    and `decode(data)`. `upcast(data, version)` brings data of an older version up to this one.

    Raises Refused where nothing is known about how to store the class.
    """
    made = None if encode and decode else _codec(cls)
    if made is None and not (encode and decode):
        raise Refused(f"how to store {cls.__name__} is not known: give encode= and decode=")
    to_data, to_object = made or (encode, decode)
    remember(
        Registration(
            cls, name or cls.__name__, version, encode or to_data, decode or to_object, upcast
        )
    )


def _codec(cls: type) -> Codec | None:
    if issubclass(cls, enum.Enum):
        return (lambda member: member.name), (lambda data: cls[data])
    if attrs.has(cls) or hasattr(cls, "__dataclass_fields__"):
        return _by_cattrs(cls)
    if hasattr(cls, "model_dump") and hasattr(cls, "model_validate"):
        return (lambda model: model.model_dump()), cls.model_validate
    if cls.__module__ == "numpy":
        return _by_numpy(cls)
    for built_in in _BUILT_IN:
        if issubclass(cls, built_in):
            return _by_built_in(cls, built_in)
    return None


def _by_cattrs(cls: type) -> Codec:
    import cattrs

    converter = cattrs.Converter(unstruct_collection_overrides={})
    for kind in _LEFT_ALONE:
        converter.register_unstructure_hook(kind, lambda value: value)
        converter.register_structure_hook(kind, lambda value, _kind: value)
    return converter.unstructure, lambda data: converter.structure(data, cls)


def _by_numpy(cls: type) -> Codec:
    import numpy  # noqa: ICN001 - the class came from there, so it is there

    def encode(value: Any) -> list[Any]:
        array = numpy.asarray(value)
        if array.dtype.hasobject:
            raise Refused("an array of Python objects cannot be stored: give it a numeric dtype")
        return [array.dtype.str, list(array.shape), array.tobytes()]

    def decode(data: list[Any]) -> Any:
        kind, shape, stored = data
        array = numpy.frombuffer(stored, kind).reshape(shape).copy()
        return array if cls is numpy.ndarray else array[()]

    return encode, decode


def _by_built_in(cls: type, built_in: Any) -> Codec:
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return tuple, lambda data: cls(*data)
    if built_in in (datetime, time):
        return (lambda value: built_in.combine(value.date(), value.timetz())), None  # type: ignore[return-value]
    return (lambda value: _plain(built_in, value)), cls


def _plain(built_in: Any, value: Any) -> Any:
    return built_in(value)
