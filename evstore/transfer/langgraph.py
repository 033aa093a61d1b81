"""LangGraph's files: a thread is a session, every checkpoint a batch, and each way on a fork.

SqliteSaver and AsyncSqliteSaver write the tables (langgraph-checkpoint-sqlite 3.1.2)

    checkpoints(thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint,
                metadata)
    writes(thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value)

in which a checkpoint is {"id", "ts", "channel_values": {CHANNEL: value}, "channel_versions", …} as
`evstore.transfer.langgraph_values` reads it. What a checkpoint changes against its parent is said:
the messages that its list has more (where it does not begin like the list before, that is cleared
and said anew), and the other channels as variables. All else of it, with the channels of LangGraph
itself and what was written to those on the way from the parent, is kept raw. A channel that only
its changes are stored of (DeltaChannel) is folded where they are messages.

The path to the newest checkpoint of a thread is the session, what goes off from it are forks. The
namespaces of subgraphs are sessions `THREAD/NAMESPACE`. What waits to be taken into the next
checkpoint, where a thread was interrupted, is kept raw in a session `THREAD/CHECKPOINT/pending`.

SqliteStore writes `store(prefix, key, value, updated_at, …)`: a session `store/PREFIX` for each
prefix, whose keys are its variables.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from evstore.errors import Unavailable
from evstore.transfer import records, tables
from evstore.transfer.branches import Path, paths
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Reported,
    Variable,
    time_us,
)
from evstore.transfer.langgraph_state import UNKNOWN, differences, fold, is_own, speaks
from evstore.transfer.langgraph_values import Unreadable, Values
from evstore.transfer.tables import Tables

CHECKPOINTS = ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "type")
WRITES = ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type")
STORE = ("prefix", "key", "value", "updated_at")
MESSAGES = "messages"
CHANGES = "only its changes are stored, which its program alone can add up: they are kept raw"


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the threads with their branches, and what a store remembers."""
    with tables.opened(path) as source:
        has_threads = source.has("checkpoints", *CHECKPOINTS, "checkpoint", "metadata")
        has_store = source.has("store", *STORE)
        if not (has_threads or has_store):
            reason = "it has no table of checkpoints: name the file of a SqliteSaver or SqliteStore"
            raise Unavailable(path, reason)
        changed_us = records.changed_us(path)
        if has_threads:
            yield from _threads(source, changed_us)
        if has_store:
            yield from _remembered(source, changed_us)


def _threads(source: Tables, changed_us: int) -> Iterator[Conversation | Reported]:
    firsts = source.numbers(
        "select min(rowid) from checkpoints group by thread_id, checkpoint_ns"
        " order by min(checkpoint_id)"
    )
    for number in firsts:
        where = f"checkpoint {number}"
        sql = "select thread_id, checkpoint_ns from checkpoints where rowid = ?"
        row = source.row(where, sql, number)
        if isinstance(row, Reported):
            yield row
        elif type(row["thread_id"]) is str and type(row["checkpoint_ns"]) is str:
            yield from _Thread(source, row["thread_id"], row["checkpoint_ns"], changed_us).read()
        else:
            yield Reported(where, "a thread", "its id is no text: repair the file")
    if source.has("writes", *WRITES, "value"):
        (stray,) = source.numbers(
            "select count(*) from writes w where not exists (select 1 from checkpoints c where"
            " (c.thread_id, c.checkpoint_ns, c.checkpoint_id)"
            " = (w.thread_id, w.checkpoint_ns, w.checkpoint_id))"
        )
        if stray:
            reason = "the checkpoint that they follow is not in the file, so nobody can use them"
            yield Reported("writes", f"{stray} writes", reason)


@attrs.frozen
class _Checkpoint:
    """What one row of the table says, once it is decoded."""

    fields: Mapping[str, Any]
    values: Mapping[str, Any]
    metadata: Any
    classes: set[str]

    def folded(self) -> list[str]:
        """Return the names of the channels whose values are stored as changes only, by now."""
        counters = self.metadata.get("counters_since_delta_snapshot") if self.metadata else None
        names = counters if type(counters) is dict else {}
        return [name for name in names if name not in self.values]


class _Thread:
    """One namespace of one thread."""

    def __init__(self, source: Tables, thread: str, namespace: str, changed_us: int) -> None:
        self._source = source
        self._thread = (thread, namespace)
        self._name = f"{thread}/{namespace}" if namespace else thread
        self._changed_us = changed_us
        self._rows: dict[str, int] = {}
        self._parents: dict[str, str | None] = {}
        self._has_writes = source.has("writes", *WRITES, "value")
        self._task_path = "task_path" if source.has("writes", "task_path") else "''"
        self._spoken = MESSAGES  # the channel that holds the messages

    def read(self) -> Iterator[Conversation | Reported]:
        yield from self._find()
        tip = next(reversed(self._rows), "")
        found = list(paths(self._parents, tip))
        self._spoken = self._speaking(tip)
        names, sources = [self._name], [self._source_of()]
        for path in found:
            parent = None
            if path.parent is not None:
                parent = sources[path.parent], path.after
                names.append(f"{self._name}/{path.nodes[0]}")
                sources.append(self._source_of(path.nodes[0]))
            facts = self._metadata() if parent is None else {}
            items = self._items(path)
            yield Conversation(names[-1], sources[-1], self._changed_us, items, facts, parent)
        lost = len(self._rows) - sum(len(path.nodes) for path in found)
        if lost:
            reason = "they go round in a circle: repair the file"
            yield Reported(self._name, f"{lost} checkpoints", reason)
        for name in sorted(self._rows.keys() - set(self._parents.values())):
            yield from self._pending(name)

    def _source_of(self, *parts: str) -> str:
        return json.dumps(["thread", *self._thread, *parts])

    def _metadata(self) -> dict[str, str]:
        thread, namespace = self._thread
        return {"thread_id": thread} | ({"checkpoint_ns": namespace} if namespace else {})

    def _find(self) -> Iterator[Reported]:
        """Take in which checkpoints there are, and what each follows."""
        numbers = self._source.numbers(
            "select rowid from checkpoints where thread_id = ? and checkpoint_ns = ?"
            " order by checkpoint_id",
            *self._thread,
        )
        sql = "select checkpoint_id, parent_checkpoint_id from checkpoints where rowid = ?"
        for number in numbers:
            row = self._source.row(f"{self._name}, row {number}", sql, number)
            if isinstance(row, Reported):
                yield row
                continue
            name, parent = row["checkpoint_id"], row["parent_checkpoint_id"]
            if type(name) is not str:
                reason = "its id is no text: repair the file"
                yield Reported(f"{self._name}, row {number}", "a checkpoint", reason)
                continue
            self._rows[name] = number
            self._parents[name] = parent if type(parent) is str else None

    def _speaking(self, tip: str) -> str:
        """Return the channel of messages, which may have any name: the newest checkpoint tells."""
        found = self._checkpoint(tip) if tip else None
        values = found.values if isinstance(found, _Checkpoint) else {}
        if MESSAGES in values:
            return MESSAGES
        return next((name for name, value in values.items() if value and speaks(value)), MESSAGES)

    def _checkpoint(self, name: str) -> _Checkpoint | tuple[Reported, Any]:
        """Return a checkpoint; or what to report of it and what of it can be kept."""
        where = f"{self._name}, checkpoint {name}"
        sql = "select type, checkpoint, metadata from checkpoints where rowid = ?"
        row = self._source.row(where, sql, self._rows[name])
        if isinstance(row, Reported):
            return row, {"reason": row.reason}
        values = Values()
        try:
            fields = values.decode(row["type"], row["checkpoint"])
            if type(fields) is not dict or type(fields.get("channel_values")) is not dict:
                raise Unreadable("it holds no channel_values: repair the file")
        except Unreadable as error:
            return Reported(where, "a checkpoint", str(error)), row
        channels = {str(name): value for name, value in fields["channel_values"].items()}
        rest = {name: value for name, value in fields.items() if name != "channel_values"}
        return _Checkpoint(rest, channels, _metadata(row["metadata"]), values.classes)

    def _items(self, path: Path) -> Iterator[Item | Reported]:
        state = self._state(self._parents[path.nodes[0]])
        told: set[str] = set()
        for name in path.nodes:
            found = self._checkpoint(name)
            if not isinstance(found, _Checkpoint):
                yield found[0]
                yield Item(name, None, (Kept(found[1]),))
                continue
            before = state
            state, lost = self._following(state, name, found)
            for channel in lost - told:
                yield Reported(f"{self._name}, checkpoint {name}", f"channel {channel}", CHANGES)
            told |= lost
            kept, unread = self._kept(name, found, lost)
            yield from unread
            said = [*differences(before, state, self._spoken), kept]
            yield Item(name, time_us(found.fields.get("ts")), tuple(said))

    def _state(self, name: str | None) -> dict[str, Any]:
        """Return the values of the channels at a checkpoint, from as far back as it needs."""
        waiting: list[tuple[str, _Checkpoint]] = []
        while name in self._rows:
            found = self._checkpoint(name)
            if isinstance(found, _Checkpoint):
                waiting.append((name, found))
                if not found.folded():
                    break
            name = self._parents[name]
        state: dict[str, Any] = {}
        while waiting:
            state, _ = self._following(state, *waiting.pop())
        return state

    def _following(
        self, before: Mapping[str, Any], name: str, found: _Checkpoint
    ) -> tuple[dict[str, Any], set[str]]:
        """Return the values at a checkpoint, from those before, and the names of what is unknown.

        The list of messages stays as it was where its changes cannot be added up here.
        """
        state, lost = dict(found.values), set()
        for channel in found.folded():
            written = [write.get("value") for write, _ in self._written(name, "= ?", channel)]
            had = before.get(channel, [])
            state[channel] = fold(had, written)
            if state[channel] is None:
                lost.add(channel)
                state[channel] = had if channel == self._spoken else UNKNOWN
        return state, lost

    def _kept(self, name: str, found: _Checkpoint, lost: set[str]) -> tuple[Kept, list[Reported]]:
        """Return what neither messages nor variables say of a checkpoint, and what is unread."""
        own = {channel: value for channel, value in found.values.items() if is_own(channel)}
        written = self._written(name, "glob ?", "__*")
        for channel in sorted(lost):
            written += self._written(name, "= ?", channel)
        writes, unread = [write for write, _ in written], [told for _, told in written if told]
        beside = {"channels": own, "writes": writes, "classes": sorted(found.classes)}
        said = {"checkpoint": found.fields, "metadata": found.metadata}
        return Kept(said | {what: value for what, value in beside.items() if value}), unread

    def _written(
        self, name: str, channel_is: str, channel: str
    ) -> list[tuple[dict[str, Any], Reported | None]]:
        """Return what was written to some channels on the way from its parent to a checkpoint."""
        parent = self._parents[name]
        if parent is None or not self._has_writes:
            return []
        numbers = self._source.numbers(
            "select rowid from writes where thread_id = ? and checkpoint_ns = ?"
            f" and checkpoint_id = ? and channel {channel_is}"
            f" order by {self._task_path}, task_id, idx",
            *self._thread,
            parent,
            channel,
        )
        return [self._write(number) for number in numbers]

    def _write(self, number: int) -> tuple[dict[str, Any], Reported | None]:
        """Return a write, its value decoded, or raw where that cannot be; then with the reason."""
        where = f"{self._name}, write {number}"
        names = f"task_id, {self._task_path} as task_path, idx, channel, type, value"
        row = self._source.row(where, f"select {names} from writes where rowid = ?", number)
        if isinstance(row, Reported):
            return {"reason": row.reason}, row
        try:
            value = Values().decode(row["type"], row["value"])
        except Unreadable as error:
            row["raw"] = row.pop("value")
            return row, Reported(where, "a write", str(error))
        del row["type"]
        return {**row, "value": value}, None

    def _pending(self, name: str) -> Iterator[Conversation]:
        """Yield what was written after a checkpoint that nothing follows, if there is any."""
        if not self._has_writes:
            return
        sql = (
            "select rowid from writes where thread_id = ? and checkpoint_ns = ?"
            " and checkpoint_id = ? order by rowid"
        )
        numbers = self._source.numbers(sql, *self._thread, name)
        if numbers:
            session = f"{self._name}/{name}/pending"
            facts = {**self._metadata(), "checkpoint_id": name}
            found = self._checkpoint(name)
            at = time_us(found.fields.get("ts")) if isinstance(found, _Checkpoint) else None
            items = self._waiting(numbers)
            at = self._changed_us if at is None else at
            yield Conversation(session, self._source_of(name, "pending"), at, items, facts)

    def _waiting(self, numbers: Iterable[int]) -> Iterator[Item | Reported]:
        for number in numbers:
            write, reported = self._write(number)
            if reported is not None:
                yield reported
            yield Item(f"{write.get('task_id')}/{write.get('idx')}", None, (Kept(write),))


def _metadata(data: Any) -> Any:
    """Return the metadata of a checkpoint, as it is stored where it is no JSON object."""
    try:
        found = json.loads(data)
    except (TypeError, ValueError, RecursionError):
        return {"raw": data}
    return found if type(found) is dict else {"raw": data}


def _remembered(source: Tables, changed_us: int) -> Iterator[Conversation | Reported]:
    """Yield what a store remembers: a session for each prefix, in which values are set."""
    for number in source.numbers("select min(rowid) from store group by prefix"):
        where = f"store, row {number}"
        row = source.row(where, "select prefix from store where rowid = ?", number)
        if isinstance(row, Reported):
            yield row
        elif type(row["prefix"]) is str:
            name = row["prefix"]
            numbers = source.numbers(
                "select rowid from store where prefix = ? order by updated_at, rowid", name
            )
            items = (_remembered_item(source, number) for number in numbers)
            yield Conversation(
                f"store/{name}", json.dumps(["store", name]), changed_us, items, {"prefix": name}
            )
        else:
            yield Reported(where, "a prefix", "it is no text: repair the file")


def _remembered_item(source: Tables, number: int) -> Item | Reported:
    where = f"store, row {number}"
    sql = "select key, value, updated_at from store where rowid = ?"
    row = source.row(where, sql, number)
    if isinstance(row, Reported):
        return row
    value = tables.decoded(where, row["value"])
    if isinstance(value, Reported):
        return value
    key = str(row["key"])
    return Item(key, time_us(row["updated_at"]), (Variable(key, value),))
