"""A file that is not a sound store of ours is told apart, left as it is, and never misread."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
import zstandard

import evstore
import evstore.replay
from evstore.errors import (
    BadFile,
    Corrupt,
    EvstoreError,
    FromTheFuture,
    NotAStore,
    ReadOnly,
    Unavailable,
)
from evstore.sqlite import files, payload, schema
from tests.crash.audit import presents
from tests.crash.inspection import scratch

FLIPS = 300


@pytest.fixture
def path(tmp_path):
    """A small store that was closed cleanly."""
    path = tmp_path / "store.db"
    with evstore.open(path) as store:
        session = store.session("a")
        session.variables["short"] = 1
        session.variables["long"] = "far away " * 100
        session.messages.append({"role": "user", "content": "hello"})
        session.fork("b").variables["short"] = 2
    return path


def shell(path: Path, *statements: str, vfs: str = "cksmvfs") -> list[str]:
    """What happens to each statement in an SQLite shell, with page checksums or without."""
    connection = apsw.Connection(str(path), vfs=vfs)
    results = []
    for statement in statements:
        try:
            connection.execute(statement).fetchall()
            results.append("done")
        except apsw.Error as error:
            results.append(type(error).__name__)
    connection.close()
    return results


def refused(path: Path, cls: type[EvstoreError], **how: object) -> EvstoreError:
    """The error with which opening is refused, after checking that nothing was written for it."""
    before = contents(path.parent)
    with pytest.raises(cls) as caught:
        evstore.open(path, **how)  # type: ignore[arg-type]
    assert cls is caught.type
    after = contents(path.parent)
    if how.get("read_only"):  # SQLite leaves an empty log where it may not write.
        assert not after.pop(f"{path.name}-wal", b"")
        after.pop(f"{path.name}-shm", None)
        for companion in ("-wal", "-shm"):
            if f"{path.name}{companion}" not in before:
                path.with_name(path.name + companion).unlink(missing_ok=True)
    assert before == after
    return caught.value


def contents(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold."""
    return {found.name: found.read_bytes() for found in folder.iterdir() if found.is_file()}


def everything(path: Path) -> object:
    """All that can be read from a store."""
    with evstore.open(path, read_only=True) as store:
        return presents(store), store.search("hello"), store.engine.changes(0, 10_000)


# What is no store at all.


def test_an_empty_file_is_created_only_where_asked(tmp_path):
    """An empty file becomes a store, unless the caller forbids to create one or only reads."""
    path = tmp_path / "store.db"
    path.touch()
    refused(path, NotAStore, create=False)
    refused(path, NotAStore, read_only=True)
    evstore.open(path).close()
    evstore.open(path, create=False).close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("size", [1, 15, 16, 99, 100, 512, 4096, 100_000])
def test_garbage_is_not_a_store(tmp_path, size, read_only):
    """Random bytes of any length, and text, are NotAStore and stay as they are."""
    for content in (random.Random(size).randbytes(size), (b"Dear diary, " * size)[:size]):
        path = tmp_path / "store.db"
        path.write_bytes(content)
        refused(path, NotAStore, read_only=read_only)


@pytest.mark.parametrize("journal_mode", ["delete", "wal"])
def test_the_database_of_another_program_is_not_a_store(tmp_path, journal_mode):
    """An SQLite file without our mark is NotAStore, whatever it holds, and stays as it is."""
    path = tmp_path / "store.db"
    shell(path, f"pragma journal_mode={journal_mode}", "create table notes(text)", vfs="unix")
    refused(path, NotAStore)
    refused(path, NotAStore, read_only=True)
    shell(path, "drop table notes", "pragma application_id=7", vfs="unix")
    refused(path, NotAStore)


def test_a_newer_format_is_from_the_future(path):
    """A file that a newer evstore wrote says so, with both versions."""
    shell(path, "pragma user_version=99")
    error = refused(path, FromTheFuture)
    assert isinstance(error, FromTheFuture)
    assert (99, schema.version()) == (error.file_version, error.known_version)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("drop table variable", "variable"),
        ("drop table checkpoint", "checkpoint"),
        ("drop table event", "event"),
        ("drop trigger event_frozen", "event_frozen"),
        ("drop index batch_key", "batch_key"),
        ("drop view messages", "messages"),
        ("drop table search", "search"),
        ("alter table follower add column extra text", "follower"),
        ("create table extra(text)", "extra"),
        ("create view extra as select 1", "extra"),
        ("create index extra on event(kind)", "extra"),
        ("create trigger extra after insert on event begin select 1; end", "extra"),
        ("create trigger sqlitexstat after insert on event begin select 1; end", "sqlitexstat"),
    ],
)
def test_another_schema_is_damage(path, statement, name):
    """A missing, changed or added table, index, view or trigger is Corrupt, and is named."""
    assert ["done"] == shell(path, statement)
    assert name in str(refused(path, Corrupt))
    assert name in str(refused(path, Corrupt, read_only=True))


def test_statistics_are_no_damage(path):
    """What ANALYZE leaves behind does no harm."""
    before = everything(path)
    assert ["done"] == shell(path, "analyze")
    assert before == everything(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_damage(path, share):
    """A file that was cut off is Corrupt at the latest when it is read, or is no store any more."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadFile):
        everything(path)


# Places where no store can be.


def test_what_is_no_file_is_unavailable(tmp_path):
    """A folder, a pipe, a socket and a device are Unavailable, without waiting for anyone."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("pipe", "folder", "socket", "/dev/null"):
            with pytest.raises(Unavailable, match="not a regular file"):
                evstore.open(tmp_path / name)


def test_what_is_not_there_is_unavailable(tmp_path):
    """A missing folder is never made, and a missing file only where that is allowed."""
    refused(tmp_path / "store.db", Unavailable, create=False)
    refused(tmp_path / "store.db", Unavailable, read_only=True)
    with pytest.raises(Unavailable, match="create it first"):
        evstore.open(tmp_path / "missing" / "store.db")
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_file_without_permission_is_unavailable(path, mode):
    """A file that its user may not write is Unavailable for writing, and stays as it is."""
    code = """
import os, sys, evstore
from evstore.errors import Unavailable
path, mode = sys.argv[1:]
evstore.open(path).close()  # Another user may not be able to import anything.
os.chmod(path, int(mode))
os.chmod(os.path.dirname(path), 0o555)
if os.geteuid() == 0:
    os.chown(path, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
for read_only in (False, True):
    try:
        evstore.open(path, read_only=read_only).close()
    except Unavailable:
        print("Unavailable")
    else:
        print("open")
"""
    with scratch() as folder:
        content = path.read_bytes()
        copy = Path(folder) / "folder" / "store.db"
        copy.parent.mkdir()
        copy.write_bytes(content)
        Path(folder).chmod(0o755)
        command = [sys.executable, "-c", code, str(copy), str(mode)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        expected = ["Unavailable", "Unavailable" if mode == 0 else "open"]
        assert expected == found.stdout.split(), found.stderr
        copy.chmod(0o600)
        copy.parent.chmod(0o700)
        assert ["store.db"] == os.listdir(copy.parent)
        assert content == copy.read_bytes()


def test_a_read_only_medium_can_be_read(path, tmp_path):
    """On a read-only file system a store opens for reading, and nothing else."""
    with read_only_copy(path, tmp_path / "medium") as medium:
        found = medium / "store.db"
        assert everything(path) == everything(found)
        with pytest.raises((Unavailable, ReadOnly)):
            evstore.open(found)


def test_a_read_only_medium_with_a_log_left_is_unavailable(path, tmp_path):
    """Where a log was left behind that cannot be folded in, the file is not read without it."""
    store = evstore.open(path)
    store.session("a").variables["short"] = 3
    try:
        with (
            read_only_copy(path, tmp_path / "medium") as medium,
            pytest.raises(Unavailable, match="not closed cleanly"),
        ):
            evstore.open(medium / "store.db", read_only=True)
    finally:
        store.close()


def test_a_medium_that_is_written_to_after_all_is_read_anew(path, tmp_path):
    """A reader of a read-only medium sees what others write once they may, and what it writes."""
    code = "import sys, evstore; evstore.open(sys.argv[1]).session('a').variables['short'] = 98"
    with read_only_copy(path, tmp_path / "medium") as medium:
        found = medium / "store.db"
        with evstore.open(found, read_only=True) as reader:
            before = reader.session("a").head
            subprocess.run(["mount", "-o", "remount,rw", str(medium)], check=True)
            subprocess.run([sys.executable, "-c", code, str(found)], check=True)
            assert (98, before + 1) == (
                reader.session("a").variables["short"],
                reader.session("a").head,
            )
            with evstore.open(found) as store:
                store.session("a").variables["short"] = 99
                assert 99 == store.session("a").variables["short"]
            assert 99 == reader.session("a").variables["short"]


class read_only_copy:  # noqa: N801 - it is used like a function
    """A read-only file system that holds copies of a store and its log."""

    def __init__(self, path: Path, medium: Path) -> None:
        self._path, self._medium = path, medium

    def __enter__(self) -> Path:
        self._medium.mkdir()
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(self._medium)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a read-only file system needs the rights of root")
        for name in ("store.db", "store.db-wal"):
            if (self._path.parent / name).exists():
                command = ["cp", str(self._path.parent / name), str(self._medium / name)]
                subprocess.run(command, check=True)
        subprocess.run(["mount", "-o", "remount,ro", str(self._medium)], check=True)
        return self._medium

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._medium)], check=True)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/", "ext4"),
        ("/data", "nfs4"),
        ("/data/agents", "nfs4"),
        ("/database", "ext4"),
        ("/data/local", "xfs"),
        ("/media/a b/c", "fuse.sshfs"),
        ("/media/disk", "fuseblk"),
    ],
)
def test_the_file_system_of_a_folder_is_known(folder, expected):
    """The innermost mount that holds a folder tells its file system, with any name."""
    mounts = (
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "22 21 0:40 / /data rw - nfs4 server:/data rw\n"
        "23 22 8:2 / /data/local rw shared:2 master:1 - xfs /dev/vdb rw\n"
        "24 21 0:41 / /media/a\\040b rw - fuse.sshfs host: rw\n"
        "25 21 8:3 / /media/disk rw - fuseblk /dev/vdc rw\n"
    )
    assert expected == files.file_system(folder, mounts)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/Applications", "apfs"),
        ("/Volumes/team share/agents", "smbfs"),
        ("/Volumes/team", "apfs"),
        ("/System/Volumes/Data/x", "apfs"),
        ("/Network/home", "nfs"),
    ],
)
def test_the_file_system_of_a_folder_is_known_on_macos(folder, expected):
    """What mount(8) prints on macOS tells the same."""
    mounts = (
        "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)\n"
        "devfs on /dev (devfs, local, nobrowse)\n"
        "/dev/disk3s5 on /System/Volumes/Data (apfs, local, journaled, nobrowse)\n"
        "//me@server/team%20share on /Volumes/team share (smbfs, nodev, nosuid)\n"
        "server:/home on /Network/home (nfs)\n"
    )
    assert expected == files.file_system(folder, mounts)


def test_a_machine_without_a_table_of_mounts_is_trusted(monkeypatch):
    """Where nobody can tell the file system, the locks of SQLite have to."""
    monkeypatch.setattr(files, "_MOUNTS", "/nowhere")
    assert "" == files.file_system("/data", files._mounts())


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        *[(kind, False) for kind in ("nfs4", "cifs", "smb3", "9p", "fuse.sshfs")],
        *[(kind, True) for kind in ("ext4", "xfs", "fuseblk", "overlay", "tmpfs")],
    ],
)
def test_network_file_systems_are_unsupported(tmp_path, monkeypatch, kind, allowed):
    """A store on a network file system is refused before anything is created there."""
    monkeypatch.setattr(files, "_mounts", lambda: f"21 1 8:1 / / rw - {kind} disk rw\n")
    if allowed:
        evstore.open(tmp_path / "store.db").close()
        return
    with pytest.raises(evstore.errors.Unsupported, match=kind):
        evstore.open(tmp_path / "store.db")
    assert [] == os.listdir(tmp_path)


# Payloads that lie.


def rewrite(path: Path, changes: str, *bound: object) -> None:
    """Change the long value of a store as only someone with a shell can, past the triggers."""
    connection = apsw.Connection(str(path), vfs="cksmvfs")
    triggers = connection.execute("select name, sql from sqlite_schema where type = 'trigger'")
    kept = triggers.fetchall()
    for name, _ in kept:
        connection.execute(f"drop trigger {name}")
    connection.execute(f"update event set {changes} where name = 'long'", bound)
    for _, statement in kept:
        connection.execute(str(statement))
    connection.close()


BOMB = zstandard.ZstdCompressor().compress(bytes(200_000_000))


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ("data = ?", (BOMB,)),
        ("data = ?, size = 100", (BOMB,)),
        ("data = ?", (zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 900),)),
        ("data = x'28b52ffd'", ()),
        ("data = x''", ()),
        ("data = null", ()),
        ("size = size + 1", ()),
        ("size = -1", ()),
        ("size = 1 << 40", ()),
        ("encoding = 0", ()),
        ("encoding = 2, delta = 2", ()),
        ("encoding = 2, delta = 99", ()),
        ("encoding = 2, delta = -1", ()),
        ("encoding = 1, data = 'text'", ()),
        ("kind = 99", ()),
    ],
)
def test_a_payload_that_lies_is_damage(path, changes, bound):
    """Compressed data that is not what was recorded is Corrupt, and is not expanded."""
    rewrite(path, changes, *bound)
    with pytest.raises(Corrupt):
        everything(path)
    with evstore.open(path) as store:
        assert [] != list(evstore.replay.verify(store, level="chain"))


def test_an_honest_bomb_is_bounded():
    """What is expanded is never larger than what was recorded, and what is recorded has a limit."""
    with pytest.raises(Corrupt):
        payload.expand(BOMB, payload.SIZE_BYTES_MAX + 1)
    with pytest.raises(Corrupt):
        payload.expand(BOMB, 10)


# Bits that flip.


def test_no_flipped_bit_is_misread(tmp_path, record_property):
    """Of random flipped bits each is found when all is read, or changes nothing that is read."""
    path = tmp_path / "store.db"
    with evstore.open(path, durability="normal") as store:
        chance = random.Random(1)
        for number in range(400):
            session = store.session(f"session{number % 5}")
            with session.batch() as batch:
                batch.variables[f"name{number % 17}"] = chance.randbytes(
                    chance.choice((9, 700))
                ).hex()
                batch.messages.append({"role": "user", "content": chance.randbytes(90).hex()})
    content = path.read_bytes()
    before = everything(path)
    found = unchanged = by_sqlite = 0
    for _ in range(FLIPS):
        bit = chance.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            after = everything(path)
        except BadFile:
            found += 1
        else:
            assert before == after, f"bit {bit} is misread"
            sound = verified(path)
            unchanged += sound
            found += not sound
        path.write_bytes(flipped)
        by_sqlite += integrity_check(path) != "ok"
    assert FLIPS == found + unchanged
    assert found > 0.5 * FLIPS
    figures = f"{len(content)} bytes, {FLIPS} flips: {found} found, {by_sqlite} by integrity_check"
    record_property("flips", figures)
    (tmp_path / "figures").write_text(figures)


def verified(path: Path) -> bool:
    """Whether verification finds nothing."""
    try:
        with evstore.open(path) as store:
            return not list(evstore.replay.verify(store, level="full"))
    except BadFile:
        return False


def integrity_check(path: Path) -> str:
    """What SQLite itself says of a file, without page checksums."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs="unix")
    try:
        return str(connection.pragma("integrity_check"))
    except apsw.Error as error:
        return type(error).__name__
    finally:
        connection.close()


# What people do to a file in a shell that knows no page checksums.


@pytest.mark.parametrize(
    "statement",
    [
        "vacuum",
        "delete from checkpoint",
        "delete from variable",
        "drop table variable",
        "reindex",
        "pragma wal_checkpoint(truncate)",
        "analyze",
    ],
)
def test_a_foreign_shell_does_not_go_unnoticed(path, statement):
    """After a shell without page checksums has written, all reads the same, or it is Corrupt."""
    before = everything(path)
    content = path.read_bytes()
    result = shell(path, statement, vfs="unix")
    try:
        after = everything(path)
        with evstore.open(path) as store:
            findings = [finding.kind for finding in evstore.replay.verify(store, level="full")]
            seen = f"opens, verify finds {findings}"
    except Corrupt as error:
        seen = f"Corrupt: {error.reason}"
    else:
        assert before == after or findings != []
    changed = path.read_bytes() != content
    (path.parent / "seen").write_text(f"{statement}: {result}, changed {changed}, {seen}")
