"""The vocabulary: what can happen to a session, how it is said, and how it is recorded.

A *body* is what you say happened; an *Event* is a body that was recorded. The numbers of the kinds
are part of the file format and never change.
"""

import enum
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, AnyStr, Final

import attrs
import orjson

from evstore import evolution, observing, values
from evstore.errors import BadName, Corrupt, NotStorable, Refused, TooLarge
from evstore.limits import Limits

VARIABLE_SET: Final = "variable.set"
VARIABLE_DELETED: Final = "variable.deleted"
METADATA_SET: Final = "metadata.set"
METADATA_DELETED: Final = "metadata.deleted"
MESSAGE_ADDED: Final = "message.added"
MESSAGE_REMOVED: Final = "message.removed"
MESSAGE_REPLACED: Final = "message.replaced"
MESSAGES_CLEARED: Final = "messages.cleared"
MESSAGES_REVERTED: Final = "messages.reverted"
LABEL_SET: Final = "label.set"
SESSION_DELETED: Final = "session.deleted"
SESSION_RESTORED: Final = "session.restored"
SESSION_EXPIRED: Final = "session.expired"
SESSION_ERASED: Final = "session.erased"
SESSION_CHECKPOINTED: Final = "session.checkpointed"

# The position in this tuple, from 1, is the number of the kind in every file.
KINDS: Final = (
    VARIABLE_SET,
    VARIABLE_DELETED,
    METADATA_SET,
    METADATA_DELETED,
    MESSAGE_ADDED,
    MESSAGE_REMOVED,
    MESSAGE_REPLACED,
    MESSAGES_CLEARED,
    MESSAGES_REVERTED,
    LABEL_SET,
    SESSION_DELETED,
    SESSION_RESTORED,
    SESSION_EXPIRED,
    SESSION_ERASED,
    SESSION_CHECKPOINTED,
)
ENDINGS: Final = frozenset({SESSION_DELETED, SESSION_EXPIRED, SESSION_ERASED})
BODIES: Final = frozenset({MESSAGE_ADDED, MESSAGE_REPLACED})  # the kinds that carry a message

VARIABLES, METADATA, LABELS = 1, 2, 3  # the families of names, numbered as in the file
FAMILY: Final = {
    VARIABLE_SET: VARIABLES,
    VARIABLE_DELETED: VARIABLES,
    METADATA_SET: METADATA,
    METADATA_DELETED: METADATA,
    LABEL_SET: LABELS,
}
SETS: Final = {VARIABLES: VARIABLE_SET, METADATA: METADATA_SET}
DELETIONS: Final = {VARIABLES: VARIABLE_DELETED, METADATA: METADATA_DELETED}

# The one number in an event's data that `folding.fold` needs, so that folding decodes no data.
OPERANDS: Final = {
    VARIABLE_SET: "expires_at",
    MESSAGE_REMOVED: "seq",
    MESSAGE_REPLACED: "seq",
    MESSAGES_REVERTED: "to",
    LABEL_SET: "at",
}
# What a batch that takes back or brings in is, is written at the front of its cause.
UNDO: Final = "undo:"
REDO: Final = "redo:"
REVERT: Final = "revert:"
MERGE: Final = "merge:"
RESERVED_CAUSES: Final = (UNDO, REDO, REVERT, MERGE)
RUN: Final = "run:"  # the cause of what an agent did in a turn, with the seq that this began with
_MERGED = rf"{MERGE}([0-9a-f]{{32}}):([0-9]{{1,10}})"
_DATA_DEPTH_MAX = values.DEPTH_MAX + 1  # a value, and the object of the event that holds it
TIME_US_MAX: Final = 253_402_300_799_999_999  # the last moment that a datetime can say
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME_US_MIN = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


class Sentinel(enum.Enum):
    """Values that mean something no stored value can mean."""

    ANY = "any"
    ABSENT = "absent"
    ERASED = "erased"

    def __repr__(self) -> str:
        """Return the name under which evstore exports it."""
        return f"evstore.{self.name}"

    __str__ = __repr__


ANY: Final = Sentinel.ANY
ABSENT: Final = Sentinel.ABSENT
ERASED: Final = Sentinel.ERASED


def to_microseconds(moment: datetime) -> int:
    """Return the µs since 1970 of an aware datetime; raises Refused for a naive one."""
    if moment.utcoffset() is None:
        raise Refused(
            f"{moment!r} is naive and could mean many moments: give a datetime with tzinfo"
        )
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(time_us: int) -> datetime:
    """Return the aware UTC datetime of some µs since 1970, or the nearest one that there is."""
    return _EPOCH + timedelta(microseconds=max(_TIME_US_MIN, min(time_us, TIME_US_MAX)))


@attrs.frozen
class Event:
    """Something that happened, as recorded; `data` and `time` are made when looked at.

    `seq` counts from 1 within the session, `position` over the store in commit order. `session` and
    `uid` name the life that recorded it, which for the shared past of a fork is an ancestor. `text`
    and `version` are as they were stored, before any upcast.
    """

    seq: int
    position: int
    time_us: int = attrs.field(repr=False)
    kind: str
    name: str | None
    text: str | None = attrs.field(repr=False)
    actor: str | None
    cause: str | None
    session: str | None
    uid: str
    version: int = 1

    @property
    def time(self) -> datetime:
        """When it was recorded: an aware UTC datetime, strictly increasing within a session."""
        return from_microseconds(self.time_us)

    @property
    def data(self) -> Any:
        """A fresh copy of what was recorded, or ERASED where it was forgotten.

        That of an older version is brought up to the newest one known; raises NotUpcast.
        """
        if self.text is None:
            return ERASED
        return values.decode(evolution.lifted(self.kind, self.version, self.text), _DATA_DEPTH_MAX)


class Body:
    """What is said to happen, its data already encoded as the text that will be stored.

    `operand` is the one number of the data that the fold needs. `expected` is a precondition on the
    newest event of the same name: its seq, ABSENT, or ANY.
    """

    __slots__ = ("expected", "kind", "name", "operand", "text", "version")

    def __init__(
        self,
        kind: str,
        name: str | None,
        text: bytes,
        operand: int | None = None,
        version: int = 1,
        expected: int | Sentinel = ANY,
    ) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.operand = operand
        self.version = version
        self.expected = expected


def merge_cause(uid: bytes, seq: int) -> str:
    """Return the cause of a batch that merges a life up to a sequence."""
    return f"{MERGE}{uid.hex()}:{seq}"


def merged_moment(cause: str) -> tuple[bytes, int]:
    """Return the uid and the sequence that such a cause names; b"" for a cause from elsewhere."""
    named = re.fullmatch(_MERGED, cause)
    return (bytes.fromhex(named[1]), int(named[2])) if named else (b"", 0)


Later = Callable[[int], Body]  # a body that has to know the first seq of its batch
Said = Sequence[Body | Later]


def operand(event: Event) -> int | None:
    """Return the number in an event's data that the fold needs, or None."""
    field = OPERANDS.get(event.kind)
    if field is None or event.text is None:
        return None
    if event.kind == VARIABLE_SET and f',"{field}":' not in event.text:  # It may be large.
        return None
    number: int | None = orjson.loads(event.text).get(field)
    return number


def value_text(text: AnyStr, operand: int | None) -> AnyStr:
    """Return the text of the value alone from the text of a set: `{"value":…}`."""
    start = len('{"value":')
    end = 1 if operand is None else len(f',"expires_at":{operand}}}')
    return text[start : len(text) - end]


class Writer:
    """Makes bodies from what an application says, within the limits of a store handle."""

    def __init__(
        self,
        limits: Limits,
        fallback: values.type_fallback = None,
        clock: Callable[[], int] = lambda: 0,
    ) -> None:
        self.limits = limits
        self.clock = clock  # µs since 1970, from which a ttl counts
        self._fallback = fallback

    def set(
        self,
        family: int,
        name: str,
        value: Any,
        expected: int | Sentinel = ANY,
        deadline: int | None = None,
    ) -> Body:
        """Return the body that sets a variable, until a deadline (µs), or a piece of metadata."""
        self.limits.check_name("name", name)
        text = self._encode(value, "value")
        _check_size(text, self.limits.value_bytes_max, "the value of", name)
        return Body(SETS[family], name, _set_text(text, deadline), deadline, expected=expected)

    def label(self, name: str, at: int) -> Body:
        """Return the body that gives a name to a moment; raises BadName and TooLarge."""
        if self.limits.check_name("label", name) == "":
            raise BadName("label", name, "give at least one character")
        if is_number_or_date(name):
            raise BadName("label", name, "give a label that is neither a number nor a date")
        return Body(LABEL_SET, name, b'{"at":%d}' % at, at)

    def delete(self, family: int, name: str) -> Body:
        """Return the body that deletes a variable or a piece of metadata."""
        return Body(DELETIONS[family], name, b"{}")

    def add(self, message: Any) -> Body:
        """Return the body that appends a message."""
        return Body(MESSAGE_ADDED, None, b'{"message":%b}' % self.message(message))

    def replace(self, seq: int, stored: bytes, reason: bytes = b"") -> Body:
        """Return the body that puts a stored message in the place of what event `seq` carries."""
        text = b'{"message":%b,"seq":%d%b}' % (stored, seq, reason)
        return Body(MESSAGE_REPLACED, None, text, seq)

    def remove(self, seq: int, reason: bytes = b"") -> Body:
        """Return the body that removes the message that event `seq` carries."""
        return Body(MESSAGE_REMOVED, None, b'{"seq":%d%b}' % (seq, reason), seq)

    def clear(self) -> Body:
        """Return the body that removes all messages."""
        return Body(MESSAGES_CLEARED, None, b"{}")

    def record(self, kind: str, data: Any, version: int | None = None) -> Body:
        """Return the body of an event of the application's own, in the newest version known."""
        self.limits.check_name("kind", evolution.check_kind(kind))
        version = evolution.version_to_write(kind, version)
        text = self._encode(data, "data")
        _check_size(text, self.limits.message_bytes_max, "the data of an event")
        return Body(kind, None, text, version=version)

    def message(self, message: Any) -> bytes:
        """Return the stored text of a message; raises NotStorable and TooLarge."""
        if type(message) is not dict:
            try:
                message = dict(message)
            except (TypeError, ValueError):
                kind, remedy = type(message).__name__, "give a mapping with a 'role'"
                raise NotStorable("message", kind, "is not a message", remedy) from None
        if type(message.get("role")) is not str:
            kind = type(message.get("role")).__name__
            raise NotStorable("message['role']", kind, "is not the role of a message", "give text")
        text = self._encode(message, "message")
        _check_size(text, self.limits.message_bytes_max, "the message")
        return text

    def reason(self, reason: str | None) -> bytes:
        """Return the member that says why a message goes; raises NotStorable and TooLarge."""
        if reason is None:
            return b""
        if type(reason) is not str:
            raise NotStorable("reason", type(reason).__name__, "is not text", "give text")
        text = values.encode(reason, root="reason")
        _check_size(text, self.limits.message_bytes_max, "the reason")
        return b',"reason":' + text

    def check_said(self, actor: str | None, key: str | None, cause: str | None) -> None:
        """Raise BadName, TooLarge or Refused for what cannot be said of a batch."""
        for what, text in (("actor", actor), ("key", key), ("cause", cause)):
            if text is not None:
                self.limits.check_name(what, text)
        if cause is not None and cause.startswith(RESERVED_CAUSES):
            reserved = ", ".join(RESERVED_CAUSES)
            raise Refused(f"causes that start with {reserved} are reserved: begin it otherwise")

    def _encode(self, value: Any, root: str) -> bytes:
        if (observer := observing.observer) is None:
            return values.encode(value, fallback=self._fallback, root=root)
        act = partial(values.encode, value, fallback=self._fallback, root=root)
        return observer.serialize("encode", act)


def _check_size(text: bytes, size_bytes_max: int, what: str, name: str | None = None) -> None:
    if len(text) > size_bytes_max:
        shown = what if name is None else f"{what} {name[:40]!r}"
        raise TooLarge(shown, len(text), size_bytes_max)


def _set_text(value: bytes, deadline: int | None) -> bytes:
    if deadline is None:
        return b'{"value":%b}' % value
    return b'{"value":%b,"expires_at":%d}' % (value, deadline)


def is_number_or_date(name: str) -> bool:
    """Tell whether a name reads as a sequence or as a time, and so cannot be that of a moment."""
    try:
        return name.isdigit() or bool(datetime.fromisoformat(name))
    except ValueError:
        return False


def message_of(text: str | None) -> Any:
    """Return the message that the text of an event carries, or ERASED where it was forgotten."""
    if text is None:
        return ERASED
    try:
        return values.decode(text, _DATA_DEPTH_MAX)["message"]
    except (TypeError, KeyError) as error:
        raise Corrupt("", "an event carries no message") from error


def set_again(name: str, value: str, deadline: int | None) -> Body:
    """Return the body that sets a variable to a value that was recorded before."""
    return Body(VARIABLE_SET, name, _set_text(value.encode(), deadline), deadline)


def revert_messages(to: int) -> Body:
    """Return the body that brings the list of messages back to what it was at a sequence."""
    return Body(MESSAGES_REVERTED, None, b'{"to":%d}' % to, to)


def mark(kind: str) -> Body:
    """Return the body of an event whose kind says it all: a session's end or return."""
    return Body(kind, None, b"{}")
