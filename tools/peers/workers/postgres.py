"""PostgreSQL: a server of its own on a socket, which flushes its log in each commit."""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

STARTING_S = 20
SCHEMA = """
create table message(id bigserial primary key, session text, data text);
create index by_session on message(session, id);
create table event(id bigserial primary key, name text, data text);
create table variable(name text primary key, data text);
"""


class Peer:
    """Tables of messages and of changes, and one of the present."""

    durability = "write-ahead log, flushed in each commit"

    def __init__(self, folder: Path) -> None:
        initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
        if initdb is None or postgres is None:
            raise FileNotFoundError("no initdb and postgres are on PATH")
        user = _user()
        # The name of a socket has to be short.
        data, self._sockets = str(folder / "data"), tempfile.mkdtemp(prefix="postgres-")
        for path in (str(folder), self._sockets):
            if user is not None:
                shutil.chown(path, user)
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "user": user, "cwd": folder}
        subprocess.run([initdb, "-D", data, "-A", "trust", "-U", "bench"], check=True, **quiet)
        command = [postgres, "-D", data, "-k", self._sockets, "-c", "listen_addresses="]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL, **quiet)
        try:
            self._connection: Any = _connected(self._sockets)
        except BaseException:
            self._stop()
            raise
        self.version = str(self._connection.info.parameter_status("server_version")).split()[0]
        self._connection.execute(SCHEMA)

    def append(self, message: dict[str, Any]) -> None:
        """Insert one row."""
        self._connection.execute(
            "insert into message(session, data) values('short', %s)", (json.dumps(message),)
        )

    def set(self, name: str, value: Any) -> None:
        """Insert the change and replace the present in one transaction."""
        row = (name, json.dumps(value))
        with self._connection.transaction():
            self._connection.execute("insert into event(name, data) values(%s, %s)", row)
            self._connection.execute(
                "insert into variable values(%s, %s)"
                " on conflict(name) do update set data = excluded.data",
                row,
            )

    def fill(self, messages: list[dict[str, Any]]) -> None:
        """Insert many rows."""
        rows = [(json.dumps(message),) for message in messages]
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany("insert into message(session, data) values('long', %s)", rows)

    def load(self) -> list[Any]:
        """Read and decode the rows of the long conversation."""
        query = "select data from message where session = 'long' order by id"
        return [json.loads(text) for (text,) in self._connection.execute(query)]

    def close(self) -> None:
        """Stop the server."""
        self._connection.close()
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)


def _user() -> str | None:
    """Return as whom the server is to run: it refuses to run as the administrator."""
    if os.geteuid() != 0:
        return None
    return "postgres" if any(each.pw_name == "postgres" for each in pwd.getpwall()) else "nobody"


def _connected(sockets: str) -> Any:
    end = time.monotonic() + STARTING_S
    while True:
        try:
            return psycopg.connect(host=sockets, user="bench", dbname="postgres", autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
