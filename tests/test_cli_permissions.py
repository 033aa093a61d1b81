"""Files and folders that may not be read or written: what can be done is done, the rest is told."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import evstore
from tests.command_line import told

AS_ANOTHER = """
import os, sys
from click.testing import CliRunner
from evstore.cli.verbs import app
rehearsal, path, file_mode, folder_mode, verb, *more = sys.argv[1:]
CliRunner().invoke(app, [verb, rehearsal, *more])  # Another user may not be able to import.
os.chmod(path, int(file_mode))
os.chmod(os.path.dirname(path), int(folder_mode))
if os.geteuid() == 0:
    for owned in path, os.path.dirname(path):
        os.chown(owned, 65534, 65534)
    os.setgid(65534)
    os.setuid(65534)
sys.exit(app.run([verb, path, *more]))
"""
PROTECTED = [(0o400, 0o555), (0o400, 0o755)]


@pytest.fixture
def file(path: Path) -> str:
    """A store with one message."""
    with evstore.open(path) as store:
        store.session("trip").messages.append({"role": "user", "content": "a flight"})
    return str(path)


def run_as_another(
    file: str, modes: tuple[int, int], verb: str, *more: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb on a copy of a store, with its modes and those of its folder, without being root.

    The copy stays as it is.
    """
    content = Path(file).read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        copy = Path(scratch) / "folder" / "store.db"
        copy.parent.mkdir()
        copy.write_bytes(content)
        rehearsal = Path(scratch) / "rehearsal.db"
        rehearsal.write_bytes(content)
        arguments = [str(rehearsal), str(copy), *map(str, modes), verb, *more]
        command = [sys.executable, "-c", AS_ANOTHER, *arguments]
        # Another user could not write down what was covered.
        env = {name: text for name, text in os.environ.items() if "COVERAGE" not in name}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        copy.parent.chmod(0o700)
        copy.chmod(0o600)
        assert content == copy.read_bytes()
    return done


@pytest.mark.parametrize("modes", PROTECTED)
def test_a_store_that_may_not_be_written_is_searched(file, modes):
    """Where the index cannot be written, the search finds the same, and changes nothing."""
    done = run_as_another(file, modes, "search", "flight")
    assert (0, "") == (done.returncode, done.stderr)
    assert told("search", file, "flight") == [json.loads(done.stdout)]


@pytest.mark.parametrize("modes", PROTECTED)
def test_a_store_that_may_not_be_written_says_so(file, modes):
    """A verb that writes says what would help: other permissions."""
    done = run_as_another(file, modes, "set", "trip", "city", "Rome")
    assert (1, "") == (done.returncode, done.stdout)
    assert "store.db cannot be used: it may not be written: change its permissions" in done.stderr


@pytest.mark.parametrize("modes", PROTECTED)
def test_a_sound_store_that_may_not_be_written_is_found_well(file, modes):
    """To the doctor it is no damage that a store may not be written."""
    done = run_as_another(file, modes, "doctor")
    assert (0, "") == (done.returncode, done.stderr)
    assert {"ok"} == {json.loads(line)["state"] for line in done.stdout.splitlines()}


def test_a_store_that_may_not_be_read_says_so(file):
    """Its permissions are named, by verbs that read and by the doctor."""
    done = run_as_another(file, (0, 0o755), "ls")
    assert (1, "") == (done.returncode, done.stdout)
    assert "check that it can be read and written" in done.stderr
    done = run_as_another(file, (0, 0o755), "doctor")
    assert (1, "") == (done.returncode, done.stderr)
    assert "cannot be read: Permission denied" in done.stdout
