"""The layout of exported lines: what each line says, and what no line may say.

A line is one JSON object in UTF-8. The first is the header and the last counts the batches, so that
an export that was cut off can be told from a whole one:

    {"evstore":1}
    {"birth":UID,"id":TEXT,"created":TIME,"parent":UID,"fork":SEQ,"salt":HEX}
    {"batch":UID,"first":SEQ,"time":TIME,"actor":TEXT,"cause":TEXT,"key":TEXT,"link":HEX,
     "events":[…]}
    {"end":COUNT}

A birth stands right before the first batch of its life. A UID has 32 hexadecimal digits, a salt
32, a link and a leaf 64; a TIME is in µs since 1970. An event of a batch is

    {"kind":TEXT,"version":NUMBER,"name":TEXT,"data":TEXT,"salt":HEX}

where data is the text as it is stored, to the byte. Once forgotten it is `kind`, `version` and
`leaf`, and a forgotten birth has `leaf` where `id` and `salt` were. What is absent is left out;
nothing else may stand there, because it would be lost. Exports may be joined end to end.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from evstore.chain import Batch, Birth, Entry
from evstore.errors import FromTheFuture, Refused
from evstore.events import TIME_US_MAX
from evstore.limits import Limits

VERSION = 1
_SEQ_MAX = (1 << 32) - 1
_VERSION_MAX = (1 << 31) - 1
_COUNT_MAX = 1 << 62
_UID_BYTES, _SALT_BYTES, _HASH_BYTES = 16, 16, 32
# A store with wider limits may have written it: what is recorded keeps its length here.
_NAMES = Limits(name_bytes_max=1 << 30, session_id_characters_max=1 << 30)

HEADER = orjson.dumps({"evstore": VERSION}) + b"\n"


def end_line(batches: int) -> bytes:
    """Return the last line of an export of so many batches."""
    return orjson.dumps({"end": batches}) + b"\n"


def batch_lines(batch: Batch) -> Iterator[bytes]:
    """Yield the line of a batch, after that of the birth that comes with it."""
    if batch.birth is not None:
        yield _birth_line(batch.birth)
    said = {"actor": batch.actor, "cause": batch.cause, "key": batch.key}
    line = {
        "batch": batch.uid.hex(),
        "first": batch.first,
        "time": batch.time_us,
        **_present(said),
        "link": batch.link.hex(),
        "events": list(map(_event, batch.entries)),
    }
    yield orjson.dumps(line) + b"\n"


def _birth_line(birth: Birth) -> bytes:
    line = {
        "birth": birth.uid.hex(),
        "id": birth.id,
        "created": birth.created_us,
        "parent": birth.parent_uid and birth.parent_uid.hex(),
        "fork": birth.fork,
        "salt": birth.salt and birth.salt.hex(),
        "leaf": birth.leaf and birth.leaf.hex(),
    }
    return orjson.dumps(_present(line)) + b"\n"


def _event(entry: Entry) -> dict[str, Any]:
    if entry.text is None:
        leaf = entry.leaf and entry.leaf.hex()
        return {"kind": entry.kind, "version": entry.version, "leaf": leaf}
    return _present(
        {
            "kind": entry.kind,
            "version": entry.version,
            "name": entry.name,
            "data": entry.text.decode(),
            "salt": entry.salt and entry.salt.hex(),
        }
    )


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


class Reader:
    """Takes line after line and gives each batch once it is whole; raises Refused."""

    def __init__(self) -> None:
        self.ended = False
        self._begun = False
        self._birth: Birth | None = None
        self._batches = 0

    def read(self, line: bytes) -> Batch | None:
        """Return the batch that this line completes, or None; raises Refused, FromTheFuture."""
        try:
            fields = _Fields(orjson.loads(line))
        except (ValueError, RecursionError):
            raise Refused("it is cut off, or no JSON: export it again") from None
        if not self._begun or fields.has("evstore"):
            self._begin(fields)
        elif self.ended:
            raise Refused("it follows the last line of an export: begin with a header, or drop it")
        elif fields.has("end"):
            self._end(fields)
        elif self._birth is None and fields.has("birth"):
            self._birth = _birth(fields)
        else:
            return self._batch(fields)
        return None

    def _begin(self, fields: "_Fields") -> None:
        if not fields.has("evstore"):
            raise Refused("an export begins with a header: give it whole, from its first line")
        if self._begun and not self.ended:
            raise Refused("an export begins where the one before has no end: export that again")
        version = fields.number("evstore", _COUNT_MAX)
        if version > VERSION:
            raise FromTheFuture("what is imported", version, VERSION)
        fields.close()
        self._begun, self.ended, self._batches = True, False, 0

    def _end(self, fields: "_Fields") -> None:
        count = fields.number("end", _COUNT_MAX)
        fields.close()
        if self._birth is not None or count != self._batches:
            raise Refused(
                f"the export has {count} batches and {self._batches} came: export it again"
            )
        self.ended = True

    def _batch(self, fields: "_Fields") -> Batch:
        birth, self._birth = self._birth, None
        batch = Batch(
            uid=fields.hexadecimal("batch", _UID_BYTES),
            first=fields.number("first", _SEQ_MAX, 1),
            time_us=fields.number("time", TIME_US_MAX),
            actor=fields.name("actor"),
            cause=fields.name("cause"),
            key=fields.name("key"),
            link=fields.hexadecimal("link", _HASH_BYTES),
            entries=tuple(map(_entry, fields.items("events"))),
            birth=birth,
        )
        fields.close()
        if birth is not None and birth.uid != batch.uid:
            raise Refused("the first batch of a life follows its birth at once: export it again")
        if batch.last > _SEQ_MAX:
            raise Refused(f"a session has {_SEQ_MAX} events at most: export it again")
        self._batches += 1
        return batch


def _birth(fields: "_Fields") -> Birth:
    forgotten = fields.has("leaf")
    is_fork = fields.has("parent")
    birth = Birth(
        uid=fields.hexadecimal("birth", _UID_BYTES),
        id=None if forgotten else _NAMES.check_session_id(fields.text("id")),
        created_us=fields.number("created", TIME_US_MAX),
        parent_uid=fields.hexadecimal("parent", _UID_BYTES) if is_fork else None,
        fork=fields.number("fork", _SEQ_MAX - 1) if is_fork else None,
        salt=None if forgotten else fields.hexadecimal("salt", _SALT_BYTES),
        leaf=fields.hexadecimal("leaf", _HASH_BYTES) if forgotten else None,
    )
    fields.close()
    return birth


def _entry(value: Any) -> Entry:
    fields = _Fields(value)
    forgotten = fields.has("leaf")
    entry = Entry(
        kind=fields.text("kind"),
        version=fields.number("version", _VERSION_MAX, 1),
        name=None if forgotten else fields.name("name"),
        text=None if forgotten else fields.text("data").encode(),
        salt=None if forgotten else fields.hexadecimal("salt", _SALT_BYTES),
        leaf=fields.hexadecimal("leaf", _HASH_BYTES) if forgotten else None,
    )
    fields.close()
    return entry


class _Fields:
    """The members of one object: each is taken once, by its type, and none may be left over."""

    def __init__(self, value: Any) -> None:
        if type(value) is not dict:
            raise Refused("it holds no object where one is due: export it again")
        self._fields: dict[str, Any] = value

    def has(self, field: str) -> bool:
        return field in self._fields

    def number(self, field: str, highest: int, lowest: int = 0) -> int:
        value = self._fields.pop(field, None)
        if type(value) is not int or not lowest <= value <= highest:
            raise _unfit(field, f"a whole number from {lowest} to {highest}")
        return value

    def text(self, field: str) -> str:
        value = self._fields.pop(field, None)
        if type(value) is not str:
            raise _unfit(field, "a text")
        return value

    def name(self, field: str) -> str | None:
        return _NAMES.check_name(field, self.text(field)) if self.has(field) else None

    def hexadecimal(self, field: str, size_bytes: int) -> bytes:
        text = self.text(field)
        try:
            found = bytes.fromhex(text)
        except ValueError:
            found = b""
        if len(text) == 2 * len(found) == 2 * size_bytes:  # fromhex passes over white space.
            return found
        raise _unfit(field, f"{2 * size_bytes} hexadecimal digits")

    def items(self, field: str) -> list[Any]:
        value = self._fields.pop(field, None)
        if type(value) is not list:
            raise _unfit(field, "a list")
        return value

    def close(self) -> None:
        if self._fields:
            unknown = ", ".join(repr(name[:40]) for name in sorted(self._fields)[:3])
            raise Refused(f"it says {unknown}, which would be lost: export it again")


def _unfit(field: str, form: str) -> Refused:
    return Refused(f"{field!r} has to be {form}: export it again")
