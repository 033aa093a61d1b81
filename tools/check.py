"""Check the whole project, the quickest check first, and stop at the first that fails."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent

STEPS = {
    "format": ["ruff format --check"],
    "lint": ["ruff check"],
    "types": ["mypy"],
    "imports": ["lint-imports --no-logo"],
    "tests": ["coverage erase", "coverage run -m pytest -q -n 2"],
    "coverage": ["coverage combine --quiet", "coverage report"],
}


def main() -> int:
    """Run the steps in their order and end with the time of each."""
    seconds: dict[str, float] = {}
    failed = ""
    for step, commands in STEPS.items():
        print(f"» {step}", flush=True)
        start = time.perf_counter()
        passed = all(run(command) for command in commands)
        seconds[step] = time.perf_counter() - start
        if not passed:
            failed = step
            break
    times = " · ".join(f"{step} {duration:.1f} s" for step, duration in seconds.items())
    print(f"\n{times} · in all {sum(seconds.values()):.1f} s")
    if failed:
        print(f"The step {failed} failed.", file=sys.stderr)
    return 1 if failed else 0


def run(command: str) -> bool:
    """Whether a program of this environment, started at the top of the project, is content."""
    program, *arguments = command.split()
    search = os.pathsep.join([str(PROGRAMS), os.environ.get("PATH", os.defpath)])
    environment = os.environ | {"PATH": search}  # so that tests find `evstore` as well
    command_line = [str(PROGRAMS / program), *arguments]
    return subprocess.run(command_line, cwd=ROOT, env=environment, check=False).returncode == 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
