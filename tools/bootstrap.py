"""Make .venv what the requirements say, starting from any Python, and do nothing if it already is.

It needs the standard library only, works where the system's Python is not to be touched (PEP 668)
or has no venv or no pip, and when it cannot go on it says what to install, in one sentence. Nothing
here is newer than Python 3.8, because an old Python can still find a new one.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / "ready"

OLDEST = (3, 11)
CANDIDATES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3", "python")

# The purposes, and those whose requirements include theirs.
INCLUDED_IN = {"demo": ("demo", "dev"), "dev": ("dev",)}

# The ways to make an environment, the plainest first: each is a list of commands.
RECIPES = (
    ("{python} -m venv {environment}",),
    (
        "{python} -m venv --without-pip {environment}",
        "{python} -m pip --python {environment} install pip",
    ),
    ("{python} -m virtualenv {environment}",),
    ("virtualenv --python {python} {environment}",),
    ("uv venv --seed --python {python} {environment}",),
)

# What the package managers of the system call the thing that is missing, and how they fetch it.
PACKAGES = {
    "apt-get": ("python{version}-venv", ("apt-get update", "apt-get install --yes {package}")),
    "dnf": ("python3-virtualenv", ("dnf install --assumeyes {package}",)),
    "apk": ("py3-virtualenv", ("apk add {package}",)),
}


class Stuck(Exception):
    """Nothing more can be done from here; the message says what a person can do."""


def prepare(purpose: str) -> None:
    """Leave an environment that is ready for the purpose, and a stamp that says so."""
    if is_ready(purpose):
        return
    if not is_working():
        make_environment(find_python())
    STAMP.unlink(missing_ok=True)  # until the end, this environment promises nothing
    print("Installing what it takes (once; this may be a minute) ...", flush=True)
    install("--require-hashes", "--requirement", str(ROOT / f"requirements-{purpose}.txt"))
    install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    STAMP.write_text(digest(purpose))


def is_ready(purpose: str) -> bool:
    """Whether the environment was completed for these requirements, or for more, in this place."""
    if not (PYTHON.exists() and STAMP.exists()):
        return False
    return STAMP.read_text() in [digest(wider) for wider in INCLUDED_IN[purpose]]


def digest(purpose: str) -> str:
    """All that an environment depends on, in one line."""
    files = (f"requirements-{purpose}.txt", "pyproject.toml")
    parts = (os.fsencode(ROOT), *((ROOT / file).read_bytes() for file in files))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_working() -> bool:
    """Whether the environment can install, and into itself: it may have been copied or moved."""
    pip = run(str(ENVIRONMENT / "bin" / "pip"), "--version")
    return pip.returncode == 0 and str(ENVIRONMENT) in pip.stdout


def find_python() -> str:
    """A Python that is new enough: the one running, else the newest on PATH."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for path in filter(None, map(shutil.which, CANDIDATES)):
        if run(path, "-c", f"import sys; sys.exit(sys.version_info < {OLDEST})").returncode == 0:
            return path
    raise Stuck("evstore needs Python 3.11 or newer: install one so that it is found on PATH.")


def make_environment(python: str) -> None:
    """Make an empty environment, with the help of the system's package manager if it must be."""
    print("Making an environment in .venv ...", flush=True)
    missing = "its venv module, or virtualenv"
    if any(follows(recipe, python) for recipe in RECIPES):
        return
    for manager in filter(shutil.which, PACKAGES):
        package, commands = PACKAGES[manager]
        version = run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").stdout
        missing = package.format(version=version.strip())
        print(f"This Python has no venv: asking {manager} for {missing} ...", flush=True)
        administrator = () if os.geteuid() == 0 else ("sudo", "-n")  # never ask for a password
        for command in commands:
            run(*administrator, *command.format(package=missing).split())
        if any(follows(recipe, python) for recipe in RECIPES):
            return
    raise Stuck(f"{python} cannot make environments: install {missing}, and try again.")


def follows(recipe: "tuple[str, ...]", python: str) -> bool:
    """Whether following a recipe gives a working environment."""
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    words = {"python": python, "environment": str(ENVIRONMENT)}
    commands = [[word.format(**words) for word in command.split()] for command in recipe]
    return all(run(*command).returncode == 0 for command in commands) and is_working()


def install(*what: str) -> None:
    """Install with the environment's own pip, and of its complaints show the last."""
    pip = (str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    result = run(*pip, *what)
    if result.returncode != 0:
        complaints = [line for line in result.stdout.splitlines() if line.startswith("ERROR")]
        reason = complaints[-1] if complaints else "pip gave no reason"
        raise Stuck(f"The requirements could not be installed; is there a network? {reason}")


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a program without a terminal and keep what it says; one that is missing has failed."""
    try:
        return subprocess.run(
            command, check=False, errors="replace", stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "")


if __name__ == "__main__":
    if sys.argv[1:] not in [[purpose] for purpose in INCLUDED_IN]:
        sys.exit("usage: bootstrap.py demo|dev")
    try:
        prepare(sys.argv[1])
    except (Stuck, OSError) as reason:
        sys.exit(str(reason))
    except KeyboardInterrupt:
        sys.exit(130)
