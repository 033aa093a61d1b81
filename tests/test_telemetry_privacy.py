"""No value ever leaves through telemetry, and no name of a variable unless that was asked for."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore import Limits, telemetry
from evstore.errors import EvstoreError
from tests.exports import exporting

# What is secret begins with this, so that it is found wherever it is, and is nothing else.
MARK = "zq7x"
SECRETS = st.text("abcdefghijklmnopqrstuvwxyz0123456789é", min_size=4, max_size=12).map(
    lambda text: MARK + text
)
NAMES = st.text("abcdef", min_size=1, max_size=3).map(lambda text: "vk9w" + text)
SCALARS = SECRETS | SECRETS.map(str.encode) | SECRETS.map(lambda text: frozenset([text]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(SECRETS, inner, max_size=3)
    ),
    max_leaves=5,
) | SECRETS.map(lambda text: text * 200)
UNSTORABLE = SECRETS.map(lambda text: {text: object()})
MESSAGES = st.builds(
    lambda content, more: {"role": "user", "content": content, more: 1}, VALUES, SECRETS
)

Step = Callable[[evstore.Session], Any]


def batch(actor: str, key: str, cause: str, name: str, value: Any) -> Step:
    def act(session: evstore.Session) -> None:
        with session.batch(actor=actor, key=key, cause=cause) as one:
            one.variables[name] = value
            one.messages.append({"role": "tool", "content": value})

    return act


def merge(name: str, ours: Any, theirs: Any) -> Step:
    def act(session: evstore.Session) -> None:
        branch = session.fork(f"branch-{session.head}")
        session.variables[name], branch.variables[name] = ours, theirs
        session.merge(branch)
        session.merge(branch, prefer="theirs")

    return act


def broken(text: str) -> Step:
    def act(session: evstore.Session) -> None:
        def fail(_batch: evstore.Batch) -> None:
            raise ValueError(text)

        session.transact(fail)

    return act


def kind_of(secret: str) -> str:
    return f"app.{re.sub('[^a-z0-9]', 'x', secret)}"


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        lambda name, value: lambda s: s.variables.set(name, value), NAMES, VALUES | UNSTORABLE
    ),
    st.builds(lambda name, value: lambda s: s.variables.set(name, value, expect=99), NAMES, VALUES),
    st.builds(lambda name: lambda s: s.variables.set(name, "x" * 9000), NAMES),
    st.builds(lambda name, value: lambda s: s.variables.setdefault(name, value), NAMES, VALUES),
    st.builds(lambda names: lambda s: s.variables.update(names), st.dictionaries(NAMES, VALUES)),
    st.builds(lambda name: lambda s: s.variables[name], NAMES),
    st.builds(lambda name: lambda s: s.variables.pop(name), NAMES),
    st.builds(lambda: lambda s: s.variables.popitem()),
    st.builds(lambda name, value: lambda s: s.metadata.set(name, value), SECRETS, VALUES),
    st.builds(lambda name: lambda s: s.metadata[name], SECRETS),
    st.builds(lambda message: lambda s: s.messages.append(message), MESSAGES | UNSTORABLE),
    st.builds(
        lambda message, why: lambda s: s.messages.replace(0, message, why), MESSAGES, SECRETS
    ),
    st.builds(lambda why: lambda s: s.messages.remove(-1, why), SECRETS),
    st.builds(lambda kind, data: lambda s: s.record(kind_of(kind), data), SECRETS, VALUES),
    st.builds(lambda name: lambda s: s.label(name), SECRETS),
    st.builds(lambda name: lambda s: s.at(name), SECRETS),
    st.builds(batch, SECRETS, SECRETS, SECRETS, NAMES, VALUES),
    st.builds(merge, NAMES, VALUES, VALUES),
    st.builds(broken, SECRETS),
    st.builds(lambda: lambda s: s.undo()),
    st.builds(lambda: lambda s: s.revert(0)),
)


def act_all(steps: list[Step]) -> None:
    """Take steps on a session; what refuses one of them refuses that one alone."""
    with evstore.open(":memory:", limits=Limits(value_bytes_max=5000, variables_max=4)) as store:
        session = store.session("trip")
        for step in steps:
            with suppress(EvstoreError, LookupError, ValueError):
                step(session)
        session.messages.append({"role": "user", "content": MARK})
        telemetry.summary(store)


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=12))
def test_no_value_and_no_name_is_exported(steps):
    """Spans, metrics, Prometheus and the log hold no value, name, message, actor, key or label."""
    with exporting() as exports:
        act_all(steps)
        everything = exports.everything()
    assert "evstore.session.message.append" in everything
    assert [] == [line for line in everything.splitlines() if MARK in line or "vk9w" in line]


@settings(max_examples=50)
@given(st.lists(STEPS, max_size=12))
def test_names_are_exported_in_one_attribute(steps):
    """With names=True they are in the one attribute of spans that says so, and nowhere else."""
    with exporting(names=True) as exports:
        act_all(steps)
        told = [dict(span.attributes or {}) for span in exports.spans()]
        names = [each.pop("evstore.variable.name", "vk9w") for each in told]
        rest = f"{told}{exports.prometheus()}{exports.logged}"
        everything = exports.everything()
    assert {"vk9w"} == {str(name)[:4] for name in names}
    assert "vk9w" not in rest
    assert MARK not in everything


def test_no_path_is_exported(tmp_path: Path):
    """Neither spans nor the log say where the file of a store lies."""
    with exporting() as exports:
        with evstore.open(tmp_path / f"{MARK}.db") as store:
            store.session("trip").variables["city"] = "Rome"
        everything = exports.everything()
    assert "appended" in everything
    assert MARK not in everything


def test_the_search_for_secrets_finds_them():
    """A value in an attribute, an event, a label of a metric or the log would be found."""
    with exporting() as exports:
        with exports.tracers.get_tracer("t").start_as_current_span("s") as span:
            span.add_event(f"{MARK}-event")
            span.set_attribute("a", f"{MARK}-attribute")
            with suppress(ValueError), exports.tracers.get_tracer("t").start_as_current_span("e"):
                raise ValueError(f"{MARK}-exception")
        exports.meters.get_meter("m").create_counter("c").add(1, {"a": f"{MARK}-label"})
        exports.logged.append(f"{MARK}-log")
        everything = exports.everything()
    for place in ("event", "attribute", "exception", "label", "log"):
        assert f"{MARK}-{place}" in everything
