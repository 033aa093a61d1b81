"""What happens to a conversation beside its turn is heeded: nothing is lost, doubled or revived."""

import _thread
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import evstore
from evstore import agent
from evstore.agent.journal import RUN_ENDED, RUN_STARTED
from evstore.errors import Conflict, SessionExpired, SessionNotFound, Unavailable


def answer(text: str) -> str:
    return json.dumps({"thought": "", "final_answer": text})


def look() -> str:
    """Look."""
    return "seen"


def looking(messages: list[dict[str, Any]]) -> str:
    is_seen = messages[-1]["content"] == "Observation: seen"
    return answer("done") if is_seen else '{"action": "look"}'


def killed(messages: list[dict[str, Any]]) -> str:
    """Leave what a process leaves that is killed while the model is asked."""
    raise GeneratorExit


def begun(storage: agent.SqliteStorage, text: str, key: str | None = None) -> None:
    """Have a turn begun that is then cut off."""
    session = agent.create_session("s", storage, model=killed)
    with pytest.raises(GeneratorExit):
        session.send_message(text, key=key)


def roles(storage: Any, session_id: str = "s") -> list[str]:
    return [message["role"] for message in storage.load(session_id)]


@pytest.fixture
def storage(memory):
    """A storage over a store in memory."""
    return agent.SqliteStorage(memory)


def test_a_session_goes_on_after_its_life_has_ended_in_a_turn(storage):
    """A conversation that others clear in the midst of a turn begins anew with the next one."""

    def clearing(messages):
        if messages[-1]["content"] == "one":
            agent.create_session("s", storage).clear_history()
        return answer("hi")

    session = agent.create_session("s", storage, model=clearing)
    with pytest.raises(SessionNotFound):
        session.send_message("one")
    assert (session.cut_off(), session.resume()) == (None, None)
    assert session.send_message("two").success
    assert ["system", "user", "assistant"] == roles(storage)


def test_a_session_goes_on_after_it_has_expired_in_a_turn():
    """A tool may outlive the deadline of its session; the next turn is in a new life."""
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def sleep() -> str:
        nonlocal now
        now += timedelta(hours=2)
        return "slept"

    replies = ['{"action": "sleep"}', answer("hi"), answer("hi")]
    with evstore.open("memory:", ttl=3600, clock=lambda: now) as store:
        session = agent.create_session(
            "s", agent.SqliteStorage(store), model=lambda _: replies.pop(0), tools=[sleep]
        )
        with pytest.raises(SessionExpired):
            session.send_message("one")
        assert session.send_message("two").success


def test_an_interrupted_turn_of_a_life_that_has_ended_is_told(storage):
    """Ctrl-C after others have cleared the conversation writes into no other life."""

    def clearing(messages):
        other = agent.create_session("s", storage)
        other.clear_history()
        other.send_message("Hello")
        raise KeyboardInterrupt

    with pytest.raises(SessionNotFound):
        agent.create_session("s", storage, model=clearing).send_message("one")
    assert ["system", "user", "assistant"] == roles(storage)


@pytest.mark.parametrize("key", [None, "k"])
def test_a_turn_that_was_taken_back_is_not_carried_out(storage, key):
    """What was cut off and then taken back is cut off no more; its key is free again."""
    agent.create_session("s", storage, model=lambda _: answer("hi")).send_message("one")
    before = storage.session("s").head
    begun(storage, "Delete all.", key)
    storage.session("s").revert(before)
    after = storage.session("s").head
    asked = []

    def model(messages):
        asked.append([message["content"] for message in messages])
        return answer("hi")

    session = agent.create_session("s", storage, model=model)
    assert (session.cut_off(), session.resume()) == (None, None)
    session.abandon()
    assert after == storage.session("s").head
    assert session.send_message("Delete all.", key=key).success
    assert "Delete all." == asked[0][-1]
    assert ["system", *["user", "assistant"] * 2] == roles(storage)


def test_a_step_that_was_taken_back_is_taken_again(storage):
    """A turn goes on from what the conversation still holds of it."""
    models = [looking, killed]

    def model(messages):
        return models.pop(0)(messages)

    first = agent.create_session("s", storage, model=model, tools=[look])
    with pytest.raises(GeneratorExit):
        first.send_message("Look.")
    called = next(storage.session("s").events(kind="app.agent.tool.returned"))
    storage.session("s").revert(called.seq - 1)
    result = agent.create_session("s", storage, model=looking, tools=[look]).resume()
    assert result is not None
    assert ["seen"] == [step.observation for step in result.steps]
    assert ["system", "user", "assistant", "user", "assistant"] == roles(storage)


def test_a_turn_that_is_taken_back_in_its_midst_is_told(storage):
    """Ctrl-C in a turn that others have taken back meanwhile is Conflict: there is no end of it."""
    agent.create_session("s", storage).send_message("Hello")
    before = storage.session("s").head

    def reverting(messages):
        storage.session("s").revert(before)
        raise KeyboardInterrupt

    session = agent.create_session("s", storage, model=reverting)
    with pytest.raises(Conflict, match="without it"):
        session.send_message("one")
    assert 3 == len(storage.load("s"))


def test_a_message_that_a_tool_redacts_is_shown_no_more(storage):
    """A message that is replaced during a turn is read anew, and the turn goes on."""
    asked = []

    def model(messages):
        asked.append(str(messages))
        redacted = messages[-1]["content"] == "Observation: done"
        return answer("ok") if redacted or len(asked) > 2 else '{"action": "redact"}'

    def redact() -> str:
        """Redact."""
        storage.session("s").messages.replace(1, {"role": "user", "content": "[redacted]"})
        return "done"

    session = agent.create_session("s", storage, model=model, tools=[redact])
    assert session.send_message("My password is hunter2.").success
    assert session.send_message("next").success
    assert ["hunter2" in each for each in asked] == [True, False, False]


def test_a_conversation_with_as_many_other_messages_is_another_one(storage):
    """Conflict is told where others have exchanged messages, though there are as many as before."""

    def exchanging(messages):
        with storage.session("s").batch() as batch:
            batch.messages.pop()
            batch.messages.append({"role": "user", "content": "Something else."})
        return answer("ok")

    with pytest.raises(Conflict):
        agent.create_session("s", storage, model=exchanging).send_message("one")
    assert "Something else." == storage.load("s")[-1]["content"]


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_turn_of_another_is_not_overwritten(tmp_path, kind):
    """Where messages alone are kept, whoever finds those of another is told, and saves nothing."""
    plain = agent.InMemoryStorage() if kind == "memory" else agent.FileSystemStorage(tmp_path)

    def model(messages):
        agent.create_session("s", plain, model=lambda _: answer("B")).send_message("second")
        return answer("A")

    session = agent.create_session("s", plain, model=model)
    with pytest.raises(Conflict):
        session.send_message("first")
    contents = [message["content"] for message in plain.load("s")[1:]]
    stop = "Observation: Stopped: the turn was cut off."
    assert contents[:3] == ["first", stop, "second"]
    assert '"B"' in contents[3]


def test_a_conversation_that_another_cleared_is_not_revived():
    """A conversation that is forgotten while a turn begins stays so in plain storages."""
    plain = agent.InMemoryStorage()
    agent.create_session("s", plain).send_message("Hello")
    session = agent.create_session("s", plain)
    journal: Any = session._journal
    begin = journal.begin

    def clearing(*arguments: Any) -> Any:
        plain.delete("s")
        return begin(*arguments)

    journal.begin = clearing
    with pytest.raises(Conflict):
        session.send_message("one")
    assert [] == plain.load("s")


class Interrupted(agent.InMemoryStorage):
    """A storage whose second save is interrupted once it is done."""

    saves = 0

    def save(self, session_id, history):
        super().save(session_id, history)
        self.saves += 1
        if self.saves == 2:
            raise KeyboardInterrupt


def test_what_an_interrupted_saving_has_left_is_not_of_others():
    """Ctrl-C at the end of a saving is the end of the turn, and no Conflict."""
    plain = Interrupted()
    session = agent.create_session("s", plain, model=lambda _: answer("hi"))
    assert "cancelled" == session.send_message("one").reason
    assert 3 == len(plain.load("s"))
    assert session.send_message("two").success


def test_a_turn_can_be_finished_in_a_fork_at_each_of_its_moments(storage):
    """Wherever a fork branches off in a turn, it is resumed there or said anew, with its key."""
    agent.create_session("s", storage, model=looking, tools=[look]).send_message("go", key="k")
    session = storage.session("s")
    whole = roles(storage)
    for seq in range(1, session.head + 1):
        fork = f"f{seq}"
        session.fork(fork, at=seq)
        forked = agent.create_session(fork, storage, model=looking, tools=[look])
        resumed = forked.resume()
        is_begun = 3 <= seq < session.head
        assert ("done" if is_begun else None) == (resumed and resumed.result), seq
        result = forked.send_message("go", key="k")
        assert (result.result, whole) == ("done", roles(storage, fork)), seq
        assert resumed in (None, result)
        kinds = [event.kind for event in storage.session(fork).events()]
        assert 1 == kinds.count(RUN_ENDED), seq


def interrupted_in_begin(session: agent.AgentSession) -> None:
    """Have Ctrl-C come once the beginning of a turn is written down."""
    journal: Any = session._journal
    begin = journal.begin

    def stopped(*arguments: Any) -> None:
        del journal.begin
        begin(*arguments)
        _thread.interrupt_main()
        for _ in range(10_000_000):
            pass

    journal.begin = stopped


@pytest.mark.parametrize("kind", ["memory", "store"])
def test_a_turn_that_is_interrupted_in_its_beginning_has_an_end(storage, kind):
    """Ctrl-C while the beginning is written down leaves nothing that could be resumed."""
    kept = storage if kind == "store" else agent.InMemoryStorage()
    session = agent.create_session("s", kept, model=lambda _: answer("hi"))
    interrupted_in_begin(session)
    with pytest.raises(KeyboardInterrupt):
        session.send_message("Delete all.")
    assert session.resume() is None
    assert "Observation: Stopped: the turn was cancelled." == kept.load("s")[-1]["content"]
    if kind == "store":
        kinds = [event.kind for event in storage.session("s").events()]
        assert (1, 1) == (kinds.count(RUN_STARTED), kinds.count(RUN_ENDED))


def test_a_beginning_that_fails_stays_as_it_is(storage):
    """An error of the storage in a beginning is raised; what was written can be resumed."""
    session = agent.create_session("s", storage, model=lambda _: answer("hi"))
    journal: Any = session._journal
    begin = journal.begin

    def failing(*arguments: Any) -> None:
        begin(*arguments)
        raise Unavailable("the disk", "it is full")

    journal.begin = failing
    with pytest.raises(Unavailable):
        session.send_message("one")
    assert "one" == session.cut_off()


@pytest.mark.parametrize("what", ["send_message", "clear_history", "cut_off", "resume", "abandon"])
def test_a_tool_cannot_wait_for_its_own_turn(what):
    """A tool that asks its own session for what has to wait for the turn is told so at once."""

    def ask() -> None:
        """Ask."""
        getattr(session, what)(*["Hello"] * (what == "send_message"))

    def model(messages):
        return '{"action": "ask"}' if len(messages) < 3 else answer("ok")

    session = agent.create_session("s", model=model, tools=[ask])
    results: list[agent.AgentResult] = []
    thread = threading.Thread(
        target=lambda: results.append(session.send_message("Go.")), daemon=True
    )
    thread.start()
    thread.join(30)
    assert ["ok"] == [result.result for result in results]
    assert "Refused: a turn is under way" in results[0].steps[0].observation
    assert session.send_message("Again.").success


def test_a_listener_cannot_wait_for_its_own_turn():
    """A listener that asks its session in a turn ends it, and learns why."""
    session = agent.create_session("s", on_progress=lambda _: session.clear_history())
    raised: list[BaseException] = []

    def send() -> None:
        try:
            session.send_message("Hello")
        except evstore.errors.Refused as error:
            raised.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(30)
    assert ["a turn is under way"] == [str(error)[:19] for error in raised]
