"""A program that must not share our environment has one of its own, made once and kept."""

import fcntl
import subprocess
import sys
import venv
from pathlib import Path


class NotInstallable(Exception):
    """An environment cannot be had here; the message says why."""


def python(requirements: Path, environment: Path) -> str:
    """Return the Python of an environment, made if its requirements are new.

    Of several who ask at once, one makes it. Raises NotInstallable.
    """
    wanted = requirements.read_text()
    environment = environment.resolve()
    environment.parent.mkdir(parents=True, exist_ok=True)
    stamp, program = environment / "ready", environment / "bin" / "python"
    with environment.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            _make(requirements, environment, program)
            stamp.write_text(wanted)
    return str(program)


def _make(requirements: Path, environment: Path, program: Path) -> None:
    print(f"» installing {environment.name}", file=sys.stderr, flush=True)
    venv.create(environment, clear=True, with_pip=True)
    command = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--requirement", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise NotInstallable(_reason(result.stderr))


def _reason(complaints: str) -> str:
    errors = [line for line in complaints.splitlines() if line.startswith("ERROR")]
    return errors[-1] if errors else "pip could not install it and gave no reason"
