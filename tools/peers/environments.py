"""Each peer has an environment of its own, kept in the cache folder."""

import sys
from pathlib import Path

from tools import environments

REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
OURS = ("evstore", "by_hand")  # these need nothing but what the benchmark itself runs in


def python(name: str, cache: Path) -> str:
    """Return the Python of a peer's environment; raises NotInstallable."""
    if name in OURS:
        return sys.executable
    return environments.python(REQUIREMENTS / f"{name}.txt", cache / name)
