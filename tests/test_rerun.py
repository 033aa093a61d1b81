"""A recorded turn, run again, tells where a changed agent first does something else."""

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import agent
from evstore.agent import Ask, Call, Divergence, Ending, Happened, ReAct, Turn, rerun
from evstore.agent.effects import Steps
from evstore.agent.journal import (
    MODEL_REPLIED,
    RUN_ENDED,
    RUN_STARTED,
    TOOL_CALLED,
    TOOL_RETURNED,
)
from evstore.chain import Batch, Entry, said_by
from evstore.errors import Refused
from evstore.events import MESSAGE_ADDED
from evstore.limits import Limits
from tests.test_agent_loop import ACTION, action, answer, list_files, scripted


def unasked(_messages: Any) -> str:
    """A model that must not be asked."""
    raise AssertionError("the model was asked")


def untouched(function: Callable[..., Any]) -> agent.Tool:
    """A tool that looks like another one and must not be called."""

    def called(**_arguments: Any) -> None:
        raise AssertionError("the tool was called")

    return attrs.evolve(agent.tool(function), function=called)


def record(store: evstore.Store, *replies: Any, tools: Any = (list_files,)) -> evstore.Session:
    """Have a turn of the default agent recorded; return its session."""
    storage = agent.SqliteStorage(store)
    session = agent.create_session("s", storage, model=scripted(*replies), tools=tools)
    session.send_message("What files are there?")
    return store.session("s")


def same(*functions: Callable[..., Any]) -> ReAct:
    """The default agent with tools that look alike, which asks nobody and calls nothing."""
    return ReAct(unasked, [untouched(function) for function in functions or (list_files,)])


def seqs(session: evstore.Session, kind: str) -> list[int]:
    return [event.seq for event in session.events(kind=kind)]


RUNS: dict[str, list[Any]] = {
    "answered": [ACTION, answer()],
    "answered at once": [answer()],
    "a tool fails": [action(folder="/secret"), ACTION, answer()],
    "an unknown tool": [action("fly"), answer()],
    "no decision": ["I do not know: what?", answer()],
    "the model fails": [ACTION, ValueError("no: credit")],
    "the model fails in silence": [KeyError()],
    "too many iterations": [ACTION] * 10,
    "cancelled while the model thinks": [ACTION, KeyboardInterrupt()],
    "too large for the store": [ACTION, "x" * 50_000],
}


@pytest.mark.parametrize("replies", RUNS.values(), ids=RUNS)
def test_an_agent_that_did_not_change_does_the_same(replies):
    """Every kind of turn runs again to its end, with nobody asked and nothing written."""
    with evstore.open(":memory:", limits=Limits(message_bytes_max=9_000)) as store:
        session = record(store, *replies)
        head = session.head
        assert rerun(session, same()) is None
        record(store, *replies)
        assert rerun(session, same()) is None
        assert rerun(session, same(), started=1) is None
        fork = session.fork("f", at=head)
        assert rerun(fork, same()) is None


def test_large_observations_are_the_same_again(memory):
    """What a tool returned is cut once, however often it is looked at."""

    def read() -> str:
        """Read all."""
        return "x" * 70_000

    session = record(memory, action("read"), answer(), tools=[read])
    assert rerun(session, same(read)) is None


def test_what_others_record_meanwhile_does_not_count(memory):
    """Events of others, between those of the turn, belong to another story."""
    session = memory.session("s")

    def count() -> int:
        """Count."""
        session.record("app.counted", 1)
        session.variables["count"] = 1
        return 1

    record(memory, action("count"), answer(), tools=[count])
    assert 1 == session.variables["count"]
    assert rerun(session, same(count)) is None


def test_a_turn_that_was_stopped_is_compared_up_to_there(memory):
    """A turn that was interrupted in a tool, or killed, is the same as far as it went."""

    def stop() -> str:
        """Stop."""
        raise KeyboardInterrupt

    session = record(memory, action("stop"), tools=[stop])
    assert "cancelled" == next(session.events(kind=RUN_ENDED)).data["reason"]
    assert rerun(session, same(stop)) is None
    with evstore.open(":memory:") as other:
        for batch in memory.engine.changes(0)[:-1]:
            other.engine.adopt([batch])
            killed = other.session("s")
            assert rerun(killed, same(stop)) is None


def test_a_changed_prompt_is_found_where_it_is_said(memory):
    """A changed description of a tool shows in the first message, also in a later turn."""

    def list_files(folder: str) -> str:
        """List all that is in a folder."""
        return folder

    session = record(memory, ACTION, answer())
    found = rerun(session, ReAct(unasked, [list_files]))
    assert found is not None
    (system, *_) = session.messages
    assert (2, Happened(MESSAGE_ADDED, {"message": system})) == (found.seq, found.expected)
    assert isinstance(found.actual, Happened)
    assert "List all that is in a folder." in found.actual.data["message"]["content"]
    record(memory, ACTION, answer())
    found = rerun(session, ReAct(unasked, [list_files]))
    assert found is not None
    assert seqs(session, RUN_STARTED)[1] + 1 == found.seq
    assert "user" == found.expected.data["message"]["role"]


def test_other_tools_are_found_at_the_start(memory):
    """A tool more is told by the event that the turn begins with; the model's name is not."""
    session = record(memory, ACTION, answer())

    def fly() -> None:
        """Fly."""

    found = rerun(session, ReAct(unasked, [list_files, fly]))
    assert found is not None
    assert isinstance(found.actual, Happened)
    assert (1, RUN_STARTED) == (found.seq, found.actual.kind)
    assert ["list_files", "fly"] == found.actual.data["tools"]
    assert "model" == found.expected.data["model"]


class Careless(ReAct):
    """An agent that calls its tools with other arguments than it writes down."""

    def run(self, turn: Turn) -> Steps[Ending]:
        steps = super().run(turn)
        came = None
        while True:
            try:
                effect = steps.send(came)
            except StopIteration as end:
                ending: Ending = end.value
                return ending
            if isinstance(effect, Call):
                effect = Call(effect.tool, {"folder": "/"})
            came = yield effect


def test_changed_arguments_are_found_at_the_call(memory):
    """A tool that is called with other arguments is found at the event that tells of the call."""
    session = record(memory, ACTION, answer())
    found = rerun(session, Careless(unasked, [untouched(list_files)]))
    assert found is not None
    assert seqs(session, TOOL_CALLED) == [found.seq]
    assert isinstance(found.actual, Call)
    assert {"folder": "/"} == found.actual.arguments


class Failing(ReAct):
    """An agent that fails at its first step."""

    def run(self, _turn: Turn) -> Steps[Ending]:
        raise OSError("broken")
        yield


def test_an_agent_that_fails_is_found_where_it_does(memory):
    """A failure that is new, or one that is gone, is found; the same failure is no difference."""
    session = record(memory, answer())
    found = rerun(session, Failing(unasked, [list_files]))
    assert found is not None
    assert isinstance(found.actual, Happened)
    assert seqs(session, MODEL_REPLIED) == [found.seq]
    assert "OSError: broken" in found.actual.data["message"]["content"]
    storage = agent.SqliteStorage(memory)
    failing = agent.create_session("f", storage, agent=Failing(unasked, [list_files]))
    with pytest.raises(OSError, match="broken"):
        failing.send_message("Hello")
    failed = memory.session("f")
    assert rerun(failed, Failing(unasked, [list_files])) is None
    found = rerun(failed, same())
    assert found is not None
    assert isinstance(found.actual, Ask)
    assert failed.head - 1 == found.seq


# Agents that do what a plan says, so that it is known where two of them part.


def double(n: int) -> int:
    """Double a number."""
    return 2 * n


@attrs.frozen
class Planned:
    """An agent that thinks, uses a tool and takes notes, as planned."""

    plan: list[tuple[str, int]]
    tool: agent.Tool
    model: Any
    model_name = "planned"
    prompt = ""
    is_async = False

    @property
    def tools(self) -> list[agent.Tool]:
        return [self.tool]

    def run(self, turn: Turn) -> Steps[Ending]:
        for what, number in self.plan:
            if what == "think":
                reply = yield Ask(self.model, turn.messages)
                yield turn.keep(Happened(MODEL_REPLIED, {"reply": reply}))
            elif what == "note":
                yield turn.keep(Happened("app.note", {"n": number}))
            elif what == "call":
                yield Call(self.tool, {"n": number})
            else:
                said = {"name": "double", "arguments": {"n": number}}
                yield turn.keep(Happened(TOOL_CALLED, said))
                result = yield Call(self.tool, {"n": number})
                yield turn.keep(Happened(TOOL_RETURNED, {"name": "double", "result": result}))
        return Ending("answered", "done", ({"role": "assistant", "content": "done"},))


def written(plan: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """What a plan lets be written down, one thing for each event."""
    for what, number in plan:
        yield ("think", 0) if what == "think" else (what, number)
        if what == "use":
            yield "returned", 2 * number
    yield "done", 0


PLANS = st.lists(
    st.tuples(st.sampled_from(["think", "use", "note"]), st.integers(0, 2)), max_size=6
)


@given(PLANS, PLANS, st.integers(0, 6))
def test_the_first_difference_is_found(plan, other, shared):
    """Steps that are changed, swapped, missing or new are found at the first that differs."""
    other = plan[:shared] + other
    with evstore.open(":memory:") as store:
        storage = agent.SqliteStorage(store)
        planned = Planned(plan, agent.tool(double), lambda _messages: "thought")
        agent.create_session("s", storage, agent=planned).send_message("Go")
        session = store.session("s")
        found = rerun(session, Planned(other, untouched(double), unasked))
        pairs = zip(written(plan), written(other), strict=False)
        differing = next((index for index, (a, b) in enumerate(pairs) if a != b), None)
        if differing is None:
            assert found is None
        else:
            assert found is not None
            first = session.events(2 + differing, limit=1)
            assert [(found.seq, found.expected.kind)] == [(each.seq, each.kind) for each in first]


def test_a_call_that_nobody_wrote_down_is_found(memory):
    """A tool that is called where none was is found, though nothing is written down of it."""
    storage = agent.SqliteStorage(memory)
    planned = Planned([("note", 1)], agent.tool(double), unasked)
    agent.create_session("s", storage, agent=planned).send_message("Go")
    tool = untouched(double)
    found = rerun(memory.session("s"), Planned([("call", 5)], tool, unasked))
    assert Divergence(3, Happened("app.note", {"n": 1}), Call(tool, {"n": 5})) == found


def test_a_note_of_another_type_is_a_difference(memory):
    """Numbers that compare equal and are of different types are different things."""
    storage = agent.SqliteStorage(memory)
    planned = Planned([("note", 1)], agent.tool(double), unasked)
    agent.create_session("s", storage, agent=planned).send_message("Go")
    session = memory.session("s")
    changed = Planned([("note", True)], agent.tool(double), unasked)
    expected, actual = Happened("app.note", {"n": 1}), Happened("app.note", {"n": True})
    assert Divergence(3, expected, actual) == rerun(session, changed)


# What cannot be run again.


def test_a_turn_that_is_not_there_is_refused(memory, session):
    """A session without a turn, and an event that began none, are refused with what to give."""
    session.messages.append({"role": "user", "content": "x"})
    with pytest.raises(Refused, match=r"begins in session 'trip': give the sequence .*run.started"):
        rerun(session, same())
    recorded = record(memory, answer())
    for started in (2, 99):
        with pytest.raises(Refused, match=f"begins as event {started} of session 's'"):
            rerun(recorded, same(), started=started)


@pytest.mark.parametrize("started", ["x", 1.0, True, -1, 10**20])
def test_what_is_no_sequence_is_refused(session, started):
    """A turn is named by the sequence of an event, and by nothing else."""
    with pytest.raises(Refused, match="no turn of an agent begins"):
        rerun(session, ReAct(scripted()), started=started)


def test_a_turn_that_no_agent_would_begin_is_refused(session):
    """What was recorded under the kind of a beginning, and cannot be one, is refused as always."""
    begun = {"text": "x", "max_iterations": 0, "model": "m", "tools": [], "key": None}
    session.record(RUN_STARTED, begun)
    with pytest.raises(Refused, match="max_iterations"):
        rerun(session, same())


def without_content(batch: Batch) -> Batch:
    """A batch whose content was forgotten."""
    said = said_by(batch.actor, batch.cause, batch.key)
    entries = tuple(
        Entry(entry.kind, entry.version, None, None, None, entry.hashed(said))
        for entry in batch.entries
    )
    return batch._replace(entries=entries)


@pytest.mark.parametrize("forgotten", [0, 1, 2])
def test_a_turn_that_was_forgotten_is_refused(memory, forgotten):
    """Where parts of a turn, or of what was said before it, were forgotten, it cannot run again."""
    record(memory, answer())
    record(memory, answer())
    batches = memory.engine.changes(0)
    batches[forgotten] = without_content(batches[forgotten])
    with evstore.open(":memory:") as other:
        other.engine.adopt(batches)
        with pytest.raises(Refused, match="were forgotten"):
            rerun(other.session("s"), same())


@pytest.mark.parametrize(
    ("size_bytes_max", "reason"), [(2_000, "not_storable"), (9 << 20, "answered")]
)
def test_the_limits_of_the_store_hold_again(size_bytes_max, reason):
    """What the store refused is refused again, and what it took is taken."""
    with evstore.open(":memory:", limits=Limits(message_bytes_max=size_bytes_max)) as store:
        storage = agent.SqliteStorage(store)
        planned = Planned([("note", 1 << 18_000_000)], agent.tool(double), unasked)
        agent.create_session("s", storage, agent=planned).send_message("Go")
        session = store.session("s")
        assert reason == next(session.events(kind=RUN_ENDED)).data["reason"]
        assert rerun(session, planned) is None


def test_an_agent_goes_on_where_a_recording_was_cut_off(memory):
    """What an agent writes down after the end of what was recorded is compared with nothing."""
    storage = agent.SqliteStorage(memory)
    planned = Planned([("note", 1), ("note", 2), ("note", 3)], agent.tool(double), unasked)
    agent.create_session("s", storage, agent=planned).send_message("Go")
    longer = Planned([*planned.plan[:2], ("note", 4)], planned.tool, unasked)
    assert rerun(memory.session("s"), longer) is not None
    with evstore.open(":memory:") as other:
        for batch in memory.engine.changes(0)[:3]:
            other.engine.adopt([batch])
            assert rerun(other.session("s"), longer) is None
