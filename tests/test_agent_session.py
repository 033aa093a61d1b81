"""Agent sessions: conversations over many turns, in every storage, from threads, and cancelled."""

import _thread
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import evstore
from evstore import agent
from evstore.agent.journal import RUN_ENDED, RUN_STARTED
from evstore.errors import BadName, SessionNotFound, Unavailable


def answer(text: Any) -> str:
    return json.dumps({"thought": "", "final_answer": text})


def echo(messages: list[dict[str, Any]]) -> str:
    return answer(f"You said: {messages[-1]['content']}")


def test_an_ephemeral_session(tmp_path, monkeypatch):
    """S, pattern 1: without a storage a conversation lasts as long as its session."""
    monkeypatch.chdir(tmp_path)
    session = agent.create_session("temp")
    assert session.send_message("Remember: my name is Alice").success
    assert "Your name is Alice" == session.send_message("What is my name?").result
    assert 5 == session.message_count
    assert "temp" == session.session_id
    assert 0 == agent.create_session("temp").message_count
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["files", "store"])
def test_a_persistent_session(tmp_path, kind):
    """S, pattern 2: a later run knows what was said before."""

    def storage():
        path = tmp_path / kind
        return agent.SqliteStorage(path) if kind == "store" else agent.FileSystemStorage(path)

    agent.create_session("user-123", storage()).send_message("Remember: my name is Alice")
    session = agent.create_session("user-123", storage())
    assert 3 == session.message_count
    assert "Your name is Alice" == session.send_message("What is my name?").result
    assert session.message_count == len(storage().load("user-123"))


@pytest.mark.parametrize("kind", ["memory", "files", "store"])
def test_clear_history_removes_it_from_the_storage(tmp_path, kind):
    """S, pattern 3: a cleared session is gone from its storage, and begins anew."""
    storages: dict[str, Any] = {
        "memory": agent.InMemoryStorage,
        "files": lambda: agent.FileSystemStorage(tmp_path / kind),
        "store": lambda: agent.SqliteStorage(tmp_path / "agents.db"),
    }
    storage = storages[kind]()
    session = agent.create_session("user-123", storage)
    session.send_message("Remember: my name is Alice")
    assert storage.exists("user-123")
    session.clear_history()
    session.clear_history()
    assert 0 == session.message_count
    assert not storage.exists("user-123")
    assert "You have not told me your name." == session.send_message("What is my name?").result
    assert 3 == session.message_count == len(storage.load("user-123"))


def test_a_session_needs_an_id():
    """An id that no storage takes is BadName."""
    with pytest.raises(BadName):
        agent.create_session("")


def test_threads_are_answered_in_turn(path):
    """Messages that threads send at once are turns after one another, each with its answer."""
    with agent.SqliteStorage(path) as storage:
        session = agent.create_session("s", storage, model=echo)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(session.send_message, map(str, range(24))))
        assert [f"You said: {n}" for n in range(24)] == [result.result for result in results]
        said = [message["content"] for message in storage.load("s")[1:]]
    asked = said[::2]
    assert sorted(map(str, range(24))) == sorted(asked)
    assert [f"You said: {n}" for n in asked] == [json.loads(a)["final_answer"] for a in said[1::2]]


def test_sessions_of_many_threads_do_not_mix(path):
    """Each thread has a session of its own in one store, and finds its own conversation there."""

    def talk(number: int) -> list[str]:
        session = agent.create_session(f"user-{number}", storage)
        session.send_message(f"My name is User{chr(65 + number)}")
        return [session.send_message("What is my name?").result for _ in range(3)]

    with agent.SqliteStorage(path) as storage, ThreadPoolExecutor(8) as pool:
        said = list(pool.map(talk, range(8)))
    assert [[f"Your name is User{chr(65 + number)}"] * 3 for number in range(8)] == said


def test_a_session_sees_what_another_handle_has_written(path):
    """Before each turn a session takes in what was said elsewhere, and what was cleared there."""
    with agent.SqliteStorage(path) as one, agent.SqliteStorage(path) as two:
        first, second = agent.create_session("s", one), agent.create_session("s", two)
        first.send_message("My name is Alice")
        assert "Your name is Alice" == second.send_message("What is my name?").result
        assert second.send_message("Hello", key="first").success
        first.clear_history()
        assert "You have not told me your name." == second.send_message("What is my name?").result
        second.send_message("My name is Bob", key="first")  # in a new life each key is new
        assert "Your name is Bob" == first.send_message("What is my name?", key="second").result


def test_tools_may_use_the_session(path):
    """A tool that sets variables of the same session does not disturb the turn."""
    with agent.SqliteStorage(path) as storage:

        def note(word: str) -> str:
            """Note a word."""
            storage.session("s").variables["word"] = word
            return "noted"

        replies = ['{"action": "note", "input": {"word": "fox"}}', answer("ok")] * 2
        session = agent.create_session("s", storage, model=lambda _: replies.pop(0), tools=[note])
        assert "ok" == session.send_message("Note it.").result
        assert "ok" == session.send_message("Again.", key="again").result
        assert {"word": "fox"} == dict(storage.session("s").variables)
        assert "ok" == session.send_message("Again.", key="again").result


def test_cancel_ends_the_turn_of_another_thread(path):
    """A turn that is cancelled calls nothing more, says so, and leaves the next one a clean log."""
    asked, cancelled, called = threading.Event(), threading.Event(), list[str]()

    def model(messages):
        asked.set()
        assert cancelled.wait(30)
        return '{"action": "act"}'

    with agent.SqliteStorage(path) as storage:
        session = agent.create_session("s", storage, model=model, tools=[act := tool_into(called)])
        with ThreadPoolExecutor(1) as pool:
            turn = pool.submit(session.send_message, "Act.")
            assert asked.wait(30)
            session.cancel()
            cancelled.set()
            result = turn.result(30)
        assert (False, "cancelled", []) == (result.success, result.reason, called)
        unknown = "What 'act' has done is not known."
        assert f"Stopped: the turn was cancelled. {unknown}" == result.result
        after = agent.create_session("s", storage, model=echo, tools=[act])
        assert after.send_message("Hello").success
        kinds = [event.kind for event in storage.session("s").events()]
    assert 2 == kinds.count(RUN_STARTED) == kinds.count(RUN_ENDED)


def tool_into(calls: list[str]) -> agent.Tool:
    def act() -> None:
        calls.append("called")

    return agent.tool(act)


def test_cancel_ends_a_reply_between_its_pieces():
    """A model that streams without an end is left at its next piece."""
    begun = threading.Event()

    def pieces():
        while True:
            begun.set()
            yield "."

    session = agent.create_session("s", model=lambda _: pieces())
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(session.send_message, "Go on.")
        assert begun.wait(30)
        session.cancel()
        assert "cancelled" == turn.result(30).reason
    assert 3 == session.message_count


@pytest.mark.parametrize("kind", ["memory", "store"])
def test_an_interrupted_turn_ends_honestly(tmp_path, kind):
    """Ctrl-C in the midst of a tool ends the turn with a result, and the next one works."""

    def interrupted() -> None:
        _thread.interrupt_main()
        for _ in range(10_000_000):
            pass

    replies = ['{"action": "interrupted"}', answer("ok")]
    store = agent.SqliteStorage(tmp_path / "agents.db")
    storage = store if kind == "store" else agent.InMemoryStorage()
    session = agent.create_session(
        "s", storage, model=lambda _: replies.pop(0), tools=[interrupted]
    )
    result = session.send_message("Go.")
    assert (False, "cancelled") == (result.success, result.reason)
    assert "ok" == session.send_message("And now?").result
    assert 6 == session.message_count
    store.close()


def test_what_ends_the_program_is_let_through(path):
    """A tool that exits the program does so, after the end of its turn is written down."""

    def leave() -> None:
        raise SystemExit(3)

    with agent.SqliteStorage(path) as storage:
        session = agent.create_session(
            "s", storage, model=lambda _: '{"action": "leave"}', tools=[leave]
        )
        with pytest.raises(SystemExit):
            session.send_message("Go.")
        stop = "Stopped: the turn was cancelled. What 'leave' has done is not known."
        assert f"Observation: {stop}" == storage.load("s")[-1]["content"]


class Failing(agent.InMemoryStorage):
    """A storage that fails after some saves: first without having saved, then with."""

    def __init__(self, error: BaseException, saves: int) -> None:
        super().__init__()
        self.error = error
        self.left = saves

    def save(self, session_id, history):
        self.left -= 1
        if self.left == 0:
            raise self.error
        super().save(session_id, history)


def test_a_storage_that_fails_is_told_and_the_turn_resumable():
    """An error of the storage is raised; what was kept is whole, and the turn goes on later."""
    storage = Failing(Unavailable("the disk", "it is full"), 2)
    session = agent.create_session("s", storage, model=echo)
    with pytest.raises(Unavailable):
        session.send_message("Hello")
    assert ["system", "user"] == [message["role"] for message in storage.load("s")]
    result = session.resume()
    assert result is not None
    assert "You said: Hello" == result.result


def test_an_interruption_of_a_save_is_an_end_too(path):
    """Ctrl-C while a step is written down: the turn ends once, with what the log then holds."""
    storage = Failing(KeyboardInterrupt(), 2)
    session = agent.create_session("s", storage, model=echo)
    assert "cancelled" == session.send_message("Hello").reason
    assert 3 == session.message_count == len(storage.load("s"))
    with agent.SqliteStorage(path) as kept:
        session = agent.create_session("s", kept, model=echo)
        journal: Any = session._journal
        take_runs = journal._take_runs

        def stop_at_the_end(events):
            if events[-1].kind == RUN_ENDED:
                journal._take_runs = take_runs
                raise KeyboardInterrupt
            take_runs(events)

        journal._take_runs = stop_at_the_end  # the end is committed by then, and not yet known
        result = session.send_message("Hello")
        assert ("You said: Hello", "answered") == (result.result, result.reason)
        assert 3 == len(kept.load("s"))
        kinds = [event.kind for event in kept.session("s").events()]
        assert 1 == kinds.count(RUN_ENDED)


def test_a_session_that_ends_meanwhile_is_told(memory):
    """A turn whose session is deleted under it is SessionNotFound; the next is a new life."""
    storage = agent.SqliteStorage(memory)

    def deleting(messages):
        storage.delete("s")
        return answer("too late")

    session = agent.create_session("s", storage, model=deleting)
    with pytest.raises(SessionNotFound):
        session.send_message("Hello")
    assert (
        "Hello! What can I do for you?"
        == agent.create_session("s", storage).send_message("Hello").result
    )


def test_what_is_not_answered_yet_is_seen_in_plain_conversations():
    """A conversation that others began is taken as it is: its open question can be answered."""
    storage = agent.InMemoryStorage()
    storage.save("s", [{"role": "user", "content": "Hi"}])
    result = agent.create_session("s", storage, model=echo).resume()
    assert result is not None
    assert "You said: Hi" == result.result
    storage.save("s", [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])
    assert agent.create_session("s", storage).resume() is None
    storage.save("s", [{"role": "user", "content": "Observation: 1"}])
    assert agent.create_session("s", storage).resume() is None


def test_the_agent_is_not_loaded_with_the_store():
    """Who only stores does not pay for agents: `import evstore` leaves them out."""
    import subprocess
    import sys

    code = "import evstore, sys; print([n for n in sys.modules if n.startswith('evstore.agent')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
    assert evstore.agent is agent
