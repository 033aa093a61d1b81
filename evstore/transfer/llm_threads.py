"""llm's layout with threads: messages known by a hash, each after its parent, and tips of threads.

    messages(hash, parent_hash, role, provider_metadata)
    parts(id, message_hash, position, type, tool_name, text, payload)
    threads(id, name, tip_message_hash, forked_from, datetime_utc)
    turns(id, thread_id, parent_message_hash, tip_message_hash, model, …, duration_ms, datetime_utc)
    fragments(id, content), attachments(id, type, path, url, content)

A thread is the messages up to its tip. One that was forked off another is a fork of that where the
two part; what a turn ended in that is not on the way to the tip is a fork `THREAD/HASH`. Threads
that were not forked off each other are sessions by themselves, though their messages be the same.
Text and calls of tools in the parts of a message become one message, each result of a tool another;
what else the parts say stands under `source`, and so does what is known of the turn that a message
ends. A message has no time: what a turn was given has that of its beginning, what it added that of
its end.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import attrs

from evstore.transfer import records, tables
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Message,
    Reported,
    time_us,
    tool_call,
    with_rest,
)
from evstore.transfer.llm_parts import attachment, fragment
from evstore.transfer.tables import Tables

TURN_JSON = ("options_json", "token_details", "response_json")
TURN_SAID = ("thread_id", "parent_message_hash", "tip_message_hash", "datetime_utc")
CALL = {"type", "name", "arguments", "tool_call_id"}
RESULT = {"type", "name", "output", "tool_call_id"}
_TO_US = 1000  # from milliseconds

Fields = dict[str, Any]


@attrs.define
class _Way:
    """New messages of a thread one after the other, after one that is there already, or none."""

    source: str
    after: str | None
    hashes: list[str]


@attrs.define
class _Family:
    """A thread with all that was forked off it: whose each message is, and when it was said."""

    source: str
    owners: dict[str, str] = attrs.field(factory=dict)
    times_us: dict[str, int] = attrs.field(factory=dict)


class Threads:
    """The threads of a file, each before what was forked off it."""

    def __init__(self, found: Tables) -> None:
        self._tables = found
        self._changed_us = records.changed_us(found.path)

    def read(self) -> Iterator[Conversation | Reported]:
        """Yield each thread, and right after it what branches off."""
        rows: dict[str, int] = {}
        forks: dict[Any, list[str]] = {}
        for row in self._tables.numbers("select rowid from threads order by rowid"):
            thread = self._thread(row)
            if isinstance(thread, Reported):
                yield thread
            else:
                rows[thread["id"]] = row
                forks.setdefault(thread["forked_from"], []).append(thread["id"])
        done = 0
        for root in [name for origin in forks if origin not in rows for name in forks[origin]]:
            family, waiting = _Family(f"thread/{root}"), [root]
            while waiting:
                name = waiting.pop()
                waiting += reversed(forks.get(name, []))
                done += 1
                thread = self._thread(rows[name])
                if isinstance(thread, Reported):
                    yield thread
                else:
                    yield from self._conversations(thread, family)
        if done < len(rows):
            what, reason = f"{len(rows) - done} threads", "they are forks of one another: repair it"
            yield Reported("threads", what, reason)

    def _thread(self, row: int) -> Fields | Reported:
        where = f"thread in row {row}"
        thread = self._tables.row(where, "select * from threads where rowid = ?", row)
        if not isinstance(thread, Reported) and type(thread["id"]) is not str:
            return Reported(where, "a thread", "its id is no text: repair it")
        return thread

    def _conversations(self, thread: Fields, family: _Family) -> Iterator[Conversation | Reported]:
        """Yield a thread, and what its turns ended in beside it."""
        name, source = thread["id"], f"thread/{thread['id']}"
        turns: dict[Any, list[int]] = {}  # the rows of those that end in a message
        sql = "select rowid from turns where thread_id = ? order by id"
        for row in self._tables.numbers(sql, name):
            turn = self._turn(row)
            if isinstance(turn, Reported):
                yield turn
            else:
                turns.setdefault(turn["tip_message_hash"], []).append(row)
                self._tell_times(turn, family)
        losses: list[Reported] = []
        ways = [self._way(thread["tip_message_hash"], source, family, losses)]
        ways += [
            self._way(tip, "", family, losses)
            for tip in reversed(turns)
            if type(tip) is str and tip not in family.owners
        ]
        yield from losses
        new = {message for way in ways for message in way.hashes}
        elsewhere = [row for tip, rows in turns.items() if tip not in new for row in rows]
        session_id = self._session_id(name)
        for number, way in enumerate(ways):
            items = self._messages(way, turns, family)
            metadata, parent = {}, None
            if number or source != family.source:
                parent = family.owners.get(way.after or "", family.source), way.after
            elif type(thread.get("name")) is str:
                metadata = {"name": thread["name"]}
            if not number:
                items = chain(self._front(thread, elsewhere, is_fork=parent is not None), items)
            new_id = f"{session_id}/{way.hashes[0]}" if number else session_id
            facts = (self._changed_us, items, metadata, parent, parent is not None)
            yield Conversation(new_id, way.source, *facts)

    def _session_id(self, name: str) -> str:
        """Return the id of a thread, of which the older layout may have the beginning."""
        if self._tables.has("responses", "id", "conversation_id"):
            sql = (
                "select count(*) from responses"
                " where conversation_id = ? and id not in (select id from turns)"
            )
            if self._tables.numbers(sql, name)[0]:
                return f"{name}/thread"
        return name

    def _turn(self, row: int) -> Fields | Reported:
        where = f"turn in row {row}"
        return self._tables.row(where, "select * from turns where rowid = ?", row)

    def _tell_times(self, turn: Fields, family: _Family) -> None:
        """Note when the messages were said that came with a turn."""
        at = time_us(turn.get("datetime_utc"))
        if at is None:
            return
        took_ms = turn.get("duration_ms")
        is_answer, took_us = True, took_ms * _TO_US if type(took_ms) is int and took_ms > 0 else 0
        message = turn["tip_message_hash"]
        while type(message) is str and message not in family.times_us:
            is_answer = is_answer and message != turn["parent_message_hash"]
            family.times_us[message] = at + took_us if is_answer else at
            message = self._parent(message)

    def _parent(self, message: str) -> Any:
        """Return what a message follows, as far as can be told."""
        sql = "select parent_hash from messages where hash = ?"
        fields = self._tables.row(message, sql, message)
        return None if isinstance(fields, Reported) else fields["parent_hash"]

    def _way(self, tip: Any, source: str, family: _Family, losses: list[Reported]) -> _Way:
        """Return the way to a message from the last before it that is in the family."""
        hashes: dict[str, None] = {}
        message = tip
        while type(message) is str and message not in family.owners and message not in hashes:
            hashes[message] = None
            message = self._parent(message)
        if message in hashes:
            where = f"message {message}"
            losses.append(Reported(where, "a message", "it follows itself: repair it"))
            message = None
        way = _Way(source, message if type(message) is str else None, list(reversed(hashes)))
        way.source = source or f"{family.source}/{way.hashes[0]}"
        family.owners.update(dict.fromkeys(way.hashes, way.source))
        return way

    def _front(
        self, thread: Fields, elsewhere: list[int], *, is_fork: bool
    ) -> Iterator[Item | Reported]:
        """Yield what a thread that was forked is, and turns that end in no message of it."""
        if is_fork:
            kept = {key: value for key, value in thread.items() if key != "tip_message_hash"}
            yield Item(f"thread:{thread['id']}", time_us(thread.get("datetime_utc")), (Kept(kept),))
        for row in elsewhere:
            turn = self._turn(row)
            if isinstance(turn, Reported):
                yield turn
            else:
                yield Item(f"turn:{turn['id']}", time_us(turn.get("datetime_utc")), (Kept(turn),))

    def _messages(
        self, way: _Way, turns: Mapping[Any, list[int]], family: _Family
    ) -> Iterator[Item | Reported]:
        for name in way.hashes:
            losses: list[Reported] = []
            where = f"message {name}"
            sql = "select role, provider_metadata from messages where hash = ?"
            fields = self._tables.row(where, sql, name)
            if isinstance(fields, Reported):
                yield fields
                continue
            parts = self._parts(name, losses)
            rest: Fields = {}
            if fields["provider_metadata"]:
                rest["provider_metadata"] = _json(where, fields["provider_metadata"])
            told = [self._turn(row) for row in turns.get(name, ())]
            if told:
                rest["turns"] = [_told(turn) for turn in told if not isinstance(turn, Reported)]
            yield from losses
            yield Item(name, family.times_us.get(name), _said(fields["role"], parts, rest))

    def _parts(self, message: str, losses: list[Reported]) -> list[Fields]:
        """Return the parts of a message as llm writes them in JSON: with the text of fragments."""
        parts = []
        sql = "select rowid from parts where message_hash = ? order by position"
        for row in self._tables.numbers(sql, message):
            where = f"message {message}, part in row {row}"
            sql = "select type, text, payload from parts where rowid = ?"
            fields = self._tables.row(where, sql, row)
            payload = (
                {} if isinstance(fields, Reported) else _json(where, fields["payload"] or "{}")
            )
            if isinstance(fields, Reported):
                losses.append(fields)
            elif type(payload) is not dict:
                losses.append(Reported(where, "a part", "its payload is no object: repair it"))
            else:
                part = {**payload, "type": fields["type"]}
                if fields["text"] is not None:
                    part["text"] = fields["text"]
                self._resolve(part, losses)
                parts.append(part)
        return parts

    def _resolve(self, part: Fields, losses: list[Reported]) -> None:
        """Put texts and files in the place of what refers to them."""
        pieces = part.pop("text_ref", None)
        if type(pieces) is list:
            part["text"] = "".join(self._text(piece, losses) for piece in pieces)
        if "attachment" in part:
            part["attachment"] = self._attachment(part["attachment"], losses)
        if type(part.get("attachments")) is list:
            part["attachments"] = [self._attachment(each, losses) for each in part["attachments"]]

    def _text(self, piece: Any, losses: list[Reported]) -> str:
        text: Any = piece.get("literal") if type(piece) is dict else None
        if text is None and type(piece) is dict and type(piece.get("fragment")) is int:
            text = fragment(self._tables, piece["fragment"])
        if type(text) is str:
            return text
        if not isinstance(text, Reported):
            text = Reported("a part", "a piece of its text", "it is none: repair it")
        losses.append(text)
        return ""

    def _attachment(self, reference: Any, losses: list[Reported]) -> Any:
        name = reference.get("id") if type(reference) is dict else None
        sql = "select rowid from attachments where id = ?"
        rows = self._tables.numbers(sql, name) if type(name) is str else []
        if not rows:
            losses.append(Reported(f"attachment {name}", "a file", "it is not there: repair it"))
            return reference
        told, loss = attachment(self._tables, rows[0])
        losses += [] if loss is None else [loss]
        return told


def _json(where: str, text: Any) -> Any:
    """Return the value of a JSON text, or what stands there instead."""
    value = tables.decoded(where, text)
    return text if isinstance(value, Reported) else value


def _told(turn: Fields) -> Fields:
    """Return what is known of a turn beside its messages and its time."""
    told = {key: value for key, value in turn.items() if key not in TURN_SAID and value is not None}
    for key in TURN_JSON:
        if key in told:
            told[key] = _json(key, told[key])
    return told


def _said(role: Any, parts: list[Fields], rest: Fields) -> tuple[Message | Kept, ...]:
    """Return the messages that a message of llm is, the first with what they do not say."""
    if type(role) is not str:
        return (Kept({"role": role, "parts": parts, **rest}),)
    texts = [part["text"] for part in parts if _is(part, "text") and type(part.get("text")) is str]
    calls = [part for part in parts if _is(part, "tool_call")]
    results = [part for part in parts if _is(part, "tool_result")]
    found = [_result(part) for part in results]
    if texts or calls or len(parts) > len(results) or not parts:
        message: Fields = {"role": role, "content": "".join(texts)}
        if calls:
            message["tool_calls"] = [_call(part) for part in calls]
        found.insert(0, message)
    said: list[Fields] = [{"type": "text", "text": "".join(texts)}] if texts else []
    said += [part for part in calls if part.keys() <= CALL]
    said += [part for part in results if part.keys() <= RESULT]
    if said != parts:
        rest = {"parts": parts, **rest}
    return (with_rest(found[0], rest), *map(Message, found[1:]))


def _is(part: Mapping[str, Any], kind: str) -> bool:
    return bool(part["type"] == kind)


def _call(part: Mapping[str, Any]) -> Fields:
    return tool_call(part.get("tool_call_id"), part.get("name"), part.get("arguments", {}))


def _result(part: Mapping[str, Any]) -> Fields:
    message = {"role": "tool", "content": part.get("output")}
    named = {key: part[key] for key in ("tool_call_id", "name") if part.get(key) is not None}
    return {**message, **named}
