"""OpenAI-style JSON Lines come in: a conversation on each line, or a message."""

import pytest

from evstore.transfer import Imported
from tests.foreign import lines_file, messages, said, take, texts

NOON = 1_700_000_000


def test_a_line_is_a_conversation(store, tmp_path):
    """Files for fine-tuning become a session for each line, named after the file and the line."""
    call = {"role": "assistant", "tool_calls": [{"id": "t1", "function": {"name": "f"}}]}
    turns = [
        said("Be brief.", "system"),
        said("Rome?"),
        call,
        said("ok", "tool", tool_call_id="t1"),
    ]
    source = lines_file(
        tmp_path / "train.jsonl", {"messages": turns}, b"\n", {"messages": turns[:2]}
    )
    assert (Imported(2, 6, 6), []) == take(store, "openai-jsonl", source)
    assert {"train/0001": turns, "train/0003": turns[:2]} == messages(store)


def test_what_else_a_line_says_is_kept(store, tmp_path):
    """Short members become metadata, long ones an event before the messages."""
    more = {"topic": "Rome", "score": 0.5, "tools": [{"name": "f"}], "note": "x" * 2000}
    turns = [said("a", timestamp="2026-01-31T12:00:00Z"), "no message"]
    line = {"id": 7, "thread_id": "t", **more, "messages": turns}
    added, _ = take(store, "openai-jsonl", lines_file(tmp_path / "a.jsonl", line))
    session = store.session("7")
    assert 2 == added.kept
    assert {"thread_id": "t", "topic": "Rome", "score": 0.5} == dict(session.metadata)
    first, last = session.events(kind="app.imported.openai-jsonl")
    assert {"tools": more["tools"], "note": more["note"]} == first.data
    assert "no message" == last.data
    assert [said("a")] == list(session.messages)
    assert "2026-01-31T12:00:00" == f"{first.time:%Y-%m-%dT%H:%M:%S}"


def test_a_line_is_a_message(store, tmp_path):
    """Messages on lines of their own go to their sessions, however those are mixed."""
    turns = [
        said("a", session="one", ts=NOON),
        said("b", session_id=2, created_at=NOON + 1),
        said("c", session="one", ts="no time"),
        said("d", id="m4", name="Ada"),
        said("e", conversation_id="one", thread_id="t", time=NOON + 2),
    ]
    source = lines_file(tmp_path / "log.jsonl", *turns)
    assert (Imported(3, 5, 5), []) == take(store, "openai-jsonl", source)
    assert {
        "one": [said("a"), said("c", ts="no time"), said("e", thread_id="t")],
        "2": [said("b")],
        "log": [said("d", id="m4", name="Ada")],
    } == messages(store)
    lines_file(source, *turns, said("f", session="one"), said("g"))
    assert (Imported(0, 2, 2), []) == take(store, "openai-jsonl", source)
    assert (["a", "c", "e", "f"], ["d", "g"]) == (texts(store)["one"], texts(store)["log"])


def test_a_session_without_times_has_that_of_the_file(store, tmp_path):
    """The last change of the file is what is known of the time of its messages."""
    source = lines_file(tmp_path / "a.jsonl", said("a"), said("b"))
    take(store, "openai-jsonl", source)
    changed_us = source.stat().st_mtime_ns // 1000
    events = store.session("a").events()
    assert [changed_us, changed_us + 1] == [event.time_us for event in events]


def test_broken_lines_are_told(store, tmp_path):
    """A line that is no JSON, or says nothing of use, stops only itself."""
    lines = [
        b"{cut\n",
        [1],
        {"prompt": "x"},
        said("\ud800"),
        b'{"role": "user", "content": "\xff"}\n',
    ]
    source = lines_file(tmp_path / "a.jsonl", *lines, said("fine"), b'{"role": "us')
    _, reports = take(store, "openai-jsonl", source)
    assert {"a": ["fine"]} == texts(store)
    where = ["line 1", "line 2", "line 3", "line 7", "a, item 1", "a, item 2"]
    assert where == [found.where for found in reports]


@pytest.mark.parametrize(("line", "kept", "told"), [(b"[]\n", 1, 0), (b"{\n", 0, 1)])
def test_a_file_that_changes_meanwhile_is_told(store, tmp_path, line, kept, told):
    """A line that is another when it is read again is kept or told, and nothing else happens."""
    long = said("x" * 300_000)  # more than is read ahead
    source = lines_file(tmp_path / "a.jsonl", said("first"), long, said("last"))
    first, second, _ = source.read_bytes().splitlines(keepends=True)

    def change(count):
        source.write_bytes(first + second + line)

    added, _ = take(store, "openai-jsonl", source, progress=change)
    assert (kept, told, 2) == (added.kept, added.reported, len(texts(store)["a"]))
