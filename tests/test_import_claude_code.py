"""A Claude Code transcript becomes a session, with what was taken back as forks."""

import json

from evstore.transfer import Imported
from tests.foreign import lines_file, messages, said, take, texts

START = "2026-06-07T05:00:{:02}.500Z"


def line(uuid, parent, text, second=0, role="user", **more):
    """A record with a message."""
    message = said(text, role) if isinstance(text, str) else text
    return {
        "type": role,
        "uuid": uuid,
        "parentUuid": parent,
        "sessionId": "s1",
        "timestamp": START.format(second),
        "cwd": "/work",
        "version": "2.0.1",
        "isSidechain": False,
        "message": message,
        **more,
    }


def test_what_is_linked_is_the_session(store, tmp_path):
    """Messages come in as they are, with the rest of their record, at their times."""
    source = lines_file(
        tmp_path / "s1.jsonl",
        {"type": "summary", "summary": "Tests", "leafUuid": "b"},
        line("a", None, "Fix it."),
        {"type": "file-history-snapshot", "messageId": "a"},
        line("b", "a", "Done.", 1, "assistant", requestId="r1"),
        [1, "no record"],
    )
    added, reports = take(store, "claude-code", source)
    assert (Imported(1, 5, 7, kept=3), []) == (added, reports)
    session = store.session("s1")
    assert {"cwd": "/work", "version": "2.0.1"} == dict(session.metadata)
    rest = line("b", "a", "Done.", 1, "assistant", requestId="r1")
    del rest["message"], rest["timestamp"]
    assert {"role": "assistant", "content": "Done.", "source": rest} == session.messages[1]
    kinds = [event.kind for event in session.events()][2:]
    kept, message = "app.imported.claude-code", "message.added"
    assert [kept, message, kept, message, kept] == kinds
    times = [event.time.isoformat() for event in session.events(kind=message)]
    # The line before it has no time of its own, and takes that of the first message.
    assert ["2026-06-07T05:00:00.500001+00:00", "2026-06-07T05:00:01.500000+00:00"] == times


def test_a_source_of_its_own_is_not_lost(store, tmp_path):
    """A message that has a `source` already keeps it beside the rest of its record."""
    message = said("a", source="mine")
    take(store, "claude-code", lines_file(tmp_path / "s1.jsonl", line("a", None, message)))
    assert "mine" == store.session("s1").messages[0]["source"]["message.source"]


def test_what_was_taken_back_is_a_fork(store, tmp_path):
    """The last thing said decides which path is the session, and every other one is a fork."""
    first = [line("a", None, "Fix it."), line("b", "a", "Done.", 1, "assistant")]
    source = lines_file(tmp_path / "s1.jsonl", *first, line("c", "b", "No.", 2))
    take(store, "claude-code", source)
    assert {"s1": ["Fix it.", "Done.", "No."]} == texts(store)
    lines_file(source, *first, line("c", "b", "No.", 2), line("d", "b", "Yes.", 3))
    assert (Imported(1, 2, 1), []) == take(store, "claude-code", source)
    assert {"s1": ["Fix it.", "Done.", "No."], "s1/d": ["Fix it.", "Done.", "Yes."]} == texts(store)
    take(store, "claude-code", source, prefix="new/")
    assert ["Fix it.", "Done.", "Yes."] == texts(store)["new/s1"]
    assert ["Fix it.", "Done.", "No."] == texts(store)["new/s1/c"]


def test_tools_called_at_once_are_no_branches(store, tmp_path):
    """The parts of one answer and the results of its tools stand in the order of the file."""

    def use(tool):
        return {"role": "assistant", "id": "m1", "content": [{"type": "tool_use", "id": tool}]}

    def result(tool):
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": tool}]}

    lines = [
        line("q", None, "Look."),
        line("a1", "q", use("t1"), 1, "assistant"),
        line("a2", "a1", use("t2"), 2, "assistant"),
        line("r1", "a1", result("t1"), 3),
        line("r2", "a2", result("t2"), 4),
        {**line("p", "a1", None, 5), "type": "progress"},
        line("z", "r2", "Seen.", 6, "assistant"),
    ]
    source = tmp_path / "s1.jsonl"
    for count in range(1, len(lines) + 1):
        assert [] == take(store, "claude-code", lines_file(source, *lines[:count]))[1]
    (session,) = messages(store).values()
    assert ["q", "a1", "a2", "r1", "r2", "z"] == [item["source"]["uuid"] for item in session]


def test_a_compaction_goes_on_in_the_session(store, tmp_path):
    """A record without a parent follows its logical one, or the record before it."""
    lines = [
        line("a", None, "One."),
        line("b", "a", "Two.", 1, "assistant"),
        {"type": "system", "uuid": "s", "parentUuid": None, "logicalParentUuid": "b"},
        line("c", "s", "Summary.", 3),
        line("d", "elsewhere", "Go on.", 4),
        line("e", "f", "And on.", 5),
        line("f", "e", "The end.", 6),
    ]
    take(store, "claude-code", lines_file(tmp_path / "s1.jsonl", *lines))
    everything = ["One.", "Two.", "Summary.", "Go on.", "And on.", "The end."]
    assert {"s1": everything} == texts(store)


def test_sidechains_are_sessions_of_their_own(store, tmp_path):
    """What subagents said does not stand among what the agent said, and tells where it belongs."""
    lines = [
        line("a", None, "Ask."),
        line("x", None, "Sub 1.", 1, isSidechain=True),
        line("u", "a", "Sub 2.", 2, isSidechain=True),
        line("y", "x", "Found.", 3, "assistant", isSidechain=True),
        line("w", "x", "Found not.", 4, "assistant", isSidechain=True),
        line("b", "a", "Answer.", 5, "assistant"),
        line("v", "y", "Back.", 6),
    ]
    take(store, "claude-code", lines_file(tmp_path / "s1.jsonl", *lines))
    assert {
        "s1": ["Ask.", "Answer.", "Back."],
        "s1/sidechain-u": ["Sub 2."],
        "s1/sidechain-x": ["Sub 1.", "Found not."],
        "s1/sidechain-x/y": ["Sub 1.", "Found."],
    } == texts(store)
    assert "s1" == store.session("s1/sidechain-x").metadata["sidechain_of"]


def test_a_folder_is_all_of_its_transcripts(store, tmp_path):
    """Every project is looked into; the file of a subagent is a session under its own name."""
    for project in ("one", "two"):
        (tmp_path / project / "subagents").mkdir(parents=True)
        name = f"s-{project}.jsonl"
        lines_file(tmp_path / project / name, line(project, None, project))
        lines_file(tmp_path / project / "subagents" / "no.jsonl", line("z", None, "no"))
        (tmp_path / project / "notes.txt").write_text("no transcript")
    sub = [{"type": "note"}, line("x", None, "Sub.", isSidechain=True)]
    lines_file(tmp_path / "one" / "agent-1.jsonl", *sub)
    lines_file(tmp_path / "two" / "empty.jsonl")
    lines_file(tmp_path / "two" / "titles.jsonl", {"type": "summary"})
    _, reports = take(store, "claude-code", tmp_path)
    assert {"agent-1": ["Sub."], "s-one": ["one"], "s-two": ["two"], "titles": []} == texts(store)
    assert [] == reports


def test_broken_lines_are_told(store, tmp_path):
    """A line that is no JSON stops only itself; one that stands there twice is kept."""
    twice = line("a", None, "Again.")
    source = lines_file(
        tmp_path / "s1.jsonl",
        line("a", None, "One."),
        b"{cut\n",
        twice,
        {"uuid": 7, "timestamp": "soon"},
        line("b", "a", {"content": "without a role"}, 1, cwd=5),
        json.dumps(line("c", "b", "Two.", 2)).encode()[:-30],
    )
    added, reports = take(store, "claude-code", source)
    assert ["s1, line 2", "s1, line 6"] == [found.where for found in reports]
    assert ({"s1": ["One."]}, 3) == (texts(store), added.kept)
    kept = [event.data for event in store.session("s1").events(kind="app.imported.claude-code")]
    assert twice == kept[0]


def test_a_file_that_shrinks_meanwhile_is_told(store, tmp_path):
    """Lines that are gone when they are read again are reported, and nothing else happens."""
    # More than is read ahead.
    lines = [line("a", None, "One." * 100_000), line("b", "a", "Two." * 100_000, 1)]
    source = lines_file(tmp_path / "s1.jsonl", *lines)

    def shrink(count):
        lines_file(source, lines[0])

    added, reports = take(store, "claude-code", source, progress=shrink)
    assert (1, ["s1, line 2"]) == (added.batches, [found.where for found in reports])
