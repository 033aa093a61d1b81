"""LangChain's chat histories: a SQLite file with tables of messages, or files of JSON.

`SQLChatMessageHistory` writes `message_store(id, session_id, message)`, or another table of these
columns: every such table is read. `FileChatMessageHistory` writes one file for each session, a JSON
array; a folder of these is read as well, and the file name is the session id. A message is

    {"type": "human" | "ai" | "system" | "tool" | "function" | "chat", "data": {"content", …}}

Both are in langchain_community/chat_message_histories; checked against langchain-community 0.4.2
with langchain-core 1.7.2. Neither tells times: messages get that of the file's last change.
Where a file has several such tables, a session is `TABLE/SESSION`.
"""

import os
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from evstore.errors import Unavailable
from evstore.transfer import records, tables
from evstore.transfer.conversations import Conversation, Item, Kept, Reported, with_rest
from evstore.transfer.langchain_messages import as_message
from evstore.transfer.tables import Tables

COLUMNS = ("id", "session_id", "message")
SUFFIX = ".json"


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the sessions of a file, or of each file in a folder, in the order of their names."""
    if os.path.isdir(path):
        yield from records.of_each(records.files(path, SUFFIX), _from_file)
    elif tables.is_database(path):
        with tables.opened(path) as found:
            yield from _from_tables(found, records.changed_us(path))
    else:
        yield from _from_file(path)


def _from_file(path: str) -> Iterator[Conversation | Reported]:
    """Yield the one session of a file, or what is wrong with it."""
    messages = records.whole(path)
    if isinstance(messages, Reported):
        yield messages
    elif type(messages) is not list:
        name = os.path.basename(path)
        yield Reported(name, "a file", "it is no JSON array of messages: repair it")
    else:
        session = records.stem(path)
        items = (_item(str(number), message) for number, message in enumerate(messages, 1))
        yield Conversation(session, session, records.changed_us(path), items)


def _from_tables(found: Tables, changed_us: int) -> Iterator[Conversation | Reported]:
    names = sorted(name for name in found.columns if found.has(name, *COLUMNS))
    if not names:
        reason = "it has no table of id, session_id and message: name the file of a chat history"
        raise Unavailable(found.path, reason)
    for table in names:
        prefix = f"{table}/" if len(names) > 1 else ""
        for session, rows in groupby(_rows(found, table), itemgetter(0)):
            if type(session) is str:
                items = (item for _, item in rows)
                yield Conversation(f"{prefix}{session}", f"{table}/{session}", changed_us, items)
            else:
                yield Reported(f"{table}, {session!r}", "a session", "its id is no text: repair it")


def _rows(found: Tables, table: str) -> Iterator[tuple[Any, Item | Reported]]:
    """Yield the messages of a table, each with its session, one session after the other."""
    quoted = tables.quoted(table)
    session = None
    for row in found.numbers(f"select rowid from {quoted} order by session_id, id"):
        where = f"{table}, row {row}"
        sql = f"select id, session_id, message from {quoted} where rowid = ?"
        fields = found.row(where, sql, row)
        if isinstance(fields, Reported):
            yield session, fields  # it stands among those of its session
            continue
        session = fields["session_id"]
        record = tables.decoded(where, fields["message"])
        item = record if isinstance(record, Reported) else _item(str(fields["id"]), record)
        yield session, item


def _item(source_id: str, record: Any) -> Item:
    """Return a message as an item; what is none is kept whole."""
    fields = record if type(record) is dict else {}
    data = fields.get("data")
    message = as_message({"type": fields.get("type"), **data}) if type(data) is dict else None
    if message is None:
        return Item(source_id, None, (Kept(record),))
    rest = {name: value for name, value in fields.items() if name not in ("type", "data")}
    return Item(source_id, None, (with_rest(message, rest),))
