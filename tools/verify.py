"""Verify a store and say what is wrong: `python tools/verify.py FILE [heads|chain|full]`."""

import sys

import evstore
from evstore import replay


def main(path: str, level: str = "full") -> int:
    """Print one line per finding, or `ok`; return 1 where something was found."""
    with evstore.open(path, read_only=True) as store:
        findings = list(replay.verify(store, level=level))  # type: ignore[arg-type]
    for finding in findings:
        print(f"{finding.session or path} {finding.seq or ''} {finding.kind}: {finding.what}")
    if not findings:
        print("ok")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
