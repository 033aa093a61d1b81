"""A target is a path unless it says otherwise, and a closed store says so everywhere."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import evstore
from evstore.errors import Closed, NotAStore, ReadOnly, Refused, Unavailable, Unsupported


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("agents.db", "agents.db"),
        ("notes:2024.db", "notes:2024.db"),
        ("http:x.db", "http:x.db"),
        ("SQLITE:x.db", "SQLITE:x.db"),
        ("sqlite.db", "sqlite.db"),
        ("file:x.db?mode=memory", "file:x.db?mode=memory"),
        ("a%20b?c#d.db", "a%20b?c#d.db"),
        ("sqlite:rel.db", "rel.db"),
        ("sqlite://rel.db", "rel.db"),
        (Path("redis:x.db"), "redis:x.db"),
        (Path("sqlite:x.db"), "sqlite:x.db"),
        (Path(":memory:"), ":memory:"),
        (Path("memory:"), "memory:"),
    ],
    ids=repr,
)
def test_what_a_target_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Any, name: str
):
    """A Path is a path; a text is one unless it begins with a scheme that evstore knows."""
    monkeypatch.chdir(tmp_path)
    with evstore.open(target) as store:
        store.session("s").variables["a"] = 1
        assert str(tmp_path / name) == store.stats().path
    assert [name] == os.listdir(tmp_path)
    with evstore.open(tmp_path / name, read_only=True) as store:
        assert {"a": 1} == store.session("s").variables


@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite://{}", "{}"])
def test_absolute_targets(path: Path, form: str):
    """`sqlite:/abs`, `sqlite:///abs` and `/abs` are the same file."""
    with evstore.open(form.format(path)) as store:
        assert str(path) == store.stats().path


@pytest.mark.parametrize("target", [":memory:", "memory:"])
def test_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str):
    """A store in memory is private, complete, and gone when it is closed."""
    monkeypatch.chdir(tmp_path)
    with evstore.open(target) as store, evstore.open(target) as other:
        store.session("s").variables["a"] = 1
        assert {"a": 1} == store.session("s").at(1).variables
        assert "s" not in other
        store.flush()
        assert (1, 1) == (store.stats().sessions, store.stats().events)
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    "target",
    ["redis://host", "rediss:x", "redis+cluster://host", "files:x", "grpc://host:1", "grpcs:x"],
)
def test_other_engines_are_unsupported(target: str):
    """A scheme whose engine is not there is Unsupported, not a file of a strange name."""
    with pytest.raises(Unsupported) as caught:
        evstore.open(target)
    assert target.partition(":")[0] in str(caught.value)


@pytest.mark.parametrize("durability", ["", "FULL", "off", None, 1], ids=repr)
def test_bad_durability(path: Path, durability: Any):
    """A durability is full or normal; anything else is refused, and no file is made."""
    with pytest.raises(Refused):
        evstore.open(path, durability=durability)
    assert not path.exists()


def test_both_durabilities_write(path: Path):
    """Handles of either durability write to the same file, at the same time."""
    with evstore.open(path) as full, evstore.open(path, durability="normal") as normal:
        full.session("s").variables["a"] = 1
        normal.session("s").variables["b"] = 2
        full.session("s").variables["c"] = 3
        normal.flush()
        assert {"a": 1, "b": 2, "c": 3} == normal.session("s").variables


def test_create_and_read_only(path: Path):
    """What is not there is created only if that is wanted."""
    with pytest.raises(Unavailable):
        evstore.open(path, create=False)
    with pytest.raises(Unavailable):
        evstore.open(path, read_only=True)
    assert not path.exists()
    with pytest.raises(Unavailable):
        evstore.open(path / "sub" / "agents.db")
    with pytest.raises(Unavailable):
        evstore.open(path.parent)
    evstore.open(path).close()
    evstore.open(path, create=False).close()
    assert 0o600 == path.stat().st_mode & 0o777
    other = path.with_name("other.db")
    other.write_bytes(b"not a database at all, but a text of some length" * 100)
    with pytest.raises(NotAStore):
        evstore.open(other)


def test_a_read_only_store_refuses_every_write(path: Path):
    """Through a read-only handle everything is read and nothing written."""
    with evstore.open(path) as store:
        store.session("s").variables["a"] = 1
        store.session("gone").variables["a"] = 1
        uid = store.session("gone").uid or ""
        store.delete("gone")
    with evstore.open(path, read_only=True) as store:
        session = store.session("s")
        assert ({"a": 1}, 1, ["s"]) == (
            dict(session.variables),
            session.head,
            [info.id for info in store.sessions()],
        )
        writes: list[Any] = [
            lambda: session.variables.update(a=2),
            lambda: session.messages.append({"role": "user"}),
            session.messages.clear,
            lambda: session.record("app.x"),
            lambda: session.fork("t"),
            lambda: session.transact(lambda batch: batch.variables.update(a=2)),
            lambda: store.delete("s"),
            lambda: store.restore(uid),
            lambda: store.session("new").variables.update(a=1),
        ]
        for write in writes:
            with pytest.raises(ReadOnly):
                write()
        with session.batch() as batch:
            assert {"a": 1} == batch.variables
        store.flush()
        with evstore.open(path) as writer:
            writer.session("s").variables["a"] = 2
        assert {"a": 2} == session.variables


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("target", ["file", ":memory:"])
def test_a_closed_store_says_so_everywhere(path: Path, target: str, others: int):
    """After close() every use of the store, its sessions, views and batches is Closed."""
    where = path if target == "file" else target
    more = [evstore.open(where) for _ in range(others)]
    store = evstore.open(where)
    session = store.session("s")
    session.variables["a"] = 1
    session.messages.append({"role": "user"})
    view, batch, uid = session.view(), session.batch().__enter__(), session.uid
    batch.variables["b"] = 2
    iterations = [session.events(), store.sessions(), iter(session.messages)]
    store.close()
    store.close()
    uses: list[Any] = [
        lambda: store.session("s", create=False),
        lambda: store.session(uid=uid),
        lambda: next(store.sessions()),
        lambda: "s" in store,
        lambda: store.delete("s"),
        lambda: store.restore(uid or ""),
        store.stats,
        store.flush,
        lambda: session.head,
        lambda: session.uid,
        lambda: session.variables["a"],
        lambda: list(session.variables),
        lambda: len(session.messages),
        lambda: session.variables.update(a=2),
        session.messages.clear,
        lambda: session.record("app.x"),
        session.batch,
        session.view,
        lambda: session.at(0),
        lambda: session.fork("t"),
        lambda: list(session.events()),
        lambda: list(view.messages),
        lambda: list(view.events()),
        lambda: view.variables.info("a"),
        lambda: batch.__exit__(None, None, None),
        *[lambda iteration=iteration: list(iteration) for iteration in iterations],
    ]
    for use in uses:
        with pytest.raises(Closed) as caught:
            use()
        assert str(caught.value).endswith("open it again with evstore.open")
    assert "evstore.Store" in repr(store)
    for other in more:
        other.session("t").variables["a"] = 1
        other.close()


def test_stats_count(store: evstore.Store, path: Path):
    """Stats tell how much is in the store, and how large it is."""
    empty = store.stats()
    assert (0, 0, 0, 0, 0) == (
        empty.sessions,
        empty.ended,
        empty.batches,
        empty.events,
        empty.text_bytes,
    )
    store.session("a").variables.update(a=1, b="x" * 10_000)
    store.session("b").variables["a"] = 1
    store.session("a").fork("c")
    store.delete("b")
    stats = store.stats()
    assert (2, 1, 4, 4) == (stats.sessions, stats.ended, stats.batches, stats.events)
    assert 10_000 < stats.text_bytes
    assert stats.data_bytes < stats.text_bytes
    assert str(path) == stats.path
    assert stats.wal_bytes == path.with_name("agents.db-wal").stat().st_size
    assert stats.file_bytes >= stats.data_bytes


def test_stats_count_expired_sessions_as_ended(path: Path):
    """A session counts as ended from its deadline on, swept or not."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with evstore.open(path, clock=lambda: now) as store:
        store.session("short", ttl=10).variables["a"] = 1
        store.session("long", ttl=20).variables["a"] = 1
        store.session("endless").variables["a"] = 1
        assert (3, 0) == (store.stats().sessions, store.stats().ended)
        now += timedelta(seconds=10)
        assert (2, 1) == (store.stats().sessions, store.stats().ended)
        store.sweep()
        assert (2, 1) == (store.stats().sessions, store.stats().ended)


@pytest.mark.parametrize("name", ["caf\udce9.db", "a\0b.db"], ids=ascii)
@pytest.mark.parametrize("form", ["{}", "sqlite:{}", Path], ids=["text", "scheme", "path"])
def test_a_name_that_sqlite_cannot_take_is_unavailable(tmp_path: Path, form: Any, name: str):
    """A path that is no UTF-8, or holds a NUL, is refused before anything is created."""
    target = f"{tmp_path}/{name}"
    with pytest.raises(Unavailable, match="UTF-8"):
        evstore.open(form(target) if form is Path else form.format(target))
    with evstore.open(":memory:") as store, pytest.raises(Unavailable, match="UTF-8"):
        store.backup(target)
    assert [] == os.listdir(tmp_path)


def test_a_folder_that_sqlite_cannot_take_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A relative path is refused as well where its folder is no UTF-8."""
    folder = tmp_path / "caf\udce9"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    monkeypatch.chdir(folder)
    with pytest.raises(Unavailable, match="UTF-8"):
        evstore.open("a.db")
    assert [] == os.listdir(folder)


@pytest.mark.parametrize(
    "ttl",
    [0, -1, "abc", True, datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)],  # noqa: DTZ001
    ids=repr,
)
def test_a_ttl_that_no_birth_could_take_is_refused(path: Path, ttl: Any):
    """A bad ttl is refused when the store is opened, by the clock that it will use."""
    clock = iter([datetime(2020, 1, 2, tzinfo=UTC)])
    with pytest.raises(Refused, match=r"ttl|naive"):
        evstore.open(path, ttl=ttl, clock=lambda: next(clock))
    assert not path.exists()


def test_the_last_handle_leaves_one_file(path: Path):
    """After all handles are closed, the store is a single file."""
    with evstore.open(path) as store, evstore.open(path) as other:
        store.session("s").variables["a"] = 1
        assert {"a": 1} == other.session("s").variables
    assert [path.name] == os.listdir(path.parent)


def test_who_only_reads_a_new_store_leaves_one_file(path: Path):
    """A store that was created and looked at is a single file once it is closed."""
    with evstore.open(path) as store:
        assert 0 == store.session("s").head
    assert [path.name] == os.listdir(path.parent)


def test_a_fallback_makes_values_storable(path: Path):
    """What has no lossless form is stored as what fallback= makes of it, at every door."""
    with evstore.open(path, fallback=repr) as store:
        session = store.session("s", metadata={"a": object})
        session.variables["a"] = [1, 2j]
        session.messages.append({"role": "user", "content": ...})
        session.record("app.x", {"a": print})
        with session.batch() as batch:
            batch.variables["b"] = 3j
        assert {"a": [1, "2j"], "b": "3j"} == session.variables
        assert [{"role": "user", "content": "Ellipsis"}] == session.messages
        assert {"a": "<class 'object'>"} == session.metadata


@pytest.mark.parametrize(
    ("wheel", "expected"),
    [("", "cksmvfs 1"), ("sqlite_extra._exts = ()", "None 1")],
    ids=["elsewhere", "nowhere"],
)
def test_page_checksums_are_looked_for_where_the_wheel_says(tmp_path, wheel, expected):
    """A wheel may keep its extensions elsewhere one day; without any, pages have no checksums."""
    program = f"""
import evstore
from apsw import sqlite_extra
from evstore.sqlite import pages
pages._EXTENSION = "/nowhere/cksumvfs"
{wheel}
with evstore.open({str(tmp_path / "a.db")!r}) as store:
    store.session("s").variables["a"] = 1
    print(pages.checksum_vfs(), store.session("s").variables["a"], end="")
"""
    assert expected == subprocess.check_output([sys.executable, "-c", program], text=True)
