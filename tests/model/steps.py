"""Steps that can be taken alike on a session, a batch and the model's draft of one."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from evstore.errors import EvstoreError
from evstore.events import ABSENT

IDS = st.sampled_from(["a", "b", "ü"])
VARIABLES = ("a", "b", "cfg.x", "cfg.y", "ü")
NAMES = st.sampled_from(VARIABLES)
LONG = st.integers(0, 99).map(lambda number: f"{number} " + "long " * 120)  # stored compressed
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | LONG
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.tuples(SCALARS, SCALARS)
    | st.dictionaries(st.text(max_size=2), SCALARS, max_size=2)
)
WORDS = st.lists(st.sampled_from(["ape", "apes", "bee", "cat"]), max_size=3).map(" ".join)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant"]),
        "content": st.integers(0, 99) | WORDS | WORDS | LONG,
    }
)
QUERIES = st.sampled_from(["ape", "bee cat", "ap*", '"ape bee"', "long", "dog"])
LABELS = st.sampled_from(["here", "there"])
INDEX = st.integers(-4, 4)
BOUND = st.none() | st.integers(-5, 5)
SLICES = st.builds(slice, BOUND, BOUND, st.sampled_from([None, 1, 2, -1, -3]))
REASON = st.none() | st.text(max_size=3)
TTLS_S = st.sampled_from([3, 15, 60, 1000])

# A step: which door, which method, with what; `act` takes it on a session, a batch or a draft.
READS = ("__getitem__", "__contains__", "__len__", "get", "match", "tail")
TELLING = (*READS, "pop", "popitem", "setdefault")  # what they return is compared


def step(doors: list[str], method: str, *arguments: st.SearchStrategy[Any]) -> Any:
    return st.tuples(st.sampled_from(doors), st.just(method), st.tuples(*arguments))


NAMED = ["variables", "variables", "metadata"]
WRITING = st.one_of(
    step(NAMED, "__setitem__", NAMES, VALUES),
    step(NAMED, "__setitem__", NAMES, VALUES),
    step(NAMED, "set", NAMES, VALUES, st.just(ABSENT) | st.integers(1, 12)),
    step(["variables"], "lend", NAMES, VALUES, TTLS_S),
    step(["variables"], "lend", NAMES, VALUES, TTLS_S),
    step(NAMED, "__delitem__", NAMES),
    step(NAMED, "pop", NAMES),
    step(NAMED, "pop", NAMES, VALUES),
    step(NAMED, "popitem"),
    step(NAMED, "setdefault", NAMES, VALUES),
    step(NAMED, "update", st.dictionaries(NAMES, VALUES, max_size=3)),
    step(NAMED, "__ior__", st.dictionaries(NAMES, VALUES, max_size=3)),
    step(NAMED, "clear"),
    step(["messages"], "append", MESSAGES),
    step(["messages"], "append", MESSAGES),
    step(["messages"], "extend", st.lists(MESSAGES, max_size=4)),
    step(["messages"], "pop", INDEX),
    step(["messages"], "remove", INDEX, REASON),
    step(["messages"], "replace", INDEX, MESSAGES, REASON),
    step(["messages"], "replace", INDEX, MESSAGES, REASON),
    step(["messages"], "clear"),
    st.tuples(st.just(""), st.just("record"), st.tuples(st.just("app.note"), VALUES)),
)
READING = st.one_of(
    step(NAMED, "__getitem__", NAMES),
    step(NAMED, "__contains__", NAMES),
    step(NAMED, "get", NAMES),
    step(NAMED, "match", st.sampled_from(["*", "cfg.*", "[ab]"])),
    step(["variables", "metadata", "messages"], "__len__"),
    step(["messages"], "__getitem__", INDEX | SLICES),
    step(["messages"], "tail", st.integers(0, 4)),
)
ON_MESSAGES = st.one_of(
    step(["messages"], "append", MESSAGES),
    step(["messages"], "extend", st.lists(MESSAGES, min_size=2, max_size=3)),
    step(["messages"], "remove", st.integers(-3, 2), REASON),
    step(["messages"], "replace", st.integers(-3, 2), MESSAGES, REASON),
)
SAYING = step(["messages"], "append", MESSAGES) | step(["variables"], "__setitem__", NAMES, VALUES)
STEPS = st.lists(ON_MESSAGES, min_size=3, max_size=10) | st.lists(
    WRITING | WRITING | READING, max_size=10
)


def act(doors: Any, taken: Any) -> Any:
    """Take a step; return what it tells."""
    door, method, arguments = taken
    opened = getattr(doors, door) if door else doors
    if method == "set":
        name, value, expect = arguments
        opened.set(name, value, expect=expect)
        return None
    if method == "lend":
        name, value, ttl_s = arguments
        opened.set(name, value, ttl=ttl_s)
        return None
    told = getattr(opened, method)(*arguments)
    return told if method in TELLING else None


def outcome(take: Callable[[], Any]) -> str:
    """What came of it: a value or an error, as text."""
    try:
        return f"returned {take()!r}"
    except (EvstoreError, KeyError, IndexError) as error:
        return f"raised {type(error).__name__}"
