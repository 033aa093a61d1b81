"""What others recorded comes in at its own times, once, whatever happens meanwhile."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore.chain import ZERO, Birth
from evstore.errors import Conflict, ReadOnly, Refused, Unavailable
from evstore.events import TIME_US_MAX
from evstore.transfer import Imported, Reported, foreign, import_from
from evstore.transfer.conversations import Conversation, Item, Variable, json_text, time_us
from evstore.transfer.strands import Strands
from tests.foreign import json_file, lines_file, said, take, texts

NOON = 1_700_000_000


def chat(path: Path, *turns: str, **more: object) -> Path:
    """A file with one conversation, a minute between its messages."""
    timed = [said(turn, ts=NOON + 60 * number) for number, turn in enumerate(turns)]
    return lines_file(path, {"id": "trip", "messages": timed, **more})


def test_items_keep_their_times(store, tmp_path):
    """Each message is a batch of its own, at the time that the source tells, with its origin."""
    take(store, "openai-jsonl", chat(tmp_path / "a.jsonl", "Rome?", "Rome."))
    events = list(store.session("trip").events())
    assert [NOON * 1_000_000, (NOON + 60) * 1_000_000] == [event.time_us for event in events]
    assert ["import:openai-jsonl"] * 2 == [event.cause for event in events]
    assert datetime.fromtimestamp(NOON, UTC) == store.session("trip").created_at
    batches = store.engine.changes(0)
    assert ["import:openai-jsonl:1", "import:openai-jsonl:2"] == [batch.key for batch in batches]


def test_times_increase(store, tmp_path):
    """A time that is equal or runs back is moved by 1 µs; without any, so is the one before."""
    turns = [said("a", ts=NOON), said("b", ts=NOON), said("c"), said("d", ts=NOON - 5)]
    take(store, "openai-jsonl", lines_file(tmp_path / "a.jsonl", {"messages": turns}))
    events = store.session("a/0001").events()
    # The earliest of them is that of items without one, of which there is none at the front.
    assert [NOON * 10**6 + step for step in range(4)] == [event.time_us for event in events]


def test_times_that_cannot_be_are_left_out(store, tmp_path):
    """A message from the future is taken in, but not its time, which would hold up all others."""
    future = datetime.now(UTC) + timedelta(days=800)
    source = lines_file(tmp_path / "a.jsonl", said("a", ts=NOON), said("b", ts=future.isoformat()))
    _, reports = take(store, "openai-jsonl", source)
    assert [("a, item 2", "its time")] == [(found.where, found.what) for found in reports]
    assert NOON * 10**6 + 1 == list(store.session("a").events())[1].time_us


@pytest.mark.parametrize("when", ["2200-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_future_does_not_come_in(store, tmp_path, when):
    """No time of a source or of its file moves the clock of the store, wherever it stands."""
    source = lines_file(tmp_path / "a.jsonl", said("a", ts=when), said("b"))
    take(store, "openai-jsonl", source)
    ancient = lines_file(tmp_path / "b.jsonl", said("a", ts="1900-01-01T00:00:00Z"))
    take(store, "openai-jsonl", ancient)
    later = lines_file(tmp_path / "c.jsonl", said("c"))
    os.utime(later, (8e9, 8e9))
    take(store, "openai-jsonl", later)
    store.session("d").variables["own"] = 1
    days = {event.time.date() for id in "abcd" for event in store.session(id).events()}
    assert days <= {datetime.now(UTC).date() - timedelta(days=back) for back in (0, 1)}


def test_after_the_last_moment_nothing_comes_in(store):
    """A batch that would be later than any time is refused, since nobody could restore it."""
    strands = Strands(store)
    strand = strands.bear(Birth(bytes(16), "s", 0, None, None, bytes(16)), TIME_US_MAX, ZERO)
    with pytest.raises(Refused, match="9999"):
        strands.append(strand, (), 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_700_000_000, 1_700_000_000_000_000),
        (1_700_000_000.25, 1_700_000_000_250_000),
        (1_700_000_000_123, 1_700_000_000_123_000),
        (1_700_000_000_123_456, 1_700_000_000_123_456),
        (1_700_000_000_123_456_789, 1_700_000_000_123_457),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000_000),
        ("0001-01-01T00:00:00+23:00", -62_135_679_600_000_000),
        ("noon", None),
        (0, None),
        (-5, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**30, None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_times_are_read_by_their_size(value, expected):
    """Seconds, ms, µs and ns are told apart, and what is no time is none."""
    assert expected == time_us(value)


def test_what_cannot_be_a_text_stays_as_it_is():
    """Arguments of a call become JSON; of hostile ones the store says what is wrong with them."""
    deep: list[object] = []
    for _ in range(200_000):
        deep = [deep]
    assert json_text(deep) is deep
    assert ('{"ö": 1}', "text") == (json_text({"ö": 1}), json_text("text"))
    assert b"\xff" == json_text(b"\xff")


def test_a_branch_that_is_apart_is_a_fork_also_at_the_end():
    """What a source calls a fork is one, also where nothing else follows; others go on there."""
    steps = [Item(name, None, (Variable(name, 1),)) for name in "abc"]
    parent = ("s", "a")
    conversations = [
        Conversation("s", "s", NOON, steps[:1]),
        Conversation("on", "on", NOON, steps[1:2], parent=parent),
        Conversation("apart", "apart", NOON, steps[2:], parent=("s", "b"), is_apart=True),
    ]
    with evstore.open(":memory:") as store:
        for expected in (3, 0):
            run = foreign._Import(store, "chatgpt", "", None, None)
            assert expected == run.run(conversations).events
        assert {"s", "apart"} == set(texts(store))
        assert {"a": 1, "b": 1, "c": 1} == dict(store.session("apart").variables)
        assert {"a": 1, "b": 1} == dict(store.session("s").variables)


def test_importing_again_adds_only_what_is_new(store, tmp_path):
    """The same source adds nothing, and one that has grown its new messages."""
    source = chat(tmp_path / "a.jsonl", "a", "b")
    assert (Imported(1, 2, 2), []) == take(store, "openai-jsonl", source)
    assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source)
    source = chat(source, "a", "b", "c")
    assert (Imported(0, 1, 1), []) == take(store, "openai-jsonl", source)
    assert {"trip": ["a", "b", "c"]} == texts(store)


def test_what_has_changed_is_reported_and_stays(store, tmp_path):
    """A message that is not what it was is not doubled; what is new after it comes in."""
    source = chat(tmp_path / "a.jsonl", "a", "b", "c", topic="Rome")
    take(store, "openai-jsonl", source)
    source = chat(source, "a", "B", "C", "d", topic="Oslo")
    added, reports = take(store, "openai-jsonl", source)
    assert (Imported(0, 1, 1, reported=1), {"trip": ["a", "b", "c", "d"]}) == (added, texts(store))
    assert ("trip", "3 items, the first of them '1'") == (reports[0].where, reports[0].what)
    assert "Rome" == store.session("trip").metadata["topic"]


def test_an_item_that_comes_twice_is_recorded_once(store, tmp_path):
    """Two records under one id are one item where they are the same, and otherwise two."""
    turns = [said("a", id="x"), said("b", id="y"), said("a", id="x"), said("B", id="y")]
    source = lines_file(tmp_path / "a.jsonl", *turns)
    assert (Imported(1, 3, 3), []) == take(store, "openai-jsonl", source)
    assert ["a", "b", "B"] == texts(store)["a"]
    assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source)


def test_reports_need_no_listener(store, tmp_path):
    """Whoever does not listen to reports learns how many there were."""
    source = lines_file(tmp_path / "a.jsonl", b"{cut")
    assert 1 == import_from(store, "openai-jsonl", source).reported


def test_what_cannot_be_stored_any_more_has_changed(store, tmp_path):
    """An item that was recorded and would be refused now is reported as another."""
    source = chat(tmp_path / "a.jsonl", "a")
    take(store, "openai-jsonl", source)
    _, reports = take(store, "openai-jsonl", chat(source, "\ud800"))
    assert ["1 items, the first of them '1'"] == [found.what for found in reports]


def test_where_a_session_went_on_by_itself_the_source_becomes_a_fork(store, tmp_path):
    """What somebody wrote to an imported session stays, and what is new goes beside it, once."""
    source = chat(tmp_path / "a.jsonl", "a", "b")
    take(store, "openai-jsonl", source)
    store.session("trip").messages.append(said("mine"))
    source = chat(source, "a", "b", "c")
    assert (Imported(1, 2, 1), []) == take(store, "openai-jsonl", source)
    source = chat(source, "a", "b", "c", "d")
    assert (Imported(0, 1, 1), []) == take(store, "openai-jsonl", source)
    assert {"trip": ["a", "b", "mine"], "trip/3": ["a", "b", "c", "d"]} == texts(store)
    assert ("trip", 2) == (store.session("trip/3").parent.id, store.session("trip/3").parent.seq)
    assert NOON + 120 == list(store.session("trip/3").events())[2].time.timestamp()


def test_an_id_that_is_taken_is_left_alone(store, tmp_path):
    """A conversation whose id has another session is reported; with a prefix it comes in."""
    store.session("trip").variables["mine"] = 1
    source = chat(tmp_path / "a.jsonl", "a")
    added, reports = take(store, "openai-jsonl", source)
    assert (Imported(0, 0, 0, reported=1), "trip") == (added, reports[0].where)
    assert (Imported(1, 1, 1), []) == take(store, "openai-jsonl", source, prefix="old/")
    assert {"trip": [], "old/trip": ["a"]} == texts(store)


def test_a_fork_whose_id_is_taken_is_left_alone(store, tmp_path):
    """The rest of a conversation that would need it is reported."""
    source = chat(tmp_path / "a.jsonl", "a")
    take(store, "openai-jsonl", source)
    store.session("trip").variables["mine"] = 1
    store.session("trip/2").variables["mine"] = 1
    added, reports = take(store, "openai-jsonl", chat(source, "a", "b", "c"))
    assert (Imported(0, 0, 0, reported=1), "trip, item 2") == (added, reports[0].where)


def test_another_prefix_is_another_import(store, tmp_path):
    """Each prefix has its own sessions, and adds to them only what is new."""
    source = chat(tmp_path / "a.jsonl", "a")
    take(store, "openai-jsonl", source, prefix="one/")
    take(store, "openai-jsonl", source, prefix="two/")
    assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source, prefix="two/")
    assert {"one/trip": ["a"], "two/trip": ["a"]} == texts(store)


def test_a_deleted_session_does_not_come_back(store, tmp_path):
    """What was deleted here is not imported again, and said so."""
    source = chat(tmp_path / "a.jsonl", "a")
    take(store, "openai-jsonl", source)
    store.delete("trip")
    added, reports = take(store, "openai-jsonl", source)
    assert (Imported(0, 0, 0, reported=1), "a conversation") == (added, reports[0].what)
    assert {} == texts(store)


@pytest.mark.parametrize(
    ("proposed", "expected"),
    [
        ("a b/ö😀", "a b/ö😀"),
        ("a\nb\x85", "a%0Ab%C2%85"),
        ("\ud800", "%ED%A0%80"),
        ("x" * 300, "x" * 238 + "~0d4e2ca9e9cbced7"),
    ],
)
def test_ids_that_cannot_stand_are_mapped(store, tmp_path, proposed, expected):
    """An id is as it was where that can be, and otherwise one that can be, always the same."""
    source = lines_file(tmp_path / "a.jsonl", {"id": proposed, "messages": [said("a")]})
    take(store, "openai-jsonl", source)
    assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source)
    (name,) = texts(store)
    assert expected == name


@pytest.mark.parametrize("source_id", ["x" * 600, "a\0b", "\ud800"])
def test_ids_of_items_may_be_anything(store, tmp_path, source_id):
    """An id that cannot stand in a key is hashed, and found again."""
    source = lines_file(tmp_path / "a.jsonl", said("a", id=source_id, ts=NOON))
    added, _ = take(store, "openai-jsonl", source)
    assert 1 == added.sessions
    assert 0 == take(store, "openai-jsonl", source)[0].events
    assert store.engine.changes(0)[0].key.startswith("import:openai-jsonl:sha256:")


def test_what_is_beyond_the_limits_leaves_a_mark(path, tmp_path):
    """A message that is too large or cannot be stored is reported, and an event says so there."""
    turns = [said("a"), said("x" * 1000), said("b", bad="\ud800"), said("c")]
    source = lines_file(tmp_path / "a.jsonl", *turns)
    with evstore.open(path, limits=evstore.Limits(message_bytes_max=500)) as store:
        added, reports = take(store, "openai-jsonl", source)
        assert {"a": ["a", "c"]} == texts(store)
        assert ["a, item 2", "a, item 3"] == [found.where for found in reports]
        marks = list(store.session("a").events(kind="app.imported.left-out"))
        assert [reports[0].reason, reports[1].reason] == [mark.data["reason"] for mark in marks]
        assert 4 == added.events
        assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source)


@pytest.mark.parametrize(
    "limits",
    [
        evstore.Limits(message_bytes_max=60),
        evstore.Limits(name_bytes_max=10),
        evstore.Limits(session_id_characters_max=5),
    ],
)
def test_an_import_fits_any_limits(path, tmp_path, limits):
    """However little a store allows, what fits comes in, once, and all else leaves its mark."""
    long = {"id": "long" * 9, "messages": [said("a"), said("x" * 100), 5]}
    source = lines_file(tmp_path / "a.jsonl", long, {"id": "LONG" * 9, "messages": [said("b")]})
    with evstore.open(path, limits=limits) as store:
        added, _ = take(store, "openai-jsonl", source)
        assert (2, 4) == (added.sessions, added.events)
        assert {"a", "b"} <= {text for found in texts(store).values() for text in found}
        assert all(len(id) <= limits.session_id_characters_max for id in texts(store))
        assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source)


def test_metadata_obeys_the_limits(path, tmp_path):
    """What of the metadata is too much is reported, and the rest is recorded."""
    more = {"n" * 20: "v" * 80, "m": "v" * 80, "long" * 99: 1}
    source = chat(tmp_path / "a.jsonl", "a", **more)
    with evstore.open(path, limits=evstore.Limits(metadata_bytes_max=150)) as store:
        _, reports = take(store, "openai-jsonl", source)
        metadata = dict(store.session("trip").metadata)
        assert {"n" * 20: "v" * 80} == metadata
        assert 2 == len(reports)
        assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source)


def test_variables_obey_the_limits(path, tmp_path):
    """A session gets no more variables than the store allows, however they came."""
    mapping = {"id": "id", "messages": "said", "variables": "state"}
    source = json_file(
        tmp_path / "a.json", [{"id": "one", "said": [], "state": {"a": 1, "b": 2, "c": 3}}]
    )
    with evstore.open(path, limits=evstore.Limits(variables_max=2)) as store:
        added, reports = take(store, "json", source, mapping=mapping)
        assert (1, ["one, item variables"]) == (added.events, [found.where for found in reports])
    with evstore.open(path, limits=evstore.Limits(variables_max=3)) as store:
        take(store, "json", source, mapping=mapping, prefix="again/")
        assert {"a": 1, "b": 2, "c": 3} == dict(store.session("again/one").variables)


def test_variables_of_a_session_that_is_there_count(path, tmp_path):
    """What a session has already takes room, also where the source went on in a fork of it."""
    mapping = {"id": "id", "messages": "said", "variables": "state"}
    source = json_file(tmp_path / "a.json", [{"id": "one", "said": [said("a")]}])
    with evstore.open(path, limits=evstore.Limits(variables_max=2)) as store:
        take(store, "json", source, mapping=mapping)
        json_file(source, [{"id": "one", "said": [said("a")], "state": {"a": 1, "b": 2}}])
        take(store, "json", source, mapping=mapping)
        assert {"a": 1, "b": 2} == dict(store.session("one/variables").variables)


def test_a_reader_may_give_anything_in_any_order(path):
    """Variables that come item by item obey the limits, and a conversation may come again."""
    steps = [Item(name, None, (Variable(name, 1),)) for name in "abc"]
    conversations = [Conversation("s", "s", NOON, items) for items in (steps[:1], [], steps)]
    reports: list[Reported] = []
    with evstore.open(path, limits=evstore.Limits(variables_max=2)) as store:
        run = foreign._Import(store, "chatgpt", "", None, reports.append)
        assert 3 == run.run(conversations).events
        assert {"a": 1, "b": 1} == dict(store.session("s").variables)
    assert [("s", "a conversation"), ("s, item c", "an item")] == [
        (found.where, found.what) for found in reports
    ]


@settings(max_examples=30)
@given(stops=st.lists(st.integers(1, 12), max_size=4))
def test_an_import_can_be_broken_off_anywhere(tmp_path_factory, stops):
    """Whatever was broken off before, an import that ends leaves what one in one go does."""
    turns = {f"s{n}": [f"{n}.{m}" for m in range(3)] for n in range(4)}
    lines = [
        {"id": name, "messages": [said(text, ts=NOON) for text in there]}
        for name, there in turns.items()
    ]
    source = lines_file(tmp_path_factory.mktemp("broken") / "a.jsonl", *lines)
    with evstore.open(":memory:") as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr("evstore.transfer.strands.CHUNK_BATCHES_MAX", 2)
        for stop in stops:
            with pytest.raises(ZeroDivisionError):
                import_from(store, "openai-jsonl", source, progress=_breaking_off(stop))
        added, _ = take(store, "openai-jsonl", source)
        assert turns == texts(store)
        assert 0 == take(store, "openai-jsonl", source)[0].events
        assert 12 >= added.events


def _breaking_off(stop: int) -> Callable[[int], None]:
    def progress(count: int) -> None:
        1 // (stop - count)

    return progress


def test_a_killed_import_goes_on(path, tmp_path):
    """A process that is killed in the midst leaves a sound store, and the next import ends it."""
    turns = [said(str(number), session=f"s{number % 3}") for number in range(2000)]
    source = lines_file(tmp_path / "a.jsonl", *turns)
    child = (
        "import os, sys, evstore; from evstore.transfer import import_from\n"
        "def progress(n):\n"
        "    if n == 1700: os.kill(os.getpid(), 9)\n"
        "import_from(evstore.open(sys.argv[1]), 'openai-jsonl', sys.argv[2], progress=progress)"
    )
    killed = subprocess.run([sys.executable, "-c", child, str(path), str(source)], check=False)
    assert -9 == killed.returncode
    with evstore.open(path) as store:
        before = sum(map(len, texts(store).values()))
        assert 0 < before < 1700
        added, _ = take(store, "openai-jsonl", source)
        assert 2000 - before == added.events
        assert {f"s{n}": list(map(str, range(n, 2000, 3))) for n in range(3)} == texts(store)


def test_two_imports_at_once_do_not_mix(path, tmp_path):
    """Where somebody else wrote to the same sessions meanwhile, an import is a Conflict."""
    source = chat(tmp_path / "a.jsonl", "a", "b")
    with evstore.open(path) as store, evstore.open(path) as other:

        def overtake(count):
            if count == 2:
                import_from(other, "openai-jsonl", source)

        def write(count):
            other.session("trip").variables["count"] = count

        with pytest.raises(Conflict):
            import_from(store, "openai-jsonl", source, progress=overtake)
        assert (Imported(0, 0, 0), []) == take(store, "openai-jsonl", source)
        chat(source, "a", "b", "c")
        with pytest.raises(Conflict):
            import_from(store, "openai-jsonl", source, progress=write)
        assert {"trip": ["a", "b"]} == texts(store)


def test_many_sessions_do_not_gather_in_memory(store, tmp_path, monkeypatch):
    """Sessions that are done are let go of, and come in whole nevertheless."""
    monkeypatch.setattr("evstore.transfer.strands.STRANDS_MAX", 3)
    turns = [{"id": f"s{number}", "messages": [said("a"), said("b")]} for number in range(20)]
    take(store, "openai-jsonl", lines_file(tmp_path / "a.jsonl", *turns, *turns[:3]))
    assert {f"s{number}": ["a", "b"] for number in range(20)} == texts(store)


def test_what_cannot_be_asked_is_refused(store, tmp_path):
    """An unknown format, a mapping for another format and a source that is missing are told."""
    source = chat(tmp_path / "a.jsonl", "a")
    with pytest.raises(Refused, match="chatgpt, claude-code, "):
        import_from(store, "word", source)
    with pytest.raises(Refused, match="leave it out"):
        import_from(store, "openai-jsonl", source, mapping={})
    for name in ("openai-jsonl", "chatgpt", "claude-code", "session-dir"):
        with pytest.raises(Unavailable):
            import_from(store, name, tmp_path / "missing")
    with pytest.raises(Unavailable):
        import_from(store, "openai-jsonl", tmp_path)


def test_a_store_that_only_reads_takes_nothing(path, tmp_path):
    """An import into a store that was opened for reading is ReadOnly."""
    evstore.open(path).session("x").variables["a"] = 1
    source = chat(tmp_path / "a.jsonl", "a")
    with evstore.open(path, read_only=True) as store, pytest.raises(ReadOnly):
        import_from(store, "openai-jsonl", source)
