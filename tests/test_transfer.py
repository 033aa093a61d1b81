"""Export and import lose nothing, again and again, and take nothing that is not whole."""

import itertools
import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.chain import Batch, Birth, Entry
from evstore.errors import BadFile, Corrupt, FromTheFuture, Refused, Taken
from evstore.transfer import export_lines, import_lines, jsonlines
from evstore.transfer.layout import Reader, batch_lines
from tests.values_strategy import storable, texts

EVSTORE = (sys.executable, "-c", "from evstore.cli import main; raise SystemExit(main())")


def copy_of(lines: Any) -> evstore.Store:
    """A new store in memory that holds what the lines say."""
    copy = evstore.open(":memory:")
    import_lines(copy, lines)
    return copy


@pytest.fixture
def full(store: evstore.Store) -> evstore.Store:
    """A store with forks of forks, lives that ended, keys, causes and every door used."""
    trip = store.session("trip", metadata={"owner": "ada"})
    trip.variables["budget"] = 1200
    trip.messages.extend([{"role": "user", "content": "Rome?"}, {"role": "user", "content": "é\0"}])
    with trip.batch(actor="planner", key="k1", cause="c1") as batch:
        batch.variables["when"] = {1, 2.5, b"\x00"}
        batch.messages.replace(0, {"role": "user", "content": "Rome!"})
        batch.messages.pop()
        del batch.variables["budget"]
    fork = trip.fork("what-if", at=3)
    fork.variables["city"] = "Oslo"
    store.session("other").record("app.order.placed", [1, (2, None)])
    fork.fork("deeper").variables["city"] = "Rome"
    trip.fork("from-nothing", at=0)
    ended = trip.uid
    store.delete("trip")
    store.session("trip").variables["life"] = 2
    store.delete("other")
    store.delete("trip")
    assert ended is not None
    store.restore(ended)
    return store


def test_a_store_comes_back_to_the_byte(full):
    """What was imported exports the same lines: uids, times, actors, keys, salts and links."""
    lines = list(export_lines(full))
    with copy_of(lines) as copy:
        assert lines == list(export_lines(copy))
        assert replay.fingerprint(full) == replay.fingerprint(copy)
        assert [] == list(replay.verify(copy, level="full"))


def test_importing_again_adds_only_what_is_missing(full):
    """A second import of the same lines adds nothing, and of longer ones the missing tail."""
    early = list(export_lines(full))
    full.session("trip").variables["late"] = True
    with copy_of(early) as copy:
        assert jsonlines.Imported(0, 0, 0) == import_lines(copy, early)
        assert jsonlines.Imported(0, 1, 1) == import_lines(copy, export_lines(full))
        assert replay.fingerprint(full) == replay.fingerprint(copy)


@pytest.mark.parametrize("session_id", ["trip", "what-if", "deeper", "from-nothing"])
def test_a_session_comes_with_the_past_it_shares(full, session_id):
    """The export of one session holds its ancestors up to the fork point, and nobody else."""
    with copy_of(export_lines(full, session_id)) as copy:
        before, after = full.session(session_id).view(), copy.session(session_id).view()
        assert dict(before.variables) == dict(after.variables)
        assert list(before.messages) == list(after.messages)
        assert full.session(session_id).uid == copy.session(session_id).uid
        assert "other" not in copy
        assert [] == list(replay.verify(copy, level="full"))


def test_an_ended_life_can_be_exported(full):
    """A handle on an ended life exports it, and it is ended where it arrives."""
    (info,) = full.sessions("other", deleted=True)
    with copy_of(export_lines(full, full.session(uid=info.uid))) as copy:
        assert [info] == list(copy.sessions(deleted=True))


def test_a_session_that_is_not_there_cannot_be_exported(full):
    """Neither an unknown id nor an unborn session gives lines."""
    with pytest.raises(evstore.errors.SessionNotFound):
        export_lines(full, "nobody")
    with pytest.raises(evstore.errors.SessionNotFound):
        export_lines(full, full.session("unborn"))


def test_an_export_does_not_run_after_new_commits(session, store):
    """What is committed while an export is read is left out, so that it comes to an end."""
    session.variables["n"] = 0
    lines = export_lines(store)
    first = list(itertools.islice(lines, 2))
    session.variables["n"] = 1
    with copy_of([*first, *lines]) as copy:
        assert {"n": 0} == dict(copy.session("trip").variables)


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"), st.integers(0, 3), texts.filter(lambda text: "\0" not in text), storable
        ),
        st.tuples(st.just("say"), st.integers(0, 3), texts, storable),
        st.tuples(st.just("fork"), st.integers(0, 3), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("end"), st.integers(0, 3), st.none(), st.none()),
        st.tuples(st.just("keyed"), st.integers(0, 3), texts, storable),
    ),
    max_size=25,
)


def play(store: evstore.Store, story: Any) -> None:
    """Do what a story says, in four sessions and their forks."""
    for number, (what, which, name, value) in enumerate(story):
        session = store.session(f"s{which}")
        if what == "set":
            session.variables[name] = value
        elif what == "say":
            session.messages.append({"role": "user", "content": name, "extra": value})
        elif what == "keyed":
            with session.batch(key=f"k{number}", actor="a", cause="c") as batch:
                batch.metadata["m"] = name[:10]
                batch.messages.append({"role": "tool", "content": value})
        elif session.uid is not None and what == "fork":
            session.fork(f"f{number}", at=name * session.head // 9)
        elif session.uid is not None:
            store.delete(session.id)


@settings(max_examples=100)
@given(steps)
def test_any_story_survives(story):
    """Whatever was recorded, of whatever type, comes back the same, and verifies."""
    with evstore.open(":memory:") as store:
        play(store, story)
        lines = list(export_lines(store))
        with copy_of(lines) as copy:
            assert lines == list(export_lines(copy))
            assert replay.fingerprint(store) == replay.fingerprint(copy)
            assert [] == list(replay.verify(copy, level="full"))


def test_memory_stays_flat(store, monkeypatch):
    """Lines enter in chunks: no transaction holds more batches or bytes than it may."""
    session = store.session("long")
    for number in range(12):
        session.variables["n"] = number
    sizes = []
    adopt: Any = type(store.engine).adopt

    def spy(engine: Any, batches: Any) -> Any:
        chunk = list(batches)
        sizes.append(len(chunk))
        return adopt(engine, chunk)

    monkeypatch.setattr(type(store.engine), "adopt", spy)
    monkeypatch.setattr(jsonlines, "CHUNK_BATCHES_MAX", 5)
    lines = list(export_lines(store))
    with copy_of(lines):
        assert [5, 5, 2] == sizes
    monkeypatch.setattr(jsonlines, "CHUNK_BYTES_MAX", 1)
    done: list[int] = []
    with evstore.open(":memory:") as copy:
        import_lines(copy, lines, done.append)
        assert sum(map(len, lines)) == done[-1]


def test_what_came_before_a_bad_line_stays(store, monkeypatch):
    """Nothing of the chunk with a bad line is written; mending it and importing again goes on."""
    session = store.session("long")
    for number in range(9):
        session.variables["n"] = number
    lines = list(export_lines(store))
    monkeypatch.setattr(jsonlines, "CHUNK_BATCHES_MAX", 4)
    with evstore.open(":memory:") as copy:
        with pytest.raises(Refused, match="line 9 cannot be imported"):
            import_lines(copy, [*lines[:8], lines[8][:-20], *lines[9:]])
        assert 4 == copy.session("long").head
        assert jsonlines.Imported(0, 5, 5) == import_lines(copy, lines)


def test_a_cut_off_export_is_noticed(full):
    """An export that ends before its last line is refused, wherever it was cut."""
    lines = list(export_lines(full))
    for length in range(len(lines)):
        with evstore.open(":memory:") as copy, pytest.raises(Refused, match="end of the export"):
            import_lines(copy, lines[:length])


def test_exports_can_be_joined(full):
    """Two exports end to end are imported like one after the other; blank lines do no harm."""
    one, other = export_lines(full, "trip"), export_lines(full, "what-if")
    with copy_of([*one, b"\n", *other]) as copy:
        assert ["trip", "what-if"] == [info.id for info in copy.sessions()]


def test_an_id_of_another_life_is_taken(full):
    """An import never mixes two lives: the id of another one is Taken, and nothing is written."""
    with evstore.open(":memory:") as copy:
        copy.session("trip").variables["mine"] = 1
        with pytest.raises(Taken):
            import_lines(copy, export_lines(full))
        assert 1 == len(list(copy.sessions()))


def test_a_life_cannot_come_before_the_one_that_is_there(memory):
    """Of a living id an earlier life is not taken in: the whole log fits into a new store."""
    with evstore.open(":memory:") as store:
        store.session("trip").variables["life"] = 1
        store.delete("trip")
        store.session("trip").variables["life"] = 2
        import_lines(memory, export_lines(store, "trip"))
        with pytest.raises(Taken, match="import into a new store"):
            import_lines(memory, export_lines(store))


def test_a_fork_is_exported_at_any_depth():
    """What a session shares goes before it, however many forks there are between."""
    with evstore.open(":memory:") as store:
        session = store.session("0")
        session.variables["depth"] = 0
        for depth in range(1, 1101):
            session = session.fork(str(depth))
            session.variables["depth"] = depth
        reader = Reader()
        batches = filter(None, map(reader.read, export_lines(store, session)))
        births = [batch.birth.id for batch in batches if batch.birth]
    assert [str(depth) for depth in range(1101)] == births


def test_a_changed_line_is_noticed(session, store):
    """A text that is not the one recorded is Corrupt, and the error names the line."""
    session.variables["budget"] = 1200
    lines = [line.replace(b"1200", b"1300") for line in export_lines(store)]
    with evstore.open(":memory:") as copy:
        with pytest.raises(Corrupt, match="line 3 of what is imported"):
            import_lines(copy, lines)
        assert [] == list(copy.sessions())


def test_a_gap_is_noticed(session, store):
    """A batch whose predecessor is missing is refused, and the error names the line."""
    session.variables["a"] = 1
    session.variables["b"] = 2
    header, birth, _, second, _ = export_lines(store)
    with evstore.open(":memory:") as copy:
        with pytest.raises(Refused, match="line 2 cannot be imported"):
            import_lines(copy, [header, second, b'{"end":1}'])
        with pytest.raises(Refused, match="line 3 cannot be imported"):
            import_lines(copy, [header, birth, second, b'{"end":1}'])


def test_a_store_for_reading_takes_nothing(full, path):
    """An import into a store opened for reading is ReadOnly."""
    lines = list(export_lines(full))
    with evstore.open(path, read_only=True) as store, pytest.raises(evstore.errors.ReadOnly):
        import_lines(store, lines)


def test_damage_of_the_store_itself_is_told_apart(full, monkeypatch):
    """Where the store that imports is damaged, the error names the store and not a line."""

    def damaged(engine: Any, _batches: Any) -> tuple[int, int]:
        raise Corrupt(engine.path, "a page is gone")

    monkeypatch.setattr(type(full.engine), "adopt", damaged)
    with pytest.raises(Corrupt, match="a page is gone") as caught:
        import_lines(full, export_lines(full))
    assert full.engine.path == caught.value.path


def test_a_newer_layout_is_from_the_future(memory):
    """An export of a newer evstore is not guessed at."""
    with pytest.raises(FromTheFuture, match="upgrade"):
        import_lines(memory, [b'{"evstore":2}\n', b'{"end":0}\n'])


def test_what_is_forgotten_travels_as_its_leaf():
    """A forgotten event and a forgotten birth keep their leaves, and show nothing else."""
    uid, leaf = bytes(range(16)), bytes(32)
    birth = Birth(uid, None, 5, None, None, None, leaf)
    entry = Entry("message.added", 1, None, None, None, leaf)
    batch = Batch(uid, 1, 5, None, None, None, leaf, (entry,), 0, birth)
    reader = Reader()
    read = [reader.read(line) for line in (b'{"evstore":1}', *batch_lines(batch))]
    assert [None, None, batch] == read


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([b'{"end":0}'], "line 1 cannot be imported: an export begins with a header"),
        ([b'{"evstore":1}', b'{"evstore":1}'], r"line 2 .* has no end"),
        ([b'{"evstore":1}', b'{"end":1}'], "line 2 .* has 1 batches and 0 came"),
        ([b'{"evstore":1}', b'{"end":0}', b'{"end":0}'], "line 3 .* follows the last line"),
        ([b'{"evstore":1}', b'{"birth":"%b"}' % (b"zz" * 16)], "32 hexadecimal digits"),
        ([b'{"evstore":1}', b'{"birth":"%bab"}' % (b"ab cd " * 5)], "32 hexadecimal digits"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(memory, lines, words):
    """Each way in which lines cannot be an export has its words, and the number of the line."""
    with pytest.raises(Refused, match=words):
        import_lines(memory, lines)


def test_a_birth_belongs_to_the_batch_after_it(some_lines, memory):
    """A birth before a batch of another life is refused."""
    header, birth, *_ = some_lines
    with pytest.raises(Refused, match=r"line 3 .* follows its birth"):
        import_lines(memory, [header, birth, some_lines[4]])


def test_a_session_cannot_outgrow_its_numbers(some_lines, memory):
    """A batch that would end beyond the last sequence there is, is refused."""
    whole = json.loads(some_lines[2])
    whole["first"] = (1 << 32) - 1
    with pytest.raises(Refused, match=r"line 3 .* events at most"):
        import_lines(memory, [*some_lines[:2], json.dumps(whole).encode()])


SCRAPS = [
    b"", b"{", b"[]", b"null", b"\xff", b"[" * 5000, b'{"evstore":0.5}', b'{"evstore":-1}',
    b'{"evstore":1,"more":1}', b'{"end":true}', b'{"end":7}', b'{"birth":1}', b'{"batch":"zz"}',
    b'{"evstore":1}',
]  # fmt: skip
ODD: list[Any] = [
    None, True, -1, 0, 1.5, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**40, "", "x", "zz" * 16,
    "ab" * 32, "\0", "\ud800", [], [1], {}, {"a": 1}, "9" * 5000,
]  # fmt: skip


def spoil(line: bytes, pick: Any) -> bytes:
    """The line with one of its members, or of one of its events', replaced, removed or added."""
    whole = json.loads(line)
    events = whole.get("events")
    target = pick(st.sampled_from(events)) if events and pick(st.booleans()) else whole
    name = pick(st.sampled_from([*target, "leaf", "salt", "name", "new", "birth"]))
    if pick(st.booleans()) and name in target:
        del target[name]
    else:
        target[name] = pick(st.sampled_from(ODD))
    return json.dumps(whole).encode() + b"\n"


@pytest.fixture(scope="module")
def some_lines() -> list[bytes]:
    """An export with a fork, a key, names and messages."""
    with evstore.open(":memory:") as store:
        session = store.session("s", metadata={"m": 1})
        with session.batch(actor="a", key="k", cause="c") as batch:
            batch.variables["x"] = 1
            batch.messages.append({"role": "user"})
        session.fork("f", 2).messages.append({"role": "user"})
        return list(export_lines(store))


@given(st.data())
def test_hostile_lines_are_refused_in_words(some_lines, data):
    """Whatever a line says, the answer is an error of evstore's, and the store stays sound."""
    lines = list(some_lines)
    index = data.draw(st.integers(0, len(lines) - 1))
    if data.draw(st.booleans()):
        lines[index] = spoil(lines[index], data.draw)
    else:
        lines.insert(index, data.draw(st.sampled_from(SCRAPS)))
    with evstore.open(":memory:") as copy:
        with suppress(Refused, BadFile):
            import_lines(copy, lines)
        assert [] == list(replay.verify(copy, level="full"))


def relinked(batches: list[Batch]) -> list[bytes]:
    """The lines of batches of one life with links that fit them."""
    lines, previous = [b'{"evstore":1}\n'], bytes(32)
    for batch in batches:
        previous = batch.continues(previous)
        lines += batch_lines(batch._replace(link=previous))
    return [*lines, b'{"end":%d}\n' % len(batches)]


DATA = [
    b"", b"{}", b"[]", b"1", b"{", b'{"value":1}', b'{"value":1 }', b'{"value":1,"expires_at":7}',
    b'{"value":1, "expires_at":7}', b'{"value":1,"expires_at":18446744073709551615}',
    b'{"message":{}}', b'{"message":{"role":"user"}}', b'{"message":{"role":"user"},"seq":1}',
    b'{"message":{"role":"user"},"seq":99999999999}', b'{"seq":1}', b'{"seq":-1}', b'{"seq":0}',
    b'{"seq":18446744073709551615}', b'{"seq":1e9}', b'{"to":1}', b'{"to":-5}',
    b'{"to":4294967296}', b'{"at":1}', b'{"value":{"$date":"never"}}', b'{"value":{"$nothing":1}}',
    b"\n{}", b'{"value":\n1}',
]  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*evstore.events.KINDS, "app.x", "nonsense", "app."]),
            st.sampled_from(DATA),
            st.none() | texts,
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_forged_events_with_links_that_fit_do_no_harm(events):
    """Somebody who computes links can forge events: they are refused, or read without surprise."""
    uid, salt = bytes(15) + b"\1", bytes(16)
    birth = Birth(uid, "forged", 1, None, None, salt)
    batches = [
        Batch(
            uid,
            1 + index,
            1 + index,
            None,
            None,
            None,
            b"",
            (Entry(kind, version, name, text, salt),),
        )
        for index, (kind, text, name, version) in enumerate(events)
    ]
    batches[0] = batches[0]._replace(birth=birth)
    with evstore.open(":memory:") as copy, suppress(Refused, BadFile):
        import_lines(copy, relinked(batches))
        view = copy.session(uid=uid.hex()).view()
        list(view.messages)
        dict(view.variables)


def test_stores_travel_through_pipes(full, path, tmp_path):
    """`evstore export | evstore import` carries a store over, and stdin may be a file as well."""
    full.close()
    other, third = tmp_path / "other.db", tmp_path / "third.db"
    with subprocess.Popen([*EVSTORE, "export", str(path)], stdout=subprocess.PIPE) as exporting:
        command = [*EVSTORE, "import", str(other)]
        importing = subprocess.run(
            command, stdin=exporting.stdout, stdout=subprocess.PIPE, check=True
        )
    assert 0 == exporting.returncode
    lines = tmp_path / "lines"
    lines.write_bytes(
        subprocess.run([*EVSTORE, "export", str(other)], stdout=-1, check=True).stdout
    )
    with lines.open("rb") as stream:
        subprocess.run([*EVSTORE, "import", str(third)], stdin=stream, check=True)
    assert 6 == json.loads(importing.stdout)["sessions"]
    with evstore.open(path) as one, evstore.open(third) as two:
        assert replay.fingerprint(one) == replay.fingerprint(two)
        assert list(export_lines(one)) == list(export_lines(two))
