"""The read path of a session: `Moment`, one session as of one sequence, as one cursor sees it."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import Any

from evstore.errors import Corrupt
from evstore.events import FAMILY, KINDS, MERGE, VARIABLES, merged_moment
from evstore.sqlite.bodies import Bodies
from evstore.sqlite.checkpoint import newest_anchor, newest_names, read_message_list
from evstore.sqlite.database import Columns, Cursor, Database
from evstore.sqlite.found import ByName, Facts, Found, Step, found
from evstore.sqlite.lives import SEQ_BITS, UNBORN, Life, Tip, by_uid, tip
from evstore.sqlite.rows import kind_name, text_at, texts_of
from evstore.state import MessageList, Names, Outline, Range, Reference, Tail, is_there

_NAME_KINDS = {KINDS.index(kind) + 1: kind for kind in FAMILY}
_LIST_KINDS = (
    f"kind between {KINDS.index('message.added') + 1} and {KINDS.index('messages.reverted') + 1}"
)
_VARIABLE_KINDS = tuple(number for number, kind in _NAME_KINDS.items() if FAMILY[kind] == VARIABLES)
_TAIL_EVENTS_MAX = 1000  # a cached message list is carried on over this many events at most


class Moment:
    """One session at one moment: `seq`, or its newest without it; without a life, unborn.

    A variable is absent from its deadline on, by the clock that says `now_us`, or without it by
    the time of the newest event that this moment sees.
    """

    def __init__(
        self,
        database: Database,
        cursor: Cursor,
        life: Life | None,
        seq: int | None = None,
        now_us: int | None = None,
    ) -> None:
        self._database = database
        self._cursor = cursor
        # Up to its fork point a fork is its ancestor.
        self._life = life if life is None or seq is None else life.recorder(seq)
        self._pinned = seq
        self._head: int | None = seq
        self._now_us = now_us

    @property
    def time_us(self) -> int | None:
        """The time of its newest event, or None where there is none yet."""
        return self.facts(self.seq).time_us if self.seq else None

    @property
    def position(self) -> int:
        """The position of its newest event in the order of the store, or 0 before any."""
        return self.facts(self.seq).position if self.seq else 0

    @property
    def now_us(self) -> int:
        """The time by which deadlines have passed or not."""
        if self._now_us is None:
            self._now_us = self.time_us or 0
        return self._now_us

    @property
    def life(self) -> Life | None:
        """The life whose moment this is, or None where it is not born yet."""
        return self._life

    @property
    def seq(self) -> int:
        """The newest event that this moment sees."""
        if self._head is None:
            self._head = self.tip.head
        return self._head

    @property
    def tip(self) -> Tip:
        """The newest end of the log, whatever the moment."""
        return UNBORN if self._life is None else tip(self._cursor, self._life)

    # Names: variables, metadata, labels.

    def variable(self, family: int, name: str) -> Found | None:
        """Return what a name stands for, or None where it is absent."""
        if self._life is None:
            return None
        row = self._row(self._life, family, name)
        reference: Reference | None
        if row is None:
            reference = self._shared(family).get(name)
        elif self._pinned is None or row[0] <= self._pinned:
            if row[3] is not None and row[2] is None:
                return Found(*row)
            reference = Reference(*row[:3])
        else:
            reference = self.names[family].get(name)
        if reference is None or reference.created is None:
            return None
        if reference.operand is not None and not is_there(family, reference, self.now_us):
            return None
        return found(reference, text_at(self._cursor, self._life.event_id(reference.seq)))

    def variables(self, family: int) -> Mapping[str, Found]:
        """Return all names of a family that are there, in order of name, with their values."""
        references = self.references(family)
        if self._life is None or not references:
            return {}
        if self._pinned is not None:  # The projection has values of the present alone.
            return self._recorded(self._life, references)
        inline = self._inline(family)
        rest = {
            name: reference
            for name, reference in references.items()
            if (name, reference.seq) not in inline
        }
        recorded: Mapping[str, Found] = self._recorded(self._life, rest) if rest else {}
        return {
            name: recorded[name]
            if name in recorded
            else Found(seq, created or 0, operand, inline[name, seq])
            for name, (seq, created, operand) in references.items()
        }

    def _recorded(self, life: Life, references: dict[str, Reference]) -> ByName:
        """Return the values that the log has of some names, in their order."""
        if life.parent is None:
            start = life.event_id(0)
            ids = [start + reference.seq for reference in references.values()]
        else:
            ids = [life.event_id(reference.seq) for reference in references.values()]
        texts = texts_of(self._cursor, ids)
        return ByName(references, dict(zip(references, texts, strict=True)))

    def references(self, family: int) -> dict[str, Reference]:
        """Return where all names of a family stand that are there, in order of name."""
        if self._life is None:
            return {}
        if self._pinned is not None:
            names = self.names[family]
        else:
            own = self._own(family)
            names = own if self._life.parent is None else {**self._shared(family), **own}
        return {
            name: reference
            for name in sorted(names)
            if (reference := names[name]).created is not None
            and (reference.operand is None or is_there(family, reference, self.now_us))
        }

    def count(self, family: int) -> int:
        """Return how many names of a family are there."""
        if self._life is None or self._life.parent is not None or self._pinned is not None:
            return len(self.references(family))
        count: int = self._cursor.execute(
            "select count(*) from variable"
            " where session = ? and family = ? and created is not null"
            f" and (family <> {VARIABLES} or operand is null or operand > ?)",
            (self._life.number, family, self.now_us),
        ).get
        return count

    def newest(self, family: int, name: str) -> Reference | None:
        """Return where a name stands now, tombstones included, or None where it was never set."""
        if self._life is None:
            return None
        row = self._row(self._life, family, name)
        return self._shared(family).get(name) if row is None else Reference(*row[:3])

    def outline(self) -> Outline:
        """Return the whole state as references."""
        return Outline(self.seq, self.names, self.message_list().copy())

    @cached_property
    def names(self) -> Names:
        """Where all names stand: as in the newest checkpoint, and by the events after it."""
        if self._life is None:
            return Outline().names
        seq, names = newest_names(self._cursor, self._life, self.seq)
        outline = Outline(seq, names)
        for segment in self._life.until(self.seq, seq):
            rows = self._cursor.execute(
                "select id & 0xffffffff, kind, name, operand from event"
                f" where id between ? and ? and kind in {tuple(_NAME_KINDS)} and name is not null",
                segment.ids,
            )
            events = ((seq, _NAME_KINDS[kind], name, operand) for seq, kind, name, operand in rows)
            outline.apply_all(events, self)
        return names

    def kind(self, number: int) -> str:
        """Return the name of a kind."""
        return kind_name(self._database, self._cursor, number)

    def _row(self, life: Life, family: int, name: str) -> Columns | None:
        try:
            row: Columns | None = self._cursor.execute(
                "select seq, created, operand, value from variable"
                " where session = ? and family = ? and name = ?",
                (life.number, family, name),
            ).fetchone()
        except UnicodeEncodeError:  # A lone surrogate is in no name.
            return None
        return row

    def _own(self, family: int) -> dict[str, Reference]:
        assert self._life is not None
        rows = self._cursor.execute(
            "select name, seq, created, operand from variable where session = ? and family = ?",
            (self._life.number, family),
        ).fetchall()
        return {name: Reference(*reference) for name, *reference in rows}

    def _inline(self, family: int) -> dict[tuple[str, int], str]:
        """Return the short values that lie in the projection, by name and seq."""
        assert self._life is not None
        rows = self._cursor.execute(
            "select name, seq, value from variable"
            " where session = ? and family = ? and value is not null",
            (self._life.number, family),
        ).fetchall()
        return {(name, seq): value for name, seq, value in rows}

    def _shared(self, family: int) -> dict[str, Reference]:
        """Return the names of the past that a fork shares; it never changes, so it is kept."""
        life = self._life
        if life is None or life.parent is None:
            return {}
        known: dict[int, Names] = self._database.cache("forks", 256)
        names = known.get(life.number)
        if names is None:
            shared = Moment(self._database, self._cursor, life.parent, life.fork)
            names = known[life.number] = shared.names
        return names[family]

    # Messages.

    def message_count(self) -> int:
        """Return how many messages are in the list."""
        return len(self.message_list())

    def message_list(self) -> MessageList:
        """Return the list of messages as ranges; the caller must not change it."""
        return self._list

    @cached_property
    def _list(self) -> MessageList:
        if self._life is None:
            return MessageList()
        lists: dict[int, tuple[int, MessageList]] = self._database.cache("lists")
        known_seq, known = lists.get(self._life.number, (-1, None))
        if known is not None and known_seq == self.seq:
            return known
        if known is None or not 0 < self.seq - known_seq <= _TAIL_EVENTS_MAX:
            anchor = newest_anchor(self._cursor, self._life, self.seq)
            known_seq, known = anchor.seq, read_message_list(anchor)
        found = self._carry_on(known, known_seq)
        if self._pinned is None:
            lists[self._life.number] = (self.seq, found)
        return found

    def _carry_on(self, known: MessageList, known_seq: int) -> MessageList:
        """Return the list of this moment by one that is known, or by older ones where it must."""
        assert self._life is not None
        tails = [self._tail(known, known_seq, self.seq)]
        # A loop, because what was taken back goes through any number of checkpoints.
        while (base := tails[-1].base) < known_seq:
            anchor = newest_anchor(self._cursor, self._life, base)
            known_seq, known = anchor.seq, read_message_list(anchor)
            tails.append(self._tail(known, known_seq, base))
        for tail in reversed(tails):
            known = tail.carried_on(known, self)
        return known

    def _tail(self, known: MessageList, known_seq: int, seq: int) -> Tail:
        """Return the events after a moment whose list is known up to another."""
        assert self._life is not None
        rows = chain.from_iterable(
            self._cursor.execute(
                "select id & 0xffffffff, kind, operand from event"
                f" where id between ? and ? and {_LIST_KINDS}",
                segment.ids,
            ).fetchall()
            for segment in self._life.until(seq, known_seq)
        )
        events = [(seq, KINDS[kind - 1], operand) for seq, kind, operand in rows]
        return Tail(known_seq, known.bodies, events)

    def messages(self, start: int, stop: int) -> list[tuple[int, str | None]]:
        """Return (seq, text of the event) for the messages with index start … stop - 1."""
        return [
            message
            for first, end in self.message_list().ordinals(start, stop)
            for message in self.bodies.recorded(first, end)
        ]

    def contents(self, start: int, stop: int) -> list[Any]:
        """Return the messages with index start … stop - 1, decoded."""
        found = [
            self.bodies.contents(first, end)
            for first, end in self.message_list().ordinals(start, stop)
        ]
        return found[0] if len(found) == 1 else list(chain.from_iterable(found))

    def recorded(self, first: int, end: int) -> list[tuple[int, str | None]]:
        """Return (seq, text of the event) for the messages with ordinal first … end - 1."""
        return self.bodies.recorded(first, end)

    def ordinal(self, seq: int) -> int:
        """Return how many messages were recorded before the one that event `seq` carries."""
        return self.bodies.ordinal(seq)

    @cached_property
    def bodies(self) -> Bodies:
        """The messages that this moment's life recorded, whether they are in the list or not."""
        assert self._life is not None
        return Bodies(self._database, self._cursor, self._life, self.seq)

    def ranges_at(self, seq: int) -> list[Range]:
        """Return the ranges of the message list as of `seq`."""
        return Moment(self._database, self._cursor, self._life, seq).message_list().ranges.copy()

    # Other moments, and the batches that lie between.

    def at(self, seq: int) -> "Moment":
        """Return the same session at another sequence; deadlines pass by the same clock."""
        return self.of(self._life, seq)

    def of(self, life: Life | None, seq: int) -> "Moment":
        """Return another session at a sequence; deadlines pass by the same clock."""
        return Moment(self._database, self._cursor, life, seq, self.now_us)

    def batches(self) -> Iterator[Step]:
        """Yield the batches up to this moment, the newest first, through the shared past."""
        last = self.seq
        while self._life is not None and last > 0:
            row = self._cursor.execute(
                "select first, last, cause, exists (select 1 from event"
                f" where id between (session << {SEQ_BITS}) + first and ?1"
                f" and (kind in {_VARIABLE_KINDS} or {_LIST_KINDS})) from batch"
                " where position = (select position from event where id = ?1)",
                (self._life.event_id(last),),
            ).fetchone()
            yield Step(*row)
            last = row[0] - 1

    def merged(self) -> "list[tuple[range, Moment]]":
        """Return the seqs of each batch that merged another moment here, and that moment."""
        found = []
        for segment in self._life.until(self.seq) if self._life else ():
            for first, last, cause in self._cursor.execute(
                "select first, last, cause from batch where session = ? and first <= ?"
                " and cause >= ? and cause < ?",
                (segment.number, segment.last, MERGE, f"{MERGE[:-1]};"),
            ).fetchall():
                source = self._source(cause)
                if source is not None:
                    found.append((range(first, min(last, segment.last) + 1), source))
        return found

    def _source(self, cause: str) -> "Moment | None":
        """Return the moment that the cause of a merge names, if it is one of this store."""
        uid, seq = merged_moment(cause)
        life = by_uid(self._database, self._cursor, uid)
        known = life is not None and seq <= tip(self._cursor, life).head
        return self.of(life, seq) if known else None

    # Facts about one event.

    def facts(self, seq: int) -> Facts:
        """Return what is known of an event besides its data."""
        assert self._life is not None
        row = self._cursor.execute(
            "select time, actor, position from event join batch using (position)"
            " where event.id = ?",
            (self._life.event_id(seq),),
        ).fetchone()
        if row is None:
            raise Corrupt("", "an event or its batch is missing", self._life.id, seq)
        return Facts(*row)

    def kind_at(self, seq: int) -> str:
        """Return the kind of an event."""
        assert self._life is not None
        number: int = self._cursor.execute(
            "select kind from event where id = ?", (self._life.event_id(seq),)
        ).get
        return self.kind(number)

    def seq_at(self, time_us: int) -> int:
        """Return the newest seq whose batch was recorded at or before a time, by bisection."""
        low, high = 0, self.seq
        while low < high:
            middle = (low + high + 1) // 2
            if self.facts(middle).time_us <= time_us:
                low = middle
            else:
                high = middle - 1
        return low
