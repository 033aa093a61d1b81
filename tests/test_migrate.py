"""Migrating: a new file holds every life as it was, or as a transform would have it."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.errors import Corrupt, NotUpcast, ReadOnly, Refused, Taken, Unavailable
from evstore.replay import changed
from evstore.sqlite import insert
from evstore.sqlite.renumbering import Renumbering
from tests.crash.audit import all_batches, audit
from tests.histories import HISTORIES, fresh_store, live_through, said, states, values_of
from tests.values_strategy import fingerprint

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Return an open store with forks, ended lives, keys, labels, deadlines and large values."""
    monkeypatch.setattr(insert, "CHECKPOINT_EVENTS", 20)
    with evstore.open(tmp_path / "source.db", durability="normal", actor="ada") as store:
        trip = store.session("trip", metadata={"owner": "ada"})
        for turn in range(12):
            with trip.batch(key=f"turn {turn}", cause="asked") as batch:
                batch.variables["state"] = {"turn": turn, "text": "Rome and Naples " * 200}
                batch.variables[f"name{turn % 3}"] = turn
                batch.messages.append(said(f"turn {turn}"))
        trip.label("here", at=9)
        trip.messages.remove(2)
        trip.messages.replace(0, said("first"))
        trip.record("app.thought", {"deep": (1, 2)})
        trip.undo()
        trip.revert(to=20)
        fork = trip.fork("what-if", at=14)
        fork.messages.pop()
        fork.metadata["owner"] = "bob"
        trip.merge(fork, prefer="ours")
        fork.fork("deeper")
        store.session("gone").variables["x"] = {1, 2}
        store.delete("gone")
        store.session("gone", ttl=timedelta(days=2)).variables["x"] = 2
        store.session("fixed", ttl=LATER).variables.set("soon", 3, ttl=3600)
        yield store


def leases(store):
    """The deadlines of a store, by uid."""
    with store.engine.database.snapshot() as cursor:
        return cursor.execute(
            "select hex(uid), expires, ttl from lease join session on number = session order by 1"
        ).fetchall()


def test_an_exact_copy_has_every_link(source, tmp_path):
    """Without a transform seqs, times, actors, keys, salts, links, uids and deadlines stay."""
    migrated = replay.migrate(source, tmp_path / "copy.db")
    counts = source.engine.counts()
    assert replay.Migrated(6, counts.batches, counts.events, untouched=6) == migrated
    with evstore.open(tmp_path / "copy.db", create=False) as copy:
        assert all_batches(source) == audit(copy)
        assert leases(source) == leases(copy)
        assert 2 == len(leases(copy))
        assert replay.fingerprint(source) == replay.fingerprint(copy)
        assert copy.session("fixed").variables.info("soon").expires_at is not None
        with copy.engine.database.snapshot() as cursor:
            assert cursor.execute("select count(*) from event where encoding = 2").get > 5


def test_a_transform_that_changes_nothing_leaves_all_untouched(source, tmp_path):
    """Batches that come back as they were keep their links; only the record is new."""
    migrated = replay.migrate(source, tmp_path / "copy.db", lambda commit: commit)
    assert (6, 0, 0, 0) == (
        migrated.untouched,
        migrated.changed,
        migrated.added,
        migrated.dropped,
    )
    with evstore.open(tmp_path / "copy.db") as copy:
        *batches, record = all_batches(copy)
        assert all_batches(source) == batches
        (event,) = copy.session("evstore.migrations").events()
        assert record.key == f"evstore.migrations:{batches[-1].link.hex()}"
        assert "app.evstore.migrated" == event.kind
        assert "tests.test_migrate" in event.data["transform"]
        assert migrated.events == event.data["events"]
        assert leases(source) == leases(copy)


@settings(max_examples=25, deadline=None)
@given(HISTORIES, st.sampled_from([3, 1000]))
def test_any_history_comes_over(tmp_path_factory, history, checkpoints):
    """Exactly, and through a transform that puts an event of its own before each, by the law."""

    def doubled(commit):
        notes = [changed(event, {"n": 1}, kind="app.note", name=None) for event in commit.events]
        pairs = zip(notes, commit.events, strict=True)
        return commit.having(event for pair in pairs for event in pair)

    folder = tmp_path_factory.mktemp("any")
    with fresh_store(checkpoints) as store:
        sessions = live_through(store, history)
        replay.migrate(store, folder / "exact.db")
        replay.migrate(store, folder / "doubled.db", doubled)
        with evstore.open(folder / "exact.db") as exact, evstore.open(folder / "doubled.db") as two:
            assert all_batches(store) == all_batches(exact)
            for session in sessions:
                if session.uid is None:
                    continue
                twice = two.session(uid=session.uid)
                assert 2 * session.head == twice.head
                after = states(twice)
                for seq, state in enumerate(states(session)):
                    assert plain(state) == plain(after[2 * seq])
                    labels = {name: 2 * at for name, at in state.labels.items()}
                    assert labels == after[2 * seq].labels
                for taken_back in (session, twice):
                    taken_back.undo()
                assert plain(states(session)[-1]) == plain(states(twice)[-1])


def plain(state):
    """What a reader sees of a state: values exact, without the seqs."""
    messages = [fingerprint(message) for _, message in state.messages]
    return values_of(state.variables), values_of(state.metadata), messages


def migrated(source, tmp_path, transform):
    """What a migration says, and the new store."""
    path = tmp_path / "target.db"
    found = replay.migrate(source, path, transform)
    return found, evstore.open(path, durability="normal")


def test_events_are_kept_changed_split_dropped_and_merged(tmp_path):
    """A batch may come out with other events; what names a sequence names the new one."""

    def transform(commit):
        kept = []
        for event in commit.events:
            if event.name == "city":
                kept.append(changed(event, {"value": event.data["value"].upper()}, name="town"))
            elif event.kind == "message.added":
                words = event.data["message"]["content"].split()
                kept += [changed(event, {"message": said(word)}) for word in words]
            elif event.kind == "app.step":  # all of a batch become one
                if not any(known.kind == "app.steps" for known in kept):
                    kept.append(changed(event, [event.data], kind="app.steps"))
            elif event.name != "noise":
                kept.append(event)
        return commit.having(kept)

    with evstore.open(":memory:") as source:
        trip = source.session("trip")
        trip.variables["noise"] = "x"
        trip.variables["city"] = "Rome"
        with trip.batch(key="steps", actor="bot") as batch:
            batch.record("app.step", 1)
            batch.record("app.step", 2)
        trip.messages.extend([said("one two"), said("three"), said("four five")])
        trip.label("here")
        trip.messages.replace(2, said("six"), reason="better")
        trip.messages.remove(0)
        fork = trip.fork("fork", at=6)
        fork.messages.pop()
        found, target = migrated(source, tmp_path, transform)
        with target:
            moved = target.session("trip")
            assert {"town": "ROME"} == moved.variables
            assert ["three", "six"] == [message["content"] for message in moved.messages]
            assert 7 == moved.view().labels["here"]
            assert 5 == len(moved.at("here").messages)
            assert ["one", "two"] == [m["content"] for m in target.session("fork").messages]
            assert {"steps"} == {b.key for b in all_batches(target) if b.actor == "bot"}
            assert [1] == [e.data[0] for e in moved.events(kind="app.steps")]
            audit(target)
            times = {batch.time_us for batch in all_batches(source)}
            assert times >= {batch.time_us for batch in all_batches(target)[:-1]}
        # Changed: the town, the steps, and three messages whose first part is new (two are split).
        assert (2, 0, 2) == (found.dropped, found.untouched, found.sessions)
        assert found.added >= 3


def test_sessions_are_renamed_split_and_dropped(source, tmp_path):
    """A batch may go to a session of another name, or to several, or nowhere."""

    def transform(commit):
        if commit.session == "gone":
            return
        if commit.session == "trip":
            talk = [event for event in commit.events if event.kind.startswith("message")]
            rest = [event for event in commit.events if event not in talk]
            yield commit.having(rest)
            yield attrs.evolve(commit.having(talk), session="trip/talk", actor=None)
        else:
            yield attrs.evolve(commit, session=f"old/{commit.session}")

    _, target = migrated(source, tmp_path, transform)
    with target:
        ids = ["evstore.migrations", "old/deeper", "old/fixed", "old/what-if", "trip", "trip/talk"]
        assert ids == [info.id for info in target.sessions()]
        assert [] == list(target.sessions(deleted=True))
        for moved, name in [("trip", "trip"), ("old/what-if", "what-if")]:
            assert source.session(name).variables == target.session(moved).variables
            assert source.session(name).uid == target.session(moved).uid
        assert source.session("trip").messages == target.session("trip/talk").messages
        assert "trip" == target.session("old/what-if").parent.id
        assert ("old/fixed", LATER) in [(i.id, i.expires_at) for i in target.sessions()]
        audit(target)


def test_a_fork_outlives_the_past_that_was_dropped(tmp_path):
    """Without its parent a fork begins anew, and what it took back of it is gone as well."""
    with evstore.open(":memory:") as source:
        trip = source.session("trip")
        trip.messages.extend([said("one"), said("two")])
        middle = trip.fork("middle")
        leaf = middle.fork("leaf")
        start = trip.fork("start", at=0)
        start.variables["x"] = 0
        leaf.messages.replace(0, said("new"))
        leaf.messages.remove(1)
        leaf.variables["x"] = 1
        leaf.revert(to=2)
        leaf.merge(trip, prefer="ours")

        _, target = migrated(source, tmp_path, lambda c: None if c.session == "trip" else c)
        with target:
            moved = target.session("leaf")
            assert ({}, None) == (moved.variables, moved.parent)
            assert [] == list(moved.messages)
            assert [said("new")] == list(moved.at(1).messages)
            assert {"x": 0} == target.session("start").variables
            assert "middle" not in target
            audit(target)


def test_a_fork_of_what_left_nothing_shares_what_that_shared(tmp_path):
    """A fork whose parent wrote nothing that was kept hangs on the life before it."""
    with evstore.open(":memory:") as source:
        trip = source.session("trip")
        trip.variables["a"] = 1
        middle = trip.fork("middle")
        middle.record("app.noise")
        leaf = middle.fork("leaf")
        leaf.variables["b"] = 2
        leaf.label("shared", at=1)
        leaf.label("start", at=0)

        def quiet(commit):
            return commit.having(e for e in commit.events if e.kind != "app.noise")

        found, target = migrated(source, tmp_path, quiet)
        with target:
            moved = target.session("leaf")
            assert {"a": 1, "b": 2} == moved.variables
            assert ("trip", 1) == (moved.parent.id, moved.parent.seq)
            assert {"shared": 1, "start": 0} == moved.view().labels
            assert (3, 1, 1) == (found.sessions, found.dropped, found.untouched)
            audit(target)


def test_what_was_taken_back_stays_so(tmp_path):
    """Undo, redo, revert and merge go on from the batches that they name, wherever those are."""
    with evstore.open(":memory:") as source:
        trip = source.session("trip")
        for number in range(5):
            trip.variables["a"] = number
        trip.undo()
        fork = trip.fork("fork")
        fork.variables["b"] = 1
        trip.merge(fork)
        back = source.session("back")
        for number in range(3):
            back.variables["a"] = number
        back.revert(to=1)
        back.undo()
        _, target = migrated(source, tmp_path, busy)
        with target:
            trip, fork, back = (target.session(name) for name in ("trip", "fork", "back"))
            causes = [event.cause for event in trip.events(kind="variable.set")]
            assert causes[-2:] == ["undo:9", f"merge:{fork.uid}:14"]
            assert {"a": 3, "b": 1} == trip.variables
            trip.undo()
            trip.undo()
            assert {"a": 2} == trip.variables
            fork.variables["c"] = 1
            assert 1 == len(trip.merge(fork).events)
            assert ["revert:2", "undo:7"] == [e.cause for e in back.events(name="a")][-2:]
            back.redo()
            assert {"a": 0} == back.variables


def test_data_comes_to_a_transform_in_its_newest_version(tmp_path):
    """What is written back from `event.data` has that version; else the stored one stays."""
    evstore.upcast("app.evolving", 1)(lambda data: {**data, "lifted": True})
    with evstore.open(":memory:") as source:
        source.session("s").record("app.evolving", {"n": 1}, version=1)

        def lifted(commit):
            return commit.having(changed(event, event.data) for event in commit.events)

        assert 1 == replay.migrate(source, tmp_path / "same.db", lambda c: c).untouched
        _, target = migrated(source, tmp_path, lifted)
        with target:
            (event,) = target.session("s").events()
            assert (2, '{"n":1,"lifted":true}') == (event.version, event.text)


REFUSED = {
    "raised": lambda commit: 1 / 0,
    "give the batch, several": lambda commit: [commit.events],
    "another uid or time": lambda commit: attrs.evolve(commit, uid="0" * 32),
    "two batches for one session": lambda commit: [commit, commit],
    "no event of the batch": lambda commit: commit.having([1]),
    "no event of": lambda commit: commit.having(attrs.evolve(e, seq=99) for e in commit.events),
    "names no seq": lambda commit: commit.having(
        changed(event, {"seq": "1"}, kind="message.removed", name=None) for event in commit.events
    ),
    "names no to": lambda commit: commit.having(
        attrs.evolve(event, text="{", kind="messages.reverted", name=None)
        for event in commit.events
    ),
    "cannot be written: ": lambda commit: commit.having(
        changed(event, [], kind="session.nonsense") for event in commit.events
    ),
    "session id": lambda commit: attrs.evolve(commit, session="\n"),
    "actor": lambda commit: attrs.evolve(commit, actor=7),
    "name": lambda commit: commit.having(attrs.evolve(e, name=7) for e in commit.events),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_a_transform_may_not_do_is_refused(source, tmp_path, words):
    """Nonsense from a transform is refused with the reason, and the target gets no name."""
    with pytest.raises(Refused, match=words):
        replay.migrate(source, tmp_path / "target.db", REFUSED[words])
    assert not (tmp_path / "target.db").exists()


def test_an_error_of_evstore_in_a_transform_keeps_its_class(source, tmp_path):
    """What is typed already is raised as it is."""

    def fails(commit):
        raise NotUpcast("app.x", 1, "it is too old")

    with pytest.raises(NotUpcast):
        replay.migrate(source, tmp_path / "target.db", fails)


def test_two_living_sessions_of_one_id_are_refused(source, tmp_path):
    """Sessions cannot be joined: an id belongs to one life."""
    with pytest.raises(Taken):
        replay.migrate(source, tmp_path / "x.db", lambda c: attrs.evolve(c, session="same"))


def test_a_dry_run_writes_nothing_and_counts_the_same(source, tmp_path):
    """A dry run tells what a migration would, and leaves no file behind."""

    def quiet(commit):
        return commit.having(event for event in commit.events if event.name != "name1")

    for transform in (None, quiet):
        before = sorted(tmp_path.iterdir())
        counted = replay.migrate(source, tmp_path / "target.db", transform, dry_run=True)
        assert before == sorted(tmp_path.iterdir())
        found = replay.migrate(source, tmp_path / f"{transform is None}.db", transform)
        assert counted == found


def test_what_is_there_is_left_alone(source, tmp_path):
    """Neither a target that is there nor one that was begun is touched unasked."""
    target = tmp_path / "target.db"
    target.write_text("mine")
    for resume, dry_run in ((False, False), (True, False), (False, True)):
        with pytest.raises(Refused, match="is there already"):
            replay.migrate(source, target, resume=resume, dry_run=dry_run)
    assert "mine" == target.read_text()
    target.unlink()
    (tmp_path / "target.db.migrating").write_text("begun")
    with pytest.raises(Refused, match="resume it"):
        replay.migrate(source, target)


class Interrupted(Exception):
    """The test cuts a migration short."""


def cut_short(source, path, transform, batches):
    """Let a migration end after so many batches were read, as a kill would."""

    def progress(done, until):
        if done >= batches:
            raise Interrupted

    with pytest.raises(Interrupted):
        replay.migrate(source, path, transform, resume=True, progress=progress)


def busy(commit):
    """Give every batch one event more, and drop some."""
    notes = [changed(event, "note", kind="app.note", name=None) for event in commit.events[:1]]
    return commit.having([*notes, *(e for e in commit.events if e.name != "name1")])


@pytest.mark.parametrize("transform", [None, busy])
def test_a_migration_that_was_cut_short_goes_on(source, tmp_path, monkeypatch, transform):
    """Cut after any page and resumed, it ends as if it had not been; nothing is doubled."""
    monkeypatch.setattr("evstore.replay.migration.PAGE_EVENTS", 5)
    whole = replay.migrate(source, tmp_path / "whole.db", transform)
    path = tmp_path / "target.db"
    for batches in (5, 5, 10, 25):
        cut_short(source, path, transform, batches)
        assert not path.exists()
    assert whole == replay.migrate(source, path, transform, resume=True)
    with evstore.open(tmp_path / "whole.db") as once, evstore.open(path) as resumed:
        count = whole.batches
        assert all_batches(once)[:count] == audit(resumed)[:count]
        assert leases(once) == leases(resumed)
    assert ["target.db"] == [p.name for p in tmp_path.iterdir() if p.name.startswith("target")]


@pytest.mark.parametrize("transform", [None, busy])
def test_a_migration_cut_before_it_got_its_name_is_not_done_twice(
    source, tmp_path, monkeypatch, transform
):
    """Where all was written and the name was missing, resuming gives just that."""
    path = tmp_path / "target.db"
    with monkeypatch.context() as patch, pytest.raises(OSError, match="cut"):
        patch.setattr("evstore.replay.migration.put_in_place", cut)
        replay.migrate(source, path, transform)
    replay.migrate(source, path, transform, resume=True)
    with evstore.open(path) as store:
        records = [b for b in audit(store) if (b.key or "").startswith("evstore.migrations")]
        assert (transform is not None) == len(records)


def cut(*_places):
    raise OSError("cut")


@pytest.mark.parametrize(("first", "then"), [(None, busy), (busy, None), (busy, lambda c: c)])
def test_another_transform_or_source_does_not_go_on(source, tmp_path, monkeypatch, first, then):
    """What was begun otherwise is not continued, and is left as it is."""
    monkeypatch.setattr("evstore.replay.migration.PAGE_EVENTS", 5)
    cut_short(source, tmp_path / "target.db", first, 10)
    with pytest.raises(Refused, match="begun from another"):
        replay.migrate(source, tmp_path / "target.db", then, resume=True)
    with evstore.open(":memory:") as other, pytest.raises(Refused, match="begun from another"):
        other.session("s").variables["x"] = 1
        replay.migrate(other, tmp_path / "target.db", first, resume=True)


def test_an_empty_store_is_migrated(tmp_path):
    """No sessions are no trouble."""
    with evstore.open(":memory:") as source:
        assert replay.Migrated() == replay.migrate(source, tmp_path / "a.db")
        assert replay.Migrated() == replay.migrate(source, tmp_path / "b.db", busy)


def test_what_is_written_meanwhile_is_left_out(source, tmp_path):
    """A migration ends where the source ended when it began."""
    count = source.engine.position()

    def writes(done, until):
        source.session("late").variables["x"] = 1

    found = replay.migrate(source, tmp_path / "target.db", progress=writes)
    assert count == found.batches


def test_a_damaged_source_gives_no_target(source, tmp_path):
    """A batch that is not what its link says ends an exact copy, and names the source."""
    with source.engine.database.writing("normal") as cursor:
        cursor.execute("drop trigger batch_frozen")
        cursor.execute("update batch set actor = 'eve' where position = 4")
    with pytest.raises(Corrupt, match=r"source\.db"):
        replay.migrate(source, tmp_path / "target.db")
    assert not (tmp_path / "target.db").exists()


def test_a_target_that_another_has_open_gets_no_name(source, tmp_path, monkeypatch):
    """While its log is in use by others, a file cannot be given its name."""

    def open_elsewhere(path):
        return path.endswith("-wal")

    with monkeypatch.context() as patch, pytest.raises(Unavailable, match="has it open"):
        patch.setattr("evstore.replay.migration.os.path.exists", open_elsewhere)
        replay.migrate(source, tmp_path / "target.db")


def test_a_source_that_is_read_only_will_do(source, tmp_path):
    """Migrating reads: a handle that may not write is enough, and stays so."""
    with evstore.open(source.engine.path, read_only=True) as reader:
        replay.migrate(reader, tmp_path / "target.db", busy)
        with pytest.raises(ReadOnly):
            replay.rebuild(reader)


@pytest.mark.parametrize("transform", [None, busy])
def test_a_target_that_is_damaged_gets_no_name(source, tmp_path, monkeypatch, transform):
    """What cannot be written to, or does not verify, is told by its own path."""
    target = tmp_path / "target.db"
    with monkeypatch.context() as patch, pytest.raises(Corrupt, match="migrating"):
        patch.setattr("evstore.sqlite.engine.Engine.adopt", damaged)
        replay.migrate(source, target, transform)
    finding = replay.Finding("trip", 1, "link", "it does not fit")
    with monkeypatch.context() as patch, pytest.raises(Corrupt, match="does not verify"):
        patch.setattr("evstore.replay.migration.verify", lambda *_, **__: iter([finding]))
        replay.migrate(source, target, transform, resume=True)
    assert not target.exists()


def damaged(engine, *_batches):
    raise Corrupt(engine.path, "a page is gone")


def test_what_has_more_than_is_made_does_not_go_on(source, tmp_path, monkeypatch):
    """Where somebody has written to what was begun, it is not taken for the target."""
    with monkeypatch.context() as patch, pytest.raises(OSError, match="cut"):
        patch.setattr("evstore.replay.migration.put_in_place", cut)
        replay.migrate(source, tmp_path / "target.db", busy)
    with evstore.open(tmp_path / "target.db.migrating") as begun:
        begun.session("mine").variables["x"] = 1
    with pytest.raises(Refused, match="begun from another"):
        replay.migrate(source, tmp_path / "target.db", busy, resume=True)


def test_a_full_disk_for_temporary_files_is_told():
    """What a migration keeps aside may find no room: that is Unavailable."""
    with closing(Renumbering()) as numbers, pytest.raises(Unavailable):
        numbers._cursor.execute("pragma max_page_count=8")
        for seq in range(10_000):
            numbers.put_event(bytes(16), seq, seq, carries=True)
