"""Redis: a server of its own on a socket, which flushes its log for every command."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

STARTING_S = 10


class Peer:
    """A list for each conversation and for the changes, and a hash of the present."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise FileNotFoundError("no redis-server is on PATH")
        # The name of a socket has to be short.
        self._sockets = tempfile.mkdtemp(prefix="redis-")
        socket = os.path.join(self._sockets, "socket")
        command = [program, "--port", "0", "--unixsocket", socket, "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._redis: Any = redis.Redis(unix_socket_path=socket)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        self.version = self._redis.info("server")["redis_version"]
        self.durability = "append-only file, flushed for each command"

    def _wait(self) -> None:
        end = time.monotonic() + STARTING_S
        while True:
            try:
                self._redis.ping()
            except redis.ConnectionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
            else:
                return

    def append(self, message: dict[str, Any]) -> None:
        """Push one message."""
        self._redis.rpush("short", json.dumps(message))

    def set(self, name: str, value: Any) -> None:
        """Push the change and set the present in one transaction."""
        text = json.dumps(value)
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.rpush("changes", json.dumps([name, value]))
            pipeline.hset("variables", name, text)
            pipeline.execute()

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Push many messages."""
        self._redis.rpush("long", *map(json.dumps, messages))

    def load(self) -> list[Any]:
        """Read and decode the long conversation."""
        return [json.loads(text) for text in self._redis.lrange("long", 0, -1)]

    def close(self) -> None:
        """Stop the server."""
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)
