"""Rebuilding: the present is the log's cache, and comes back from it exactly."""

import apsw
import pytest

import evstore
from evstore import replay
from evstore.sqlite import insert
from evstore.sqlite.pages import checksum_vfs

DERIVED = {
    "variable": "select * from variable order by session, family, name",
    "checkpoint": "select * from checkpoint order by id",
    "session": "select number, ended from session order by number",
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return the path of a store with forks, deletions, ended lives and checkpoints."""
    monkeypatch.setattr(insert, "CHECKPOINT_EVENTS", 20)
    path = tmp_path / "store.db"
    with evstore.open(path) as store:
        main = store.session("main", metadata={"user": "u1", "notes": "n" * 600})
        for turn in range(60):
            main.variables[f"name{turn % 7}"] = {"turn": turn, "text": "x" * (turn * 20)}
            main.messages.append({"role": "user", "content": f"turn {turn}"})
            if turn % 11 == 10:
                del main.variables[f"name{turn % 7}"]
                main.messages.remove(turn // 2)
        fork = main.fork("fork", at=70)
        fork.metadata["user"] = "u2"
        fork.fork("deeper").variables.clear()
        store.session("gone").messages.append({"role": "user", "content": "bye"})
        store.delete("gone")
    return path


def derived(path):
    """Return everything in the file that is derived from the log."""
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    found = {table: connection.execute(query).fetchall() for table, query in DERIVED.items()}
    connection.close()
    return found


def test_what_is_derived_comes_back_to_the_letter(path):
    """Emptied tables come back from the log as they were."""
    before = derived(path)
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    connection.execute("delete from variable; delete from checkpoint; update session set ended = 2")
    connection.close()
    assert before != derived(path)

    with evstore.open(path) as store:
        replay.rebuild(store)

    assert before == derived(path)


def test_a_wrong_present_is_made_right(path):
    """A present that was changed behind evstore's back is found, and a rebuild mends it."""
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    connection.execute("update variable set value = '\"wrong\"' where name = 'user'")
    connection.close()

    with evstore.open(path) as store:
        assert "wrong" == store.session("main").metadata["user"]
        assert [] != list(replay.verify(store, level="full"))
        replay.rebuild(store)
        assert "u1" == store.session("main").metadata["user"]
        assert [] == list(replay.verify(store, level="full"))


def test_the_log_is_left_alone(path):
    """A rebuild changes no row of the log."""
    query = "select group_concat(hex(link)) from (select link from batch order by position)"
    with evstore.open(path) as store:
        before = list(store.session("main").events())
        fingerprint = replay.fingerprint(store)
        replay.rebuild(store)
        assert before == list(store.session("main").events())
        assert fingerprint == replay.fingerprint(store)
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    assert connection.execute(query).get
    connection.close()


def test_open_handles_go_on_after_a_rebuild(path):
    """Handles that were in use before a rebuild read and write as before."""
    with evstore.open(path) as store:
        session = store.session("main")
        count = len(session.messages)
        replay.rebuild(store)
        session.messages.append({"role": "user", "content": "after"})
        assert count + 1 == len(session.messages)
        assert [] == list(replay.verify(store, level="full"))


def test_a_store_that_is_read_only_is_not_rebuilt(path):
    """Rebuilding writes, and a read-only store refuses it."""
    with evstore.open(path, read_only=True) as store, pytest.raises(evstore.errors.ReadOnly):
        replay.rebuild(store)


def test_a_fingerprint_tells_states_apart(path):
    """The fingerprint changes with any variable, message, metadata or head, and only so."""
    with evstore.open(path) as store:
        session = store.session("main")
        seen = {replay.fingerprint(store)}
        session.variables["new"] = 1
        seen.add(replay.fingerprint(store))
        session.metadata["new"] = 1
        seen.add(replay.fingerprint(store))
        session.messages.append({"role": "user", "content": "new"})
        seen.add(replay.fingerprint(store))
        session.record("app.step")
        seen.add(replay.fingerprint(store))
        assert 5 == len(seen)
    with evstore.open(path) as store:
        assert replay.fingerprint(store) in seen


def test_a_fork_in_the_middle_of_a_long_batch_rebuilds(path):
    """A fork point far from any checkpoint gives the fork no checkpoint of a past not its own."""
    with evstore.open(path) as store:
        long = store.session("long")
        long.messages.extend({"role": "user", "content": str(number)} for number in range(100))
        fork = long.fork("middle", at=77)
        fork.variables["own"] = 1
        before = replay.fingerprint(store)
        assert [] == list(replay.verify(store, level="full"))
        replay.rebuild(store)
        assert before == replay.fingerprint(store)
        assert [] == list(replay.verify(store, level="full"))
