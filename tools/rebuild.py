"""Make the present of a store what its log says: `python tools/rebuild.py FILE [SESSION]`."""

import sys

import evstore
from evstore import replay


def main(path: str, session: str | None = None) -> int:
    """Print one line per row that was not right, or `ok`; return 1 where there was one."""
    with evstore.open(path, create=False) as store:
        findings = replay.rebuild(store, session)
    for finding in findings:
        print(f"{finding.session or path} {finding.seq or ''} {finding.kind}: {finding.what}")
    if not findings:
        print("ok")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
