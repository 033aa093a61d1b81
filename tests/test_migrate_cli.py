"""The verb `migrate`, and the tools that do the same without the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

import evstore
from tests.command_line import filled, process, run, told

ROOT = Path(__file__).parents[1]
TRANSFORM = """
NOTHING = 7

def quiet(commit):
    return None if commit.session == "gone" else commit
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Return the path of a store; a module with a transform lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_quiet_transform.py").write_text(TRANSFORM)
    return filled(tmp_path / "store.db")


def test_migrate_copies_and_counts(file, tmp_path):
    """A copy is counted as a line of JSON, and holds the same sessions."""
    (counts,) = told("migrate", file, "copy.db")
    assert (3, 3, 0) == (counts["sessions"], counts["untouched"], counts["dropped"])
    assert told("ls", file) == told("ls", "copy.db")
    for target in ("copy.db", "sqlite:copy.db"):
        result = run("migrate", file, target)
        assert 2 == result.exit_code
        assert "is there already" in result.stderr


def test_migrate_with_a_function(file, tmp_path):
    """A function of a module in the current folder changes what is written; a dry run tells."""
    given = ("--with", "my_quiet_transform:quiet")
    (counted,) = told("migrate", file, "new.db", *given, "--dry-run")
    assert not Path("new.db").exists()
    assert [counted] == told("migrate", file, "new.db", *given, "--resume")
    assert (2, 2, 2) == (counted["sessions"], counted["untouched"], counted["dropped"])
    assert "" not in sys.path[:1]
    with evstore.open("new.db") as store:
        assert [] == list(store.sessions(deleted=True))


def test_migrate_shows_facts_to_a_person(file, monkeypatch):
    """On a terminal the counts are a list, and a dry run says that it was one."""
    monkeypatch.setattr("evstore.cli.terminal.is_terminal", lambda: True)
    result = run("migrate", file, "new.db", "--dry-run")
    assert 0 == result.exit_code
    assert "untouched  3" in result.stdout
    assert "nothing was written" in result.stdout
    assert "nothing was written" not in run("migrate", file, "new.db").stdout


@pytest.mark.parametrize(
    "named",
    [
        "no_colon",
        "no_such_module:f",
        "my_quiet_transform:no_such",
        "my_quiet_transform:NOTHING",
        "my_broken_transform:f",
        ":f",
    ],
)
def test_a_function_that_cannot_be_had_is_misuse(file, named):
    """What is no function, or in a module that fails, is told before anything is written."""
    Path("my_broken_transform.py").write_text("{}['nothing']")
    result = process("migrate", file, "new.db", "--with", named)
    assert 2 == result.returncode
    assert named in result.stderr.decode()
    assert not Path("new.db").exists()


def tool(*command):
    """What a tool prints, and its exit code."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / command[0], *command[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "" == done.stderr
    return done.stdout, done.returncode


def test_the_tools_do_the_same(file):
    """migrate, rebuild and verify work as scripts, too."""
    assert ("ok\n", 0) == tool("verify.py", file)
    assert ("ok\n", 0) == tool("rebuild.py", file)
    with evstore.open(file) as store, store.engine.database.writing("normal") as cursor:
        cursor.execute("delete from variable where name = 'city'")
    shown, code = tool("verify.py", file)
    assert ("trip 4 variable: 'city' is missing\n", 1) == (shown, code)
    assert (shown, 1) == tool("rebuild.py", file, "trip")
    assert "untouched=3" in tool("migrate.py", file, "copy.db")[0]
    assert ("ok\n", 0) == tool("verify.py", "copy.db")
