"""Migrating: all sessions are replayed into a new file, as they are or through a transform.

The target gets its name once it is whole and verified. Until then it is `TARGET.migrating`, where
a migration that was cut short goes on: what was written is compared with what would be, and the
rest is added.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing

import attrs

from evstore.chain import UNLINKED, Batch
from evstore.errors import Corrupt, Refused, Unavailable
from evstore.events import ANY
from evstore.replay.rewriting import Made, Rewriting, Transform
from evstore.replay.verification import verify
from evstore.sqlite.adopt import WHAT_IS_ADOPTED
from evstore.sqlite.engine import Engine
from evstore.sqlite.files import check_free, place, put_in_place
from evstore.sqlite.leases import copy_leases
from evstore.sqlite.log import PAGE_EVENTS
from evstore.store import Store
from evstore.store import open as open_store

RECORD = "evstore.migrations"  # the session that says which transforms a store went through
RECORD_KIND = "app.evstore.migrated"
_LINKS_PAGE = 10_000
Progress = Callable[[int, int], None]


@attrs.frozen
class Migrated:
    """What a migration wrote: lives, batches and events; and what its transform did to them.

    Events of the source were `changed`, `dropped`, or taken over as they were; `added` are those
    that came of one that is there already. `untouched` lives have the links that they had.
    """

    sessions: int = 0
    batches: int = 0
    events: int = 0
    changed: int = 0
    added: int = 0
    dropped: int = 0
    untouched: int = 0


def migrate(
    source: Store,
    target: str | os.PathLike[str],
    transform: Transform | None = None,
    *,
    dry_run: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Migrated:
    """Replay all sessions, ended lives too, into a new file; return what was written.

    Without a transform it is an exact copy, every link unchanged. With one, each batch is what that
    makes of it: a pure function that is given a `Commit` and returns it as it is, with changes, as
    several for sessions of different ids, or None to leave it out. Times, actors, causes and keys
    stay, links are new, and what refers to a sequence is renumbered; a session
    `evstore.migrations` tells of it. Deadlines of sessions stay in either case.

    What others write to the source meanwhile is left out. With `dry_run` nothing is written, and
    with `resume` a migration goes on that was cut short, given the same source and transform.
    `progress` is called with the batches done, and how many there are.

    Raises Refused where the target is there, or for what a transform may not do; Taken where it
    gives a living id to two sessions; Corrupt where the source is damaged; and Unavailable.
    """
    path = place(os.fspath(target))
    check_free(path)
    migration = _Migration(source, transform, progress)
    if dry_run:
        return migration.only_counted()
    partial = f"{path}.migrating"
    if os.path.lexists(partial) and not resume:
        raise Refused(
            f"{partial} is of a migration that was cut short: resume it, or delete that file"
        )
    with open_store(partial, durability="normal") as store:
        migrated = migration.written(store)
        for finding in verify(store, level="full"):
            what = f"what was written does not verify: {finding.what}"
            raise Corrupt(partial, what, finding.session, finding.seq)
        copy_leases(source.engine.database, store.engine.database)
        migration.record(store, migrated)
    if os.path.exists(f"{partial}-wal"):
        raise Unavailable(partial, "another program has it open: resume once it has closed it")
    check_free(path)
    put_in_place(partial, path)
    return migrated


class _Migration:
    """One walk from a source, as it is when this begins, to a target."""

    def __init__(
        self, source: Store, transform: Transform | None, progress: Progress | None
    ) -> None:
        self._source = source.engine
        self._transform = transform
        self._progress = progress
        self._until = source.engine.position()
        newest = self._source.changes(self._until - 1, 1) if self._until else []
        self._key = f"{RECORD}:{newest[0].link.hex() if newest else ''}"

    def written(self, store: Store) -> Migrated:
        """Write what the target lacks, and return what it holds then."""
        target = store.engine
        if self._transform is not None:
            migrated = self._rewritten(target, self._transform)
        else:
            self._copy(target)
            migrated = _counted(target)
        return migrated

    def only_counted(self) -> Migrated:
        """Return what would be written."""
        if self._transform is not None:
            return self._rewritten(None, self._transform)
        return _counted(self._source)

    def record(self, store: Store, migrated: Migrated) -> None:
        """Say in the target which transform it went through, once."""
        transform = self._transform
        if transform is None:
            return
        name = getattr(transform, "__qualname__", type(transform).__qualname__)
        data = {
            "transform": f"{getattr(transform, '__module__', '')}:{name}",
            "source": self._key.partition(":")[2],
            **attrs.asdict(migrated),
        }
        with store.session(RECORD).batch(key=self._key, expect=ANY) as batch:
            batch.record(RECORD_KIND, data)

    def _pages(self, position: int) -> Iterator[list[Batch]]:
        """Yield the batches after a position, a page at a time."""
        while position < self._until:
            page = self._source.changes(position, min(PAGE_EVENTS, self._until - position))
            yield page
            position = page[-1].position
            if self._progress is not None:
                self._progress(position, self._until)

    # Without a transform.

    def _copy(self, target: Engine) -> None:
        for page in self._pages(self._in_common(target)):
            try:
                target.adopt(page, page[0].position - 1)
            except Corrupt as error:
                if error.path != WHAT_IS_ADOPTED:
                    raise
                raise Corrupt(self._source.path, error.reason, error.session, error.seq) from error

    def _in_common(self, target: Engine) -> int:
        """Return how many batches the target has; raises Refused where they are of another log."""
        position = 0
        while links := target.links(position, _LINKS_PAGE):
            if links != self._source.links(position, len(links)):
                raise _other(target)
            position += len(links)
        return position

    # With a transform.

    def _rewritten(self, target: Engine | None, transform: Transform) -> Migrated:
        """Go through the whole source; what the target has already is compared."""
        position = 0 if target is None else target.position()
        there = iter(()) if target is None else _all(target, position)
        done = Migrated()
        with closing(Rewriting(self._source, transform)) as rewriting:
            for page in self._pages(0):
                fresh: list[Batch] = []
                for batch in page:
                    made = list(rewriting.made(batch))
                    done = _with(done, batch, made)
                    for each in made:
                        known = next(there, None)
                        if known is None:
                            fresh.append(each.batch)
                        elif not _is_as_made(known, each.batch):
                            raise _other(target)
                if target is not None and fresh:
                    _adopt_made(target, fresh, position)
                    position += len(fresh)
            done = attrs.evolve(done, untouched=rewriting.untouched())
        if any(known.key != self._key for known in there):
            raise _other(target)
        return done


def _counted(engine: Engine) -> Migrated:
    counts = engine.counts()
    sessions = counts.sessions + counts.ended
    return Migrated(sessions, counts.batches, counts.events, untouched=sessions)


def _with(done: Migrated, batch: Batch, made: list[Made]) -> Migrated:
    """Return the counts with those of one more batch of the source."""
    seen: set[int] = set().union(*(each.seen for each in made))
    return attrs.evolve(
        done,
        sessions=done.sessions + sum(each.batch.birth is not None for each in made),
        batches=done.batches + len(made),
        events=done.events + sum(len(each.batch.entries) for each in made),
        changed=done.changed + sum(each.changed for each in made),
        added=done.added + sum(each.added for each in made),
        dropped=done.dropped + len(batch.entries) - len(seen),
    )


def _all(engine: Engine, until: int) -> Iterator[Batch]:
    position = 0
    while position < until:
        for batch in engine.changes(position, min(PAGE_EVENTS, until - position)):
            yield batch
            position = batch.position


def _is_as_made(known: Batch, made: Batch) -> bool:
    """Tell whether a batch that is there is the one that is made now."""
    link = known.link if made.link == UNLINKED else made.link
    return made._replace(link=link, position=known.position) == known


def _adopt_made(target: Engine, fresh: list[Batch], position: int) -> None:
    try:
        target.adopt(fresh, position)
    except Corrupt as error:
        if error.path != WHAT_IS_ADOPTED:
            raise
        raise Refused(
            f"what the transform made of session {error.session} at {error.seq} cannot be written: "
            f"{error.reason}"
        ) from error


def _other(target: Engine | None) -> Refused:
    path = target.path if target else ""
    return Refused(
        f"{path} was begun from another source or by another transform: delete it, and begin anew"
    )
