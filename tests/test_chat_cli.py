"""`evstore chat`: on a terminal and from a pipe, interrupted, killed, and over HTTP."""

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore.agent import OfflineModel, SqliteStorage
from evstore.agent.chat import Chat
from evstore.agent.decisions import OBSERVATION
from evstore.agent.journal import RUN_ENDED, RUN_STARTED, Run, StoreJournal
from evstore.agent.offline import NATURE
from evstore.cli import asking, talk, terminal
from evstore.cli.talk import Screen, Talk
from tests.command_line import EVSTORE, run
from tests.model_server import Handler, ModelServer, serving

PATIENCE_S = 5.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
# A process of a new session makes its terminal the one whose Ctrl-C it gets.
OWN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from evstore.cli import main
raise SystemExit(main())
"""
NASTY = "red \x1b[31m\x07\nsecond \N{FOX FACE} line"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Loopback is reached without a proxy."""
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def file(path: Path) -> str:
    """Where a store can be."""
    return str(path)


def answer(text: Any) -> str:
    return json.dumps({"thought": "", "final_answer": text})


def events(file: str, session: str = "trip") -> list[evstore.Event]:
    with evstore.open(file, read_only=True) as store:
        return list(store.session(session).events())


def reasons(file: str) -> list[str]:
    """Why the turns of the session ended; each that was begun has ended, once."""
    happened = events(file)
    ended = [event.data["reason"] for event in happened if event.kind == RUN_ENDED]
    assert len(ended) == sum(event.kind == RUN_STARTED for event in happened)
    return ended


# From a pipe.


def test_a_pipe_gives_a_message_a_line(file):
    """Answers are all that is printed, and what is said about the session is on stderr."""
    result = run("chat", file, "trip", given="My name is Alice\n\nWhat is my name?\n/count\n")
    assert 0 == result.exit_code
    said = ["I will remember that your name is Alice.", "Your name is Alice", "Messages: 5"]
    assert said == result.stdout.splitlines()
    assert "session trip (new), model offline rules" == result.stderr.splitlines()[0]
    assert result.stderr.splitlines()[1].startswith(NATURE)
    again = run("chat", file, "trip", given="What is my name?")
    assert "Your name is Alice\n" == again.stdout
    assert "session trip (5 messages)" in again.stderr


def test_without_a_session_there_is_a_new_one(file):
    """Its id is told, and it is there."""
    result = run("chat", file, given="Hello\n")
    session_id = result.stderr.split()[1]
    assert 3 == len([e for e in events(file, session_id) if e.kind == "message.added"])


def test_the_commands_of_a_pipe(file):
    """All commands work from a pipe; what they cannot do is told, and makes the exit code 1."""
    with evstore.open(file) as store:
        store.session("trip").variables["budget"] = 1200
        store.session("trip").messages.append({"role": "assistant", "content": "Plain."})
    lines = ["/vars", "What is 2 + 3?", "/undo", "/redo", "/fork what-if", "Hello", "/history"]
    result = run("chat", file, "trip", given="\n".join([*lines, "/at 2", "/help", "/exit", "Hi"]))
    assert (0, 2) == (result.exit_code, len(result.stderr.splitlines()))
    assert [
        ["name", "type", "value"],
        ["budget", "int", "1200"],
        ["2", "+", "3", "=", "5"],
        ["took", "back:", "What", "is", "2", "+", "3?"],
        ["brought", "back:", "What", "is", "2", "+", "3?"],
        ["This", "goes", "on", "in", "'what-if'."],
        ["Hello!", "What", "can", "I", "do", "for", "you?"],
        ["Plain."],
        [">", "What", "is", "2", "+", "3?"],
        ["2", "+", "3", "=", "5"],
        [">", "Hello"],
        ["Hello!", "What", "can", "I", "do", "for", "you?"],
    ] == [line.split() for line in result.stdout.splitlines()[:12]]
    assert result.stdout.splitlines()[12].startswith("at 2  ")
    assert "budget" in result.stdout.splitlines()[15]
    assert "/fork NAME  Go on in a fork" in result.stdout
    assert "can I do" not in result.stdout.partition("/exit")[2]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/fly", "there is no /fly: /help lists the commands"),
        ("/fork", "it is /fork NAME"),
        ("/undo 3", "it is /undo"),
        ("/undo", "there is no turn to take back"),
        ("/redo", "there is no turn to bring back"),
        ("/at 9", "no moment 9"),
        ("/at 2026-01-01", "is no moment"),
        ("/fork x", "trip"),
    ],
)
def test_what_cannot_be_is_told_and_the_chat_goes_on(file, line, complaint):
    """A mistake is one sentence on stderr, and exit code 1 in the end."""
    result = run("chat", file, "trip", given=f"{line}\n/vars\n /home is a folder\n")
    assert 1 == result.exit_code
    assert complaint in result.stderr
    assert ["There are no variables."] == result.stdout.splitlines()[:1]
    assert 2 == len(result.stdout.splitlines())


def test_a_forgotten_conversation_can_be_brought_back(file):
    """/clear ends the life and tells the command that brings it back, if there was one."""
    file += " of today"
    result = run("chat", file, "trip", given="/clear\nHello\n/clear\n/count\n")
    first, _, second, count = result.stdout.splitlines()
    assert ("The conversation is forgotten.", "Messages: 0") == (first, count)
    assert 0 == run(*shlex.split(second.partition("back: evstore ")[2])).exit_code
    assert "Messages: 3\n" == run("chat", file, "trip", given="/count").stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--model", "x"], "give both --model and --base-url"),
        (["--api-key-env", "X"], "give both --model and --base-url"),
        (["--model", "x", "--base-url", "y", "--api-key-env", "NO_SUCH_KEY"], "'NO_SUCH_KEY'"),
        (["--max-iterations", "0"], "--max-iterations"),
    ],
)
def test_misuse_is_told_before_anything_is_made(file, arguments, complaint):
    """Options that do not go together are exit code 2, and no store is created."""
    result = run("chat", file, *arguments)
    assert 2 == result.exit_code
    assert complaint in result.stderr
    assert not Path(file).exists()


def test_what_is_no_text_is_refused(file):
    """Bytes that are not UTF-8 are misuse."""
    result = run("chat", file, "trip", given=b"\xff\n")
    assert 2 == result.exit_code
    assert "not UTF-8" in result.stderr


def test_a_turn_that_was_cut_off_goes_on(file):
    """A chat finishes first what an earlier process had begun, and says so."""
    with serving() as server:
        server.script = [stay(server)]
        with chatting(file, "trip", *over(server)) as child:
            child.write("Is it so?\n")
            server.wait_for(1)
            child.process.kill()
    result = run("chat", file, "trip", given="/count")
    assert "A turn was cut off, and goes on: Is it so?" in result.stderr
    assert [NATURE in result.stdout, "Messages: 3"] == [True, result.stdout.splitlines()[-1]]
    assert ["answered"] == reasons(file)


# Over HTTP.


def over(server: ModelServer) -> list[str]:
    return ["--model", "tiny", "--base-url", server.url]


def stay(server: ModelServer) -> Callable[[Handler], None]:
    """Return an act that begins an answer, and then says nothing until its client has left."""

    def begin(handler: Handler) -> None:
        handler.stream(['{"thought": "", "final_', 'answer": "Rome has sev'], is_whole=False)
        handler.connection.settimeout(60)
        with suppress(OSError):
            handler.connection.recv(1)

    return begin


def test_a_model_over_http_has_its_key_and_its_limit(file, monkeypatch):
    """The key comes from the environment; a message that takes too many replies has no answer."""
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with serving(lambda _: answer("Yes.")) as server:
        server.script = [lambda handler: handler.answer('{"action": "now"}')] * 2
        arguments = [*over(server), "--api-key-env", "MY_KEY", "--max-iterations", "2"]
        result = run("chat", file, "trip", *arguments, given="One\nTwo\n")
    assert ("Yes.\n", 1) == (result.stdout, result.exit_code)
    assert "evstore: Stopped: there is no answer after 2 iterations." in result.stderr
    assert "Bearer sk-secret" == server.requests[0][1]["Authorization"]
    assert "rules" not in result.stderr
    assert ["iterations", "answered"] == reasons(file)


def test_a_stream_that_broke_off_is_said_anew(file, monkeypatch):
    """What was shown of an answer that broke off is withdrawn, and the whole one follows."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    whole = answer("Rome has seven hills.")
    with serving(lambda _: whole) as server:
        server.script = [lambda handler: handler.stream([whole[:-20]], is_whole=False)]
        result = run("chat", file, "trip", *over(server), given="Rome?\n")
    assert 0 == result.exit_code
    first, aside, second = result.stdout.split("\n")[:3]
    assert "Rome has seven hills.".startswith(first)
    assert "(what was said so far is no answer)" == aside
    assert "Rome has seven hills." == second
    assert ["answered"] == reasons(file)


@pytest.mark.parametrize("final", [{"a": 1}, "text"])
def test_an_answer_that_was_not_spoken_is_shown_whole(file, final):
    """An answer that is no text, or is another than was spoken, is shown as the result has it."""
    reply = f'{{"final_answer": "other", "final_answer": {json.dumps(final)}}}'
    with serving(lambda _: reply) as server:
        result = run("chat", file, "trip", *over(server), given="Rome?\n")
    shown = final if isinstance(final, str) else '{"a":1}'
    assert shown == result.stdout.splitlines()[-1]


# On a terminal.


class Person:
    """Types on a pseudo-terminal, and sees what is on it."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self._screen = screen
        self.seen = ""

    def write(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str) -> str:
        """Read on until a text appears; return all up to its end, without what moves cursors."""
        while text not in self.seen:
            assert self._read(), f"{text!r} is not in {self.seen!r}"
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def interrupt(self, text: str) -> str:
        """Press Ctrl-C and wait for a text."""
        self.write("\x03")
        while text not in self.seen:
            if select.select([self._screen], [], [], PATIENCE_S)[0]:
                assert self._read(), f"{text!r} is not in {self.seen!r}"
            else:
                self.interrupt_again()
        return self.wait_for(text)

    def interrupt_again(self) -> None:
        """Press another key and Ctrl-C once more, as a person does where nothing comes.

        Ctrl-C takes away what was typed and not read yet. Where it comes just as readline was about
        to read that, readline waits for another key, and Python sees no signal before.
        """
        self.write("x")
        time.sleep(0.2)
        self.write("\x03")

    def rest(self) -> str:
        """Read to the end."""
        while self._read():
            pass
        self.process.wait()
        return self.seen

    def _read(self) -> bool:
        piece = b""
        with suppress(OSError):  # Linux says so when the other side is gone.
            piece = os.read(self._screen, 1 << 16)
        self.seen += ESCAPES.sub("", piece.decode()).replace("\r", "")
        return bool(piece)


@contextmanager
def chatting(file: str, *arguments: str) -> Iterator[Person]:
    """A chat on a terminal of 80 columns; it is killed in the end if it still runs."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "NO_PROXY": "*"}
    with subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, "chat", file, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(follower)
        try:
            yield Person(process, leader)
        finally:
            process.kill()
    os.close(leader)


@pytest.mark.parametrize("session", ["-x", "$(touch touched)", "it's"])
def test_how_to_go_on_can_be_typed(tmp_path, session):
    """The command that is told at the end is one, whatever the file and the session are called."""
    with chatting(str(tmp_path / "my chat.db"), "--", session) as person:
        person.wait_for("Ctrl-D ends.\n> ")
        person.write("/exit\n")
        command = person.rest().partition("To go on: ")[2].replace("\n", "")
    assert ["evstore", "chat", str(tmp_path / "my chat.db"), session] == [
        word for word in shlex.split(command) if word != "--"
    ]
    assert session != "-x" or "chat --" in command


def test_a_person_sees_tools_at_work_and_leaves_with_ctrl_d(file):
    """There is a prompt, each tool has its line, earlier lines come back, and Ctrl-D ends it."""
    with chatting(file, "trip") as person:
        assert "model offline rules" in person.wait_for("Ctrl-D ends.\n> ")
        person.write("What is 2 + 3?\n")
        shown = person.wait_for("\n> ").splitlines()
        assert ['· calculate {"expression":"2 + 3"}', "→ 5", "2 + 3 = 5", ""] == shown[1:5]
        person.write("\x04")
        assert f"To go on: evstore chat {file} trip" in person.rest()
        assert 0 == person.process.returncode
    with chatting(file, "trip") as person:
        person.wait_for("> ")
        person.write("\x1b[A\n")  # Up, in a new process
        assert "2 + 3 = 5" in person.wait_for("2 + 3 = 5")
        person.wait_for("\n> ")
        person.write("/history\n")
        shown = person.wait_for("\n> ").splitlines()
        assert "system: You are an autonomous agent." in shown[1]
        person.write("/nothing\n/exit\n")
        assert "there is no /nothing" in person.rest()
        assert 0 == person.process.returncode


def test_ctrl_c_interrupts_an_answer_and_leaves_a_clean_log(file):
    """What was said so far is no message, the turn has its end, and the prompt is back."""
    with serving(lambda _: answer(NASTY)) as server:
        server.script = [stay(server), lambda handler: handler.send(503, "", Retry_After="60")]
        with chatting(file, "trip", *over(server)) as person:
            person.wait_for("> ")
            person.write("Rome?\n")
            person.wait_for("Rome has sev")
            shown = person.interrupt("\n> ")
            assert "(what was said so far is no answer)" in shown
            assert "Stopped: the turn was cancelled." in shown
            person.write("In a pause?\n")
            server.wait_for(2)
            time.sleep(0.3)  # Now it waits for the second attempt.
            person.interrupt("Stopped: the turn was cancelled.\n> ")
            person.write("Again?\n")
            assert "red \\x1b[31m\\x07\nsecond 🦊 line\n" in person.wait_for("\n\n> ")
            person.write("\x04")
            person.rest()
    assert ["cancelled", "cancelled", "answered"] == reasons(file)
    said = [e.data["message"] for e in events(file) if e.kind == "message.added"]
    assert ["system", "user", "user", "user", "user", "user", "assistant"] == [
        message["role"] for message in said
    ]
    assert f"{OBSERVATION}Stopped: the turn was cancelled." == said[2]["content"]
    assert not any("sev" in message["content"] for message in said)


def test_ctrl_c_twice_at_the_prompt_ends_the_chat(file):
    """The first one says so and drops what was typed; a line in between begins anew."""
    with chatting(file, "trip") as person:
        person.wait_for("\n> ")
        person.write("half a line")
        person.interrupt("Ctrl-C again ends the chat")
        person.wait_for("\n> ")
        person.write("/count\n")
        person.wait_for("Messages: 0\n> ")
        person.interrupt("Ctrl-C again ends the chat")
        person.wait_for("\n> ")
        person.write("\x03")
        while person.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                person.process.wait(PATIENCE_S)
                break
            person.interrupt_again()
        assert "Traceback" not in person.rest()
        assert 130 == person.process.returncode


def test_an_interrupt_ends_a_pipe(file):
    """From a pipe Ctrl-C ends the turn honestly, and the chat with exit code 130."""
    with serving() as server:
        server.script = [stay(server)]
        with subprocess.Popen(
            [*EVSTORE, "chat", file, "trip", *over(server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"Rome?\nAnd?\n")
            child.stdin.flush()
            assert b"Rome has sev" == child.stdout.read(12)
            complaint = b""
            while not complaint:
                child.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    _, complaint = child.communicate(timeout=PATIENCE_S)
    assert 130 == child.returncode
    assert b"Stopped: the turn was cancelled." in complaint
    assert ["cancelled"] == reasons(file)


def test_a_reader_that_leaves_ends_the_turn(file):
    """Where nobody reads the answer any more, the turn has its end, and the chat is over."""
    with (
        serving(lambda _: answer("x" * 300_000)) as server,
        subprocess.Popen(
            [*EVSTORE, "chat", file, "trip", *over(server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"Rome?\n")
        child.stdin.flush()
        child.stdout.read(10)
        child.stdout.close()
        child.wait(60)
    assert 141 == child.returncode
    assert ["cancelled"] == reasons(file)


def test_what_is_typed_and_no_text_is_told(file):
    """Bytes that are not UTF-8 are no message, and the next line is; a pipe sees no prompt."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*EVSTORE, "chat", file, "trip"],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    ) as child:
        os.write(leader, b"caf\xe9\n/count\n\x04")
        printed, told = child.communicate(timeout=60)
    os.close(follower)
    os.close(leader)
    assert (0, b"Messages: 0\n\n") == (child.returncode, printed)
    assert b"evstore: what was typed is not UTF-8 text\n" in told


# Between the lines.


@pytest.fixture
def person(monkeypatch) -> list[str]:
    """Let a person type the lines that a test puts here, and read what is printed."""
    lines: list[str] = []

    def typed(_prompt: str) -> str:
        if not lines:
            raise EOFError
        return lines.pop(0)

    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(asking, "is_piped_in", lambda: False)
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    return lines


class Interrupted(Chat):
    """A chat with which Ctrl-C comes in the midst of a command."""

    def redo(self) -> str | None:
        raise KeyboardInterrupt


def test_ctrl_c_interrupts_a_command_as_well(path, person, capsys):
    """Whatever is interrupted, the prompt is back."""
    person += ["/redo", "/at 0", "/count"]
    with SqliteStorage(path) as storage:
        assert Talk(Interrupted(storage, "trip", OfflineModel()), Screen(), str(path)).run()
    assert ["", "at 0", "Messages: 0", ""] == capsys.readouterr().out.splitlines()


def test_ctrl_c_again_does_not_disturb_the_end_of_a_turn(path, person, capsys, monkeypatch):
    """Pressed once more while the end is written down, Ctrl-C changes nothing about it."""
    reread = StoreJournal.reread

    def pressed_again(journal: StoreJournal, run: Run) -> Run:
        signal.raise_signal(signal.SIGINT)
        return reread(journal, run)

    def model(_messages: list[dict[str, Any]]) -> str:
        signal.raise_signal(signal.SIGINT)
        return answer("never said")

    monkeypatch.setattr(StoreJournal, "reread", pressed_again)
    person += ["Rome?"]
    with SqliteStorage(path) as storage:
        assert Talk(Chat(storage, "trip", model), Screen(), str(path)).run()
    assert "evstore: Stopped: the turn was cancelled.\n" in capsys.readouterr().err
    assert ["cancelled"] == reasons(str(path))
    assert signal.default_int_handler == signal.getsignal(signal.SIGINT)


class Finished(Chat):
    """A chat whose turn was cut off, and has been finished by another process meanwhile."""

    cut_off = "Hello"


def test_a_turn_that_others_have_finished_is_no_error(path, person, capsys):
    """Where there is nothing to resume any more, the chat just goes on."""
    person += ["/count"]
    with SqliteStorage(path) as storage:
        assert Talk(Finished(storage, "trip", OfflineModel()), Screen(), str(path)).run()
    assert ["Messages: 0", ""] == capsys.readouterr().out.splitlines()


def test_what_was_forgotten_has_its_line(person, capsys):
    """A message whose content was forgotten is shown as just that."""
    talk.show_messages([evstore.ERASED])
    assert "(forgotten)\n" == capsys.readouterr().out
