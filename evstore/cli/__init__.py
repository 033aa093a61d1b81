"""The command line: `evstore VERB FILE [SESSION] …`, one sentence on stderr where it cannot."""

import os
import sys

MISUSE = 2
STOPPED = 130  # 128 and the number of the signal, as shells count it
_PACKAGES = ("click", "rich", "pygments", "markdown_it", "mdurl")


def main() -> int:
    """Run the command line and return its exit code; it needs the `cli` extra, and says so."""
    _open_what_is_closed()
    try:
        from evstore.cli.verbs import app
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _PACKAGES:
            raise
        from evstore.errors import MissingExtra

        print(f"evstore: {MissingExtra('cli')}", file=sys.stderr)
        return MISUSE
    except KeyboardInterrupt:  # Even before there is anything to interrupt.
        return STOPPED
    return app.run()


def _open_what_is_closed() -> None:
    """Let a standard stream that nobody has opened be one with nothing to read, or no listener."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The number that it gets is the lowest free one, which is its own.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
