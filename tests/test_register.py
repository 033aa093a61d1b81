"""Objects of registered classes come back as they were, also where a class is not registered."""

import enum
import functools
import subprocess
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import attrs
import numpy as np
import pytest

import evstore
from evstore import registry, values
from evstore.errors import BadName, NotStorable, NotUpcast, Refused
from tests.values_strategy import fingerprint

pytestmark = pytest.mark.usefixtures("unregistered")


def back(value: Any) -> Any:
    return values.decode(values.encode(value))


def forget(cls: type) -> None:
    """Let this process no longer know a class."""
    registration = registry.by_class.pop(cls)
    del registry.by_name[registration.name]


@attrs.frozen
class Point:
    x: float
    y: float = 0.0
    tags: tuple[str, ...] = ()


@attrs.define
class Private:
    _secret: int
    made: list[Any] = attrs.field(factory=list, init=False)


@dataclass
class Trip:
    name: str
    stops: list[Point] = field(default_factory=list)
    budget: Any = None


class Colour(enum.Enum):
    RED = "red"
    GREEN = (1, 2)


class Level(enum.IntEnum):
    LOW = 1


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Mode(enum.StrEnum):
    FAST = "fast"


class Corner(tuple[int, int], enum.Enum):  # noqa: SLOT001 - members have names
    LEFT = (0, 0)


class Letter(bytes, enum.Enum):
    A = b"a"


class Spot(NamedTuple):
    row: int
    column: Any = None


Old = namedtuple("Old", "a b")  # noqa: PYI024 - the older form has to work as well


def test_attrs_objects_come_back():
    """An attrs object is stored as its fields, private ones and those made later included."""
    evstore.register(Point)
    evstore.register(Private)
    point = Point(1, float("inf"), ("a", "b"))
    assert point == back(point)
    assert type(back(point).x) is int
    private = Private(7)
    private.made.append((1,))
    assert private == back(private)
    assert b'{"$object":["Point",1,{"x":1,"y":2.0,"tags":{"$tuple":[]}}]}' == values.encode(
        Point(1, 2.0)
    )


def test_fields_are_left_as_they_are():
    """What a field holds is not converted to what its annotation says."""

    @attrs.define
    class Loose:
        converter: int
        cl: float
        name: str
        points: Any = None

    evstore.register(Loose)
    loose: Any = Loose("5", True, None, ({1},))  # type: ignore[arg-type]
    assert fingerprint(attrs.astuple(loose)) == fingerprint(attrs.astuple(back(loose)))


def from_text(text: str) -> datetime:
    return datetime.fromisoformat(text)


@attrs.frozen
class Price:
    cents: int = attrs.field(converter=lambda euros: euros * 100)
    at: datetime = attrs.field(converter=from_text)

    @functools.cached_property
    def euros(self) -> float:
        return self.cents / 100


T = TypeVar("T")


@dataclass
class Line(Generic[T]):
    net: float
    rate: InitVar[float]
    gross: float = field(init=False)
    label: T | None = None

    def __post_init__(self, rate: float) -> None:
        self.net = round(self.net, 2)
        self.gross = self.net * rate

    @functools.cached_property
    def tax(self) -> float:
        return self.gross - self.net


@dataclass(frozen=True, slots=True)
class Tight:
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text + "!")


def test_reading_makes_nothing_anew():
    """What a class does to its fields when an object is made is not done again when it is read."""
    price, line = Price(12, "2026-01-01"), Line[str](100.0, rate=1.19)
    assert (12.0, 19.0) == (price.euros, line.tax)
    line.net = 1 / 3
    for value in (price, line, Tight("x")):
        evstore.register(type(value))
        text = values.encode(value)
        again = values.decode(text)
        assert value == again
        assert text == values.encode(again)
    assert 12.0 == back(price).euros


def test_a_field_added_since_gets_its_default():
    """Where data lacks a field, that gets the default of the class, and the others stay."""

    @attrs.define
    class Order:
        price: int = attrs.field(converter=lambda euros: euros * 100)
        count: Any = attrs.field(default="1", converter=int)
        notes: list[str] = attrs.field(factory=list)
        twice: int = attrs.field(init=False, default=attrs.Factory(lambda it: 2 * it.count, True))

    examples: list[tuple[type, Any, Any]] = [
        (Order, {"price": 500}, {"price": 500, "count": 1, "notes": [], "twice": 2}),
        (Order, {"price": 5, "count": 3, "twice": 1}, {"count": 3, "notes": [], "twice": 1}),
        (Trip, {"name": "Rome"}, {"name": "Rome", "stops": [], "budget": None}),
    ]
    for cls, data, fields in examples:
        evstore.register(cls)
        found = values.decode(values.encode(evstore.Unregistered(cls.__name__, 1, data)))
        assert fields == {name: getattr(found, name) for name in fields}
    for refused in ({}, {"price": 1, "gone": 2}, [1], "price"):
        with pytest.raises(NotUpcast, match="version 1 of 'Order' cannot be brought up"):
            values.decode(values.encode(evstore.Unregistered("Order", 1, refused)))


@attrs.define(slots=False)
class Loose:
    text: str


class Noted(Loose):
    pass


class Slotted:
    __slots__ = ("author",)


@attrs.define
class Signed(Slotted):
    text: str


@dataclass
class Plain:
    text: str


@pytest.mark.parametrize("cls", [Loose, Noted, Signed, Plain])
def test_attributes_that_are_no_fields_are_not_lost(cls):
    """An object with attributes beside its fields is refused, with their names."""
    evstore.register(cls)
    note = cls("x")
    assert "x" == back(note).text
    note.author = "ada"
    with pytest.raises(NotStorable, match=r"beside its fields \(author\)"):
        values.encode(note)


def test_what_is_more_than_its_fields_is_not_stored_as_fields():
    """A class with fields that is an exception or a built-in type besides needs its own codec."""

    @attrs.define
    class Failed(Exception):
        tool: str

    @dataclass
    class Listed(list[int]):
        name: str

    for cls in (Failed, Listed):
        with pytest.raises(Refused, match="give encode= and decode="):
            evstore.register(cls)
    evstore.register(Failed, encode=attrs.asdict, decode=lambda data: Failed(**data))
    assert "search" == back(Failed("search")).tool


def test_dataclass_objects_come_back():
    """A dataclass object comes back with the objects inside it, whatever the annotations say."""
    evstore.register(Point)
    evstore.register(Trip)
    trip = Trip("Rome", [Point(1.5)], budget={Decimal("1.5"): Point(2)})
    assert trip == back(trip)
    assert {"trips": (trip,)} == back({"trips": (trip,)})


def test_classes_inside_are_registered_too():
    """An object inside that nobody registered is refused with the way to it."""
    evstore.register(Trip)
    with pytest.raises(NotStorable) as refused:
        values.encode({"t": Trip("Rome", [Point(1)])})
    assert "value['t'].Trip['stops'][0]" == refused.value.path
    assert "Point" == refused.value.type


@pytest.mark.parametrize(
    "member",
    [*Colour, *Level, *Mode, *Corner, *Letter, Right.READ, Right.READ | Right.WRITE, Right(0)],
    ids=repr,
)
def test_enum_members_come_back(member):
    """A member of an Enum comes back as the one member that it is."""
    evstore.register(type(member))
    assert back(member) is member
    assert {member} == back({member})


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<i4").reshape(2, 3),
        np.array(5.5),
        np.zeros((0, 3)),
        np.array([1 + 2j, np.nan]),
        np.array(["a", "bcd"]),
        np.array([True, False]),
        np.array([1, 2], dtype=">f8"),
        np.array(["2026-01-01"], dtype="M8[us]"),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
        np.arange(10)[::3],
    ],
    ids=map(str, range(11)),
)
def test_arrays_come_back(array):
    """A numpy array comes back with its dtype, its shape and its bytes, and can be written to."""
    evstore.register(np.ndarray)
    again = back({"a": array})["a"]
    assert (array.dtype, array.shape) == (again.dtype, again.shape)
    assert array.tobytes() == again.tobytes()
    assert again.flags.writeable


def test_numpy_scalars_come_back():
    """A numpy scalar comes back with its own type."""
    scalars: list[Any] = [
        np.float64(1.5),
        np.float32(0.1),
        np.int8(-1),
        np.bool_(True),
        np.str_("x"),
    ]
    for scalar in [*scalars, np.datetime64("2026-01-01"), np.complex64(1j), np.float64("nan")]:
        evstore.register(type(scalar))
        again = back([scalar])[0]
        assert type(scalar) is type(again)
        assert scalar.tobytes() == again.tobytes()


def test_arrays_of_objects_are_refused():
    """An array that holds Python objects is refused where it stands; so are strange bytes."""
    evstore.register(np.ndarray)
    with pytest.raises(NotStorable, match=r"value\['a'\] \(ndarray\) .*Python objects"):
        values.encode({"a": np.array([object()])})
    for data in (["<i4", [2], b"1234"], ["<i4", [1], b"12345678"], ["|O", [1], bytes(8)], [], 5):
        with pytest.raises(NotUpcast):
            values.decode(values.encode(evstore.Unregistered("ndarray", 1, data)))
    with pytest.raises(Refused, match="MaskedArray is not known"):
        evstore.register(np.ma.MaskedArray)


def test_named_tuples_come_back():
    """A named tuple comes back as one."""
    for value in (Spot(1, [2]), Spot(1), Old(1, (2,))):
        evstore.register(type(value))
        assert value == back(value)
        assert type(value) is type(back(value))


BASES: dict[type, Any] = {
    str: "text",
    int: 10**30,
    float: float("nan"),
    bytes: b"x",
    list: [1, float("nan")],
    tuple: (1, 2),
    dict: {1: "a"},
    set: {1},
    frozenset: frozenset({1}),
    datetime: datetime(2026, 10, 25, 2, 30, 1, 5, fold=1, tzinfo=UTC),
    date: date(2026, 1, 1),
    time: time(1, 2, 3, 4, fold=1, tzinfo=UTC),
    timedelta: timedelta(-1, 2, 3),
    Decimal: Decimal("sNaN"),
    uuid.UUID: uuid.UUID(int=7),
}


def subclass_value(base: type) -> Any:
    cls: Any = type("Sub", (base,), {})
    value = BASES[base]
    match value:
        case datetime():
            return cls.combine(value.date(), value.timetz()).replace(fold=value.fold)
        case date():
            return cls.fromordinal(value.toordinal())
        case time():
            return cls(1, 2, 3, 4, tzinfo=UTC, fold=1)
        case timedelta():
            return cls(-1, 2, 3)
        case uuid.UUID():
            return cls(int=7)
    return cls(value)


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_subclasses_of_storable_types_come_back(base):
    """An object of a subclass of a storable type comes back in its class, with all it holds."""
    value = subclass_value(base)
    evstore.register(type(value))
    again = back([value])[0]
    assert type(value) is type(again)
    assert fingerprint(value) == fingerprint(again)


def test_what_a_subclass_adds_is_not_lost():
    """Where a subclass holds more than its base, it is refused rather than cut down."""

    class Marked(str):  # noqa: SLOT000 - it is here to hold more
        by: str

    evstore.register(Marked)
    plain, marked = Marked("x"), Marked("x")
    marked.by = "me"
    assert plain == back(plain)
    with pytest.raises(NotStorable, match="comes back changed"):
        values.encode(marked)
    evstore.register(defaultdict)
    with pytest.raises(NotStorable):
        values.encode(defaultdict(list, a=[1]))
    wide = type("Wide", (Spot,), {})(1)
    evstore.register(type(wide))
    assert wide == back(wide)
    wide.by = "me"
    with pytest.raises(NotStorable, match="comes back changed"):
        values.encode(wide)
    for cls, value in ((OrderedDict, OrderedDict(b=1, a=2)), (Counter, Counter("abca"))):
        evstore.register(cls)
        assert value == back(value)


def test_the_fold_is_part_of_a_time():
    """A time that would come back an hour earlier, since its class drops the fold, is refused."""

    class Local(time):
        def __new__(cls, *args: Any, fold: int = 0) -> Any:
            return super().__new__(cls, *args)

    evstore.register(Local)
    assert Local(2, 30) == back(Local(2, 30))
    with pytest.raises(NotStorable, match="comes back changed"):
        values.encode(Local(2, 30).replace(fold=1))


def test_register_gives_the_class_back():
    """So that it decorates one."""

    @evstore.register
    @attrs.frozen
    class Decorated:
        x: int

    assert Decorated(1) == back(Decorated(1))
    assert Decorated is evstore.register(Decorated, version=2)


def test_own_encode_and_decode():
    """An application may say itself what is stored of an object and how it comes back."""
    evstore.register(type(Path("x")), name="path", encode=str, decode=Path)
    assert b'{"$object":["path",1,"a/b"]}' == values.encode(Path("a/b"))
    assert Path("a/b") == back(Path("a/b"))
    assert "path" == values.type_name(values.encode(Path("a/b")))
    evstore.register(complex, encode=lambda _number: 1 // 0, decode=complex)
    with pytest.raises(NotStorable, match="ZeroDivisionError") as refused:
        values.encode([1j])
    assert "value[0]" == refused.value.path


def test_older_versions_are_lifted():
    """Data of an older version goes through `upcast`; that of a newer one is left as it is."""
    evstore.register(Point, version=2)
    text = values.encode(Point(3, 4))
    evstore.register(
        Point, version=3, upcast=lambda data, version: data | {"tags": (str(version),)}
    )
    assert Point(3, 4, ("2",)) == values.decode(text)
    evstore.register(Point, version=3)
    assert evstore.Unregistered("Point", 2, {"x": 3, "y": 4, "tags": ()}) == values.decode(text)
    newer = text.replace(b'"Point",2', b'"Point",9')
    evstore.register(Point, version=3, upcast=lambda _data, _version: 1 // 0)
    assert newer == values.encode(values.decode(newer))
    with pytest.raises(NotUpcast, match="ZeroDivisionError"):
        values.decode(text)


def test_events_of_your_own_carry_types_and_versions(memory: evstore.Store):
    """An event of the application's own holds its objects, and older ones are lifted when read."""
    evstore.register(Point, version=1)
    trip = memory.session("trip")
    trip.record("app.place.seen", {"at": Point(3, 4)})
    with trip.batch() as batch:
        batch.record("app.place.seen", [Point(5, 6)])
    evstore.register(Point, version=2, upcast=lambda data, _version: data | {"tags": ("old",)})
    trip.record("app.place.seen", Point(7, 8, ("new",)))
    first, second, third = trip.events(kind="app.place.seen")
    assert {"at": Point(3, 4, ("old",))} == first.data
    assert [Point(5, 6, ("old",))] == second.data
    assert Point(7, 8, ("new",)) == third.data


def test_a_field_that_went_is_noticed():
    """Data that a class has no field for is not dropped silently: it takes a new version."""
    evstore.register(Point)
    text = values.encode(evstore.Unregistered("Point", 1, {"x": 1, "z": 2}))
    with pytest.raises(NotUpcast, match="version 1 of 'Point' cannot be brought up"):
        values.decode(text)


def test_unregistered_objects_lose_nothing():
    """An object of an unknown class comes back as Unregistered, and is stored again as it was."""
    evstore.register(Point)
    evstore.register(Trip, name="holiday", version=4)
    value = {"set": {Point(1), Point(2, tags=("x",))}, "trip": [Trip("Rome", [Point(0)])]}
    text = values.encode(value)
    forget(Point)
    forget(Trip)
    found = values.decode(text)
    assert evstore.Unregistered("holiday", 4, found["trip"][0].data) == found["trip"][0]
    assert text == values.encode(found)
    assert 2 == len(found["set"])
    evstore.register(Point)
    evstore.register(Trip, name="holiday", version=4)
    assert value == values.decode(text)


def test_a_set_does_not_lose_objects_that_are_stored_alike():
    """Two objects of a set that would come back as one are refused."""

    @attrs.frozen(eq=False)
    class Token:
        text: str

    evstore.register(Token)
    assert 2 == len(back({Token("a"), Token("b")}))
    with pytest.raises(NotStorable, match="stored alike"):
        values.encode({Token("a"), Token("a")})


def test_a_name_belongs_to_one_class():
    """Another class under a taken name is refused; the same class, or it defined anew, is not."""
    evstore.register(Point)
    evstore.register(Point, version=2)
    with pytest.raises(Refused, match="give another name="):
        evstore.register(Trip, name="Point")
    anew = attrs.make_class("Point", ["x"])
    anew.__module__, anew.__qualname__ = Point.__module__, Point.__qualname__
    evstore.register(anew)
    assert isinstance(back(anew(1)), anew)


def test_a_class_may_be_renamed():
    """What was stored under an older name of a class is still read."""
    evstore.register(Point, name="Dot")
    text = values.encode(Point(1))
    evstore.register(Point, name="Point")
    assert Point(1) == values.decode(text)
    assert b'"Point"' in values.encode(Point(1))


def test_what_cannot_be_registered_is_refused():
    """A class that nothing is known about, or a strange name or version, is refused."""
    for cls in (object, Path, int, str):
        with pytest.raises(Refused, match="give encode= and decode="):
            evstore.register(cls)
    with pytest.raises(BadName):
        evstore.register(Point, name="a\0b")
    for version in (0, -1, 1.5, True, 1 << 31):
        with pytest.raises(Refused, match="version"):
            evstore.register(Point, version=version)  # type: ignore[arg-type]


def test_objects_in_a_store(memory):
    """Registered objects are variables like others, and their type is the name of their class."""
    evstore.register(Point)
    session = memory.session("trip")
    session.variables["p"] = Point(1, 2)
    assert Point(1, 2) == session.variables["p"]
    assert "Point" == session.variables.info("p").type


def test_importing_evstore_imports_no_more_than_it_needs():
    """What only some applications need is not imported before they do."""
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"  # What measures coverage may have loaded some of them.
        "import evstore\n"
        "print(*sorted(set(sys.argv[1:]) & (set(sys.modules) - before)))"
    )
    packages = ("cattrs", "numpy", "pydantic", "click", "rich")
    modules = ("asyncio", "importlib.resources", "pathlib", "pickle", "random", "zoneinfo")
    command = [sys.executable, "-c", program, *packages, *modules, "apsw.sqlite_extra"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert b"" == done.stdout.strip()
