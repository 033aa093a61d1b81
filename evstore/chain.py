"""The chain: every batch carries a hash over itself and all that came before it in its session.

`Birth`, `Batch` and `Entry` are what a log is made of, free of any file; they are what is exported,
imported and verified. The byte layout is written down in schema/README.md, with golden vectors. All
integers are big endian. A field is one byte 0 for absent, or one byte 1, four bytes of length, and
the bytes. No position, internal number or encoding is hashed, so that a session can move to another
file, be compressed anew or be rekeyed with its links unchanged.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

ZERO = bytes(32)  # what the first batch of a session without a parent continues
UNLINKED = b""  # the link of a batch that gets one where it is taken in
_NO_UID = bytes(16)
_LEAF, _LINK, _BIRTH = b"\x00", b"\x01", b"\x02"
_NOBODY = b"\x00\x00\x00"  # neither actor nor cause nor key
_length = struct.Struct(">BI").pack
_envelope = struct.Struct(">QIq").pack
_origin = struct.Struct(">q16sQ").pack
_version = struct.Struct(">I").pack


def field(value: bytes | None) -> bytes:
    """Return a value in length-prefixed form."""
    return b"\x00" if value is None else _length(1, len(value)) + value


def text_field(value: str | None) -> bytes:
    """Return a text in length-prefixed UTF-8."""
    if value is None:
        return b"\x00"
    text = value.encode()
    return _length(1, len(text)) + text


_known_field = lru_cache(4096)(text_field)  # of kinds and names, which come again and again


@lru_cache(1000)
def _kind_and_version(kind: str, version: int) -> bytes:
    return text_field(kind) + _version(version)


def said_by(actor: str | None, cause: str | None, key: str | None) -> bytes:
    """Return the part that all leaves of one batch share."""
    if actor is cause is key is None:
        return _NOBODY
    return text_field(actor) + text_field(cause) + text_field(key)


def leaf(salt: bytes, kind: str, name: str | None, text: bytes, said: bytes) -> bytes:
    """Return the commitment to one event: without its salt it tells nothing."""
    named = _known_field(name)
    fields = (_LEAF, salt, _known_field(kind), named, _length(1, len(text)), text, said)
    return sha256(b"".join(fields)).digest()


def birth_leaf(salt: bytes, session_id: str, actor: str | None, cause: str | None) -> bytes:
    """Return the commitment to the caller's id of a session."""
    said = text_field(actor) + text_field(cause)
    return sha256(_BIRTH + salt + text_field(session_id) + said).digest()


def linked(kind: str, version: int, hashed: bytes) -> bytes:
    """Return what the link of a batch says of one event: its kind, its version and its leaf."""
    return _kind_and_version(kind, version) + hashed


def link(
    previous: bytes,
    uid: bytes,
    first: int,
    time_us: int,
    events: Sequence[bytes],
    origin: bytes | None,
) -> bytes:
    """Return the hash that a batch carries; `events` are what it says of each, in order."""
    envelope = _envelope(first, len(events), time_us)
    born = b"\x00" if origin is None else field(origin)
    return sha256(b"".join((_LINK, previous, uid, envelope, born, *events))).digest()


class Birth(NamedTuple):
    """How a session came to be; `salt` and `id` are None once forgotten, `leaf` until then."""

    uid: bytes
    id: str | None
    created_us: int
    parent_uid: bytes | None
    fork: int | None
    salt: bytes | None
    leaf: bytes | None = None

    def origin(self, actor: str | None, cause: str | None) -> bytes:
        """Return the part of the first link that says how the session came to be."""
        hashed = self.leaf or birth_leaf(self.salt or b"", self.id or "", actor, cause)
        return hashed + _origin(self.created_us, self.parent_uid or _NO_UID, self.fork or 0)


class Entry(NamedTuple):
    """One event in the log; once forgotten it has a leaf, and neither name, text nor salt."""

    kind: str
    version: int
    name: str | None
    text: bytes | None
    salt: bytes | None
    leaf: bytes | None = None

    def hashed(self, said: bytes) -> bytes:
        """Return the leaf, stored or computed."""
        return self.leaf or leaf(self.salt or b"", self.kind, self.name, self.text or b"", said)


class Batch(NamedTuple):
    """One session's share of a commit; `birth` comes with the first batch of a life."""

    uid: bytes
    first: int
    time_us: int
    actor: str | None
    cause: str | None
    key: str | None
    link: bytes
    entries: tuple[Entry, ...]
    position: int = 0
    birth: Birth | None = None

    @property
    def last(self) -> int:
        """The seq of the newest event; `first - 1` for the birth of a fork."""
        return self.first + len(self.entries) - 1

    def continues(self, previous: bytes) -> bytes:
        """Return the link that this batch must have after `previous`.

        UNLINKED where it has a number that no link can hold, as only a damaged file says.
        """
        said = said_by(self.actor, self.cause, self.key)
        try:
            events = [
                linked(kind, version, known or leaf(salt or b"", kind, name, text or b"", said))
                for kind, version, name, text, salt, known in self.entries
            ]
            origin = self.birth.origin(self.actor, self.cause) if self.birth else None
            return link(previous, self.uid, self.first, self.time_us, events, origin)
        except (struct.error, OverflowError):
            return UNLINKED
