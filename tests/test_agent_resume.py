"""Turns that were cut off go on where they stood: no message doubled, none missing."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore import agent, replay
from evstore.agent.journal import (
    MODEL_REPLIED,
    RUN_ENDED,
    RUN_STARTED,
    TOOL_CALLED,
    TOOL_RETURNED,
)
from evstore.errors import BadName, Conflict, Refused, Unsupported
from tests.model_server import ModelServer, serving

TURNS = 50
KILLS = 10
LONG_RUN = """
import sys
from evstore.agent import OpenAIModel, SqliteStorage, create_session

def multiply(a: int, b: int) -> int:
    "Return a product."
    return a * b

def add(a: int, b: int) -> int:
    "Return a sum."
    return a + b

path, url, turns = sys.argv[1:]
with SqliteStorage(path) as storage, OpenAIModel(url, "tiny") as model:
    session = create_session("long", storage, model=model, tools=[multiply, add])
    for number in range(int(turns)):
        text = f"What is {number} times 7, plus 1?"
        print(session.send_message(text, key=f"turn-{number}").result, flush=True)
"""


def deciding(messages: list[dict[str, Any]]) -> str:
    """Decide by the content of the conversation alone; every seventh turn begins with nonsense."""
    observed: list[str] = []
    for message in reversed(messages):
        if message["role"] == "user" and not message["content"].startswith("Observation: "):
            break
        if message["role"] == "user":
            observed.insert(0, message["content"].removeprefix("Observation: "))
    number = int(re.findall(r"\d+", message["content"])[0])
    if number % 7 == 3 and not observed:
        return "Let me think."
    observed = [each for each in observed if each.isdigit()]
    thought = f"I have seen {observed}."
    if not observed:
        given = {"a": number, "b": 7}
        return json.dumps({"thought": thought, "action": "multiply", "input": given})
    if len(observed) == 1:
        given = {"a": int(observed[0]), "b": 1}
        return json.dumps({"thought": thought, "action": "add", "input": given})
    return json.dumps({"thought": thought, "final_answer": observed[-1]})


def started(path: Path, server: ModelServer) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LONG_RUN, str(path), server.url, str(TURNS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(path: Path, server: ModelServer) -> list[str]:
    child = started(path, server)
    printed, _ = child.communicate(timeout=100)
    assert 0 == child.returncode
    return printed.splitlines()


def conversation(path: Path) -> list[Any]:
    with evstore.open(path, read_only=True) as store:
        return list(store.session("long").messages)


@pytest.mark.timeout(300)
def test_a_long_run_that_is_killed_ten_times_ends_as_one_that_was_not(tmp_path, monkeypatch):
    """Fifty turns, killed at ten random points and begun again: the same conversation."""
    monkeypatch.setenv("NO_PROXY", "*")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    whole, cut = tmp_path / "whole.db", tmp_path / "cut.db"
    expected = [str(number * 7 + 1) for number in range(TURNS)]
    with serving(deciding) as server:
        assert expected == finished(whole, server)
        questions = len(server.requests)
        for _ in range(KILLS):
            child = started(cut, server)
            server.wait_for(len(server.requests) + chance.randint(1, questions // (KILLS + 2)))
            time.sleep(chance.uniform(0, 0.02))
            child.kill()
            child.communicate()
            assert -signal.SIGKILL == child.returncode, seed
        assert expected == finished(cut, server), seed
    assert conversation(whole) == conversation(cut), seed
    with evstore.open(cut) as store:
        assert [] == list(replay.verify(store, level="full"))
        runs = [event.kind for event in store.session("long").events()]
    kinds = Counter(runs)
    assert TURNS == kinds[RUN_STARTED] == kinds[RUN_ENDED]
    assert TURNS * 2 == kinds[TOOL_CALLED] == kinds[TOOL_RETURNED]
    assert questions == kinds[MODEL_REPLIED]


CUT_OFF = """
import os, signal, sys
from evstore.agent import SqliteStorage, FileSystemStorage, create_session
path, where, kind = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def look(what: str) -> str:
    with open(path + ".calls", "a") as calls:
        calls.write(what + "\\n")
    if where == "tool":
        die()
    return "seen"

def model(messages):
    if messages[-1]["content"] == "Observation: seen":
        if where == "answer":
            die()
        return '{"thought": "b", "final_answer": "done"}'
    if where == "question":
        die()
    return '{"thought": "a", "action": "look", "input": {"what": "there"}}'

storage = SqliteStorage(path) if kind == "store" else FileSystemStorage(path)
key = "first" if kind == "store" else None
create_session("s", storage, model=model, tools=[look]).send_message("Look.", key=key)
"""
DECISIONS = [
    '{"thought": "a", "action": "look", "input": {"what": "there"}}',
    '{"thought": "b", "final_answer": "done"}',
]


def look(what: str) -> str:
    return "seen"


def model(messages):
    return DECISIONS[messages[-1]["content"] == "Observation: seen"]


def contents(messages) -> list[str]:
    return [message["content"] for message in messages[1:]]


EXPECTED = [
    "Look.",
    '{"thought":"a","action":"look","input":{"what":"there"}}',
    "Observation: seen",
    '{"thought":"b","final_answer":"done"}',
]


@pytest.fixture(params=["store", "files"])
def kind(request):
    return request.param


def storage_of(kind: str, path: Path) -> Any:
    return agent.SqliteStorage(path) if kind == "store" else agent.FileSystemStorage(path)


def cut_off(tmp_path: Path, kind: str, where: str) -> Path:
    """Return where a conversation lies whose process was killed in its first turn."""
    path = tmp_path / "kept"
    command = [sys.executable, "-c", CUT_OFF, str(path), where, kind]
    assert -signal.SIGKILL == subprocess.run(command, check=False).returncode
    return path


@pytest.mark.parametrize("where", ["question", "tool", "answer"])
def test_resume_finishes_the_turn_that_was_cut_off(tmp_path, kind, where):
    """In every storage a new process finds the turn and goes on; then nothing is left to do."""
    path = cut_off(tmp_path, kind, where)
    session = agent.create_session("s", storage_of(kind, path), model=model, tools=[look])
    before = session.message_count
    result = session.resume()
    assert result is not None
    assert ("done", True, ["seen"]) == (
        result.result,
        result.success,
        [step.observation for step in result.steps],
    )
    assert EXPECTED == contents(storage_of(kind, path).load("s"))
    assert {"question": 2, "tool": 3, "answer": 4}[where] == before
    assert session.resume() is None


@pytest.mark.parametrize("where", ["question", "tool", "answer"])
def test_a_key_makes_a_turn_the_only_one(tmp_path, where):
    """Cut off, a turn goes on when it is sent again; done, it returns its recorded result."""
    path = cut_off(tmp_path, "store", where)
    with agent.SqliteStorage(path) as storage:
        session = agent.create_session("s", storage, model=model, tools=[look])
        result = session.send_message("Look.", key="first")
        assert result == session.send_message("Look.", key="first")
        again = agent.create_session("s", storage)  # another handle, another model
        assert result == again.send_message_with_iterations("Look.", 3, key="first")
        assert EXPECTED == contents(storage.load("s"))
        with pytest.raises(Refused, match="belongs to another message"):
            session.send_message("Look!", key="first")


def test_a_tool_whose_outcome_is_not_recorded_is_called_again(tmp_path):
    """Tools are called at least once: one that was killed in its work is called a second time."""
    path = cut_off(tmp_path, "store", "tool")
    calls = []

    def look(what: str) -> str:
        calls.append(what)
        return "seen"

    with agent.SqliteStorage(path) as storage:
        agent.create_session("s", storage, model=model, tools=[look]).resume()
    assert ["there"] == calls
    assert "there\n" == Path(f"{path}.calls").read_text("utf-8")


def test_a_tool_that_is_gone_is_told(tmp_path):
    """A program that has changed meanwhile goes on as well: the model learns of what is missing."""
    path = cut_off(tmp_path, "store", "tool")
    last = '{"final_answer": "then not"}'
    with agent.SqliteStorage(path) as storage:
        result = agent.create_session("s", storage, model=lambda _: last).resume()
    assert result is not None
    assert "Error: there is no tool 'look'; the tools are: none." == result.steps[0].observation


@pytest.mark.parametrize("where", ["question", "tool", "answer"])
def test_a_new_message_ends_the_turn_that_was_cut_off(tmp_path, kind, where):
    """Who sends something else gets an answer to that; the conversation says what happened."""
    path = cut_off(tmp_path, kind, where)
    storage = storage_of(kind, path)
    session = agent.create_session("s", storage, model=model, tools=[look])
    assert session.send_message("Look again.").success
    stop = "Observation: Stopped: the turn was cut off."
    stop += " What 'look' has done is not known." if where == "tool" else ""
    said = contents(storage.load("s"))
    assert {"question": 1, "tool": 2, "answer": 3}[where] == said.index(stop)
    assert ["Look again.", *EXPECTED[1:]] == said[said.index(stop) + 1 :]
    if kind == "store":
        old = session.send_message("Look.", key="first")
        assert (False, "cut_off") == (old.success, old.reason)


def test_a_fork_goes_on_from_the_middle_of_a_turn(tmp_path):
    """A turn can be finished twice, in branches of the session, each with its own end."""
    path = cut_off(tmp_path, "store", "answer")
    with agent.SqliteStorage(path) as storage:
        storage.session("s").fork("other")
        other = agent.create_session("other", storage, model=lambda _: '{"final_answer": "no"}')
        first = agent.create_session("s", storage, model=model).resume()
        second = other.resume()
    assert first is not None
    assert second is not None
    assert ("done", "no") == (first.result, second.result)
    assert first.steps == second.steps


def test_keys_need_a_log():
    """Where messages alone are kept, a key is refused, and nothing is written."""
    session = agent.create_session("s")
    with pytest.raises(Unsupported, match="SqliteStorage"):
        session.send_message("Hello", key="first")
    with pytest.raises(BadName):
        session.send_message("Hello", key="\0")
    assert 0 == session.message_count
    assert session.resume() is None


def test_two_at_one_conversation_do_not_mix(memory):
    """A turn into which others write is given up with Conflict; what it wrote stays resumable."""
    storage = agent.SqliteStorage(memory)

    def intruding(messages):
        storage.session("s").messages.append({"role": "user", "content": "Me too!"})
        return DECISIONS[0]

    session = agent.create_session("s", storage, model=intruding, tools=[look])
    with pytest.raises(Conflict):
        session.send_message("Look.", key="first")
    assert ["Look.", "Me too!"] == contents(storage.load("s"))
    finished = agent.create_session("s", storage, model=model, tools=[look])
    assert "done" == finished.send_message("Look.", key="first").result
    assert ["Look.", "Me too!", *EXPECTED[1:]] == contents(storage.load("s"))
    other = agent.create_session("s", storage, model=model, tools=[look])
    assert "done" == other.send_message("Look.").result
    assert "done" == finished.send_message("Look.").result  # it takes in what the other has written
