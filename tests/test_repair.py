"""Repair: calls of tools and their results are paired again, and nothing else changes."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore.chain import said_by
from evstore.errors import Refused, TooLarge
from evstore.events import MESSAGE_ADDED
from evstore.limits import Limits
from evstore.repair import CAUSE, NO_CALL, NO_RESULT, SYNTHETIC, repair, unpaired
from evstore.transfer import export_lines, import_lines
from tests.command_line import damage, filled, run, told
from tests.histories import fresh_store

Message = dict[str, Any]


def user(content: Any) -> Message:
    """What a person says."""
    return {"role": "user", "content": content}


def calling(*ids: str) -> Message:
    """An assistant that calls tools, as OpenAI has it."""
    function = {"name": "f", "arguments": "{}"}
    calls = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(id: str, content: str = "done") -> Message:
    """The result of a call, as OpenAI has it."""
    return {"role": "tool", "tool_call_id": id, "content": content}


def using(*ids: str) -> Message:
    """An assistant that calls tools, as Anthropic has it."""
    blocks = [{"type": "tool_use", "id": id, "name": "f", "input": {}} for id in ids]
    return {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, *blocks]}


def block(id: str, content: str = "done") -> dict[str, Any]:
    """The result of a call, as Anthropic has it."""
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def text(words: str) -> dict[str, Any]:
    """A text in a list of blocks."""
    return {"type": "text", "text": words}


def no_block(id: str) -> dict[str, Any]:
    """What stands for a result that was never recorded, as Anthropic has it."""
    return {**block(id, NO_RESULT), "is_error": True}


ANSWER: Message = {"role": "assistant", "content": "Booked."}

# What a conversation is before a repair, and after it.
REPAIRS: dict[str, tuple[list[Message], list[Message]]] = {
    "cut off while a tool ran": (
        [user("a"), calling("1", "2"), result("2")],
        [user("a"), calling("1", "2"), result("2"), result("1", NO_RESULT)],
    ),
    "went on without the result": (
        [calling("1"), user("a"), ANSWER],
        [calling("1"), result("1", NO_RESULT), user("a"), ANSWER],
    ),
    "the result came too late": (
        [calling("1"), user("a"), result("1"), ANSWER],
        [calling("1"), result("1"), user("a"), ANSWER],
    ),
    "the call was trimmed away": (
        [result("1"), user("a"), calling("2"), result("1"), result("2")],
        [user("a"), calling("2"), result("2")],
    ),
    "answered twice": (
        [calling("1"), result("1"), result("1", "again"), ANSWER],
        [calling("1"), result("1"), ANSWER],
    ),
    "an id is used again": (
        [calling("1"), user("a"), calling("1"), result("1"), result("1", "again")],
        [calling("1"), result("1", NO_RESULT), user("a"), calling("1"), result("1")],
    ),
    "calls of two turns": (
        [calling("1"), calling("2"), result("2")],
        [calling("1"), result("1", NO_RESULT), calling("2"), result("2")],
    ),
    "anthropic: cut off while a tool ran": (
        [user("a"), using("1")],
        [user("a"), using("1"), user([no_block("1")])],
    ),
    "anthropic: went on without the result": (
        [using("1", "2"), user("a"), ANSWER],
        [using("1", "2"), user([no_block("1"), no_block("2"), text("a")]), ANSWER],
    ),
    "anthropic: half of the results, and a text": (
        [using("1", "2"), user([block("2"), text("a")])],
        [using("1", "2"), user([no_block("1"), block("2"), text("a")])],
    ),
    "anthropic: half of the results, and an answer": (
        [using("1", "2"), user([block("2")]), ANSWER],
        [using("1", "2"), user([block("2"), no_block("1")]), ANSWER],
    ),
    "anthropic: the result stands behind a text": (
        [using("1"), user([text("a"), block("1")])],
        [using("1"), user([block("1"), text("a")])],
    ),
    "anthropic: the result came too late": (
        [using("1"), user(""), user([block("1")]), ANSWER],
        [using("1"), user([block("1")]), ANSWER],
    ),
    "anthropic: no user between": (
        [using("1"), {"role": "system", "content": "a"}],
        [using("1"), user([no_block("1")]), {"role": "system", "content": "a"}],
    ),
    "anthropic: the call was trimmed away": (
        [user([block("0")]), ANSWER, user([block("0"), text("a")])],
        [user([text(NO_CALL)]), ANSWER, user([text("a")])],
    ),
    "anthropic: a stranger among the results": (
        [using("1"), user([block("0")]), user([block("1")])],
        [using("1"), user([block("1")])],
    ),
    "anthropic: a content that is no text": (
        [using("1"), user(None), using("2"), user(7)],
        [using("1"), user([no_block("1")]), using("2"), user([no_block("2"), 7])],
    ),
}


@pytest.mark.parametrize("name", REPAIRS)
def test_what_is_unpaired_is_paired_again(memory, name):
    """A repair is one batch that gives each call its result; again it finds nothing."""
    before, after = REPAIRS[name]
    session = memory.session("trip")
    session.messages.extend(before)
    head = session.head
    events = repair(session, actor="doctor")
    assert after == list(session.messages)
    assert {(CAUSE, "doctor", events[0].position)} == {
        (event.cause, event.actor, event.position) for event in events
    }
    assert before == list(session.at(head).messages)
    assert ([], ()) == (list(unpaired(session.messages)), repair(session))
    session.undo()
    assert before == list(session.messages)


@pytest.mark.parametrize(
    "sound",
    [
        [],
        [user("a"), calling("1", "2"), result("2"), result("1"), ANSWER],
        [using("1"), using("2"), user([block("2")]), user([block("1"), text("a")]), ANSWER],
        [using("1"), ANSWER, user([block("1")])],
        [{"role": "tool", "content": "no id"}, {"role": "assistant", "tool_calls": "odd"}],
        [{"role": "assistant", "tool_calls": [7, {"id": 7}], "content": [7, {"type": "tool_use"}]}],
        [user([]), user([7, {"type": "tool_result"}]), user((1, b"x"))],
    ],
)
def test_what_is_paired_is_left_alone(memory, sound):
    """A conversation that an API takes is not touched, nor what has no ids to pair by."""
    session = memory.session("trip")
    session.messages.extend(sound)
    head = session.head
    assert ([], (), head) == (list(unpaired(sound)), repair(session), session.head)


def test_a_problem_is_said_in_words():
    """What is unpaired says where and which call."""
    assert [
        "message 1: before it the result of call '1' is missing",
        "message 2: the result of call '1' stands too late",
        "message 3: the result of call '9' follows no call that awaits it",
    ] == [str(problem) for problem in unpaired([calling("1"), user("a"), result("1"), result("9")])]


def test_the_end_is_repaired_by_adding(memory):
    """Where only the end lacks something, nothing else is recorded again."""
    session = memory.session("trip")
    session.messages.extend([user("a"), calling("1")])
    assert ["message.added"] == [event.kind for event in repair(session)]
    assert NO_RESULT.startswith(SYNTHETIC)


def test_a_long_conversation_is_cut_by_one_event(memory):
    """What has to be recorded again leaves the list by one event, where that list once was."""
    session = memory.session("trip")
    session.messages.extend([user("a"), calling("1"), *[user(str(n)) for n in range(50)]])
    kinds = [event.kind for event in repair(session)]
    assert ["messages.reverted", *["message.added"] * 51] == kinds
    assert [1, 2] == [session.messages.info(index).seq for index in range(2)]
    other = memory.session("changed")
    other.messages.extend([user("a"), calling("1"), user("b"), user("c")])
    other.messages.replace(0, user("A"))
    expected = ["message.removed"] * 2 + ["message.added"] * 3
    assert expected == [event.kind for event in repair(other)]


def test_what_cannot_be_recorded_is_refused_whole(path):
    """A repair that would go beyond a limit records nothing."""
    with evstore.open(path, durability="normal") as store:
        store.session("trip").messages.extend([using("1"), user("x" * 900)])
    with evstore.open(path, limits=Limits(message_bytes_max=1000)) as store:
        session = store.session("trip")
        with pytest.raises(TooLarge):
            repair(session)
        assert 2 == session.head


def test_a_forgotten_message_is_not_moved(memory):
    """What is forgotten cannot be recorded again, so a repair that needs that is refused."""
    session = memory.session("trip")
    session.messages.extend([calling("1"), user("secret")])
    lines = list(export_lines(memory))
    with evstore.open(":memory:") as other:
        import_lines(other, forgotten(lines, memory))
        copy = other.session("trip")
        assert evstore.ERASED is copy.messages[1]
        with pytest.raises(Refused, match="forgotten"):
            repair(copy)
        assert 2 == copy.head


def forgotten(lines: list[bytes], store: evstore.Store) -> list[bytes]:
    """The lines of an export, with the second event of its only batch forgotten."""
    (batch,) = store.engine.changes(0)
    leaf = batch.entries[1].hashed(said_by(batch.actor, batch.cause, batch.key)).hex()
    line = json.loads(lines[2])
    line["events"][1] = {"kind": MESSAGE_ADDED, "version": 1, "leaf": leaf}
    return [*lines[:2], json.dumps(line).encode() + b"\n", *lines[3:]]


# Any conversation at all.

IDS = ("1", "2", "3")
ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)
blocks = st.sampled_from(IDS).map(block) | st.just(text("a"))
STEPS = st.one_of(
    st.just(user("a")),
    st.just(ANSWER),
    st.just({"role": "system", "content": "s"}),
    ids.map(lambda ids: calling(*ids)),
    ids.map(lambda ids: using(*ids)),
    st.sampled_from(IDS).map(result),
    st.sampled_from(IDS).map(result),
    st.lists(blocks, min_size=1, max_size=4).map(user),
    st.lists(blocks, min_size=1, max_size=4).map(user),
)


def refusal(messages: list[Message]) -> str | None:
    """Why an API would refuse the calls and results of a list: the rules of both, by turns."""
    turns: list[list[Message]] = []
    for message in messages:  # What the same side says in a row is one turn.
        if turns and turns[-1][0]["role"] == message["role"] and message["role"] != "tool":
            turns[-1].append(message)
        else:
            turns.append([message])
    for number, turn in enumerate(turns):
        before = turns[number - 1] if number else []
        after = turns[number + 1] if number + 1 < len(turns) else []
        why = refused_turn(before, turn, after)
        if why:
            return f"turn {number}: {why}"
    return refused_tools(messages)


def contents(turn: list[Message], role: str) -> list[Any]:
    """The blocks of a turn of one side."""
    said = [item["content"] for item in turn if item["role"] == role]
    return [part for content in said for part in (content if type(content) is list else [content])]


def of_type(parts: list[Any], kind: str, name: str) -> list[str]:
    """The ids of the blocks of a type."""
    return [part[name] for part in parts if type(part) is dict and part["type"] == kind]


def refused_turn(before: list[Message], turn: list[Message], after: list[Message]) -> str | None:
    """Anthropic's rules: each use has one result, at the front of the next turn."""
    asked = of_type(contents(before, "assistant"), "tool_use", "id")
    given = contents(turn, "user")
    answers = of_type(given, "tool_result", "tool_use_id")
    if len(set(answers)) < len(answers) or not set(answers) <= set(asked):
        return "a result without its use in the turn before"
    if answers != of_type(given[: len(answers)], "tool_result", "tool_use_id"):
        return "a result that is not in front"
    uses = of_type(contents(turn, "assistant"), "tool_use", "id")
    answered = of_type(contents(after, "user"), "tool_result", "tool_use_id")
    return None if set(uses) <= set(answered) else "a use without its result in the next turn"


def refused_tools(messages: list[Message]) -> str | None:
    """OpenAI's rules: each call has one result before anything else is said."""
    awaited: set[str] = set()
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] not in awaited:
                return f"message {number}: no call before the result"
            awaited.remove(message["tool_call_id"])
            continue
        if awaited:
            return f"message {number}: no result of {awaited}"
        awaited = {call["id"] for call in message.get("tool_calls", ())}
    return f"at the end: no result of {awaited}" if awaited else None


def essence(messages: list[Message]) -> list[Any]:
    """What is said besides results, in order, with what a repair adds left out."""
    said: list[Any] = []
    for message in messages:
        if message["role"] == "user":
            parts = contents([message], "user")
            parts = [
                part["text"] if type(part) is dict and "text" in part else part for part in parts
            ]
            parts = [part for part in parts if type(part) is str and part != NO_CALL]
            said += [("user", part) for part in parts]
        elif message["role"] != "tool":
            said.append(message)
    return said


def results(messages: list[Message]) -> list[str]:
    """The results that are real."""
    real = [m["content"] for m in messages if m["role"] == "tool"]
    parts = [part for part in contents(messages, "user") if type(part) is dict]
    real += [part["content"] for part in parts if "content" in part]
    return [content for content in real if content != NO_RESULT]


def numbered(messages: list[Message]) -> list[Message]:
    """The same messages, in which every result is another one."""
    count = 0
    messages = deepcopy(messages)
    for message in messages:
        content = message["content"]
        for part in [message] if message["role"] == "tool" else content or ():
            if type(part) is dict and part.get("content"):
                part["content"] = f"result {count}"
                count += 1
    return messages


@given(st.lists(STEPS, max_size=12), st.lists(st.integers(0, 11), max_size=3))
def test_any_conversation_is_taken_after_a_repair(messages, changed):
    """After a repair an API takes it; what was said stays, in order, and so does the past."""
    before = numbered(messages)
    with fresh_store() as store:
        session = store.session("trip")
        session.messages.extend([user("removed"), *before])
        for index in changed:
            if index < len(before):
                session.messages.replace(index + 1, before[index])
        session.messages.remove(0)
        head = session.head
        is_sound = refusal(before) is None
        events = repair(session)
        after = list(session.messages)
        assert refusal(after) is None
        assert is_sound == (not events)
        assert essence(before) == essence(after)
        kept = results(after)
        assert len(set(kept)) == len(kept)
        assert set(kept) <= set(results(before))
        assert before == list(session.at(head).messages)
        assert () == repair(session)
        if events:
            session.undo()
            assert before == list(session.messages)


# The verb.


def test_the_doctor_finds_and_repairs(path):
    """Without --repair the doctor tells and changes nothing; with it, all is well afterwards."""
    with evstore.open(path, durability="normal") as store:
        store.session("well").messages.append(user("a"))
        for number in range(25):
            store.session(f"ill-{number:02}").messages.append(calling("1"))
    file = str(path)
    found = run("doctor", file, "--json")
    assert 1 == found.exit_code
    assert 20 + 1 == found.stdout.count('"wrong"')
    assert "ill-00: message 1: before it the result of call '1' is missing" in found.stdout
    assert "5 more" in found.stdout
    repaired = told("doctor", file, "--repair", "--json")
    assert 25 == sum("paired again" in check["what"] for check in repaired)
    assert all("calls" != check["name"] or "ok" == check["state"] for check in repaired)
    again = told("doctor", file, "--repair", "--json")
    assert "every call of a tool has its result" in [check["what"] for check in again]
    assert 0 == run("doctor", file).exit_code
    with evstore.open(path) as store:
        assert [calling("1"), result("1", NO_RESULT)] == list(store.session("ill-00").messages)
        assert 1 == store.session("well").head


def test_a_session_that_cannot_be_repaired_stops_no_other(path):
    """The doctor says why a session is not repaired, and goes on with the next."""
    with evstore.open(path, durability="normal") as store:
        for id, size in (("a", (1 << 22) - 50), ("b", 1)):
            store.session(id).messages.extend([using("1"), user("x" * size)])
    result = run("doctor", str(path), "--repair")
    assert 1 == result.exit_code
    assert "a: not repaired: " in result.stdout
    assert "b: paired again by 1 event" in result.stdout


def test_what_is_damaged_is_not_repaired(path):
    """The doctor writes nothing to a file whose log is not as it was recorded."""
    file = filled(path)
    with evstore.open(path) as store:
        store.session("ill").messages.append(calling("1"))
    damage(file)
    before = path.read_bytes()
    result = run("doctor", file, "--repair")
    assert 1 == result.exit_code
    assert "not done, since the file is damaged" in result.stdout
    assert "ill: message 1: before it the result of call '1' is missing" in result.stdout
    assert before == path.read_bytes()
