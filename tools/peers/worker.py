"""One peer in a process and an environment of its own: it does what it is told, and tells the time.

    python worker.py NAME FOLDER

Each line that comes is a work and how often it is to be done; each line that goes is how long every
call took, in µs. This file runs where only the peer and the standard library are installed.
"""

import asyncio
import importlib.util
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

MESSAGE = {"role": "user", "content": "The trip should begin in Rome and end in Naples. " * 6}
VALUE = {"city": "Rome", "nights": 3}
NAMES = 100
FILLING_S = 10.0  # peers that are slow at filling are measured with what they have by then
FILLED_AT_ONCE = 500


class Worker:
    """A peer, and the loop that its awaited calls need."""

    def __init__(self, peer: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._peer = peer
        self._loop = loop
        self._turn = 0
        self._filled = 0

    def run(self, work: str, times: int) -> dict[str, Any]:
        """Do a work some times and return how long each took, or None if the peer has no such."""
        if not hasattr(self._peer, work):
            return {"took_us": None}
        if work == "fill":
            self._fill(times)
            return {"count": self._filled}
        took_us = self._loop.run_until_complete(self._timed(work, times))
        return {"took_us": took_us, "count": self._filled}

    async def _timed(self, work: str, times: int) -> list[float]:
        method = getattr(self._peer, work)
        awaited = inspect.iscoroutinefunction(method)
        took_us = []
        for _ in range(times):
            self._turn += 1
            arguments = self._arguments(work)
            start = time.perf_counter_ns()
            if awaited:
                found = await method(*arguments)
            else:
                found = method(*arguments)
            took_us.append((time.perf_counter_ns() - start) / 1000)
            if work == "load" and len(found) != self._filled:
                raise ValueError(f"{self._filled} messages were kept, {len(found)} came back")
        return took_us

    def _arguments(self, work: str) -> tuple[Any, ...]:
        if work == "append":
            return (dict(MESSAGE),)
        return (f"name{self._turn % NAMES}", dict(VALUE)) if work == "set" else ()

    def _fill(self, count: int) -> None:
        """Keep messages for loading, a few hundred at a time."""
        end = time.perf_counter() + FILLING_S
        while self._filled < count and time.perf_counter() < end:
            several = min(FILLED_AT_ONCE, count - self._filled)
            found = self._peer.fill([dict(MESSAGE) for _ in range(several)])
            if inspect.iscoroutine(found):
                self._loop.run_until_complete(found)
            self._filled += several


def opened(name: str, folder: Path) -> Any:
    """Return the peer of that name, at work in a folder."""
    path = Path(__file__).resolve().parent / "workers" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"peer_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # some find their classes again by the module's name
    spec.loader.exec_module(module)
    return module.Peer(folder)


def main(name: str, folder: str) -> None:
    """Answer until nothing more comes."""
    out, sys.stdout = sys.stdout, sys.stderr  # what a peer prints is no answer

    def say(**answer: Any) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        peer = opened(name, Path(folder))
        if hasattr(peer, "begin"):
            loop.run_until_complete(peer.begin())
        say(version=peer.version, durability=peer.durability)
        worker = Worker(peer, loop)
        try:
            for line in sys.stdin:
                say(**worker.run(**json.loads(line)))
        finally:
            if hasattr(peer, "close"):
                peer.close()
    except Exception as error:  # noqa: BLE001 - the reason goes into the table
        say(error=f"{type(error).__name__}: {error}".splitlines()[0])


if __name__ == "__main__":
    # A script's folder comes first on the path; there, nothing of a peer's name may be found.
    sys.path.pop(0)
    main(*sys.argv[1:])
