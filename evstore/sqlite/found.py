"""What is found in a file: what the read path gives back."""

from collections.abc import Iterator, KeysView, Mapping
from typing import NamedTuple

from evstore.events import value_text
from evstore.state import Reference


class Found(NamedTuple):
    """A variable as found: the seq that set it, the seq since which it was never deleted, its
    deadline (µs), and the text of its value.
    """

    seq: int
    created: int
    operand: int | None
    text: str | None


def found(reference: Reference, text: str | None) -> Found:
    """Return what a name stands for, by the text of the event that set it."""
    seq, created, operand = reference
    return Found(seq, created or 0, operand, None if text is None else value_text(text, operand))


class ByName(Mapping[str, Found]):
    """What names stand for by the events that set them, made as it is asked for.

    Of the thousands that a moment may have, few are looked at.
    """

    def __init__(self, references: dict[str, Reference], texts: dict[str, str | None]) -> None:
        self._references = references
        self._texts = texts

    def __getitem__(self, name: str) -> Found:
        """Return what a name stands for."""
        return found(self._references[name], self._texts[name])

    def __contains__(self, name: object) -> bool:
        """Tell whether the name is there."""
        return name in self._references

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._references)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._references)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._references.keys()


class Facts(NamedTuple):
    """What is known of an event besides its data: time in µs, who said it, position."""

    time_us: int
    actor: str | None
    position: int


class Step(NamedTuple):
    """A batch as a step that can be taken back, if it `changes` a variable or message at all."""

    first: int
    last: int
    cause: str | None
    changes: bool
