"""Telemetry tells what happened, how long it took and how large it was; off, it is not there."""

import ast
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import StatusCode

import evstore
from evstore import aio, observing, telemetry
from evstore.errors import Busy, Closed, Conflict, Corrupt, Taken, TooMany
from evstore.sqlite import database
from tests.event_loops import LOOPS, EventLoop
from tests.exports import Exports, exporting

USER = {"role": "user", "content": "Rome?"}
SET = "evstore.session.variable.set"
GET = "evstore.session.variable.get"
DELETE = "evstore.session.variable.delete"
STEPS = {
    "session.batch": lambda s: s.variables.update(a=1, b=2),
    "session.delete": lambda s: None,
    "session.fork": lambda s: s.fork("branch"),
    "session.label": lambda s: s.label("here"),
    "session.merge": lambda s: s.merge(s.fork("other")),
    "session.message.append": lambda s: s.messages.append(USER),
    "session.message.clear": lambda s: s.messages.clear(),
    "session.message.remove": lambda s: s.messages.pop(),
    "session.message.replace": lambda s: s.messages.replace(0, USER),
    "session.metadata.delete": lambda s: s.metadata.pop("m"),
    "session.metadata.set": lambda s: s.metadata.setdefault("n", 1),
    "session.record": lambda s: s.record("app.x", 1),
    "session.redo": lambda s: (s.undo(), s.redo()),
    "session.revert": lambda s: s.revert(1),
    "session.undo": lambda s: s.undo(),
    "session.variable.delete": lambda s: s.variables.popitem(),
    "session.variable.set": lambda s: s.variables.set("v", 1, ttl=60),
}

ROOT = Path(evstore.__file__).parent
LOOK = "observing.observer"
PLACES = (
    "engine.append",
    "events._encode",
    "group._lead",
    "hands._begin",
    "manager.get_variable",
    "session.fork",
    "variables.__getitem__",
    "variables.value_of",
)


@pytest.fixture
def exports() -> Iterator[Exports]:
    """What is exported while telemetry is on, without names."""
    with exporting() as found:
        yield found


def begun(session: evstore.Session) -> evstore.Session:
    """Return a session with something of everything, recorded before anybody watches."""
    session.variables["v"] = 0
    session.metadata["m"] = 0
    session.messages.append(USER)
    return session


# Steps.


@pytest.mark.parametrize("step", STEPS)
def test_each_step_has_a_span_and_a_duration(step, store, session):
    """A step that writes is a span with its session, and a point in a histogram of seconds."""
    begun(session)
    with exporting() as exports:
        STEPS[step](session)
        if step == "session.delete":
            store.delete("trip")
        told = exports.told(f"evstore.{step}")
        expected = "branch" if step == "session.fork" else "trip"
        assert expected == told[-1]["gen_ai.conversation.id"]
        assert "s" == exports.metrics()[f"evstore.{step}.duration"]
        span = exports.spans(f"evstore.{step}")[-1]
        (point,) = exports.points(f"evstore.{step}.duration")
    assert StatusCode.UNSET == span.status.status_code
    assert 0 < point.sum < 10
    assert point.sum == pytest.approx(((span.end_time or 0) - (span.start_time or 0)) / 1e9)


def test_a_set_tells_size_type_and_count(session, exports):
    """A set tells the bytes and type of the value, and how many variables there are then."""
    session.variables["a"] = 1
    session.variables["b"] = (1, "two")
    first, second = exports.told(SET)
    assert ("int", 1, 1, 1) == told_of_set(first)
    assert ("tuple", 20, 2, 1) == told_of_set(second)
    assert "evstore.variable.name" not in second
    sizes = {p.attributes["evstore.variable.type"]: p.sum for p in exports.points(f"{SET}.size")}
    assert {"int": 1, "tuple": 20} == sizes
    (counts,) = exports.points("evstore.session.variables")
    assert (2, 3) == (counts.count, counts.sum)
    assert "By" == exports.metrics()[f"{SET}.size"]


def test_a_message_tells_its_own_size(session, exports):
    """What an append tells is the size of the message, without what its event has around it."""
    session.messages.append({"role": "user"})
    (told,) = exports.told("evstore.session.message.append")
    assert len('{"role":"user"}') == told["evstore.size"]
    (sizes,) = exports.points("evstore.session.message.append.size")
    assert (1, len('{"role":"user"}')) == (sizes.count, sizes.sum)


def told_of_set(told):
    return tuple(
        told[f"evstore.{name}"]
        for name in ("variable.type", "size", "session.variable.count", "event.count")
    )


def test_a_get_tells_whether_it_found_and_has_no_span(session, exports):
    """A read is measured by type, and by whether the variable was there; it is no span."""
    session.variables["a"] = {"x": [1]}
    before = len(exports.spans())
    assert {"x": [1]} == session.variables["a"]
    assert session.view().variables.get("b") is None
    assert session.metadata.get("c") is None
    assert before == len(exports.spans())
    told = {p.attributes["evstore.variable.found"]: p for p in exports.points(f"{GET}.duration")}
    assert "dict" == told[True].attributes["evstore.variable.type"]
    assert (1, 1) == (told[True].count, told[False].count)
    (size,) = exports.points(f"{GET}.size")
    assert len('{"x":[1]}') == size.sum
    (other,) = exports.points("evstore.session.metadata.get.duration")
    assert other.attributes["evstore.variable.found"] is False


def test_a_delete_tells_whether_it_found(session, exports):
    """To delete what is absent is an answer and no failure: found is False."""
    session.variables["a"] = 1
    del session.variables["a"]
    with pytest.raises(KeyError):
        del session.variables["a"]
    assert 5 == session.variables.pop("a", 5)
    assert [True, False, False] == [told["evstore.variable.found"] for told in exports.told(DELETE)]
    assert {StatusCode.UNSET} == {span.status.status_code for span in exports.spans(DELETE)}
    assert [] == exports.points("evstore.errors")


def test_names_are_told_where_they_are_wanted(session):
    """With names=True the span of a set or delete carries the name; no metric does."""
    with exporting(names=True) as exports:
        session.variables["city"] = "Rome"
        assert "Rome" == session.variables.pop("city")
        session.metadata["owner"] = "ada"
        for step in (SET, DELETE):
            assert ["city"] == [told["evstore.variable.name"] for told in exports.told(step)]
        assert "city" not in exports.prometheus()
        assert "evstore.variable.name" not in exports.told("evstore.session.metadata.set")[0]


def test_serialization_is_measured_apart(session, exports):
    """What makes a value its text, and again a value, has a histogram of its own."""
    session.variables["a"] = [1]
    session.messages.append(USER)
    session.record("app.x", 1)
    assert [1] == session.variables["a"]
    points = exports.points("evstore.serialization.duration")
    counts = {p.attributes["evstore.serialization.direction"]: p.count for p in points}
    assert {"encode": 3, "decode": 1} == counts


def test_several_events_are_a_batch(store, session, exports):
    """Several events in one commit are one span, and each is counted by its kind."""
    with session.batch() as batch:
        batch.variables["a"] = 1
        batch.messages.append(USER)
        batch.record("app.order.placed", 1)
        batch.messages.remove(0)
    (told,) = exports.told("evstore.session.batch")
    assert (4, 1) == (told["evstore.event.count"], told["evstore.session.variable.count"])
    kinds = {p.attributes["evstore.event.kind"]: p.value for p in exports.points("evstore.events")}
    assert {"variable.set": 1, "message.added": 1, "message.removed": 1, "app": 1} == kinds
    with store.transaction() as both:
        both.batch(session).variables["b"] = 1
        both.batch(store.session("other")).variables["b"] = 1
    (told,) = exports.told("evstore.transaction")
    assert (2, 2) == (told["evstore.event.count"], told["evstore.session.count"])
    assert "gen_ai.conversation.id" not in told


def test_a_batch_recorded_before_is_told_as_such(session, exports):
    """What a key has recorded before is not counted again."""
    for _ in range(2):
        with session.batch(key="k", expect=evstore.ANY) as batch:
            batch.variables["a"] = 1
    first, second = exports.told(SET)
    assert ("evstore.replayed" in first, second["evstore.replayed"]) == (False, True)
    assert 0 == second["evstore.event.count"]


def test_a_merge_tells_its_conflicts(session, exports):
    """A merge that is not decided tells how many variables both sides changed."""
    session.variables["a"] = 1
    branch = session.fork("branch")
    session.variables["a"], branch.variables["a"] = 2, 3
    assert 1 == len(session.merge(branch).conflicts)
    (told,) = exports.told("evstore.session.merge")
    assert (1, 0) == (told["evstore.merge.conflict.count"], told["evstore.event.count"])


def test_compression_is_told_for_what_is_compressed(session, exports):
    """The ratio is what is left of a large text, delta or full copy; small ones have none."""
    session.variables["small"] = 1
    session.messages.append({"role": "user", "content": "x" * 10_000})
    (ratio,) = exports.points("evstore.compression.ratio")
    assert 1 == ratio.count
    assert 0 < ratio.sum < 0.05
    session.variables["large"] = "x" * 1000
    session.variables["large"] = "x" * 1001
    (ratio,) = exports.points("evstore.compression.ratio")
    assert 3 == ratio.count


def test_the_log_ahead_of_the_file_is_measured(store, session, path, exports):
    """The gauge is the size of the write-ahead log, and 0 once the store is closed."""
    assert [0] == [point.value for point in exports.points("evstore.wal.size")]
    session.variables["a"] = 1
    size = Path(f"{path}-wal").stat().st_size
    assert [size] == [point.value for point in exports.points("evstore.wal.size")]
    store.close()
    assert [0] == [point.value for point in exports.points("evstore.wal.size")]


def test_a_span_belongs_to_that_of_its_caller(session, exports):
    """A step inside a span of the application is its child, and lies within its time."""
    with exports.tracers.get_tracer("app").start_as_current_span("turn") as turn:
        session.variables["a"] = 1
    (child,), (whole,) = exports.spans(SET), exports.spans("turn")
    assert child.parent is not None
    assert turn.get_span_context().span_id == child.parent.span_id
    assert (whole.start_time or 0) <= (child.start_time or 0)


# What goes wrong.


def test_conflicts_and_errors_are_told_by_their_type(store, path, exports):
    """A step that failed is a span with an error type, and counted; its sentence is not told."""
    with evstore.open(path, limits=evstore.Limits(variables_max=1)) as small:
        session = small.session("trip")
        session.variables["a"] = 1
        with pytest.raises(TooMany):
            session.variables["b"] = 1
        with pytest.raises(Conflict):
            session.variables.set("a", 2, expect=evstore.ABSENT)
        session.fork("taken")
        with pytest.raises(Taken):
            session.fork("taken")
        with pytest.raises(IndexError):
            session.messages.pop()
    counted = {
        (p.attributes["evstore.operation"], p.attributes["error.type"]): p.value
        for p in exports.points("evstore.errors")
    }
    assert {
        (SET, "TooMany"): 1,
        (SET, "Conflict"): 1,
        ("evstore.session.fork", "Taken"): 1,
        ("evstore.session.message.remove", "IndexError"): 1,
    } == counted
    failed = [span for span in exports.spans() if span.status.status_code == StatusCode.ERROR]
    assert [None] * 4 == [span.status.description for span in failed]
    assert [()] * 4 == [span.events for span in failed]


def test_a_read_that_fails_is_counted(session, store, exports):
    """A read of a closed store is an error of get."""
    session.variables["a"] = 1
    store.close()
    with pytest.raises(Closed):
        session.variables["a"]
    (point,) = exports.points("evstore.errors")
    assert (GET, "Closed") == (
        point.attributes["evstore.operation"],
        point.attributes["error.type"],
    )


def test_a_value_that_is_damaged_has_no_type(session, store, exports):
    """What cannot be read is told as damaged, and raises what it raises."""
    session.variables["a"] = {1}
    with store.engine.database.writing("normal") as cursor:
        cursor.execute("update variable set value = ?", ('{"$nonsense":1}',))
    with pytest.raises(Corrupt):
        session.variables["a"]
    (point,) = exports.points(f"{GET}.duration")
    assert "damaged" == point.attributes["evstore.variable.type"]


def test_busy_is_told(session, store, exports, monkeypatch):
    """A writer that did not get its turn is an error of type Busy, in no group."""
    session.variables["a"] = 1
    monkeypatch.setattr(database, "WAIT_S", 0.05)
    with store.engine.database.writing("normal"), ThreadPoolExecutor() as threads:
        refused = threads.submit(session.variables.set, "a", 2)
        assert isinstance(refused.exception(), Busy)
    (told,) = [told for told in exports.told(SET) if "error.type" in told]
    assert "Busy" == told["error.type"]
    assert "evstore.group.size" not in told


def test_a_group_tells_its_size_and_waits(store, session, exports):
    """Callers that share a commit each tell how many they were, and how long they waited."""
    session.variables["a"] = 0
    group = store.engine.database.group
    threads = [threading.Thread(target=session.variables.set, args=(f"n{n}", n)) for n in range(3)]
    with store.engine.database.writing("normal"):
        for number, thread in enumerate(threads):
            thread.start()
            while len(group._waiting) < number:
                time.sleep(0.001)
        time.sleep(0.01)
    for thread in threads:
        thread.join()
    shared = exports.told(SET)[1:]
    assert [3, 3, 3] == [told["evstore.group.size"] for told in shared]
    assert all(0.01 <= told["evstore.group.wait"] < 30 for told in shared)
    (sizes,) = exports.points("evstore.group.size")
    assert (2, 4) == (sizes.count, sizes.sum)
    (waits,) = exports.points("evstore.group.wait")
    assert 4 == waits.count


def test_work_that_began_before_goes_along(store, exports):
    """Work that nobody watched when it was handed in is done with the others, and not told."""
    assert 5 == store.engine.database.commit(lambda _: 5, "normal")
    assert [] == exports.spans()


class Failing(SpanProcessor):
    """A processor that cannot take anything."""

    def on_end(self, span: ReadableSpan) -> None:
        raise ValueError("no room for Rome")


def test_an_exporter_that_fails_harms_nobody(session, exports):
    """What was recorded is recorded, whatever becomes of its span; the log says so once each."""
    exports.tracers.add_span_processor(Failing())
    session.variables["a"] = 1
    assert {"a": 1} == session.variables
    assert "telemetry failed: ValueError" in exports.logged


# For tasks.


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_what_is_awaited_is_told_as_well(loop: EventLoop, path, exports):
    """Awaited steps have the same spans and metrics, with the span of their task as parent."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            with exports.tracers.get_tracer("app").start_as_current_span("turn"):
                await trip.variables.set("a", 1)
            await trip.variables.set("large", "x" * 50_000)
            await trip.variables.get("a")
            async with trip.batch() as batch:
                batch.variables["b"] = 1
                batch.messages.append(USER)
            with pytest.raises(Conflict):
                await trip.variables.set("a", 1, expect=99)
            await trip.fork("branch")

    loop.run(main)
    first, large, conflict = exports.told(SET)
    assert ("int", 1, 1, 1) == told_of_set(first)
    assert (50_002, 2) == (large["evstore.size"], large["evstore.session.variable.count"])
    assert "Conflict" == conflict["error.type"]
    assert 1 <= first["evstore.group.size"]
    (batch,) = exports.told("evstore.session.batch")
    assert 3 == batch["evstore.session.variable.count"]
    (span, *_), (turn,) = exports.spans(SET), exports.spans("turn")
    assert span.parent is not None
    assert span.parent.span_id == turn.context.span_id
    assert 1 == len(exports.spans("evstore.session.fork"))
    assert 1 == sum(point.count for point in exports.points(f"{GET}.duration"))


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.name)
def test_what_was_withdrawn_is_not_told(loop: EventLoop, path, exports):
    """A task that is cancelled before its share was written has no span: nothing happened."""

    async def main() -> None:
        async with aio.open(path) as store:
            trip = await store.session("trip")
            await trip.variables.set("a", 1)
            with trip.hands.engine.database.writing("normal"):
                assert not await loop.within(0.05, lambda: trip.variables.set("a", 2))
            assert 1 == await trip.variables.get("a")

    loop.run(main)
    assert 1 == len(exports.spans(SET))


# On and off.


def test_off_it_tells_nothing(session, exports):
    """Once stopped, nothing is called and nothing is exported."""
    session.variables["a"] = 1
    telemetry.stop()
    assert observing.observer is None
    before = exports.everything()
    session.variables["a"] = 2
    session.messages.append(USER)
    assert 2 == session.variables.pop("a")
    session.fork("branch")
    assert len(before.splitlines()) == len(exports.everything().splitlines()) - 3  # of the log
    assert 1 == len(exports.spans())


def test_few_places_ask_and_each_asks_once():
    """Off costs one look for each place; and what was seen is there, whoever stops it meanwhile."""
    looks: Counter[str] = Counter()
    for path in sorted(ROOT.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                asked = sum(ast.unparse(node) == LOOK for node in ast.walk(function))
                looks[f"{path.stem}.{function.name}"] += asked
    telling = {"__init__.start": 1, "__init__.stop": 1}
    assert dict.fromkeys(PLACES, 1) | telling == {place: n for place, n in looks.items() if n}


def test_to_start_again_is_to_start_anew(session, path, exports):
    """Starting twice with the same providers tells everything once, and counts reads anew."""
    session.variables["a"] = 1
    assert 1 == session.variables["a"]
    telemetry.start(exports.tracers, exports.meters, names=True)
    session.variables["a"] = 2
    assert ["evstore.variable.name" in told for told in exports.told(SET)] == [False, True]
    with evstore.open(path.with_name("other.db")) as other:
        other.session("s").variables["a"] = 1
        sizes = [file.stat().st_size for file in path.parent.glob("*-wal")]
        assert [sum(sizes)] == [point.value for point in exports.points("evstore.wal.size")]
    assert 2 == len(sizes)


def test_without_providers_it_takes_the_global_ones(session):
    """Where the application has set no provider, telemetry goes nowhere and harms nobody."""
    telemetry.start()
    try:
        session.variables["a"] = 1
        assert {"a": 1} == session.variables
        assert 1 == session.variables["a"]
    finally:
        telemetry.stop()


OFF = """
import sys, evstore
with evstore.open(":memory:") as store:
    store.session("s").variables["a"] = 1
    assert 1 == store.session("s").variables["a"]
assert not [name for name in sys.modules if name.startswith(("opentelemetry", "evstore.telemetry"))]
assert "summary" in evstore.telemetry.__all__
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
sys.modules["opentelemetry"] = None
try:
    evstore.telemetry.start()
except evstore.errors.MissingExtra as error:
    print(error)
"""


def test_opentelemetry_is_loaded_when_it_is_started():
    """Neither evstore nor its use loads OpenTelemetry; without it, start names the extra."""
    done = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert "this needs the 'otel' extra: pip install 'evstore[otel]'\n" == done.stdout


def test_prometheus_reads_it(session, exports):
    """The metrics arrive in Prometheus, under its names, with the types of values as labels."""
    session.variables["a"] = 1
    page = exports.prometheus()
    assert 'evstore_session_variable_set_duration_seconds_count{evstore_variable_type="int"' in page
    assert "evstore_wal_size_bytes" in page
