"""Models: whatever answers a conversation with text, at once or piece by piece."""

import enum
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable
from typing import Any, Final


class Anew(enum.Enum):
    """What a model yields to begin its reply anew: the pieces before are void."""

    ANEW = "anew"


ANEW: Final = Anew.ANEW
Message = dict[str, Any]
Piece = str | Anew
Model = Callable[[list[Message]], str | Iterable[Piece]]
AwaitedModel = Callable[
    [list[Message]], str | Iterable[Piece] | Awaitable[str] | AsyncIterable[Piece]
]

REPLY_CHARACTERS_MAX = 1_000_000


class Reply:
    """The text of a model, as its pieces come in; raises ValueError beyond a million characters."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._characters = 0

    def take(self, piece: Piece) -> None:
        """Take in a piece, or begin anew; raises TypeError for what is not text."""
        if piece is ANEW:
            self._pieces, self._characters = [], 0
            return
        if not isinstance(piece, str):
            raise TypeError(f"the model gave {type(piece).__name__} where text is expected")
        self._pieces.append(piece)
        self._characters += len(piece)
        if self._characters > REPLY_CHARACTERS_MAX:
            raise ValueError(f"the reply has more than {REPLY_CHARACTERS_MAX} characters")

    @property
    def text(self) -> str:
        """The whole text, in which every character can be stored."""
        return storable("".join(self._pieces))


def text_of(
    reply: Any, hear: Callable[[Piece], None], check: Callable[[], None] = lambda: None
) -> str:
    """Return the text of a reply that is one, or gives it in pieces, before each of which to check.

    All that is taken is heard as well.
    """
    whole = Reply()
    if isinstance(reply, str) or not isinstance(reply, Iterable):
        whole.take(reply)
        hear(reply)
        return whole.text
    try:
        for piece in reply:
            check()
            whole.take(piece)
            hear(piece)
    finally:  # Whoever stops listening keeps no connection open.
        if isinstance(reply, Generator):
            reply.close()
    return whole.text


def name_of(model: Any) -> str:
    """Return the name by which the log knows a model."""
    named = getattr(model, "name", None) or getattr(model, "__name__", None)
    return named if isinstance(named, str) else type(model).__name__


def storable(text: str) -> str:
    """Return a text with its lone surrogates replaced, which no file can hold."""
    return text.encode("utf-8", "replace").decode()
