"""A chat without a screen: turns taken back and brought back, forks, the past, and its tools."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evstore.agent import Ask, Call, SqliteStorage
from evstore.agent.chat import Chat, calculate, now
from evstore.agent.journal import RUN_ENDED, RUN_STARTED
from evstore.agent.offline import OfflineModel
from evstore.agent.spoken import Spoken
from evstore.errors import NoSuchMoment, Refused, SessionNotFound, Taken, Unavailable


def answer(text: Any) -> str:
    return json.dumps({"thought": "", "final_answer": text})


def act(tool: str, **given: Any) -> str:
    return json.dumps({"thought": "", "action": tool, "input": given})


def setting(messages: list[dict[str, Any]]) -> str:
    """Set the variable `last` to what the user says, then answer."""
    said = messages[-1]["content"]
    if said.startswith("Observation: "):
        return answer("done")
    return act("set_variable", name="last", value=said)


@pytest.fixture
def storage(path):
    with SqliteStorage(path) as opened:
        yield opened


@pytest.fixture
def chat(storage):
    """A chat whose every turn sets a variable."""
    return Chat(storage, "trip", setting)


def state(chat: Chat) -> tuple[list[Any], dict[str, Any]]:
    view = chat.session.view()
    return list(view.messages), dict(view.variables)


# Taking back.


def test_undo_takes_back_whole_turns(chat):
    """Each undo is one batch that returns to where a turn began, variables and messages alike."""
    states = [state(chat)]
    for text in ("one", "two", "three"):
        chat.say(text)
        states.append(state(chat))
    for text in ("three", "two", "one"):
        states.pop()
        position = next(chat.session.events(reverse=True)).position
        assert text == chat.undo()
        assert states[-1] == state(chat)
        assert position + 1 == next(chat.session.events(reverse=True)).position
    assert chat.undo() is None
    assert [] == states[1:]


def test_redo_brings_back_what_undo_took(chat):
    """As many redos as undos lead to where they began, in any mixture."""
    for text in ("one", "two", "three"):
        chat.say(text)
    whole = state(chat)
    assert chat.redo() is None
    assert ["three", "two"] == [chat.undo(), chat.undo()]
    assert "two" == chat.redo()
    assert "two" == chat.undo()
    assert ["two", "three"] == [chat.redo(), chat.redo()]
    assert chat.redo() is None
    assert whole == state(chat)
    assert "three" == chat.undo()


def test_after_another_turn_nothing_is_brought_back(chat):
    """A turn after an undo takes the place of what was taken back."""
    chat.say("one")
    chat.say("two")
    chat.undo()
    chat.say("other")
    assert chat.redo() is None
    assert {"last": "other"} == state(chat)[1]
    assert ["other", "one", None] == [chat.undo(), chat.undo(), chat.undo()]


def test_undo_goes_with_the_steps_of_a_session(chat):
    """What Session.undo and redo have done in between is understood, and does not count twice."""
    chat.say("one")
    before = state(chat)
    chat.say("two")
    while state(chat) != before:
        chat.session.undo()
    assert "one" == chat.undo()
    assert ([], {}) == state(chat)
    assert "one" == chat.redo()
    chat.session.variables["by hand"] = 1
    chat.session.undo()
    chat.session.redo()
    assert chat.redo() is None
    assert "one" == chat.undo()


def test_a_turn_whose_undoing_changes_nothing_is_passed_over(chat):
    """Where the messages are gone already, the turn before is taken back."""
    chat.session.messages.append({"role": "user", "content": "from elsewhere"})
    chat.session.messages.clear()
    chat.say("one")
    chat.session.variables.clear()
    chat.session.messages.clear()
    assert chat.undo() is None
    assert chat.redo() is None


# Forks, the past, the end.


def test_a_fork_goes_on_and_its_parent_stays(chat, storage):
    """After a fork, turns and undos happen there, into the shared past if need be."""
    chat.say("one")
    before = list(storage.session("trip").events())
    chat.fork("what-if")
    assert "what-if" == chat.session.id
    chat.say("two")
    assert ["two", "one"] == [chat.undo(), chat.undo()]
    assert before == list(storage.session("trip").events())
    with pytest.raises(Taken):
        chat.fork("trip")
    assert "what-if" == chat.session.id


def test_the_past_is_looked_at_without_changing_it(chat):
    """`at` shows a moment; the conversation is where it was."""
    chat.say("one")
    head = chat.session.head
    chat.say("two")
    newest = chat.session.head
    assert {"last": "one"} == dict(chat.at(head).variables)
    assert newest == chat.session.head
    with pytest.raises(NoSuchMoment):
        chat.at(newest + 1)


def test_clear_ends_a_life_that_can_be_restored(chat, storage):
    """What was forgotten is found under its uid; before the first turn there is nothing."""
    assert chat.clear() is None
    with pytest.raises(SessionNotFound):
        chat.fork("x")
    chat.say("one")
    before = state(chat)
    uid = chat.clear()
    assert ([], {}) == state(chat)
    assert chat.undo() is None
    storage.store.restore(uid)
    assert before == state(chat)


# Turns that end early.


def begin_and(stop: BaseException, chat: Chat, text: str) -> None:
    """Have a turn stopped right after its beginning is written down."""
    journal = chat._agent._journal
    begin = journal.begin

    def stopped(*arguments: Any) -> Any:
        begin(*arguments)
        raise stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(type(stop)):
        patch.setattr(journal, "begin", stopped)
        chat.say(text)


def test_no_turn_is_left_open_by_an_interrupt_between_two_steps(storage):
    """Where Ctrl-C comes while the beginning of a turn is written, its end is written as well."""
    chat = Chat(storage, "trip", OfflineModel())
    begin_and(KeyboardInterrupt(), chat, "Hello")
    kinds = [event.kind for event in chat.session.events()]
    assert (1, 1) == (kinds.count(RUN_STARTED), kinds.count(RUN_ENDED))
    assert chat.cut_off is None
    assert "Hello" == chat.undo()
    assert chat.say("Hello").success


def test_a_turn_that_was_cut_off_is_told_and_finished(storage):
    """A later chat tells what was asked, and resumes it."""
    failing = Unavailable("the disk", "it is full")  # Nothing more is written, as after a kill.
    begin_and(failing, Chat(storage, "trip", OfflineModel()), "What is 2 + 3?")
    chat = Chat(storage, "trip", OfflineModel())
    assert "What is 2 + 3?" == chat.cut_off
    result = chat.resume()
    assert result is not None
    assert "2 + 3 = 5" == result.result
    assert [None, None] == [chat.cut_off, chat.resume()]


# What the agent may use.


def test_the_agent_has_tools(storage):
    """A turn of the chat reads and sets variables, lists them, and knows the time."""
    replies = [
        act("set_variable", name="budget", value={"eur": 1200}),
        act("get_variable", name="budget"),
        act("list_variables"),
        act("now"),
        answer("done"),
    ]
    chat = Chat(storage, "trip", lambda _: replies.pop(0))
    steps = chat.say("Go.").steps
    assert ["budget is set.", '{"eur":1200}', '["budget"]'] == [
        step.observation for step in steps[:3]
    ]
    assert steps[3].observation.endswith(" UTC")
    assert {"budget": {"eur": 1200}} == state(chat)[1]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3", 5),
        (" -(2 - 4) * +3 ", 6),
        ("7 // 2 + 7 % 4 + 2 ** 10", 1030),
        ("1 / 4", 0.25),
        ("2.5 ** 2 ** -1", 2.5**0.5),
    ],
)
def test_calculate_knows_arithmetic(expression, value):
    """Expressions of numbers have the value that Python gives them."""
    assert value == calculate(expression)


@pytest.mark.parametrize(
    "expression",
    ["True + 1", "'a' * 3", "f(1)", "x", "[1]", "not 1", "1 << 3", "9 ** 9 ** 9", "1+" * 200 + "1"],
)
def test_calculate_refuses_all_else(expression):
    """No names, calls, texts or powers without end."""
    with pytest.raises(Refused):
        calculate(expression)


def test_now_is_a_date_and_a_time():
    """The clock tells the day of the week, and its zone."""
    assert " UTC" == now()[-4:]


# What is heard while a turn runs.


def test_progress_is_heard_in_order(storage):
    """A listener hears that the model is asked, what it says, and what is called, as it happens."""
    heard: list[Any] = []

    def model(messages):
        text = setting(messages)
        yield from (text[:10], text[10:])

    Chat(storage, "trip", model, on_progress=heard.append).say("one")
    asked, first, second, called, again, *said = heard
    assert isinstance(asked, Ask)
    assert act("set_variable", name="last", value="one") == first + second
    assert isinstance(called, Call)
    assert ("set_variable", {"name": "last", "value": "one"}) == (
        called.tool.name,
        called.arguments,
    )
    assert "Observation: last is set." == again.messages[-1]["content"]
    assert answer("done") == "".join(said)


# Answers as they are spoken.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.text(),
    st.dictionaries(st.text().filter(lambda key: key != "final_answer"), JSON),
    st.booleans(),
    st.integers(1, 7),
)
def test_an_answer_is_spoken_as_it_is(text, others, is_ascii, size):
    """However a decision is cut into pieces and escaped, its final answer comes out."""
    decision = json.dumps({**others, "final_answer": text}, ensure_ascii=is_ascii)
    spoken = Spoken()
    pieces = [decision[at : at + size] for at in range(0, len(decision), size)]
    assert text == "".join(map(spoken.take, pieces))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ('```json\n{"final_answer": "a\\tb"}\n```', "a\tb"),
        ('He said "final_answer": "no". {"thought": "x"}', ""),
        ('{"input": {"final_answer": "no"}, "final_answer": "yes"}', "yes"),
        ('{"thought": "final_answer", "action": "x"}', ""),
        ('{"final_answer": 5}', ""),
        ('{"final_answer": {"a": "x", "b": ["y"]}}', ""),
        ('{"final_answer": "a\\q\\u12zzb\\ud83d\\q', "a\ufffd\ufffdb"),
        ('{"final_answer": "a", "b": "c"}', "a"),
    ],
)
def test_only_the_final_answer_is_spoken(reply, said):
    """Fences, thoughts, inner objects and other values are left out, what is broken is marked."""
    assert said == Spoken().take(reply)


def test_half_an_answer_is_half_spoken():
    """What is not whole yet waits: an escape, and a pair of surrogates."""
    spoken = Spoken()
    assert "Rome " == spoken.take('{"final_answer":"Rome \\ud83e')
    assert "" == spoken.take("\\udd8")
    assert "🦊" == spoken.take("a")
