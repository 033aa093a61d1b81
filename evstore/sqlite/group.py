"""Group commit: callers that wait at the same time share one transaction and one fsync.

The first caller leads: it takes along whoever waits by the time it holds the write lock. The others
sleep until their outcome is known, or until it is their turn to lead. A caller that is alone does
all of its work in its own thread.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import apsw

from evstore.errors import Busy
from evstore.sqlite.failures import is_fatal, translate
from evstore.sqlite.schema import Cursor, Durability

MEMBERS_MAX = 256  # in one transaction, so that nobody waits long for the others
Work = Callable[[Cursor], Any]


class Member:
    """One caller's work: what it is to do inside a transaction, and what came of it."""

    __slots__ = ("deadline_s", "decided", "durable", "error", "leads", "result", "turn", "work")

    def __init__(self, work: Work, *, durable: bool, wait_s: float) -> None:
        self.work = work
        self.durable = durable  # whether the commit has to survive a power cut
        self.deadline_s = time.monotonic() + wait_s
        self.result: Any = None
        self.error: BaseException | None = None
        self.decided = False
        self.leads = False
        self.turn: threading.Lock | None = None  # released once it is decided, or leads

    @property
    def left_s(self) -> float:
        """How long it may still wait, in seconds."""
        return max(self.deadline_s - time.monotonic(), 0.0)

    def settle(self, error: BaseException | None = None) -> None:
        """Fix the outcome; an error of its own goes before one of the group."""
        self.error = self.error or error
        self.decided = True


class Group:
    """Who waits to write to one file; at any time at most one of them leads.

    `begin`, `finish` and `give_up` are those of its database, and `forget` drops what was cached of
    changes that were taken back.
    """

    def __init__(
        self,
        begin: Callable[[Callable[[], Durability], float], Cursor],
        finish: Callable[[Cursor], None],
        give_up: Callable[[Cursor, BaseException], NoReturn],
        forget: Callable[[], None],
    ) -> None:
        self._begin = begin
        self._finish = finish
        self._give_up = give_up
        self._forget = forget
        self._gate = threading.Lock()
        self._waiting: deque[Member] = deque()
        self._led = False

    def commit(self, work: Work, durability: Durability, wait_s: float) -> Any:
        """Do some work in a transaction that callers at the same time share; return its result.

        Work that raises takes its own changes back and nobody else's. It may be done more than
        once, and by another thread. Raises Busy, Unavailable, and what the work raises.
        """
        member = Member(work, durable=durability == "full", wait_s=wait_s)
        if self._leads(member) or self._sleep(member):
            try:
                self._lead(member)
            finally:
                self._pass_on()
        if member.error is not None:
            raise member.error
        return member.result

    def _leads(self, member: Member) -> bool:
        """Tell whether a new member leads, because nobody does; otherwise it waits."""
        with self._gate:
            if not self._led:
                self._led = True
                return True
            member.turn = threading.Lock()
            member.turn.acquire()
            self._waiting.append(member)
            return False

    def _sleep(self, member: Member) -> bool:
        """Wait until the outcome is known, or time has run out; tell whether it has to lead."""
        assert member.turn is not None
        started_s = time.monotonic()
        try:
            while not member.turn.acquire(timeout=max(member.left_s, 0.05)):
                if self._withdraw(member):  # else it is being done, and will be known soon
                    raise Busy(round(1000 * (time.monotonic() - started_s)))
        except BaseException:
            # Where the thread was interrupted, the next one leads in its stead.
            if not self._withdraw(member) and member.leads:
                self._pass_on()
            raise
        return member.leads

    def _withdraw(self, member: Member) -> bool:
        """Take a member out of those who wait; False where it does not wait any more."""
        with self._gate:
            if member not in self._waiting:
                return False
            self._waiting.remove(member)
            return True

    def _pass_on(self) -> None:
        """Let the one lead that waits longest."""
        with self._gate:
            self._led = bool(self._waiting)
            if self._led:
                following = self._waiting.popleft()
                following.leads = True
                _wake(following)

    # What the leader does.

    def _lead(self, leader: Member) -> None:
        """Commit the work of the leader and of all who wait by the time it holds the lock."""
        members = [leader]

        def durability() -> Durability:
            if self._waiting:
                members.extend(self._take())
            return "full" if any(member.durable for member in members) else "normal"

        try:
            cursor = self._begin(durability, leader.left_s)
            try:
                for member in members:
                    self._work(cursor, member, alone=len(members) == 1)
            except BaseException as error:  # noqa: BLE001 - it is raised again
                self._give_up(cursor, error)
            self._finish(cursor)
            self._settle(members)
        except Exception as error:  # noqa: BLE001 - each member raises it
            self._settle(members, error)
        except BaseException:
            # Where this thread was interrupted, the others are none the worse for it.
            self._give_back([member for member in members[1:] if not member.decided])
            raise

    def _take(self) -> Sequence[Member]:
        with self._gate:
            count = min(len(self._waiting), MEMBERS_MAX - 1)
            return [self._waiting.popleft() for _ in range(count)]

    def _give_back(self, members: Sequence[Member]) -> None:
        with self._gate:
            self._waiting.extendleft(reversed(members))

    def _work(self, cursor: Cursor, member: Member, *, alone: bool) -> None:
        """Do the work of one member; what it raises is its own matter, unless all is lost."""
        if alone:
            member.result = member.work(cursor)
            return
        cursor.execute("savepoint member")
        try:
            member.result = member.work(cursor)
        except Exception as error:
            if not cursor.connection.in_transaction or is_fatal(error):
                raise
            member.error = error
            if isinstance(error, apsw.Error):
                member.error = translate(error, cursor.connection.filename, 0.0)
            self._forget()
            cursor.execute("rollback to member")
        cursor.execute("release member")

    @staticmethod
    def _settle(members: Sequence[Member], error: BaseException | None = None) -> None:
        for member in members:
            member.settle(error)
            _wake(member)


def _wake(member: Member) -> None:
    if member.turn is not None:
        member.turn.release()
