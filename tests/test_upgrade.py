"""A file of an older version is brought to the newest in place, whole or not at all."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

import evstore
from evstore import replay
from evstore.errors import Corrupt, Unavailable
from evstore.sqlite import schema
from evstore.sqlite.pages import checksum_vfs
from tests.command_line import told


def said(content: Any) -> dict[str, Any]:
    """A message."""
    return {"role": "user", "content": content}


@pytest.fixture
def old(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of version 1, with something in it."""
    scripts = schema.scripts()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "scripts", lambda: scripts[:1])
        with evstore.open(path) as store:
            session = store.session("old")
            session.messages.extend(map(said, ("from long ago", "gone")))
            session.messages.pop()
            session.fork("fork")
    return path


def user_version(path: Path) -> int:
    connection = apsw.Connection(str(path), vfs=checksum_vfs())
    found = connection.pragma("user_version")
    connection.close()
    return int(found)


def test_a_file_of_version_1_is_upgraded_in_place(old):
    """An older file is brought to the newest version when it is opened, and can be searched."""
    assert 1 == user_version(old)
    with evstore.open(old) as store:
        assert [said("from long ago")] == store.session("old").messages
        assert [("old", 1, 0)] == [
            (hit.session, hit.seq, hit.index) for hit in store.search("long ago")
        ]
        assert [] == store.search("gone")
        assert [] == list(replay.verify(store, level="full"))
    assert schema.version() == user_version(old)
    with evstore.open(old, read_only=True) as reader:
        assert 2 == len(reader.search("long", session="fork") + reader.search("long"))


def test_to_the_doctor_an_older_file_is_not_damaged(old):
    """It is noted that the file has to be opened for writing before its content is examined."""
    checks = {check["name"]: check for check in told("doctor", str(old), "--json")}
    assert ("note", True) == (checks["format"]["state"], "for writing" in checks["format"]["what"])
    assert "content" not in checks
    evstore.open(old).close()
    assert {"ok"} == {check["state"] for check in told("doctor", str(old), "--json")}


def test_an_old_file_is_not_read_without_an_upgrade(old):
    """Opened for reading only an older file is refused, stays as it is, and the remedy helps."""
    content = old.read_bytes()
    with pytest.raises(Unavailable, match=r"has format 1\b.*open it once for writing"):
        evstore.open(old, read_only=True)
    assert content == old.read_bytes()
    evstore.open(old).close()
    evstore.open(old, read_only=True).close()


def test_an_old_file_that_was_changed_is_damage(old):
    """Before an upgrade the file must have the tables of its own version, and no other."""
    connection = apsw.Connection(str(old), vfs=checksum_vfs())
    connection.execute("create table extra(text)")
    connection.close()
    with pytest.raises(Corrupt, match="table extra"):
        evstore.open(old)
    assert 1 == user_version(old)


def test_many_upgrade_at_once(old):
    """Processes that open an older file at the same time all find it upgraded."""
    code = "import sys, evstore; evstore.open(sys.argv[1]).search('long')"
    command = [sys.executable, "-c", code, str(old)]
    children = [subprocess.Popen(command) for _ in range(3)]
    assert [0] * 3 == [child.wait() for child in children]
    with evstore.open(old) as store:
        assert [] == list(replay.verify(store, level="full"))


def test_an_upgrade_during_an_opening_disturbs_nobody(old, monkeypatch):
    """Who looks at an older file while another process upgrades it sees one version of it."""
    look = schema._catalog
    upgraded: list[int] = []

    def late(cursor: schema.Cursor) -> schema.Catalog:
        if not upgraded:
            code = "import sys, evstore; evstore.open(sys.argv[1]).close()"
            subprocess.run([sys.executable, "-c", code, str(old)], check=True)
            upgraded.append(user_version(old))
        return look(cursor)

    monkeypatch.setattr(schema, "_catalog", late)
    with evstore.open(old) as store:
        assert 1 == len(store.search("long ago"))
    assert [schema.version()] == upgraded
