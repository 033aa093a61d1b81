"""A value comes back exactly as it was stored, or is refused with the place where it cannot be."""

import enum
import json
import os
import subprocess
import sys
from collections import OrderedDict, UserDict, deque
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import apsw
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evstore import values
from evstore.errors import Corrupt, NotStorable, Unavailable
from evstore.tags import FROM_TAG
from evstore.transfer import chosen
from tests.values_strategy import fingerprint, keys, messages, plain_json, same, scalars, storable

ROME = ZoneInfo("Europe/Rome")
SQL = apsw.Connection(":memory:")


def back(value: Any) -> Any:
    return values.decode(values.encode(value))


@given(storable)
@example(-0.0)
@example(10**5000)
@example([float("nan"), -(10**5000), (1 << 63), -(1 << 63) - 1])
@example(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ROME))
@example(time(2, 30, fold=1, tzinfo=ROME))
@example(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-23, seconds=-1, microseconds=-1))))
@example(datetime(9999, 12, 31, tzinfo=timezone(timedelta(0), "UTC")))
@example([datetime(2026, 1, 1, tzinfo=UTC), date(1, 1, 1), timedelta.min, timedelta.max])
@example([Decimal("sNaN12"), Decimal("1E+999999"), Decimal("0E-9"), Decimal("-0")])
@example({1: "a", "1": "b", None: 0, (1, ("x", b"y")): [], 2.5: (), "t": {}})
@example([{float("nan"), float("nan")}, {float("nan"): 1, float("nan"): 2}])
@example([set(), frozenset(), {frozenset({(1, 2)}), "a"}, {}, (), [], "", b"", UUID(int=0)])
def test_every_type_comes_back_exactly(value):
    """A value comes back with the same type at every level, sign, order, fold and zone."""
    assert same(value, back(value))


@given(plain_json)
def test_plain_json_stays_plain(value):
    """What JSON can hold is stored as a JSON encoder writes it."""
    assert orjson.dumps(value) == values.encode(value)


@given(messages)
def test_messages_come_back(message):
    """A message comes back with every key it was given."""
    assert same(message, back(message))


@given(storable)
def test_stored_text_is_json(value):
    """Every stored text is JSON to SQLite, and plain text and bytes decode alike."""
    text = values.encode(value)
    assert 1 == SQL.cursor().execute("select json_valid(?)", (text.decode(),)).get
    assert same(values.decode(text), values.decode(text.decode()))


@given(storable)
def test_storing_again_changes_nothing(value):
    """What came back is stored as the same text: there is one text for a value."""
    text = values.encode(value)
    assert text == values.encode(values.decode(text))


def test_a_value_read_is_a_fresh_object():
    """Changing what was read changes nothing that is read later."""
    text = values.encode({"a": [1], "b": {2}})
    first = values.decode(text)
    first["a"].append(2)
    first["b"].clear()
    assert {"a": [1], "b": {2}} == values.decode(text)


@pytest.mark.parametrize(
    "value",
    [
        {"$tuple": [1, 2]},
        {"$dict": [[1, 2]]},
        {"$object": ["Point", 1, {}]},
        {"$int": "0x10"},
        {"$": None},
        {"$unknown": 1},
        {"$dict": {"$dict": {"$tuple": []}}},
        [{"$set": []}, ({"$set": {"$set": 1}},)],
        {"a": {"$tuple": [{"$float": "nan"}]}},
        {"$tuple": [1], "$set": [2]},
        {"$schema": "https://json-schema.org", "type": "object"},
    ],
)
def test_what_looks_like_a_tag_is_none(value):
    """A dict that looks like a tag comes back as the dict it was."""
    assert same(value, back(value))
    assert same([value, (value,)], back([value, (value,)]))


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 1


class Odd(tzinfo):
    def utcoffset(self, _moment: Any) -> timedelta:
        return timedelta(hours=1)

    dst = utcoffset

    def tzname(self, _moment: Any) -> str:
        return "odd"


class Rude:
    def __repr__(self):
        raise RuntimeError("no")


def subclass(base: type) -> type:
    return type("Sub" + base.__name__, (base,), {})


def offenders() -> list[Any]:
    bases = [str, int, float, bytes, list, tuple, dict, set, frozenset, timedelta, Decimal]
    subclasses = [subclass(base)() for base in bases]
    return [
        *subclasses,
        subclass(datetime)(2026, 1, 1),
        subclass(date)(2026, 1, 1),
        subclass(time)(),
        subclass(UUID)(int=1),
        bytearray(b"x"),
        memoryview(b"x"),
        1j,
        Fraction(1, 2),
        Path("x"),
        object(),
        Colour.RED,
        Level.HIGH,
        (number for number in [1]),
        range(3),
        deque([1]),
        OrderedDict(),
        UserDict(),
        ...,
        NotImplemented,
        int,
        len,
        Rude(),
        "\ud800",
        "fine until \udfff",
        datetime(2026, 1, 1, tzinfo=Odd()),
        time(1, tzinfo=Odd()),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(0), "\ud800")),
        datetime(2026, 1, 1, tzinfo=subclass(ZoneInfo)("Europe/Rome")),
        {}.keys(),
    ]


@pytest.mark.parametrize("offender", offenders(), ids=map(str, range(100)))
def test_other_types_are_refused_with_their_place(offender):
    """What cannot be stored without loss is refused, and the error says where it stands."""
    places = {
        "value": offender,
        "value['a'][1]": {"a": [0, offender]},
        "value[0]['b']": ({"b": offender},),
        "value[1]['x']": {1: {"x": offender}},
        "value[(1, 'k')][0]": {(1, "k"): [offender]},
    }
    for path, value in places.items():
        with pytest.raises(NotStorable) as refused:
            values.encode(value)
        assert path == refused.value.path
    with pytest.raises(NotStorable) as refused:
        values.encode([offender], root="message")
    assert "message[0]" == refused.value.path


def hashable(offender: Any) -> bool:
    try:
        hash(offender)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("offender", [*filter(hashable, offenders())], ids=map(str, range(100)))
def test_keys_and_elements_are_refused_with_their_place(offender):
    """A key or an element that cannot be stored is refused where it stands."""
    for value, start in [
        ({"a": {offender: 1}}, "value['a']: key "),
        ({(1, offender): 1}, "value: key "),
        ([{offender}], "value[0]{"),
        ([frozenset({(offender,)})], "value[0]{("),
    ]:
        with pytest.raises(NotStorable) as refused:
            values.encode(value)
        assert refused.value.path.startswith((start, "value[0]{<tuple>}"))


def test_the_refused_type_is_named():
    """The error names the type of the element, or of its time zone."""
    for value, name in [
        (1j, "complex"),
        ([Path("x")], type(Path("x")).__name__),
        ("\ud800", "str"),
    ]:
        with pytest.raises(NotStorable) as refused:
            values.encode(value)
        assert name == refused.value.type
    with pytest.raises(NotStorable, match=r"\(Odd\) is a time zone that cannot be found again"):
        values.encode(datetime(2026, 1, 1, tzinfo=Odd()))


def test_a_zone_read_from_a_file_is_refused(tmp_path):
    """A time zone whose rules came from some file is not the one that its key names."""
    path = next(Path(folder, "Europe/Rome") for folder in __import__("zoneinfo").TZPATH if folder)
    if not path.exists():
        pytest.skip("this machine keeps its time zones elsewhere")
    for key in (None, "Europe/Berlin"):
        with path.open("rb") as file:
            zone = ZoneInfo.from_file(file, key=key)
        with pytest.raises(NotStorable):
            values.encode(datetime(2026, 1, 1, tzinfo=zone))


def test_containers_are_no_keys():
    """A frozenset can be hashed, and still is no key of a stored dict."""
    with pytest.raises(NotStorable, match="cannot be the key"):
        values.encode({frozenset(): 1})


def test_long_paths_lose_their_middle():
    """The path of an error stays readable, however long the keys and however deep the place."""
    value: Any = 1j
    for _ in range(90):
        value = {"key" * 100: [value]}
    with pytest.raises(NotStorable) as refused:
        values.encode(value)
    path = refused.value.path
    assert values.PATH_CHARACTERS_MAX >= len(path)
    assert path.startswith("value['key")
    assert path.endswith("][0]")
    assert "…" in path
    with pytest.raises(NotStorable, match="<int>"):  # Python refuses to print such a number.
        values.encode({10**5000: 1j})


def nested(levels: int, wrap: Any, innermost: Any) -> Any:
    for _ in range(levels - 1):
        innermost = wrap(innermost)
    return innermost


WRAPS = {
    "list": (lambda inner: [inner], []),
    "tuple": (lambda inner: (inner,), ()),
    "dict": (lambda inner: {"k": inner}, {}),
    "tag": (lambda inner: {"$t": inner}, {}),
    "pairs": (lambda inner: {1: inner}, {}),
    "set": (lambda inner: frozenset({inner}), frozenset()),
    "key": (lambda inner: (inner, 1), (1,)),
}


@pytest.mark.parametrize("kind", [kind for kind in WRAPS if kind != "key"])
def test_depth_is_bounded(kind):
    """A hundred levels are stored and come back; one more is refused, for every container."""
    wrap, innermost = WRAPS[kind]
    value = nested(100, wrap, innermost)
    assert same(value, back(value))
    text = values.encode(value).decode()
    assert 1 == SQL.cursor().execute("select json_valid(?)", (text,)).get
    with pytest.raises(NotStorable, match="deeper than 100 levels"):
        values.encode(nested(101, wrap, innermost))


def test_what_is_deep_is_read_wherever_it_is_recorded(session):
    """What is stored at the greatest depth is read from variables, messages and events alike."""
    deep = nested(99, WRAPS["list"][0], (1,))
    message = {"role": "user", "content": nested(99, WRAPS["tuple"][0], (1,))}
    (first,) = session.variables.set("deep", [deep])
    session.messages.append(message)
    session.record("app.deep", [deep])
    with session.batch() as batch:
        batch.messages.append(message)
        assert message == batch.messages[-1]
    assert [deep] == session.variables["deep"] == first.data["value"]
    assert [message, message] == session.messages[:] == list(session.messages)
    assert [
        {"value": [deep]},
        {"message": message},
        [deep],
        {"message": message},
    ] == [event.data for event in session.events()]
    for said in chosen.messages(session.view()):
        assert orjson.loads(values.encode(message)) == said.message()
    with pytest.raises(NotStorable, match="deeper than 100 levels"):
        session.messages.append(message | {"content": (message["content"],)})


def test_depth_of_keys_is_bounded():
    """The levels of a key count from where it stands."""
    wrap, innermost = WRAPS["key"]
    value = {nested(99, wrap, innermost): 1}
    assert same(value, back(value))
    for levels in (100, 400):
        with pytest.raises(NotStorable, match="deeper than 100 levels"):
            values.encode({nested(levels, wrap, innermost): 1})


def test_tags_may_nest_deeper_than_the_fast_encoder_goes():
    """Where the fast encoder gives up, another one writes the same text."""
    tagged = nested(400, lambda inner: {"é": [inner, 1.5]}, "x")
    assert json.dumps(tagged, ensure_ascii=False).replace(" ", "") == values.dump(tagged).decode()


def test_cycles_are_refused():
    """A value that holds itself is refused like one that is nested too deep."""
    cycle: list[Any] = []
    cycle.extend([cycle, cycle])
    circle: dict[Any, Any] = {}
    circle[1] = (circle,)
    for value in (cycle, circle):
        with pytest.raises(NotStorable, match="deeper than 100 levels"):
            values.encode(value)


def test_fallback_turns_the_rest_into_something_storable():
    """A fallback is asked about whatever has no lossless form, also inside its own answers."""
    encode = values.encode
    assert b'["x",1]' == encode([Path("x"), 1], fallback=str)
    assert b'{"a":"1j"}' == encode({"a": 1j}, fallback=str)
    assert b'{"$set":["x"]}' == encode({Path("x")}, fallback=str)
    assert b'"?"' == encode(
        "\ud800", fallback=lambda text: text.encode("ascii", "replace").decode()
    )
    assert b'"Odd"' == encode(time(1, tzinfo=Odd()), fallback=lambda at: type(at.tzinfo).__name__)
    answers = {complex: [Path("x"), 2], type(Path("x")): "x"}
    assert b'[["x",2]]' == encode([1j], fallback=lambda value: answers[type(value)])


def test_fallback_has_bounds():
    """An answer that never ends or cannot be an element is refused; keys are never asked about."""
    with pytest.raises(NotStorable, match="deeper than 100 levels"):
        values.encode(1j, fallback=lambda value: value)
    with pytest.raises(NotStorable, match="cannot be the element of a set"):
        values.encode([{(1, Path("x"))}], fallback=lambda value: [str(value)])
    with pytest.raises(NotStorable, match="cannot be the key"):
        values.encode({Path("x"): 1}, fallback=str)
    with pytest.raises(ZeroDivisionError):
        values.encode(1j, fallback=lambda _value: 1 // 0)


def test_fallback_is_not_asked_about_storable_values():
    """What can be stored is never given to the fallback."""
    value = {"a": (1, {2}), 3: [b"x", 10**30]}
    assert values.encode(value) == values.encode(value, fallback=lambda _value: 1 // 0)


def test_sets_are_stored_in_one_order():
    """Equal sets are stored as the same text, whatever the seed of the hashes."""
    program = (
        "from evstore import values;"
        "print(values.encode({'a', 'b', (1, 'x'), frozenset({'y', 'z'}), 10, 9, None}).decode())"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert 1 == len(texts)
    elements = json.loads(texts.pop())["$set"]
    assert sorted(elements, key=orjson.dumps) == elements


@given(storable)
def test_the_type_is_known_without_the_value(value):
    """The name of a stored value's type is told from its text."""
    name = "None" if value is None else type(value).__name__
    text = values.encode(value)
    assert name == values.type_name(text)
    assert name == values.type_name(text.decode())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"$tuple":[1],"b":2}', "dict"),
        ('{"$schema":"x","type":"object"}', "dict"),
        ('{"$dict":[["$tuple",1]]}', "dict"),
        ('{"$object":["a \\"name\\" {",1,{}]}', 'a "name" {'),
        ("-0.0", "float"),
        ("1e300", "float"),
        ("-9223372036854775808", "int"),
    ],
)
def test_the_type_of_confusing_texts(text, name):
    """A dict whose first key begins like a tag is still a dict."""
    assert name == values.type_name(text)


@pytest.mark.parametrize("text", ['{"$', '{"$unknown":1}', '{"$object":5}', '{"$object":[]}'])
def test_the_type_of_a_damaged_text_is_corrupt(text):
    """Where the text is none of ours, neither is its type."""
    with pytest.raises(Corrupt):
        values.type_name(text)


HOSTILE = [
    *["", "{", "nul", "[1,]", "NaN", '"\\ud800"', "\x00", '{"a":1}x', "[" * 100_000],
    '{"$unknown":1}',
    '{"$":1}',
    *(
        f'{{"${tag}":{inner}}}'
        for tag in ("int", "float", "bytes", "date", "decimal", "uuid")
        for inner in ("null", "1", "true", "[]", "{}", '"?"', '[1,"x"]')
    ),
    *(
        f'{{"${tag}":{inner}}}'
        for tag in ("datetime", "time", "timedelta", "object")
        for inner in ("null", "1", "true", "[]", "{}", '"?"', '["x"]', "[1,2]", '[1,"x",{}]')
    ),
    *(
        f'{{"${tag}":{inner}}}'
        for tag in ("tuple", "set", "frozenset", "dict")
        for inner in ("null", "1", "true", "{}", '"ab"', '{"a":1}')
    ),
    '{"$set":[[1]]}',
    '{"$set":[{"$set":[]}]}',
    '{"$set":[{"$decimal":"sNaN"}]}',
    '{"$dict":[[[1],2]]}',
    '{"$dict":[[1]]}',
    '{"$dict":[1]}',
    '{"$dict":["ab","cd"],"$x":{"$no":1}}',
    '{"$float":"1.5"}',
    '{"$float":"Infinity"}',
    '{"$timedelta":[1.5,0,0]}',
    '{"$timedelta":[true,0,0]}',
    '{"$timedelta":[1000000000000,0,0]}',
    '{"$decimal":"1E9999999999999999999999999"}',
    '{"$datetime":["2026-01-01T00:00:00",[]]}',
    '{"$datetime":["2026-01-01T00:00:00",{"fold":2}]}',
    '{"$datetime":["2026-01-01T00:00:00",{"fold":"x"}]}',
    '{"$datetime":["2026-01-01T00:00:00",{"zone":5}]}',
    '{"$datetime":["2026-01-01T00:00:00",{"zone":"../../etc/passwd"}]}',
    '{"$datetime":["2026-01-01T00:00:00",{"offset_us":"1"}]}',
    '{"$datetime":["2026-01-01T00:00:00",{"offset_us":99999999999999}]}',
    '{"$datetime":["2026-01-01T00:00:00+01:00",{"name":5}]}',
    '{"$datetime":"2026-13-01T00:00:00"}',
    '{"$object":[1,1,{}]}',
    '{"$object":["Point","1",{}]}',
    '{"$object":["Point",-1,{}]}',
    '{"$object":["Point",1e99,{}]}',
    '{"$object":[["Point"],1,{}]}',
    '{"$tuple":[' * 101 + "]}" * 101,
    "[" * 101 + '{"$tuple":[]}' + "]" * 101,
    '{"$tuple":[' * 400 + "]}" * 400,
    '{"$dict":[[1,' * 101 + "1" + "]]}" * 101,
    '{"$object":["P",1,' * 101 + "1" + "]}" * 101,
]


@pytest.mark.parametrize("text", HOSTILE, ids=map(str, range(200)))
def test_hostile_texts_are_corrupt(text):
    """A text that evstore cannot have written is Corrupt, whatever it holds."""
    for given_text in (text, text.encode("utf-8", "surrogatepass")):
        with pytest.raises(Corrupt):
            values.decode(given_text)


def test_a_zone_of_elsewhere_is_unavailable():
    """A time zone that this machine does not know is no damage: the remedy is to install it."""
    for key in ("Mars/Olympus", "Europe", "a\\u0000b", "x" * 1000):
        with pytest.raises(Unavailable, match="install tzdata"):
            values.decode(f'{{"$datetime":["2026-01-01T00:00:00",{{"zone":"{key}"}}]}}')


_tags = st.sampled_from([*FROM_TAG, "$tuple", "$set", "$frozenset", "$dict", "$object", "$x"])
_any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_tags, inner, max_size=2),
)


@given(_any_json)
def test_any_json_is_decoded_or_corrupt(stored):
    """Whatever JSON is found, it becomes a value that can be stored, or it is Corrupt."""
    try:
        value = values.decode(orjson.dumps(stored))
    except (Corrupt, Unavailable):
        return
    assert same(value, back(value))


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_or_corrupt(stored):
    """Whatever bytes are found, they become a value, or they are Corrupt."""
    with suppress(Corrupt):
        values.decode(stored)


@given(st.dictionaries(keys, scalars, max_size=5))
def test_dicts_keep_their_order(value):
    """The keys of a dict come back in the order in which they stood."""
    assert [*map(fingerprint, value)] == [*map(fingerprint, back(value))]
