"""Every way evstore can say no: one class for each next step of the caller.

    EvstoreError
    ├── Conflict              someone wrote first                → read again, retry
    ├── Busy                  another holds the write lock       → retry later
    ├── NotFound              (LookupError)
    │   ├── SessionNotFound └── SessionExpired
    │   └── NoSuchMoment
    ├── Refused               (ValueError) the input is at fault → change it
    │   ├── NotStorable · TooLarge · TooMany · BadName · Taken · ReadOnly
    ├── Unsupported           this engine or build cannot        → use another
    ├── MissingExtra          (ImportError) an extra is missing  → install it
    ├── Closed                the handle outlived its store      → open again
    ├── Unavailable           the file cannot be used now        → fix, reopen
    ├── NotUpcast             recorded in a form not known here  → mend or update the program
    └── BadFile
        └── NotAStore · FromTheFuture · Corrupt · NotAConversation

Each class carries its facts as fields; its text is one sentence that ends with the remedy.
A missing variable is a `KeyError`, a missing message an `IndexError`.
"""

from inspect import Parameter, Signature
from typing import Any, ClassVar, TypeVar, dataclass_transform


class EvstoreError(Exception):
    """The root of all errors that evstore raises on its own account."""

    __signature__: ClassVar[Signature | None] = None  # of those that carry facts
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *facts: Any, **named: Any) -> None:
        is_whole = not named and len(facts) == len(self.__match_args__)
        if self.__signature__ is not None and not is_whole:
            told = self.__signature__.bind(*facts, **named)
            told.apply_defaults()
            facts, named = told.args, {}
        super().__init__(*facts, **named)  # sets `args`, so that errors survive pickling
        vars(self).update(zip(self.__match_args__, facts, strict=False))

    def __repr__(self) -> str:
        """Return the class with its facts."""
        if self.__signature__ is None:
            return super().__repr__()
        facts = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__name__}({', '.join(facts)})"


Kind = TypeVar("Kind", bound=type[EvstoreError])


@dataclass_transform(eq_default=False)
def _error(cls: Kind) -> Kind:
    """Make the annotations of a class its fields, after those of its base in their order.

    One that its base has already gets another default.

    attrs compiles methods for each class: that is most of what importing these would take.
    """
    fields = dict(cls.__signature__.parameters) if cls.__signature__ else {}
    fields |= {
        name: Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD,
            default=vars(cls).get(name, Parameter.empty),
            annotation=kind,
        )
        for name, kind in cls.__annotations__.items()
    }
    cls.__signature__ = Signature([*fields.values()])
    cls.__match_args__ = tuple(fields)  # type: ignore[misc]  # not final yet
    return cls


@_error
class Conflict(EvstoreError):
    """Somebody wrote first: what was expected is not what is there."""

    session: str
    expected: Any
    actual: Any
    name: str | None = None  # of the variable, where that is what was expected elsewhere
    remedy: str = "read it again and retry"

    def __str__(self) -> str:
        """Return the sentence."""
        what = f"session {self.session!r}"
        if self.name is not None:
            what = f"{self.name!r} in {what}"
        return f"{what} was expected at {self.expected} and is at {self.actual}: {self.remedy}"


@_error
class Busy(EvstoreError):
    """Another thread or process held the write lock for the whole waiting time."""

    waited_ms: int

    def __str__(self) -> str:
        """Return the sentence."""
        return (
            f"another writer held the store for {self.waited_ms} ms and nothing was written: "
            "retry later"
        )


class NotFound(EvstoreError, LookupError):
    """What was asked for is not there."""


@_error
class SessionNotFound(NotFound):
    """No such session lives, or the life that a handle was bound to has ended."""

    session: str
    reason: str = "does not live"
    remedy: str = (
        "open it by its uid to read an ended life, restore it, or open the id again for a new one"
    )

    def __str__(self) -> str:
        """Return the sentence."""
        return f"session {self.session!r} {self.reason}: {self.remedy}"


@_error
class SessionExpired(SessionNotFound):
    """The life that a handle was bound to has passed its deadline."""

    reason: str = "has expired"


@_error
class NoSuchMoment(NotFound):
    """The moment does not exist in this session."""

    session: str
    moment: Any
    head: int

    def __str__(self) -> str:
        """Return the sentence."""
        return (
            f"session {self.session!r} has no moment {self.moment!r}: "
            f"give a sequence from 0 to {self.head}, an aware datetime, or a label"
        )


class Refused(EvstoreError, ValueError):
    """The input cannot be taken as it is; nothing was written."""


@_error
class NotStorable(Refused):
    """A value holds something that cannot be stored without loss."""

    path: str
    type: str
    detail: str = "has a type that cannot be stored without loss"
    remedy: str = "convert it, register its class with evstore.register, or open with fallback="

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.path} ({self.type}) {self.detail}: {self.remedy}"


@_error
class TooLarge(Refused):
    """Something is larger than the limits of this handle allow."""

    what: str
    size_bytes: int
    size_bytes_max: int

    def __str__(self) -> str:
        """Return the sentence."""
        return (
            f"{self.what} takes {self.size_bytes} bytes where {self.size_bytes_max} are allowed: "
            "make it smaller, or open the store with other limits="
        )


@_error
class TooMany(Refused):
    """There would be more of something than the limits of this handle allow."""

    what: str
    count: int
    count_max: int

    def __str__(self) -> str:
        """Return the sentence."""
        return (
            f"there would be {self.count} {self.what} where {self.count_max} are allowed: "
            "delete some, or open the store with other limits="
        )


@_error
class BadName(Refused):
    """A name, id, kind, actor, cause or key is not of the form it must have."""

    what: str
    name: Any
    rule: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.what} {self.name!r} cannot be used: {self.rule}"


@_error
class Taken(Refused):
    """The session id or uid already belongs to another life."""

    session: str
    remedy: str = "use another id"

    def __str__(self) -> str:
        """Return the sentence."""
        return f"session {self.session!r} already exists with a log of its own: {self.remedy}"


@_error
class ReadOnly(Refused):
    """A write was asked of something that only reads."""

    what: str
    remedy: str = "write through a session of a store opened for writing"

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.what} is read-only: {self.remedy}"


@_error
class Unsupported(EvstoreError):
    """The engine, or this build of it, cannot do what was asked."""

    engine: str
    capability: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.engine} does not support {self.capability}"


@_error
class MissingExtra(EvstoreError, ImportError):
    """A feature needs packages that are not installed."""

    extra: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"this needs the {self.extra!r} extra: pip install 'evstore[{self.extra}]'"


@_error
class Closed(EvstoreError):
    """The handle outlived its store, or was carried over into a forked process."""

    reason: str = "the store is closed"
    remedy: str = "open it again with evstore.open"

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.reason}: {self.remedy}"


@_error
class Unavailable(EvstoreError):
    """The target cannot be used now: missing, unreachable, full, or failing."""

    target: str
    reason: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.target} cannot be used: {self.reason}"


@_error
class NotUpcast(EvstoreError):
    """What was recorded in one version of its form cannot be brought up to the one known here."""

    kind: str
    version: int
    reason: str

    def __str__(self) -> str:
        """Return the sentence."""
        return (
            f"version {self.version} of {self.kind!r} cannot be brought up to date, since "
            f"{self.reason}: mend what upcasts it, or update this program"
        )


@_error
class BadFile(EvstoreError):
    """The file is there and is not what it should be."""

    path: str

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.path} is not a usable evstore file: restore it from a backup"


@_error
class NotAStore(BadFile):
    """The file belongs to another program, or is no database at all."""

    def __str__(self) -> str:
        """Return the sentence."""
        return f"{self.path} is not an evstore file and was left untouched: give another path"


@_error
class NotAConversation(BadFile):
    """The file stands where a conversation is kept, and is no JSON array of messages."""

    reason: str

    def __str__(self) -> str:
        """Return the sentence."""
        return (
            f"{self.path} holds no conversation and was left untouched, since {self.reason}: "
            "repair the file, or move it away"
        )


@_error
class FromTheFuture(BadFile):
    """The file was written by a newer evstore."""

    file_version: int
    known_version: int

    def __str__(self) -> str:
        """Return the sentence."""
        return (
            f"{self.path} has format {self.file_version} and this evstore knows formats up to "
            f"{self.known_version}: upgrade evstore"
        )


@_error
class Corrupt(BadFile):
    """The content is damaged: what is there cannot have been written by evstore."""

    reason: str
    session: str | None = None
    seq: int | None = None

    def __str__(self) -> str:
        """Return the sentence."""
        where = f" at session {self.session!r}" if self.session is not None else ""
        where += f", sequence {self.seq}" if self.seq is not None else ""
        return (
            f"{self.path or 'the store'} is damaged{where}: {self.reason}; "
            "run 'evstore doctor' on it, and restore a backup if need be"
        )
