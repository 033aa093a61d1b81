"""Make the present of a store anew from its log: `python tools/rebuild.py FILE`."""

import sys

import evstore
from evstore import replay


def main(path: str) -> int:
    """Rebuild and print the SHA-256 of the present before and after; return 1 where they differ."""
    with evstore.open(path, create=False) as store:
        before = replay.fingerprint(store)
        replay.rebuild(store)
        after = replay.fingerprint(store)
    print(f"before {before}\nafter  {after}")
    return 0 if before == after else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
