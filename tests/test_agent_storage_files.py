"""Conversations in files are what anybody can read: one array of messages in each, and no more."""

import fcntl
import os
import re
import stat
import unicodedata
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import assume, given, settings

from evstore.agent import FileSystemStorage
from evstore.agent.files import ABANDONED_S, TEMPORARY_PREFIX
from evstore.errors import BadFile, NotAConversation, Unavailable
from evstore.transfer.file_names import HASHED, STEM_BYTES_MAX, id_of, stem_of
from tests.agent_storages import NASTY_IDS, said, session_ids
from tests.test_failures import small_disk

FILE_OF_THE_SEED = """\
[
  {
    "role": "system",
    "content": "Grüße, 🦜"
  },
  {
    "role": "user",
    "content": "What files are in /tmp?",
    "name": "Zoë"
  }
]
"""
HISTORY = [
    {"role": "system", "content": "Grüße, 🦜"},
    {"role": "user", "content": "What files are in /tmp?", "name": "Zoë"},
]
WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the sessions are: a folder that does not exist yet."""
    return tmp_path / "new" / "sessions"


@pytest.fixture
def storage(folder: Path) -> FileSystemStorage:
    """An empty storage in a folder that it has made."""
    return FileSystemStorage(folder)


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_session_is_one_readable_file(storage, folder):
    """The file is named after the session and holds the array of its messages, one key a line."""
    storage.save("user-123", HISTORY)
    assert ["user-123.json"] == names(folder)
    assert FILE_OF_THE_SEED == (folder / "user-123.json").read_text("utf-8")


def test_sessions_survive_a_restart(storage, folder):
    """Another storage over the same folder finds what was saved."""
    storage.save("user-123", HISTORY)
    again = FileSystemStorage(str(folder))
    assert HISTORY == again.load("user-123")
    assert ["user-123"] == again.list_sessions()


def test_only_the_owner_may_read(storage, folder):
    """Files have mode 0600 and a folder that the storage makes has 0700, whatever the umask."""
    before = os.umask(0)
    try:
        storage.save("user-123", HISTORY)
        storage.save("x" * 255, HISTORY)
        made = FileSystemStorage(folder / "another")
        made.save("a", HISTORY)
    finally:
        os.umask(before)
    assert 0o700 == stat.S_IMODE((folder / "another").stat().st_mode)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert 4 == len(files)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in files}


def test_a_save_takes_away_what_others_may_read(storage, folder):
    """A file that everybody could read is private once it is saved again."""
    (folder / "a.json").write_text(FILE_OF_THE_SEED, "utf-8")
    (folder / "a.json").chmod(0o644)
    storage.save("a", HISTORY)
    assert 0o600 == stat.S_IMODE((folder / "a.json").stat().st_mode)


@pytest.mark.parametrize(
    "name", ["user-123", "Alice", "Zoë", "two words", "100%", "100%-off", "CON"]
)
def test_files_that_others_made_are_sessions(storage, folder, name):
    """An array of messages is found under the name of its file, saved in place, and deleted."""
    file = folder / f"{name}.json"
    file.write_text('[{"content":"hello","role":"user","extra":{"$ref":"#/x"}}]', "utf-8")
    loaded = storage.load(name)
    assert [{"content": "hello", "role": "user", "extra": {"$ref": "#/x"}}] == loaded
    assert [name] == storage.list_sessions()
    storage.save(name, loaded + HISTORY)
    assert [file.name] == names(folder)
    assert loaded + HISTORY == storage.load(name)
    storage.delete(name)
    assert [] == names(folder)


def test_an_encoded_name_comes_before_one_that_others_gave(storage, folder):
    """Where both are there, ours is the session, and a delete leaves neither behind."""
    storage.save("Alice", HISTORY)
    (folder / "Alice.json").write_text("[]", "utf-8")
    assert HISTORY == storage.load("Alice")
    assert ["Alice"] == storage.list_sessions()
    storage.delete("Alice")
    assert [] == names(folder)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b'[{"role":"user"}',
        b"{}",
        b'"text"',
        b"null",
        b"\xff",
        b"[1]",
        b'[{"role":1}]',
        b'[{"content":"no role"}]',
        b"[NaN]",
    ],
)
def test_a_file_that_is_no_conversation_is_told_and_left_alone(storage, folder, text):
    """It is an error that says what to do, and the file stays as it is."""
    file = folder / "a.json"
    file.write_bytes(text)
    with pytest.raises(NotAConversation, match="repair the file") as caught:
        storage.load("a")
    assert isinstance(caught.value, BadFile)
    assert str(file) == caught.value.path
    assert storage.exists("a")
    assert text == file.read_bytes()


def test_other_files_are_passed_over(storage, folder):
    """A listing shows sessions only: no temporaries, folders, hidden files or other endings."""
    storage.save("a", HISTORY)
    storage.save("x" * 255, HISTORY)
    for name in (f"{TEMPORARY_PREFIX}half.tmp", ".hidden.json", "notes.txt", "b.json.bak", "b"):
        (folder / name).write_text("[", "utf-8")
    (folder / "folder.json").mkdir()
    (folder / "line\nbreak.json").write_text("[]", "utf-8")
    (folder / os.fsdecode(b"\xff.json")).write_text("[]", "utf-8")
    assert ["a", "x" * 255] == storage.list_sessions()
    for name in ("b", ".hidden", "folder"):
        assert not storage.exists(name)
        assert [] == storage.load(name)


def test_what_killed_processes_left_is_removed(storage, folder):
    """A temporary that nobody can be writing any more is gone with the next start."""
    old, new = (folder / f"{TEMPORARY_PREFIX}{age}.tmp" for age in ("old", "new"))
    for path in (old, new):
        path.write_text("[", "utf-8")
    long_ago = new.stat().st_mtime - 2 * ABANDONED_S
    os.utime(old, (long_ago, long_ago))
    FileSystemStorage(folder)
    assert [new.name] == names(folder)


def test_ids_never_leave_the_folder(storage, folder):
    """Every session is a file in the folder itself, whatever its id looks like as a path."""
    for name in NASTY_IDS:
        storage.save(name, HISTORY)
    assert names(folder) == names(folder.resolve())
    assert all(path.is_file() for path in folder.iterdir())
    assert [folder.name] == names(folder.parent)
    for name in NASTY_IDS:
        storage.delete(name)
    assert [] == names(folder)


def test_an_id_with_two_files_is_changed_by_one_at_a_time(storage, folder):
    """Who saves an id that is too long for a name waits for whoever is changing one."""
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    saving = Thread(target=storage.save, args=("x" * 255, HISTORY))
    saving.start()
    storage.save("plain", HISTORY)
    saving.join(0.3)
    assert saving.is_alive()
    assert ["plain"] == storage.list_sessions()
    os.close(handle)
    saving.join()
    assert ["plain", "x" * 255] == storage.list_sessions()


def test_an_id_that_lost_its_name_is_still_listed(storage, folder):
    """A long id is written beside its file; without that, the name of the file stands for it."""
    storage.save("x" * 255, HISTORY)
    (beside,) = folder.glob("*.id")
    beside.unlink()
    assert [beside.stem] == storage.list_sessions()
    assert HISTORY == storage.load(beside.stem)
    assert HISTORY == storage.load("x" * 255)


@settings(max_examples=300)
@given(session_ids)
def test_a_name_leads_back_to_its_id(session_id: str):
    """The name of a file is safe on every file system, and tells its id."""
    stem = stem_of(session_id)
    assert re.fullmatch(r"[a-zA-F0-9@_.%-]+", stem)
    assert len(stem) <= STEM_BYTES_MAX
    assert not stem.startswith(".")
    assert not WINDOWS_DEVICE.match(stem)
    assert session_id == id_of(stem, session_id)
    assert HASHED in stem or session_id == id_of(stem)


@settings(max_examples=300)
@given(session_ids, session_ids)
def test_ids_have_names_of_their_own(one: str, other: str):
    """No two ids meet where case or the form of a letter does not count."""
    assume(one != other)
    folded = {unicodedata.normalize("NFKC", stem_of(name)).casefold() for name in (one, other)}
    assert 2 == len(folded)


@pytest.mark.parametrize("name", ["user-123", "a.b", "bob@example.org", "018f_x", "x" * 250])
def test_plain_ids_are_their_own_names(name):
    """What is safe in a file name stays as it is."""
    assert name == stem_of(name)


def test_a_folder_that_cannot_be_is_unavailable(tmp_path):
    """Where a file stands in the way, the error says so, and nothing is made."""
    (tmp_path / "file").write_text("here", "utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Unavailable, match="see that it is a folder"):
            FileSystemStorage(folder)
    assert ["file"] == names(tmp_path)


def test_a_folder_that_has_gone_is_unavailable(storage, folder):
    """Listing, saving and deleting tell; nothing is made in its place."""
    folder.rmdir()
    for call in (
        storage.list_sessions,
        lambda: storage.save("a", HISTORY),
        lambda: storage.delete("a"),
    ):
        with pytest.raises(Unavailable):
            call()
    assert not folder.exists()


def test_a_full_disk_leaves_the_last_list(tmp_path):
    """A save that does not fit is Unavailable, and what was saved before is there whole."""
    with small_disk(tmp_path / "disk"):
        storage = FileSystemStorage(tmp_path / "disk")
        storage.save("a", HISTORY)
        with pytest.raises(Unavailable, match="No space left"):
            storage.save("a", said("x" * 1_000_000))
        assert HISTORY == storage.load("a")
        assert ["a.json"] == names(tmp_path / "disk")
        storage.save("a", said("fits"))
        assert said("fits") == storage.load("a")
