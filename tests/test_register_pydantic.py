"""Models of pydantic come back as they were, whatever their fields are called."""

import functools
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel

import evstore
from evstore import values
from evstore.errors import NotStorable, NotUpcast

pytestmark = pytest.mark.usefixtures("unregistered")


def back(value: Any) -> Any:
    return values.decode(values.encode(value))


class Animal(BaseModel):
    kind: str = Field(alias="animalKind")
    weight: Decimal
    seen: datetime | None = None


class Farm(BaseModel):
    model_config = ConfigDict(extra="allow")
    animals: list[Animal]
    ids: set[uuid.UUID] = set()


class Swapped(BaseModel):
    first: int = Field(alias="second")
    second: int = Field(alias="first")


class Pets(RootModel[list[str]]):
    def __iter__(self) -> Any:
        return iter(self.root)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int = 1


def test_pydantic_models_come_back():
    """A pydantic model comes back equal, with aliases, nested models and extra fields."""
    evstore.register(Animal)
    evstore.register(Farm)
    goat = Animal(animalKind="goat", weight=Decimal("40.50"), seen=datetime(2026, 1, 1, tzinfo=UTC))
    farm = Farm(animals=[goat], ids={uuid.UUID(int=1)}, owner=("Anna",))  # type: ignore[call-arg]
    assert farm == back(farm)
    assert "40.50" == str(back(farm).animals[0].weight)
    for data in ({"kind": "goat"}, {"kind": "goat", "weight": 1, "unknown": 2}):
        with pytest.raises(NotUpcast, match="version 1 of 'Animal' cannot be brought up"):
            values.decode(values.encode(evstore.Unregistered("Animal", 1, data)))


def test_cached_properties_are_no_data():
    """What a model has cached of its fields is not stored, and is computed again."""

    class Square(BaseModel):
        side: int

        @functools.cached_property
        def area(self) -> int:
            return self.side**2

    evstore.register(Square)
    square = Square(side=3)
    text = values.encode(square)
    assert 9 == square.area
    assert text == values.encode(square)
    assert 9 == back(square).area


@pytest.mark.parametrize(
    "model",
    [
        Swapped(second=1, first=2),
        Pets(["dog", "cat"]),
        Pets(["ab", "cd"]),
        Pets([]),
        Open.model_validate({"_fields_set": 3, "cls": 4, "self": 5, "values": 6}),
        Open(x=2),
    ],
    ids=str,
)
def test_names_do_not_matter(model):
    """Neither an alias, nor what a model iterates over, nor the name of extra data misleads."""
    evstore.register(type(model))
    again = back(model)
    assert type(model) is type(again)
    assert model == again
    assert vars(model) == vars(again)
    assert model.model_extra == again.model_extra


def test_a_field_added_since_has_its_default():
    """A default that other fields decide is asked for, and an alias does not take its place."""

    class Order(BaseModel):
        label: str = Field(alias="item", default="none")
        item: str
        shouted: str = Field(default_factory=lambda data: data["item"].upper())
        notes: list[str] = []

    evstore.register(Order)
    order = values.decode(values.encode(evstore.Unregistered("Order", 1, {"item": "book"})))
    assert ("none", "book", "BOOK", []) == (order.label, order.item, order.shouted, order.notes)
    order.notes.append("soon")
    assert [] == back(evstore.Unregistered("Order", 1, {"item": "book"})).notes


def test_private_attributes_are_made_again():
    """They are no data; what makes them does not change the fields on the way."""

    class Counted(BaseModel):
        total: int
        _cache: dict[str, int] = PrivateAttr(default_factory=dict)

        def model_post_init(self, _context: Any, /) -> None:
            self.total += 1
            self._cache["total"] = self.total

    evstore.register(Counted)
    counted = Counted(total=1)
    again = back(counted)
    assert 2 == counted.total == again.total
    assert "total" in again._cache


def test_what_is_beside_the_fields_is_refused():
    """Extra data under the name of a field, or what is no field at all, is not lost silently."""

    class Named(BaseModel):
        model_config = ConfigDict(extra="allow")
        name: str = Field(alias="title")

    evstore.register(Named)
    hidden = Named.model_validate({"title": "a"})
    assert hidden == back(hidden)
    vars(hidden)["other"] = 1
    for named in (hidden, Named.model_validate({"title": "a", "name": "b"})):
        with pytest.raises(NotStorable, match="attributes beside its fields"):
            values.encode(named)
