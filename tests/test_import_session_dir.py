"""A folder of arrays of messages comes in, under the ids that its files are of."""

import evstore
from evstore.agent import FileSystemStorage
from evstore.transfer import Imported
from tests.command_line import run
from tests.foreign import json_file, said, take, texts


def test_a_file_is_a_session(store, tmp_path):
    """Each array becomes a session named after its file, at the time of its last change."""
    source = json_file(tmp_path / "user-123.json", [said("a"), said("b", name="Ada"), "kept"])
    json_file(tmp_path / "Ada Lovelace.json", [said("c")])
    (tmp_path / "notes.txt").write_text("no session")
    (tmp_path / ".half.json").write_text("[")
    added, reports = take(store, "session-dir", tmp_path)
    assert (Imported(2, 4, 4, kept=1), []) == (added, reports)
    assert {"user-123": ["a", "b"], "Ada Lovelace": ["c"]} == texts(store)
    first = next(iter(store.session("user-123").events()))
    assert source.stat().st_mtime_ns // 1000 == first.time_us
    json_file(source, [said("a"), said("b", name="Ada"), "kept", said("d")])
    assert (Imported(0, 1, 1), []) == take(store, "session-dir", tmp_path)
    assert ["a", "b", "d"] == texts(store)["user-123"]


def test_what_the_file_storage_wrote_comes_in(store, tmp_path):
    """Ids that cannot be file names come back as what they were."""
    names = ["plain", "a/b", "..", "CON", "Ünïcode 😀", "x" * 255, "🙂" * 200]
    storage = FileSystemStorage(tmp_path)
    for name in names:
        storage.save(name, [said(name)])
    _, reports = take(store, "session-dir", tmp_path)
    assert [] == reports
    assert {name: [name] for name in names} == texts(store)


def test_what_is_no_conversation_is_told(store, tmp_path):
    """A file that is no array, no JSON or no session's stops only itself."""
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text("[{")
    json_file(tmp_path / "c\n.json", [said("a")])
    json_file(tmp_path / "d.json", [])
    json_file(tmp_path / "e.json", [said("a")])
    _, reports = take(store, "session-dir", tmp_path)
    assert {"e": ["a"]} == texts(store)
    assert ["a.json", "b.json", "c\n.json", "d"] == [found.where for found in reports]


def test_the_source_is_not_changed(tmp_path):
    """An import reads, and leaves every file as it is."""
    file = json_file(tmp_path / "a.json", [said("a")])
    before = (file.read_bytes(), file.stat().st_mtime_ns, sorted(tmp_path.iterdir()))
    with evstore.open(":memory:") as store:
        take(store, "session-dir", tmp_path)
    assert before == (file.read_bytes(), file.stat().st_mtime_ns, sorted(tmp_path.iterdir()))


def test_a_folder_wants_its_format(tmp_path):
    """A folder is no export of ours: the error says what to add, and no store is made for it."""
    folder = tmp_path / "sessions"
    folder.mkdir()
    result = run("import", str(tmp_path / "new.db"), str(folder))
    assert 2 == result.exit_code
    assert "name its format with --from" in result.stderr
    assert not (tmp_path / "new.db").exists()
