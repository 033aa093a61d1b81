"""Completion offers what there is, in every shell, and never says a word when it cannot."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import evstore
from evstore.cli import completion
from evstore.cli.verbs import app
from tests.command_line import EVSTORE, run, told

COLON, SPACE = "user:41", "user:x y"


@pytest.fixture
def file(path: Path) -> str:
    """A store whose ids and names are not all easy to type."""
    with evstore.open(path, durability="normal") as store:
        for name in ("trip", COLON, SPACE, "a,b", "$HOME"):
            store.session(name).variables["budget"] = 1
        trip = store.session("trip")
        trip.variables |= {"my var": 1, "new\nline": 1}
        trip.metadata["owner"] = "ada"
        trip.label("before-booking")
        store.session("gone").variables["x"] = 1
        store.delete("gone")
    return str(path)


def answers(shell: str, **environment: str) -> str:
    """What the program answers a shell that asks it by its environment."""
    asked = {"_EVSTORE_COMPLETE": f"{shell}_complete"} | environment
    result = CliRunner().invoke(app, env=asked)
    assert (0, "") == (result.exit_code, result.stderr)
    return result.stdout.removesuffix("\n")


def completed(*words: str) -> list[str]:
    """What zsh is told about the last of some words."""
    line = "evstore " + " ".join(word.replace(" ", "\\ ").replace("$", "\\$") for word in words)
    found = answers("zsh", COMP_WORDS=line, COMP_CWORD=str(len(words))).splitlines()
    return found[1::3] if found[::3] != ["file"] else ["a file"]


def test_verbs_and_options_are_offered():
    """Every verb and every option of a verb is offered, and the values of a choice."""
    assert {"ls", "merge", "completion"} <= set(completed(""))
    assert ["say", "search", "set", "ship", "show", "stats", "sweep"] == sorted(completed("s"))
    assert ["--session"] == completed("search", "f", "x", "--s")
    assert ["heads", "chain", "full"] == completed("verify", "f", "--level", "")
    assert ["bash", "zsh", "fish"] == completed("completion", "")


def test_a_file_is_a_path():
    """Where a file belongs, the shell offers its files."""
    for words in (("show", "a"), ("import", "f", ""), ("export", "f", "-o", "x")):
        assert ["a file"] == completed(*words)


def test_sessions_are_those_of_the_file(file, monkeypatch):
    """The ids of living sessions are offered, and ended lives where one can come back."""
    assert ["$HOME", "a,b", "trip", COLON, SPACE] == completed("show", file, "")
    assert [COLON, SPACE] == completed("get", file, "user:")
    assert ["trip"] == completed("diff", file, COLON, "--with", "tr")
    assert ["trip"] == completed("diff", file, COLON, "--with=tr")
    assert ["trip"] == completed("merge", file, COLON, "t")
    assert ["trip"] == completed("search", file, "x", "--session", "t")
    assert ["trip"] == completed("export", file, "t")
    assert ["trip"] == completed("chat", file, "t")
    (gone,) = told("ls", file, "--deleted")
    assert [gone["uid"]] == completed("restore", file, "")
    monkeypatch.setenv("STORE", file)
    found = answers("zsh", COMP_WORDS='evstore show "$STORE" tr', COMP_CWORD="3")
    assert "plain\ntrip\n_" == found


def test_names_are_those_of_the_session(file):
    """Names of variables, metadata and labels are offered, but none that cannot be typed."""
    for verb in ("get", "set", "delete", "blame", "history"):
        assert ["budget", "my var"] == completed(verb, file, "trip", "")
    assert ["owner"] == completed("get", file, "trip", "--metadata", "")
    assert ["before-booking"] == completed("show", file, "trip", "--at", "b")
    assert ["before-booking"] == completed("diff", file, "trip", "")
    assert ["budget"] == completed("get", file, SPACE, "b")


def test_what_is_wrong_is_silent(file, tmp_path):
    """A file that is missing, damaged or no store, and a session that is not there: no answer."""
    other = tmp_path / "other"
    other.write_text("no store")
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(Path(file).read_bytes()[:5000])
    for words in (
        ("show", str(other), ""),
        ("show", str(damaged), ""),
        ("show", f"{file}.not", ""),
        ("show", str(tmp_path), ""),
        ("get", file, "nobody", ""),
        ("get", file, "nobody", "--at", ""),
        ("show", "", "--at", ""),
    ):
        assert [] == completed(*words), words
    assert not Path(f"{file}.not").exists()


def test_completion_changes_nothing(file):
    """To complete is to read: the file stays as it is, byte by byte."""
    before = Path(file).read_bytes()
    completed("show", file, "")
    completed("get", file, "trip", "")
    assert before == Path(file).read_bytes()


def test_too_many_are_none(path, monkeypatch):
    """Where there are more than a shell can show, none is offered: a part of them would mislead."""
    with evstore.open(path, durability="normal") as store, store.transaction() as both:
        for number in range(4):
            both.batch(store.session(f"s{number}")).variables["x"] = 1
    context = click.Context(click.Command("show"))
    context.params["file"] = str(path)
    param = click.Argument(["session"])
    monkeypatch.setattr(completion, "ITEMS_MAX", 3)
    assert [] == completion.complete_session(context, param, "s")
    assert ["s2"] == [item.value for item in completion.complete_session(context, param, "s2")]


# The shells.


BASH = """
PATH={folder}:$PATH
source <(evstore completion bash)
complete -p evstore
compopt() {{ COMPREPLY+=("compopt $*"); }}
for COMP_LINE in {lines}; do
    COMP_POINT=${{#COMP_LINE}}
    _evstore_completion evstore
    printf '%s\\n' "${{COMPREPLY[*]}}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(file, tmp_path):
    """A bash that sources the script completes verbs, files, sessions and names."""
    program = tmp_path / "evstore"
    program.write_text(f"#!/bin/sh\nexec {EVSTORE[0]} -c '{EVSTORE[2]}' \"$@\"\n")
    program.chmod(0o755)
    expected = {
        "evstore mer": "merge",
        "evstore show a": "compopt -o default",
        f"evstore get {file} user:x\\ y ": "budget",
        f"evstore show {file} user:": "41 x\\ y",
        f"evstore show {file}.not ": "",
    }
    script = BASH.format(folder=tmp_path, lines=" ".join(map(shlex.quote, expected)))
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    registered, *found = done.stdout.splitlines()
    assert "complete -o nosort -F _evstore_completion evstore" == registered
    assert list(expected.values()) == found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("show {file} user:", ["41", "x\\ y"]),
        ('show {file} "user:', [COLON, SPACE]),
        ("show {file} 'user:x", [SPACE]),
        ("show {file} user:x\\ ", ["x\\ y"]),
        ("show {file} \\$H", ["\\$HOME"]),
        ('show {file} "$H', ["\\$HOME"]),
        ("show {file} a,", ["a,b"]),
        ("diff {file} trip --with=user:4", ["41"]),
        ("get {file} trip my", ["my\\ var"]),
    ],
    ids=["colon", "double", "single", "space", "dollar", "quoted", "comma", "option", "name"],
)
def test_bash_gets_what_it_puts_in(file, words, expected):
    """Bash begins a word anew after a colon, and takes an answer as it is typed, quoted or not."""
    line = "evstore " + words.format(file=file)
    found = answers("bash", COMP_LINE=line, COMP_WORDBREAKS=" \t\n\"'@><=;|&(:")
    assert [f"plain,{word}" for word in expected] == found.splitlines()


def test_the_program_answers(file):
    """The program itself, called as the script calls it, answers and leaves."""
    asked = {"_EVSTORE_COMPLETE": "bash_complete", "COMP_LINE": f"evstore show {file} t"}
    done = subprocess.run(EVSTORE, env=os.environ | asked, capture_output=True, check=False)
    assert (0, b"plain,trip\n", b"") == (done.returncode, done.stdout, done.stderr)


def test_fish_and_zsh_are_answered(file):
    """Fish and zsh get what they ask for, in their own forms."""
    line = f"evstore show {file} a"
    assert "plain,a,b" == answers("fish", COMP_WORDS=line, COMP_CWORD="a")
    assert "plain\na,b\n_" == answers("zsh", COMP_WORDS=line, COMP_CWORD="3")
    assert "plain,merge\tBring in what a branch changed." == answers(
        "fish", COMP_WORDS="evstore mer", COMP_CWORD="mer"
    )


@pytest.mark.parametrize(
    ("shell", "check"),
    [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])],
)
def test_each_shell_reads_its_script(shell, check, tmp_path):
    """Every script is one that its shell, where it is installed, can read."""
    result = run("completion", shell)
    assert (0, "") == (result.exit_code, result.stderr)
    assert f"_EVSTORE_COMPLETE={shell}_complete" in result.stdout
    if shutil.which(shell) is not None:
        script = tmp_path / "script"
        script.write_text(result.stdout)
        subprocess.run([shell, *check, str(script)], check=True)
    assert 2 == run("completion", "tcsh").exit_code


def test_fish_does_not_split_at_commas():
    """The script for fish keeps the commas of an answer."""
    assert 'string split --max 1 "," $completion' in run("completion", "fish").stdout


def test_a_shell_has_to_be_named():
    """Without one the shells are named, in one sentence."""
    result = run("completion")
    assert 2 == result.exit_code
    assert result.stderr.endswith("Choose from: bash, zsh, fish\n")
