"""The doctor says what any file is and how it does, and changes nothing."""

import json
import os
import sqlite3
from importlib.metadata import version
from pathlib import Path

import pytest

from evstore.cli import doctor, terminal
from tests.command_line import damage, filled, run, told


@pytest.fixture
def file(path: Path) -> str:
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(path)


def test_doctor_finds_a_sound_store_well(file, monkeypatch):
    """The doctor's checks of a sound store are all ok."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    text = run("doctor", file).stdout
    assert ["ok"] * 10 == [line.split()[0] for line in text.splitlines()]
    assert f"evstore {version('evstore')}, apsw" in text
    checks = told("doctor", file, "--json")
    assert ["name", "state", "what"] == sorted(checks[0])


def test_doctor_notes_what_is_odd(file, monkeypatch):
    """Open permissions, a great log and missing checksums are noted, and nothing is wrong."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.setattr(doctor, "WAL_BYTES_MAX", -1)
    Path(file).chmod(0o644)
    result = run("doctor", file)
    assert 0 == result.exit_code
    assert ["permissions", "WAL"] == [
        line.split()[1] for line in result.stdout.splitlines() if line.startswith("note")
    ]
    assert "note" == doctor._checksums(doctor.Header(4096, 0, 1, 1)).state
    monkeypatch.setattr(doctor, "checksum_vfs", lambda: None)
    assert "note" == doctor._checksums(doctor.Header(4096, 8, 1, 1)).state


def test_doctor_finds_what_is_wrong(file, monkeypatch):
    """A changed event and a broken page are found, and the exit code is 1."""
    damage(file)
    monkeypatch.setattr(doctor, "FINDINGS_SHOWN", 0)
    result = run("doctor", file)
    assert 1 == result.exit_code
    assert "more: see evstore verify" in result.stdout
    monkeypatch.setattr(doctor, "FINDINGS_SHOWN", 9)
    assert " at 3: link: " in run("doctor", file).stdout
    content = bytearray(Path(file).read_bytes())
    content[content.index(b"planner")] ^= 1
    Path(file).write_bytes(content)
    assert 1 == run("doctor", file).exit_code
    checks = map(json.loads, run("doctor", file, "--json").stdout.splitlines())
    assert "pages" in {check["name"] for check in checks if check["state"] == "wrong"}


def test_doctor_says_something_of_anything(file, tmp_path):
    """Of files that are no stores the doctor says what they seem to be."""
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("create table t(x)")
    connection.close()
    future = bytearray(Path(file).read_bytes())
    future[63] = 9
    for content, words in (
        (None, "cannot be read"),
        (b"", "empty"),
        (b"garbage" * 50, "no SQLite database"),
        (b"PK\x03\x04", "zip"),
        (b'{"evstore":1}', "evstore import"),
        (other.read_bytes(), "another program"),
        (bytes(future), "upgrade evstore"),
        (Path(file).read_bytes()[:5000], "wrong"),
    ):
        strange = tmp_path / "strange"
        if content is not None:
            strange.write_bytes(content)
        result = run("doctor", str(strange))
        assert (1, "") == (result.exit_code, result.stderr)
        assert words in result.stdout
        if content is not None:
            assert content == strange.read_bytes()


def test_doctor_reads_regular_files_alone(tmp_path):
    """A pipe, a device or a folder is told at once, and nothing is read from it."""
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    for path in (os.devnull, str(tmp_path), pipe):
        result = run("doctor", path)
        assert (1, "") == (result.exit_code, result.stderr)
        assert f"{path} is not a regular file: give the path of a file" in result.stdout


def test_doctor_takes_a_file_as_other_verbs_do(file):
    """A path with `sqlite:` before it is that path; what can be no file is misuse."""
    assert run("doctor", file).stdout == run("doctor", f"sqlite:{file}").stdout
    for other in ("memory:", "redis://host"):
        assert (2, "") == (run("doctor", other).exit_code, run("doctor", other).stdout)
