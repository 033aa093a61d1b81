"""Deltas: a new version of a large variable is stored as what sets it apart from an earlier one.

The versions from a full copy on are numbered 0, 1, 2, … A version is a delta against the one whose
number is its own with the last digit to base 4 that is not 0 made 0: 5, 6 and 7 against 4, then 8
against 0. So no version has more than four deltas on its read path, and yet most deltas span only
a version or two. Everything that decides can be read off the rows of the earlier versions.
"""

from collections.abc import Callable
from typing import NamedTuple

from evstore.sqlite import payload

RADIX, LEVELS = 4, 4
VERSIONS_MAX = RADIX**LEVELS  # from one full copy up to the next
CACHE_BYTES_MAX = 16 << 20
_DICTIONARY_WEIGHT = 10  # bytes of memory per byte of the prefix that is searched
TEXT_BYTES_MAX = CACHE_BYTES_MAX // (LEVELS + _DICTIONARY_WEIGHT)  # larger ones are always full
_CLEARLY = 8  # a delta so many times smaller than a full copy is not doubted
_LIKENESS = 8  # texts whose sizes differ by a greater factor are not compared
PATIENCE = 64  # at the least every so many full copies another delta is tried


class Effort(NamedTuple):
    """How hard to try: the zstd levels, and whether every delta is held against a full copy."""

    full_level: int
    delta_level: int
    thorough: bool


WRITING = Effort(3, 1, thorough=False)


class Version:
    """An earlier version: the seq and size of its text, which is read when it is first needed.

    `path_bytes` is the size of all deltas on its read path.
    """

    __slots__ = ("path_bytes", "seq", "size_bytes", "text")

    def __init__(
        self, seq: int, size_bytes: int, path_bytes: int, text: bytes | None = None
    ) -> None:
        self.seq = seq
        self.size_bytes = size_bytes
        self.path_bytes = path_bytes
        self.text = text


Load = Callable[[Version], bytes | None]


class Encoded(NamedTuple):
    """The stored form of a text: a full copy, or a delta against `prefix`.

    `ratio` is then how many bytes a byte of text takes in a full copy. `chain` is what this was
    decided by, or None where the decision is not final.
    """

    encoding: int
    data: str | bytes
    prefix: Version | None = None
    ratio: float = 1.0
    chain: "Chain | None" = None

    @property
    def delta(self) -> int | None:
        """The column `event.delta`."""
        return self.prefix.seq if self.prefix else None

    @property
    def stored_bytes(self) -> int:
        """The size of `data` in the file."""
        return len(self.data.encode()) if isinstance(self.data, str) else len(self.data)


class Chain:
    """The versions of one variable that the next one may build on; a new version is a new chain.

    `newest` is the seq of its newest large version, and `number` the number of that, -1 where there
    is nothing to build on. `anchors` are the newest versions with numbers that are multiples of 4,
    16, 64 and 256. A byte of text takes `ratio` bytes in a full copy, and `full_copies` of those
    are the newest in a row.
    """

    __slots__ = ("_ready", "anchors", "full_copies", "newest", "number", "ratio")

    def __init__(
        self,
        newest: int = 0,
        number: int = -1,
        anchors: tuple[Version, ...] = (),
        ratio: float = 1.0,
        full_copies: int = 0,
        ready: tuple[Version, payload.Searchable] | None = None,
    ) -> None:
        self.newest = newest
        self.number = number
        self.anchors = anchors
        self.ratio = ratio
        self.full_copies = full_copies
        self._ready = ready

    def prefix(self, size_bytes: int, effort: Effort = WRITING) -> Version | None:
        """Return the version that a text of this size is worth comparing with, if any."""
        number = self.number + 1
        if not 0 < number < VERSIONS_MAX or size_bytes > TEXT_BYTES_MAX:
            return None
        if number == 1 and not (effort.thorough or _is_due(self.full_copies)):
            return None
        found = self.anchors[_level(number)]
        is_alike = size_bytes <= _LIKENESS * found.size_bytes <= _LIKENESS**2 * size_bytes
        return found if is_alike else None

    def searchable(self, prefix: Version, effort: Effort) -> payload.Searchable:
        """Return a version whose text is loaded, made ready to be searched; kept for the next."""
        ready = self._ready
        if ready is None or ready[0] is not prefix:
            assert prefix.text is not None
            made = payload.searchable(prefix.text, effort.delta_level)
            ready = self._ready = (prefix, made)
        return ready[1]

    def followed_by(self, seq: int, text: bytes, encoded: Encoded) -> "Chain":
        """Return what the version after this one may build on."""
        stored_bytes = encoded.stored_bytes
        if encoded.prefix is None:
            anchors = (Version(seq, len(text), 0, text),) * LEVELS
            full_copies = 1 + (self.full_copies if self.number == 0 else 0)
            return Chain(seq, 0, anchors, stored_bytes / len(text), full_copies)
        number = self.number + 1
        version = Version(seq, len(text), encoded.prefix.path_bytes + stored_bytes, text)
        anchors = tuple(
            version if number % RADIX ** (level + 1) == 0 else anchor
            for level, anchor in enumerate(self.anchors)
        )
        return Chain(seq, number, anchors, encoded.ratio, 0, self._ready)

    @property
    def held_bytes(self) -> int:
        """How much memory its texts may take, with the one that is searched."""
        sizes = [anchor.size_bytes for anchor in {*self.anchors}]
        return sum(sizes) + _DICTIONARY_WEIGHT * max(sizes, default=0)


def _is_due(full_copies: int) -> bool:
    """Tell whether to try again: ever less often, because random bytes are never alike."""
    return full_copies & (full_copies - 1) == 0 or full_copies % PATIENCE == 0


def _level(number: int) -> int:
    """Return the place of the last digit that is not 0."""
    level = 0
    while number % RADIX == 0:
        number //= RADIX
        level += 1
    return level


def choose(
    chain: Chain,
    text: bytes,
    load: Load | None = None,
    full: Encoded | None = None,
    effort: Effort = WRITING,
) -> Encoded:
    """Return the form in which a text is stored best after the versions of a chain.

    Without `load` only texts that are in memory can be compared with. `full` is a full copy, where
    it was made before.
    """
    prefix = chain.prefix(len(text), effort)
    if prefix is None:
        return _full(text, effort, chain, full)
    if prefix.text is None and load is not None:
        prefix.text = load(prefix)
    if prefix.text is None:
        return _full(text, effort, None if load is None else chain, full)
    frame = payload.delta(text, chain.searchable(prefix, effort))
    full_bytes = len(text) * chain.ratio  # An estimate, which is good enough for small deltas.
    if effort.thorough or _CLEARLY * len(frame) > full_bytes:
        full = _full(text, effort, chain, full)
        full_bytes = full.stored_bytes
    if 2 * (prefix.path_bytes + len(frame)) > full_bytes:
        return _full(text, effort, chain, full)
    return Encoded(payload.DELTA, frame, prefix, full_bytes / len(text), chain)


def _full(text: bytes, effort: Effort, chain: Chain | None, made: Encoded | None) -> Encoded:
    if made is not None:
        return made._replace(chain=chain)
    return Encoded(*payload.pack(text, effort.full_level), chain=chain)
