"""What a checkpoint of LangGraph changes against another, and what changes add up to."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evstore.transfer.conversations import Cleared, Message, Said, Unset, Variable, is_message

UNKNOWN = object()  # stands for the value of a channel of which only changes are known
_OWN = ("__", "branch:", "start:", "join:")  # how the channels of LangGraph itself begin
_ROOT = "__root__"  # but this one holds the state of a graph whose state has no parts
_OVERWRITE, _REMOVE, _ALL = "__overwrite__", "remove", "__remove_all__"


def is_own(channel: str) -> bool:
    """Tell whether a channel is one of LangGraph itself, and no part of a state."""
    return channel.startswith(_OWN) and channel != _ROOT


def speaks(value: Any) -> bool:
    """Tell whether a value is a list of messages; an empty one is."""
    return type(value) is list and all(map(is_message, value))


def speaks_of(written: Any) -> bool:
    """Tell whether what was written to a channel are messages, or what is done with them."""
    return all(is_message(element) or _removes(element) for element in _parts(written)[1])


def differences(before: Mapping[str, Any], after: Mapping[str, Any], spoken: str) -> Iterator[Said]:
    """Yield what is said from one state to another; `spoken` is the channel of the messages."""
    old, new = (_messages(state, spoken) for state in (before, after))
    if not _are_same(new[: len(old)], old):
        yield Cleared()
        old = []
    yield from map(Message, new[len(old) :])
    had, has = (_variables(state, spoken) for state in (before, after))
    for name, value in has.items():
        # What is equal may still say something else, as 1 and True do.
        if name not in had or not _are_same(value, had[name], repr):
            yield Variable(name, value)
    yield from (Unset(name) for name in had if name not in has)


def fold(before: Any, written: list[Any]) -> list[Any] | None:
    """Return a list of messages after what was written to it, or None where that is no message."""
    if not (speaks(before) and all(map(speaks_of, written))):
        return None
    found: dict[Any, Any] = {_key(message): message for message in before}
    for value in written:
        is_anew, parts = _parts(value)
        if is_anew:
            found.clear()
        for part in parts:
            if not _removes(part):
                found[_key(part)] = part
            elif part.get("id") == _ALL:
                found.clear()
            else:
                found.pop(_key(part), None)
    return list(found.values())


def _messages(state: Mapping[str, Any], spoken: str) -> list[Any]:
    value = state.get(spoken)
    return value if type(value) is list and speaks(value) else []


def _variables(state: Mapping[str, Any], spoken: str) -> dict[str, Any]:
    return {
        name: value
        for name, value in state.items()
        if not (is_own(name) or value is UNKNOWN or (name == spoken and speaks(value)))
    }


def _are_same(one: Any, other: Any, of: Callable[[Any], Any] = lambda value: value) -> bool:
    try:
        return bool(of(one) == of(other))
    except RecursionError:
        return False


def _parts(written: Any) -> tuple[bool, list[Any]]:
    """Return whether a write begins anew, and what it consists of."""
    is_anew = type(written) is dict and _OVERWRITE in (*written, written.get("type"))
    if is_anew:
        written = written.get(_OVERWRITE, written.get("value")) or []
    return is_anew, written if type(written) is list else [written]


def _removes(part: Any) -> bool:
    return type(part) is dict and part.get("type") == _REMOVE and "role" not in part


def _key(part: dict[str, Any]) -> Any:
    """Return the id of a message, by which a later one takes its place; one without is alone."""
    rest = part.get("source")
    found = rest.get("id") if type(rest) is dict else part.get("id")
    return found if type(found) is str else object()
