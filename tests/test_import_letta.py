"""Agents of Letta become sessions: their blocks variables, their messages messages."""

import json

import pytest

import evstore
from evstore.errors import Unavailable
from evstore.transfer import Imported, letta
from tests.foreign import json_file, messages, said, take, texts

KEPT = "app.imported.letta"
NOON = "2026-01-31T12:00:{:02}.000001+00:00"


def part(text, **more):
    """A part of a content that is a text."""
    return {"type": "text", "text": text, "signature": None, **more}


def message(number, text, role="user", **more):
    """A message as it stands in a file."""
    return {
        "type": "message",
        "id": f"message-{number}",
        "agent_id": "agent-0",
        "role": role,
        "content": [part(text)],
        "name": None,
        "tool_calls": None,
        "tool_call_id": None,
        "tool_returns": [],
        "approvals": [],
        "created_at": NOON.format(number),
        **more,
    }


def agent(*spoken, **more):
    """An agent as it stands in a file."""
    return {
        "id": "agent-0",
        "name": "Ada",
        "agent_type": "memgpt_agent",
        "description": None,
        "system": "You are Ada.",
        "block_ids": ["block-0", "block-1"],
        "memory_blocks": [],
        "tool_ids": ["tool-0"],
        "secrets": None,
        "tool_exec_environment_variables": {},
        "in_context_message_ids": [item["id"] for item in spoken],
        "messages": list(spoken),
        **more,
    }


BLOCKS = [
    {"id": "block-0", "label": "human", "value": "Name: Bob", "limit": 5000, "read_only": False},
    {"id": "block-1", "label": "persona", "value": "I am Ada.", "limit": 5000, "read_only": True},
    {"id": "block-2", "label": "spare", "value": "of nobody"},
]
TOOL = {"id": "tool-0", "name": "search", "source_code": "def search(): ...", "json_schema": {}}


def agents(*given, **more):
    """A file of agents."""
    return {
        "agents": list(given),
        "groups": [],
        "blocks": BLOCKS,
        "files": [],
        "sources": [],
        "tools": [TOOL],
        "mcp_servers": [],
        "metadata": {"revision_id": "308a"},
        "created_at": NOON.format(59),
        **more,
    }


TALK = (message(1, "You are Ada.", "system"), message(2, "Rome?"), message(3, "Yes.", "assistant"))


def kept(store, session):
    """What is kept raw in a session."""
    return [event.data for event in store.session(session).events(kind=KEPT)]


def test_an_agent_is_a_session(store, tmp_path):
    """Blocks become variables and messages messages, at their times; the rest is kept raw."""
    source = json_file(tmp_path / "ada.af", agents(agent(*TALK)))
    assert (Imported(2, 9, 13, kept=6), []) == take(store, "letta", source)
    session = store.session("ada/agent-0")
    assert {"human": "Name: Bob", "persona": "I am Ada."} == dict(session.variables)
    assert {"name": "Ada", "agent_type": "memgpt_agent"} == dict(session.metadata)
    assert [said("You are Ada.", "system"), said("Rome?"), said("Yes.", "assistant")] == list(
        session.messages
    )
    first, *others = [event.time.isoformat() for event in session.events(kind="message.added")]
    assert first.startswith("2026-01-31T12:00:01.00000")  # right after the blocks
    assert [NOON.format(2), NOON.format(3)] == others
    rest = {"id": "agent-0", "system": "You are Ada.", "block_ids": ["block-0", "block-1"]}
    assert [
        {**rest, "tool_ids": ["tool-0"]},
        {"block": {"label": "human", "limit": 5000, "read_only": False}},
        {"block": {"label": "persona", "limit": 5000, "read_only": True}},
    ] == kept(store, "ada/agent-0")


def test_what_the_file_holds_beside_is_a_session(store, tmp_path):
    """Tools, blocks of nobody and the like are kept once, whoever of the agents uses them."""
    second = agent(message(1, "Hello."), id="agent-1", block_ids=["block-0"])
    take(store, "letta", json_file(tmp_path / "ada.af", agents(agent(*TALK), second)))
    assert {"ada", "ada/agent-0", "ada/agent-1"} == set(messages(store))
    assert [{"blocks": BLOCKS[2]}, {"tools": TOOL}, {"metadata": {"revision_id": "308a"}}] == kept(
        store, "ada"
    )
    assert {"human": "Name: Bob"} == dict(store.session("ada/agent-1").variables)


def test_calls_of_tools_and_other_contents_stay_whole(store, tmp_path):
    """What a text does not say of a message stands under its source."""
    call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    thought = {"type": "reasoning", "reasoning": "hm", "is_native": True}
    returned = {"tool_call_id": "c1", "status": "success"}
    spoken = [
        message(1, "I look.", "assistant", content=[thought, part("I look.")], tool_calls=[call]),
        message(2, "found", "tool", tool_call_id="c1", name="search", tool_returns=[returned]),
        message(3, "", "assistant", content=None, tool_calls=[7], model="m"),
        message(4, "", content=[part("a"), part("b")]),
        message(5, "", content=[7]),
        message(6, "plain", created_at="soon", type="approval"),
    ]
    take(store, "letta", json_file(tmp_path / "a.af", agents(agent(*spoken))))
    assert [
        {
            **said("I look.", "assistant", tool_calls=[call]),
            "source": {"content": [thought, part("I look.")]},
        },
        said(
            "found", "tool", name="search", tool_call_id="c1", source={"tool_returns": [returned]}
        ),
        {
            "role": "assistant",
            "content": None,
            "source": {"tool_calls": [7], "model": "m"},
        },
        said("a\nb", source={"content": [part("a"), part("b")]}),
        said("", source={"content": [7]}),
        said("plain", source={"created_at": "soon"}),
    ] == messages(store)["a/agent-0"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[{'type': 'text', 'text': \"it's\", 'signature': None}]", "it's"),
        ('[{"type": "text", "text": "it\'s", "signature": null}]', "it's"),
        ("plain", "plain"),
        ("[{'type': 'text'}, 7, {}]", "[{'type': 'text'}, 7, {}]"),
        ("[{'text': 'no type'}]", "[{'text': 'no type'}]"),
        ("[{'type': 'text', 'text': open('x')}]", "[{'type': 'text', 'text': open('x')}]"),
        ("[{" + "(" * 5000 + "}]", "[{" + "(" * 5000 + "}]"),
        ("[{" + "-" * 9000 + "1}]", "[{" + "-" * 9000 + "1}]"),
        ("[{'type': 1" + "0" * 5000 + "}]", "[{'type': 1" + "0" * 5000 + "}]"),
    ],
)
def test_contents_may_be_written_in_a_text(store, tmp_path, content, text):
    """A list as JSON or Python write it is read; what is none stays a text, and nothing is run."""
    source = json_file(tmp_path / "a.af", agents(agent(message(1, "", content=content))))
    assert [] == take(store, "letta", source)[1]
    assert [said(text)] == messages(store)["a/agent-0"]


def test_a_long_text_is_never_read_as_a_list(store, tmp_path):
    """There is a bound to what is parsed."""
    long = "[{'type': 'text', 'text': '" + "x" * letta.WRITTEN_CHARACTERS_MAX + "'}]"
    source = json_file(tmp_path / "a.af", agents(agent(message(1, "", content=long))))
    take(store, "letta", source)
    assert [[long]] == [found for found in texts(store).values() if found]


def test_a_file_may_be_a_text_or_of_the_older_form(store, tmp_path):
    """JSON within JSON is read, and so is a file that is one agent."""
    take(store, "letta", json_file(tmp_path / "a.af", json.dumps(agents(agent(*TALK)))))
    old = {
        "name": "Old",
        "core_memory": [{"label": "human", "value": "Bob"}, {"label": "limit"}, 7],
        "in_context_message_indices": [0],
        "tool_exec_environment_variables": [{"key": "K", "value": "secret"}],
        "messages": [{"role": "user", "content": [part("one")]}, {"role": "user"}, 7],
    }
    _, reports = take(store, "letta", json_file(tmp_path / "b.af", old))
    assert ["secrets"] == [found.what for found in reports]
    assert ["You are Ada.", "Rome?", "Yes."] == texts(store)["a/agent-0"]
    assert ["one", None] == texts(store)["b/agent-0"]
    assert {"human": "Bob"} == dict(store.session("b/agent-0").variables)
    assert [
        {"in_context_message_indices": [0]},
        {"block": {"label": "human"}},
        {"block": {"label": "limit"}},
        7,
    ] == kept(store, "b/agent-0")


def test_secrets_stay_where_they_are(store, tmp_path):
    """What is recorded stays, so secrets of an agent are told and left out."""
    given = agent(*TALK, secrets=["k-123"], tool_exec_environment_variables={"KEY": ""})
    _, reports = take(store, "letta", json_file(tmp_path / "a.af", agents(given)))
    assert ["secrets"] == [found.what for found in reports]
    assert not any("k-123" in json.dumps(data) for data in kept(store, "a/agent-0"))


def test_an_agent_that_went_on_adds_what_is_new(store, tmp_path):
    """Messages are known by their time, though each file numbers them anew."""
    source = json_file(tmp_path / "a.af", agents(agent(*TALK)))
    take(store, "letta", source)
    assert (Imported(0, 0, 0), []) == take(store, "letta", source)
    renumbered = [{**item, "id": f"message-{n}"} for n, item in enumerate(TALK[1:], 7)]
    twice = [message(4, "Why?"), message(5, "?", created_at=NOON.format(4))]
    json_file(source, agents(agent(*renumbered, *twice)))
    assert (Imported(0, 2, 2), []) == take(store, "letta", source)
    assert ["You are Ada.", "Rome?", "Yes.", "Why?", "?"] == texts(store)["a/agent-0"]


def test_what_is_out_of_context_is_said(store, tmp_path):
    """Which messages an agent still had in mind is kept where it is not all of them."""
    given = agent(*TALK, in_context_message_ids=["message-1"])
    take(store, "letta", json_file(tmp_path / "a.af", agents(given)))
    assert ["message-1"] == kept(store, "a/agent-0")[0]["in_context_message_ids"]


def test_what_is_broken_stops_only_itself(store, tmp_path):
    """Agents that are none, and blocks that are not there, are told, and the rest comes in."""
    third = agent(*TALK, block_ids=["block-1", "block-9", 7])
    bad = agents(7, {"id": "x"}, third, blocks=[*BLOCKS, 7, {"id": [1]}])
    _, reports = take(store, "letta", json_file(tmp_path / "a.af", bad))
    assert [("a/agent-0", "an agent"), ("a/x", "an agent"), ("a/agent-0", "block block-9")] == [
        (found.where, found.what) for found in reports
    ]
    assert {"persona": "I am Ada."} == dict(store.session("a/agent-0").variables)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"7", b"[]", b"{}", b'{"agents": 7}', b'{"agents": []}', b'"\\ud800"', b'"{"'],
)
def test_what_is_no_agent_file_is_told(store, tmp_path, data):
    """Nothing is written of it."""
    source = tmp_path / "a.af"
    source.write_bytes(data)
    added, reports = take(store, "letta", source)
    assert (0, 1) == (added.events, len(reports))


def test_a_cut_off_file_is_told(store, tmp_path):
    """A JSON document that is cut off anywhere says nothing that could be relied on."""
    whole = json.dumps(agents(agent(*TALK)))
    source = tmp_path / "a.af"
    for end in range(0, len(whole), 97):
        source.write_text(whole[:end])
        assert 1 == len(take(store, "letta", source)[1])
    assert {} == messages(store)
    deep = '{"agents": ' + "[" * 100_000
    source.write_text(deep)
    assert 1 == len(take(store, "letta", source)[1])
    with pytest.raises(Unavailable):
        take(store, "letta", tmp_path / "absent.af")


def test_agents_beside_what_a_file_lacks(tmp_path):
    """A file of nothing but agents is no session itself."""
    source = json_file(tmp_path / "a.af", {"agents": [agent(*TALK)]})
    with evstore.open(":memory:") as store:
        _, reports = take(store, "letta", source)
        assert {"a/agent-0"} == set(messages(store))
        assert ["block block-0", "block block-1"] == [found.what for found in reports]
