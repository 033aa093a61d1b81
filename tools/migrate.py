"""Migrate a store into a new file: `python tools/migrate.py SOURCE TARGET [MODULE:FUNCTION]`."""

import importlib
import sys

import evstore
from evstore import replay


def main(source: str, target: str, named: str | None = None) -> int:
    """Copy all sessions, or write what a function makes of them, and print the counts."""
    transform = None
    if named is not None:
        module, _, function = named.partition(":")
        transform = getattr(importlib.import_module(module), function)
    with evstore.open(source, read_only=True) as store:
        print(replay.migrate(store, target, transform))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
