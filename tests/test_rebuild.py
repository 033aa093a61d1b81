"""Rebuilding: the present is the log's cache, and comes back from it exactly."""

import random
import subprocess
import sys
import threading
from itertools import pairwise

import apsw
import pytest

import evstore
from evstore import replay
from evstore.errors import SessionNotFound
from evstore.sqlite import insert, maintain
from evstore.sqlite.pages import checksum_vfs
from evstore.sqlite.schema import scripts
from tests.crash.audit import audit

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
        # A checkpoint is due in the middle of each batch, and written at the end of it.
        for length in (30, 50):
            store.session("long").messages.extend([{"role": "user", "content": "more"}] * length)
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
        long = store.session("longer")
        long.messages.extend({"role": "user", "content": str(number)} for number in range(100))
        fork = long.fork("middle", at=77)
        fork.variables["own"] = 1
        before = replay.fingerprint(store)
        assert [] == list(replay.verify(store, level="full"))
        replay.rebuild(store)
        assert before == replay.fingerprint(store)
        assert [] == list(replay.verify(store, level="full"))


# What is damaged, by the kind of finding that tells of it.
DAMAGES = {
    "variable": {
        "a wrong seq": "update variable set seq = seq - 1 where name = 'name3'",
        "a missing name": "delete from variable where name = 'name3'",
        "no names": "delete from variable",
        "an extra name": "insert into variable select session, family, 'x', seq, created, operand,"
        " value from variable where name = 'name3'",
        "a name of no family": "insert into variable select session, 9, name, seq, created,"
        " operand, value from variable where name = 'name3'",
        "a wrong value": "update variable set value = '7' where value is not null",
        "a fork's metadata": "delete from variable where session = 2 and family = 2",
        "names of no session": "insert into variable select 999, family, name, seq, created,"
        " operand, value from variable where session = 1",
    },
    "checkpoint": {
        "the state of another moment": "update checkpoint set messages = messages + 1,"
        " ranges = (select max(ranges) from checkpoint), names = (select max(names)"
        " from checkpoint)",
        "what is no state": "update checkpoint set names = x'00', ranges = x''",
        "no checkpoints": "delete from checkpoint",
        "a moment to come": "update checkpoint set id = id + 100000 where id % 7 < 3",
        "a shared moment": "insert into checkpoint select (2 << 32) + 1, messages, ranges, names"
        " from checkpoint limit 1",
        "checkpoints of no session": "insert into checkpoint select id + (999 << 32), messages,"
        " ranges, names from checkpoint",
    },
    "session": {
        "no end": "update session set ended = null where id = 'gone'",
        "an end": "update session set ended = 11 where id = 'main'",
        "a strange end": "update session set ended = 16 where id = 'main'",
    },
}


def damage(file, statement):
    """Change derived rows behind the back of evstore."""
    connection = apsw.Connection(str(file), vfs=checksum_vfs())
    connection.execute("pragma foreign_keys=off")
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("kind", "which"), [(kind, which) for kind, several in DAMAGES.items() for which in several]
)
def test_any_damage_is_mended_and_told(path, kind, which):
    """Each wrong, missing or extra row is a finding, and afterwards all is as it was."""
    with evstore.open(path) as store:
        store.session("main").record("app.strange")  # the kind with number 16
    before = derived(path)
    damage(path, DAMAGES[kind][which])
    with evstore.open(path) as store:
        found = replay.rebuild(store)
        assert {kind} == {finding.kind for finding in found}
        assert [] == list(replay.verify(store, level="full"))
        assert [] == replay.rebuild(store)
    assert before == derived(path)


def test_a_sound_store_costs_no_write(path):
    """Where nothing differs nothing is written, and nothing is told."""
    with evstore.open(path) as store:
        store.session("main").record("app.step")
        files = sorted(path.parent.glob("store.db*"))
        before = [file.read_bytes() for file in files if not file.name.endswith("-shm")]
        assert [] == replay.rebuild(store)
        assert [] == replay.rebuild(store, "fork")
        assert before == [file.read_bytes() for file in files if not file.name.endswith("-shm")]


def test_what_is_told_says_what_was_wrong(path):
    """A finding names session, seq and name, and what stood there instead of what."""
    damage(path, "update variable set value = '\"u9\"' where session = 1 and name = 'user'")
    with evstore.open(path) as store:
        (found,) = replay.rebuild(store)
        assert ("main", 1, "variable") == (found.session, found.seq, found.kind)
        assert """'user' is (1, 1, None, '"u9"') where the log says""" in found.what


def test_one_session_and_its_ancestors_are_rebuilt(path):
    """With a session only that and what it shares is mended; one that is not there is refused."""
    damage(path, "update variable set value = '7' where value is not null")
    with evstore.open(path) as store:
        sessions = {finding.session for finding in replay.rebuild(store, "fork")}
        assert {"main", "fork"} == sessions
        assert "u2" == store.session("fork").metadata["user"]
        deeper = store.session("deeper")
        assert 7 == deeper.metadata["user"]
        assert {"deeper"} == {finding.session for finding in replay.rebuild(store, deeper)}
        for nobody in ("nobody", store.session("nobody")):
            with pytest.raises(SessionNotFound):
                replay.rebuild(store, nobody)


def test_the_index_of_words_is_made_anew_where_it_differs(path):
    """Messages that the index lacks, or has beyond the log, are findings; then it finds them."""
    with evstore.open(path) as store:
        assert 55 == len(store.search("turn", session="main", limit=100))
        assert [] == replay.rebuild(store)
        with store.engine.database.writing("normal") as cursor:
            cursor.execute("delete from search where rowid % 3 = 0")
        assert {"search"} == {finding.kind for finding in replay.rebuild(store)}
        assert [] == list(replay.verify(store, level="full"))
        assert 55 == len(store.search("turn", session="main", limit=100))


def test_a_damaged_log_is_told_and_the_others_go_on(path):
    """What cannot be folded is a finding; sessions beside it are mended all the same."""
    damage(path, "update variable set value = '7' where value is not null")
    damage(path, "drop trigger batch_kept; delete from batch where session = 5")
    triggers = scripts()[0]
    start = triggers.index("create trigger batch_kept")
    damage(path, triggers[start : triggers.index("end;", start) + 3])
    with evstore.open(path) as store:
        found = replay.rebuild(store)
        assert ["long"] == [each.session for each in found if each.kind == "damage"]
        assert "u1" == store.session("main").metadata["user"]


@pytest.mark.parametrize("events", [5, 25, 250])
def test_what_is_written_meanwhile_is_folded_in(path, monkeypatch, events):
    """However much is written between the look and the lock, the rows are of the newest event."""
    monkeypatch.setattr(maintain, "_TAIL_EVENTS_MAX", 100)
    monkeypatch.setattr(maintain, "PIECE_NAMES", 3)
    damage(path, "update variable set value = '7' where created is not null")
    correct = maintain._Mending._correct
    with evstore.open(path) as store:
        session = store.session("main")
        written = iter([1, 1])

        def late(mending, names):
            if mending._life.id == "main" and next(written, None):
                for number in range(events):
                    session.variables[f"name{number % 3}"] = f"late {number}"
                session.variables.pop("name3", None)
                if events == 25:  # What was wrong may be wrong again, where nobody has looked yet.
                    with store.engine.database.writing("normal") as cursor:
                        after = mending._life.event_id(mending._outline.seq)
                        query = "update checkpoint set messages = messages + 1 where id > ?"
                        cursor.execute(query, (after,))
                correct(mending, names)
                assert f"late {events - 1}" == session.variables[f"name{(events - 1) % 3}"]
                assert "name3" not in session.variables
            else:
                correct(mending, names)

        monkeypatch.setattr(maintain._Mending, "_correct", late)
        replay.rebuild(store)
        assert f"late {events - 1}" == session.variables[f"name{(events - 1) % 3}"]
        assert "name3" not in session.variables
        findings = list(replay.verify(store, level="full"))
        # What a damaged row told a writer stays in the log: which event was the one before.
        assert {"event"} >= {finding.kind for finding in findings}
        audit(store)


def test_many_names_are_mended_a_few_at_a_time(tmp_path):
    """A session of 10,000 names is mended in transactions of a few rows, whatever is wrong."""
    file = tmp_path / "names.db"
    with evstore.open(file, durability="normal") as store:
        store.session("s").variables.update({f"name{number}": number for number in range(10_000)})
    damage(file, "update variable set value = '-1' where seq % 10 = 0")
    with evstore.open(file) as store:
        counts = []
        with store.engine.database.writing("normal") as cursor:
            connection = cursor.connection

        def committed():
            counts.append(connection.total_changes())
            return False

        connection.set_commit_hook(committed)
        assert 1000 == len(replay.rebuild(store))
        connection.set_commit_hook(None)
        steps = [after - before for before, after in pairwise(counts)]
        assert maintain.PIECE_NAMES >= max(steps)
        assert [] == list(replay.verify(store, level="full"))


WRITES = """
import sys, evstore
with evstore.open(sys.argv[1], durability="normal") as store:
    session = store.session("busy")
    for number in range(150):
        with session.batch(expect=evstore.ANY) as batch:
            batch.variables["left"] = batch.variables["right"] = f"{sys.argv[2]} {number}"
            batch.messages.append({"role": "user", "content": sys.argv[2]})
        store.session(sys.argv[2]).variables[f"name{number % 9}"] = number
print("done")
"""


def test_a_rebuild_beside_four_writers_keeps_the_present(tmp_path):
    """While four processes write, readers see at every moment what the log says.

    Rows of another session are damaged again and again; those of the writers stay right throughout.
    """
    file = tmp_path / "store.db"
    names = {f"name{number}": number for number in range(2000)}
    with evstore.open(file, durability="normal") as store:
        store.session("still").variables.update(names)
    arguments = [sys.executable, "-c", WRITES, str(file)]
    writers = [
        subprocess.Popen([*arguments, f"writer {n}"], stdout=subprocess.PIPE) for n in range(4)
    ]
    chance, found, wrong = random.Random(1), 0, []
    over = threading.Event()

    def read():
        with evstore.open(file, read_only=True) as reader:
            while not over.is_set():
                view = reader.session("busy").view()
                left, right = view.variables.get("left"), view.variables.get("right")
                if left != right or 3 * len(view.messages) != view.seq:
                    wrong.append((view.seq, left, right, len(view.messages)))

    reading = threading.Thread(target=read)
    reading.start()
    try:
        with evstore.open(file, durability="normal") as store:
            while any(writer.poll() is None for writer in writers):
                with store.engine.database.writing("normal") as cursor:
                    cursor.execute(
                        "update variable set value = '-1' where session = 1 and seq % 5 = ?",
                        (chance.randrange(5),),
                    )
                found += len(replay.rebuild(store))
                assert names == store.session("still").variables
    finally:
        over.set()
        reading.join()
        outputs = [writer.communicate()[0] for writer in writers]
    assert [b"done\n"] * 4 == outputs
    assert [] == wrong
    assert found > 0
    assert found % 400 == 0  # none but the rows that were damaged
    with evstore.open(file) as store:
        assert 1800 == store.session("busy").head
        audit(store)
        assert [] == list(replay.verify(store, level="full"))
