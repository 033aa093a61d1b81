"""What other libraries write and read back: the real ones, each in an environment of its own.

`tools/importers/NAME.py` makes files with a library, in the versions of `NAME.txt` beside it, and
prints as JSON what the library itself reads from them.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import environments

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "tools" / "importers"


def made_by(name: str, folder: Path) -> Any:
    """Let a library write into a folder; return what it reads back.

    The first time, its environment is made, which needs the package registry: whoever has none, and
    is no CI, skips what needs it.
    """
    try:
        program = environments.python(SCRIPTS / f"{name}.txt", ROOT / "build" / "importers" / name)
    except environments.NotInstallable as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"{name} cannot be installed here: {error}")
    # -P, or a script would be imported in place of the library that it is named after.
    command = [program, "-P", str(SCRIPTS / f"{name}.py"), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == result.returncode, result.stderr
    return json.loads(result.stdout)
