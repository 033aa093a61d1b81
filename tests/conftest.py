"""What the tests share: stores whose events are checked when they close, and how hard to try."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import evstore
from evstore import registry, values
from tests.event_schemas import check_store

settings.register_profile(
    "default",
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("long", settings.get_profile("default"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store can be: a file that does not exist yet."""
    return tmp_path / "agents.db"


@pytest.fixture
def store(path: Path) -> Iterator[evstore.Store]:
    """An empty store in a file."""
    with evstore.open(path, durability="normal") as opened:
        yield opened
        check_store(opened)


@pytest.fixture
def memory() -> Iterator[evstore.Store]:
    """An empty store in memory."""
    with evstore.open(":memory:") as opened:
        yield opened
        check_store(opened)


@pytest.fixture
def session(store: evstore.Store) -> evstore.Session:
    """A session that is not born yet, in a file."""
    return store.session("trip")


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No class is registered yet, and what a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "by_class", {})
    monkeypatch.setattr(registry, "by_name", {})
    monkeypatch.setattr(values, "by_class", registry.by_class)
    monkeypatch.setattr(values, "by_name", registry.by_name)
