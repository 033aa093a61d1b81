"""Verifying: a log is replayed against its chain, and what is derived against the log."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from evstore.chain import ZERO, Batch
from evstore.errors import BadFile, Refused
from evstore.sqlite.engine import Engine
from evstore.sqlite.finding import Finding
from evstore.store import Store

Level = Literal["heads", "chain", "full"]


def verify(store: Store, *, level: Level = "heads") -> Iterator[Finding]:
    """Yield what is not as it was recorded; nothing where all is well.

    "heads" checks the newest link of every session and that the positions have no gap; "chain"
    every leaf and link; "full" also all that is derived: columns, the present, the checkpoints, and
    which messages the search index holds.
    What was cut off the end of a session cannot be told from the file alone.
    """
    if level not in ("heads", "chain", "full"):
        raise Refused(f"level {level!r} is unknown: give 'heads', 'chain' or 'full'")
    yield from store.engine.check_rows()
    if level == "heads":
        yield from store.engine.check_heads()
        return
    chain = _Chain(store.engine)
    for batch in _batches(store.engine):
        yield from [batch] if isinstance(batch, Finding) else chain.check(batch)
    if level == "full":
        yield from store.engine.check_derived()


def _batches(engine: Engine) -> Iterator[Batch | Finding]:
    """Yield all batches in commit order, and a Finding for each that cannot be read."""
    try:
        position, newest = 0, engine.position()
    except BadFile as error:
        yield Finding(None, None, "damage", str(error))
        return
    while position < newest:
        try:
            page = engine.changes(position)
        except BadFile:
            try:
                page = engine.changes(position, 1)
            except BadFile as error:
                yield Finding(None, None, "damage", f"position {position + 1}: {error}")
                position += 1
                continue
        yield from page
        position = page[-1].position if page else newest


class _Tip(NamedTuple):
    name: str
    head: int
    time_us: int
    link: bytes


class _Chain:
    """The newest link of every session, as one walks the log in commit order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tips: dict[bytes, _Tip] = {}

    def check(self, batch: Batch) -> Iterator[Finding]:
        """Yield what is wrong with the next batch."""
        tip = self._tips.get(batch.uid)
        born = tip is None
        tip = tip or self._shared(batch)
        name = tip.name
        if born != (batch.birth is not None):
            yield Finding(name, batch.first, "birth", "its birth is not where its log begins")
        if batch.first != tip.head + 1:
            yield Finding(name, batch.first, "gap", f"it follows sequence {tip.head}")
        if batch.time_us <= tip.time_us:
            yield Finding(name, batch.first, "time", "it is not later than the batch before it")
        if batch.continues(tip.link) != batch.link:
            yield Finding(name, batch.first, "link", "it does not continue the batch before it")
        self._tips[batch.uid] = _Tip(name, batch.last, batch.time_us, batch.link)

    def _shared(self, batch: Batch) -> _Tip:
        """Return what the first batch of a life continues."""
        birth = batch.birth
        name = (birth and birth.id) or batch.uid.hex()
        if birth is None or birth.parent_uid is None or not birth.fork:
            return _Tip(name, 0, 0, ZERO)
        try:
            link = self._engine.link_at(birth.parent_uid, birth.fork)
        except BadFile:  # It was told of the batch that holds it.
            link = None
        return _Tip(name, birth.fork, 0, link or ZERO)
