"""What a value becomes: JSON text that any shell can read and that loses nothing.

Plain JSON stays plain. A type that JSON lacks becomes an object with exactly one member whose name
begins with `$` (`{"$tuple": [1, 2]}`); a dict of an application that happens to look like that is
stored as `{"$dict": [[key, value], ...]}`, so no value can be mistaken for another. A walk decides
before the fast encoder runs, because fast encoders silently turn nan into null and tuples into
lists. Nothing is ever unpickled or imported by a stored name.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import orjson

from evstore.errors import Corrupt, NotStorable
from evstore.registry import Unregistered, by_class, by_name
from evstore.tags import FROM_TAG, INT_MAX, INT_MIN, TO_TAG, Lossy

DEPTH_MAX = 100
PATH_CHARACTERS_MAX = 200
STEP_CHARACTERS_MAX = 60
_MARK = '{"$'
_TOO_DEEP = f"is nested deeper than {DEPTH_MAX} levels"
_LOSSY = "has a type that cannot be stored without loss"

type_fallback = Callable[[Any], Any] | None


def encode(
    value: Any, *, fallback: type_fallback = None, root: str = "value", depth: int = DEPTH_MAX
) -> bytes:
    """Return the JSON text (UTF-8) of a value.

    `fallback` is called with whatever has no lossless form and returns something that has one; keys
    of dicts are not given to it. `root` is the name of the value in the path that `NotStorable`
    reports. `depth` is how many levels it may have, as for `decode`.
    """
    if _is_plain(value, depth):
        try:
            return orjson.dumps(value)
        except TypeError:
            pass  # A lone surrogate: the walk below finds where.
    return dump(_Tagger(fallback, root).tag(value, depth))


def decode(text: str | bytes, depth: int = DEPTH_MAX) -> Any:
    """Return a fresh value from its JSON text; raises Corrupt where it is none of ours.

    `depth` is how many levels it may have: more than those of a value where one is inside of it.
    Raises Unavailable for a time zone that this machine does not know.
    """
    try:
        value = orjson.loads(text)
        if isinstance(text, bytes):
            marked = _MARK.encode() in text
        else:  # One character is found six times as fast as three.
            marked = "$" in text and _MARK in text
        return _untag(value, depth) if marked else value
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise Corrupt("", f"a stored value cannot be decoded ({error})") from error


def type_name(text: str | bytes) -> str:
    """Return the name of the type of a stored value, of an object the name of its class."""
    head = text[:32] if isinstance(text, str) else text[:32].decode("utf-8", "replace")
    if head.startswith(_MARK):
        return _tagged_type_name(text)
    if head[:1] in "-0123456789":
        return "float" if any(mark in head for mark in ".eE") else "int"
    return {"{": "dict", "[": "list", '"': "str", "n": "None"}.get(head[:1], "bool")


def _tagged_type_name(text: str | bytes) -> str:
    try:
        value = orjson.loads(text)
        if len(value) > 1:  # A plain dict, whose first key begins like a tag.
            return "dict"
        ((tag, stored),) = value.items()
        return str(stored[0]) if tag == "$object" else _TYPE_NAMES[tag]
    except (ValueError, TypeError, LookupError) as error:
        raise Corrupt("", f"a stored value cannot be decoded ({error})") from error


def _is_plain(value: Any, depth: int) -> bool:
    """Tell whether the fast encoder keeps this value as it is (surrogates it finds by itself)."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(INT_MIN <= value <= INT_MAX)
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
        for item in value:  # noqa: SIM110 - a loop takes half the time of all()
            if type(item) is not str and not _is_plain(item, depth - 1):
                return False
        return True
    return False


def _looks_tagged(value: dict[Any, Any]) -> bool:
    (key,) = value
    return type(key) is str and key.startswith("$")


def dump(tagged: Any) -> bytes:
    """Return the JSON text (UTF-8) of what is in JSON's types already."""
    try:
        return orjson.dumps(tagged)
    except TypeError:  # Tags may nest deeper than orjson's limit of 254 levels.
        return json.dumps(tagged, ensure_ascii=False, separators=(",", ":")).encode()


_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})


class _Tagger:
    """The walk that turns a value into what JSON can hold, or says where it cannot.

    The way to the element at hand is kept as (opening, thing, closing), and put into words only in
    an error.
    """

    def __init__(self, fallback: type_fallback, root: str) -> None:
        self._fallback = fallback
        self._way: list[tuple[str, Any, str]] = []
        self._root = root
        self._sets = 0  # how many sets the element at hand is inside of

    def tag(self, value: Any, depth: int) -> Any:
        """Return the value in JSON's types; raises NotStorable."""
        kind = type(value)
        if kind in TO_TAG:
            try:
                return self._scalar(value)
            except NotStorable:
                if self._fallback is None:
                    raise
        elif kind in _CONTAINERS:
            return self._container(value, self._deeper(kind, depth))
        elif kind is Unregistered or kind in by_class:
            return self._object(value, self._deeper(kind, depth))
        if self._fallback is None:
            raise self._refusal(kind.__name__, _LOSSY)
        return self._replaced(self._fallback(value), self._deeper(kind, depth))

    def _scalar(self, value: Any) -> Any:
        try:
            return TO_TAG[type(value)](value)
        except Lossy as error:
            raise self._refusal(*error.args) from None

    def _deeper(self, kind: type, depth: int) -> int:
        if depth == 0:
            raise self._refusal(kind.__name__, _TOO_DEEP, "nest it less deeply, and in no cycle")
        return depth - 1

    def _replaced(self, value: Any, depth: int) -> Any:
        if self._sets:
            try:
                hash(value)
            except TypeError:
                detail = "came from fallback= and cannot be the element of a set"
                remedy = "let it return something hashable"
                raise self._refusal(type(value).__name__, detail, remedy) from None
        return self.tag(value, depth)

    def _refusal(self, kind: str, detail: str, *remedy: str) -> NotStorable:
        steps = (f"{opening}{_shown(thing)}{closing}" for opening, thing, closing in self._way)
        path = _shortened(self._root + "".join(steps), PATH_CHARACTERS_MAX)
        return NotStorable(path, kind, detail, *remedy)

    def _container(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is dict:
            return self._dict(value, depth)
        if kind is list:
            return self._items(value, depth)
        if kind is tuple:
            return {"$tuple": self._items(value, depth)}
        self._sets += 1
        items = [self._step("{", item, "}", item, depth) for item in value]
        self._sets -= 1
        items.sort(key=dump)
        for left, right in pairwise(map(dump, items)):
            if left == right and b'{"$object"' in left:
                detail = "holds two objects that are stored alike"
                raise self._refusal(kind.__name__, detail, "keep one of them, or use a list")
        return {f"${kind.__name__}": items}

    def _step(self, opening: str, thing: Any, closing: str, value: Any, depth: int) -> Any:
        self._way.append((opening, thing, closing))
        tagged = self.tag(value, depth)
        self._way.pop()
        return tagged

    def _items(self, items: Iterable[Any], depth: int) -> list[Any]:
        return [self._step("[", index, "]", item, depth) for index, item in enumerate(items)]

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        tagged = [
            (self._key(key, depth), self._step("[", key, "]", item, depth))
            for key, item in value.items()
        ]
        named = all(type(key) is str for key in value)
        if named and not (len(value) == 1 and _looks_tagged(value)):
            return dict(tagged)
        return {"$dict": tagged}

    def _key(self, key: Any, depth: int) -> Any:
        self._way.append((": key ", key, ""))
        if type(key) is tuple:
            deeper = self._deeper(tuple, depth)
            tagged: Any = {"$tuple": [self._key(item, deeper) for item in key]}
        elif type(key) in TO_TAG:
            tagged = self._scalar(key)
        else:
            detail = "cannot be the key of a stored dict"
            raise self._refusal(type(key).__name__, detail, "convert it to text or a number")
        self._way.pop()
        return tagged

    def _object(self, value: Any, depth: int) -> Any:
        if type(value) is Unregistered:
            name, version, data = self._scalar(value.name), value.version, value.data
        else:
            registration = by_class[type(value)]
            name, version = registration.name, registration.version
            try:
                data = registration.encode(value)
            except Exception as error:  # Whatever the application's own code may raise.
                detail = f"is not encoded ({error!r})"
                remedy = "mend the object, or what encodes its class"
                raise self._refusal(type(value).__name__, detail, remedy) from error
        sets, self._sets = self._sets, 0  # The object is hashed, not its data.
        tagged = self._step(f".{name}", ..., "", data, depth)
        self._sets = sets
        return {"$object": [name, version, tagged]}


FROM_LIST: Mapping[str, Callable[[list[Any]], Any]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
}
_TYPE_NAMES = {tag: tag[1:] for tag in [*FROM_TAG, *FROM_LIST, "$dict"]}
_TYPE_NAMES |= {"$decimal": "Decimal", "$uuid": "UUID"}


def _shown(thing: Any) -> str:
    if thing is ...:  # A step that its opening says all about.
        return ""
    try:
        return _shortened(repr(thing), STEP_CHARACTERS_MAX)
    except Exception:  # noqa: BLE001 - whatever the application's own code may raise
        return f"<{type(thing).__name__}>"


def _shortened(text: str, characters_max: int) -> str:
    """Return a text with its middle left out where it is too long."""
    if len(text) <= characters_max:
        return text
    half = (characters_max - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def _untag(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is dict and len(value) == 1 and _looks_tagged(value):
        ((tag, stored),) = value.items()
        return _untagged(tag, stored, depth)
    if kind is not dict and kind is not list:
        return value
    if depth == 0:
        raise ValueError(f"it {_TOO_DEEP}")
    if kind is list:
        return [_untag(item, depth - 1) for item in value]
    return {key: _untag(item, depth - 1) for key, item in value.items()}


def _untagged(tag: str, stored: Any, depth: int) -> Any:
    if tag in FROM_TAG:
        kinds, make = FROM_TAG[tag]
        if type(stored) not in kinds:
            raise TypeError(f"{tag} cannot be a {type(stored).__name__}")
        return make(stored)
    if depth == 0:
        raise ValueError(f"it {_TOO_DEEP}")
    if type(stored) is not list:
        raise TypeError(f"{tag} cannot be a {type(stored).__name__}")
    if tag == "$object":
        return _untag_object(stored, depth - 1)
    if tag == "$dict":
        return {_untag(key, depth - 1): _untag(item, depth - 1) for key, item in stored}
    return FROM_LIST[tag]([_untag(item, depth - 1) for item in stored])


def _untag_object(stored: list[Any], depth: int) -> Any:
    name, version, data = stored
    found = Unregistered(name, version, _untag(data, depth))
    registration = by_name.get(name)
    if registration is None or not registration.takes(version):
        return found
    return registration.bring_back(found.data, version)
