"""Dumps of Erlang's ETS tables become sessions, and no term does harm to who reads it."""

import json
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import erlang
import pytest

import evstore
from evstore import values
from evstore.errors import MissingExtra, Unavailable
from evstore.transfer import Imported, ets, ets_terms
from evstore.transfer.conversations import Conversation, Reported
from evstore.transfer.ets_terms import Unreadable, decode
from tests.foreign import take

SOURCES = Path(__file__).resolve().parent / "sources"
KEPT = "app.imported.ets"
NOON_US = 1_700_000_000_000_000
STRUCT = erlang.OtpErlangAtom("__struct__")


@pytest.fixture(scope="module", params=["kept", "made"])
def dumps(request, tmp_path_factory):
    """The dumps that Erlang made once, and those that it makes now, where it is installed."""
    if request.param == "kept":
        return SOURCES
    escript = shutil.which("escript")
    if escript is None:
        pytest.skip("Erlang is not installed here: the dumps that it made once are tested")
    folder = tmp_path_factory.mktemp("ets")
    subprocess.run([escript, SOURCES / "ets.escript", folder], check=True)
    return folder


def atom(name):
    """An atom."""
    return erlang.OtpErlangAtom(name)


def binary(text):
    """A binary."""
    return erlang.OtpErlangBinary(text.encode())


def elixir(name, **fields):
    """A struct of Elixir."""
    members = {atom(field): value for field, value in fields.items()}
    return {STRUCT: atom(f"Elixir.{name}"), **members}


def term(*parts):
    """The bytes of a term, from those of its parts."""
    return b"\x83" + b"".join(part if isinstance(part, bytes) else bytes([part]) for part in parts)


def record(data):
    """A record of a log."""
    checked = b"\0" * 16 if len(data) >= 65_528 else b""
    return struct.pack(">I", len(data)) + b"bWLA" + checked + data


def tab(path, *rows, size=None):
    """A file as ets:tab2file writes it, of terms, or of bytes as they are."""
    info = ((atom("name"), atom("t")), (atom("size"), len(rows) if size is None else size))
    records = [row if isinstance(row, bytes) else record(dumped(row)) for row in (info, *rows)]
    path.write_bytes(b"\1\2\3\4cXM\x0b" + b"".join(records))
    return path


def dumped(row):
    """A term as Erlang writes it."""
    return erlang.term_to_binary(row)


def told(folder):
    """What Erlang says that its sessions hold: the variables of each, with their times."""
    found: dict[str, dict[str, tuple[object, object]]] = {}
    for line in (folder / "ets_told.jsonl").read_text("utf-8").splitlines():
        session, name, value, time = json.loads(line)
        plain = [values.decode(json.dumps(part)) for part in (value, time)]
        found.setdefault(session, {})[name] = plain[0], plain[1]
    return found


def found_in(store):
    """The variables of each session of a store, each with the time at which it was set."""
    return {
        str(info.id): {
            event.name: (event.data["value"], event.time)
            for event in store.session(str(info.id)).events(kind="variable.set")
        }
        for info in store.sessions()
    }


def test_every_session_is_as_erlang_says(store, dumps):
    """Each variable has the value and the time that Erlang itself printed of it."""
    expected = told(dumps)
    for name in ("sessions", "variables"):
        _, reports = take(store, "ets", dumps / f"ets_{name}.tab")
        assert [] == reports
    found = found_in(store)
    assert len(expected) > 20
    assert expected.keys() == found.keys()
    for session, variables in expected.items():
        assert variables.keys() == found[session].keys()
        for name, (value, time) in variables.items():
            got, at = found[session][name]
            assert values.encode(value) == values.encode(got), (session, name)
            if time is not None:
                assert abs((at - time).total_seconds()) < 0.001


def test_a_list_of_rows_gives_the_same(store, dumps):
    """A compressed term of all rows holds what the log of them does."""
    take(store, "ets", dumps / "ets_list.etf")
    with evstore.open(":memory:") as other:
        take(other, "ets", dumps / "ets_sessions.tab")
        assert found_in(other).keys() == found_in(store).keys()
        for session in found_in(other):
            assert dict(other.session(session).variables) == dict(store.session(session).variables)


def test_again_adds_nothing(store, dumps):
    """What is there already is passed over, in whichever form it comes."""
    for name in ("sessions.tab", "variables.tab"):
        take(store, "ets", dumps / f"ets_{name}")
    for name in ("sessions.tab", "variables.tab", "list.etf"):
        assert (Imported(0, 0, 0), []) == take(store, "ets", dumps / f"ets_{name}")


def test_what_is_no_variable_is_kept(store, tmp_path):
    """Other fields of a session, and what else stands in its row, are kept in one event."""
    session = elixir(
        "Session", created_at=1_700_000_000, variables={binary("a"): 1}, owner=atom("me")
    )
    source = tab(tmp_path / "t.tab", (binary("s"), session, 99))
    assert (Imported(1, 2, 2, kept=1), []) == take(store, "ets", source)
    kept, variable = store.session("s").events()
    facts = {"__struct__": "Elixir.Session", "created_at": 1_700_000_000, "owner": "me"}
    assert (KEPT, {**facts, "row": [99]}) == (kept.kind, kept.data)
    assert {"a": 1} == dict(store.session("s").variables)
    assert NOON_US == round(kept.time.timestamp() * 1e6)
    assert kept.time < variable.time


def test_a_variable_may_be_called_session(store, tmp_path):
    """No name of a variable is that of the event beside it."""
    session = {binary("session"): binary("abc"), binary("city"): binary("Rome")}
    source = tab(tmp_path / "t.tab", (binary("s"), session, 99))
    assert (Imported(1, 3, 3, kept=1), []) == take(store, "ets", source)
    assert {"session": "abc", "city": "Rome"} == dict(store.session("s").variables)
    assert (Imported(0, 0, 0), []) == take(store, "ets", source)


@pytest.mark.parametrize("inside", ets.INSIDE)
def test_a_store_of_variables_may_say_when_each_was_set(store, tmp_path, inside):
    """Variables come in the order in which they were set, and what changes later is set anew."""

    def session(**times):
        entries = {
            binary(name): {atom("value"): at, atom("updated_at"): at, atom("size"): 1}
            for name, at in times.items()
        }
        entries |= {binary("bare"): {atom("value"): 5}, binary("number"): 6}
        kept = elixir("VariableStore", **{inside: entries})
        return binary("s"), elixir("Session", variable_store=kept)

    source = tab(tmp_path / "t.tab", session(b=1_700_000_002, a=1_700_000_001))
    take(store, "ets", source)
    names = [event.name for event in store.session("s").events(kind="variable.set")]
    assert ["bare", "number", "a", "b"] == names
    beside = [event.data for event in store.session("s").events(kind=KEPT)]
    assert {"__struct__": "Elixir.VariableStore"} == beside[0]["variable_store"]
    assert {"variable": "b", "updated_at": 1_700_000_002, "size": 1} == beside[2]
    tab(source, session(b=1_700_000_002, a=1_700_000_003))
    assert (Imported(0, 1, 2, kept=1), []) == take(store, "ets", source)
    assert {"a": 1_700_000_003, "b": 1_700_000_002, "bare": {"value": 5}, "number": 6} == dict(
        store.session("s").variables
    )


def test_without_times_a_later_state_is_told_or_a_fork(store, tmp_path):
    """A value that has changed is reported, and where a name is new, a fork holds the new state."""

    def dump(**variables):
        given = {binary(name): value for name, value in variables.items()}
        return tab(tmp_path / "t.tab", (binary("s"), given))

    take(store, "ets", dump(a=1, c=3))
    added, reports = take(store, "ets", dump(a=1, c=4))
    assert (0, ["s"]) == (added.events, [found.where for found in reports])
    assert [] == take(store, "ets", dump(a=1, b=2, c=4))[1]
    assert {"a": 1, "c": 3} == dict(store.session("s").variables)
    assert {"a": 1, "b": 2, "c": 4} == dict(store.session("s/b").variables)


@pytest.mark.parametrize(
    ("session", "variables", "kept"),
    [
        ({atom("variables"): {}, atom("id"): 1}, {}, {"id": 1}),
        ({atom("variable_store"): {binary("a"): 1}}, {"a": 1}, None),
        ({atom("inserted_at"): atom("soon")}, {}, {"inserted_at": "soon"}),
        (elixir("Session"), {}, {"__struct__": "Elixir.Session"}),
        (
            {atom("variable_store"): elixir("Store", kept=1)},
            {},
            {"variable_store": {"__struct__": "Elixir.Store", "kept": 1}},
        ),
        ({atom("variables"): 7}, {}, {"variables": 7}),
        ({binary("a"): 1, 2: [1, 300]}, {"a": 1, "2": [1, 300]}, None),
    ],
)
def test_a_session_takes_many_forms(store, tmp_path, session, variables, kept):
    """What is known to be variables becomes variables, and whatever else is there is kept."""
    source = tab(tmp_path / "t.tab", (atom("s"), session))
    assert [] == take(store, "ets", source)[1]
    assert variables == dict(store.session("s").variables)
    found = [event.data for event in store.session("s").events(kind=KEPT)]
    assert ([] if kept is None else [kept]) == found


def test_rows_of_variables_may_say_more(store, tmp_path):
    """Each row is one variable, and a name that is no text is told."""
    rows = [
        ((binary("s"), atom("a")), 1, 99),
        ((binary("s"), (1, 2)), 2),
        ((binary("s"), [300, 1]), 3),
        ((binary("s"), b"bc"), 4),
        ((binary("s"), [1 << 40]), 5),
    ]
    _, reports = take(store, "ets", tab(tmp_path / "t.tab", *rows))
    assert {"a": 1, "\u012c\1": 3, "bc": 4} == dict(store.session("s").variables)
    assert [("s", "a variable")] * 2 == [(found.where, found.what) for found in reports]
    assert [{"variable": "a", "row": [99]}] == [
        event.data for event in store.session("s").events(kind=KEPT)
    ]


def test_what_is_broken_stops_only_itself(store, tmp_path):
    """Rows that are none of a session, or no terms, are told, and the others come in."""
    rows = [
        (binary("a"), {binary("x"): 1}),
        (binary("no map"), 7),
        (binary("alone"),),
        atom("row"),
        ((1.5, 2), 3),
        (None, {}),
        record(b"\x83\x68\x05a"),
        record(b""),
        record(term(121, b"xxxx")),
        (binary("z"), {binary("x"): 2}),
    ]
    _, reports = take(store, "ets", tab(tmp_path / "t.tab", *rows))
    assert {"a", "z"} == found_in(store).keys()
    assert ["a row"] * 8 == [found.what for found in reports]
    description = record(b"\x83")
    source = tmp_path / "t.tab"
    whole = record(dumped((binary("last"), {binary("x"): 1})))
    source.write_bytes(b"\1\2\3\4cXM\x0b" + description + whole)
    _, reports = take(store, "ets", source)
    assert ["byte 8"] == [found.where for found in reports]
    assert "last" in found_in(store)


def test_a_cut_off_dump_gives_its_beginning(store, tmp_path):
    """Wherever a dump is cut off, what is whole comes in, and that something is missing is told."""
    rows = [(binary(f"s{number}"), {binary("x"): number}) for number in range(3)]
    source = tab(tmp_path / "t.tab", *rows)
    whole = source.read_bytes()
    for end in range(8, len(whole)):
        source.write_bytes(whole[:end])
        found = list(ets.read(str(source)))
        reported = [item for item in found if isinstance(item, Reported)]
        assert 1 == len(reported) or end == 8, end
        assert len(found) - len(reported) < 3
    source.write_bytes(whole[:-1])
    assert (2, 1) == (take(store, "ets", source)[0].sessions, 1)
    source.write_bytes(whole)
    assert (Imported(1, 1, 1), []) == take(store, "ets", source)


def test_a_dump_that_changes_meanwhile_is_told(tmp_path):
    """A row that is not there any more when its session is read is reported."""
    rows = [(binary(name), {binary("x"): binary("y" * (1 << 20))}) for name in "ab"]
    source = tab(tmp_path / "t.tab", *rows)
    sessions = ets.read(str(source))
    next(sessions)
    with source.open("r+b") as file:
        file.truncate(20)
    (found,) = sessions
    assert isinstance(found, Conversation)
    assert [Reported] == [type(item) for item in found.items]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no dump",
        b"\x83",
        b"\x83\x68\x00",
        b"\x83\x6d\xff\xff\xff\xff",
        b"\x83\x50\0\0\0\5no",
        b"\x83\x6a\x6a",
    ],
)
def test_what_is_no_dump_is_refused(store, tmp_path, data):
    """Nothing is written of what no table can have become."""
    source = tmp_path / "t.tab"
    source.write_bytes(data)
    with pytest.raises(Unavailable, match=r"name|dump|give"):
        take(store, "ets", source)


def test_terms_that_python_lacks_keep_their_bytes():
    """Pids, references, funs and bitstrings become their kind and bytes that say the same."""
    node = b"\x77\x01n"
    for kind, data in {
        "pid": term(88, node, b"\0" * 12),
        "port": term(120, node, b"\0" * 12),
        "reference": term(90, b"\0\2", node, b"\0" * 12),
        "function": term(113, node, node, 97, 2),
        "list": term(108, b"\0\0\0\1", 97, 1, 97, 2),
        "binary": term(77, b"\0\0\0\1", 3, 0xE0),
    }.items():
        found = decode(data)
        assert kind == found["erlang"]
        assert erlang.binary_to_term(data) == erlang.binary_to_term(found["term"])
    assert "function" == decode(term(112, struct.pack(">I", 9), b"01234"))["erlang"]
    for data in (
        term(89, node, b"\0" * 8),
        term(101, node, b"\0" * 5),
        term(102, node, b"\0" * 5),
        term(103, node, b"\0" * 9),
        term(114, b"\0\1", node, b"\0" * 5),
    ):
        assert {"erlang", "term"} == decode(data).keys()
    assert 1.5 == decode(term(99, b"1.5".ljust(31, b"\0")))
    assert "é" == decode(term(100, b"\0\1\xe9"))


@pytest.mark.parametrize(
    "fields",
    [
        elixir("DateTime", year=1),
        elixir("Date", year=0, month=1, day=1),
        elixir("Time", hour=23, minute=59, second=60, microsecond=(0, 0)),
        elixir("Decimal", sign=1, coef=atom("what"), exp=0),
        elixir("MapSet", map={binary("a"): True, atom("a"): True}, version=1),
    ],
)
def test_structs_that_are_not_as_they_should_be_stay_maps(fields):
    """What Python has no value for is a dict of the same fields."""
    assert {key.value for key in fields} == decode(dumped(fields)).keys()


def test_numbers_of_elixir_that_are_none():
    """A Decimal may be infinite, or not a number."""
    for coefficient, expected in {"NaN": "NaN", "inf": "-Infinity"}.items():
        sign = -1 if coefficient == "inf" else 1
        fields = elixir("Decimal", sign=sign, coef=atom(coefficient), exp=0)
        assert expected == str(decode(dumped(fields)))


def bomb(tag_and_count, size_bytes):
    """A compressed term of so many zeros."""
    plain = tag_and_count + b"\0" * size_bytes
    return term(80, struct.pack(">I", len(plain)), zlib.compress(plain, 9))


MANY = ets_terms.TERMS_MAX + 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bomb(b"\x6d" + struct.pack(">I", 1 << 27), 1 << 27), "more than 64 MiB"),
        (term(80, b"\0\0\0\1", zlib.compress(b"\0" * (1 << 24))), "not as large as it says"),
        (term(108, b"\0\0\0\1", bomb(b"\x6d", 9)[1:], 106), "the unknown kind 80"),
        (term(108, b"\0\0\xff\xff", 106, 106), "cut off"),
        (term(108, b"\xff\xff\xff\xff", 106, 106), "terms or"),
        (term(105, struct.pack(">I", MANY), b"\x6a" * MANY), "terms or"),
        (term(b"\x68\x01" * 5000, 106), "levels"),
        (term(111, struct.pack(">I", 1 << 20), 0, b"\xff" * (1 << 20)), "an integer of more"),
        (term(88, 97, 1), "names no node"),
        (term(119, 1, 0xFF), "no term"),
        (term(116, b"\0\0\0\1", 104, 1, 116, b"\0\0\0\0", 106), "no term"),
        (term(b"\x6d\0\0\0\x09", b"short"), "no term"),
        (b"\x6a" * 9, "does not begin"),
        (b"\x83" + b"\0" * ets_terms.TERM_BYTES_MAX, "more than 64 MiB"),
    ],
)
def test_hostile_terms_do_no_harm(data, reason):
    """What would take too much to read is refused, before any of it is made."""
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match=reason):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_row_may_claim_any_size(store, tmp_path):
    """A row that says it is larger than the file is not waited for."""
    source = tab(tmp_path / "t.tab", struct.pack(">I", (1 << 32) - 1) + b"bWLA" + b"\0" * 99)
    assert ["a dump"] == [found.what for found in take(store, "ets", source)[1]]


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    """Whoever lacks erlang_py learns what to install."""
    monkeypatch.setitem(sys.modules, "erlang", None)
    with pytest.raises(MissingExtra, match=r"evstore\[ets\]"):
        list(ets.read(str(tab(tmp_path / "t.tab", (binary("s"), {})))))
