"""The conversation storages under test, and random messages and session ids for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

import evstore
from evstore.agent import (
    ConversationStorage,
    FileSystemStorage,
    InMemoryStorage,
    SqliteStorage,
)
from evstore.errors import BadName
from evstore.limits import Limits
from tests.event_schemas import check_store
from tests.values_strategy import texts

KINDS = ("memory", "files", "sqlite", "sqlite in memory", "open store")
ON_DISK = ("files", "sqlite")

NASTY_IDS = (
    *("user-123", "Alice", "alice", "ALICE", "../../etc/passwd", "/abs", "a/b", "a\\b", "CON"),
    *("con", "con.x", "lpt1", ".", "..", "...", ".hidden", "a.", "a ", " a", "a:b", "a%2Fb", "%"),
    *("%-", "a.json", "🦜", "é", "e\u0301", "ß", "ss", "~", "😀" * 255, "x" * 255, "X" * 255),
)


def is_id(name: str) -> bool:
    """Whether a text can be a session id."""
    try:
        Limits().check_session_id(name)
    except BadName:
        return False
    return True


session_ids = st.sampled_from(NASTY_IDS) | st.text(min_size=1, max_size=255).filter(is_id)

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
_names = texts | st.sampled_from(["$ref", "$tuple", "$dict", "$"])
json_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=8,
)
json_messages = st.builds(
    lambda more, role: {**more, "role": role},
    st.dictionaries(_names, json_values, max_size=3),
    st.sampled_from(["system", "user", "assistant", "tool"]),
)
histories = st.lists(json_messages, max_size=5)


def said(*contents: str) -> list[dict[str, Any]]:
    """A conversation of a user who says these texts."""
    return [{"role": "user", "content": content} for content in contents]


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[ConversationStorage]:
    """A storage of a kind, over what is kept in a folder."""
    match kind:
        case "memory":
            yield InMemoryStorage()
        case "files":
            yield FileSystemStorage(folder / "sessions")
        case "open store":
            with evstore.open(folder / "agents.db", durability="normal") as store:
                yield SqliteStorage(store)
                check_store(store)
        case _:
            url = "memory:" if kind == "sqlite in memory" else f"sqlite:{folder / 'agents.db'}"
            with SqliteStorage(url) as storage:
                yield storage
                check_store(storage.store)
