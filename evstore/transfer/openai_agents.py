"""The OpenAI Agents SDK's session files: a session is a session, and its branches are forks.

SQLiteSession, AsyncSQLiteSession and SQLAlchemySession on SQLite write (openai-agents 0.24.0)

    agent_sessions(session_id, created_at, updated_at)
    agent_messages(id, session_id, message_data, created_at)

or tables with other names and these columns, which are all read. An item of `message_data` is one
of the Responses API. One with a role is a message as it is; calls of functions and what they return
become messages of the assistant and of the tool, with the rest of the item under `source`; all
others, like what a model reasons, are kept raw. AdvancedSQLiteSession adds

    message_structure(session_id, message_id, branch_id, sequence_number, user_turn_number, …)
    turn_usage(session_id, branch_id, user_turn_number, requests, input_tokens, …)

where every branch lists all of its messages: what it has in common with another is their shared
past. The usage of a turn is kept raw behind it. What EncryptedSession has written is refused.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from evstore.errors import Unavailable
from evstore.transfer import records, tables
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Message,
    Reported,
    is_message,
    time_us,
    tool_call,
    with_rest,
)
from evstore.transfer.tables import Tables

MESSAGES = ("id", "session_id", "message_data", "created_at")
STRUCTURE = ("session_id", "message_id", "branch_id", "sequence_number", "user_turn_number")
USAGE = ("id", "session_id", "branch_id", "user_turn_number", "created_at")
MAIN = "main"
OUTPUTS = ("function_call_output", "custom_tool_call_output")
ENCRYPTED = (
    "EncryptedSession wrote them: read them with the library and its key, add them to a "
    "SQLiteSession, and import that"
)


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield each session and, right after it, its branches."""
    with tables.opened(path) as source:
        names = sorted(name for name in source.columns if source.has(name, *MESSAGES))
        if not names:
            reason = "it has no table of messages: name the file of a SQLiteSession"
            raise Unavailable(path, reason)
        changed_us = records.changed_us(path)
        for table in names:
            prefix = f"{table}/" if len(names) > 1 else ""
            yield from _sessions(source, table, prefix, changed_us)


def _sessions(
    source: Tables, table: str, prefix: str, changed_us: int
) -> Iterator[Conversation | Reported]:
    quoted = tables.quoted(table)
    firsts = f"select min(id) from {quoted} group by session_id order by 1"
    for number in source.numbers(firsts):
        where = f"{table}, row {number}"
        row = source.row(where, f"select session_id from {quoted} where id = ?", number)
        if isinstance(row, Reported):
            yield row
        elif type(row["session_id"]) is str:
            yield from _Session(source, table, row["session_id"], prefix, changed_us).read()
        else:
            yield Reported(where, "a session", "its id is no text: repair the file")


class _Session:
    """One session of a table of messages."""

    def __init__(
        self, source: Tables, table: str, session: str, prefix: str, changed_us: int
    ) -> None:
        self._source = source
        self._table = table
        self._quoted = tables.quoted(table)
        self._session = session
        self._name = f"{prefix}{session}"
        self._changed_us = changed_us

    def read(self) -> Iterator[Conversation | Reported]:
        """Yield the first branch as the session, and each other where it goes off."""
        known: list[tuple[str, Sequence[int]]] = []
        for branch in self._branches():
            if isinstance(branch, Reported):
                yield branch
                continue
            ids = self._ids("m.id", branch)
            name, source, shared, parent = self._name, f"{self._table}/{self._session}", 0, None
            if known:
                counts = [_common(ids, theirs) for _, theirs in known]
                shared = max(counts)
                after = str(ids[shared - 1]) if shared else None
                parent = (known[counts.index(shared)][0], after)
                name, source = f"{name}/{branch}", f"{source}/{branch}"
            known.append((source, ids))
            items = self._items(branch, shared, ids[shared:])
            yield Conversation(name, source, self._changed_us, items, parent=parent)
        listed = set().union(*(ids for _, ids in known))
        stray = len(set(self._ids("m.id", None)) - listed)
        if stray:
            reason = "no branch lists them, so that the library does not see them either"
            yield Reported(self._name, f"{stray} messages", reason)

    def _branches(self) -> Iterator[str | Reported | None]:
        """Yield the names of the branches, the main one first; None for a session without."""
        firsts = self._numbers(
            "message_structure",
            STRUCTURE,
            "select min(id) from message_structure where session_id = ?"
            " group by branch_id order by branch_id <> ?, 1",
            self._session,
            MAIN,
        )
        if not firsts:
            yield None
        for number in firsts:
            where = f"{self._name}, message_structure {number}"
            sql = "select branch_id from message_structure where id = ?"
            row = self._source.row(where, sql, number)
            if isinstance(row, Reported):
                yield row
            elif type(row["branch_id"]) is str:
                yield row["branch_id"]
            else:
                yield Reported(where, "a branch", "its id is no text: repair the file")

    def _numbers(self, table: str, columns: Sequence[str], sql: str, *values: Any) -> Sequence[int]:
        """Return what a query finds in a table that belongs to our messages; else nothing."""
        if not self._source.has(table, "id", *columns):
            return ()
        owners = 'select count(*) from pragma_foreign_key_list(?) where "table" = ? collate nocase'
        owned, *_ = self._source.numbers(owners, "message_structure", self._table)
        return self._source.numbers(sql, *values) if owned else ()

    def _ids(self, column: str, branch: str | None) -> Sequence[int]:
        """Return a column of numbers for the messages of a branch, or of all, in their order."""
        if branch is None:
            sql = f"select {column} from {self._quoted} m where session_id = ? order by m.id"
            return self._source.numbers(sql, self._session)
        return self._source.numbers(
            f"select {column} from {self._quoted} m join message_structure s"
            " on m.id = s.message_id and m.session_id = s.session_id"
            " where m.session_id = ? and s.branch_id = ? order by s.sequence_number, s.id",
            self._session,
            branch,
        )

    def _items(
        self, branch: str | None, shared: int, ids: Sequence[int]
    ) -> Iterator[Item | Reported]:
        """Yield the messages of a branch that it does not share, each turn with its usage."""
        usage: dict[int, list[int]] = {}
        turns: Sequence[int] = [0] * len(ids)
        if branch is not None:
            turns = self._ids("coalesce(s.user_turn_number, 0)", branch)[shared:]
            usage = self._usage(branch)
        for turn in sorted(usage.keys() - set(turns)):
            yield from map(self._used, usage[turn])
        encrypted = 0
        for number, turn in enumerate(turns):
            found = list(self._item(ids[number]))
            encrypted += not found
            yield from found
            if [turn] != list(turns[number + 1 : number + 2]):
                yield from map(self._used, usage.get(turn, ()))
        if encrypted:
            yield Reported(self._name, f"{encrypted} items", ENCRYPTED)

    def _item(self, number: int) -> Iterator[Item | Reported]:
        """Yield a message; nothing if it is encrypted, and also why where it cannot be read."""
        where = f"{self._name}, message {number}"
        sql = f"select message_data, created_at from {self._quoted} where id = ?"
        row = self._source.row(where, sql, number)
        if isinstance(row, Reported):
            yield row
            yield Item(str(number), None, (Kept({"reason": row.reason}),))
            return
        record = tables.decoded(where, row["message_data"])
        if isinstance(record, Reported):
            yield record
            record = {"message_data": row["message_data"]}
        if not (type(record) is dict and "__enc__" in record and "payload" in record):
            yield Item(str(number), time_us(row["created_at"]), (_said(record),))

    def _usage(self, branch: str) -> dict[int, list[int]]:
        """Return which rows tell the usage of each turn of a branch."""
        found: dict[int, list[int]] = {}
        sql = "select {} from turn_usage where session_id = ? and branch_id = ? order by id"
        rows, turns = (
            self._numbers("turn_usage", USAGE, sql.format(column), self._session, branch)
            for column in ("id", "user_turn_number")
        )
        for row, turn in zip(rows, turns, strict=True):
            found.setdefault(turn, []).append(row)
        return found

    def _used(self, number: int) -> Item | Reported:
        where = f"{self._name}, turn_usage {number}"
        row = self._source.row(where, "select * from turn_usage where id = ?", number)
        if isinstance(row, Reported):
            return row
        return Item(f"usage-{number}", time_us(row["created_at"]), (Kept({"turn_usage": row}),))


def _common(ids: Sequence[int], others: Sequence[int]) -> int:
    """Return how many numbers at the beginning are the same."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ids, others, strict=False))
    return sum(1 for _ in same)


def _said(record: Any) -> Message | Kept:
    """Return an item of the Responses API as a message where it is one."""
    if is_message(record):
        return Message(record)
    fields = dict(record) if type(record) is dict else {}
    call, kind, name = (fields.pop(key, None) for key in ("call_id", "type", "name"))
    if type(call) is not str:
        return Kept(record)
    if kind in OUTPUTS and "output" in fields:
        message = {"role": "tool", "tool_call_id": call, "content": fields.pop("output")}
        beside = {"type": kind} | ({} if name is None else {"name": name})
        return with_rest(message, beside | fields)
    if kind == "function_call" and type(name) is str and type(fields.get("arguments")) is str:
        made = tool_call(call, name, fields.pop("arguments"))
    elif kind == "custom_tool_call" and type(name) is str and "input" in fields:
        said = {"name": name, "input": fields.pop("input")}
        made = {"id": call, "type": "custom", "custom": said}
    else:
        return Kept(record)
    message = {"role": "assistant", "content": None, "tool_calls": [made]}
    return with_rest(message, {"type": kind, **fields})
