"""The verb doctor: reads a file that may be anything, says how it does, and repairs on request."""

import os
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import apsw
import attrs
import click
from rich.text import Text

import evstore
from evstore import repair as pairing
from evstore import replay
from evstore.cli import asking, terminal
from evstore.cli.asking import JSON, PLACE
from evstore.cli.care import finding_line
from evstore.errors import EvstoreError
from evstore.sqlite import schema
from evstore.sqlite.pages import CHECKSUM_BYTES, checksum_vfs

FINDINGS_SHOWN = 20
HEADER_BYTES = 100
WAL_BYTES_MAX = 64 << 20
_MAGIC = b"SQLite format 3\0"
_OTHERS = (
    (b'{"evstore":', "an export of evstore: `evstore import` takes it in"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
)


@attrs.frozen
class Check:
    """One line of the report: what was looked at, how it is, and what was found."""

    name: str
    state: str  # "ok", "note" or "wrong"
    what: str


class Header(NamedTuple):
    """What the first hundred bytes of a SQLite file say."""

    page_bytes: int
    reserved_bytes: int
    user_version: int
    application_id: int

    @property
    def is_ours(self) -> bool:
        """Whether evstore made the file."""
        return self.application_id == schema.APPLICATION_ID


@click.command(short_help="Examine a file, whatever it is.")
@click.argument("file", type=PLACE)
@click.option(
    "--repair",
    is_flag=True,
    help="Pair calls of tools with their results again, by new events; undo takes it back.",
)
@JSON
@click.pass_context
def doctor(context: click.Context, file: Path, repair: bool, as_json: bool) -> None:
    """Examine FILE, whatever it is; exit 1 if something is wrong with it.

    Without --repair nothing is changed. With it, conversations that model APIs would refuse get
    what they lack, unless the file is damaged. No agent should be at work on it then.
    """
    in_json, is_well = asking.in_json(as_json=as_json), True
    for check in _examine(file, repairing=repair):
        is_well &= check.state != "wrong"
        if in_json:
            terminal.write(terminal.json_line(attrs.asdict(check)))
        else:
            style = {"ok": "green", "note": "yellow", "wrong": "bold red"}[check.state]
            line = Text.assemble(
                (f"{check.state:<5}", style), f"  {check.name:<13} ", terminal.harmless(check.what)
            )
            terminal.say(line)
    if not is_well:
        context.exit(1)


def _examine(path: Path, *, repairing: bool) -> Iterator[Check]:
    yield Check("versions", "ok", _versions())
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # A pipe would be waited for.
            what = f"{path} is not a regular file: give the path of a file"
            yield Check("file", "wrong", what)
            return
        with path.open("rb") as file:
            beginning = file.read(HEADER_BYTES)
    except OSError as error:
        yield Check("file", "wrong", f"{path} cannot be read: {error.strerror}")
        return
    header = _header(beginning)
    if header is None or not header.is_ours:
        yield Check("file", "wrong", _stranger(beginning, header))
        return
    yield Check("file", "ok", f"made by evstore, {terminal.size(path.stat().st_size)}")
    yield _format(header)
    yield _checksums(header)
    yield _permissions(path)
    yield _wal(path)
    if header.user_version == schema.version():
        yield from _content(path, repairing=repairing)


def _versions() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"evstore {version('evstore')}, apsw {apsw.apsw_version()}, "
        f"SQLite {apsw.sqlite_lib_version()}, Python {python}"
    )


def _header(beginning: bytes) -> Header | None:
    if len(beginning) < HEADER_BYTES or not beginning.startswith(_MAGIC):
        return None
    number = int.from_bytes
    page_bytes = number(beginning[16:18])
    return Header(
        1 << 16 if page_bytes == 1 else page_bytes,
        beginning[20],
        number(beginning[60:64]),
        number(beginning[68:72]),
    )


def _stranger(beginning: bytes, header: Header | None) -> str:
    if header is not None:
        other = f"(application id 0x{header.application_id:08x})"
        return f"a SQLite database of another program {other}, not a store: give another path"
    if not beginning:
        return "empty: evstore makes it a store when it first writes to it"
    for magic, what in _OTHERS:
        if beginning.startswith(magic):
            return f"not a store, but {what}"
    return f"no SQLite database: it begins with {beginning[:16]!r}; give another path"


def _format(header: Header) -> Check:
    ours, known = header.user_version, schema.version()
    if ours > known:
        return Check("format", "wrong", f"{ours}, and this evstore knows {known}: upgrade evstore")
    if ours < known:
        what = f"{ours}, brought to {known} when it is opened for writing: examine it again then"
        return Check("format", "note", what)
    return Check("format", "ok", f"{ours}, pages of {terminal.size(header.page_bytes)}")


def _checksums(header: Header) -> Check:
    if header.reserved_bytes == CHECKSUM_BYTES:
        if checksum_vfs():
            return Check("checksums", "ok", "on: a page that the disk changed is found when read")
        return Check("checksums", "note", "in the file, but this apsw cannot check them")
    what = "off: made by an apsw without them; export and import to have them"
    return Check("checksums", "note", what)


def _permissions(path: Path) -> Check:
    names = [name for name in (str(path), f"{path}-wal", f"{path}-shm") if os.path.exists(name)]
    modes = {os.path.basename(name): stat.S_IMODE(os.stat(name).st_mode) for name in names}
    too_open = [f"{name} ({mode:04o})" for name, mode in modes.items() if mode & 0o077]
    if too_open:
        what = f"open to others: chmod 600 {', '.join(too_open)}"
        return Check("permissions", "note", what)
    return Check("permissions", "ok", "for its owner alone")


def _wal(path: Path) -> Check:
    wal = f"{path}-wal"
    size_bytes = os.path.getsize(wal) if os.path.exists(wal) else 0
    if size_bytes > WAL_BYTES_MAX:
        what = f"{terminal.size(size_bytes)}: a reader that never ends may hold it"
        return Check("WAL", "note", what)
    return Check("WAL", "ok", terminal.size(size_bytes))


def _content(path: Path, *, repairing: bool) -> Iterator[Check]:
    checks: list[Check] = []
    try:
        with evstore.open(path, read_only=True) as store, terminal.progress("examining"):
            checks += _integrity(store)
            checks += _verified(store)
            is_sound = all(check.state == "ok" for check in checks)
            if not (repairing and is_sound):
                checks += _calls(store)
            held = store.stats()
        if repairing and is_sound:
            with evstore.open(path, create=False) as store, terminal.progress("repairing"):
                checks += _repaired(store)
        elif repairing:
            checks.append(Check("repair", "wrong", "not done, since the file is damaged"))
        sessions = terminal.counted(held.sessions, "session")
        counts = f"{sessions}, {held.ended:,} ended, {terminal.counted(held.events, 'event')}"
        checks.append(Check("content", "ok", counts))
    except EvstoreError as error:
        checks.append(Check("content", "wrong", str(error)))
    yield from checks


def _integrity(store: evstore.Store) -> Iterator[Check]:
    try:
        found = store.engine.database.ask(lambda on: on.connection.pragma("integrity_check"))
    except EvstoreError as error:
        found = str(error)
    if found == "ok":
        yield Check("pages", "ok", "SQLite's integrity check finds nothing")
    else:
        yield Check("pages", "wrong", f"SQLite's integrity check finds: {found}")


def _verified(store: evstore.Store) -> Iterator[Check]:
    count = 0
    for finding in replay.verify(store, level="full"):
        count += 1
        if count <= FINDINGS_SHOWN:
            yield Check("log", "wrong", finding_line(finding))
    if count > FINDINGS_SHOWN:
        yield Check("log", "wrong", f"{count - FINDINGS_SHOWN:,} more: see evstore verify")
    if count == 0:
        yield Check("log", "ok", "every link fits, and all that is derived from it")


def _calls(store: evstore.Store) -> Iterator[Check]:
    count = 0
    for info in store.sessions():
        for problem in pairing.unpaired(store.session(uid=info.uid).messages):
            count += 1
            if count <= FINDINGS_SHOWN:
                yield Check("calls", "wrong", f"{info.id}: {problem}")
    if count > FINDINGS_SHOWN:
        yield Check("calls", "wrong", f"{count - FINDINGS_SHOWN:,} more")
    if count:
        yield Check("calls", "note", "doctor --repair pairs them again, while no agent is at work")
    else:
        yield Check("calls", "ok", "every call of a tool has its result")


def _repaired(store: evstore.Store) -> Iterator[Check]:
    count = 0
    for info in store.sessions():
        try:
            events = pairing.repair(store.session(uid=info.uid))
        except EvstoreError as error:
            count += 1
            yield Check("calls", "wrong", f"{info.id}: not repaired: {error}")
            continue
        if events:
            count += 1
            what = f"{info.id}: paired again by {terminal.counted(len(events), 'event')}"
            yield Check("calls", "ok", what)
    if not count:
        yield Check("calls", "ok", "every call of a tool has its result")
