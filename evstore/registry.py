"""Classes of an application: how their objects are stored, by a name that the application chose.

A codec is shallow: it takes an object to data one level down, and what is inside is stored by its
own type, so that nothing is lost to an annotation that says less than the object knows.
"""

import dataclasses
import enum
import functools
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import attrs

from evstore.errors import NotUpcast, Refused
from evstore.limits import Limits

VERSION_MAX = (1 << 31) - 1
Class = TypeVar("Class", bound=type)
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]
Codec = tuple[Encode, Decode]


@attrs.frozen
class Unregistered:
    """A stored object whose class is not registered in this process.

    Storing it again loses nothing.
    """

    name: str = attrs.field(validator=attrs.validators.instance_of(str))
    version: int = attrs.field(
        validator=[
            attrs.validators.instance_of(int),
            attrs.validators.ge(0),
            attrs.validators.le(VERSION_MAX),
        ]
    )
    data: Any

    def __hash__(self) -> int:
        """Return a hash that needs none of its data, because it may come out of a set."""
        return hash((self.name, self.version))


class Registration(NamedTuple):
    """How the objects of one class are stored and brought back."""

    cls: type
    name: str
    version: int
    encode: Encode
    decode: Decode
    upcast: Callable[[Any, int], Any] | None

    def takes(self, version: int) -> bool:
        """Tell whether data of this version can be brought back."""
        return version == self.version or (version < self.version and self.upcast is not None)

    def bring_back(self, data: Any, version: int) -> Any:
        """Return the object that some data stands for; raises NotUpcast."""
        try:
            if version != self.version and self.upcast is not None:
                data = self.upcast(data, version)
            return self.decode(data)
        except Exception as error:  # Whatever the application's own code may raise.
            told = f"the class registered by that name does not take it ({error!r})"
            raise NotUpcast(self.name, version, told) from error


by_class: dict[type, Registration] = {}
by_name: dict[str, Registration] = {}


def register(
    cls: Class,
    *,
    name: str | None = None,
    version: int = 1,
    encode: Encode | None = None,
    decode: Decode | None = None,
    upcast: Callable[[Any, int], Any] | None = None,
) -> Class:
    """Let the objects of a class be stored, in this process, under a name (that of the class).

    attrs and dataclass classes, pydantic models, Enums, numpy arrays and scalars, and subclasses of
    storable types need no more; what is inside an object is stored by its own type, so its class is
    registered too. Fields come back as they were: no converter and no `__post_init__` runs again,
    and an object with attributes beside them is NotStorable. For others give `encode(object)`,
    which returns something storable, and `decode(data)`. `upcast(data, version)` brings data of an
    older version up to this one; versions count from 1. Returns the class, so that it decorates.

    Raises Refused where nothing is known about how to store the class, or another has the name.
    """
    name = Limits().check_name("the name of a class", cls.__name__ if name is None else name)
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        raise Refused(f"version {version!r} cannot be counted: give a number from 1")
    known = by_name.get(name)
    if known is not None and origin(known.cls) != origin(cls):
        other = f"{known.cls.__module__}.{known.cls.__qualname__}"
        raise Refused(f"the name {name!r} belongs to {other}: give another name=")
    if encode is None or decode is None:
        made = _codec(cls)
        if made is None:
            raise Refused(f"how to store {cls.__name__} is not known: give encode= and decode=")
        encode, decode = encode or made[0], decode or made[1]
    by_class[cls] = by_name[name] = Registration(cls, name, version, encode, decode, upcast)
    return cls


def origin(defined: Any) -> tuple[str, str]:
    """Return where a class or function was defined; again, in a notebook, it is the same one."""
    named = defined if hasattr(defined, "__qualname__") else type(defined)
    return named.__module__, named.__qualname__


def _codec(cls: type) -> Codec | None:
    if issubclass(cls, enum.Flag):  # A combination of members has no name of its own.
        return (lambda member: member.value), cls
    if issubclass(cls, enum.Enum):
        return (lambda member: member.name), lambda name: cls[name]
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return _by_fields(cls)
    if hasattr(cls, "model_construct"):
        return _by_pydantic(cls)
    if _is_numpy(cls):
        return _by_numpy(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_make"):
        return _proven(cls, tuple, cls._make)
    for built_in, (to_plain, to_object) in _BUILT_IN.items():
        if issubclass(cls, built_in) and cls is not built_in:
            return _proven(cls, to_plain, to_object(cls))
    return None


def _by_fields(cls: Any) -> Codec | None:
    """Store an attrs or dataclass object as the dict of its fields, which come back as they were.

    The class makes an object anew only where fields were added since, for their defaults.
    """
    import cattrs
    from cattrs.gen import make_dict_structure_fn

    try:
        object.__new__(cls)
    except TypeError:  # It is more than its attributes, as an exception is.
        return None
    fields = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    names = dict.fromkeys(field.name for field in fields)
    known = names.keys() | _made_again(cls)
    # What is inside a field is left as it is, whatever the annotation says.
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook_func(lambda _kind: True, _left)
    for kind in (str, int, float, bool, bytes):  # These come before all functions.
        converter.register_structure_hook(kind, _left)
    parameters = getattr(cls, "__parameters__", ())
    of_anything = cls[(Any,) * len(parameters)] if parameters else cls
    structure: Callable[[Any, Any], Any] = make_dict_structure_fn(
        of_anything, converter, _cattrs_include_init_false=True, _cattrs_forbid_extra_keys=True
    )

    def encode(value: Any) -> dict[str, Any]:
        if beside := _attributes(value) - known:
            told = f"it has attributes beside its fields ({', '.join(sorted(beside))})"
            raise TypeError(f"{told}: register it with encode= and decode=")
        return {name: getattr(value, name) for name in names}

    def decode(data: Any) -> Any:
        made = object.__new__(cls) if data.keys() == names.keys() else structure(data, cls)
        for name, item in data.items():
            object.__setattr__(made, name, item)
        return made

    return encode, decode


def _attributes(value: object) -> set[str]:
    """Return the names of all that an object holds, in its dict and in its slots."""
    state = object.__getstate__(value)
    held = state if isinstance(state, tuple) else (state,)
    return {name for names in held for name in names or ()}


def _made_again(cls: type) -> set[str]:
    """Return the attributes that are no data: cached properties, and the arguments of a generic.

    The hash that attrs caches is none of them, because nothing would make it again.
    """
    names = {"__orig_class__"}
    for base in cls.__mro__:
        own = vars(base)
        names.update(name for name in own if isinstance(own[name], functools.cached_property))
        if "__attrs_attrs__" in own:  # With slots, attrs puts cached properties into them.
            names.update(own.get("__slots__", ()))
    return names - {"_attrs_cached_hash"}


def _left(value: Any, _kind: Any) -> Any:
    return value


def _by_pydantic(cls: Any) -> Codec:
    """Store a pydantic model as the dict of its fields, not validated again when it comes back.

    Fields go by their own names: an alias, or what a model is to iterate over, does not matter.
    """
    fields = cls.model_fields
    made_again = _made_again(cls) - fields.keys()
    takes_extra = cls.model_config.get("extra") == "allow"

    def encode(value: Any) -> dict[str, Any]:
        held = {name: item for name, item in vars(value).items() if name not in made_again}
        extra = value.__pydantic_extra__ or {}
        if beside := (held.keys() - fields.keys()) | (extra.keys() & fields.keys()):
            told = f"it has attributes beside its fields ({', '.join(sorted(beside))})"
            raise TypeError(f"{told}: register it with encode= and decode=")
        return held | extra

    def decode(data: Any) -> Any:
        extra = {name: item for name, item in data.items() if name not in fields}
        if extra and not takes_extra:
            raise TypeError(f"there are no fields {sorted(extra)}")
        held: dict[str, Any] = {}
        for name, field in fields.items():
            if name in data:
                held[name] = data[name]
            elif field.is_required():
                raise KeyError(name)
            else:
                held[name] = field.get_default(call_default_factory=True, validated_data=held)
        made = cls.__new__(cls)
        made.__setstate__(
            {
                "__dict__": held.copy(),
                "__pydantic_extra__": extra if takes_extra else None,
                "__pydantic_fields_set__": set(data),
                "__pydantic_private__": None,
            }
        )
        if cls.__pydantic_post_init__:  # It makes the private attributes, which are no data.
            made.model_post_init(None)
            vars(made).update(held)
        return made

    return encode, decode


def _is_numpy(cls: type) -> bool:
    numpy = sys.modules.get("numpy")  # Where it was never imported, no class is from there.
    return numpy is not None and (
        cls is numpy.ndarray or (issubclass(cls, numpy.generic) and cls.__module__ == "numpy")
    )


def _by_numpy(cls: type) -> Codec:
    """Store an array, or a scalar as one without dimensions: its kind, shape and bytes."""
    import numpy as np
    from numpy.lib.format import descr_to_dtype, dtype_to_descr

    def encode(value: Any) -> list[Any]:
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise TypeError("an array of Python objects has no numeric dtype")
        descr = dtype_to_descr(array.dtype)
        if descr_to_dtype(descr) != array.dtype:
            raise TypeError(f"dtype {array.dtype} cannot be written down")
        return [descr, list(array.shape), array.tobytes()]

    def decode(data: list[Any]) -> Any:
        descr, shape, stored = data
        dtype = descr_to_dtype(descr)
        if dtype.hasobject:  # Stored bytes must never be taken for addresses.
            raise TypeError("an array of Python objects was never stored")
        array = np.ndarray(shape, dtype, bytearray(stored))
        if array.nbytes != len(stored):
            raise ValueError(f"{len(stored)} bytes are too many for an array of {shape}")
        return array if cls is np.ndarray else array[()]

    return encode, decode


def _proven(cls: type, to_plain: Encode, decode: Decode) -> Codec:
    """Store what a subclass has of its base, if that is all: nothing is lost silently."""

    def encode(value: Any) -> Any:
        data = to_plain(value)
        again = decode(data)
        if (
            type(again) is not cls
            or again.__getstate__() != value.__getstate__()
            or not _alike(to_plain(again), data)
        ):
            raise TypeError("it comes back changed: register it with encode= and decode=")
        return data

    return encode, decode


def _alike(left: Any, right: Any) -> bool:
    if getattr(left, "fold", 0) != getattr(right, "fold", 0):  # Equality passes over it.
        return False
    try:
        return bool(left == right) or left != left  # noqa: PLR0124 - nan is alike
    except ArithmeticError:  # Not even comparing is allowed for a signalling NaN.
        return str(left) == str(right)


def _time(cls: Callable[..., Any]) -> Encode:
    return lambda at: cls(at.hour, at.minute, at.second, at.microsecond, at.tzinfo, fold=at.fold)


def _datetime(cls: Any) -> Encode:
    # To combine forgets the fold where the class is a subclass.
    return lambda value: cls.combine(_date(date)(value), value.timetz()).replace(fold=value.fold)


def _date(cls: Callable[..., Any]) -> Encode:
    return lambda day: cls(day.year, day.month, day.day)


def _timedelta(cls: Callable[..., Any]) -> Encode:
    return lambda value: cls(value.days, value.seconds, value.microseconds)


def _uuid(cls: Callable[..., Any]) -> Encode:
    return lambda value: cls(int=value.int)


def _itself(cls: Callable[..., Any]) -> Encode:
    return cls


# What takes an object of a subclass to the storable type, and what makes one of a subclass again;
# datetime before date, because it is one.
_BUILT_IN: dict[type, tuple[Encode, Callable[[Any], Decode]]] = {
    str: (str.__str__, _itself),
    int: (int.__int__, _itself),
    float: (float.__float__, _itself),
    bytes: (bytes.__bytes__, _itself),
    list: (list, _itself),
    tuple: (tuple, _itself),
    dict: (dict, _itself),
    set: (set, _itself),
    frozenset: (frozenset, _itself),
    datetime: (_datetime(datetime), _datetime),
    date: (_date(date), _date),
    time: (_time(time), _time),
    timedelta: (_timedelta(timedelta), _timedelta),
    Decimal: (Decimal, _itself),
    UUID: (_uuid(UUID), _uuid),
}
