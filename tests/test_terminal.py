"""The command line as a process: on terminals, in pipes, interrupted, and explaining itself."""

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

import evstore
import evstore.cli
from evstore.cli import terminal
from evstore.cli.verbs import app
from evstore.transfer.layout import HEADER
from tests.command_line import EVSTORE, damage, filled, process, run, shown
from tools import cli_docs

NASTY = "a\x1b[31m\x9b\u202e\n\t\x7f"


@pytest.fixture
def file(path: Path) -> str:
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(path)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what follows print for a person."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)


# Terminals.


def test_stored_text_cannot_harm_a_terminal(path, person):
    """Control characters and marks of direction are spelled out, in tables and in JSON."""
    file = str(path)
    with evstore.open(path) as store:
        session = store.session("s\u202e", actor=NASTY)
        session.variables[NASTY] = NASTY
        session.variables["[red]:smile:"] = "[/]"
        session.messages.append({"role": NASTY, "content": NASTY, NASTY: NASTY})
        session.fork("f\u202e")
    printed = [
        shown(*arguments, *(more if "export" not in arguments else ()))
        for more in ((), ("--json",))
        for arguments in (
            ("ls", file),
            ("show", file, "s\u202e"),
            ("log", file, "s\u202e"),
            ("get", file, "s\u202e"),
            ("get", file, "s\u202e", NASTY),
            ("export", file, *(["-o", "-"] if more else [])),
        )
    ]
    printed.append(run("show", file, NASTY).stderr)
    for text in printed:
        assert not set(text) & set(NASTY) - {"a", "[", "3", "1", "m", "\n", "\t"}
    assert "[red]:smile:" in shown("get", file, "s\u202e")
    assert NASTY == json.loads(run("get", file, "s\u202e", NASTY, "--json").stdout)


def test_json_keeps_its_value_on_one_line():
    """Whitespace inside stored JSON never breaks a line, and escapes change no value."""
    assert b'{"a":  1}' == terminal.harmless_json(b'{"a":\n\r1}')
    assert b'[1,  2,"\\u009b\\u007f"]' == terminal.harmless_json('[1,\n\t2,"\x9b\x7f"]'.encode())


def test_a_forgotten_message_has_its_line(capsys):
    """A message whose content was forgotten is shown as just that."""
    from evstore.cli.reading import print_message

    print_message(evstore.ERASED)
    assert "(forgotten)\n" == capsys.readouterr().out


def on_a_terminal(*arguments: str, columns: str = "80") -> tuple[int, str]:
    """Run evstore on a pseudo-terminal of 80 columns and return its exit code and output."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": columns}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [*EVSTORE, *arguments], stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        output = b""
        with suppress(OSError):  # Linux says so when the other side is gone.
            while piece := os.read(leader, 1 << 16):
                output += piece
    os.close(leader)
    return process.returncode, output.decode()


def test_a_real_terminal_gets_tables_colours_and_progress(file):
    """On a terminal there are colours, and long work shows how far it is."""
    code, output = on_a_terminal("log", file, "trip")
    assert 0 == code
    assert "\x1b[36mvariable.set" in output
    code, output = on_a_terminal("verify", file)
    assert 0 == code
    assert "verifying" in output
    code, output = on_a_terminal("import", file)
    assert 2 == code
    assert "nothing comes through stdin" in output


def test_a_bar_stands_beside_nothing_that_is_printed(path, tmp_path):
    """Where an export is seen there is no bar; what an import tells stands above its bar."""
    with evstore.open(path, durability="normal") as store:
        store.session("s").messages.extend([{"role": "user", "content": "hi"}] * 3000)
    for format in ("jsonlines", "openai-jsonl"):
        _, seen = on_a_terminal("export", str(path), "s", "--to", format)
        assert shown("export", str(path), "s", "--to", format) == seen.replace("\r\n", "\n")
    lines = str(tmp_path / "lines")
    Path(lines).write_text("oh\n" * 30)
    copied = str(tmp_path / "copy.db")
    code, seen = on_a_terminal("import", copied, lines, "--from", "openai-jsonl")
    erased = "\x1b[2K"  # the line, with the bar that stood there
    assert (1, 30) == (code, seen.count(f"{erased}evstore: line "))
    code, seen = on_a_terminal("import", copied, lines, "--from", "openai-jsonl", "--json")
    assert (1, False) == (code, "importing" in seen)


@pytest.mark.parametrize("columns", ["0", "00", "1"])
def test_a_terminal_without_a_width_is_printed_to(file, columns):
    """A width of 0, as terminals say that do not know theirs, hides nothing."""
    code, output = on_a_terminal("get", file, "trip", "city", columns=columns)
    assert (0, "Rome") == (code, output.strip())
    assert "nobody" in on_a_terminal("show", file, "nobody", columns=columns)[1]


def test_a_bar_never_takes_what_stdout_gets(file):
    """With stdout in a pipe and stderr on a terminal, findings are in the pipe."""
    damage(file)
    leader, follower = pty.openpty()
    done = subprocess.run(
        [*EVSTORE, "verify", file], stdout=subprocess.PIPE, stderr=follower, check=False
    )
    os.close(follower)
    os.close(leader)
    assert 1 == done.returncode
    assert b'"seq":3' in done.stdout


# The process.


def test_exit_codes_reach_the_shell(file):
    """The codes 0, 1 and 2 leave the process; errors are on stderr alone."""
    assert (0, b'"Rome"\n') == attributes(process("get", file, "trip", "city"))
    assert (1, b"") == attributes(process("get", file, "trip", "nothing"))
    assert (2, b"") == attributes(process("fly"))
    assert (0, True) == (process("--version").returncode, b"evstore" in process("--version").stdout)
    assert 0 == process("--help").returncode
    assert b"Usage" in process().stderr


def attributes(done: subprocess.CompletedProcess[bytes]) -> tuple[int, bytes]:
    """The exit code and what was printed."""
    return done.returncode, done.stdout


def test_a_reader_that_leaves_is_no_error(file):
    """When nobody reads any more, evstore leaves without a word."""
    with evstore.open(file, durability="normal") as store:
        store.session("long").messages.extend([{"role": "user", "content": "x" * 999}] * 999)
    with subprocess.Popen(
        [*EVSTORE, "log", file, "long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(10)
        child.stdout.close()
        assert b"" == child.stderr.read()
    assert 141 == child.returncode


def test_an_interrupt_is_exit_130(tmp_path):
    """Ctrl-C ends evstore with the code that shells expect, and no traceback."""
    new = tmp_path / "new.db"
    with subprocess.Popen(
        [*EVSTORE, "import", str(new)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(HEADER)
        child.stdin.flush()
        while not new.exists():
            time.sleep(0.05)
        time.sleep(0.5)  # Now it waits for more lines.
        child.send_signal(signal.SIGINT)
        assert b"" == child.stderr.read().strip()
    assert 130 == child.returncode


def test_an_interrupt_while_it_starts_is_exit_130(monkeypatch):
    """Ctrl-C is no traceback either before evstore has begun."""

    def interrupted(name: str, *_arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.__import__", interrupted)
    code = evstore.cli.main()
    monkeypatch.undo()
    assert 130 == code


def test_what_nobody_foresaw_is_a_sentence(file, monkeypatch):
    """Even a mistake of evstore's own is a sentence and exit code 1, never a traceback."""

    def fails(error: BaseException) -> Any:
        def listing(*_arguments: Any, **_settings: Any) -> None:
            raise error

        monkeypatch.setattr(evstore.Store, "sessions", listing)
        return run("ls", file)

    result = fails(ZeroDivisionError("oh"))
    assert 1 == result.exit_code
    assert "please report it: ZeroDivisionError: oh" in result.stderr
    assert 130 == fails(KeyboardInterrupt()).exit_code
    assert 7 == fails(SystemExit(7)).exit_code
    result = fails(OSError(errno.ENOSPC, "No space left"))
    what = "evstore: the output cannot be used: No space left"
    assert f"{what}: check the path, its permissions and the disk\n" == result.stderr


def test_missing_packages_are_named(monkeypatch, capsys):
    """Without click or rich, one sentence says what to install, and the exit code is 2."""
    monkeypatch.delitem(sys.modules, "evstore.cli.verbs")
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.setattr(evstore.cli, "_PACKAGES", ("click",))
    assert 2 == evstore.cli.main()
    assert "pip install 'evstore[cli]'" in capsys.readouterr().err
    monkeypatch.setattr(evstore.cli, "_PACKAGES", ())
    with pytest.raises(ModuleNotFoundError):
        evstore.cli.main()


# The help.


def test_every_verb_explains_itself():
    """Every verb and every option has a help text that is a sentence."""
    for name, verb in app.commands.items():
        assert verb.help, name
        assert verb.short_help, name
        assert verb.short_help.endswith("."), name
        assert "." in verb.help or ":" in verb.help, name
        for option in verb.params:
            if isinstance(option, click.Option):
                assert option.help, (name, option.name)
                assert option.help.endswith((".", ")")), (name, option.name)


def test_the_page_about_the_command_line_is_current():
    """docs/cli.md is what the help says; tools/cli_docs.py writes it."""
    assert cli_docs.PAGE.read_text("utf-8") == cli_docs.render()


def test_the_package_runs_as_the_program(file):
    """`python -m evstore` is `evstore`."""
    command = [sys.executable, "-m", "evstore", "get", file, "trip", "city"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (0, b'"Rome"\n', b"") == (done.returncode, done.stdout, done.stderr)


def test_the_entry_point_runs(monkeypatch, capsys):
    """`evstore` the program is `evstore.cli.main`, which returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["evstore", "--version"])
    assert 0 == evstore.cli.main()
    assert "evstore" in capsys.readouterr().out
