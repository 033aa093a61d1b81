"""Any JSON comes in by a mapping that its owner writes, and a wrong mapping is told."""

import json

import pytest

from evstore.errors import Refused
from evstore.transfer import Imported
from tests.foreign import json_file, lines_file, messages, said, take, texts

NOON = 1_700_000_000
CHATS = {
    "data": {
        "chats": [
            {
                "key": {"a/b": 7},
                "part": "x",
                "began": NOON,
                "title": "Rome",
                "state": {"budget": 1200, "cities": ["Rome"]},
                "log": {"turns": [{"who": "human", "says": {"text": "Rome?"}, "when": NOON + 1}]},
            }
        ]
    }
}
MAPPING = {
    "conversations": "data.chats",
    "id": ["/key/a~1b", "part"],
    "created": "began",
    "metadata": {"topic": "title", "missing": "nowhere"},
    "variables": "state",
    "messages": "log.turns",
    "message_id": "n",
    "role": "who",
    "content": "says.text",
    "time": "when",
    "roles": {"human": "user"},
}


def test_a_mapping_says_where_what_is(store, tmp_path):
    """Ids, times, metadata, variables and messages are taken from where the mapping says."""
    source = json_file(tmp_path / "a.json", CHATS)
    added, reports = take(store, "json", source, mapping=MAPPING)
    assert (Imported(1, 3, 5, kept=1), []) == (added, reports)
    session = store.session("7/x")
    assert {"topic": "Rome"} == dict(session.metadata)
    assert {"budget": 1200, "cities": ["Rome"]} == dict(session.variables)
    message = {"role": "user", "content": "Rome?", "source": {"says": {"text": "Rome?"}}}
    assert [message] == list(session.messages)
    (kept,) = session.events(kind="app.imported.json")
    chat = CHATS["data"]["chats"][0]
    assert {name: chat[name] for name in ("key", "began", "log")} == kept.data
    assert [NOON, NOON + 1] == [kept.time_us // 10**6, list(session.events())[-1].time_us // 10**6]
    assert (Imported(0, 0, 0), []) == take(store, "json", source, mapping=MAPPING)


def test_messages_may_be_as_they_are(store, tmp_path):
    """Without role and content a message stays as it is, and what is none is kept."""
    turns = [said("a", role="ai", at=NOON, n=1, x=2), said("b", n=2), {"n": 3}, 5]
    source = lines_file(tmp_path / "a.jsonl", {"turns": turns}, {"turns": []})
    mapping = {"messages": "/turns", "time": "at", "message_id": "n", "roles": {"ai": "assistant"}}
    added, reports = take(store, "json", source, mapping=mapping)
    assert {"a/0001": [said("a", "assistant", n=1, x=2), said("b", n=2)]} == messages(store)
    assert (2, ["a/0002"]) == (added.kept, [found.where for found in reports])
    assert ["1", "2", "3", "4"] == [batch.key.split(":")[2] for batch in store.engine.changes(0)]


def test_conversations_may_be_members_of_an_object(store, tmp_path):
    """The names of the members are their ids, and each may be the list of messages itself."""
    source = json_file(tmp_path / "a.json", {"all": {"x": [said("a")], "y": [said("b")]}})
    take(store, "json", source, mapping={"conversations": "all", "messages": ""})
    assert {"x": ["a"], "y": ["b"]} == texts(store)


def test_a_path_may_lead_through_lists(store, tmp_path):
    """A number in a path is an index where a list is, and a key where an object is."""
    source = json_file(tmp_path / "a.json", [{"parts": [None, {"1": [said("a")]}]}])
    take(store, "json", source, mapping={"messages": "parts.1.1"})
    assert {"a/0001": ["a"]} == texts(store)


def test_a_record_that_does_not_fit_is_told(store, tmp_path):
    """What the mapping does not find is reported or kept, and stops only itself."""
    turns = [{"who": 5, "text": "a"}, {"who": "user"}, {"who": "user", "text": None}]
    source = json_file(
        tmp_path / "a.json", [{"id": None, "log": turns}, {"id": "b", "log": turns}, 3]
    )
    mapping = {"id": "id", "messages": "log", "role": "who", "content": "text"}
    added, reports = take(store, "json", source, mapping=mapping)
    assert ({"b": [None]}, 2) == (texts(store), added.kept)
    assert ["a/0001", "a/0003"] == [found.where for found in reports]
    source.write_text("[1, {")
    assert ["element 2"] == [
        found.where for found in take(store, "json", source, mapping=mapping)[1][1:]
    ]


@pytest.mark.parametrize("text", ["{", "[]", '{"all": 5}', '{"all": {"x": 1}}'])
def test_a_list_that_is_not_there_is_told(store, tmp_path, text):
    """Where no conversations are, the report says what to do."""
    (tmp_path / "a.json").write_text(text)
    mapping = {"conversations": "all", "messages": "log.0.00"}
    _, ((found),) = take(store, "json", tmp_path / "a.json", mapping=mapping)
    assert "repair" in found.reason or "correct the mapping" in found.reason


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {"messages": 5},
        {"messages": "m", "mesages": "m"},
        {"messages": "m", "role": "who"},
        {"messages": "m", "roles": ["user"]},
        {"messages": "m", "metadata": {"a": 1}},
        {"messages": "m", "id": [1]},
    ],
)
def test_a_wrong_mapping_is_refused(store, tmp_path, wrong):
    """A mapping that cannot be followed is refused before anything is read, with what to do."""
    with pytest.raises(Refused, match="mapping"):
        take(store, "json", json_file(tmp_path / "a.json", []), mapping=wrong)
    assert json.dumps([]) == (tmp_path / "a.json").read_text()


def test_an_id_that_comes_again_is_told_apart(store, tmp_path):
    """Messages that differ under one id are all there, also where it is a number or a word of ours.

    One that is the same again is no other message.
    """
    turns = [said("a"), said("b", n=1), said("b", n=1), said("c", n="record"), said("d", n=1)]
    source = json_file(tmp_path / "a.json", [{"x": 1, "said": turns}])
    mapping = {"messages": "said", "message_id": "n"}
    assert (Imported(1, 5, 5, kept=1), []) == take(store, "json", source, mapping=mapping)
    assert {"a/0001": ["a", "b", "c", "d"]} == texts(store)
    assert (Imported(0, 0, 0), []) == take(store, "json", source, mapping=mapping)


def test_a_broken_line_stops_only_itself(store, tmp_path):
    """Lines after one that is no JSON are read, and it is told."""
    chats = [{"id": name, "said": [said(name)]} for name in "abc"]
    source = lines_file(tmp_path / "a.json", chats[0], b'{"id": "x", "said": [\n', *chats[1:])
    _, reports = take(store, "json", source, mapping={"id": "id", "messages": "said"})
    assert {"a": ["a"], "b": ["b"], "c": ["c"]} == texts(store)
    assert ["element 2"] == [found.where for found in reports]
