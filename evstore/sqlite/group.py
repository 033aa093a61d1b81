"""Group commit: callers that wait at the same time share one transaction and one fsync.

The first caller leads: it takes along whoever waits by the time it holds the write lock. The others
sleep until their outcome is known, or until it is their turn to lead. A caller that is alone does
all of its work in its own thread. A task must not do that: for tasks a deputy leads, one thread
that is there while they write, and each event loop is told once of all its members in a group.

Ctrl-C may interrupt a leader, but only where a call begins or returns. So whoever waits, and who
leads, changes hands without a call in between, and what an interruption leaves is told from facts.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from evstore import observing
from evstore.errors import Busy
from evstore.observing import Observed
from evstore.sqlite.failures import is_fatal, is_foreign, translate
from evstore.sqlite.schema import Cursor, Durability, Tell

MEMBERS_MAX = 1024  # in one transaction, so that nobody waits long for the others
# An event loop that wants to go on while a group is at work would get the interpreter's lock after
# 5 ms: between two short statements nobody else is quick enough to take it.
WORK_S = 0.002
REST_S = 0.00005
IDLE_S = 2.0  # how long the deputy stays without work
_DEPUTY = object()  # who leads in the stead of a task
Work = Callable[[Cursor], Any]


class Member:
    """One caller's work: what it is to do inside a transaction, and what came of it."""

    result: Any = None
    error: BaseException | None = None
    decided = False
    turn: "threading.Lock | None" = None  # of a waiting thread: released once decided, or leading
    observed: Observed | None = None  # what watches it for a task

    def __init__(
        self, work: Work, *, durable: bool, wait_s: float, tell: Tell | None = None
    ) -> None:
        self.work = work
        self.tell = tell  # by which the event loop of a task learns which members are decided
        self.durable = durable  # whether the commit has to survive a power cut
        self.wait_s = wait_s  # how long it may wait at most, and since when it does
        self.since_s = time.monotonic()


class _Here(threading.local):
    """What a thread holds while it is in here: its signal handlers would wait for it for ever."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Group:
    """Who waits to write to one file; at any time at most one of them leads.

    `begin`, `finish`, `give_up` and `take_back` are those of its database, and `forget` drops what
    was cached of changes that were taken back.
    """

    def __init__(
        self,
        begin: Callable[[Callable[[], Durability], float, float], Cursor],
        finish: Callable[[Cursor], None],
        give_up: Callable[[Cursor, Exception], NoReturn],
        take_back: Callable[[BaseException], bool],
        forget: Callable[[], None],
    ) -> None:
        self._begin = begin
        self._finish = finish
        self._give_up = give_up
        self._take_back = take_back
        self._forget = forget
        self._gate = threading.Lock()
        self._here = _Here()
        self._waiting: deque[Member] = deque()
        self._taken: list[Member] = []  # those who go along, as long as it has not begun
        self._leader: object = None  # a member, the deputy, or nobody
        self._deputy: threading.Thread | None = None
        self._called = threading.Lock()  # released to call the deputy
        self._called.acquire()
        self._ended = False

    def commit(self, work: Work, durability: Durability, wait_s: float) -> Any:
        """Do some work in a transaction that callers at the same time share; return its result.

        Work that raises takes its own changes back and nobody else's. It may be done more than
        once, and by another thread. Raises Unavailable, what the work raises, and Busy, at once
        for a signal handler that came in the middle of another commit of its thread.
        """
        here = self._here.lock
        if here.locked():
            raise Busy(0)
        with here:
            return self._commit(Member(work, durable=durability == "full", wait_s=wait_s))

    def _commit(self, member: Member) -> Any:
        try:
            with self._gate:
                if self._leader is None:
                    self._leader = member
                else:
                    member.turn = threading.Lock()
                    member.turn.acquire()
                    self._waiting.append(member)
            if self._leader is member or self._sleep(member):
                self._lead(member, [member])
        finally:
            if self._leader is member or not member.decided:
                try:
                    self._leave(member)
                except BaseException:  # Once more: all the others wait for it.
                    self._leave(member)
                    raise
        if member.error is not None:
            raise member.error
        return member.result

    def submit(self, members: Sequence[Member]) -> None:
        """Queue the work of tasks; their `tell` is called with those whose outcome is known.

        That happens in another thread, once for each group. Members that are withdrawn before have
        no outcome.
        """
        try:
            with self._here.lock, self._gate:
                self._have_deputy()
                self._waiting.extend(members)
                if self._leader is None:
                    self._call_deputy()
        except RuntimeError as error:  # There are too many threads.
            self._settle(members, error)

    def withdraw(self, member: Member) -> bool:
        """Take a task's member out of those who wait; False where it is being done, or was."""
        here = self._here.lock
        if here.locked():  # A task may be collected as garbage at any moment.
            return self._withdraw(member)
        with here:
            return self._withdraw(member)

    def _withdraw(self, member: Member) -> bool:
        with self._gate:
            for place in (self._waiting, self._taken):
                if member in place:
                    place.remove(member)
                    return True
            return False

    def end(self) -> None:
        """Let the deputy go as soon as nobody needs it."""
        self._ended = True
        if self._here.lock.locked():  # A signal handler closes the store, and must not wait.
            return
        with self._gate:
            if self._deputy is not None and self._leader is None:
                self._call_deputy()

    def _sleep(self, member: Member) -> bool:
        """Wait until the outcome is known, or time has run out; tell whether it has to lead."""
        assert member.turn is not None
        left_s = member.wait_s
        while not member.turn.acquire(timeout=max(left_s, 0.05)):
            waited_s = time.monotonic() - member.since_s
            if self._withdraw(member):  # else it is being done, and will be known soon
                raise Busy(round(1000 * waited_s))
            left_s = member.wait_s - waited_s
        return self._leader is member

    def _leave(self, member: Member) -> None:
        """Take a caller out of those who wait, and where it leads, let the next one lead."""
        if self._leader is not member:
            self._withdraw(member)
            return
        with self._gate:
            if self._leader is member:
                self._pass_on()

    def _pass_on(self) -> None:
        """Let the one lead that waits longest, or the deputy where that is a task."""
        if not self._waiting:
            self._leader = None
        elif self._waiting[0].tell is not None:
            self._call_deputy()
        else:
            following = self._waiting[0]
            self._leader = following
            del self._waiting[0]
            assert following.turn is not None
            following.turn.release()

    # What the deputy does.

    def _call_deputy(self) -> None:
        self._leader = _DEPUTY
        self._called.release()

    def _have_deputy(self) -> None:
        if self._deputy is None:
            deputy = threading.Thread(target=self._stand_in, name="evstore-group", daemon=True)
            deputy.start()
            self._deputy = deputy

    def _stand_in(self) -> None:
        while True:
            called = self._called.acquire(timeout=IDLE_S)
            if called:
                self._lead_first()
            with self._gate:
                # Where somebody leads, it may be this thread, which has been called meanwhile.
                if (self._ended or not called) and self._leader is None:
                    self._deputy = None
                    return

    def _lead_first(self) -> None:
        """Lead in the stead of the one that waits longest, if it was not withdrawn."""
        try:
            with self._gate:
                self._taken = [self._waiting.popleft()] if self._waiting else []
                members = self._taken
                leader = members[0] if members else None
            if leader is not None:
                try:
                    self._lead(leader, members)
                except BaseException as error:  # noqa: BLE001 - its task raises it
                    self._settle([leader], error)
        finally:
            with self._gate:
                self._pass_on()

    # What the leader does.

    def _lead(self, leader: Member, members: list[Member]) -> None:
        """Commit the work of the leader and of all who wait by the time it holds the lock."""
        self._taken = members
        finishing = False
        try:
            try:
                cursor = self._begin(self._take_along, leader.wait_s, leader.since_s)
            except Busy:
                self._wait_on(leader, members)
                return
            finally:
                self._set_out()
            try:
                if (observer := observing.observer) is not None:
                    observer.group(members)
                self._work(cursor, members)
            except Exception as error:  # noqa: BLE001 - it is raised again
                self._give_up(cursor, error)
            finishing = True
            self._finish(cursor)
            self._settle(members)
        except Exception as error:  # noqa: BLE001 - each member raises it
            self._settle(members, error)
        except BaseException as error:
            # Where this thread was interrupted, the others are none the worse for it.
            rolled_back = self._take_back(error)
            self._set_out()
            followers = [member for member in members if member is not leader]
            if finishing and not rolled_back:  # It came after the commit.
                self._settle(followers)
            else:
                self._give_back(followers)
            raise

    def _take_along(self) -> Durability:
        """Take along who waits; return how durable the commit of them all has to be."""
        if self._waiting:
            with self._gate:
                for _ in range(min(len(self._waiting), MEMBERS_MAX - 1)):
                    following = self._waiting[0]
                    del self._waiting[0]
                    self._taken.append(following)
        for member in tuple(self._taken):  # From which one may be withdrawn at any moment.
            if member.durable:
                return "full"
        return "normal"

    def _set_out(self) -> None:
        with self._gate:
            self._taken = []  # From now on nobody can be withdrawn.

    def _wait_on(self, leader: Member, members: Sequence[Member]) -> None:
        """Refuse the leader and all whose time is up as well; the others go on waiting."""
        now_s = time.monotonic()

        def is_late(member: Member) -> bool:
            return member is leader or member.since_s + member.wait_s <= now_s

        self._give_back([member for member in members if not is_late(member)])
        for member in filter(is_late, members):
            self._settle([member], Busy(round(1000 * (now_s - member.since_s))))

    def _give_back(self, members: Sequence[Member]) -> None:
        """Let members wait again, before all others, as if nothing had been tried."""
        for member in members:
            member.error = None
        with self._gate:
            self._waiting.extendleft(reversed(members))

    def _work(self, cursor: Cursor, members: Sequence[Member]) -> None:
        """Do the work of all members; what one of them raises is its own matter.

        Most that fail do so before they have changed anything. Only where one fails later, all is
        taken back and done again, each member behind a savepoint of its own.
        """
        if len(members) == 1:
            members[0].result = members[0].work(cursor)
            return
        changes = cursor.connection.total_changes
        for member in _unhurried(members):
            before = changes()
            if not self._does(cursor, member) and changes() != before:
                cursor.execute("rollback")
                cursor.execute("begin immediate")  # Others may have written in between.
                self._work_apart(cursor, members)
                break

    def _work_apart(self, cursor: Cursor, members: Sequence[Member]) -> None:
        for member in _unhurried(members):
            member.error = None
            cursor.execute("savepoint member")
            if not self._does(cursor, member):
                cursor.execute("rollback to member")
            cursor.execute("release member")

    def _does(self, cursor: Cursor, member: Member) -> bool:
        """Do the work of a member and tell whether it went well; raise where all is lost."""
        try:
            member.result = member.work(cursor)
        except Exception as error:
            if not cursor.connection.in_transaction or is_fatal(error):
                raise
            member.error = error
            if is_foreign(error):
                member.error = translate(error, cursor.connection.filename, 0.0)
            self._forget()
            return False
        return True

    @staticmethod
    def _settle(members: Sequence[Member], error: BaseException | None = None) -> None:
        """Let threads go on, and tell each event loop, once, of all members that are its own."""
        told: dict[Tell, list[Member]] = {}
        for member in members:
            if error is not None and member.error is None:  # Its own goes before one of the group.
                member.error = error
            member.decided = True
            if member.tell is not None:
                told.setdefault(member.tell, []).append(member)
            elif member.turn is not None and member.turn.locked():  # It may be told once more.
                member.turn.release()
        for tell, own in told.items():
            tell(own)


def _unhurried(members: Sequence[Member]) -> Iterator[Member]:
    """Yield the members, with a rest now and then where an event loop may want to go on."""
    rest_s = time.monotonic() + WORK_S
    for member in members:
        yield member
        if member.tell is not None and time.monotonic() > rest_s:
            time.sleep(REST_S)
            rest_s = time.monotonic() + WORK_S
