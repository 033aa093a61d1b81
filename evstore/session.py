"""Sessions: one agent conversation, its log and its present."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from typing import Any

from evstore import doors, later, observing, view
from evstore.attempts import Result, attempt
from evstore.batch import Batch
from evstore.deadlines import Ttl
from evstore.errors import Conflict, ReadOnly, Refused, SessionNotFound
from evstore.events import (
    ANY,
    REVERT,
    VARIABLES,
    Body,
    Event,
    Said,
    Sentinel,
    Writer,
    from_microseconds,
    to_microseconds,
)
from evstore.moments import When, seq_of
from evstore.sides import Found, Present, Side, is_name
from evstore.sqlite.engine import Engine
from evstore.sqlite.lives import Life
from evstore.sqlite.read import Moment
from evstore.sqlite.recorded import Recorded
from evstore.sqlite.write import Decision, Draft
from evstore.view import Still, View

_STEP_ATTEMPTS = 8


class Session:
    """A handle on one session; cheap, thread-safe, and bound to one life at its first use.

    Opening it writes nothing: the session is born with its first batch. Once its life has ended,
    every use is SessionNotFound.
    """

    variables = doors.variables
    metadata = doors.metadata
    messages = doors.messages

    def __init__(
        self,
        engine: Engine,
        session_id: str,
        writer: Writer,
        *,
        life: Life | None = None,
        ended: bool = False,
        actor: str | None = None,
        birth: Sequence[Body] = (),
        ttl: Ttl | None = None,
    ) -> None:
        self._engine = engine
        self._id = session_id
        self._writer = writer
        self._life = life
        self._ended = ended
        self._terms = engine.terms(session_id, actor, birth, ttl)

    # Who it is.

    @property
    def id(self) -> str:
        """The id under which it was opened."""
        return self._id

    @property
    def uid(self) -> str | None:
        """The uid of its life, 32 hexadecimal digits, or None before its birth."""
        with self._look() as moment:
            return moment.life.uid.hex() if moment.life else None

    @property
    def head(self) -> int:
        """The sequence of its newest event; 0 before its birth."""
        with self._look() as moment:
            return moment.seq

    @property
    def created_at(self) -> datetime | None:
        """When it was born, or None before that."""
        with self._look() as moment:
            return from_microseconds(moment.life.created_us) if moment.life else None

    @property
    def updated_at(self) -> datetime | None:
        """When its newest batch was recorded, or None before its birth."""
        with self._look() as moment:
            return from_microseconds(moment.tip.time_us) if moment.life else None

    @property
    def expires_at(self) -> datetime | None:
        """When it will have expired, if it has a deadline; reading it may move that."""
        with self._look() as moment:
            life = moment.life
        lease = self._engine.lease(life) if life else None
        return from_microseconds(lease.expires_us) if lease else None

    @property
    def parent(self) -> "later.results.Parent | None":
        """Where it was forked from, if it was."""
        with self._look() as moment:
            return later.results.parent_of(moment.life)

    # Writing.

    def batch(
        self,
        *,
        actor: str | None = None,
        expect: int | Sentinel | None = None,
        key: str | None = None,
        cause: str | None = None,
    ) -> Batch:
        """Return a batch: `with session.batch() as batch:` commits all its events, or none.

        `expect` is the head that the session must have, at entry and at the commit: by default the
        one at entry; ANY for whatever it is. A `key` seen before in this session returns the events
        recorded then. Raises Conflict.
        """
        self._writer.check_said(actor, key, cause)
        with self._look() as moment:
            entry = Still(self._engine, moment.life, moment.seq, moment.now_us)
        if isinstance(expect, int) and expect != entry.seq and key is None:
            raise Conflict(self._id, expect, entry.seq)
        said_by = self._terms.actor if actor is None else actor
        expected = entry.seq if expect is None else expect

        def drafted(said: Said) -> Draft:
            return self.drafted(said, actor, cause, key, expected)

        return Batch(entry, self._writer, said_by, drafted, self.settle)

    def transact(self, function: Callable[[Batch], Result], attempts: int = 8) -> Result:
        """Run `function(batch)` and commit; on Conflict or Busy run it again, up to `attempts`.

        The function may run several times and must do nothing but write to its batch.
        """

        def act() -> Result:
            with self.batch() as batch:
                return function(batch)

        return attempt(act, attempts)

    def record(self, kind: str, data: Any = None, *, version: int | None = None) -> Sequence[Event]:
        """Record an event of a kind of your own, `app.order.placed`, in its newest version."""
        return self._append([self._writer.record(kind, data, version)])

    # The past.

    def view(self) -> View:
        """Return the session as it is now, frozen."""
        with self._look() as moment:
            return view.seen(self._engine, moment.life, moment)

    def at(self, moment: When) -> View:
        """Return the session at a sequence (0 is before its birth), a datetime, or a label.

        Variables are absent there whose deadlines had passed by then. Raises NoSuchMoment for what
        is not there, and Refused for a naive datetime.
        """
        with self._look() as now:
            life, seq, now_us = now.life, seq_of(now, self._id, moment), None
        if isinstance(moment, datetime):
            now_us = min(to_microseconds(moment), self._engine.clock())
        with self._engine.past(life, seq, now_us) as found:
            return view.seen(self._engine, life, found)

    def events(
        self,
        after: int = 0,
        until: int | None = None,
        *,
        name: str | None = None,
        kind: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """Yield the events with `after` < seq <= `until`, the oldest first unless `reverse`.

        The shared past of a fork reads through; `Event.session` names the recorder.
        """
        with self._look() as moment:
            life, head = moment.life, moment.seq
        until = head if until is None else min(until, head)
        return view.events(
            self._engine, life, after, until, name=name, kind=kind, reverse=reverse, limit=limit
        )

    def watch(self, after: int | Event | None = None) -> "later.watch.Watch":
        """Return an iterator of the events from now on, or after a seq or an event; it waits.

        It waits for the birth, and after an end as well, since the life may be restored. Of a fork
        born meanwhile it shows the shared past for `after=0` only. To watch is no use that moves
        the deadline of the session. Raises Refused.
        """
        position = self._engine.position()
        with self._look_first(renews=False) as moment:
            life, head = moment.life, moment.seq
        return later.watch.of_session(self._engine, self._id, life, head, after, position)

    def history(self, name: str) -> Iterator[Event]:
        """Yield all events about a variable, the newest first, deletions included."""
        with self._look() as moment:
            life = moment.life
            newest = moment.newest(VARIABLES, name) if is_name(name) else None
        return view.history(self._engine, life, newest.seq if newest else None)

    def blame(self, name: str) -> Event:
        """Return the event that set a variable; raises KeyError where it is absent."""
        with self._look() as moment:
            life = moment.life
            found = moment.variable(VARIABLES, name) if is_name(name) else None
        if found is None or life is None:
            raise KeyError(name)
        (event,), _ = self._engine.history(life, found.seq, 1)
        return event

    def diff(self, a: When | View, b: When | View) -> "later.diff.Diff":
        """Return what changed from moment `a` to `b`; either may be a View of any session."""
        before = a if isinstance(a, View) else self.at(a)
        return before.diff(b if isinstance(b, View) else self.at(b))

    def label(self, name: str, at: When | None = None) -> Sequence[Event]:
        """Give a name to a moment (now), by which `at` finds it; a name given again moves.

        Raises BadName for what is empty, or reads as a number or a date.
        """
        writer = self._writer
        if at is None:
            return self._append(lambda now: [writer.label(name, now.seq)])
        return self._append([writer.label(name, self._seq(at))])

    def revert(self, to: When) -> Sequence[Event]:
        """Make variables and messages what they were at a moment, as new events; nothing is lost.

        Metadata and labels stay, and so does what was forgotten. Where nothing differs, nothing is
        recorded.
        """
        seq, writer, bodies = self._seq(to), self._writer, later.revert.bodies
        return self._append(lambda now: bodies(writer, now, seq), cause=f"{REVERT}{seq}")

    def undo(self) -> Sequence[Event]:
        """Take back the newest batch that is not undone yet, into the shared past if need be.

        Batches whose undoing changes nothing are passed over; where none is left, nothing happens.
        """
        return self._step(later.revert.undo)

    def redo(self) -> Sequence[Event]:
        """Take back the newest undo, until another batch is appended."""
        return self._step(later.revert.redo)

    def _step(self, decide: Callable[[Writer, Moment], tuple[Said, str]]) -> Sequence[Event]:
        def act() -> Sequence[Event]:
            with self._look() as moment:
                said, cause = decide(self._writer, moment)
                head = moment.seq
            return self._append(said, cause=cause, expect=head)

        return attempt(act, _STEP_ATTEMPTS)

    def merge(
        self, other: "Session | View", prefer: "later.merge.Prefer" = None
    ) -> "later.merge.Merge":
        """Bring in what another branch of the same past changed, as one batch.

        A variable that only the other side changed is taken, its new messages are appended. Where
        both changed a variable differently, nothing is recorded and the conflicts are returned,
        unless `prefer` decides ("ours" or "theirs"). Merging again brings only what is new.
        Raises Refused for a session without a common ancestor.
        """
        if not isinstance(other, Session | View):
            raise Refused("only a session can be merged: give the session itself, or a view of it")
        theirs = (other if isinstance(other, View) else other.view()).place
        if theirs.engine.identity != self._engine.identity:
            raise Refused("both have to be of one store: import the other session there first")
        decision = later.merge.Decision(self._writer, theirs.life, theirs.seq, prefer)
        events = self._append(decision, cause=decision.cause)
        return later.merge.Merge(tuple(events), decision.conflicts)

    def fork(self, id: str, at: When | None = None) -> "Session":
        """Return a new session that shares the past up to a moment (now) and owns its future.

        Raises Taken where the id lives already, and SessionNotFound before the birth.
        """
        self._writer.limits.check_session_id(id)
        with self._look() as now:
            shared, seq = now.life, now.seq if at is None else seq_of(now, self._id, at)
        if shared is None:
            raise SessionNotFound(self._id, "was never written", "write to it first")
        actor, ttl = self._terms.actor, self._terms.ttl
        act = partial(self._engine.fork, id, shared, seq, actor, ttl)
        life = act() if (observer := observing.observer) is None else observer.fork(id, act)
        return Session(self._engine, id, self._writer, life=life, actor=actor, ttl=ttl)

    def touch(self) -> None:
        """Renew the deadline of the session now, or give it the one this handle was opened with.

        Raises SessionExpired and SessionNotFound; a session without a deadline stays without one.
        """
        with self._look() as moment:
            life = moment.life
        if life is None:
            raise SessionNotFound(self._id, "was never written", "write to it first")
        self._engine.touch(life, self._terms.ttl)

    def _seq(self, when: When) -> int:
        with self._look() as moment:
            return seq_of(moment, self._id, when)

    def __repr__(self) -> str:
        """Return which session this is."""
        return f"<evstore.Session {self._id!r}>"

    # What the doors ask for.

    @property
    def writer(self) -> Writer:
        """What makes bodies, within the limits of the store."""
        return self._writer

    def look(self) -> AbstractContextManager[Present]:
        """Look at the session as it is now."""
        return self._look()

    def variable(self, family: int, name: str) -> Found | None:
        """Return what a name stands for now; most often that takes one statement."""
        life = self._life
        found = None if life is None else self._engine.glance(life, family, name)
        if found is None:
            with self._look() as moment:
                found = moment.variable(family, name)
        return found

    def still(self) -> Side:
        """Return a side that stays where the session is now."""
        with self._look() as moment:
            return Still(self._engine, moment.life, moment.seq, moment.now_us)

    def say(
        self,
        said: Said | Callable[[Present], Said],
        result: Callable[[Sequence[Event]], Result],
    ) -> Result:
        """Append what is said, as one batch; return its result."""
        return result(self._append(said))

    def _append(
        self, said: Said | Decision, *, cause: str | None = None, expect: int | Sentinel = ANY
    ) -> Sequence[Event]:
        draft = self.drafted(said, cause=cause, expect=expect)
        (recorded,) = self._engine.append([draft])
        return self.settle(recorded)

    def drafted(
        self,
        said: Said | Decision,
        actor: str | None = None,
        cause: str | None = None,
        key: str | None = None,
        expect: int | Sentinel = ANY,
    ) -> Draft:
        """Return what is said as a draft; whoever commits it has this handle settle it."""
        if self._ended:
            what = f"session {self._id!r}, whose life has ended,"
            raise ReadOnly(what, "restore it by its uid, or open the id again for a new one")
        return Draft(self._terms, self._life, said, actor, cause, key, expect)

    def settle(self, recorded: Recorded) -> Sequence[Event]:
        """Take in what was recorded: from the first batch on, this handle is bound to its life."""
        if self._life is None and recorded.life is not None:
            self._life = recorded.life
        return recorded

    def _look(self) -> AbstractContextManager[Moment]:
        if self._life is None or self._ended:
            return self._look_first()
        return self._engine.moment(self._id, self._life)

    @contextmanager
    def _look_first(self, *, renews: bool = True) -> Iterator[Moment]:
        """Look at a session whose life may not be known yet, or be over."""
        engine, life = self._engine, self._life
        looking = (
            engine.past(life, None) if self._ended else engine.moment(self._id, life, renews=renews)
        )
        with looking as moment:
            if self._life is None and moment.life is not None:  # It may have been bound meanwhile.
                self._life = moment.life
            yield moment
