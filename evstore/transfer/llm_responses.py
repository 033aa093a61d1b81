"""llm's older layout: each response is logged with its prompt, and belongs to a conversation.

    conversations(id, name, model)
    responses(id, model, prompt, system, …, response, …, conversation_id, duration_ms, datetime_utc)
    tool_calls(id, response_id, name, arguments, tool_call_id)
    tool_results(id, response_id, name, output, tool_call_id, exception)
    prompt_fragments, system_fragments(response_id, fragment_id, "order")
    prompt_attachments(response_id, attachment_id, "order"), tool_results_attachments(…)

A prompt becomes the results of tools that it answers with, the system prompt where it is another
than before, and a message of the user; a response becomes a message of the assistant, with what
else is known of the call under `source`. A response without a conversation is one of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

from evstore.transfer import records, tables
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Message,
    Reported,
    time_us,
    tool_call,
    with_rest,
)
from evstore.transfer.llm_parts import attachment, fragment
from evstore.transfer.tables import Tables

JSON = ("prompt_json", "options_json", "response_json", "token_details")
SAID = ("id", "prompt", "system", "response", "conversation_id", "datetime_utc")
_TO_US = 1000  # from milliseconds

Row = dict[str, Any]


class Responses:
    """The responses of a file that no thread has, conversation by conversation."""

    def __init__(self, found: Tables) -> None:
        self._tables = found
        self._changed_us = records.changed_us(found.path)
        self._calls = self._by_response("tool_calls")
        self._results = self._by_response("tool_results")

    def read(self) -> Iterator[Conversation | Reported]:
        """Yield each conversation."""
        for name, rows in groupby(self._rows(), itemgetter(0)):
            if type(name) is not str:
                yield from (row for _, row in rows if isinstance(row, Reported))
                continue
            metadata = self._metadata(name)
            if isinstance(metadata, Reported):
                yield metadata
                metadata = {}
            items = self._items(row for _, row in rows)
            yield Conversation(name, name, self._changed_us, items, metadata)

    def _by_response(self, table: str) -> dict[int, list[int]]:
        """Return the rows of a table by the row of the response that they belong to."""
        found: dict[int, list[int]] = {}
        if self._tables.has(table, "response_id"):
            sql = (
                f"select r.rowid, t.rowid from {table} t join responses r on r.id = t.response_id"
                " order by t.rowid"
            )
            numbers = iter(self._tables.numbers(sql))
            for response, row in zip(numbers, numbers, strict=True):
                found.setdefault(response, []).append(row)
        return found

    def _rows(self) -> Iterator[tuple[Any, Row | Reported]]:
        """Yield the responses, each with the name of its conversation, those of one together."""
        sql = "select rowid from responses"
        if self._tables.has("turns", "id"):
            sql += " where id not in (select id from turns)"
        name = None
        for number in self._tables.numbers(f"{sql} order by coalesce(conversation_id, id), id"):
            where = f"response in row {number}"
            sql = "select rowid as row_number, * from responses where rowid = ?"
            row = self._tables.row(where, sql, number)
            if not isinstance(row, Reported):
                name = row["conversation_id"] if row["conversation_id"] is not None else row["id"]
                if type(name) is not str or type(row["id"]) is not str:
                    row = Reported(where, "a response", "it has no id in text: repair it")
            yield name, row  # one that is broken stands among those of its conversation

    def _metadata(self, name: str) -> Row | Reported:
        sql = "select count(*) as found, name, model from conversations where id = ?"
        fields = self._tables.row(name, sql, name)
        if isinstance(fields, Reported):
            return fields
        return {key: fields[key] for key in ("name", "model") if type(fields[key]) is str}

    def _items(self, rows: Iterable[Row | Reported]) -> Iterator[Item | Reported]:
        system = ""
        for row in rows:
            if isinstance(row, Reported):
                yield row
                continue
            losses: list[Reported] = []
            began_us = time_us(row.get("datetime_utc"))
            now = self._system(row, losses)
            asked = [*self._answers(row, losses), *self._asked(row, losses)]
            if now and now != system:
                asked.insert(0, Message({"role": "system", "content": now}))
                system = now
            answer = self._answer(row, losses)
            yield from losses
            if asked:
                yield Item(f"{row['id']}/prompt", began_us, tuple(asked))
            took_ms = row.get("duration_ms")
            if began_us is not None and type(took_ms) is int and took_ms >= 0:
                began_us += took_ms * _TO_US
            yield Item(row["id"], began_us, (answer,))

    def _fragments(self, table: str, row: Row, losses: list[Reported]) -> list[str]:
        if not self._tables.has(table, "response_id", "fragment_id", "order"):
            return []
        sql = f'select fragment_id from {table} where response_id = ? order by "order"'
        found = [fragment(self._tables, number) for number in self._tables.numbers(sql, row["id"])]
        losses += [text for text in found if isinstance(text, Reported)]
        return [text for text in found if not isinstance(text, Reported)]

    def _system(self, row: Row, losses: list[Reported]) -> str:
        texts = [*self._fragments("system_fragments", row, losses), _text(row.get("system"))]
        return "\n\n".join(text.strip() for text in texts if text.strip())

    def _asked(self, row: Row, losses: list[Reported]) -> list[Message]:
        """Return the message of the user, if the prompt has one."""
        texts = [*self._fragments("prompt_fragments", row, losses), _text(row["prompt"])]
        attached = self._attached("prompt_attachments", "response_id", row["id"], losses)
        text = "\n".join(text for text in texts if text)
        if not text and not attached:
            return []
        rest = {"attachments": attached} if attached else {}
        return [with_rest({"role": "user", "content": text}, rest)]

    def _answers(self, row: Row, losses: list[Reported]) -> Iterator[Message]:
        """Yield the results of tools that a prompt gives back."""
        for number in self._results.get(row["row_number"], ()):
            where = f"tool_results {number}"
            fields = self._tables.row(where, "select * from tool_results where rowid = ?", number)
            if isinstance(fields, Reported):
                losses.append(fields)
                continue
            message = {"role": "tool", "content": fields.get("output")}
            for key in ("tool_call_id", "name"):
                if fields.get(key) is not None:
                    message[key] = fields[key]
            rest = {"exception": fields["exception"]} if fields.get("exception") else {}
            attached = self._attached("tool_results_attachments", "tool_result_id", number, losses)
            if attached:
                rest["attachments"] = attached
            yield with_rest(message, rest)

    def _attached(self, table: str, key: str, of: Any, losses: list[Reported]) -> list[Row]:
        if not self._tables.has(table, key, "attachment_id", "order"):
            return []
        sql = (
            f"select a.rowid from {table} t join attachments a on a.id = t.attachment_id"
            f' where t.{key} = ? order by t."order"'
        )
        found = [attachment(self._tables, number) for number in self._tables.numbers(sql, of)]
        losses += [loss for _, loss in found if loss is not None]
        return [told for told, _ in found]

    def _answer(self, row: Row, losses: list[Reported]) -> Message:
        """Return the message of the assistant, and what else is known of the call beside it."""
        message: Row = {"role": "assistant", "content": _text(row["response"])}
        calls = []
        for number in self._calls.get(row["row_number"], ()):
            where = f"tool_calls {number}"
            fields = self._tables.row(where, "select * from tool_calls where rowid = ?", number)
            if isinstance(fields, Reported):
                losses.append(fields)
            else:
                calls.append(_call(fields))
        if calls:
            message["tool_calls"] = calls
        said = (*SAID, "row_number")
        rest = {key: value for key, value in row.items() if key not in said and value is not None}
        for key in JSON:
            if type(rest.get(key)) is str:
                value = tables.decoded(f"response {row['id']}, {key}", rest[key])
                rest[key] = rest[key] if isinstance(value, Reported) else value
        return with_rest(message, {"id": row["id"], **rest})


def _call(fields: Mapping[str, Any]) -> Row:
    return tool_call(fields.get("tool_call_id"), fields.get("name"), fields.get("arguments"))


def _text(value: Any) -> str:
    return value if type(value) is str else ""
