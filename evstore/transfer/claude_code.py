"""Claude Code's transcripts: what parentUuid links is a session, with its branches as forks.

A file `SESSION.jsonl`, or a folder of them (`~/.claude/projects`; what lies in `subagents` and
`tool-results` is passed over), has one record on each line:

    {"type": "user" | "assistant" | …, "uuid", "parentUuid": UUID or null, "timestamp", "sessionId",
     "cwd", "version", "gitBranch", "isSidechain", "message": {"role", "content", …}, …}

Its makers call the format internal and changing; checked against what others found in files up to
November 2026 (skillsynchq/txcript, microsoft/amplifier). The session is the path to the last
message. A record without a parent before it, as after a compaction, follows the one before it.
Results of tools that were called at once, and records without a message, hang beside the path: they
are no branches, but stand in it in the order of the file. What a subagent said, a sidechain, is a
session of its own, with `sidechain_of` in its metadata. A message keeps the rest of its record
under `source`; every other line is kept whole.
"""

import os
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import attrs

from evstore.transfer import records
from evstore.transfer.branches import Path, paths
from evstore.transfer.conversations import (
    Conversation,
    Item,
    Kept,
    Reported,
    is_message,
    time_us,
    with_rest,
)

METADATA = ("cwd", "gitBranch", "version")
PASSED_OVER = ("subagents", "tool-results")
SUFFIX = ".jsonl"


def read(path: str) -> Iterator[Conversation | Reported]:
    """Yield the session of each file, its branches and its sidechains."""
    if os.path.isdir(path):
        yield from records.of_each(_files(path), _in_file)
    else:
        yield from _in_file(path)


def _in_file(path: str) -> Iterator[Conversation | Reported]:
    return _Transcript(path).read()


def _files(path: str) -> Iterator[str]:
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in PASSED_OVER)
        yield from (os.path.join(folder, name) for name in sorted(names) if name.endswith(SUFFIX))


class _Place(NamedTuple):
    """Where a line is, and the uuid under which it is known, if any: what is kept in memory."""

    number: int
    offset: int
    uuid: str | None


@attrs.define
class _Node:
    """A record that others can follow, and the lines of other kinds that come right after it."""

    lines: list[_Place]
    speaks: bool  # it has a message
    joins: bool  # beside a path, it is still no branch


@attrs.define
class _Tree:
    """The records of a session, or of one sidechain, in the order of the file."""

    metadata: dict[str, Any]
    created_us: int
    nodes: dict[str, _Node] = attrs.field(factory=dict)
    parents: dict[str, str | None] = attrs.field(factory=dict)


class _Transcript:
    """One file: read once for its links, and then again, line by line, for what it says."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stem = records.stem(path)
        self._changed_us = records.changed_us(path)
        self._main = _Tree({}, self._changed_us)
        self._sidechains: dict[str, _Tree] = {}
        self._tree_of: dict[str, _Tree] = {}
        self._answers: set[str] = set()  # ids of the assistant's messages, which take several lines

    def read(self) -> Iterator[Conversation | Reported]:
        front: list[_Place] = []
        last = front
        for line in records.lines(self._path):
            if isinstance(line, Reported):
                yield attrs.evolve(line, where=f"{self._stem}, {line.where}")
                continue
            uuid = line.value.get("uuid") if type(line.value) is dict else None
            if type(uuid) is not str or uuid in self._tree_of:
                last.append(_Place(line.number, line.offset, None))
            else:
                last = [_Place(line.number, line.offset, uuid)]
                self._note(uuid, line.value, last)
        is_alone = not self._main.nodes and len(self._sidechains) == 1
        if self._main.nodes or (front and not is_alone):
            yield from self._conversations(self._main, self._stem, front)
        for root, tree in self._sidechains.items():
            name = self._stem if is_alone else f"{self._stem}/sidechain-{root}"
            yield from self._conversations(tree, name, front if is_alone else [])

    def _note(self, uuid: str, record: dict[str, Any], lines: list[_Place]) -> None:
        """Take in the links of a record."""
        named = [record.get(name) for name in ("parentUuid", "logicalParentUuid")]
        parents = [name for name in named if type(name) is str and name in self._tree_of]
        if record.get("isSidechain") is True:
            parents = [name for name in parents if self._tree_of[name] is not self._main]
            if not parents:
                self._sidechains[uuid] = _Tree(
                    {"sidechain_of": record.get("sessionId")}, self._changed_us
                )
            tree = self._tree_of[parents[0]] if parents else self._sidechains[uuid]
        else:
            tree = self._main
            parents = [name for name in parents if self._tree_of[name] is tree]
            parents = parents or list(islice(reversed(tree.nodes), 1))
        self._tree_of[uuid] = tree
        message = record.get("message")
        tree.nodes[uuid] = _Node(lines, is_message(message), self._joins(message))
        tree.parents[uuid] = parents[0] if parents else None
        at = time_us(record.get("timestamp"))
        tree.created_us = tree.created_us if at is None else min(at, tree.created_us)
        for name in METADATA:
            if type(record.get(name)) is str:
                tree.metadata.setdefault(name, record[name])

    def _joins(self, message: Any) -> bool:
        """Tell whether a record is a part of the step before it: a result, or more of an answer."""
        if not is_message(message):
            return True
        answer, content = message.get("id"), message.get("content")
        if type(answer) is str:
            joins = answer in self._answers
            self._answers.add(answer)
            return joins
        return type(content) is list and any(
            type(block) is dict and block.get("type") == "tool_result" for block in content
        )

    def _conversations(
        self, tree: _Tree, name: str, front: list[_Place]
    ) -> Iterator[Conversation | Reported]:
        """Yield a session and its branches; what is no branch is woven into where it hangs."""
        speaking = (uuid for uuid in reversed(tree.nodes) if tree.nodes[uuid].speaks)
        tip = next(speaking, None) or next(reversed(tree.nodes), "")
        found = list(paths(tree.parents, tip))
        places: list[list[_Place]] = [list(front)]
        targets: list[int] = []
        for number, path in enumerate(found):
            nodes = [tree.nodes[uuid] for uuid in path.nodes]
            joins = path.parent is not None and all(node.joins for node in nodes)
            targets.append(targets[path.parent or 0] if joins else number)
            places.append([])
            places[targets[number]] += chain.from_iterable(node.lines for node in nodes)
        for number in dict.fromkeys(targets or [0]):
            path = found[number] if found else Path(None, None, [])
            source, parent = name, None
            if path.parent is not None:
                at = targets[path.parent]
                source = f"{name}/{path.nodes[0]}"
                parent = (f"{name}/{found[at].nodes[0]}" if at else name, path.after)
            facts = tree.metadata if parent is None else {}
            items = self._items(sorted(places[number]))
            yield Conversation(source, source, tree.created_us, items, facts, parent)

    def _items(self, places: list[_Place]) -> Iterator[Item | Reported]:
        lines = records.lines_at(self._path, (place.offset for place in places))
        for place, line in zip(places, lines, strict=True):
            if isinstance(line, Reported):
                yield attrs.evolve(line, where=f"{self._stem}, line {place.number}")
            else:
                yield _item(place, line.value)


def _item(place: _Place, record: Any) -> Item:
    """Return a line as an item; one that cannot be followed is known by its number."""
    fields = record if type(record) is dict else {}
    at = time_us(fields.get("timestamp"))
    message: Any = fields.get("message")
    if place.uuid is None or not is_message(message):
        return Item(place.uuid or f"line-{place.number}", at, (Kept(record),))
    said = {"message"} if at is None else {"message", "timestamp"}
    rest = {name: value for name, value in fields.items() if name not in said}
    return Item(place.uuid, at, (with_rest(message, rest),))
