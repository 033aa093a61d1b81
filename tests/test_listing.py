"""A listing finds sessions by id, by metadata and by their newest change, whatever happens."""

import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
import evstore.replay
from evstore.errors import NotStorable, Refused, SessionNotFound
from evstore.sqlite import listing
from evstore.sqlite.listing import Wanted
from tests.command_line import run, told

START = datetime(2030, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=1)
IDS = ["a", "ab", "abc", "b", "ü"]
LONG = "y" * 2000
JUST_INLINE, JUST_LONG = "i" * 509, "l" * 510  # 511 and 512 bytes with their quotes
SCALARS: list[Any] = [True, False, 1, 0, 1.0, 0.0, -0.0, "1", "", None, "true", "ü\0"]
SCALARS += [2**70, float("nan"), JUST_INLINE, JUST_LONG, LONG]
NAMES = ["m", "n", "'", "ü"]


def is_same(left: Any, right: Any) -> bool:
    """Whether two values are stored alike."""
    return type(left) is type(right) and repr(left) == repr(right)


# A plain model of what there is, and of how it is listed.


@attrs.define(eq=False)
class Life:
    """A session as the model knows it."""

    id: str
    uid: str = ""
    metadata: dict[str, Any] = attrs.field(factory=dict)
    deleted: bool = False
    deadline: datetime | None = None


class World:
    """A store, and a list of all lives in it, in order of birth."""

    def __init__(self, store: evstore.Store, now: list[datetime]) -> None:
        self.store, self.now = store, now
        self.lives: list[Life] = []

    def is_over(self, life: Life) -> bool:
        return life.deleted or (life.deadline is not None and life.deadline <= self.now[0])

    def living(self, session_id: str) -> Life | None:
        found = [life for life in self.lives if life.id == session_id and not self.is_over(life)]
        return found[0] if found else None

    def act(self, what: str, session_id: str, name: str, value: Any, number: int) -> None:
        """Let one thing happen, where it can."""
        life = self.living(session_id)
        if what == "wait":
            self.now[0] += STEP * (number % 3)
        elif what in ("set", "lease"):
            ttl = self.now[0] + STEP * (number % 4 + 1) if what == "lease" else None
            session = self.store.session(session_id, ttl=ttl)
            session.metadata[name] = value
            life = life or self.born(session)
            life.metadata[name] = value
            life.deadline = ttl or life.deadline
        elif what == "restore" and life is None:
            gone = [life for life in self.lives if life.id == session_id and life.deleted]
            if gone and gone[-1].deadline is None:
                self.store.restore(gone[-1].uid)
                gone[-1].deleted = False
        elif life is not None:
            self.change(life, what, name, number)

    def change(self, life: Life, what: str, name: str, number: int) -> None:
        session = self.store.session(life.id)
        if what == "unset" and name in session.metadata:
            del session.metadata[name]
            del life.metadata[name]
        elif what == "update":
            session.variables["n"] = number
        elif what == "delete":
            self.store.delete(life.id)
            life.deleted = True
        elif what == "fork" and self.living(IDS[number % len(IDS)]) is None:
            at = number % (session.head + 1)
            child = session.fork(IDS[number % len(IDS)], at=at)
            self.born(child).metadata = dict(session.at(at).metadata)

    def born(self, session: evstore.Session) -> Life:
        self.lives.append(Life(session.id, session.uid or ""))
        return self.lives[-1]

    def listed(self, prefix: str, where: dict[str, Any], order: str, *, deleted: bool) -> list[str]:
        """The uids that a listing must give, in order."""
        found = [
            (number, life, self.store.session(uid=life.uid).updated_at)
            for number, life in enumerate(self.lives)
            if self.is_over(life) == deleted and life.id.startswith(prefix)
            if all(
                name in life.metadata and is_same(life.metadata[name], value)
                for name, value in where.items()
            )
        ]
        if order == "updated":
            found.sort(key=lambda each: (each[2], each[0]), reverse=True)
        else:
            found.sort(key=lambda each: (each[1].id, each[0]))
        return [life.uid for _, life, _ in found]


WHATS = ["set", "set", "set", "unset", "update", "lease", "wait", "delete", "restore", "fork"]
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(WHATS),
        st.sampled_from(IDS),
        st.sampled_from(NAMES[:2]),
        st.sampled_from([*SCALARS, [1]]),
        st.integers(0, 30),
    ),
    min_size=5,
    max_size=40,
)
CONDITIONS = st.dictionaries(st.sampled_from(NAMES[:2]), st.sampled_from(SCALARS), max_size=2)


@given(HAPPENINGS, st.lists(CONDITIONS, min_size=1, max_size=3), st.integers(1, 3))
@settings(max_examples=60)
def test_a_listing_is_as_a_plain_list_would_be(happenings, conditions, size):
    """Any mix of arguments finds what filtering and sorting a plain list finds, also in pages."""
    now = [START]
    with evstore.open(":memory:", clock=lambda: now[0]) as store:
        world = World(store, now)
        for happening in happenings:
            world.act(*happening)
        wheres = [{}, *conditions, *(life.metadata for life in world.lives[:2])]
        plain = [where for where in wheres if [1] not in where.values()]
        for prefix, where, order, deleted in product(
            ["", "a", "ab", "x"], plain, ["id", "updated"], [False, True]
        ):
            how: dict[str, Any] = {"where": where, "order": order, "deleted": deleted}
            expected = world.listed(prefix, where, order, deleted=deleted)
            found = list(store.sessions(prefix, **how))
            assert expected == [info.uid for info in found]
            for info in found:
                session = store.session(uid=info.uid)
                assert (info.updated_at, info.head, info.expires_at) == (
                    session.updated_at,
                    session.head,
                    session.expires_at,
                )
            paged: list[evstore.SessionInfo] = []
            while page := list(
                store.sessions(prefix, **how, limit=size, after=paged[-1] if paged else None)
            ):
                assert len(page) <= size
                paged += page
            assert found == paged


# Metadata.


@pytest.fixture
def each(memory: evstore.Store) -> evstore.Store:
    """A store with a session for each kind of value."""
    for number, value in enumerate([*SCALARS, [1], {"a": 1}, b"1", (1,)]):
        memory.session(f"s{number:02}", metadata={"m": value}).variables["n"] = 1
    return memory


@pytest.mark.parametrize("number", range(len(SCALARS)))
def test_a_value_finds_only_itself(each: evstore.Store, number: int):
    """Values are compared as stored: 1 is not True, not 1.0 and not "1"; None is a value."""
    found = list(each.sessions(where={"m": SCALARS[number]}))
    assert [f"s{number:02}"] == [info.id for info in found]


BAD_VALUES: list[Any] = [[1], {"a": 1}, b"1", (1,), START, evstore.ANY, ...]


@pytest.mark.parametrize("number", range(len(BAD_VALUES)))
def test_what_is_no_scalar_is_refused(memory: evstore.Store, number: int):
    """A condition on anything but a scalar is Refused at once, with what to give instead."""
    with pytest.raises(Refused, match="give a text, a number, a truth value or None"):
        memory.sessions(where={"m": BAD_VALUES[number]})


def test_bad_arguments_are_refused_at_once(memory: evstore.Store):
    """What is no mapping, no order or no text is Refused before anything is read."""
    bad: Any = ["m"]
    with pytest.raises(Refused, match="give names of metadata"):
        memory.sessions(where=bad)
    with pytest.raises(NotStorable):
        memory.sessions(where={"m": "\ud800"})
    for order in ("", "name", None, ["id"]):
        worse: Any = order
        with pytest.raises(Refused, match="give 'id' or 'updated'"):
            memory.sessions(order=worse)


@pytest.mark.parametrize("name", ["x", "", "M", "\ud800", "m\0", 5, None, ("m",)], ids=ascii)
def test_a_name_that_nothing_has_finds_nothing(memory: evstore.Store, name: Any):
    """A name that no session has, or that no metadata can have, matches nothing, not even None."""
    memory.session("s", metadata={"m": None, "5": None, "None": 1}).variables["x"] = None
    assert [] == list(memory.sessions(where={name: None}))
    assert [] == list(memory.sessions(where={"m": None, name: None}))


def test_any_number_of_conditions(memory: evstore.Store):
    """Conditions may be many, and all of them must hold."""
    many = {f"n{number}": number for number in range(300)}
    memory.session("s", metadata=many).variables["x"] = 1
    memory.session("t", metadata=many | {"n299": 5}).variables["x"] = 1
    assert ["s"] == [info.id for info in memory.sessions(where=many)]
    assert ["s", "t"] == [info.id for info in memory.sessions(where={"n0": 0, "n1": 1})]


def test_variables_are_no_metadata(memory: evstore.Store):
    """A condition holds for metadata only, and as it is now: neither before nor in a variable."""
    session = memory.session("s", metadata={"m": 1})
    session.variables["m"] = 2
    assert [] == list(memory.sessions(where={"m": 2}))
    session.metadata["m"] = 3
    assert [] == list(memory.sessions(where={"m": 1}))
    assert ["s"] == [info.id for info in memory.sessions(where={"m": 3})]
    del session.metadata["m"]
    assert [] == list(memory.sessions(where={"m": 3}))


@pytest.mark.parametrize("value", [1, LONG], ids=["short", "long"])
def test_a_fork_is_found_by_what_it_shares(memory: evstore.Store, value: Any):
    """A fork is found by the metadata of its past, also of a long value, until it sets its own."""
    memory.session("s", metadata={"m": value}).variables["x"] = 1
    memory.session("s").fork("t").fork("u")
    assert ["s", "t", "u"] == [info.id for info in memory.sessions(where={"m": value})]
    memory.session("s").metadata["m"] = memory.session("u").metadata["m"] = 2
    assert ["t"] == [info.id for info in memory.sessions(where={"m": value})]
    evstore.replay.rebuild(memory)
    assert ["t"] == [info.id for info in memory.sessions(where={"m": value})]


# What changes during a listing.


@pytest.mark.parametrize("order", ["id", "updated"])
@pytest.mark.parametrize("where", [{}, {"m": 1}, {"m": LONG}], ids=["all", "short", "long"])
def test_what_goes_meanwhile_is_passed_over(path: Path, order: Any, where: dict[str, Any]):
    """What is deleted, expires or changes its metadata during a listing is not yielded after."""
    now = [START]
    with evstore.open(path, durability="normal", clock=lambda: now[0]) as store:
        for number in range(250):
            ttl = STEP if number in (120, 130) else None
            store.session(f"s{number:03}", metadata=where, ttl=ttl).variables["n"] = 1
        ids = [info.id for info in store.sessions(where=where, order=order)]
        found = store.sessions(where=where, order=order, limit=247)
        seen = [next(found).id for _ in range(100)]
        store.delete("s110")
        now[0] += STEP
        store.session("s140").variables["n"] = 2
        gone = {"s110", "s120", "s130"}
        if where:
            store.session("s135").metadata["m"] = 5
            gone.add("s135")
        seen += [info.id for info in found]
        assert [session_id for session_id in ids if session_id not in gone][:247] == seen


def test_the_order_of_change_is_of_one_moment(store: evstore.Store):
    """In order of change every session comes once, though all of them change meanwhile."""
    for number in range(250):
        store.session(f"s{number:03}").variables["n"] = 1
    seen = []
    for info in store.sessions(order="updated"):
        seen.append(info.id)
        store.session(f"s{len(seen) * 7 % 250:03}").variables["n"] = 2
    assert [f"s{number:03}" for number in reversed(range(250))] == seen


def test_a_listing_goes_on_after_a_session_that_changed(memory: evstore.Store):
    """`after` is where the session stood when it was seen, whatever became of it."""
    for session_id in "abcd":
        memory.session(session_id).variables["n"] = 1
    (seen,) = memory.sessions("c")
    memory.session("c").variables["n"] = 2
    assert ["b", "a"] == [info.id for info in memory.sessions(order="updated", after=seen)]
    memory.delete("c")
    assert ["b", "a"] == [info.id for info in memory.sessions(order="updated", after=seen)]
    assert ["d"] == [info.id for info in memory.sessions(after=seen)]
    with pytest.raises(SessionNotFound):
        memory.sessions(after=attrs.evolve(seen, uid="0" * 32))
    assert ["b"] == [info.id for info in memory.sessions("b", after=next(memory.sessions()))]


def test_a_prefix_holds_after_a_session_before_it(memory: evstore.Store):
    """A listing after a session before its prefix begins with the first that has the prefix."""
    for session_id in ("a", "b", "p1", "p2"):
        memory.session(session_id).variables["n"] = 1
    first = next(memory.sessions())
    assert ["p1", "p2"] == [info.id for info in memory.sessions("p", after=first)]


def test_a_deadline_counts_in_a_listing(memory: evstore.Store):
    """A variable past its deadline is not counted, and a life is over once, whatever its lease."""
    session = memory.session("s")
    session.variables.set("a", 1, ttl=0.01)
    session.variables["b"] = 1
    time.sleep(0.02)
    assert [1] == [info.variables for info in memory.sessions()]
    memory.delete("s")
    with memory.engine.database.writing("normal") as cursor:
        cursor.execute("insert or replace into lease(session, expires) values(1, 5)")
    for order in ("id", "updated"):
        how: Any = {"order": order, "deleted": True}
        assert ["s"] == [info.id for info in memory.sessions(**how)]


@pytest.mark.parametrize("ends", ["deleted", "expired"])
def test_a_life_that_is_over_is_listed_as_it_ended(ends: str):
    """Variables whose deadlines came after its last moment are counted, as the past has them."""
    now = [START]
    with evstore.open(":memory:", clock=lambda: now[0]) as store:
        session = store.session("s", ttl=2 * STEP if ends == "expired" else None)
        session.variables["a"] = 1
        session.variables.set("b", 2, ttl=STEP)
        if ends == "deleted":
            store.delete("s")
        now[0] += 3 * STEP
        (info,) = store.sessions(deleted=True)
        assert ["a", "b"] == list(store.session(uid=info.uid).variables)
        assert 2 == info.variables


def test_a_page_is_as_long_as_the_limit(memory: evstore.Store, monkeypatch: pytest.MonkeyPatch):
    """Details are read of no more sessions than are to be yielded; a limit below 0 is as 0."""
    for number in range(5):
        memory.session(f"s{number}").variables["n"] = 1
    lengths = []
    details = listing.details

    def counted(*arguments: Any) -> list[listing.Listed]:
        lengths.append(len(arguments[3]))
        return details(*arguments)

    monkeypatch.setattr(listing, "details", counted)
    assert 2 == len(list(memory.sessions(order="updated", limit=2)))
    assert [] == list(memory.sessions(limit=-1))
    assert [2] == lengths
    assert 5 == len(list(memory.sessions(limit=1 << 63)))


# What it costs.


def plan(store: evstore.Store, wanted: Wanted) -> list[str]:
    with store.engine.database.snapshot() as cursor:
        statement, bindings = listing._statement(cursor, wanted, None, 100, 0)
        rows = cursor.execute(f"explain query plan {statement}", bindings).fetchall()
        return [row[3] for row in rows]


@pytest.mark.parametrize("over", [False, True], ids=["living", "over"])
@pytest.mark.parametrize("by_time", [False, True], ids=["id", "time"])
@pytest.mark.parametrize("text", ["1", f'"{LONG}"'], ids=["short", "long"])
def test_conditions_are_looked_up_in_the_index(memory, over, by_time, text):
    """Sessions with a value are found through the index of metadata, and no table is read whole."""
    wanted = Wanted("", (("m", text), ("n", "2")), by_time=by_time, over=over)
    steps = plan(memory, wanted)
    assert "SEARCH v USING INDEX variable_metadata (name=? AND value=?)" in steps
    assert {"SCAN c VIRTUAL TABLE INDEX 1:", *(["SCAN found"] if by_time else [])} == {
        step for step in steps if step.startswith("SCAN")
    }


def test_pages_by_id_are_not_sorted(memory: evstore.Store):
    """A page by id is read off an index; lives that are over are merged with the few expired."""
    assert not [step for step in plan(memory, Wanted("a")) if "B-TREE" in step]
    steps = plan(memory, Wanted("a", over=True))
    left, right = steps.index("LEFT"), steps.index("RIGHT")
    assert "SEARCH s USING INDEX session_ended (id>? AND id<?)" in steps[left:right]
    assert "SEARCH lease USING COVERING INDEX lease_expires (expires<?)" in steps[right:]
    assert ["USE TEMP B-TREE FOR ORDER BY"] == [step for step in steps if "B-TREE" in step]
    assert not [step for step in steps[:right] if "B-TREE" in step]


def test_the_rarest_condition_leads(memory: evstore.Store):
    """Of several conditions the one that fewest sessions fulfil is looked up first."""
    for number in range(20):
        metadata = {"common": 1, "rare": number}
        memory.session(f"s{number}", metadata=metadata).variables["n"] = 1
    with memory.engine.database.snapshot() as cursor:
        for where in ((("common", "1"), ("rare", "3")), (("rare", "3"), ("common", "1"))):
            _, bindings = listing._statement(cursor, Wanted(where=where), None, 100, 0)
            assert ("rare", "3") == (bindings["name"], bindings["value"])


@pytest.mark.parametrize("order", ["id", "updated"])
def test_a_listing_holds_a_number_for_each_session(memory: evstore.Store, order: str):
    """What a listing holds ahead is one number of 8 bytes for each session, whatever the order."""
    count = 3000
    with memory.transaction() as together:
        for number in range(count):
            together.batch(memory.session(f"s{number * 7 % count}")).variables["n"] = number
    tracemalloc.start()
    numbers, _ = memory.engine.session_numbers(Wanted(by_time=order == "updated"), None, count)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == len(numbers)
    assert peak_bytes < 24 * count


# At the command line.


def test_ls_takes_conditions_and_an_order(path: Path):
    """`ls` takes metadata as NAME=VALUE, JSON if it is JSON, and the order of change."""
    with evstore.open(path, durability="normal") as store:
        for session_id, value in (("a", 1), ("b", "1"), ("c", "x=y"), ("d", 1)):
            store.session(session_id, metadata={"m": value, "n": True}).variables["x"] = 1
        store.session("a").variables["x"] = 2
        store.delete("d")
    for options, expected in (
        (["--where", "m=1"], ["a"]),
        (["--where", 'm="1"'], ["b"]),
        (["--where", "m=x=y", "--where", "n=true"], ["c"]),
        (["--where", "m=x=y", "--where", "n=false"], []),
        (["--where", "n=true", "--order", "updated"], ["a", "c", "b"]),
        (["--where", "n=true", "--order", "updated", "--limit", "1"], ["a"]),
        (["--where", "m=1", "--deleted"], ["d"]),
        (["--order", "id"], ["a", "b", "c"]),
    ):
        assert expected == [info["id"] for info in told("ls", str(path), *options)]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        (["--where", "m"], "give NAME=VALUE"),
        (["--where", "m=1", "--where", "m=2"], "give it once"),
        (["--where", "m=[1]"], "give a text, a number"),
        (["--order", "name"], "'updated'"),
    ],
    ids=["no value", "twice", "no scalar", "order"],
)
def test_ls_says_what_to_give(path: Path, options: list[str], remedy: str):
    """A condition or an order that cannot be is misuse, told in one sentence."""
    evstore.open(path).close()
    result = run("ls", str(path), *options)
    assert (2, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines()))
    assert remedy in result.stderr
