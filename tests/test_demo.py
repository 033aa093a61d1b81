"""The demonstration does the whole job on what people really said, and on anybody's own file."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import evstore
from evstore import replay
from evstore.cli import dialogues
from evstore.cli.verbs import app

HELLO = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    {"role": "tool", "content": "42", "tool_call_id": "1"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "Bye"},
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the demonstration leaves its file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def demo(*arguments: str) -> Result:
    """Run the demonstration."""
    return CliRunner().invoke(app, ["demo", *arguments])


def given(content: Any) -> str:
    """The name of a file that holds conversations."""
    text = content if isinstance(content, str) else json.dumps(content)
    Path("given file.json").write_text(text, "utf-8")
    return "given file.json"


def test_the_corpus_is_recorded_and_rebuilt(folder):
    """Hundreds of real dialogues are recorded, verified and rebuilt to the same SHA-256."""
    result = demo()
    assert (0, "") == (result.exit_code, result.stderr)
    before, after = re.findall(r"^(?:before|after) +([0-9a-f]{64})$", result.stdout, re.MULTILINE)
    assert before == after
    with evstore.open(folder / "evstore-demo.db") as store:
        assert before == replay.fingerprint(store)
        assert 2000 < sum(1 for _ in store.sessions())
        assert [] == list(replay.verify(store, level="full"))
        hello = store.session("conversations/002")
        assert "Hello" == hello.messages[0]["content"]
        assert 7 == hello.variables["turn"]
        assert 8 == len(hello.at(18).messages)
        assert 9 == len(store.session("conversations/002/what-if").messages)
    assert "\x1b" not in result.stdout


def test_a_second_demonstration_takes_a_fresh_name(folder):
    """No demonstration writes over the file of the one before."""
    file = given([HELLO])
    assert 0 == demo(file).exit_code
    before = hashlib.sha256((folder / "evstore-demo.db").read_bytes()).digest()
    assert "evstore-demo-2.db" in demo(file).stdout
    assert "evstore-demo-3.db" in demo(file).stdout
    assert before == hashlib.sha256((folder / "evstore-demo.db").read_bytes()).digest()
    for name in ("evstore-demo.db", "sqlite:evstore-demo.db"):
        result = demo(file, "-o", name)
        assert 2 == result.exit_code
        assert "already there" in result.stderr


@pytest.mark.parametrize(
    "content",
    [
        HELLO,
        [HELLO],
        {"messages": HELLO},
        [{"traj": HELLO, "more": 1}, {"conversation": HELLO}, []],
        "\n".join(json.dumps({"messages": HELLO}) for _ in range(3)) + "\n\n",
        "\ufeff" + json.dumps([HELLO]),
    ],
)
def test_conversations_come_in_many_shapes(folder, content):
    """A list, a list of lists, objects that hold one, and lines of them are all understood."""
    result = demo(given(content), "-o", "a store.db")
    assert (0, "") == (result.exit_code, result.stderr)
    assert "evstore ls 'a store.db'" in result.stdout
    with evstore.open(folder / "a store.db") as store:
        assert HELLO == list(store.session("given-file/0001").messages)
        assert "given-file" == store.session("given-file/0001").metadata["topic"]


def test_a_single_exchange_is_enough():
    """The shortest conversation has a past to travel to as well."""
    assert 0 == demo(given([[{"role": "user", "content": "Hi"}]])).exit_code
    assert 0 == demo(given([[{"role": "assistant"}, {"role": "user"}]])).exit_code


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "line 1 of given file.json is no JSON"),
        ("[]", "holds no conversation"),
        ("3", "conversation 1 of given file.json is none"),
        ({"other": HELLO}, "conversation 1"),
        ([HELLO, 3], "conversation 2"),
        ([[{"role": 1}]], "conversation 1"),
    ],
)
def test_what_is_no_conversation_is_refused(folder, content, words):
    """Another file is refused in one sentence that says what to give, and leaves no store."""
    result = demo(given(content))
    assert 2 == result.exit_code
    assert words in result.stderr
    assert [] == list(folder.glob("*.db"))


def test_what_is_no_text_is_refused():
    """Bytes that are no UTF-8 are refused, and a file that is not there is named."""
    Path("bytes").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in demo("bytes").stderr
    assert "nowhere" in demo("nowhere").stderr


def test_without_the_corpus_it_says_what_to_install(monkeypatch):
    """Where the corpus is not installed, one sentence says how to get it."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    result = demo()
    assert 2 == result.exit_code
    assert "pip install 'evstore[demo]'" in result.stderr


def test_a_rebuild_that_differs_is_exit_1(monkeypatch):
    """Where the rebuilt present is another one, the demonstration says so and fails."""
    prints = iter("ab")
    monkeypatch.setattr(replay, "fingerprint", lambda store: next(prints))
    result = demo(given([HELLO]))
    assert 1 == result.exit_code
    assert "not the same" in result.stdout


def test_a_finding_is_exit_1(monkeypatch):
    """Where verifying finds something, the demonstration shows it and fails."""
    finding = replay.Finding("s", 1, "link", "it does not fit")
    monkeypatch.setattr(replay, "verify", lambda store, level: iter([finding]))
    result = demo(given([HELLO]))
    assert 1 == result.exit_code
    assert "s at 1: link: it does not fit" in result.stdout


def test_the_dialogues_are_what_people_wrote():
    """Every dialogue of the corpus has messages, turn by turn, and an id of its own."""
    found = list(dialogues.corpus())
    assert len(found) == len({conversation.id for conversation in found})
    assert all(
        {"user", "assistant"} >= {message["role"] for message in conversation.messages}
        for conversation in found
    )


@pytest.mark.parametrize("name", ["it's $HOME.db", "-x.db"])
def test_the_next_commands_name_any_file(name):
    """The commands to go on with are quoted for the shell."""
    result = demo(given([HELLO]), "-o", name)
    commands = result.stdout.partition("Go on with")[2].strip().splitlines()
    for command in commands:
        words = shlex.split(command.partition(" | ")[0])
        assert name in words
        assert not name.startswith("-") or "--" in words[: words.index(name)]
        shown = CliRunner().invoke(app, words[1:])
        assert 0 == shown.exit_code, command


def test_the_next_commands_can_be_typed_as_they_stand(folder):
    """Where evstore is not on PATH, the commands to go on with name the program that ran."""
    program = Path(sys.executable).parent / "evstore"
    (folder / "chat.json").write_text(json.dumps([HELLO]), "utf-8")
    done = subprocess.run(
        [program, "demo", "chat.json", "-o", "chat.db"],
        cwd=folder,
        env={**os.environ, "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"  {os.path.relpath(program, folder)} ls chat.db" in done.stdout.splitlines()
