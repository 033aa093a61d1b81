"""Tools: a function's signature and docstring say all that a model has to know of it."""

import enum
import functools
from typing import Any, Dict, List, Literal, Optional  # noqa: UP035 - they are taken as well

import pytest

from evstore.agent import Tool, tool
from evstore.agent.tools import tools_of
from evstore.errors import BadName, Refused


def book(
    city: str,
    nights: int,
    price: float = 99.5,
    breakfast: bool = True,
    tags: list[str] | None = None,
    guests: dict[str, int] | None = None,
    room: Literal["single", "double"] = "single",
    note: Optional[str] = None,  # noqa: UP045 - people write it so
    rest: Any = None,
    bare: list = [],  # type: ignore[type-arg]  # noqa: B006
    things: dict = {},  # type: ignore[type-arg]  # noqa: B006
    untyped=None,
) -> str:
    """Book a hotel.

    It is paid at once.
    """
    return f"{nights} nights in {city}"


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "nights": {"type": "integer"},
        "price": {"type": "number", "default": 99.5},
        "breakfast": {"type": "boolean", "default": True},
        "tags": {
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "default": None,
        },
        "guests": {
            "anyOf": [
                {"type": "object", "additionalProperties": {"type": "integer"}},
                {"type": "null"},
            ],
            "default": None,
        },
        "room": {"enum": ["single", "double"], "default": "single"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "rest": {"default": None},
        "bare": {"type": "array"},
        "things": {"type": "object"},
        "untyped": {"default": None},
    },
    "required": ["city", "nights"],
    "additionalProperties": False,
}


def test_a_function_describes_itself():
    """Name, description and the JSON Schema of the input come from the function."""
    made = tool(book)
    assert "book" == made.name
    assert "Book a hotel.\n\nIt is paid at once." == made.description
    assert SCHEMA == made.schema
    assert made.shown().startswith("- book: Book a hotel.")
    assert not made.is_async


@pytest.mark.parametrize(
    "given",
    [
        {"city": "Rome", "nights": 3},
        {"city": "Rome", "nights": 3, "price": 80, "breakfast": False, "room": "double"},
        {"city": "", "nights": 0, "tags": ["a"], "guests": {"Ada": 1}, "note": None, "rest": [1]},
        {"city": "", "nights": 0, "tags": None, "bare": [1, "a"], "things": {"a": {}}},
    ],
)
def test_arguments_that_fit(given):
    """What has the right types is taken; what has a default may be left out."""
    assert [] == tool(book).problems(given)


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({}, ["input.city is missing", "input.nights is missing"]),
        (
            {"city": "Rome", "nights": "3"},
            ['input.nights has to be of type integer, and is "3"'],
        ),
        (
            {"city": "Rome", "nights": True},
            ["input.nights has to be of type integer, and is true"],
        ),
        (
            {"city": "Rome", "nights": 3, "price": "cheap"},
            ['input.price has to be of type number, and is "cheap"'],
        ),
        ({"city": "Rome", "nights": 3, "pets": 2}, ["input.pets is not known"]),
        (
            {"city": "Rome", "nights": 3, "room": "suite"},
            ['input.room has to be one of ["single","double"]'],
        ),
        (
            {"city": "Rome", "nights": 3, "tags": [1]},
            ['input.tags has to fit [{"type":"array","items":{"type":"string"}},{"type":"null"}]'],
        ),
    ],
)
def test_arguments_that_do_not_fit(given, problems):
    """Whatever is wrong is said, with the place where it is."""
    assert problems == tool(book).problems(given)


def test_what_is_inside_lists_and_objects_is_checked():
    """A wrong element is named by its index or its key."""

    def count(words: list[list[str]], weights: dict[str, float]) -> int:
        return len(words)

    problems = tool(count).problems({"words": [["a"], ["b", 2]], "weights": {"a": 1, "b": "2"}})
    assert [
        "input.words[1][1] has to be of type string, and is 2",
        'input.weights.b has to be of type number, and is "2"',
    ] == problems
    assert "No description." == tool(count).description


class Adder:
    """Adds."""

    def __call__(self, a: int) -> int:
        return a + 1

    def method(self, a: int) -> int:
        return a + 2


def test_anything_that_can_be_called_is_a_tool():
    """Methods, objects, partials and lambdas are tools, where need be under a given name."""
    adder = Adder()
    for function, name, result in (
        (adder.method, None, 3),
        (adder, "add", 2),
        (functools.partial(pow, exp=3), "cube", 1),
        (lambda a: a, "same", 1),
    ):
        made = tool(function, name=name) if name else tool(function)
        arguments = {"base": 1} if name == "cube" else {"a": 1}
        assert [] == made.problems(arguments)
        assert result == made.function(**arguments)


def test_a_partial_keeps_the_types_of_its_function():
    """What is bound in front is no parameter any more, and the others are what they were."""
    made = tool(functools.partial(book, "Rome"), name="book_in_rome")
    assert ["nights"] == made.schema["required"]
    assert {"type": "integer"} == made.schema["properties"]["nights"]
    assert "3 nights in Rome" == made.function(nights=3)
    assert tool(book).description == made.description


def test_lists_and_objects_may_be_of_anything():
    """The types of `typing` stand for the same without what is inside."""

    def gather(a: List, b: Dict) -> None:  # type: ignore[type-arg]  # noqa: UP006
        pass

    assert {"a": {"type": "array"}, "b": {"type": "object"}} == tool(gather).schema["properties"]


def test_a_choice_is_of_a_type_too():
    """What equals a choice in Python and not in JSON does not fit."""

    def pick(a: Literal[1, 2]) -> None:
        pass

    assert [] == tool(pick).problems({"a": 1})
    for given in (True, 1.0, "1", [1]):
        assert ["input.a has to be one of [1,2]"] == tool(pick).problems({"a": given})


async def waiting() -> None:
    pass


class Waiting:
    async def __call__(self) -> None:
        pass


def test_what_has_to_be_awaited_is_known():
    """Async functions and objects are told from plain ones."""
    assert tool(waiting).is_async
    assert tool(functools.partial(waiting), name="partial").is_async
    assert tool(Waiting(), name="object").is_async


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        functools.partial(book),
    ],
    ids=["lambda", "partial"],
)
def test_a_tool_has_a_name(function):
    """A name that no model could write is refused."""
    with pytest.raises(BadName, match="give name="):
        tool(function)


class Color(enum.Enum):
    RED = "red"


def by_position(a, /):
    pass


def with_many(*rest):
    pass


def with_named(**rest):
    pass


def with_bytes(a: bytes):
    pass


def with_numbers_as_keys(a: dict[int, str]):
    pass


def with_a_set(a: list[set[str]]):
    pass


def with_the_unknown(a: "Unknown"):  # type: ignore[name-defined]  # noqa: F821 - just that
    pass


def with_what_is_no_type(a: []):  # type: ignore[valid-type]
    pass


def with_what_is_no_expression(a: "1 +"):  # type: ignore[valid-type]  # noqa: F722 - just that
    pass


def with_a_color(a: Literal[Color.RED]):
    pass


def in_pieces(a: int):
    yield a


async def in_awaited_pieces(a: int):
    yield a


@pytest.mark.parametrize(
    "function",
    [
        *(by_position, with_many, with_named, with_bytes, with_numbers_as_keys, with_a_set, max),
        *(with_the_unknown, with_what_is_no_type, with_what_is_no_expression, with_a_color),
        *(in_pieces, in_awaited_pieces),
    ],
)
def test_what_json_cannot_give_is_refused(function):
    """A parameter that no JSON object can fill is refused when the tool is made."""
    with pytest.raises(Refused, match=function.__name__):
        tool(function)


def test_each_tool_has_a_name_of_its_own():
    """Functions and tools are taken together, in order, and no name twice."""
    other = Tool("other", "Another.", {}, book)
    assert ["book", "other"] == list(tools_of([book, other]))
    assert [] == other.problems({"whatever": 1})
    with pytest.raises(Refused, match="two tools are called 'book'"):
        tools_of([book, book])
