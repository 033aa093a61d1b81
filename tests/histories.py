"""Random histories of a session and its forks, for the tests that look back at them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.events import ABSENT
from evstore.sqlite import insert
from tests.model.state import State, states_of
from tests.values_strategy import fingerprint, storable

NAMES = ("a", "b", "ü")
LONG = "long " * 200  # stored compressed, and outside the projection
VALUES = (
    st.sampled_from([0, 1, 1.0, True, LONG, {"x": 1, "y": 2}, {"y": 2, "x": 1}])
    | st.sampled_from([None, float("nan"), -0.0, 0.0, (1, 2), [1, 2], {1, 2}, 1 << 70])
    | storable
)
named = st.sampled_from(NAMES)
indices = st.integers(0, 5)
WRITING = st.one_of(
    st.tuples(st.just("set"), named, VALUES),
    st.tuples(st.just("set"), named, VALUES),
    st.tuples(st.just("delete"), named, st.none()),
    st.tuples(st.just("mark"), named, st.integers(0, 2)),
    st.tuples(st.just("unmark"), named, st.none()),
    st.tuples(st.just("say"), st.integers(0, 2) | st.just(LONG), st.none()),
    st.tuples(st.just("say"), st.integers(0, 2), st.none()),
    st.tuples(st.just("replace"), indices, st.integers(0, 2)),
    st.tuples(st.just("remove"), indices, st.none()),
    st.tuples(st.just("clear"), st.none(), st.none()),
    st.tuples(st.just("note"), st.none(), st.none()),
)
STEPS = st.one_of(
    WRITING,
    WRITING,
    st.tuples(st.just("batch"), st.lists(WRITING, min_size=2, max_size=5), st.none()),
    st.tuples(st.just("batch"), st.lists(WRITING, min_size=2, max_size=5), st.none()),
    st.tuples(st.just("label"), st.sampled_from(["here", "there"]), st.integers(0, 8)),
    st.tuples(st.just("revert"), st.integers(0, 12), st.none()),
    st.tuples(st.just("undo"), st.none(), st.none()),
    st.tuples(st.just("redo"), st.none(), st.none()),
    st.tuples(st.just("fork"), st.integers(0, 8), st.none()),
)
HISTORIES = st.lists(st.tuples(st.integers(0, 5), STEPS), min_size=1, max_size=25)
CHECKPOINTS = st.sampled_from([3, 1000])


def said(content: Any) -> dict[str, Any]:
    """A message."""
    return {"role": "user", "content": content}


@contextmanager
def fresh_store(checkpoint_events: int = 1000) -> Iterator[evstore.Store]:
    """An empty store in memory, in which all is well at the end."""
    with pytest.MonkeyPatch.context() as patch, evstore.open(":memory:") as store:
        patch.setattr(insert, "CHECKPOINT_EVENTS", checkpoint_events)
        yield store
        assert [] == list(replay.verify(store, level="full"))


def live_through(store: evstore.Store, history: list[Any]) -> list[evstore.Session]:
    """Let a history happen; return the session and all its forks."""
    sessions = [store.session("0")]
    for which, step in history:
        session = sessions[which % len(sessions)]
        if step[0] == "fork":
            if session.head:
                at = max(0, session.head - step[1])
                sessions.append(session.fork(str(len(sessions)), at=at))
        else:
            take(session, step)
    return sessions


def take(session: evstore.Session, step: Any) -> None:
    """Take one step, where it can be taken."""
    match step:
        case ("batch", steps, _):
            with session.batch() as batch:
                for inner in steps:
                    write(batch, inner)
        case ("label", name, back):
            session.label(name, at=max(0, session.head - back))
        case ("revert", back, _):
            session.revert(max(0, session.head - back))
        case ("undo", _, _):
            session.undo()
        case ("redo", _, _):
            session.redo()
        case _:
            write(session, step)


def write(doors: Any, step: Any) -> None:
    """Write by a door of a session or batch."""
    what, name, value = step
    messages = doors.messages
    match what:
        case "set":
            doors.variables[name] = value
        case "delete":
            doors.variables.pop(name, None)
        case "mark":
            doors.metadata[name] = value
        case "unmark":
            doors.metadata.pop(name, None)
        case "say":
            messages.append(said(name))
        case "replace" if name < len(messages):
            messages.replace(name, said(value))
        case "remove" if name < len(messages):
            messages.remove(name)
        case "clear":
            messages.clear()
        case "note":
            doors.record("app.note", 1)


def states(session: evstore.Session) -> list[State]:
    """What a scan of all events says of the moments 0, 1, 2 and so on."""
    return states_of(session.events())


def alike(names: dict[str, Any]) -> dict[str, str]:
    """The values by name, as texts that are the same for the same values only."""
    return {name: fingerprint(value) for name, value in names.items()}


def values_of(names: dict[str, tuple[int, Any]]) -> dict[str, str]:
    """The same of the names of a state, which know the seq that set them."""
    return alike({name: value for name, (_, value) in names.items()})


def shown(doors: Any) -> tuple[dict[str, str], list[Any]]:
    """The variables and messages of a session or view, values exact."""
    return alike(dict(doors.variables)), list(doors.messages)


def value_in(names: dict[str, tuple[int, Any]], name: str) -> Any:
    """The value of a name in a state, or ABSENT."""
    return names[name][1] if name in names else ABSENT
