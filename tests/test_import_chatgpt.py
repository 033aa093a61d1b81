"""A ChatGPT export becomes sessions: the current path, and every other branch as a fork."""

import random

import pytest

import evstore
from evstore.errors import Unavailable
from evstore.transfer import Imported
from tests.foreign import json_file, messages, take, texts

NOON = 1_700_000_000.25


def node(name, parent, text, role="user", **more):
    """A node of a mapping, with a message that says a text; without one, a node without any."""
    message = None
    if text is not None:
        message = {
            "id": name,
            "author": {"role": role, "name": None, "metadata": {}},
            "create_time": NOON + len(name),
            "content": {"content_type": "text", "parts": [text]},
            "status": "finished_successfully",
            **more,
        }
    return {"id": name, "parent": parent, "children": [], "message": message}


def conversation(*nodes, current, **more):
    """A conversation as it stands in an export."""
    return {
        "title": "Rome",
        "create_time": NOON,
        "update_time": NOON + 9,
        "current_node": current,
        "conversation_id": "c1",
        "mapping": {item["id"]: item for item in nodes},
        **more,
    }


ROOT = node("root", None, None)
LINE = (ROOT, node("a", "root", "Rome?"), node("ab", "a", "Yes.", "assistant"))
AGAIN = (node("ac", "a", "No.", "assistant"), node("acd", "ac", "Why?"))


def test_the_current_path_is_the_session_and_others_are_forks(store, tmp_path):
    """What was answered before stays reachable, in a fork at the message that it answered."""
    source = json_file(tmp_path / "c.json", [conversation(*LINE, *AGAIN, current="acd")])
    assert (Imported(2, 5, 6), []) == take(store, "chatgpt", source)
    assert {"c1": ["Rome?", "No.", "Why?"], "c1/ab": ["Rome?", "Yes."]} == texts(store)
    session = store.session("c1")
    assert {"title": "Rome", "create_time": NOON} == dict(session.metadata)
    assert ("c1", 3) == (store.session("c1/ab").parent.id, store.session("c1/ab").parent.seq)
    assert NOON + 1 == next(iter(session.events())).time.timestamp()


def test_an_export_that_has_grown_adds_what_is_new(store, tmp_path):
    """The conversation goes on in its session, whichever branch is the current one by then."""
    source = json_file(tmp_path / "c.json", [conversation(*LINE, current="ab")])
    take(store, "chatgpt", source)
    json_file(source, [conversation(*LINE, *AGAIN, current="acd")])
    assert (Imported(1, 3, 2), []) == take(store, "chatgpt", source)
    assert {"c1": ["Rome?", "Yes."], "c1/ac": ["Rome?", "No.", "Why?"]} == texts(store)
    more = node("abe", "ab", "Thanks.")
    json_file(source, [conversation(*LINE, *AGAIN, more, current="acd")])
    assert (Imported(0, 1, 1), []) == take(store, "chatgpt", source)
    assert ["Rome?", "Yes.", "Thanks."] == texts(store)["c1"]


def test_whatever_the_order_of_exports_every_message_is_there_once(tmp_path):
    """A tree that is imported as it grows, its tip jumping about, has each path in a session."""
    chance = random.Random(7)
    nodes = [ROOT, node("n0", "root", "0")]
    source = tmp_path / "c.json"
    with evstore.open(":memory:") as store:
        for number in range(1, 40):
            nodes.append(node(f"n{number}", f"n{chance.randrange(number)}", str(number)))
            if chance.random() < 0.4 or number == 39:
                tip = chance.choice(nodes[1:])["id"]
                json_file(source, [conversation(*nodes, current=tip)])
                _, reports = take(store, "chatgpt", source)
                assert [] == reports
        recorded = [event.data["message"]["content"] for event in _own_events(store)]
        assert sorted(map(str, range(40))) == sorted(recorded)
        parents = {item["id"]: item["parent"] for item in nodes}
        leaves = set(parents) - set(parents.values())
        assert {_path(parents, leaf) for leaf in leaves} <= set(map(tuple, texts(store).values()))


def _own_events(store):
    for info in store.sessions():
        for event in store.session(info.id).events(kind="message.added"):
            if event.session == info.id:
                yield event


def _path(parents, name):
    way = []
    while name != "root":
        way.append(name[1:])
        name = parents[name]
    return tuple(reversed(way))


def test_what_a_message_does_not_say_stays_in_it(store, tmp_path):
    """Of contents that are no text the text comes in, and the whole of them is kept."""
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://f1"}
    parts = {"content_type": "multimodal_text", "parts": [image, "look", "here"]}
    code = {"content_type": "code", "language": "python", "text": "1 + 1"}
    nodes = [
        ROOT,
        node("a", "root", "x", content=parts, metadata={"attachments": [1]}),
        node("b", "a", "x", "tool", content=code, author={"role": "tool", "name": "python"}),
        node("c", "b", "x", content=None, create_time="soon"),
        node("d", "c", "x", author={}),
    ]
    source = json_file(tmp_path / "c.json", [conversation(*nodes, current="d")])
    added, _ = take(store, "chatgpt", source)
    assert 1 == added.kept
    session = store.session("c1")
    rest = {"status": "finished_successfully"}
    author: dict[str, object] = {"role": "user", "name": None, "metadata": {}}
    assert [
        {
            "role": "user",
            "content": "look\nhere",
            "source": {
                "author": author,
                "content": parts,
                **rest,
                "metadata": {"attachments": [1]},
            },
        },
        {"role": "tool", "content": "1 + 1", "name": "python", "source": {"content": code, **rest}},
        {
            "role": "user",
            "content": "",
            "source": {"author": author, "create_time": "soon", "content": None, **rest},
        },
    ] == list(session.messages)
    (kept,) = session.events(kind="app.imported.chatgpt")
    assert nodes[4]["message"] == kept.data
    assert "python" == list(session.events(kind="message.added"))[1].actor


def test_nodes_without_messages_are_passed_over(store, tmp_path):
    """A path may lead through nodes that say nothing, even in circles, and may not begin."""
    nodes = [
        node("x", "y", None),
        node("y", "x", None),
        node("a", "x", "one"),
        node("hidden", "a", None),
        node("b", "hidden", "two"),
        node("c", "hidden", "three"),
        node("stray", "nowhere", "four"),
    ]
    source = json_file(tmp_path / "c.json", [conversation(*nodes, current="hidden")])
    assert [] == take(store, "chatgpt", source)[1]
    found = {"c1": ["one", "two"], "c1/c": ["one", "three"], "c1/stray": ["four"]}
    assert found == texts(store)


def test_what_is_broken_stops_only_itself(store, tmp_path):
    """A conversation that is none, or goes round in a circle, is told, and the next comes in."""
    circle = [node("a", "b", "one"), node("b", "a", "two")]
    beside = [node("a", None, "one"), node("b", "c", "two"), node("c", "b", "three")]
    source = json_file(
        tmp_path / "c.json",
        [
            None,
            {"mapping": {}},
            {"mapping": [], "id": "x"},
            conversation(*circle, current="a", conversation_id="circle"),
            conversation(*beside, current="a", conversation_id="beside", title=None),
            conversation(conversation_id="empty", current=None, create_time=None),
            conversation({"id": "n"}, current="n", conversation_id="nothing", mapping={"n": 1}),
            conversation(*LINE, current="ab"),
        ],
    )
    _, reports = take(store, "chatgpt", source)
    assert {"beside": ["one"], "c1": ["Rome?", "Yes."]} == texts(store)
    assert [
        ("conversation 1", "a conversation"),
        ("conversation 2", "a conversation"),
        ("conversation 3", "a conversation"),
        ("circle", "a conversation"),
        ("circle", "2 messages"),
        ("beside", "2 messages"),
        ("empty", "a conversation"),
        ("nothing", "a conversation"),
    ] == [(found.where, found.what) for found in reports]


def test_a_cut_off_export_gives_its_beginning(store, tmp_path):
    """What is whole comes in, and where it was cut off is told; the whole file adds the rest."""
    whole = [conversation(*LINE, current="ab", conversation_id=f"c{n}") for n in range(3)]
    source = json_file(tmp_path / "c.json", whole)
    text = source.read_bytes()
    source.write_bytes(text[: len(text) * 5 // 6])
    added, reports = take(store, "chatgpt", source)
    assert (2, ["element 3"]) == (added.sessions, [found.where for found in reports])
    source.write_bytes(text)
    assert (1, []) == (take(store, "chatgpt", source)[0].sessions, [])


def test_branches_of_what_is_left_out_are_left_out(store, tmp_path):
    """Where the id of a conversation is taken, neither it nor its branches come in."""
    store.session("c1").variables["mine"] = 1
    source = json_file(tmp_path / "c.json", [conversation(*LINE, *AGAIN, current="acd")])
    added, reports = take(store, "chatgpt", source)
    assert (0, ["c1"]) == (added.events, [found.where for found in reports])


def test_a_folder_is_all_of_its_files(store, tmp_path):
    """A large export comes in several files."""
    for number in (1, 2):
        name = f"c{number}"
        json_file(
            tmp_path / f"conversations-00{number}.json",
            [conversation(*LINE, current="ab", conversation_id=name)],
        )
    take(store, "chatgpt", tmp_path)
    assert {"c1", "c2"} == set(messages(store))
    (tmp_path / "empty").mkdir()
    with pytest.raises(Unavailable, match="holds no conversations"):
        take(store, "chatgpt", tmp_path / "empty")


def test_a_long_conversation_is_no_matter(store, tmp_path):
    """A path of thousands of messages, and as many branches, is walked without recursion."""
    nodes = [node("n0", None, "0")]
    for number in range(1, 1500):
        nodes.append(node(f"n{number}", f"n{number - 1}", str(number)))
        nodes.append(node(f"m{number}", f"n{number - 1}", "side"))
    source = json_file(tmp_path / "c.json", [conversation(*nodes, current="n1499")])
    added, _ = take(store, "chatgpt", source)
    assert (1500, 2999 + 2) == (added.sessions, added.events)
    assert 1500 == len(store.session("c1").messages)
