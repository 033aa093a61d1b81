"""Google ADK's sessions: events as messages, and changes of the state as variables over time.

A SQLite file of `SqliteSessionService`, or of `DatabaseSessionService` in its schema 1, has

    sessions(app_name, user_id, id, state, create_time, update_time)
    events(id, app_name, user_id, session_id, invocation_id, timestamp, event_data)
    app_states(app_name, state, update_time), user_states(app_name, user_id, state, update_time)

with `event_data` the JSON of an Event: author, content {role, parts}, actions {state_delta,
rewind_before_invocation_id, …}. Both are in google/adk/sessions; checked against google-adk 2.13.0.
In schema 0 the actions are pickles: such a file is refused.

A session is `APP/USER/SESSION`. Text and calls of tools become one message, each result of a tool
becomes another; what else an event says stands under `source`. What a rewind took back is a fork.
What all sessions of a user, or of an app, share is in a session `APP/USER`, or `APP`, too: whatever
changed `user:…` or `app:…` in any of theirs.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from evstore.errors import Unavailable
from evstore.transfer import tables
from evstore.transfer.branches import paths
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Message,
    Reported,
    Variable,
    json_text,
    time_us,
    tool_call,
    with_rest,
)
from evstore.transfer.tables import Tables

KEYS = ("app_name", "user_id")
BEGINNING = "session"  # the item that says that a session was created
ROLES = {"user": "user", "model": "assistant"}
SCOPES = {"user:": ("user_states", KEYS), "app:": ("app_states", KEYS[:1])}
TEMPORARY = "temp:"
CALL, RESULT = "function_call", "function_response"
WHOLE = {CALL: {"id", "name", "args"}, RESULT: {"id", "name", "response"}}

Owner = tuple[str, ...]


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield each session, right after it what was rewound, and at last what sessions share."""
    with tables.opened(path) as found:
        yield from _Sessions(found).read()


@attrs.define
class _Shared:
    """What was said of the state that an app or a user has, across sessions: only where it is."""

    names: set[str] = attrs.field(factory=set)
    events: list[tuple[int, int, str]] = attrs.field(factory=list)  # time, row, id of the item


@attrs.define
class _Tree:
    """The events of a session by id: their rows, what each follows, and what they set."""

    rows: dict[str, int] = attrs.field(factory=dict)
    parents: dict[str, str | None] = attrs.field(factory=lambda: {BEGINNING: None})
    invocations: dict[str, str | None] = attrs.field(factory=dict)  # what its first event follows
    state: dict[str, Any] = attrs.field(factory=dict)

    def add(self, name: str, row: int, event: Mapping[str, Any]) -> None:
        """Take in an event: it follows the one before it, or what a rewind leaves."""
        parent: str | None = next(reversed(self.parents))
        rewound = _actions(event).get("rewind_before_invocation_id")
        if type(rewound) is str and rewound in self.invocations:
            parent = self.invocations[rewound]
        invocation = event.get("invocation_id")
        if type(invocation) is str:
            self.invocations.setdefault(invocation, parent)
        self.rows[name], self.parents[name] = row, parent
        self.state.update(_delta(event))


class _Sessions:
    """One file: its sessions one by one, and meanwhile what they say of shared states."""

    def __init__(self, found: Tables) -> None:
        self._tables = found
        self._shared: dict[Owner, _Shared] = {}
        if not found.has("sessions", *KEYS, "id", "state") or "events" not in found.columns:
            reason = "it holds no sessions of Google ADK: name the file of its session service"
            raise Unavailable(found.path, reason)
        if not found.has("events", *KEYS, "id", "session_id", "timestamp", "event_data"):
            reason = (
                "its events hold pickles, and those are not read: bring the file to ADK's newest "
                "schema with `adk migrate session`, and import what comes of it"
            )
            raise Unavailable(found.path, reason)
        # As the two services order events of the same time.
        then = "id" if "adk_internal_metadata" in found.columns else "rowid"
        self._events_sql = (
            "select rowid from events where app_name = ? and user_id = ? and session_id = ?"
            f" order by timestamp, {then}"
        )

    def read(self) -> Iterator[Conversation | Reported]:
        for row in self._tables.numbers("select rowid from sessions order by create_time, rowid"):
            where = f"session {row}"
            sql = "select * from sessions where rowid = ?"
            fields = self._tables.row(where, sql, row)
            owner = _owner(fields, (*KEYS, "id"))
            if isinstance(fields, Reported):
                yield fields
            elif owner is None:
                yield Reported(where, "a session", "its names are no texts: repair it")
            else:
                yield from self._session(fields, owner)
        for prefix, (table, keys) in SCOPES.items():
            if self._tables.has(table, *keys, "state"):
                yield from self._scopes(prefix, table, keys)

    def _session(self, fields: dict[str, Any], owner: Owner) -> Iterator[Conversation | Reported]:
        name = _path(owner)
        tree = _Tree()
        for row in self._tables.numbers(self._events_sql, *owner):
            event = self._event(name, row)
            if isinstance(event, Reported):
                yield event
            elif event["id"] in tree.parents:
                yield Reported(name, f"event {event['id']}", "its id is that of another: repair it")
            else:
                tree.add(event["id"], row, event)
                self._note(event, row, owner)
        state = _state(name, fields["state"])
        if isinstance(state, Reported):
            yield state
            state = {}
        yield from _differing(name, state, tree.state)
        created_us = time_us(fields.get("create_time"))
        sources = [name]
        for path in paths(tree.parents, next(reversed(tree.parents))):
            parent = None
            if path.parent is not None:
                parent = sources[path.parent], path.after
                sources.append(f"{name}/{path.nodes[0]}")
            begun = {key: value for key, value in state.items() if key not in tree.state}
            items = self._items(tree, path.nodes, begun, fields)
            facts = {key: fields[key] for key in KEYS} if parent is None else {}
            yield Conversation(sources[-1], sources[-1], created_us, items, facts, parent)

    def _event(self, where: str, row: int) -> dict[str, Any] | Reported:
        """Return an event, its id and time taken from the columns where it does not tell them."""
        where = f"{where}, event in row {row}"
        sql = "select id, invocation_id, timestamp, event_data from events where rowid = ?"
        fields = self._tables.row(where, sql, row)
        if isinstance(fields, Reported):
            return fields
        event = tables.decoded(where, fields.pop("event_data"))
        if isinstance(event, Reported):
            return event
        if type(event) is not dict or type(fields["id"]) is not str:
            return Reported(where, "an event", "it is no event with an id: repair it")
        if time_us(event.get("timestamp")) is not None:
            del fields["timestamp"]
        return {**event, **fields}

    def _note(self, event: Mapping[str, Any], row: int, owner: Owner) -> None:
        """Remember where the state is changed that others share."""
        delta = _delta(event)
        for prefix, (_, keys) in SCOPES.items():
            names = [name for name in delta if name.startswith(prefix)]
            if names:
                shared = self._shared.setdefault(owner[: len(keys)], _Shared())
                shared.names.update(names)
                item = f"{_path(owner)}/{event['id']}"
                shared.events.append((time_us(event["timestamp"]) or 0, row, item))

    def _items(
        self, tree: _Tree, names: list[str], begun: dict[str, Any], fields: dict[str, Any]
    ) -> Iterator[Item | Reported]:
        for name in names:
            if name == BEGINNING:
                yield from _begun(begun)
                facts = {key: fields[key] for key in (*KEYS, "id", "create_time")}
                yield Item(BEGINNING, time_us(fields.get("create_time")), (Kept(facts),))
                continue
            event = self._event(name, tree.rows[name])
            yield event if isinstance(event, Reported) else _item(name, event)

    def _scopes(self, prefix: str, table: str, keys: Owner) -> Iterator[Conversation | Reported]:
        """Yield the state of every app, or of every user, as a session of its own."""
        for row in self._tables.numbers(f"select rowid from {table} order by rowid"):
            fields = self._tables.row(
                f"{table} {row}", f"select * from {table} where rowid = ?", row
            )
            owner = _owner(fields, keys)
            if isinstance(fields, Reported):
                yield fields
            elif owner is None:
                yield Reported(f"{table} {row}", "a state", "its names are no texts: repair it")
            else:
                yield from self._scope(prefix, owner, fields)

    def _scope(
        self, prefix: str, owner: Owner, fields: dict[str, Any]
    ) -> Iterator[Conversation | Reported]:
        name, shared = _path(owner), self._shared.pop(owner, _Shared())
        state = _state(name, fields["state"])
        if isinstance(state, Reported):
            yield state
            state = {}
        begun = {f"{prefix}{key}": value for key, value in state.items()}
        begun = {key: value for key, value in begun.items() if key not in shared.names}
        shared.events.sort()
        at = shared.events[0][0] if shared.events else time_us(fields.get("update_time"))
        items = self._changes(prefix, shared, begun, owner)
        yield Conversation(name, name, at, items, dict(zip(KEYS, owner, strict=False)))

    def _changes(
        self, prefix: str, shared: _Shared, begun: dict[str, Any], owner: Owner
    ) -> Iterator[Item | Reported]:
        yield from _begun(begun)
        yield Item(BEGINNING, None, (Kept(dict(zip(KEYS, owner, strict=False))),))
        for at, row, item in shared.events:
            event = self._event(item, row)
            if isinstance(event, Reported):
                yield event
                continue
            delta = {key: value for key, value in _delta(event).items() if key.startswith(prefix)}
            yield Item(item, at, _variables(delta), _author(event))


def _owner(fields: Any, keys: Owner) -> Owner | None:
    found = tuple(fields[key] for key in keys) if type(fields) is dict else ()
    return found if found and all(type(name) is str for name in found) else None


def _path(names: Owner) -> str:
    """Return names as one, with slashes between them and none within them."""
    return "/".join(name.replace("%", "%25").replace("/", "%2F") for name in names)


def _state(name: str, value: Any) -> dict[str, Any] | Reported:
    where = f"{name}, its state"
    state = tables.decoded(where, value)
    if isinstance(state, Reported) or type(state) is dict:
        return state
    return Reported(where, "a state", "it is no object: repair it")


def _differing(where: str, state: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Reported]:
    """Yield what is to be said where a state is not that which events have told."""
    names = [name for name in told if not name.startswith(tuple(SCOPES))]
    names = [name for name in names if name not in state or state[name] != told[name]]
    if names:
        what = f"{len(names)} variables, the first of them {names[0]!r}"
        reason = "the state is not what the events made it: what these say is recorded"
        yield Reported(where, what, reason)


def _begun(state: Mapping[str, Any]) -> Iterator[Item]:
    """Yield what no event has set, each by itself, since an event may set it later."""
    for name, value in state.items():
        yield Item(f"state:{name}", None, (Variable(name, value),))


def _actions(event: Mapping[str, Any]) -> dict[str, Any]:
    actions = event.get("actions")
    return actions if type(actions) is dict else {}


def _delta(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event sets, and keeps longer than a turn."""
    delta = _actions(event).get("state_delta")
    found = delta.items() if type(delta) is dict else ()
    return {name: value for name, value in found if not name.startswith(TEMPORARY)}


def _variables(delta: Mapping[str, Any]) -> tuple[Variable, ...]:
    return tuple(Variable(name, value) for name, value in delta.items())


def _author(event: Mapping[str, Any]) -> str | None:
    author = event.get("author")
    return author if type(author) is str and author else None


def _item(name: str, event: dict[str, Any]) -> Item:
    """Return an event as its messages and the variables that it sets."""
    delta, actions = _delta(event), _actions(event)
    rest = {key: value for key, value in event.items() if key != "timestamp"}
    messages, is_whole = _messages(event)
    if messages and is_whole:
        del rest["content"]
    if actions:
        kept = {key: value for key, value in actions.items() if value not in ({}, [], delta)}
        rest = {**rest, "actions": kept}
        if not kept:
            del rest["actions"]
    first = [with_rest(messages[0], rest)] if messages else [Kept(rest)]
    said = (*first, *map(Message, messages[1:]), *_variables(delta))
    return Item(name, time_us(event["timestamp"]), said, _author(event))


def _messages(event: Mapping[str, Any]) -> tuple[list[dict[str, Any]], bool]:
    """Return the messages that a content is, and whether they say all that it says."""
    content = event.get("content")
    fields = content if type(content) is dict else {}
    role, parts = str(fields.get("role")), fields.get("parts")
    parts = parts if type(parts) is list else []
    kinds = [_kind(part) for part in parts]
    texts = [part["text"] for part, kind in zip(parts, kinds, strict=True) if kind == "text"]
    calls = [_call(part[kind]) for part, kind in zip(parts, kinds, strict=True) if kind == CALL]
    found = [_result(part[kind]) for part, kind in zip(parts, kinds, strict=True) if kind == RESULT]
    if texts or calls or len(parts) > len(found):
        speaker = ROLES.get(role, "user" if event.get("author") == "user" else "assistant")
        message: dict[str, Any] = {"role": speaker, "content": "".join(texts)}
        found.insert(0, {**message, "tool_calls": calls} if calls else message)
    said = [{"text": "".join(texts)}] if texts else []
    said += [part for kind in (CALL, RESULT) for part in parts if _is_whole(part, kind)]
    return found, said == parts and role in ROLES and fields.keys() == {"role", "parts"}


def _kind(part: Any) -> str | None:
    """Return what a part of a content is, if it is something that messages say."""
    if type(part) is not dict or part.get("thought") is True:
        return None
    if type(part.get("text")) is str:
        return "text"
    return next((kind for kind in (CALL, RESULT) if type(part.get(kind)) is dict), None)


def _is_whole(part: Any, kind: str) -> bool:
    """Tell whether a message says all that a part does, which is a call or a result."""
    return _kind(part) == kind and part.keys() == {kind} and part[kind].keys() <= WHOLE[kind]


def _call(said: Mapping[str, Any]) -> dict[str, Any]:
    return tool_call(said.get("id"), said.get("name"), said.get("args", {}))


def _result(said: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "tool", "content": json_text(said.get("response"))}
    named = {"tool_call_id": said.get("id"), "name": said.get("name")}
    return message | {key: value for key, value in named.items() if value is not None}
