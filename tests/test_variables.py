"""Variables and metadata are mappings like any other, and every change to them is one event."""

import threading
from collections.abc import Callable, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import evstore
from evstore import values
from evstore.errors import BadName, Conflict, NotStorable, NotUpcast, TooLarge, TooMany

if TYPE_CHECKING:
    from evstore.sides import Side

FAMILIES = pytest.mark.parametrize("family", ["variables", "metadata"])


def doors(session: evstore.Session | evstore.Batch, family: str) -> evstore.Variables:
    found: evstore.Variables = getattr(session, family)
    return found


def positions(session: evstore.Session) -> list[int]:
    """The batch of each event, counted from 1 within the session."""
    found = [event.position for event in session.events()]
    return [sorted(set(found)).index(position) + 1 for position in found]


@FAMILIES
def test_reading_is_that_of_a_dict(session: evstore.Session, family: str):
    """Every way to read a mapping is there, in order of name."""
    variables = doors(session, family)
    assert isinstance(variables, MutableMapping)
    assert {} == variables
    assert not variables
    variables["b"] = 2
    variables["a"] = None
    assert ["a", "b"] == list(variables) == list(variables.keys())
    assert [None, 2] == list(variables.values())
    assert [("a", None), ("b", 2)] == list(variables.items())
    assert 2 == len(variables)
    assert {"b": 2, "a": None} == variables
    assert variables == {"b": 2, "a": None}
    assert {"b": 2} != variables
    assert "{'a': None, 'b': 2}" == repr(variables)
    assert 2 == variables.get("b")
    assert variables.get("c") is None
    assert 3 == variables.get("c", 3)


@FAMILIES
def test_none_is_a_value(session: evstore.Session, family: str):
    """A variable that is None is there; a deleted one is not."""
    variables = doors(session, family)
    variables["a"] = None
    assert "a" in variables
    assert variables["a"] is None
    assert variables.setdefault("a", 1) is None
    del variables["a"]
    assert "a" not in variables
    assert 1 == variables.setdefault("a", 1)


@FAMILIES
@pytest.mark.parametrize("name", [5, None, b"bytes", 5.5, ("5",), "\ud800", "no"])
def test_what_cannot_be_a_name_is_absent(session: evstore.Session, family: str, name: Any):
    """Only a text can be the name of something; asking for anything else finds nothing."""
    variables = doors(session, family)
    variables["5"] = 1
    for side in (session, session.view(), session.batch()):
        found = getattr(side, family)
        assert name not in found
        assert found.get(name) is None
        with pytest.raises(KeyError):
            found[name]
        with pytest.raises(KeyError):
            found.info(name)
    with pytest.raises(KeyError):
        variables.pop(name)
    assert 7 == variables.pop(name, 7)
    assert {"5": 1} == variables


@FAMILIES
def test_keys_values_and_items_are_one_snapshot(session: evstore.Session, family: str):
    """What keys(), values() and items() returned does not change with what is written later."""
    variables = doors(session, family)
    variables.update(a=1, b=2)
    keys, values, items, names = (
        variables.keys(),
        variables.values(),
        variables.items(),
        iter(variables),
    )
    variables.clear()
    assert (["a", "b"], [1, 2]) == (list(keys), list(values))
    assert [("a", 1), ("b", 2)] == list(items)
    assert ["a", "b"] == list(names)


@FAMILIES
def test_a_value_read_is_a_fresh_object(session: evstore.Session, family: str):
    """Changing what was read, or what was written, changes nothing in the store."""
    variables = doors(session, family)
    given_value = {"list": [1]}
    variables["a"] = given_value
    given_value["list"].append(2)
    for side in (session, session.view()):
        read = getattr(side, family)
        read["a"]["list"].append(3)
        read.match("*")["a"]["list"].append(4)
        next(iter(read.values()))["list"].append(5)
        assert {"list": [1]} == read["a"]


@FAMILIES
def test_match_is_case_sensitive_globbing(session: evstore.Session, family: str):
    """`*` crosses dots, `?` is one character, `[]` a choice, and case counts."""
    variables = doors(session, family)
    variables.update({"cfg.a": 1, "cfg.b.c": 2, "Cfg.d": 3, "x*y": 4, "x1y": 5})
    assert {"cfg.a": 1, "cfg.b.c": 2} == variables.match("cfg.*")
    assert {"cfg.a": 1} == variables.match("cfg.?")
    assert {"Cfg.d": 3} == variables.match("C*")
    assert {"cfg.a": 1, "Cfg.d": 3} == variables.match("[cC]fg.[!b]")
    assert {"x*y": 4} == variables.match("x[*]y")
    assert {} == variables.match("cfg")
    assert ["Cfg.d", "cfg.a", "cfg.b.c", "x*y", "x1y"] == list(variables.match("*"))


@FAMILIES
def test_info_tells_all_but_the_value(store: evstore.Store, family: str):
    """Seq, times, actor, size and type of a variable are known; created_at survives a new value."""
    session = store.session("trip", actor="ann")
    variables = doors(session, family)
    variables["a"] = [1, 2]
    first = variables.info("a")
    assert (1, "ann", len("[1,2]"), "list") == (
        first.seq,
        first.actor,
        first.size_bytes,
        first.type,
    )
    assert first.time == first.created_at == session.created_at
    assert first.expires_at is None
    with session.batch(actor="bob") as batch:
        getattr(batch, family)["a"] = "ü"
    second = variables.info("a")
    assert (2, "bob", len('"ü"'.encode()), "str") == (
        second.seq,
        second.actor,
        second.size_bytes,
        second.type,
    )
    assert (first.created_at, session.updated_at) == (second.created_at, second.time)
    assert first == getattr(session.at(1), family).info("a")


@FAMILIES
def test_a_deletion_begins_created_at_anew(session: evstore.Session, family: str):
    """A variable that is set after its deletion was created then."""
    variables = doors(session, family)
    variables["a"] = 1
    variables["a"] = 2
    del variables["a"]
    with pytest.raises(KeyError):
        variables.info("a")
    variables["a"] = 3
    info = variables.info("a")
    assert info.time == info.created_at == session.updated_at


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "None"),
        (True, "bool"),
        (1, "int"),
        (-(1 << 70), "int"),
        (-1.5, "float"),
        (1e300, "float"),
        (float("nan"), "float"),
        ("a", "str"),
        (b"a", "bytes"),
        ([], "list"),
        ((), "tuple"),
        ({}, "dict"),
        ({"$a": 1}, "dict"),
        ({1: 2}, "dict"),
        (set(), "set"),
        (frozenset(), "frozenset"),
        (datetime(2024, 1, 1), "datetime"),  # noqa: DTZ001 - a naive value is a value
    ],
)
def test_info_names_the_type(memory: evstore.Store, value: Any, name: str):
    """The type that `info` shows is that of the value."""
    session = memory.session("s")
    session.variables["a"] = value
    assert name == session.variables.info("a").type


@FAMILIES
def test_writing_is_that_of_a_dict(session: evstore.Session, family: str):
    """Every way to change a mapping is there and returns what a dict returns."""
    variables = doors(session, family)
    variables["a"] = 1
    variables.update({"b": 2}, c=3)
    variables.update([("d", 4)])
    assert 1 == variables.pop("a")
    assert 5 == variables.pop("a", 5)
    assert variables.pop("a", None) is None
    with pytest.raises(KeyError):
        variables.pop("a")
    with pytest.raises(KeyError):
        del variables["a"]
    assert ("d", 4) == variables.popitem()
    variables["b"] = 20
    assert ("b", 20) == variables.popitem()
    assert {"c": 3} == variables
    variables.clear()
    with pytest.raises(KeyError):
        variables.popitem()
    assert {} == variables


@FAMILIES
def test_joining_in_place_works_on_the_property(session: evstore.Session, family: str):
    """`session.variables |= {...}` updates, in a session or a batch; nothing else is assigned."""
    variables = doors(session, family)
    variables |= {"a": 1}
    if family == "variables":
        session.variables |= {"b": 2}
        with session.batch() as batch:
            batch.variables |= {"c": 3}
    else:
        session.metadata |= {"b": 2}
        with session.batch() as batch:
            batch.metadata |= {"c": 3}
    assert {"a": 1, "b": 2, "c": 3} == variables
    with pytest.raises(AttributeError):
        setattr(session, family, {"d": 4})
    with pytest.raises(AttributeError):
        setattr(
            session, family, doors(session, "variables" if family == "metadata" else "metadata")
        )


@FAMILIES
def test_a_compound_step_is_one_batch(session: evstore.Session, family: str):
    """Each compound step takes one position, however many events it records, or none at all."""
    variables = doors(session, family)
    variables.update(a=1, b=2, c=3)
    assert [1, 1, 1] == positions(session)
    variables.pop("a")
    variables.popitem()
    variables.setdefault("d", 4)
    variables |= {"e": 5, "f": 6}
    variables.clear()
    assert [1, 1, 1, 2, 3, 4, 5, 5, 6, 6, 6, 6] == positions(session)
    variables.clear()
    variables.update({})
    variables.pop("a", None)
    assert 12 == session.head
    variables["d"] = 1
    variables.setdefault("d", 2)
    assert 13 == session.head


@FAMILIES
def test_the_events_say_what_was_done(session: evstore.Session, family: str):
    """A set carries the value, a deletion nothing, and both carry the name."""
    kind = {"variables": "variable", "metadata": "metadata"}[family]
    variables = doors(session, family)
    events = variables.set("a", [1])
    del variables["a"]
    assert [(1, f"{kind}.set", "a", {"value": [1]}), (2, f"{kind}.deleted", "a", {})] == [
        (event.seq, event.kind, event.name, event.data) for event in session.events()
    ]
    assert list(session.events(limit=1)) == list(events)


@FAMILIES
def test_expect_compares_the_seq(session: evstore.Session, family: str):
    """`set` with expect= writes only over the event it names, or where nothing is."""
    variables = doors(session, family)
    variables.set("a", 1, expect=evstore.ABSENT)
    with pytest.raises(Conflict) as caught:
        variables.set("a", 2, expect=evstore.ABSENT)
    assert ("trip", 1) == (caught.value.session, caught.value.actual)
    variables.set("a", 2, expect=1)
    with pytest.raises(Conflict) as caught:
        variables.set("a", 3, expect=1)
    assert (1, 2, "a") == (caught.value.expected, caught.value.actual, caught.value.name)
    assert str(caught.value) == (
        "'a' in session 'trip' was expected at 1 and is at 2: read it again and retry"
    )
    variables.set("a", 3, expect=evstore.ANY)
    del variables["a"]
    with pytest.raises(Conflict) as caught:
        variables.set("a", 4, expect=3)
    assert evstore.ABSENT is caught.value.actual
    variables.set("a", 4, expect=evstore.ABSENT)
    assert 5 == session.head


@FAMILIES
def test_a_conflict_before_the_birth_names_the_session(session: evstore.Session, family: str):
    """Where a session is not born yet, a set that expects something there tells its id."""
    with pytest.raises(Conflict) as caught:
        doors(session, family).set("a", 1, expect=5)
    assert ("trip", 5, evstore.ABSENT) == caught.value.args[:3]


@FAMILIES
def test_a_refused_step_writes_nothing(session: evstore.Session, family: str):
    """Where one value or name cannot be taken, the whole step is not taken."""
    variables = doors(session, family)
    for other, error in (
        ({"a": 1, "b": object()}, NotStorable),
        ({"a": 1, "\ud800": 1}, BadName),
        ({"a": 1, "a\0": 1}, BadName),
        ({"a": 1, 5: 1}, BadName),
        ({"a": 1, "n" * 513: 1}, TooLarge),
        ({"a": 1, "b": "v" * (1 << 20)}, TooLarge),
    ):
        with pytest.raises(error):
            variables.update(other)
    assert 0 == session.head


def test_the_limits_are_held(path):
    """Too many variables or too much metadata is refused with numbers; deleting makes room."""
    limits = evstore.Limits(variables_max=2, metadata_bytes_max=10)
    with evstore.open(path, durability="normal", limits=limits) as store:
        session = store.session("s")
        session.variables.update(a=1, b=2)
        with pytest.raises(TooMany) as many:
            session.variables["c"] = 3
        assert ("variables", 3, 2) == (many.value.what, many.value.count, many.value.count_max)
        session.variables["a"] = 10
        with session.batch() as batch:
            del batch.variables["a"]
            batch.variables["c"] = 3
        session.metadata["a"] = "12345"
        with pytest.raises(TooLarge) as large:
            session.metadata["b"] = "1234"
        assert (15, 10) == (large.value.size_bytes, large.value.size_bytes_max)
        assert {"a": "12345"} == session.metadata


@FAMILIES
def test_a_step_done_again_returns_what_it_found_last(
    session: evstore.Session, family: str, monkeypatch: pytest.MonkeyPatch
):
    """What pop and setdefault return is what the try found that was recorded, not one before."""
    variables = doors(session, family)
    variables["a"] = 1
    drafted = session.drafted

    def twice(said: Any, **how: Any) -> Any:
        """Have it decided as things stand, and once more after somebody has deleted all."""
        return drafted(lambda now: (said(now), said(store.session("none").view()))[1], **how)

    with evstore.open(":memory:") as store:
        monkeypatch.setattr(session, "drafted", twice)
        assert "nothing" == variables.pop("a", "nothing")
        assert 2 == variables.setdefault("a", 2)


@FAMILIES
def test_deleting_needs_no_value(
    session: evstore.Session, family: str, monkeypatch: pytest.MonkeyPatch
):
    """`del` works where a value cannot be decoded; `pop`, which returns it, leaves it there."""

    def fail(_text: str) -> None:
        raise NotUpcast("Point", 1, "nobody knows it")

    variables = doors(session, family)
    variables.update(a=1, b=2)
    with monkeypatch.context() as patched:
        patched.setattr(values, "decode", fail)
        with pytest.raises(NotUpcast):
            variables.pop("a")
        del variables["a"]
        with session.batch() as batch:
            del doors(batch, family)["b"]
            with pytest.raises(KeyError, match="b"):
                del doors(batch, family)["b"]
    assert {} == variables


@FAMILIES
def test_an_update_from_another_door_is_one_snapshot(
    store: evstore.Store, family: str, monkeypatch: pytest.MonkeyPatch
):
    """`update(other.variables)` and `|=` take what the other had at one moment."""
    mine, other = doors(store.session("mine"), family), doors(store.session("other"), family)
    other.update(a=1, b=2)
    monkeypatch.delattr(evstore.Variables, "__getitem__")  # which would look once for each name
    mine.update(other, c=3)
    mine |= other
    mine.update([("d", 4)])
    assert [("a", 1), ("b", 2), ("c", 3), ("d", 4)] == list(mine.items())


def compete(step: Callable[[int], Any], threads: int = 16) -> list[Any]:
    """What the step returned in each of many threads that started at once; errors too."""
    together = threading.Barrier(threads)
    results: list[Any] = [None] * threads

    def run(number: int) -> None:
        together.wait()
        try:
            results[number] = step(number)
        except KeyError as error:
            results[number] = error

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return results


@FAMILIES
def test_one_thread_wins(session: evstore.Session, family: str):
    """Of many threads that set a default, pop or take an item at once, exactly one does it."""
    variables = doors(session, family)
    values = compete(lambda number: doors(session, family).setdefault("a", number))
    assert 1 == len(set(values))
    assert 1 == session.head
    popped = compete(lambda _number: doors(session, family).pop("a"))
    assert 15 == sum(isinstance(value, KeyError) for value in popped)
    assert set(values) == {value for value in popped if not isinstance(value, KeyError)}
    variables.update({str(number): number for number in range(10)})
    items = compete(lambda _number: doors(session, family).popitem())
    assert {(str(number), number) for number in range(10)} == {
        item for item in items if not isinstance(item, KeyError)
    }
    assert 6 == sum(isinstance(item, KeyError) for item in items)


@given(st.dictionaries(st.text(max_size=5).filter(lambda name: "\0" not in name), st.integers()))
def test_names_come_in_order_of_their_characters(contents: dict[str, int]):
    """Names are listed as sorted() sorts them, live, frozen and pending."""
    with evstore.open(":memory:") as store:
        session = store.session("s")
        session.variables.update(contents)
        for side in (session, session.view(), session.batch()):
            assert sorted(contents) == list(side.variables)
            assert contents == side.variables


def test_a_name_alone_reads_as_among_all(store: evstore.Store):
    """What a name stands for is the same asked alone and with all others, on every side."""
    trip = store.session("trip")
    trip.variables.update({"short": (1, 2), "long": "long " * 1000, "gone": 1, "soon": 2})
    del trip.variables["gone"]
    trip.variables.set("soon", 3, ttl=3600)
    fork = trip.fork("fork")
    fork.variables["short"] = 4
    sides: list[Side] = [trip, fork, trip.view(), trip.at(4), trip.batch(), fork.view().place]
    for side in sides:
        door = evstore.variables.Variables(side, evstore.events.VARIABLES)
        names = ["short", "long", "gone", "soon", "never", "\ud800"]
        assert dict(door.items()) == {name: door[name] for name in names if name in door}
        assert len(dict(door.items())) == len(door)
    assert {"short": (1, 2), "long": "long " * 1000, "gone": 1, "soon": 2} == trip.at(4).variables
