"""The verbs backup, ship and restore-from keep a store safe elsewhere, and say how that went."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

import evstore
from evstore import replay
from evstore.transfer import segments
from tests.command_line import EVSTORE, damage, filled, process, run, shown, told


@pytest.fixture
def file(path: Path) -> str:
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(path)


def test_backup_copies_a_store(file, tmp_path):
    """The copy is where it was asked for, and what is told of it is true."""
    copied = str(tmp_path / "copy.db")
    (line,) = told("backup", file, copied)
    assert {"path": copied, "position": 7, "size_bytes": os.path.getsize(copied)} == line
    with evstore.open(file) as store, evstore.open(copied) as copy:
        assert 7 == store.engine.position()
        assert replay.fingerprint(store) == replay.fingerprint(copy)


@pytest.mark.parametrize(("at", "position"), [("3", 3), ("2020-01-01T00:00:00Z", 0)])
def test_backup_copies_the_past(file, tmp_path, at, position):
    """A position or a time says up to where."""
    (line,) = told("backup", file, str(tmp_path / "copy.db"), "--at", at, "--level", "full")
    assert position == line["position"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("agents.db", "agents.db"), 2, "is there already"),
        (("agents.db", "copy.db", "--at", "label"), 2, "no moment 'label'"),
        (("agents.db", "copy.db", "--at", "99"), 2, "give a position from 0 to 7"),
        (("agents.db", "nowhere/copy.db"), 1, "does not exist"),
        (("nothing.db", "copy.db"), 1, "no such file"),
    ],
)
def test_what_cannot_be_copied_is_told(file, tmp_path, monkeypatch, arguments, code, complaint):
    """A wrong name or moment is one sentence, and no file is made."""
    monkeypatch.chdir(tmp_path)
    result = run("backup", *arguments)
    assert code == result.exit_code
    assert complaint in result.stderr
    assert {"agents.db"} == {name.partition("-")[0] for name in os.listdir(tmp_path)}


@pytest.mark.parametrize("target", ["sqlite:copy.db", "sqlite://copy.db", "copy.db/"])
def test_a_target_is_what_other_verbs_take_it_for(file, tmp_path, monkeypatch, target):
    """What is told, verified and written is the file that others open by that name."""
    monkeypatch.chdir(tmp_path)
    (line,) = told("backup", file, target, "--level", "full")
    assert "copy.db" == line["path"]
    there = {name.removesuffix("-wal").removesuffix("-shm") for name in os.listdir(tmp_path)}
    assert {"agents.db", "copy.db"} == there
    assert told("ls", file) == told("ls", target)


@pytest.mark.parametrize("target", ["memory:", ":memory:", "redis://host"])
def test_a_target_that_can_be_no_file_is_misuse(file, tmp_path, monkeypatch, target):
    """Memory, or the server of another engine, is refused before anything is written."""
    monkeypatch.chdir(tmp_path)
    for verb in ("backup", "migrate"):
        result = run(verb, file, target)
        assert (2, "") == (result.exit_code, result.stdout)
        assert "give a path" in result.stderr
    assert ["agents.db"] == os.listdir(tmp_path)


def test_a_level_finds_what_was_tampered_with(file, tmp_path):
    """A store whose log was changed is copied as it is, and a higher level tells."""
    damage(file)
    copied = str(tmp_path / "copy.db")
    assert 0 == run("backup", file, copied).exit_code
    result = run("backup", file, str(tmp_path / "other.db"), "--level", "chain")
    assert 1 == result.exit_code
    assert "link: it does not continue" in result.stderr


def test_ship_and_restore(file, tmp_path):
    """What one verb ships the other restores, and a second time there is nothing to do."""
    folder, target = str(tmp_path / "segments"), str(tmp_path / "restored.db")
    assert [{"segments": 1, "batches": 7, "position": 7}] == told("ship", file, folder)
    assert [{"segments": 0, "batches": 0, "position": 7}] == told("ship", file, folder)
    counts = {"segments": 1, "batches": 7, "events": 8, "position": 7, "stopped": None}
    assert [counts] == told("restore-from", folder, target, "--level", "full")
    again = {"segments": 0, "batches": 0, "events": 0, "position": 7, "stopped": None}
    assert [again] == told("restore-from", folder, target)
    assert shown("export", file) == shown("export", target)


def test_a_segment_that_is_damaged_is_told(file, tmp_path):
    """What comes before a bad segment is restored, the segment is named, and the exit code is 1."""
    folder, target = tmp_path / "segments", str(tmp_path / "restored.db")
    told("ship", file, str(folder))
    told("set", file, "trip", "late", "true")
    told("ship", file, str(folder))
    bad = folder / segments.name(8)
    bad.write_bytes(bad.read_bytes()[:-30])
    result = run("restore-from", str(folder), target)
    assert 1 == result.exit_code
    assert f"{bad.name} was not restored: " in result.stderr
    (line,) = map(json.loads, result.stdout.splitlines())
    assert (7, bad.name) == (line["position"], line["stopped"]["where"])
    assert 0 == run("verify", target).exit_code


def test_folders_that_cannot_be_used_are_told(file, tmp_path):
    """Without segments nothing is made; another store's folder is a misuse."""
    target = tmp_path / "restored.db"
    for folder, complaint in ((tmp_path / "nowhere", "No such file"), (tmp_path, "no segments")):
        result = run("restore-from", str(folder), str(target))
        assert (1, "") == (result.exit_code, result.stdout)
        assert complaint in result.stderr
        assert not target.exists()
    told("ship", file, str(tmp_path / "segments"))
    with evstore.open(tmp_path / "other.db") as other:
        other.session("s").variables["a"] = 1
    result = run("ship", str(tmp_path / "other.db"), str(tmp_path / "segments"))
    assert 2 == result.exit_code
    assert "another store" in result.stderr


def test_following_goes_on_until_it_is_stopped(file, tmp_path):
    """Each commit is shipped as it comes, told at once, and Ctrl-C ends it quietly."""
    command = [*EVSTORE, "ship", file, str(tmp_path / "segments"), "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert 7 == json.loads(child.stdout.readline())["position"]
        with evstore.open(file) as store:
            store.session("trip").variables["late"] = True
        assert 8 == json.loads(child.stdout.readline())["position"]
        child.send_signal(signal.SIGINT)
        assert (b"", 0) == (child.stderr.read(), child.wait(60))


def test_a_person_reads_sentences(file, tmp_path, monkeypatch):
    """On a terminal the verbs say in a sentence what they did."""
    monkeypatch.setattr("evstore.cli.terminal.is_terminal", lambda: True)
    folder, copied = str(tmp_path / "segments"), str(tmp_path / "copy.db")
    assert shown("backup", file, copied).startswith("copied up to position 7, ")
    assert "shipped 7 batches in 1 segment, up to position 7\n" == shown("ship", file, folder)
    restored = shown("restore-from", folder, str(tmp_path / "restored.db"))
    assert "restored 7 batches, up to position 7\n" == restored
    assert b"position" in process("ship", file, folder, "--json").stdout
