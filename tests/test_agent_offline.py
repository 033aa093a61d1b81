"""The offline model: a few rules that work everywhere, and say that they are no more."""

import time

import pytest

from evstore.agent import OfflineModel, create_session

SUMS = {"2 + 3*4": "14", "(1+2)*3": "9", "10/4": "2.5", "-2 - 3": "-5", "1/0": None}


def calculate(expression: str) -> float:
    """Return the value of a sum."""
    value = SUMS[expression]
    if value is None:
        raise ZeroDivisionError("division by zero")
    return float(value) if "." in value else int(value)


def asked(*texts: str, tools=(calculate,)) -> list[str]:
    session = create_session("s", tools=tools)
    results = [session.send_message(text) for text in texts]
    assert all(result.success for result in results)
    return [result.result for result in results]


@pytest.mark.parametrize("greeting", ["Hello", "hi there", "Good morning!"])
def test_it_greets(greeting):
    """A greeting is greeted."""
    assert ["Hello! What can I do for you?"] == asked(greeting)


def test_it_remembers_a_name():
    """S, pattern 2: what the user said in an earlier turn is known later; the last name counts."""
    first, answer = asked("Remember: my name is Alice", "What is my name?")
    assert "I will remember that your name is Alice." == first
    assert "Your name is Alice" == answer
    assert "Your name is Zoë" == asked("My name is Bob", "my name is Zoë", "What's my name?")[-1]
    assert ["You have not told me your name."] == asked("What is my name?")


@pytest.mark.parametrize("expression", [each for each in SUMS if SUMS[each]])
def test_it_does_sums_with_a_tool(expression):
    """A sum is given to the tool that calculates, and its observation is the answer."""
    assert [f"{expression} = {SUMS[expression]}"] == asked(f"What is {expression}?")


@pytest.mark.parametrize("text", ["1" * 100_000, "(" * 50_000 + "-" * 50_000, "1-" * 50_000])
def test_it_looks_for_sums_in_no_time(text):
    """However long a message is, it is answered at once."""
    began_s = time.process_time()
    assert create_session("s").send_message(text).success
    assert time.process_time() < began_s + 2


def test_it_tells_what_went_wrong():
    """A tool that fails is told, and a sum without a tool is not guessed."""
    failed = "That did not work. Error: ZeroDivisionError: division by zero"
    assert [failed] == asked("What is 1/0?")
    assert ["I have no tool that calculates."] == asked("What is 1 + 1?", tools=())


def strange(first: int, second: int) -> int:
    """Return something else.

    - like: this
    """
    return first


def test_it_tells_what_it_can():
    """It names its rules and tools, and says of itself that it is no language model."""
    (abilities,) = asked("What can you do?", tools=(strange, calculate))
    assert "no language model" in abilities
    assert "strange, calculate" in abilities
    (unknown,) = asked("What is Rust?", tools=(strange,))
    assert "no language model" in unknown
    assert "none." in asked("help", tools=())[0]
    assert ["I have no tool that calculates."] == asked("What is 1 + 1?", tools=(strange,))


def test_it_goes_on_where_nothing_was_decided():
    """After an observation that answers no decision, it says so."""
    observed = [{"role": "user", "content": "Observation: Stopped: cancelled."}]
    assert "That did not work" in OfflineModel()(observed)
    assert "offline rules" == OfflineModel().name
