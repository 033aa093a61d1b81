"""Verification: whatever is changed behind evstore's back is found, column by column."""

from datetime import UTC, datetime

import apsw
import attrs
import pytest

import evstore
from evstore import chain, replay
from evstore.errors import Corrupt
from evstore.sqlite import insert, payload
from evstore.sqlite.pages import checksum_vfs


@pytest.fixture
def broad(tmp_path, monkeypatch):
    """Return the path of a store that uses every column of the log and of what is derived."""
    monkeypatch.setattr(insert, "CHECKPOINT_EVENTS", 5)
    path = tmp_path / "broad.db"
    with evstore.open(path, actor="tester") as store:
        main = store.session("main", metadata={"user": "u1"})
        for turn in range(12):
            main.variables[f"name{turn % 3}"] = turn
            main.messages.append(
                {"role": "user", "content": f"turn {turn} " * (200 if turn == 7 else 1)}
            )
        with main.batch(key="once", cause="because", actor="planner") as batch:
            batch.messages.remove(2, reason="wrong")
            batch.messages.replace(3, {"role": "user", "content": "right"})
            del batch.variables["name0"]
        main.variables["long"] = "x" * 2000
        fork = main.fork("fork", at=10)
        fork.variables["name1"] = "forked"
        fork.record("app.step", {"done": True})
        store.session("gone").variables["a"] = 1
        store.delete("gone")
        store.session("again").variables["a"] = 1
        uid = store.session("again").uid
        assert uid
        store.delete("again")
        store.restore(uid)
    return path


def alter(path, *statements):
    """Change the file with its triggers dropped and put back, every page checksum being right."""
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    triggers = connection.execute(
        "select name, sql from sqlite_schema where type = 'trigger'"
    ).fetchall()
    for name, _ in triggers:
        connection.execute(f"drop trigger {name}")
    connection.execute("pragma ignore_check_constraints=on")
    changes = connection.total_changes()
    for statement in statements:
        connection.execute(statement)
    changed = connection.total_changes() - changes
    for _, sql in triggers:
        connection.execute(str(sql))
    connection.close()
    return changed


def findings(path, level="full"):
    """Return what verify finds."""
    with evstore.open(path) as store:
        return list(replay.verify(store, level=level))


EVENT = "where id = (select max(id) from event where {})"
COLUMN_EDITS = {
    "event.id": "update event set id = id + 1000 where id = (select max(id) from event)",
    "event.id, another session's": "update event set id = id + (5 << 32) where id >> 32 = 2",
    "event.kind": "update event set kind = 2 " + EVENT.format("kind = 1"),
    "event.version": "update event set version = 2 " + EVENT.format("kind = 1"),
    "event.name": "update event set name = 'other' " + EVENT.format("name = 'name1'"),
    "event.base": "update event set base = base - 1 " + EVENT.format("base > 1"),
    "event.base, nulled": "update event set base = null " + EVENT.format("base is not null"),
    "event.operand": "update event set operand = operand + 1 " + EVENT.format("kind = 6"),
    "event.operand, of a set": "update event set operand = 1 " + EVENT.format("kind = 1"),
    "event.encoding": "update event set encoding = 0 " + EVENT.format("encoding = 1"),
    "event.encoding, of text": "update event set encoding = 1 " + EVENT.format("encoding = 0"),
    "event.encoding, forgotten": "update event set encoding = 3 " + EVENT.format("encoding = 0"),
    "event.delta": "update event set delta = 1 " + EVENT.format("encoding = 1"),
    "event.delta, of text": "update event set delta = 1 " + EVENT.format("encoding = 0"),
    "event.size": "update event set size = size + 1 " + EVENT.format("encoding = 0"),
    "event.size, compressed": "update event set size = size + 1 " + EVENT.format("encoding = 1"),
    "event.position": "update event set position = position - 1 " + EVENT.format("kind = 5"),
    "event.position, of no batch": "update event set position = 1000 " + EVENT.format("kind = 5"),
    "event.salt": "update event set salt = zeroblob(16) " + EVENT.format("kind = 5"),
    "event.salt, nulled": "update event set salt = null " + EVENT.format("kind = 5"),
    "event.data": "update event set data = replace(data, 'turn', 'burn') "
    + EVENT.format("data like '%turn%'"),
    "event.data, nulled": "update event set data = null " + EVENT.format("kind = 5"),
    "batch.position": "update batch set position = 1000 where position = 3",
    "batch.position, newest": "update batch set position = position + 1"
    " where position = (select max(position) from batch)",
    "batch.session": "update batch set session = 2 where position = 3",
    "batch.first": "update batch set first = first + 1 where position = 3",
    "batch.first, of a fork": "update batch set first = first - 1 where last = first - 1",
    "batch.last": "update batch set last = last + 1 where position = 3",
    "batch.time": "update batch set time = time + 1 where position = 3",
    "batch.actor": "update batch set actor = 'someone' where position = 3",
    "batch.actor, nulled": "update batch set actor = null where position = 3",
    "batch.cause": "update batch set cause = 'else' where cause = 'because'",
    "batch.key": "update batch set key = 'twice' where key = 'once'",
    "batch.key, given": "update batch set key = 'new' where position = 3",
    "batch.key, of a fork's birth": "update batch set key = 'new' where last = first - 1",
    "batch.link": "update batch set link = zeroblob(32) where position = 3",
    "session.number": "update session set number = 100 where number = 1",
    "session.uid": "update session set uid = zeroblob(16) where number = 1",
    "session.id": "update session set id = 'other' where number = 1",
    "session.id, nulled": "update session set id = null where number = 1",
    "session.created": "update session set created = created + 1 where number = 1",
    "session.parent": "update session set parent = 3 where parent = 1",
    "session.parent, nulled": "update session set parent = null where parent = 1",
    "session.fork": "update session set fork = fork - 1 where fork is not null",
    "session.fork, given": "update session set fork = 1 where number = 3",
    "session.salt": "update session set salt = zeroblob(16) where number = 1",
    "session.leaf": "update session set leaf = zeroblob(32) where number = 1",
    "session.position": "update session set position = position + 1 where number = 1",
    "session.ended": "update session set ended = 11 where number = 1",
    "session.ended, nulled": "update session set ended = null, id = 'x' where ended is not null",
    "kind.name": "update kind set name = 'variable.put' where number = 1",
    "kind.name, of an application": "update kind set name = 'app.other' where number = 16",
    "kind.number": "update kind set number = 17 where number = 16",
    "variable.session": "update variable set session = 3 where session = 2",
    "variable.family": "update variable set family = 2 where session = 1 and name = 'name1'",
    "variable.name": "update variable set name = 'other' where session = 1 and name = 'name1'",
    "variable.seq": "update variable set seq = seq - 1 where session = 1 and name = 'name1'",
    "variable.created": "update variable set created = 9 where session = 1 and name = 'name1'",
    "variable.created, nulled": "update variable set created = null where name = 'name1'",
    "variable.operand": "update variable set operand = 1 where session = 1 and name = 'name1'",
    "variable.value": "update variable set value = '0' where session = 1 and name = 'name1'",
    "variable.value, of metadata": "update variable set value = '\"u2\"' where session = 2",
    "variable, of no session": "insert into variable values(99, 1, 'n', 1, 1, null, '1')",
    "variable, missing": "delete from variable where session = 1 and name = 'name1'",
    "checkpoint.id": "update checkpoint set id = id + 1 where id = "
    "(select max(id) from checkpoint)",
    "checkpoint.messages": "update checkpoint set messages = messages + 1",
    "checkpoint.ranges": "update checkpoint set ranges = (select min(ranges) from checkpoint)",
    "checkpoint.names": "update checkpoint set names = (select min(names) from checkpoint)",
    "checkpoint, of no session": "insert into checkpoint"
    " select id + (98 << 32), messages, ranges, names from checkpoint where id >> 32 = 1",
    "event, missing": "delete from event where id = (select max(id) from event)",
    "batch, missing": "delete from batch where position = (select max(position) from batch)",
    "session, missing": "delete from session where number = 2",
}


def test_nothing_is_found_where_nothing_was_changed(broad):
    """A store that nobody touched has no findings, at any level."""
    for level in ("heads", "chain", "full"):
        assert [] == findings(broad, level)


@pytest.mark.parametrize("edit", COLUMN_EDITS)
def test_every_column_is_covered(broad, edit):
    """A change of a single column of any table, whatever the column, is found."""
    assert alter(broad, COLUMN_EDITS[edit]) > 0

    assert [] != findings(broad)


def columns(path, table):
    """Return the names of the columns of a table."""
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    found = [row[1] for row in connection.execute(f"pragma table_info({table})")]
    connection.close()
    return found


@pytest.mark.parametrize("table", ["event", "batch", "session", "variable", "checkpoint", "kind"])
def test_no_column_is_forgotten(broad, table):
    """Every column that the format has is among those that the test above changes."""
    edited = {edit.partition(",")[0] for edit in COLUMN_EDITS}
    assert [] == [name for name in columns(broad, table) if f"{table}.{name}" not in edited]


def test_reordered_events_are_found(broad):
    """Two events of a session that change places are found."""
    alter(
        broad,
        "update event set id = 99 where id = (1 << 32) + 3",
        "update event set id = (1 << 32) + 3 where id = (1 << 32) + 5",
        "update event set id = (1 << 32) + 5 where id = 99",
    )
    assert [] != findings(broad, "chain")


def test_an_event_of_another_batch_is_found(broad):
    """An event that was moved to another batch, whose time and actor it would show, is found."""
    alter(broad, "update event set position = 1 where id = (1 << 32) + 3")
    assert (3, "link") in [(finding.seq, finding.kind) for finding in findings(broad, "chain")]


def test_an_inserted_event_is_found(broad):
    """An event that was put in by hand is found, also after the head of its session."""
    alter(
        broad,
        "insert into event select (id >> 32 << 32) + 999, kind, version, name, base, operand,"
        " encoding, delta, size, position, salt, data from event where id = (1 << 32) + 3",
    )
    assert [] != findings(broad, "heads")


def test_a_swapped_batch_is_found(broad):
    """Two batches of different sessions that swap their positions are found."""
    connection = apsw.Connection(str(broad), vfs=checksum_vfs())
    newest = connection.execute("select max(position) from batch").get
    connection.close()
    alter(
        broad,
        "update batch set position = -1 where position = 3",
        f"update batch set position = 3 where position = {newest}",
        f"update batch set position = {newest} where position = -1",
    )
    assert [] != findings(broad)


def test_a_changed_newest_batch_is_found_by_its_head(broad):
    """The quickest level sees a change in the newest batch of a session."""
    newest = "(select max(position) from batch where session = 1)"
    alter(broad, f"update batch set actor = 'someone' where position = {newest}")
    assert ["main"] == [finding.session for finding in findings(broad, "heads")]


def test_a_finding_says_where(broad):
    """A finding names the session and the sequence at which it stands."""
    alter(broad, "update event set data = '{}' where id = (1 << 32) + 3")
    found = findings(broad)
    assert (3, "link") in [(finding.seq, finding.kind) for finding in found]
    assert (3, "event") in [(finding.seq, finding.kind) for finding in found]


@pytest.mark.parametrize(
    "ranges",
    ["5", '[["a","b"]]', "[[0,1.5]]", "[[-5,3]]", "[[3,1]]", "[[0,99999999999]]"],
)
def test_a_checkpoint_of_other_messages_is_damage(broad, ranges):
    """Ranges of messages that were never recorded are damage for readers, and found."""
    frame = payload.compress(ranges.encode()).hex()
    alter(broad, f"update checkpoint set ranges = x'{frame}'")
    with evstore.open(broad, read_only=True) as store:
        session = store.session("main")
        for read in (lambda: session.messages[:], lambda: list(store.sessions())):
            with pytest.raises(Corrupt, match="which a rebuild mends"):
                read()
    assert "damage" in {finding.kind for finding in findings(broad)}


def test_a_missing_event_is_damage_for_readers(broad):
    """Who asks for a moment whose event is missing is told so."""
    alter(broad, "delete from event where id = (1 << 32) + 3")
    with evstore.open(broad, read_only=True) as store:
        session = store.session("main")
        with pytest.raises(Corrupt, match="sequence 3: an event or its batch is missing"):
            session.at(3)


def test_a_time_that_no_datetime_can_say_is_shown(broad):
    """A time that only damage can have is shown as the nearest that there is, and found."""
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    for time_us, shown in ((-1 << 63, first), ((1 << 63) - 1, last)):
        alter(broad, f"update batch set time = {time_us} where position = 3")
        with evstore.open(broad, read_only=True) as store:
            times = [event.time for event in store.session("main").events()]
        assert shown in times
        assert "time" in {finding.kind for finding in findings(broad, "chain")}


def test_a_checkpoint_of_no_moment_is_found(broad):
    """A checkpoint beyond the head of its session is told apart from one that is wrong."""
    alter(broad, "update checkpoint set id = id + 500 where id = (select max(id) from checkpoint)")
    assert [("checkpoint", "it is of a moment that is not there")] == [
        (found.kind, found.what) for found in findings(broad)
    ]


def test_rows_of_no_session_are_told_once_for_each_table(broad):
    """Derived rows of a session that is not there are told by its number; a rebuild drops them."""
    edits = [edit for edit in COLUMN_EDITS if edit.endswith("of no session")]
    alter(broad, *(COLUMN_EDITS[edit] for edit in edits))
    expected = [
        (None, None, table, "rows of session number 99, of no session")
        for table in ("checkpoint", "variable")
    ]
    assert expected == sorted(attrs.astuple(found) for found in findings(broad))
    with evstore.open(broad) as store:
        assert expected == sorted(attrs.astuple(found) for found in replay.rebuild(store))
    assert [] == findings(broad)


NONSENSE = {
    "a text that is no JSON": """update event set data = '{"seq":2' where kind = 6""",
    "a text that is no object": """update event set data = '["seq"]' where kind = 6""",
    "a version below 1": "update event set version = -1 where name = 'name1'",
    "a first event below 1": "update batch set first = -5, last = -5 where position = 2",
    "a kind that is missing": "delete from kind where number = 1",
    "a kind of a number below 1": "update kind set number = -4 where number = 16",
}


@pytest.mark.parametrize("edit", NONSENSE)
def test_what_cannot_be_is_a_finding(broad, edit):
    """Rows that no writer makes are told of at the levels that look at them, and raise nothing."""
    alter(broad, NONSENSE[edit])
    findings(broad, "heads")
    assert [] != findings(broad, "chain")
    assert [] != findings(broad)


def stored(path, query):
    """Return the rows that a query finds."""
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    rows = connection.execute(query).fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize("salt", ["null", "salt"])
def test_an_id_is_not_changed_under_the_leaf_of_another(broad, salt):
    """The leaf of a birth stands in for an id that is forgotten, and for no other."""
    query = "select salt, id, actor, cause from session join batch using(position) where number = 1"
    leaf = chain.birth_leaf(*stored(broad, query)[0]).hex()
    alter(broad, f"update session set id = 'other', salt = {salt}, leaf = x'{leaf}' where number=1")
    for level in ("heads", "chain", "full"):
        assert ["session"] == [found.kind for found in findings(broad, level)]


def test_what_is_forgotten_has_no_name(broad):
    """The leaf of an event stands in for its name as well, which nothing bears out any more."""
    seq = "where id = (3 << 32) + 1"
    ((salt, text),) = stored(broad, f"select salt, data from event {seq}")
    said = chain.said_by("tester", None, None)
    leaf = chain.leaf(salt, "variable.set", "a", text.encode(), said).hex()
    alter(broad, f"update event set encoding = 3, data = x'{leaf}', salt = null {seq}")
    assert [] == findings(broad, "chain")
    assert "it is forgotten and has a name" in [found.what for found in findings(broad)]
    alter(broad, f"update event set name = null {seq}")
    assert "it is forgotten and has a name" not in [found.what for found in findings(broad)]


def test_one_damaged_page_does_not_hide_what_else_is_wrong(tmp_path):
    """Whichever page of the tables is damaged, verify goes on, and on to the lives after it."""
    path = tmp_path / "damaged.db"
    with evstore.open(path) as store:
        main = store.session("main")
        with main.batch() as batch:
            batch.messages.extend([{"role": "user", "content": "h" * 400}] * 50)
        main.fork("fork", at=50).variables["x"] = 1
        store.session("other").variables["y"] = 1
    alter(path, "update variable set value = '2' where name = 'y'")
    whole = path.read_bytes()
    ((page_bytes,),) = stored(path, "pragma page_size")
    pages = stored(path, "select name, pageno from dbstat where name not like 'sqlite%'")
    hidden = 0
    for table, page in pages:
        damaged = bytearray(whole)
        damaged[page * page_bytes - 100] ^= 1
        path.write_bytes(damaged)
        with evstore.open(path, read_only=True) as store:
            found = {level: list(replay.verify(store, level=level)) for level in LEVELS}
        assert table not in ("event", "batch", "session") or "damage" in kinds(found["chain"])
        if table == "event" and ("other", 1) not in [
            (each.session, each.seq) for each in found["full"]
        ]:
            hidden += 1
    assert 5 < len([table for table, _ in pages if table == "event"])
    assert 2 == hidden  # The root of the table, and the page that holds it.


LEVELS: tuple[replay.Level, ...] = ("heads", "chain", "full")


def kinds(found):
    """Return the kinds of some findings."""
    return {each.kind for each in found}


INDEX_EDITS = {
    "a message is missing": (
        "delete from search where rowid = (1 << 32) + 3",
        ("main", 3, "messages in the log and not in the search index: 1"),
    ),
    "a text is of no session": (
        "insert into search(rowid, text) values(7, 'more')",
        (None, 7, "messages in the search index and not in the log: 1"),
    ),
    "a text is of no message": (
        "insert into search(rowid, text) values((1 << 32) + 2, 'more')",
        ("main", 2, "messages in the search index and not in the log: 1"),
    ),
    "it claims to be further than it is": (
        "update follower set position = position + 1",
        ("main", 30, "messages in the log and not in the search index: 2"),
    ),
    "it claims not to be as far as it is": (
        "update follower set position = 20",
        ("main", 23, "messages in the search index and not in the log: 3"),
    ),
}


def test_a_search_index_that_is_behind_is_no_finding(broad):
    """What no search has taken in yet is not missing from the index."""
    with evstore.open(broad) as store:
        assert [] != store.search("turn")
        store.session("main").messages.append({"role": "user", "content": "later"})
        assert [] == list(replay.verify(store, level="full"))


@pytest.mark.parametrize("edit", INDEX_EDITS)
def test_the_search_index_is_compared_with_the_log(broad, edit):
    """A message that the index lacks, and a text that is of none, are found at level full alone."""
    with evstore.open(broad) as store:
        assert [] != store.search("turn")
        store.session("main").messages.extend([{"role": "user", "content": "later"}] * 2)
    statement, expected = INDEX_EDITS[edit]
    alter(broad, statement)
    assert [] == findings(broad, "chain")
    assert [(*expected[:2], "search", expected[2])] == [
        (found.session, found.seq, found.kind, found.what) for found in findings(broad)
    ]


def test_a_rebuild_mends_the_search_index(broad):
    """What verify finds in the index is gone after a rebuild."""
    with evstore.open(broad) as store:
        store.search("turn")
    alter(broad, INDEX_EDITS["a message is missing"][0])
    assert [] != findings(broad)
    with evstore.open(broad) as store:
        replay.rebuild(store)
    assert [] == findings(broad)


def test_a_search_index_that_cannot_be_read_is_damage(broad):
    """A page of the index that is not what was written is a finding, and the only one."""
    connection = apsw.Connection(str(broad), vfs=checksum_vfs())
    page = connection.execute(
        "select rootpage from sqlite_schema where name = 'search_docsize'"
    ).get
    size_bytes = connection.execute("pragma page_size").get
    connection.close()
    with broad.open("r+b") as file:
        file.seek((page - 1) * size_bytes + 100)
        file.write(b"damage")
    assert ["damage"] == [found.kind for found in findings(broad)]


def test_a_level_is_one_of_three(store):
    """A level that is none of the three is refused by name."""
    with pytest.raises(evstore.errors.Refused, match="'heads', 'chain' or 'full'"):
        list(replay.verify(store, level="thorough"))  # type: ignore[arg-type]
