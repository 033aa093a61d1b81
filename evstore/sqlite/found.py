"""What the read path gives back, as rows of the face above it."""

from typing import NamedTuple


class Found(NamedTuple):
    """A variable as found: the seq that set it, the seq since which it was never deleted, its
    deadline (µs), and the text of its value.
    """

    seq: int
    created: int
    operand: int | None
    text: str | None


class Facts(NamedTuple):
    """What is known of an event besides its data: time in µs, bytes of its text, position."""

    time_us: int
    actor: str | None
    size_bytes: int
    position: int


class Step(NamedTuple):
    """A batch as a step that can be taken back."""

    first: int
    last: int
    cause: str | None
