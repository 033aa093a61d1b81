"""A store holds many sessions: they are born, end, come back, and are listed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

import evstore
from evstore.errors import (
    BadName,
    Conflict,
    NoSuchMoment,
    ReadOnly,
    Refused,
    SessionNotFound,
    Taken,
)
from evstore.sqlite.engine import Engine


def shown(session: evstore.Session) -> tuple[Any, ...]:
    return dict(session.variables), dict(session.metadata), list(session.messages)


def test_birth_is_the_first_write(store: evstore.Store):
    """Opening and reading a session writes nothing; it is there from its first event on."""
    session = store.session("s")
    assert ({}, {}, []) == shown(session)
    assert 0 == session.head
    assert [None] * 4 == [session.uid, session.created_at, session.updated_at, session.parent]
    assert [] == list(session.events())
    assert ("s" in store, store.stats().batches) == (False, 0)
    session.messages.append({"role": "user"})
    assert "s" in store
    assert session.created_at == session.updated_at == next(session.events()).time
    assert 32 == len(bytes.fromhex(session.uid or "").hex())


def test_metadata_at_birth(store: evstore.Store):
    """Metadata given at opening is recorded at the front of the first batch, and ignored later."""
    session = store.session("s", metadata={"a": 1, "b": [2]})
    assert {} == session.metadata
    session.variables["x"] = 1
    assert [("metadata.set", "a"), ("metadata.set", "b"), ("variable.set", "x")] == [
        (event.kind, event.name) for event in session.events()
    ]
    assert 1 == len({event.position for event in session.events()})
    later = store.session("s", metadata={"a": 5, "c": 6})
    later.variables["x"] = 2
    session.variables["x"] = 3
    assert {"a": 1, "b": [2]} == later.metadata
    assert 5 == later.head
    with pytest.raises(evstore.errors.NotStorable):
        store.session("t", metadata={"a": object()})


@pytest.mark.parametrize("metadata", ["title", "", ["title"], 5, 0])
def test_metadata_is_a_mapping(store: evstore.Store, metadata: Any):
    """Metadata that is no mapping is refused at the door, also where it is empty."""
    with pytest.raises(Refused, match="is no mapping: give names and their values"):
        store.session("s", metadata=metadata)


def test_what_is_said_at_birth_sees_nothing_of_its_metadata(store: evstore.Store):
    """Metadata given at opening is not there before the birth, for reads and decisions alike.

    What brings the session into being comes after it, and wins.
    """
    session = store.session("s", metadata={"a": 1})
    assert "a" not in session.metadata
    assert 7 == session.metadata.setdefault("a", 7)
    assert [1, 7] == [event.data["value"] for event in session.events(name="a")]
    session = store.session("t", metadata={"a": 1})
    session.transact(lambda batch: batch.metadata.set("a", 2, expect=evstore.ABSENT))
    assert {"a": 2} == session.metadata
    session = store.session("u", metadata={"a": 1})
    with pytest.raises(Conflict), session.batch() as batch:
        batch.metadata["a"] = 2
        batch.metadata.set("a", 3, expect=evstore.ABSENT)
    with pytest.raises(Conflict):
        session.metadata.set("a", 2, expect=1)
    assert 0 == session.head


def test_a_fixed_deadline_that_is_over_moves_none(path):
    """A handle opened with a datetime goes on writing after it, where another one set it later."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    later = now + timedelta(hours=2)
    with evstore.open(path, clock=lambda: now) as store:
        session = store.session("s", ttl=now + timedelta(hours=1))
        session.variables["a"] = 1
        store.session("s", ttl=later).touch()
        now += timedelta(minutes=90)
        session.variables["a"] = 2
        assert later == session.expires_at
        store.session("t").variables["a"] = 1
        late = store.session("t", ttl=later)
        now = later
        with pytest.raises(Refused):
            late.variables["a"] = 2


def test_what_was_never_written_is_not_merged(store: evstore.Store, memory: evstore.Store):
    """A session without a past, or of another store, is refused by what is wrong with it."""
    session = store.session("s")
    session.variables["a"] = 1
    with pytest.raises(Refused, match="never written"):
        session.merge(store.session("unborn"))
    for other in (memory.session("unborn"), memory.session("t")):
        with pytest.raises(Refused, match="of one store"):
            session.merge(other)
        other.variables["a"] = 1


def test_a_session_without_an_id_gets_a_new_one(store: evstore.Store):
    """The ids that evstore chooses are UUIDv7: all different, and in order of time."""
    ids = [store.session().id for _ in range(50)]
    assert 50 == len(set(ids))
    assert {7} == {UUID(session_id).version for session_id in ids}
    assert [id[:13] for id in ids] == sorted(id[:13] for id in ids)
    milliseconds = int(ids[0].replace("-", "")[:12], 16)
    assert abs(datetime.now(UTC).timestamp() - milliseconds / 1000) < 60
    session = store.session()
    session.variables["a"] = 1
    assert {"a": 1} == store.session(session.id, create=False).variables


def test_create_false_asks_for_a_living_session(store: evstore.Store):
    """With create=False a session that does not live is SessionNotFound."""
    with pytest.raises(SessionNotFound) as caught:
        store.session("s", create=False)
    assert "s" == caught.value.session
    store.session("s").variables["a"] = 1
    assert 1 == store.session("s", create=False).head
    store.delete("s")
    with pytest.raises(SessionNotFound):
        store.session("s", create=False)


def test_the_actor_is_who_says_so_last(path):
    """The actor of a batch goes before that of the session, and that before the store's."""
    with evstore.open(path, actor="store") as store:
        store.session("s").variables["a"] = 1
        session = store.session("s", actor="session")
        session.variables["a"] = 2
        with session.batch(actor="batch") as batch:
            batch.variables["a"] = 3
        session.fork("t").variables["a"] = 4
        store.delete("s")
        actors = [event.actor for event in store.session("t").events()]
        assert ["store", "session", "batch", "session"] == actors


def test_the_end_of_a_life(store: evstore.Store):
    """A deleted session is gone for its handles, and its log is read by uid."""
    session = store.session("s")
    session.variables["a"] = 1
    session.messages.append({"role": "user"})
    uid = session.uid
    assert uid is not None
    deletion = store.delete("s")
    assert ("session.deleted", 3, "s", uid) == (
        deletion.kind,
        deletion.seq,
        deletion.session,
        deletion.uid,
    )
    assert "s" not in store
    assert [] == list(store.sessions())
    uses: list[Any] = [
        lambda: session.head,
        lambda: session.uid,
        lambda: session.variables["a"],
        lambda: len(session.messages),
        lambda: list(session.events()),
        session.view,
        lambda: session.at(0),
        session.batch,
        lambda: session.variables.update(a=2),
        session.messages.clear,
        lambda: session.record("app.x"),
        lambda: session.fork("t"),
        lambda: store.delete("s"),
    ]
    for use in uses:
        with pytest.raises(SessionNotFound):
            use()
    ended = store.session(uid=uid)
    assert ("s", 3) == (ended.id, ended.head)
    assert ({"a": 1}, {}, [{"role": "user"}]) == shown(ended)
    assert {"a": 1} == ended.at(1).variables
    for write in (
        lambda: ended.variables.update(a=2),
        ended.messages.pop,
        lambda: ended.record("app.x"),
    ):
        with pytest.raises(ReadOnly):
            write()


def test_an_id_lives_again(store: evstore.Store):
    """After a deletion the next write begins a new life: another uid, and seq from 1."""
    first = store.session("s", metadata={"a": 1})
    first.variables["x"] = 1
    uids = [first.uid]
    for life in range(3):
        store.delete("s")
        assert 0 == store.session("s").head
        again = store.session("s", metadata={"a": life})
        again.variables["y"] = life
        assert (2, ({"y": life}, {"a": life}, [])) == (again.head, shown(again))
        uids.append(again.uid)
    assert 4 == len(set(uids))
    assert {"x": 1} == store.session(uid=uids[0]).variables
    with pytest.raises(SessionNotFound):
        first.variables["x"] = 2
    assert uids[:3] == [info.uid for info in store.sessions(deleted=True)]


def test_a_handle_binds_at_its_first_use(store: evstore.Store):
    """A handle that was only opened takes the life it finds; one that was used stays with it."""
    store.session("s").variables["a"] = 1
    unused, reader, decider = store.session("s"), store.session("s"), store.session("s")
    assert {"a": 1} == reader.variables
    decider.variables.setdefault("a", 5)
    store.delete("s")
    store.session("s").variables["a"] = 2
    assert {"a": 2} == unused.variables
    for bound in (reader, decider):
        with pytest.raises(SessionNotFound):
            bound.variables["a"] = 3
    assert {"a": 2} == unused.variables


@pytest.mark.parametrize(
    "look",
    [
        lambda handle: handle.head,
        lambda handle: handle.at(0).seq,
        lambda handle: handle.view().seq,
        lambda handle: len([*handle.events()]),
        lambda handle: handle.variables.get("a", 0),
    ],
    ids=["head", "at", "view", "events", "variables"],
)
def test_a_handle_stays_bound(store: evstore.Store, monkeypatch: pytest.MonkeyPatch, look: Any):
    """A look that began before the birth, and ends after it, leaves the handle to its life."""
    handle, real = store.session("s"), Engine.moment

    @contextmanager
    def slow(*how: Any, **more: Any) -> Iterator[Any]:
        with real(*how, **more) as moment:
            monkeypatch.undo()
            handle.variables["a"] = 1  # as another thread would
            yield moment

    monkeypatch.setattr(Engine, "moment", slow)
    assert 0 == look(handle)
    store.delete("s")
    with pytest.raises(SessionNotFound):
        handle.variables["a"] = 2


def test_restoring(store: evstore.Store):
    """An ended life comes back under its uid and id, and goes on where it ended."""
    session = store.session("s")
    session.variables["a"] = 1
    uid = session.uid or ""
    with pytest.raises(SessionNotFound):
        store.restore(uid)
    store.delete("s")
    restored = store.restore(uid)
    assert ("s", uid, {"a": 1}, 3) == (
        restored.id,
        restored.uid,
        dict(restored.variables),
        restored.head,
    )
    restored.variables["a"] = 2
    assert {"a": 2} == session.variables
    assert ["variable.set", "session.deleted", "session.restored", "variable.set"] == [
        event.kind for event in restored.events()
    ]
    store.delete("s")
    store.session("s").variables["b"] = 1
    with pytest.raises(Taken):
        store.restore(uid)
    assert {"b": 1} == store.session("s").variables
    store.delete("s")
    assert {"a": 2} == store.restore(uid).variables


@pytest.mark.parametrize("uid", ["", "x", "0" * 31, "g" * 32, 5, b"0" * 32], ids=repr)
def test_what_is_no_uid(store: evstore.Store, uid: Any):
    """A uid has 32 hexadecimal digits; one that was never given is SessionNotFound."""
    for use in (lambda: store.session(uid=uid), lambda: store.restore(uid)):
        with pytest.raises(BadName):
            use()
    for use in (lambda: store.session(uid="0" * 32), lambda: store.restore("0" * 32)):
        with pytest.raises(SessionNotFound):
            use()


BAD_IDS = ["", "a\0", "a\nb", "\x7f", "\x85", "\u2028", "\ud800", "i" * 256, 5, b"a", ["a"]]


@pytest.mark.parametrize("session_id", BAD_IDS, ids=repr)
def test_bad_ids_are_refused_at_the_door(store: evstore.Store, session_id: Any):
    """Ids are texts of 1 to 255 characters without control, separator and surrogate characters."""
    with pytest.raises(BadName) as caught:
        store.session(session_id)
    assert "session id" == caught.value.what
    assert session_id not in store
    with pytest.raises(SessionNotFound):
        store.delete(session_id)


@pytest.mark.parametrize("actor", ["a\0b", "\ud800", 5], ids=repr)
def test_bad_actors_are_refused_at_the_door(store: evstore.Store, actor: Any, path):
    """Actors are texts without NUL and surrogates, for a store, a session or a life by uid."""
    store.session("s").variables["a"] = 1
    uid = store.session("s").uid
    for use in (
        lambda: store.session("s", actor=actor),
        lambda: store.session(uid=uid, actor=actor),
        lambda: evstore.open(path, actor=actor),
    ):
        with pytest.raises(BadName):
            use()


GOOD_IDS = ["a", "i" * 255, "%", "_", "a b", "ü", "日本", "😀", "../x", "'; --", "a/b:c", " "]


def test_any_other_id_is_fine(store: evstore.Store):
    """Ids are compared as they are: nothing in them means anything."""
    for number, session_id in enumerate(GOOD_IDS):
        store.session(session_id).variables["n"] = number
    assert sorted(GOOD_IDS) == [info.id for info in store.sessions()]
    for number, session_id in enumerate(GOOD_IDS):
        assert number == store.session(session_id).variables["n"]
        assert session_id in store
    assert 5 not in store


PREFIXES = ["", "a", "a%", "a_", "%", "_", "ü", "üx", "😀", "A", "ab", "b", "\ud800", "\0"]


@pytest.mark.parametrize("prefix", PREFIXES, ids=ascii)
def test_a_listing_by_prefix(memory: evstore.Store, prefix: str):
    """A prefix is compared character by character, and the listing is in order of id."""
    ids = ["a", "ab", "a%", "a%b", "a_", "axb", "b", "A", "%", "_", "ü", "üx", "u", "😀", "😀a"]
    for session_id in ids:
        memory.session(session_id).variables["n"] = 1
    expected = sorted(session_id for session_id in ids if session_id.startswith(prefix))
    assert expected == [info.id for info in memory.sessions(prefix)]
    pages: list[str | None] = []
    after = None
    while page := list(memory.sessions(prefix, after=after, limit=2)):
        pages += [info.id for info in page]
        after = page[-1]
    assert expected == pages
    assert [] == list(memory.sessions(prefix, limit=0))


def test_a_listing_is_paged_while_others_write(store: evstore.Store):
    """Of 250 sessions none is missed or doubled while others come and go during the listing."""
    ids = [f"s{number:03}" for number in range(250)]
    for session_id in ids:
        store.session(session_id).variables["n"] = 1
    seen = []
    for number, info in enumerate(store.sessions()):
        seen.append(info.id)
        store.session(f"new{number % 7}").variables["n"] = number
        if number == 100:
            store.session("a-before").variables["n"] = 1
            store.delete(ids[5])
            store.delete(ids[249])
    assert ids[:249] == seen[-249:]
    assert len(seen) == len(set(seen))
    assert ids[100:103] == [info.id for info in store.sessions("s", limit=3, after=at(store, 99))]


def at(store: evstore.Store, number: int) -> evstore.SessionInfo:
    return next(store.sessions(f"s{number:03}"))


def test_ended_lives_are_listed(store: evstore.Store):
    """All ended lives are listed in order of id and birth, also several of one id, and in pages."""
    for life in range(3):
        for session_id in ("b", "a"):
            store.session(session_id).variables["n"] = life
            store.delete(session_id)
    store.session("a").variables["n"] = 9
    ended = list(store.sessions(deleted=True))
    assert ["a", "a", "a", "b", "b", "b"] == [info.id for info in ended]
    assert [0, 1, 2] * 2 == [store.session(uid=info.uid).variables["n"] for info in ended]
    after = None
    for info in ended:
        (found,) = store.sessions(deleted=True, after=after, limit=1)
        assert info == found
        after = found
    assert ["a"] == [info.id for info in store.sessions()]


def test_what_a_listing_tells(store: evstore.Store):
    """A SessionInfo tells id, uid, head, times, parent and how many messages and variables."""
    session = store.session("s")
    session.variables.update(a=1, b=2, c=3)
    del session.variables["a"]
    session.metadata["m"] = 1
    session.messages.extend([{"role": "user"}, {"role": "user"}, {"role": "user"}])
    session.messages.pop()
    child = session.fork("t", at=6)
    child.variables["d"] = 4
    first, second = store.sessions()
    assert first == evstore.SessionInfo(
        id="s",
        uid=session.uid or "",
        head=9,
        created_at=session.created_at or datetime.now(UTC),
        updated_at=session.updated_at or datetime.now(UTC),
        parent=None,
        messages=2,
        variables=2,
        expires_at=None,
    )
    assert ("t", 7, child.parent, 1, 3) == (
        second.id,
        second.head,
        second.parent,
        second.messages,
        second.variables,
    )


STAMPS = {
    "backwards": lambda start, step: start - timedelta(seconds=step),
    "standing": lambda start, step: start,
    "jumping": lambda start, step: start + timedelta(seconds=(step * 7) % 5 - 2),
}


@pytest.mark.parametrize("kind", sorted(STAMPS))
def test_time_never_runs_back(path, kind: str):
    """Whatever the clock does, times increase within a session and never run back in a store."""
    steps = iter(range(10_000))
    start = datetime(2030, 1, 1, tzinfo=UTC)
    with evstore.open(
        path, durability="normal", clock=lambda: STAMPS[kind](start, next(steps))
    ) as store:
        sessions = [store.session("a"), store.session("b")]
        for number in range(20):
            sessions[number % 2].variables["n"] = number
            if number in (5, 9):
                sessions.append(sessions[-1].fork(f"f{number}"))
        sessions[-1].variables["n"] = 1
        events = sorted(
            {event.position: event for session in sessions for event in session.events()}.items()
        )
        times = [event.time for _, event in events]
        assert times == sorted(times)
        for session in sessions:
            own = [event.time for event in session.events()]
            assert own == sorted(set(own))
            assert [event.seq for event in session.events()] == [
                session.at(time).seq for time in own
            ]
    with evstore.open(path, clock=lambda: start - timedelta(days=1)) as store:
        event = store.session("c").variables.set("n", 1)[0]
        assert event.time >= times[-1]


def test_what_cannot_be_a_name_is_not_found(session: evstore.Session):
    """A lone surrogate is in no name, label or kind: asking for one finds nothing."""
    session.variables["a"] = 1
    assert [] == list(session.history("\ud800"))
    assert [] == list(session.events(name="\ud800")) == list(session.events(kind="\ud800"))
    assert "\ud800" not in session.variables
    with pytest.raises(NoSuchMoment, match="or a label"):
        session.at("\ud800")
    with pytest.raises(KeyError):
        session.blame("\ud800")


def test_reading_one_session_looks_at_no_other(tmp_path):
    """Whatever is read of a session, no table is read whole: its rows are found by an index."""
    with evstore.open(tmp_path / "agents.db") as store:
        session = store.session("s")
        with session.batch() as batch:
            batch.variables.update(a=1, b="long " * 1000)
            batch.messages.extend([{"role": "user", "content": "hello"}] * 50)
        statements = []
        with store.engine.database.snapshot() as cursor:
            connection = cursor.connection

        def note(_cursor, statement, bindings):
            statements.append((statement, bindings))
            return True

        connection.exec_trace = note
        assert session.variables["a"] == 1
        assert dict(session.variables)["b"] == "long " * 1000
        assert len(session.messages[10:20]) == 10
        assert session.at(2).variables["a"] == 1
        assert len(list(session.history("a"))) == 1
        connection.exec_trace = None
        plans = [
            step[3]
            for statement, bindings in statements
            if statement.startswith(("select", "with"))
            for step in connection.execute(f"explain query plan {statement}", bindings)
        ]
    tables = ("event", "batch", "session", "variable", "checkpoint", "lease")
    assert any(plan.startswith("SEARCH") for plan in plans)
    assert [] == [plan for plan in plans if re.match(rf"SCAN ({'|'.join(tables)})\b", plan)]
