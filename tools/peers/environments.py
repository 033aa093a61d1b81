"""Each peer has an environment of its own, made once and kept in the cache folder."""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
REQUIREMENTS = HERE / "requirements"
OURS = ("evstore", "by_hand")  # these need nothing but what the benchmark itself runs in


class NotInstallable(Exception):
    """A peer cannot be had here; the message says why."""


def python(name: str, cache: Path) -> str:
    """Return the Python of a peer's environment, made if its requirements are new.

    Raises NotInstallable.
    """
    if name in OURS:
        return sys.executable
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    environment = cache.resolve() / name
    stamp, program = environment / "ready", environment / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return str(program)
    print(f"» installing {name}", file=sys.stderr, flush=True)
    venv.create(environment, clear=True, with_pip=True)
    command = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--requirement", str(REQUIREMENTS / f"{name}.txt")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise NotInstallable(_reason(result.stderr))
    stamp.write_text(wanted)
    return str(program)


def _reason(complaints: str) -> str:
    errors = [line for line in complaints.splitlines() if line.startswith("ERROR")]
    return errors[-1] if errors else "pip could not install it and gave no reason"
