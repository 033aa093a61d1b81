"""What LangGraph's serializer has written becomes plain data: no class is imported by its name.

A value is stored with its kind: `msgpack`, in which an Ext stands for an object as [module, class,
arguments], or, in older files, `json`, in which {"lc", "type": "constructor", "id", "kwargs"} does.
Messages of LangChain become messages, a few types of the standard library themselves, and other
objects their arguments; the names of their classes are told beside. Checked with
langgraph-checkpoint 4.3.2. What is pickled or encrypted is refused.
"""

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from evstore.errors import MissingExtra
from evstore.transfer.langchain_messages import as_message

_ARRAY, _SNAPSHOT = 6, 7  # of the codes of an Ext; those below are objects
_STANDARD: Mapping[tuple[str, str], Callable[[Any], Any]] = {
    ("builtins", "frozenset"): frozenset,
    ("builtins", "set"): set,
    ("collections", "deque"): list,
    ("datetime", "date"): lambda parts: date(*parts),
    ("datetime", "datetime"): datetime.fromisoformat,
    ("datetime", "timedelta"): lambda parts: timedelta(*parts),
    ("decimal", "Decimal"): Decimal,
    ("uuid", "UUID"): UUID,
}
_REASONS = {
    "pickle": "it is pickled, and nothing is unpickled here: save it again without pickle_fallback",
}


class Unreadable(Exception):
    """A value cannot be read; the message says why, and what to do."""


class Values:
    """Reads values, and notes the names of the classes that they were of."""

    def __init__(self) -> None:
        self.classes: set[str] = set()

    def decode(self, kind: Any, data: Any) -> Any:
        """Return a value from its kind and its bytes.

        Raises Unreadable, and MissingExtra where the library for msgpack is not installed.
        """
        if kind == "null":
            return None
        if type(data) is str:
            data = data.encode("utf-8", "surrogateescape")
        if type(data) is not bytes:
            raise Unreadable("it has no bytes: repair the file")
        if kind in ("bytes", "bytearray"):
            return data
        try:
            if kind == "msgpack":
                return _unpacked(data, self._ext)
            if kind == "json":
                return json.loads(data, object_hook=self._constructed)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"it is cut off or damaged ({error}): repair the file") from error
        reason = f"it is stored as {kind!r}, which is unknown here: save it without encryption"
        raise Unreadable(_REASONS.get(str(kind), reason))

    def _ext(self, code: int, data: bytes) -> Any:
        if not 0 <= code <= _SNAPSHOT:
            return {"ext": code, "data": data}
        inside = _unpacked(data, self._ext)
        if code == _SNAPSHOT:
            return inside
        if code == _ARRAY:
            kind, shape, order, numbers = inside
            return {"dtype": kind, "shape": shape, "order": order, "data": numbers}
        module, name, argument, *_ = inside
        return self._object(str(module), str(name), argument)

    def _constructed(self, value: dict[str, Any]) -> Any:
        path = value.get("id")
        if value.get("type") != "constructor" or "lc" not in value or type(path) is not list:
            return value
        *modules, name = map(str, path or [""])
        argument = value.get("kwargs") or value.get("args")
        if type(argument) is list and len(argument) == 1:
            (argument,) = argument
        return self._object(".".join(modules), name, argument)

    def _object(self, module: str, name: str, argument: Any) -> Any:
        """Return what stands for an object of a class."""
        if module.startswith("langchain") and type(argument) is dict:
            message = as_message({"type": name, **argument})
            if message is not None:
                return message
        try:
            return _STANDARD[module, name](argument)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
            self.classes.add(f"{module}.{name}")
            return argument


def _unpacked(data: bytes, ext_hook: Callable[[int, bytes], Any]) -> Any:
    try:
        import ormsgpack
    except ImportError:
        raise MissingExtra("langgraph") from None
    return ormsgpack.unpackb(data, ext_hook=ext_hook, option=ormsgpack.OPT_NON_STR_KEYS)
