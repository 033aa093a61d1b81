"""Encodings: a text comes back whatever its bytes look like, and bytes that lie are found."""

import apsw
import pytest
import zstandard

import evstore
from evstore import replay
from evstore.errors import Corrupt
from evstore.sqlite import deltas, insert, payload
from evstore.sqlite.pages import checksum_vfs

VERSIONS = 12


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return the path of a store in which one large variable has a dozen similar versions."""
    monkeypatch.setattr(insert, "CHECKPOINT_EVENTS", 5)
    monkeypatch.setattr(deltas, "TEXT_BYTES_MAX", 0)  # every version is a full copy
    path = tmp_path / "store.db"
    with evstore.open(path) as store:
        session = store.session("s")
        for version in range(VERSIONS):
            session.variables["large"] = value(version)
        session.messages.append({"role": "user", "content": "hello"})
    return path


def value(version):
    """Return a large value that differs a little from one version to the next."""
    return {"version": version, "text": "".join(f"line {n} of the text\n" for n in range(200))}


def connect(path):
    """Return a connection that keeps page checksums right."""
    return apsw.Connection(str(path), vfs=checksum_vfs())


def delta_of(text, prefix):
    """Return a text as a zstd delta against another, as schema/README.md says."""
    size = len(text) + len(prefix)
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1,
        source_size=size,
        window_log=max(size.bit_length(), 10),
        hash_log=max(len(prefix).bit_length(), 6),
    )
    dictionary = zstandard.ZstdCompressionDict(prefix, zstandard.DICT_TYPE_RAWCONTENT)
    compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary)
    return compressor.compress(text)


def texts(path):
    """Return the text of every version."""
    with evstore.open(path) as store:
        events = store.session("s").events(name="large")
        return {event.seq: (event.text or "").encode() for event in events}


def store_as_deltas(path, against):
    """Encode every version anew as a delta against the one that `against(seq)` names."""
    versions = texts(path)
    connection = connect(path)
    for seq in versions:
        prefix = against(seq)
        if prefix:
            connection.execute(
                "update event set encoding = 2, delta = ?, data = ? where id = (1 << 32) + ?",
                (prefix, delta_of(versions[seq], versions[prefix]), seq),
            )
    stored = connection.execute("select sum(length(data)) from event").get
    connection.close()
    return stored


@pytest.mark.parametrize("stacked", [False, True])
def test_deltas_are_read(path, stacked):
    """A version stored as a delta reads as ever: its value, its event, its link, every moment."""
    plain = connect(path).execute("select sum(length(data)) from event").get
    stored = store_as_deltas(path, lambda seq: seq - 1 if stacked else int(seq > 1))
    assert stored < plain / 3

    with evstore.open(path) as store:
        session = store.session("s")
        assert value(VERSIONS - 1) == session.variables["large"]
        for seq in range(1, VERSIONS + 1):
            assert value(seq - 1) == session.at(seq).variables["large"]
        assert value(3) == next(session.events(after=3)).data["value"]
        assert [] == list(replay.verify(store, level="full"))
        replay.rebuild(store)
        assert [] == list(replay.verify(store, level="full"))


def damage(path, assignment):
    """Change the payload of the newest large version, past the triggers."""
    connection = connect(path)
    connection.execute("pragma ignore_check_constraints=on")
    trigger = connection.execute("select sql from sqlite_schema where name = 'event_frozen'").get
    connection.execute("drop trigger event_frozen")
    connection.execute(f"update event set {assignment} where id = (1 << 32) + {VERSIONS}")
    connection.execute(trigger)
    connection.close()


@pytest.mark.parametrize(
    "assignment",
    [
        f"encoding = 2, delta = {VERSIONS}",
        f"encoding = 2, delta = {VERSIONS + 1}",
        "encoding = 2, delta = 0",
        "encoding = 2, delta = null",
        "encoding = 2, delta = 1, data = 'text'",
        "encoding = 2, delta = 1, data = x'00'",
        "encoding = 1, data = 'text'",
        "encoding = 1, data = x'28b52ffd'",
        "encoding = 1, size = size - 1",
        f"encoding = 1, size = {1 << 40}",
        "encoding = 0, data = x'00'",
        "encoding = 3, data = x'00'",
        "encoding = 7",
        "data = (select data from event where encoding = 0)",
    ],
)
def test_bytes_that_lie_are_found(path, assignment):
    """A payload that is not what its columns say is Corrupt when read, and a finding of verify."""
    damage(path, assignment)
    with evstore.open(path) as store:
        session = store.session("s")
        for read in (
            lambda: session.variables["large"],
            lambda: dict(session.variables),
            lambda: list(session.events()),
        ):
            with pytest.raises(Corrupt) as caught:
                read()
            assert VERSIONS == caught.value.seq
        assert [] != list(replay.verify(store, level="full"))
        assert value(0) == session.at(1).variables["large"]


def test_a_delta_without_its_prefix_is_found(path):
    """A delta whose prefix was forgotten, or whose path never ends, is Corrupt."""
    store_as_deltas(path, lambda seq: seq - 1)
    connection = connect(path)
    connection.execute(
        "update event set encoding = 3, delta = null, data = zeroblob(32), salt = null, name = null"
        " where id = (1 << 32) + 1"
    )
    connection.close()
    with evstore.open(path) as store, pytest.raises(Corrupt, match="nothing to build on"):
        _ = store.session("s").variables["large"]


def test_a_path_of_deltas_has_an_end(path, monkeypatch):
    """More deltas on top of each other than any writer stacks are refused, not followed."""
    monkeypatch.setattr("evstore.sqlite.rows._DELTAS_MAX", 5)
    store_as_deltas(path, lambda seq: seq - 1)
    with evstore.open(path) as store:
        assert value(4) == store.session("s").at(5).variables["large"]
        with pytest.raises(Corrupt, match="a delta is against"):
            _ = store.session("s").variables["large"]


def test_a_missing_prefix_is_found(path):
    """A delta against an event that is not there is Corrupt."""
    store_as_deltas(path, lambda seq: seq - 1)
    connection = connect(path)
    trigger = connection.execute("select sql from sqlite_schema where name = 'event_kept'").get
    connection.execute("drop trigger event_kept")
    connection.execute("delete from event where id = (1 << 32) + 1")
    connection.execute(trigger)
    connection.close()
    with evstore.open(path) as store, pytest.raises(Corrupt, match="an event is missing"):
        _ = store.session("s").variables["large"]


def forget(path, *seqs):
    """Replace payload and salt of events by their leaves, as the format allows."""
    with evstore.open(path) as store:
        batches = store.engine.changes(0)
    leaves: dict[int, bytes] = {}
    for batch in batches:
        said = evstore.chain.said_by(batch.actor, batch.cause, batch.key)
        leaves |= {
            batch.first + index: entry.hashed(said) for index, entry in enumerate(batch.entries)
        }
    connection = connect(path)
    for seq in seqs:
        connection.execute(
            "update event set encoding = 3, delta = null, data = ?, salt = null, name = null"
            " where id = (1 << 32) + ?",
            (leaves[seq], seq),
        )
    connection.close()


def test_what_was_forgotten_reads_as_erased(path):
    """A forgotten event keeps its place and its link, and its content is ERASED."""
    forget(path, 2, VERSIONS, VERSIONS + 1)
    with evstore.open(path) as store:
        session = store.session("s")
        assert evstore.ERASED is session.variables["large"]
        assert [evstore.ERASED] == list(session.messages)
        events = list(session.events())
        assert [2, VERSIONS, VERSIONS + 1] == [e.seq for e in events if e.data is evstore.ERASED]
        assert [] == list(replay.verify(store, level="chain"))


@pytest.mark.parametrize("data", ["x'00'", "5", "'{}'", "'[]'", "'{'", "null"])
def test_a_message_that_lies_is_found(path, data):
    """A message that is not what its columns say is Corrupt, alone and among a thousand."""
    with evstore.open(path) as store:
        store.session("s").messages.extend([{"role": "user", "content": "hello"}] * 1000)
    connection = connect(path)
    trigger = connection.execute("select sql from sqlite_schema where name = 'event_frozen'").get
    connection.execute("drop trigger event_frozen")
    connection.execute(f"update event set data = {data} where id = (1 << 32) + {VERSIONS + 500}")
    connection.execute(trigger)
    connection.close()
    with evstore.open(path) as store:
        messages = store.session("s").messages
        assert 499 == len(messages[:499])
        for read in (lambda: messages[499], lambda: messages[:], lambda: list(messages)):
            with pytest.raises(Corrupt):
                read()


def test_what_was_forgotten_moves_with_its_session(path):
    """A session with forgotten events is taken out and in with its links unchanged."""
    forget(path, 2, VERSIONS + 1)
    with evstore.open(path) as store, evstore.open(":memory:") as copy:
        batches = store.engine.changes(0)
        assert (len(batches), VERSIONS + 1) == copy.engine.adopt(batches)
        assert [batch.link for batch in batches] == [b.link for b in copy.engine.changes(0)]
        assert [] == list(replay.verify(copy, level="chain"))
        assert (0, 0) == copy.engine.adopt(batches)


@pytest.mark.parametrize("column", ["ranges", "names"])
@pytest.mark.parametrize("stored", [b"", b"not zstd", payload.compress(b"[1"), b"[[1,2,3]]", b"3"])
def test_an_unreadable_checkpoint_is_found_and_mended(path, column, stored):
    """A checkpoint that cannot be read is Corrupt, and a rebuild makes it anew."""
    frame = payload.compress(stored) if stored[:1] in (b"[", b"3") else stored
    connection = connect(path)
    connection.execute(f"update checkpoint set {column} = ?", (frame,))
    connection.close()
    with evstore.open(path) as store:
        session = store.session("s")
        with pytest.raises(Corrupt):
            session.at(VERSIONS + 1).messages[:]
        assert [] != list(replay.verify(store, level="full"))
        replay.rebuild(store)
        assert value(VERSIONS - 1) == session.at(VERSIONS + 1).variables["large"]
        assert [] == list(replay.verify(store, level="full"))


def test_a_checkpoint_claims_no_more_than_memory_holds(path, monkeypatch):
    """A checkpoint that says it expands beyond all bounds is not expanded."""
    monkeypatch.setattr(payload, "FRAME_BYTES_MAX", 10)
    with evstore.open(path) as store, pytest.raises(Corrupt, match="claims a size"):
        store.session("s").at(VERSIONS)
