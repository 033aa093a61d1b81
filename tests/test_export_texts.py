"""Texts: transcripts that no message can break, and conversations as fine-tuning wants them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import evstore
from evstore.transfer import Reported, export_stream, export_to, import_from
from tests.histories import HISTORIES, fresh_store, live_through
from tests.values_strategy import messages, storable, texts

HOSTILE = st.text(
    st.sampled_from("#`~>-=*_<>/![]():&|\\ \t\n\r\v\f\0\x1b\u202e\u2028.1abdetilsvhr\"'"),
    max_size=60,
) | st.sampled_from(
    [
        "```\n# broken out\n",
        "</details><h1>broken out</h1>",
        "<!-- open",
        "[a]: https://example.org",
        "![a](https://example.org/track.png)",
        "````json\n```\n## 9. user",
        "a\n===\n> > b\n---\n## 1. assistant",
        "\r## 1. assistant\r",
        "&lt;b&gt; <https://example.org>",
        "1. a\n\n   ```\nb",
    ]
)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALLOWED = {"heading_open", "paragraph_open", "fence", "blockquote_open", "bullet_list_open"}


def transcript(store: evstore.Store, **how: Any) -> str:
    """The Markdown of a store."""
    return b"".join(export_stream(store, "markdown", **how)).decode()


def parsed(text: str) -> list[Any]:
    """The tokens of a Markdown text, those within paragraphs too; no link is defined in it."""
    defined: dict[str, Any] = {}
    tokens = MarkdownIt("commonmark").parse(text, defined)
    assert {} == defined
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def check_structure(text: str, headings: int) -> None:
    """Only what evstore wrote is a heading; there is no HTML, and nothing is fetched."""
    tokens = parsed(text)
    assert set() == {"html_block", "html_inline", "image"} & {token.type for token in tokens}
    outer = [token for token in tokens if token.level == 0 and token.nesting >= 0 and token.block]
    assert {token.type for token in outer} <= ALLOWED
    assert headings == sum(token.type == "heading_open" for token in outer)


@given(
    st.lists(st.tuples(HOSTILE, HOSTILE | st.lists(HOSTILE), HOSTILE), max_size=5),
    HOSTILE.map(lambda text: text.replace("\0", "")),
    HOSTILE.map(lambda text: text.replace("\0", "")),
)
def test_no_text_breaks_a_transcript(said, name, actor):
    """Whatever messages, names, roles and actors say, each has its place in the structure."""
    with evstore.open(":memory:", actor=actor or None) as store:
        session = store.session("trip", metadata={name: name})
        session.variables[name] = said
        for role, content, call in said:
            parts: Any = content
            if type(content) is list:
                parts = [{"type": "text", "text": text} for text in content]
            calls = [{"id": call, "function": {"name": call, "arguments": call}}]
            message = {"role": role, "content": parts, "tool_calls": calls, name: call}
            session.messages.append(message)
        check_structure(transcript(store), 1 + 2 + len(session.messages))


@pytest.mark.parametrize("text", ["<b>\n```\n# out", "`````\n<b>\n````\n# out", "<!--\n# out"])
def test_a_block_ends_where_its_text_ends(memory, text):
    """A fence is longer than any in the text, which a reader of Markdown gets back as it was."""
    memory.session("trip").messages.append({"role": "user", "content": text})
    fences = [token.content for token in parsed(transcript(memory)) if token.type == "fence"]
    assert [text + "\n"] == fences
    check_structure(transcript(memory), 2)


@settings(max_examples=50)
@given(st.lists(messages, max_size=3), storable)
def test_every_value_has_its_place(said, value):
    """Whatever JSON lacks stands in code, and breaks nothing."""
    with evstore.open(":memory:") as store:
        session = store.session("trip")
        session.messages.extend(said)
        session.variables["x"] = value
        check_structure(transcript(store), 1 + 1 + len(said))


@settings(max_examples=50)
@given(HISTORIES)
def test_a_transcript_of_any_history(history):
    """Every session has its title, and every message its heading."""
    with fresh_store() as store:
        live_through(store, history)
        infos = list(store.sessions())
        names = sum(bool(store.session(i.id).metadata) + bool(i.variables) for i in infos)
        expected = len(infos) + names + sum(info.messages for info in infos)
        check_structure(transcript(store), expected)


def test_a_transcript_reads_well():
    """Who, when and what are seen at once; text is quoted, and all else stands in code."""
    with evstore.open(":memory:", actor="a`b", clock=lambda: NOON) as store:
        session = store.session("trip", metadata={"owner": "ada"})
        session.messages.append({"role": "user", "content": "Rome?\r\n\nNow."})
        session.messages.append({"role": "tool-x", "content": [{"type": "image"}, 7]})
        session.messages.append({"role": "user", "content": 7})
        session.messages.append({"role": "user", "content": " ", "tool_calls": []})
        text = transcript(store)
    assert "# `trip`\n\nSession `" in text
    assert '## Metadata\n\n- `owner`: `"ada"`\n' in text
    heading = "## 0. user\n\n2026-01-31 12:00:00 UTC, by ``a`b``\n\n"
    assert heading + "> Rome?\n>\n> Now.\n" in text
    assert "## 1. `tool-x`\n" in text
    assert '```json\n{\n  "type": "image"\n}\n```\n\n```json\n7\n```\n' in text
    assert '```json\n{\n  "tool_calls": []\n}\n```\n' in text


# Fine-tuning.

PARTS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
    st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": texts})}
    ),
)
CALLS = st.one_of(
    st.builds(
        lambda id, name, arguments: {
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        },
        texts,
        texts,
        texts,
    ),
    st.builds(
        lambda id, text: {"id": id, "type": "custom", "custom": {"name": "c", "input": text}},
        texts,
        texts,
    ),
)
TUNED = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["developer", "system"]), "content": texts},
        optional={"name": texts},
    ),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": texts | st.lists(PARTS, min_size=1, max_size=3)},
        optional={"name": texts},
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": texts},
        optional={
            "name": texts,
            "refusal": texts,
            "weight": st.sampled_from([0, 1]),
            "tool_calls": st.lists(CALLS, min_size=1, max_size=3),
        },
    ),
    st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "content": st.none(),
            "tool_calls": st.lists(CALLS, min_size=1, max_size=3),
        }
    ),
    st.fixed_dictionaries({"role": st.just("tool"), "content": texts, "tool_call_id": texts}),
)


def tuned(store: evstore.Store) -> tuple[list[Any], list[str]]:
    """The conversations of a store in the form for fine-tuning, and the reasons of the reports."""
    reports: list[Reported] = []
    pieces = list(export_stream(store, "openai-jsonl", report=reports.append))
    conversations = [json.loads(line)["messages"] for line in b"".join(pieces).splitlines()]
    return conversations, [report.reason for report in reports]


@settings(max_examples=100)
@given(st.lists(TUNED, min_size=1, max_size=6))
def test_conversations_in_the_form_come_back(tmp_path_factory, said):
    """What the form can say leaves as it is, without a report, and is imported again."""
    path = tmp_path_factory.mktemp("export") / "train.jsonl"
    with fresh_store() as store, fresh_store() as copy:
        store.session("a").messages.extend(said)
        store.session("b").messages.extend(said[:1])
        store.session("empty").variables["x"] = 1
        assert ([said, said[:1]], []) == tuned(store)
        export_to(store, "openai-jsonl", path)
        import_from(copy, "openai-jsonl", path)
        assert said == list(copy.session("train/0001").messages)
        assert said[:1] == list(copy.session("train/0002").messages)


def form(memory: evstore.Store, *said: dict[str, Any]) -> tuple[list[Any], list[str]]:
    """What messages become, and what was reported."""
    memory.session("trip").messages.extend(said)
    lines, reasons = tuned(memory)
    return (lines[0] if lines else []), reasons


def test_blocks_become_calls_and_results(memory):
    """Anthropic's blocks become what OpenAI says instead, results before the text beside them."""
    said, reasons = form(
        memory,
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "find", "input": {"q": "Rome"}},
                {"type": "tool_use", "id": "t2", "name": "now"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [{"type": "text", "text": "noon"}],
                },
                {"type": "text", "text": "Well?"},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t3"}]},
    )
    assert [] == reasons
    calls = [
        {"id": "t1", "type": "function", "function": {"name": "find", "arguments": '{"q":"Rome"}'}},
        {"id": "t2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
    ]
    text = {"type": "text", "text": "Well?"}
    assert [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Let me see."}],
            "tool_calls": calls,
        },
        {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "noon"}]},
        {"role": "user", "content": [text]},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
    ] == said


def test_what_has_no_place_is_reported(memory):
    """What the form cannot say is left out, and told with its reason."""
    function = {"name": "f", "arguments": {"a": (1, 2)}}
    said, reasons = form(
        memory,
        {"role": "critic", "content": "no such role"},
        {"role": "user", "content": "a", "mood": "odd", "id": 7},
        {"role": "user", "content": (1, b"x")},
        {"role": "user", "content": [{"type": "video"}, 7, {"type": "text", "text": "b", "x": 1}]},
        {"role": "user", "content": []},
        {"role": "user"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "tool_calls": [{"id": "t1", "function": function}, 7, {"id": "t2"}]},
        {"role": "assistant", "content": "c", "weight": 2, "name": 7, "tool_calls": 7},
        {"role": "tool", "content": "no id"},
        {"role": "assistant", "content": [{"type": "tool_use"}]},
    )
    call = {"name": "f", "arguments": '{"a":{"$tuple":[1,2]}}'}
    assert [
        {"role": "user", "content": "a"},
        {"role": "user", "content": '{"$tuple":[1,{"$bytes":"eA=="}]}'},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [{"id": "t1", "type": "function", "function": call}]},
        {"role": "assistant", "content": "c"},
    ] == said
    assert [
        "the form has no role 'critic'",
        "the form has no place for 'id', 'mood' in a message of the role user",
        "its content is no text: its JSON text stands there instead",
        "the form has no part of the type 'video' for user",
        "the form has no part of the type 'None' for user",
        "a part of the type text has members without a place",
        "it says nothing that the form can hold",
        "it says nothing that the form can hold",
        "it says nothing that the form can hold",
        "a tool call without an id or a function has no place",
        "a tool call without an id or a function has no place",
        "the value of 'name' is none that the form has",
        "the value of 'weight' is none that the form has",
        "the value of 'tool_calls' is none that the form has",
        "it is the result of a call that it does not name",
        "the form has no part of the type 'tool_use' for assistant",
        "it says nothing that the form can hold",
    ] == reasons
