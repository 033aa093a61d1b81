"""The way in for what is not evstore's own: conversations of others become sessions.

A reader of a format gives Conversations (see `evstore.transfer.conversations`), and here they are
recorded: every item as one batch, at its original time, with the cause `import:FORMAT` and the key
`import:FORMAT:SOURCE_ID`. The uid of a session is a hash of format, prefix and source. So

* importing again adds only what is new, also after an import that was cut off at any point;
* an item that says something else than it did is reported, and what is recorded stays;
* where a session has gone another way since, because its source did or because somebody wrote to
  it, what is new goes into a fork that begins there.

A branch is a fork of the session that holds the item it follows. The session id is the one of the
source behind a prefix; what cannot stand in an id is percent-encoded, and what is too long is cut
and hashed. Where an id belongs to another session, the conversation is reported and left out: with
another prefix it is another import. Times within a session increase strictly: one that does not is
moved to 1 µs after the one before it. A time before 1970, or more than a day ahead, is left out.
What is beyond the limits of the store is reported, and an event `app.imported.left-out` stands in
its place.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import attrs

from evstore import values
from evstore.chain import ZERO, Batch, Birth
from evstore.errors import NotFound, Refused, Taken, TooLarge, TooMany
from evstore.events import METADATA, VARIABLES, Body
from evstore.store import Store
from evstore.transfer.conversations import (
    Cleared,
    Conversation,
    Item,
    Kept,
    Message,
    Reported,
    Said,
    Unset,
    Variable,
)
from evstore.transfer.jsonlines import Imported
from evstore.transfer.origin import Origin
from evstore.transfer.strands import Strand, Strands

# Each format with the module that reads it, and what to say about it.
FORMATS: Mapping[str, tuple[str, str]] = {
    "adk": ("adk", "a SQLite file of Google ADK's session services"),
    "chatgpt": ("chatgpt", "a ChatGPT data export: conversations.json"),
    "claude-code": ("claude_code", "a Claude Code transcript, or a folder of them"),
    "ets": ("ets", "a dump of an Erlang ETS table of sessions"),
    "json": ("mapped_json", "any JSON or JSON Lines, as --mapping FILE tells"),
    "langchain": ("langchain", "LangChain's chat histories: a SQLite file, JSON, or a folder"),
    "langgraph": ("langgraph", "a file of LangGraph's SqliteSaver or SqliteStore"),
    "letta": ("letta", "an agent file of Letta: .af"),
    "llm": ("llm", "the logs.db of the command line llm"),
    "openai-agents": ("openai_agents", "a file of the OpenAI Agents SDK's SQLiteSession"),
    "openai-jsonl": ("openai_jsonl", "JSON Lines of OpenAI-style conversations, or of messages"),
    "session-dir": ("session_dir", "a folder of SESSION.json, each an array of messages"),
}
LEFT_OUT = "app.imported.left-out"
_AHEAD_US = 86_400_000_000  # a clock may be wrong by a day
SHOWN_CHARACTERS_MAX = 500  # of each part of a report

Report = Callable[[Reported], None]


def import_from(
    store: Store,
    format: str,
    source: str | os.PathLike[str],
    *,
    prefix: str = "",
    mapping: Any = None,
    progress: Callable[[int], None] | None = None,
    report: Report | None = None,
) -> Imported:
    """Add the conversations that a source holds and this store lacks; return how much that was.

    They enter in chunks, each in one transaction. `prefix` goes before every session id. `mapping`
    says where things are, for the format "json" (see `evstore.transfer.mapped_json`). `progress` is
    called with the number of items seen so far, and `report` with what could not be taken in.

    Raises Refused for an unknown format or a bad mapping, Unavailable for a source that cannot be
    read, ReadOnly, and Conflict where somebody else writes to the same sessions meanwhile.
    """
    if format not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        raise Refused(f"format {format!r} is unknown: give one of {known}")
    reader = import_module(f"evstore.transfer.{FORMATS[format][0]}")
    given = [os.fspath(source)]
    if format == "json":
        given.append(mapping)
    elif mapping is not None:
        raise Refused(f"a mapping is for the format 'json', not for {format!r}: leave it out")
    found = reader.read(*given)
    return _Import(store, format, prefix, progress, report).run(found)


class _Place(NamedTuple):
    """The moment of a session right after one of its batches, or its beginning."""

    strand: Strand
    seq: int
    time_us: int
    link: bytes


class _Import:
    """One run: the sessions being written, and what is told meanwhile."""

    def __init__(
        self,
        store: Store,
        format: str,
        prefix: str,
        progress: Callable[[int], None] | None,
        report: Report | None,
    ) -> None:
        self.writer = store.writer
        self.origin = Origin(format, prefix, self.writer.limits)
        self.strands = Strands(store)
        self.now_us = store.engine.clock()
        self.latest_us = self.now_us + _AHEAD_US
        self.root = ""  # the source of the conversation whose branches come
        self.ways: dict[str, list[Strand]] = {}  # through which each of them goes, by its source
        self._progress = progress
        self._report = report
        self._items = self._kept = self._reported = 0

    def run(self, found: Iterable[Conversation | Reported]) -> Imported:
        for conversation in found:
            if isinstance(conversation, Reported):
                self.report(conversation)
            else:
                self._take(conversation)
        self.strands.write()
        return attrs.evolve(self.strands.added, kept=self._kept, reported=self._reported)

    def report(self, reported: Reported) -> None:
        """Pass a report on, its words short and fit to be written anywhere."""
        self._reported += 1
        if self._report is not None:
            self._report(Reported(*map(_shown, attrs.astuple(reported))))

    def past_us(self, time_us: int | None) -> int | None:
        """Return a time, if there is one that is neither before 1970 nor to come."""
        return time_us if time_us is not None and 0 <= time_us <= self.latest_us else None

    def seen(self) -> None:
        """Count an item that was looked at."""
        self._items += 1
        if self._progress is not None:
            self._progress(self._items)

    def kept(self, said: Said) -> None:
        """Count what was recorded raw."""
        self._kept += isinstance(said, Kept)

    def _take(self, conversation: Conversation) -> None:
        if conversation.parent is None:
            self.strands.begin()
            self.root, self.ways = conversation.source, {}
        try:
            place = self._beginning(conversation)
        except (NotFound, Taken) as error:
            self.report(Reported(conversation.id, "a conversation", str(error)))
            return
        if place is not None:
            self.ways[conversation.source] = [place.strand]
            _Walk(self, conversation, place).run()

    def _beginning(self, conversation: Conversation) -> _Place | None:
        """Return where a conversation begins; a branch of what was left out begins nowhere."""
        if conversation.parent is not None:
            return self._branching(*conversation.parent)
        uid = self.origin.uid(conversation.source)
        strand = self.strands.find(uid)
        if strand is None:
            session_id = self.origin.session_id(conversation.id)
            birth = Birth(uid, session_id, 0, None, None, os.urandom(16))
            strand = self.strands.bear(birth, 0, ZERO)
        return _Place(strand, 0, 0, ZERO)

    def _branching(self, source: str, after: str | None) -> _Place | None:
        ways = self.ways.get(source, [])
        if after is None:
            return _Place(ways[0], 0, 0, ZERO) if ways else None
        for strand in ways:
            batch = self.strands.recorded(strand, self.origin.key(after))
            if batch is not None:
                return _Place(strand, batch.last, batch.time_us, batch.link)
        return None


class _Walk:
    """The way of one conversation through the store: past what is there, appending what is new."""

    def __init__(self, run: _Import, conversation: Conversation, place: _Place) -> None:
        self._run = run
        self._conversation = conversation
        self._place = place
        self._fork_id = conversation.id if conversation.parent is not None else None
        self._is_apart = conversation.is_apart  # and nothing of it has been seen
        created_us = run.past_us(conversation.created_us)
        self._time_us = run.now_us if created_us is None else created_us
        self._is_empty = True
        self._changed = 0
        self._first_changed = ""

    def run(self) -> None:
        """Take in all items; where a session cannot be had, the rest is reported."""
        for item in self._conversation.items:
            self._is_empty = False
            if isinstance(item, Reported):
                self._run.report(item)
                continue
            self._run.seen()
            try:
                self._take(item)
            except (NotFound, Taken) as error:
                self._tell("this and what follows it", str(error), item)
                break
        if self._is_empty:
            self._tell("a conversation", "it is empty, and a session begins with its first item")
        if self._changed:
            self._tell(
                f"{self._changed} items, the first of them {self._first_changed!r}",
                "something else is recorded under their ids, of an earlier import or of this "
                "source, and stays as it is: give another prefix, or each an id of its own",
            )

    def _tell(self, what: str, reason: str, item: Item | None = None) -> None:
        where = self._conversation.id
        where = where if item is None else f"{where}, item {item.source_id}"
        self._run.report(Reported(where, what, reason))

    def _take(self, item: Item) -> None:
        strands, key = self._run.strands, self._run.origin.key(item.source_id)
        time_us = self._time_of(item)
        batch = strands.recorded(self._place.strand, key)
        if batch is None and (self._is_apart or self._place.seq != self._place.strand.head):
            self._place = self._forked(item)
            batch = strands.recorded(self._place.strand, key)
        self._is_apart = False
        if batch is None:
            batch = self._append(item, key, time_us)
        else:
            self._compare(batch, item)
        if batch.last > self._place.seq:
            strand = self._place.strand
            self._place = _Place(strand, batch.last, batch.time_us, batch.link)

    def _time_of(self, item: Item) -> int:
        """Return the time of an item; one without is at that of the item before it."""
        time_us = self._run.past_us(item.time_us)
        if time_us is not None:
            self._time_us = time_us
        elif item.time_us is not None:
            self._tell("its time", "it is before 1970 or to come, and is left out", item)
        return self._time_us

    def _forked(self, item: Item) -> _Place:
        """Return the beginning of the session that goes from here to an item; raises Taken."""
        run, (origin, seq, time_us, link) = self._run, self._place
        uid = run.origin.uid(run.root, item.source_id)
        strand = run.strands.find(uid)
        if strand is None:
            proposed = self._fork_id or f"{self._conversation.id}/{item.source_id}"
            birth = Birth(uid, run.origin.session_id(proposed), 0, origin.uid, seq, os.urandom(16))
            strand = run.strands.bear(birth, time_us, link)
            run.strands.append(strand, (), time_us + 1)
        self._fork_id = None
        run.ways[self._conversation.source].append(strand)
        return _Place(strand, seq, strand.time_us, strand.link)

    def _append(self, item: Item, key: str, time_us: int) -> Batch:
        strand, cause = self._place.strand, self._run.origin.cause
        actor, bodies = item.actor, self._metadata(tell=True) if strand.birth is not None else []
        try:
            self._run.writer.check_said(actor, None, None)
            self._check_room(item, strand)
        except Refused as error:
            bodies.append(self._left_out(item, error))
            actor = None
        else:
            bodies += [self._body_or_mark(said, item) for said in item.said]
        return self._run.strands.append(strand, bodies, time_us, actor=actor, cause=cause, key=key)

    def _compare(self, batch: Batch, item: Item) -> None:
        """Note an item that says something else than what was recorded of it."""
        if any(entry.kind == LEFT_OUT or entry.text is None for entry in batch.entries):
            return
        try:
            bodies = self._metadata() if batch.birth else []
            bodies += map(self._body, item.said)
        except Refused:
            bodies = []
        said = [(body.kind, body.name, body.text) for body in bodies]
        if said != [(entry.kind, entry.name, entry.text) for entry in batch.entries]:
            self._changed += 1
            self._first_changed = self._first_changed or item.source_id

    def _metadata(self, *, tell: bool = False) -> list[Body]:
        """Return the bodies that record the metadata, without what the store does not take."""
        bodies, room_bytes = [], self._run.writer.limits.metadata_bytes_max
        for name, value in self._conversation.metadata.items():
            try:
                body = self._run.writer.set(METADATA, name, value)
                size_bytes = len(name.encode()) + len(body.text)
                if size_bytes > room_bytes:
                    raise TooLarge(f"metadata with {name!r}", size_bytes, room_bytes)
            except Refused as error:
                if tell:
                    self._tell(f"metadata {name!r}", str(error))
            else:
                bodies.append(body)
                room_bytes -= size_bytes
        return bodies

    def _check_room(self, item: Item, strand: Strand) -> None:
        """Raise TooMany where a session has no room for the variables of an item."""
        new = {said.name for said in item.said if isinstance(said, Variable)}
        if new:
            names = self._run.strands.names(strand)
            if len(names | new) > self._run.writer.limits.variables_max:
                most = self._run.writer.limits.variables_max
                raise TooMany("variables", len(names | new), most)
            names |= new

    def _body_or_mark(self, said: Said, item: Item) -> Body:
        """Return what records a part of an item, or says that it was left out."""
        try:
            body = self._body(said)
        except Refused as error:
            return self._left_out(item, error)
        self._run.kept(said)
        return body

    def _left_out(self, item: Item, error: Refused) -> Body:
        self._tell("an item", str(error), item)
        # Limits are for what the source says: the mark is there even where they are small.
        return Body(LEFT_OUT, None, values.encode({"reason": str(error)}))

    def _body(self, said: Said) -> Body:
        writer = self._run.writer
        if isinstance(said, Message):
            return writer.add(said.message)
        if isinstance(said, Cleared):
            return writer.clear()
        if isinstance(said, Variable):
            return writer.set(VARIABLES, said.name, said.value)
        if isinstance(said, Unset):
            return writer.delete(VARIABLES, writer.limits.check_name("name", said.name))
        return writer.record(f"app.imported.{self._run.origin.format}", said.record)


def _shown(text: str) -> str:
    if len(text) > SHOWN_CHARACTERS_MAX:
        text = text[: SHOWN_CHARACTERS_MAX - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
