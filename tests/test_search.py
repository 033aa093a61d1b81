"""Search finds what a session shows, in any moment and branch, and its index follows the log."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.errors import (
    Closed,
    Corrupt,
    NoSuchMoment,
    Refused,
    SessionNotFound,
)
from evstore.sqlite import schema, search
from evstore.sqlite.pages import checksum_vfs
from tests.histories import fresh_store, live_through

WORDS = ("ape", "bee", "cat", "apes", "dog")
QUERIES = ("ape", "bee cat", "ap*", '"cat dog"', "dog ape bee")
sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
indices = st.integers(0, 4)
WRITING = st.one_of(
    st.tuples(st.just("say"), sentences, st.none()),
    st.tuples(st.just("say"), sentences, st.none()),
    st.tuples(st.just("replace"), indices, sentences),
    st.tuples(st.just("remove"), indices, st.none()),
    st.tuples(st.just("clear"), st.none(), st.none()),
    st.tuples(st.just("note"), st.none(), st.none()),
)
STEPS = st.one_of(
    WRITING,
    WRITING,
    st.tuples(st.just("batch"), st.lists(WRITING, min_size=2, max_size=4), st.none()),
    st.tuples(st.just("revert"), st.integers(0, 8), st.none()),
    st.tuples(st.just("undo"), st.none(), st.none()),
    st.tuples(st.just("fork"), st.integers(0, 6), st.none()),
)
HISTORIES = st.lists(st.tuples(st.integers(0, 5), STEPS), min_size=3, max_size=20)


def said(content: Any, **more: Any) -> dict[str, Any]:
    """A message."""
    return {"role": "user", "content": content, **more}


def matches(query: str, message: Any) -> bool:
    """What a plain scan says: whether a message of plain words holds what is asked for."""
    words = message["content"].split()
    if query.startswith('"'):
        return f" {query.strip(chr(34))} " in f" {' '.join(words)} "
    return all(
        any(word.startswith(asked[:-1]) if asked.endswith("*") else word == asked for word in words)
        for asked in query.split()
    )


def places(hits: list[evstore.Hit]) -> list[tuple[str | None, int, int]]:
    """Where the hits are, in order of place, after a look at their own order."""
    assert hits == sorted(hits, key=lambda hit: -hit.score)
    return sorted((hit.session, hit.index, hit.seq) for hit in hits)


def index_of(path: Path) -> list[Any]:
    """All that the index of a file holds: the numbers that rank it, and each word where it is."""
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    connection.execute("create virtual table temp.word using fts5vocab(main, search, instance)")
    rows = connection.execute("select doc, offset, term from temp.word order by 1, 2").fetchall()
    rows += connection.execute("select id, hex(sz) from search_docsize order by id").fetchall()
    rows += connection.execute("select hex(block) from search_data where id = 1").fetchall()
    rows += connection.execute("select * from follower").fetchall()
    connection.close()
    return rows


# What is found.


@settings(max_examples=120)
@given(HISTORIES, st.sampled_from([3, 1000]), st.sampled_from([1, 1000]))
def test_a_search_finds_what_a_scan_finds(history, checkpoint_events, step_batches):
    """In every moment of every branch a search finds the messages that are there, and no other."""
    with fresh_store(checkpoint_events) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "STEP_BATCHES", step_batches)
        patch.setattr(search, "_RANGES_MAX", 2)
        for session in live_through(store, history):
            for seq in range(session.head + 1):
                messages = session.at(seq).messages
                for query in QUERIES:
                    hits = store.search(query, session=session, at=seq, limit=100)
                    expected = [
                        (session.id, index, messages.info(index).seq)
                        for index, message in enumerate(messages)
                        if matches(query, message)
                    ]
                    assert expected == places(hits)
                    for some, more in pairwise(hits):
                        assert (-some.score, -some.seq) < (-more.score, -more.seq)
            if session.head:
                now = store.search("ape", session=session.id, limit=100)
                assert now == store.search("ape", session=session, at=session.head, limit=100)


@settings(max_examples=100)
@given(HISTORIES, st.sets(st.integers(0, 5)))
def test_every_recorded_message_is_found_once(history, deleted):
    """Without a session each message is found where it was recorded, else in the first fork."""
    with fresh_store() as store:
        sessions = [session for session in live_through(store, history) if session.head]
        living = [session for number, session in enumerate(sessions) if number not in deleted]
        recorders = {
            (session.id, event.seq): str(event.session)
            for session in sessions
            for event in session.events()
        }
        for session in sessions:
            if session not in living:
                store.delete(session.id)
        for query in QUERIES:
            expected: dict[tuple[str, int], tuple[str, int, int]] = {}
            for session in living:
                for index, message in enumerate(session.messages):
                    seq = session.messages.info(index).seq
                    recorder = recorders[session.id, seq]
                    if matches(query, message) and (
                        (recorder, seq) not in expected or recorder == session.id
                    ):
                        expected[recorder, seq] = session.id, index, seq
            assert sorted(expected.values()) == places(store.search(query, limit=1000))


def test_a_hit_says_where_and_what(store):
    """A hit names session, event and index, and shows the words that match in brackets."""
    trip = store.session("trip")
    trip.variables["city"] = "Rome"
    trip.messages.append(said("x " * 100))
    trip.messages.append(said("so " * 50 + "three days in Rome and more" + " so" * 50))
    (hit,) = store.search("days rome")
    assert ("trip", 3, 1) == (hit.session, hit.seq, hit.index)
    assert "[days] in [Rome] and" in hit.snippet
    assert 5 <= len(hit.snippet.split()) <= 14
    assert hit.score > 0


def test_the_best_comes_first_then_the_newest(session, store):
    """A message that says more of what is asked for is better; of equals the newer is first."""
    for content in ("tea", "long and winding words about tea and much else besides", "milk", "tea"):
        session.messages.append(said(content))
    session.messages.extend(map(said, ["milk"] * 5))
    assert [3, 0, 1] == [hit.index for hit in store.search("tea")]
    assert [3, 0] == [hit.index for hit in store.search("tea", limit=2)]
    assert [] == store.search("tea", limit=0)


def test_more_hits_than_a_page(session, store, monkeypatch):
    """However much of the best is no longer shown, as many are found as there are."""
    monkeypatch.setattr(search, "_HITS_PAGE", 7)
    session.messages.extend(said("tea") for _ in range(300))
    session.messages.append(said("tea and other things"))
    with session.batch() as batch:
        for _ in range(299):
            batch.messages.remove(1)
    assert [(1, 301), (0, 1)][::-1] == [(hit.index, hit.seq) for hit in store.search("tea")]
    other = store.session("other")
    other.messages.extend(said("tea") for _ in range(60))
    assert 62 == len(store.search("tea", limit=10**30))
    assert 60 == len(store.search("tea", session="other", limit=100))


MESSAGES = [
    (said("Römer, naïve CAFÉ"), ["romer", "naive", "café", "RÖMER", "cafe*"], ["user", "content"]),
    (
        said("cafe\u0301 Straße 日本語 Ελλάδα"),
        ["café straße", "日本語", "ΕΛΛΆΔΑ", "日本*"],
        ["本語"],
    ),
    (said([{"type": "text", "text": "seen"}, {"url": "web"}]), ["seen", "web text"], ["url"]),
    (
        said(None, tool_calls=[{"function": {"name": "book", "arguments": '{"city": "Bari"}'}}]),
        ["book bari", "city"],
        ["tool_calls", "arguments", "null"],
    ),
    (said("x " + "YWJj" * 500), ["x"], []),
    (said(["short", "YWJj" * 500, "y" * 2000 + " z", "長" * 1001]), ["short z", "長" * 1001], []),
    (said("YWJj" * 500), [], ["YWJj" * 500, "YWJj*"]),
    (
        {
            "role": "tool",
            1: ("pair", {"set"}),
            "b": b"bytes",
            "t": datetime(2026, 1, 2, tzinfo=UTC),
        },
        ["pair set"],
        ["tuple", "role", "tool", "2026", "Ynl0ZXM"],
    ),
    (
        said(evstore.Unregistered("Point", 1, {"where": "here"})),
        ["here"],
        ["Point", "where", "object"],
    ),
    (said({"$odd": "dict"}, more={"$tuple": "kept"}), ["dict kept"], ["odd", "tuple"]),
    (said({"$schema": "one"}, more={"only": "two"}), ["one", "two"], ["schema", "only"]),
    (said("nul\0in the middle"), ["nul", "middle"], []),
]


@pytest.mark.parametrize(
    ("message", "found", "missing"), MESSAGES, ids=[str(n) for n in range(len(MESSAGES))]
)
def test_what_of_a_message_is_found(session, store, message, found, missing):
    """Texts are found, whatever case and accents; not keys, the role, other types, or data."""
    session.messages.append(message)
    for query in found:
        (hit,) = store.search(query)
        assert "[" in hit.snippet, query
    assert [] == [query for query in missing if store.search(query)]


# What is asked for.


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("red", [0, 1, 2]),
        ("RED  fish", [0, 1, 2]),
        ('"red fish"', [0, 2]),
        ('"fish red"', []),
        ('"red fish', [0, 1, 2]),
        ('"red fi"*', [0, 2]),
        ("re*", [0, 1, 2]),
        ("r*d", []),
        ("red-fish", [0, 2]),
        ("red OR cat", []),
        ("red NOT fish", []),
        ("NEAR(red fish)", []),
        ("text:red", []),
        ("^fish", [0, 1, 2]),
        ("-red", [0, 1, 2]),
        ("(red)", [0, 1, 2]),
        ("red - fish", [0, 1, 2]),
        ("red \ud800 \0 fish", [0, 1, 2]),
        ("red\0fish", [0, 1, 2]),
        ("", []),
        ("*", []),
        ('"', []),
        ('""*', []),
        ("- ' ; --", []),
        ("'red'", [0, 1, 2]),
    ],
)
def test_what_a_query_means(session, store, query, expected):
    """Words are all sought, quoted ones as a phrase, a star is any ending, and no more."""
    session.messages.extend(map(said, ("one red fish", "fish, blue, red", "red-fish", "cat")))
    assert expected == sorted(hit.index for hit in store.search(query))


@settings(max_examples=100)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*'"*^:(){}+-', "AND", "OR", "NEAR", "a ", "é\0"])).map("".join)
)
@example('"' * 100_000)
@example('" ' * 50_001)
@example("*" * 100_000)
@example("a" * 100_000)
@example("a-" * 64 + "*")
@example("\ue000 a")
@example("\u0345 a")
def test_any_query_is_safe(query):
    """Whatever somebody typed finds something or nothing."""
    with evstore.open(":memory:") as store:
        store.session("s").messages.append(said("a \ue000 é"))
        assert len(store.search(query)) <= 1
        assert len(store.search(query, session="s")) <= 1


def test_what_cannot_be_searched_for(store):
    """A search of too many words, for what is no text, or in what is not there, is refused."""
    session = store.session("s")
    assert [] == store.search("a", session=session)
    session.messages.append(said("a " * 65))
    assert 1 == len(store.search("a " * 64))
    with pytest.raises(Refused, match="64 words and this has 65: give fewer"):
        store.search("a " * 65)
    for query in (None, 1, b"a"):
        with pytest.raises(Refused, match="give text"):
            store.search(query)
    with pytest.raises(Refused, match="give session="):
        store.search("a", at=1)
    with pytest.raises(SessionNotFound):
        store.search("a", session="unknown")
    with pytest.raises(NoSuchMoment):
        store.search("a", session="s", at=2)
    with evstore.open(":memory:") as other, pytest.raises(Refused, match="its own store"):
        other.search("a", session=session)
    store.delete("s")
    for gone in ("s", session):
        with pytest.raises(SessionNotFound):
            store.search("a", session=gone)
    store.close()
    with pytest.raises(Closed):
        store.search("a")


def test_moments_are_given_as_everywhere(store):
    """A moment is a sequence, a datetime, or a label; an ended life is searched by its uid."""
    session = store.session("s")
    session.messages.append(said("before"))
    session.label("here")
    then = session.updated_at
    session.messages.clear()
    for moment in (1, "here", then):
        assert 1 == len(store.search("before", session="s", at=moment))
    assert [] == store.search("before", session="s")
    uid = session.uid
    store.delete("s")
    assert 1 == len(store.search("before", session=store.session(uid=uid), at=1))


def test_a_fork_finds_the_shared_past_and_no_more(store):
    """A fork finds what its parent said up to the fork point, under the name of the fork."""
    session = store.session("parent")
    session.messages.extend([said("shared"), said("too late"), said("too late")])
    fork = session.fork("child", at=1)
    fork.messages.extend([said("of the child")] * 3)
    fork.fork("grandchild").messages.append(said("own"))
    session.messages.clear()
    assert [("child", 0)] == [(hit.session, hit.index) for hit in store.search("shared")]
    assert [] == store.search("late")
    assert ["grandchild"] == [hit.session for hit in store.search("own")]
    for name in ("child", "grandchild"):
        (hit,) = store.search("shared", session=name)
        assert (name, 1, 0) == (hit.session, hit.seq, hit.index)
        assert [] == store.search("late", session=name)


def test_a_session_past_its_deadline_is_not_found(path):
    """Without a session only those are searched that live by the clock."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with evstore.open(path, clock=lambda: now) as store:
        session = store.session("short", ttl=60)
        session.messages.append(said("shared"))
        assert ["short"] == [hit.session for hit in store.search("shared")]
        store.session("lasting").messages.append(said("shared too"))
        now += timedelta(seconds=61)
        assert ["lasting"] == [hit.session for hit in store.search("shared")]
        with pytest.raises(SessionNotFound):
            store.search("shared", session="short")


# The index.


def test_a_reader_finds_what_a_writer_finds(path):
    """On a read-only handle a search writes nothing, and finds also what is not indexed yet."""
    queries = ("common", "turn 7", "sess*", '"turn 30"')
    with evstore.open(path) as store:
        for number in range(40):
            store.session(f"session{number % 3}").messages.append(said(f"common turn {number}"))
            if number in (1, 20):
                store.search("common")
                store.session("session1").messages.replace(0, said("common session"))
    before = index_of(path)
    with evstore.open(path, read_only=True) as reader:
        read = [places(reader.search(query, limit=50)) for query in queries]
        again = [places(reader.search(query, limit=50)) for query in queries]
    assert before == index_of(path)
    with evstore.open(path) as store:
        assert [places(store.search(query, limit=50)) for query in queries] == read == again
        written = [store.search(query, limit=50) for query in queries]
    assert len(before) < len(index_of(path))
    with evstore.open(path, read_only=True) as reader:
        assert written == [reader.search(query, limit=50) for query in queries]


def test_what_is_not_indexed_yet_is_ranked_alike(path):
    """On a read-only handle a message is as good whether it was indexed before or not."""
    with evstore.open(path) as store:
        session = store.session("s")
        session.messages.extend(said(f"word{number % 7} and more") for number in range(50))
        session.messages.append(said("green tea, black tea"))
        (known,) = store.search("tea")
        assert 1 < known.score
        session.messages.append(said("green tea, black tea"))
        session.messages.append(said("only word0 and tea " + "so " * 20))
        session.messages.append(said("word0 and more"))
    with evstore.open(path, read_only=True) as reader:
        newer, older, last = reader.search("tea")
        assert [51, 50, 52] == [newer.index, older.index, last.index]
        assert known.score == newer.score == older.score > last.score
        assert [51, 50] == [hit.index for hit in reader.search('"green t"* black')]
        (alone,) = reader.search("word0 tea")
        assert 52 == alone.index
        common = [hit.score for hit in reader.search("and more", limit=100)]
        assert 51 == len(common)
        assert 1 == len(set(common))


def started(code: str, *arguments: Any) -> Any:
    """A Python process that runs some code, and has said that it is ready."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


CATCHING_UP = """
import sys, evstore
from evstore.sqlite import search
search.STEP_BATCHES = 5
with evstore.open(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        store.search("common")
        store.session(sys.argv[2]).messages.append({"role": "user", "content": f"common {number}"})
    assert 20 == len(store.search("common", session=sys.argv[2], limit=1000))
"""


def test_many_catch_up_at_once(path, monkeypatch):
    """Processes and threads bring the index up to date together, and index nothing twice."""
    monkeypatch.setattr(search, "STEP_BATCHES", 3)
    with evstore.open(path, durability="normal") as store:
        for number in range(100):
            store.session("s").messages.append(said(f"common word{number}"))
        children = [started(CATCHING_UP, path, name) for name in ("a", "b")]
        for child in children:
            child.stdin.write(b"go\n")
            child.stdin.flush()
        with ThreadPoolExecutor(4) as pool:
            counts = pool.map(
                lambda _: len(store.search("common", session="s", limit=500)), range(12)
            )
            assert [100] * 12 == list(counts)
        for child in children:
            child.communicate()
            assert 0 == child.returncode
        assert 140 == len(store.search("common", limit=500))
    together = index_of(path)
    with evstore.open(path) as store:
        replay.rebuild(store)
    assert together == index_of(path)


def test_a_rebuild_makes_the_index_anew(path):
    """What is wrong in the index is gone after a rebuild; one that was never used stays unused."""
    with evstore.open(path) as store:
        store.session("s").messages.extend(map(said, ("one", "two")))
        replay.rebuild(store)
        assert [] == index_of(path)[1:]
        store.search("one")
        right = index_of(path)
        with store.engine.database.writing("normal") as cursor:
            cursor.execute("delete from search where rowid = (select max(id) from event)")
            cursor.execute("insert into search(rowid, text) values(1, 'three')")
        assert [] == store.search("two")
        replay.rebuild(store)
        assert right == index_of(path)
        assert 1 == len(store.search("two"))


def test_what_was_forgotten_is_found_no_more(path):
    """A message whose content was taken out of the log is not shown, even if still indexed."""
    with evstore.open(path) as store:
        store.session("s").messages.extend(map(said, ("secret", "secret plan")))
        assert 2 == len(store.search("secret"))
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    connection.execute(
        "update event set encoding = 3, salt = null, data = zeroblob(32) where id & 3 = 2"
    )
    connection.close()
    with evstore.open(path) as store:
        assert [1] == [hit.seq for hit in store.search("secret")]
        replay.rebuild(store)
        assert [] == store.search("plan")


def test_a_message_that_cannot_be_read_is_damage(path):
    """An event that holds no message is Corrupt when it is indexed, and nothing is written."""
    with evstore.open(path) as store:
        store.session("s").messages.append(said("fine"))
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    connection.execute(
        "insert into event(id, kind, encoding, size, position, salt, data)"
        " select max(id) + 1, 5, 0, 2, max(position), zeroblob(16), '[]' from event;"
        "drop trigger batch_frozen; update batch set last = 2"
    )
    connection.execute(schema.scripts()[0][slice(*trigger_span())])
    connection.close()
    with evstore.open(path) as store:
        for _ in range(2):
            with pytest.raises(Corrupt, match="carries no message"):
                store.search("fine")


def trigger_span() -> tuple[int, int]:
    script = schema.scripts()[0]
    start = script.index("create trigger batch_frozen")
    return start, script.index("end;", start) + 4


KILLED = """
import sys, evstore
from evstore.sqlite import search
search.STEP_BATCHES = 1
with evstore.open(sys.argv[1]) as store:
    print("ready", flush=True)
    store.search("common")
    sys.stdin.readline()
"""


def test_a_kill_in_the_middle_of_indexing_loses_nothing(path):
    """How far the index has come and what it holds are one: it goes on where a kill left it."""
    with evstore.open(path, durability="normal") as store:
        for number in range(600):
            store.session("s").messages.append(said(f"common word{number}"))
    chance, middle = random.Random(1), 0
    for _ in range(5):
        child = started(KILLED, path)
        time.sleep(chance.uniform(0.002, 0.02))
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        rows = index_of(path)
        middle += rows[-1][0] == "search" and rows[-1][1] < 600
    assert middle > 0
    with evstore.open(path) as store:
        assert 600 == len(store.search("common", limit=1000))
        assert [] == list(replay.verify(store, level="full"))
        found = index_of(path)
        replay.rebuild(store)
        assert found == index_of(path)


def test_a_rare_word_is_found_at_once():
    """In a long session a search for a rare word reads what matches, and not the session."""
    with evstore.open(":memory:") as store:
        session = store.session("long")
        for start in range(0, 20_000, 1000):
            numbers = range(start, start + 1000)
            session.messages.extend(said(f"common words {number}") for number in numbers)
        assert [777] == [hit.index for hit in store.search("777", session=session)]
        steps = 0

        def count() -> bool:
            nonlocal steps
            steps += 1
            return False

        writer = store.engine.database._writer
        assert writer is not None
        writer.connection.set_progress_handler(count, 100)
        assert [777] == [hit.index for hit in store.search("777", session=session)]
        assert 1 <= steps <= 200
