"""The loop: every turn ends in an honest result, and leaves a conversation that goes on."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore import agent
from evstore.agent import decisions, models
from evstore.agent.decisions import EXPECTED
from evstore.errors import Refused, TooLarge
from evstore.limits import Limits
from tests.agent_storages import opened


def list_files(folder: str) -> str:
    """List the files of a folder."""
    if folder != "/tmp":  # noqa: S108
        raise FileNotFoundError(f"no folder {folder}")
    return "file1.txt, file2.txt"


def scripted(*replies: Any):
    """Return a model that says one reply after the other; an error among them is raised."""
    left = list(replies)

    def model(messages):
        reply = left.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    return model


def action(name: str = "list_files", **given: Any) -> str:
    return json.dumps({"thought": "I need to list files", "action": name, "input": given})


def answer(text: Any = "There are two.") -> str:
    return json.dumps({"thought": "Now I know.", "final_answer": text})


ACTION = action(folder="/tmp")  # noqa: S108


def session_of(storage, *replies: Any, tools: Any = (list_files,)) -> agent.AgentSession:
    return agent.create_session("s", storage, model=scripted(*replies), tools=tools)


@pytest.fixture(params=["memory", "files", "sqlite"])
def storage(request, tmp_path):
    """Each storage there is, empty."""
    with opened(request.param, tmp_path) as found:
        yield found


def test_the_conversation_is_in_the_agreed_format(storage):
    """System, user, assistant and observation: the messages that S shows, and nothing else."""
    session = session_of(storage, ACTION, answer())
    result = session.send_message("What files are in /tmp?")
    assert (
        agent.AgentResult(
            "There are two.",
            (
                agent.Step(
                    "I need to list files",
                    "list_files",
                    {"folder": "/tmp"},  # noqa: S108
                    "file1.txt, file2.txt",
                ),
            ),
            success=True,
        )
        == result
    )
    system, *others = storage.load("s")
    assert ["role", "content"] == list(system)
    assert "system" == system["role"]
    assert system["content"].startswith("You are an autonomous agent.")
    assert '- list_files: List the files of a folder.\n  input: {"type"' in system["content"]
    assert [
        {"role": "user", "content": "What files are in /tmp?"},
        {
            "role": "assistant",
            "content": '{"thought":"I need to list files","action":"list_files",'
            '"input":{"folder":"/tmp"}}',
        },
        {"role": "user", "content": "Observation: file1.txt, file2.txt"},
        {
            "role": "assistant",
            "content": '{"thought":"Now I know.","final_answer":"There are two."}',
        },
    ] == others
    assert 5 == session.message_count


def test_the_log_tells_the_whole_run(path):
    """Each step is an event in the batch of its message, with the run as its cause."""
    with agent.SqliteStorage(path) as storage:
        session_of(storage, ACTION, answer()).send_message_with_iterations("Which?", 3, key="k")
        events = list(storage.session("s").events())
    assert {"run:1"} == {event.cause for event in events}
    batches: dict[int, list[str]] = {}
    for event in events:
        batches.setdefault(event.position, []).append(event.kind.removeprefix("app.agent."))
    assert [
        ["run.started", "message.added", "message.added"],
        ["model.replied", "message.added", "tool.called"],
        ["tool.returned", "message.added"],
        ["model.replied", "message.added", "run.ended"],
    ] == list(batches.values())
    assert [
        {
            "text": "Which?",
            "max_iterations": 3,
            "model": "model",
            "tools": ["list_files"],
            "key": "k",
        },
        {"reply": ACTION},
        {"name": "list_files", "arguments": {"folder": "/tmp"}},  # noqa: S108
        {"name": "list_files", "result": "file1.txt, file2.txt"},
        {"reply": answer()},
        {"success": True, "reason": "answered", "result": "There are two."},
    ] == [event.data for event in events if event.kind.startswith("app.")]


def observed(*replies: Any, tools: Any = (list_files,)) -> list[str]:
    """Return what a model was told of its replies, before it answered."""
    result = session_of(None, *replies, answer(), tools=tools).send_message("Which?")
    assert result.success
    assert len(replies) == len(result.steps)
    return [step.observation for step in result.steps]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("Let me see.", "The reply is not JSON (unexpected character"),
        ('{"thought": "…"', "The reply is not JSON ("),
        ('"\\ud800"', "The reply is not JSON ("),
        ("[1]", "The reply is not a JSON object."),
        ('{"thought": 1, "action": "list_files"}', "The 'thought' is not text."),
        ('{"thought": "…"}', "The reply holds neither an 'action' nor"),
        ('{"action": "a", "final_answer": "b"}', "The reply holds neither an 'action' nor"),
        ('{"action": 1}', "The 'action' is not text"),
        ('{"action": "list_files", "input": "/tmp"}', "The 'action' is not text, or the 'input'"),
        ("a lone \ud800 surrogate", "The reply is not JSON"),
        ("", "The reply is not JSON"),
    ],
)
def test_a_reply_that_is_no_decision_is_told(reply, problem):
    """One observation says what is wrong and what is expected, and the model goes on."""
    (said,) = observed(reply)
    assert said.startswith(problem)
    assert said.endswith(EXPECTED)


def test_a_decision_may_stand_in_fences():
    """Models that wrap their JSON in ``` are understood; the message is the JSON alone."""
    storage = agent.InMemoryStorage()
    fenced = f"Here it is:\n```json\n{answer()}\n```\n"
    assert "There are two." == session_of(storage, fenced).send_message("Which?").result
    assert json.loads(answer()) == json.loads(storage.load("s")[-1]["content"])
    assert ["file1.txt, file2.txt"] == observed(f"```\n{ACTION}\n```")


def test_a_long_reply_is_read_at_once():
    """The time that a reply takes to be read grows with its length, whatever it holds."""
    began_s = time.process_time()
    for text in ('Here:\n```json\n{"a": 1}\n', "```{\n", "```{ } ", "}" + " " * 9 + "```"):
        reply = text * (models.REPLY_CHARACTERS_MAX // len(text))
        assert isinstance(decisions.read(reply), decisions.Unclear)
    assert time.process_time() < began_s + 3
    action = '```json\n{"action": "look"}\n```'
    assert decisions.read(f"```\nls\n```\nFirst:\n{action}\nThen `b` ```c```.") == (
        decisions.Action("", "look", {})
    )


class Odd:
    """An agent that yields what is no effect."""

    model_name, prompt, tools, is_async = "odd", "", (), False

    def run(self, turn):
        yield None
        return agent.Ending("answered", "x", ())


def test_an_agent_that_yields_no_effect_is_told(storage):
    """What an agent of one's own asks for has to be an effect; its turn has an honest end."""
    session = agent.create_session("s", storage, agent=Odd())
    with pytest.raises(TypeError, match="yields Ask, Call and Keep, not NoneType"):
        session.send_message("Go.")
    assert session.cut_off() is None
    assert "the agent failed: TypeError" in storage.load("s")[-1]["content"]


def test_an_answer_may_be_any_json():
    """An answer that is not text is given as JSON."""
    assert '{"count":2}' == session_of(None, answer({"count": 2})).send_message("Which?").result


def test_what_a_tool_cannot_do_is_told():
    """Errors of a tool, unknown tools and bad arguments are observations, and the model goes on."""
    assert ["Error: FileNotFoundError: no folder /etc"] == observed(action(folder="/etc"))
    (unknown,) = observed(action("delete_files"))
    assert "Error: there is no tool 'delete_files'; the tools are: list_files." == unknown
    (wrong,) = observed(action(folder=1))
    assert wrong.startswith("Error: input.folder has to be of type string, and is 1. The input of")
    (missing,) = observed('{"action": "list_files"}')
    assert missing.startswith("Error: input.folder is missing")


class Plain:
    def __str__(self) -> str:
        return "plain"


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ("text", "text"),
        (None, "null"),
        (True, "true"),
        (2**100, str(2**100)),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        ([1, {"a": Plain()}], '[1,{"a":"plain"}]'),
        ((1, 2**100), f"(1, {2**100})"),
        (Plain(), "plain"),
        ("a lone \ud800", "a lone ?"),
        ("x" * 50_003, "x" * 50_000 + " … (3 more characters are left out)"),
    ],
    ids=lambda value: str(value)[:20].encode("ascii", "replace").decode(),
)
def test_what_a_tool_returns_is_shown_as_text(returned, shown):
    """Text as it is, the rest as JSON or as Python shows it, within a limit."""

    def give() -> Any:
        return returned

    assert [shown] == observed('{"action": "give"}', tools=[give])


def ended(*replies: Any, iterations: int = 10, storage: Any = None) -> agent.AgentResult:
    """Return the result of a turn that fails, after a look at what it left."""
    kept = storage or agent.InMemoryStorage()
    session = session_of(kept, *replies, answer("later"))
    result = session.send_message_with_iterations("Which?", iterations)
    assert not result.success
    assert result.result.startswith("Stopped: ")
    assert {"role": "user", "content": f"Observation: {result.result}"} == kept.load("s")[-1]
    return result


def test_a_turn_has_so_many_iterations(storage):
    """A model that never answers is stopped; what is no decision counts as well."""
    result = ended(ACTION, "nonsense", ACTION, iterations=3, storage=storage)
    assert "iterations" == result.reason
    assert "Stopped: there is no answer after 3 iterations." == result.result
    assert 3 == len(result.steps)


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ConnectionError("no route"), "ConnectionError: no route"),
        (7, "TypeError: the model gave int where text is expected"),
        (["a", None], "TypeError: the model gave NoneType where text is expected"),
        ("x" * (models.REPLY_CHARACTERS_MAX + 1), "ValueError: the reply has more than 1000000"),
    ],
)
def test_a_model_that_fails_is_told(storage, failure, told):
    """Where the model fails the result says so, and the next message is answered."""
    result = ended(ACTION, failure, storage=storage)
    assert "model_error" == result.reason
    assert result.result.startswith(f"Stopped: the model failed: {told}")
    after = agent.create_session("s", storage, model=scripted(answer("later")), tools=[list_files])
    assert "later" == after.send_message("And now?").result
    assert ["And now?", json.dumps(json.loads(answer("later")), separators=(",", ":"))] == [
        message["content"] for message in storage.load("s")[-2:]
    ]


def test_a_model_may_answer_in_pieces():
    """An iterator of text is joined into one reply."""
    text = answer()
    pieces = (text[at : at + 2] for at in range(0, len(text), 2))
    assert "There are two." == session_of(None, pieces).send_message("Which?").result


def test_what_cannot_be_stored_ends_the_turn(path):
    """A reply beyond the limits of the store is not written, and the end says so."""
    deep = '{"action": "list_files", "input": {"folder": %s}}' % ("[" * 200 + "]" * 200)
    nested = agent.Tool("list_files", "Any.", {}, list_files)
    with agent.SqliteStorage(path) as storage:
        result = agent.create_session(
            "s", storage, model=scripted(deep, answer()), tools=[nested]
        ).send_message("Which?")
        assert (False, "not_storable") == (result.success, result.reason)
        assert storage.load("s")[-1]["content"] == f"Observation: {result.result}"
    limits = Limits(message_bytes_max=3000)
    with evstore.open(path, limits=limits) as store:
        storage = agent.SqliteStorage(store)
        session = session_of(storage, answer("x" * 4000), answer("short"))
        with pytest.raises(TooLarge):
            session.send_message("x" * 4000)
        assert "not_storable" == session.send_message("Which?").reason
        assert "short" == session.send_message("Which?").result


def test_the_prompt_is_said_again_where_it_is_new(storage):
    """A session whose tools have changed tells the model, at the beginning of the next turn."""
    session_of(storage, answer()).send_message("One?")
    session_of(storage, answer()).send_message("Two?")
    session_of(storage, answer(), tools=()).send_message("Three?")
    roles = [message["role"] for message in storage.load("s")]
    turn = ["user", "assistant"]
    assert ["system", *turn, *turn, "system", *turn] == roles


class Echo:
    """An agent of the application's own: it has no model, and no prompt."""

    model_name = "echo"
    tools: tuple[agent.Tool, ...] = ()
    prompt = ""
    is_async = False

    def run(self, turn: agent.Turn):
        text = turn.messages[-1]["content"]
        if text == "break":
            raise ZeroDivisionError("broken")
        yield turn.keep(decisions.observation("I think"))
        return agent.Ending("answered", text, ({"role": "assistant", "content": text},))


def test_another_agent_may_answer(storage):
    """What yields effects and returns an ending is an agent; its errors are recorded and raised."""
    session = agent.create_session("s", storage, agent=Echo())
    assert "Hello" == session.send_message("Hello").result
    assert ["Hello", "Observation: I think", "Hello"] == [
        message["content"] for message in storage.load("s")
    ]
    with pytest.raises(ZeroDivisionError):
        session.send_message("break")
    stop = "Observation: Stopped: the agent failed: ZeroDivisionError: broken"
    assert stop == storage.load("s")[-1]["content"]
    assert "Hello" == session.send_message("Hello").result


def test_what_cannot_be_asked_is_refused():
    """Mistakes of the caller are Refused, before anything is written."""
    session = agent.create_session("s")
    for text, iterations in ((None, 1), ("Hello", 0), ("Hello", True), ("Hello", 1.5)):
        with pytest.raises(Refused):
            session.send_message_with_iterations(text, iterations)  # type: ignore[arg-type]
    assert 0 == session.message_count
    with pytest.raises(Refused, match="give either it or them"):
        agent.create_session("s", agent=Echo(), tools=[list_files])

    async def later() -> str:
        return ""

    for how in ({"model": later}, {"tools": [later]}):
        with pytest.raises(Refused, match=r"evstore\.agent\.aio"):
            agent.create_session("s", **how)


# Whatever a model says.

texts = st.text(st.characters(exclude_categories=[]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["list_files", "shout", "fail", "unknown"])
inputs = st.dictionaries(st.sampled_from(["folder", "word", "other"]), json_values, max_size=2)
replies = st.one_of(
    texts,
    st.just(ACTION),
    st.builds(lambda text: json.dumps({"final_answer": text}), json_values),
    st.builds(lambda name, given: json.dumps({"action": name, "input": given}), names, inputs),
    st.builds(lambda word: json.dumps({"action": "shout", "input": {"word": word}}), texts),
    st.builds(lambda value: f"```json\n{json.dumps(value)}\n```", json_values),
    st.sampled_from([ConnectionError("gone"), None, 1]),
)
turns = st.lists(st.lists(replies, min_size=1, max_size=4), min_size=1, max_size=3)


def shout(word: str) -> Any:
    """Shout."""
    return [word.upper()] * 2


def fail(folder: Any = None) -> None:
    """Fail."""
    raise RuntimeError(folder)


@settings(max_examples=100)
@given(turns)
def test_whatever_a_model_says_the_turn_ends_well(said):
    """Any replies lead to a result and to a conversation that reads as one, alike in all storages.

    Each assistant message is a decision with its observation, nonsense with what was expected, or
    an answer; and the next turn works.
    """
    with evstore.open(":memory:") as store:
        kept: list[Any] = [agent.InMemoryStorage(), agent.SqliteStorage(store)]
        for storage in kept:
            for turn in said:
                model = scripted(*turn)
                session = agent.create_session(
                    "s", storage, model=model, tools=[list_files, shout, fail]
                )
                result = session.send_message_with_iterations("Well?", len(turn))
                assert result.success == (result.reason == "answered")
            check(storage.load("s"), len(said))
        assert kept[0].load("s") == kept[1].load("s")


def check(messages: list[dict[str, Any]], count: int) -> None:
    """Assert that a conversation is whole: turns, each with its steps and one end."""
    assert "system" == messages[0]["role"]
    rest = iter(messages[1:])
    for _ in range(count):
        assert {"role": "user", "content": "Well?"} == next(rest)
        while True:
            message = next(rest)
            if message["role"] == "user":
                assert message["content"].startswith("Observation: Stopped: ")
                break
            if isinstance(decisions.read(message["content"]), decisions.Answer):
                break
            observation = next(rest)
            assert "user" == observation["role"]
            assert observation["content"].startswith("Observation: ")
            assert not observation["content"].startswith("Observation: Stopped: ")
    assert [] == list(rest)
