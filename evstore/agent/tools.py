"""Tools: Python functions that a model may call, described by their signatures and docstrings."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import orjson

from evstore.errors import BadName, Refused

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_TYPES: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    NoneType: "null",
}
_VALUES: dict[str, tuple[type, ...]] = {name: (kind,) for kind, name in _TYPES.items()}
_VALUES["number"] = (int, float)  # JSON writes 3.0 as 3
_Schema = dict[str, Any]


@attrs.frozen
class Tool:
    """A function with what a model has to know of it; `schema` is the JSON Schema of its input."""

    name: str
    description: str
    schema: Mapping[str, Any]
    function: Callable[..., Any]

    @property
    def is_async(self) -> bool:
        """Whether it has to be awaited."""
        return is_async(self.function)

    def problems(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return what is wrong with some arguments, a sentence each; nothing if they fit."""
        return list(_misfits(dict(self.schema), dict(arguments), "input"))

    def shown(self) -> str:
        """Return the line that tells a model of it."""
        return f"- {self.name}: {self.description}\n  input: {json(self.schema)}"


def tool(function: Callable[..., Any], name: str | None = None) -> Tool:
    """Return a function as a tool, under its own name unless another one is given.

    Its parameters may be str, int, float, bool, list, dict, Optional, Union, Literal and Any, with
    defaults, and one without a type takes anything. Raises Refused for others, for what yields
    instead of returning, and for what has no signature; and BadName.
    """
    called = name if name is not None else getattr(function, "__name__", "")
    if not _NAME.match(called):
        raise BadName("tool", called, "a name has 1 to 64 letters, digits, _ and -: give name=")
    described = function
    while isinstance(described, partial):
        described = described.func
    description = inspect.getdoc(described) or "No description."
    if not inspect.isroutine(described):
        described = type(described).__call__
    if inspect.isgeneratorfunction(described) or inspect.isasyncgenfunction(described):
        raise Refused(f"tool {called!r} yields what nobody takes: return a list instead")
    try:
        hints, signature = get_type_hints(described), inspect.signature(function)
    except Exception as error:  # An annotation may be any code.
        told = f"tool {called!r} cannot be described ({error})"
        raise Refused(f"{told}: wrap it in a function with known types") from error
    properties: _Schema = {}
    required = []
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise Refused(f"tool {called!r}: {parameter} cannot be given by name: leave it out")
        what = f"tool {called!r}: the type of {parameter.name!r}"
        schema = _schema(hints.get(parameter.name, Any), what)
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        elif isinstance(parameter.default, (str, int, float, NoneType)):
            schema["default"] = parameter.default
        properties[parameter.name] = schema
    schema = {"type": "object", "properties": properties, "required": required}
    schema["additionalProperties"] = False
    return Tool(called, description, schema, function)


def tools_of(given: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    """Return tools by their names, in order; raises Refused where two have the same name."""
    found: dict[str, Tool] = {}
    for each in given:
        made = each if isinstance(each, Tool) else tool(each)
        if made.name in found:
            raise Refused(f"two tools are called {made.name!r}: give one of them another name")
        found[made.name] = made
    return found


def json(value: Any) -> str:
    """Return a value as JSON text; what JSON does not know is shown as text."""
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling a function gives something to be awaited."""
    called = getattr(function, "__call__", None)  # noqa: B004 - of an object, its method
    return any(
        test(each)
        for test in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        for each in (function, called)
    )


def _schema(hint: Any, what: str) -> _Schema:
    """Return the JSON Schema of a type; raises Refused for one that JSON does not know."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if origin is Literal and all(type(each) in _TYPES for each in inner):
        return {"enum": list(inner)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(each, what) for each in inner]}
    if origin is list and inner:
        return {"type": "array", "items": _schema(inner[0], what)}
    if origin is dict and inner and inner[0] is str:
        return {"type": "object", "additionalProperties": _schema(inner[1], what)}
    plain = hint if inner else origin or hint  # `typing.List` is a list of anything.
    if isinstance(plain, type) and plain in _TYPES:
        return {"type": _TYPES[plain]}
    raise Refused(
        f"{what} is {hint!r}: use str, int, float, bool, list, dict, Optional, Literal or Any"
    )


def _misfits(schema: _Schema, value: Any, path: str) -> Iterator[str]:
    """Yield where a JSON value does not fit a schema as made above."""
    if "enum" in schema:
        if not any(type(each) is type(value) and each == value for each in schema["enum"]):
            yield f"{path} has to be one of {json(schema['enum'])}"
    elif "anyOf" in schema:
        if all(any(_misfits(each, value, path)) for each in schema["anyOf"]):
            yield f"{path} has to fit {json(schema['anyOf'])}"
    elif "type" in schema:
        kind = schema["type"]
        if type(value) not in _VALUES[kind]:
            yield f"{path} has to be of type {kind}, and is {json(value)[:100]}"
        elif kind == "array":
            for index, item in enumerate(value):
                yield from _misfits(schema.get("items", {}), item, f"{path}[{index}]")
        elif kind == "object":
            yield from _misfit_members(schema, value, path)


def _misfit_members(schema: _Schema, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name} is missing"
    others = schema.get("additionalProperties", {})
    for name, item in value.items():
        known = schema.get("properties", {}).get(name, others)
        if known is False:
            yield f"{path}.{name} is not known"
        else:
            yield from _misfits(known, item, f"{path}.{name}")
