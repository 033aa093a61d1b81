"""The chain is what schema/README.md says, and no field can change without changing a link."""

import re
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import chain
from evstore.chain import Batch, Birth, Entry
from evstore.sqlite.pages import checksum_vfs

README = Path(__file__).parent.parent / "schema" / "README.md"


# A second hand, written from the words of schema/README.md alone.


def field(value: bytes | str | None) -> bytes:
    if value is None:
        return b"\0"
    raw = value.encode() if isinstance(value, str) else value
    return b"\1" + struct.pack(">I", len(raw)) + raw


def leaf_of(event: dict[str, Any], batch: dict[str, Any]) -> bytes:
    if event["encoding"] == 3:
        return bytes(event["data"])
    text = event["data"]
    if event["encoding"] == 1:
        text = zstandard.ZstdDecompressor().decompress(text)
    said = field(batch["actor"]) + field(batch["cause"]) + field(batch["key"])
    start = b"\0" + event["salt"] + field(event["kind"]) + field(event["name"])
    return sha256(start + field(text) + said).digest()


def birth_leaf_of(session: dict[str, Any], batch: dict[str, Any]) -> bytes:
    said = field(batch["actor"]) + field(batch["cause"])
    return sha256(b"\2" + session["salt"] + field(session["id"]) + said).digest()


def link_of(
    previous: bytes,
    uid: bytes,
    batch: dict[str, Any],
    origin: bytes | None,
    leaves: list[tuple[str, int, bytes]],
) -> bytes:
    envelope = struct.pack(">QIq", batch["first"], len(leaves), batch["time"])
    parts = [field(kind) + struct.pack(">I", version) + leaf for kind, version, leaf in leaves]
    start = b"\1" + previous + uid + envelope + field(origin)
    return sha256(start + b"".join(parts)).digest()


def rows(cursor: Any, query: str, *bindings: Any) -> list[dict[str, Any]]:
    found = cursor.execute(query, bindings)
    names = None
    result = []
    for row in found:
        names = names or [column[0] for column in found.description]
        result.append(dict(zip(names, row, strict=True)))
    return result


def verify_with_own_hands(path: str) -> int:
    """Walk the whole file and compute every link; return how many batches there were."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY, vfs=checksum_vfs())
    cursor = connection.cursor()
    sessions = {row["number"]: row for row in rows(cursor, "select * from session")}
    links: dict[int, bytes] = {}  # of the newest batch of each session
    at: dict[int, bytes] = {}  # event.id → link of its batch
    batches = rows(cursor, "select * from batch order by position")
    for batch in batches:
        number = batch["session"]
        session = sessions[number]
        events = rows(
            cursor,
            "select event.*, kind.name as kind from event join kind on kind.number = event.kind"
            " where event.position = ? order by event.id",
            batch["position"],
        )
        origin, previous = None, links.get(number, bytes(32))
        if session["position"] == batch["position"]:
            parent = sessions.get(session["parent"], {"uid": bytes(16)})
            hashed = session["leaf"] or birth_leaf_of(session, batch)
            fork = session["fork"] or 0
            origin = hashed + struct.pack(">q16sQ", session["created"], parent["uid"], fork)
            if session["fork"]:
                previous = at[(session["parent"] << 32) + session["fork"]]
        leaves = [(event["kind"], event["version"], leaf_of(event, batch)) for event in events]
        link = link_of(previous, session["uid"], batch, origin, leaves)
        assert batch["link"].hex() == link.hex(), batch["position"]
        links[number] = link
        at |= {event["id"]: link for event in events}
    connection.close()
    return len(batches)


def test_a_second_hand_verifies_a_real_file(path):
    """A program written from schema/README.md alone finds every link of a real file right."""
    with evstore.open(path, actor="planner") as store:
        trip = store.session("trip", metadata={"user": "Anna"})
        for number in range(30):
            trip.variables[f"v{number % 7}"] = "x" * 40 * number
            trip.messages.append({"role": "user", "content": "é" * number})
        with trip.batch(actor="tool", key="k1", cause="because") as batch:
            batch.record("app.order.placed", {"n": (1, 2)})
            del batch.variables["v0"]
            batch.messages.pop()
        fork = trip.fork("what-if", at=20)
        grandchild = fork.fork("again")
        grandchild.variables["mine"] = 1
        trip.fork("empty", at=0).messages.append({"role": "user"})
        store.delete("trip")
        store.session("trip").messages.append({"role": "user", "content": "new life"})
        count = store.stats().batches
    assert count == verify_with_own_hands(str(path))


# The golden vectors.


def vectors() -> dict[str, str]:
    """Return the golden vectors of schema/README.md: name → hexadecimal digits."""
    table = README.read_text("utf-8").split("### Golden vectors")[1].split("\n## ")[0]
    return dict(re.findall(r"\| ([a-z ]+) \| `([0-9a-f]{64})` \|", table))


SALT, UID, PARENT = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
TIME_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
TEXT = '{"value":"Römer"}'


def computed() -> dict[str, bytes]:
    said = chain.said_by("planner", None, "k1")
    leaf = chain.leaf(SALT, "variable.set", "city", TEXT.encode(), said)
    birth = chain.birth_leaf(SALT, "trip", "planner", None)
    origin = Birth(UID, "trip", TIME_US, None, None, SALT).origin("planner", None)
    fork = Birth(UID, "trip", TIME_US, PARENT, 7, SALT).origin("planner", None)
    first = chain.link(chain.ZERO, UID, 1, TIME_US, [chain.linked("variable.set", 1, leaf)], origin)
    return {
        "leaf": leaf,
        "leaf without name": chain.leaf(SALT, "messages.cleared", None, b"{}", said),
        "birth leaf": birth,
        "first link": first,
        "second link": chain.link(
            first, UID, 2, TIME_US + 1, [chain.linked("variable.set", 1, leaf)] * 2, None
        ),
        "link of a fork": chain.link(first, UID, 8, TIME_US + 2, [], fork),
    }


def test_golden_vectors():
    """The hashes of fixed inputs are those of schema/README.md, today and in every version."""
    assert vectors() == {name: hashed.hex() for name, hashed in computed().items()}


def test_golden_vectors_by_a_second_hand():
    """The golden vectors follow from the words of schema/README.md."""
    batch = {"actor": "planner", "cause": None, "key": "k1", "first": 1, "time": TIME_US}
    event = {"encoding": 0, "data": TEXT, "salt": SALT, "kind": "variable.set", "name": "city"}
    session = {"salt": SALT, "id": "trip"}
    leaf, birth = leaf_of(event, batch), birth_leaf_of(session, batch)
    origin = birth + struct.pack(">q16sQ", TIME_US, bytes(16), 0)
    first = link_of(bytes(32), UID, batch, origin, [("variable.set", 1, leaf)])
    golden = vectors()
    assert golden["leaf"] == leaf.hex()
    assert golden["birth leaf"] == birth.hex()
    assert golden["first link"] == first.hex()


# What the links cover.

names = st.none() | st.text(max_size=5)
entries = st.builds(
    Entry,
    st.sampled_from(["variable.set", "app.x"]),
    st.integers(1, 3),
    names,
    st.binary(max_size=8),
    st.binary(min_size=16, max_size=16),
    st.none(),
)
births = st.none() | st.builds(
    Birth,
    st.just(UID),
    st.text(min_size=1, max_size=5),
    st.integers(0, 1 << 50),
    st.none() | st.just(PARENT),
    st.integers(1, 100),
    st.binary(min_size=16, max_size=16),
    st.none(),
)
batches = st.builds(
    Batch,
    st.binary(min_size=16, max_size=16),
    st.integers(1, 1 << 32),
    st.integers(0, 1 << 60),
    names,
    names,
    names,
    st.just(bytes(32)),
    st.lists(entries, max_size=3).map(tuple),
    birth=births,
)


@given(batches, batches, st.data())
def test_any_change_changes_the_link(batch, other, data):
    """Another value of any field that the chain covers gives another link."""
    covered = ["uid", "first", "time_us", "entries"]
    if batch.entries:
        covered += ["actor", "cause", "key"]
    name = data.draw(st.sampled_from(covered))
    changed = batch._replace(**{name: getattr(other, name)})
    same = getattr(batch, name) == getattr(other, name)
    assert same == (batch.continues(chain.ZERO) == changed.continues(chain.ZERO))
    assert batch.continues(chain.ZERO) != batch.continues(b"\1" * 32)


@given(batches.filter(lambda batch: batch.entries), entries, st.data())
def test_any_change_of_an_event_changes_the_link(batch, other, data):
    """Another kind, version, name, text or salt of any one event gives another link."""
    index = data.draw(st.integers(0, len(batch.entries) - 1))
    name = data.draw(st.sampled_from(["kind", "version", "name", "text", "salt"]))
    entry = batch.entries[index]._replace(**{name: getattr(other, name)})
    said = (*batch.entries[:index], entry, *batch.entries[index + 1 :])
    changed = batch._replace(entries=said)
    assert (entry == batch.entries[index]) == (changed.continues(b"") == batch.continues(b""))


@given(batches.filter(lambda batch: batch.birth), births.filter(bool), st.data())
def test_any_change_of_a_birth_changes_the_link(batch, other, data):
    """Another id, time, parent, fork point or salt of a birth gives another first link."""
    name = data.draw(st.sampled_from(["id", "created_us", "parent_uid", "fork", "salt"]))
    birth = batch.birth._replace(**{name: getattr(other, name)})
    changed = batch._replace(birth=birth)
    assert (birth == batch.birth) == (changed.continues(b"") == batch.continues(b""))
    assert batch.continues(b"") != batch._replace(birth=None).continues(b"")


@given(batches)
def test_order_counts(batch):
    """Two events that changed places give another link."""
    turned = batch._replace(entries=batch.entries[::-1])
    assert (turned == batch) == (turned.continues(b"") == batch.continues(b""))


@given(batches.filter(lambda batch: batch.entries))
def test_forgetting_keeps_the_link(batch):
    """An event or a birth of which only the leaf is left gives the same link."""
    said = chain.said_by(batch.actor, batch.cause, batch.key)
    forgotten = tuple(
        Entry(entry.kind, entry.version, None, None, None, entry.hashed(said))
        for entry in batch.entries
    )
    assert batch.continues(b"") == batch._replace(entries=forgotten).continues(b"")
    if batch.birth:
        leaf = chain.birth_leaf(batch.birth.salt, batch.birth.id, batch.actor, batch.cause)
        bare = batch.birth._replace(id=None, salt=None, leaf=leaf)
        assert batch.continues(b"") == batch._replace(birth=bare).continues(b"")


def test_absent_is_not_empty():
    """A text that is absent and one that is empty are told apart."""
    assert chain.text_field(None) != chain.text_field("")
    assert chain.said_by("a", None, None) != chain.said_by(None, "a", None)
