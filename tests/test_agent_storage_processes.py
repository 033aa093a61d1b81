"""Conversations on the disk survive kills, and processes that save at once never mix them."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evstore.agent.files import TEMPORARY_PREFIX
from tests.agent_storages import ON_DISK, opened

CHILD_S_MAX = 60

OPENS = """
import itertools, os, sys
from evstore.agent import FileSystemStorage, SqliteStorage
folder = sys.argv[2]
if sys.argv[1] == "files":
    storage = FileSystemStorage(folder + "/sessions")
else:
    storage = SqliteStorage(folder + "/agents.db")
"""

# A conversation that grows, now and then begins anew, and is told of once it is saved.
GROWS = """
for number in itertools.count():
    length = number % 40
    text = f"{number} " + "x" * 2000
    storage.save("Growing", [{"role": "user", "content": text}] * length)
    os.write(1, b"%d\\n" % number)
"""

# Lists that tell who saved them, and how long they are.
SAVES = """
who = sys.argv[3]
for number in range(40):
    length = 1 + (int(who) * 7 + number) % 5
    message = {"role": "user", "content": f"{who} {length}"}
    for name in ("shared", "x" * 255):
        storage.save(name, [message] * length)
        history = storage.load(name)
        if len({message["content"] for message in history}) != 1:
            sys.exit(f"a mixture: {history}")
        if len(history) != int(history[0]["content"].split()[1]):
            sys.exit(f"a part: {history}")
    if number % 10 == 9:
        storage.delete(f"own {who} {number - 10}")
        storage.save(f"own {who} {number}", [message])
"""


def child(program: str, *arguments: object) -> "subprocess.Popen[bytes]":
    """A process that opens a storage and runs a program over it."""
    command = [sys.executable, "-c", OPENS + program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def killed(process: "subprocess.Popen[bytes]", after_s: float) -> int:
    """Kill a process a moment after it has begun to tell; return the last number that it told."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], CHILD_S_MAX)
    assert ready, "the child did not begin"
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    told, errors = process.communicate(timeout=CHILD_S_MAX)
    assert -signal.SIGKILL == process.returncode, errors.decode()
    return int(told.split(b"\n")[-2])


@pytest.mark.parametrize("kind", ON_DISK)
def test_what_was_told_as_saved_survives_a_kill(tmp_path: Path, kind: str):
    """After kill -9 in the midst of saves, the last list that was told, or the next, is whole."""
    for round_ in range(6):
        number = killed(child(GROWS, kind, tmp_path), 0.02 + 0.037 * round_)
        with opened(kind, tmp_path) as storage:
            assert ["Growing"] == storage.list_sessions()
            history = storage.load("Growing")
            lists = [
                [{"role": "user", "content": f"{told} " + "x" * 2000}] * (told % 40)
                for told in (number, number + 1)
            ]
            assert history in lists
            storage.save("Growing", [*history, {"role": "user", "content": "afterwards"}])
            assert history == storage.load("Growing")[:-1]
            storage.delete("Growing")
            assert [] == storage.list_sessions()
    if kind == "files":  # At most one that is half written for each kill, and nothing else.
        left = os.listdir(tmp_path / "sessions")
        assert len(left) <= 6
        assert all(name.startswith(TEMPORARY_PREFIX) for name in left)


@pytest.mark.parametrize("kind", ON_DISK)
def test_processes_never_mix_their_lists(tmp_path: Path, kind: str):
    """Each session ends as one of the lists that were saved, and every reader sees a whole one."""
    children = [child(SAVES, kind, tmp_path, who) for who in range(3)]
    for process in children:
        _, errors = process.communicate(timeout=CHILD_S_MAX)
        assert 0 == process.returncode, errors.decode()
    with opened(kind, tmp_path) as storage:
        own = [f"own {who} 39" for who in range(3)]
        assert [*own, "shared", "x" * 255] == storage.list_sessions()
        for name in ("shared", "x" * 255):
            history = storage.load(name)
            assert len(history) == int(history[0]["content"].split()[1])
            assert all(message == history[0] for message in history)
