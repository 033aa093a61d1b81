"""Deltas: whatever happens to a large variable, each version reads back exactly, and cheaply."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import evstore
from evstore import replay
from evstore.errors import Conflict, Corrupt
from evstore.events import Body
from evstore.sqlite import chains, deltas, payload
from evstore.transfer import export_lines, import_lines

HISTORIES_MAX = 1000 if settings().max_examples > 1000 else 25
CHANGES = (
    *["edit"] * 6,
    *("grow", "shrink", "rewrite", "random", "redundant", "return", "type", "small", "delete"),
)
CHANGE = st.tuples(st.sampled_from(CHANGES), st.sampled_from("ab"), st.integers(0, 9))
STEP = st.one_of(
    CHANGE,
    CHANGE,
    CHANGE,
    st.tuples(st.just("batch"), st.lists(CHANGE, min_size=2, max_size=6), st.booleans()),
    st.tuples(st.just("repeat"), CHANGE, st.integers(2, 40)),
    st.tuples(st.just("fork"), st.none(), st.integers(0, 9)),
    st.tuples(st.just("cold"), st.none(), st.none()),
    st.tuples(st.just("compact"), st.none(), st.none()),
)
HISTORIES = st.lists(st.tuples(st.integers(0, 2), STEP), min_size=1, max_size=20)

# One of several processes that set the same variable; it prints what it wrote, and at which seq.
SETS = """
import hashlib, sys, evstore
base = sys.stdin.read()
with evstore.open(sys.argv[1], durability="normal") as store:
    session = store.session("s")
    for number in range(40):
        value = base[: number * 99] + sys.argv[2] * number + base[number * 99 :]
        with session.batch(expect=evstore.ANY) as batch:
            batch.variables["x"] = value
        print(batch.events[0].seq, hashlib.sha256(value.encode()).hexdigest())
"""


def text(random: Random, size: int) -> str:
    """Words that zstd makes about half as long."""
    return " ".join(f"{random.getrandbits(32):x}" for _ in range(size // 8))


def edited(random: Random, value: str) -> str:
    """A text with a few characters replaced."""
    at = random.randrange(len(value) + 1)
    return value[:at] + f"{random.getrandbits(64):x}" + value[at + random.randrange(30) :]


def changed(random: Random, change: str, amount: int, before: list[Any]) -> Any:
    """The next value of a variable, from those it had before."""
    now = before[-1] if before and type(before[-1]) is str else text(random, 2000)
    match change:
        case "edit":
            return edited(random, now)
        case "grow":
            return now + text(random, 500 * amount)
        case "shrink":
            return now[: len(now) // 2]
        case "rewrite":
            return text(random, 1500 * amount)
        case "random":
            return random.randbytes(1000 * amount)
        case "redundant":
            return "abc" * 1500 * amount + str(random.getrandbits(8))
        case "return":
            return before[amount % len(before)] if before else now
        case "type":
            return {"parts": now.split(), "size": {len(now)}}
    return amount


class History:
    """What happened to the variables of a session and its forks, beside what a store says."""

    def __init__(self, store: evstore.Store) -> None:
        self.store = store
        self.random = Random(7)
        self.sessions = [store.session("0")]
        self.before: dict[tuple[int, str], list[Any]] = {}
        self.recorded: list[tuple[evstore.Session, int, str, Any]] = []

    def take(self, which: int, step: Any) -> None:
        """Take a step in one of the sessions."""
        number = which % len(self.sessions)
        match step:
            case ("batch", steps, fails):
                with suppress(Conflict):
                    self.write_together(number, steps, fails=fails)
            case ("repeat", (change, name, amount), times):
                for _ in range(times):
                    self.write_together(number, [(change, name, amount)])
            case ("fork", _, back):
                self.fork(number, back)
            case ("cold", _, _):
                self.store.engine.database.forget()  # as in a process that just opened the file
            case ("compact", _, _):
                self.store.compact()
            case _:
                self.write_together(number, [step])

    def write_together(self, number: int, steps: list[Any], *, fails: bool = False) -> None:
        """Write some changes in one batch, or try to."""
        session, values, before = self.sessions[number], [], dict(self.before)
        with self.store.transaction() as both:
            batch = both.batch(session)
            for change, name, amount in steps:
                known = before.get((number, name), [])
                value = changed(self.random, change, amount, known)
                if change == "delete":
                    batch.variables.pop(name, None)
                else:
                    batch.variables[name] = value
                    before[number, name] = [*known, value][-8:]
                    values.append(value)
            if fails:  # under the lock, when the first batch is written
                both.batch(self.store.session("other")).variables.set("y", 1, expect=99)
        self.before = before
        events = [event for event in batch.events if event.kind == "variable.set"]
        for event, value in zip(events, values, strict=True):
            self.recorded.append((session, event.seq, event.name or "", value))

    def fork(self, number: int, back: int) -> None:
        """Let a session go two ways from here on."""
        session = self.sessions[number]
        if session.head and len(self.sessions) < 3:
            at = max(0, session.head - back)
            self.sessions.append(session.fork(str(len(self.sessions)), at=at))


@settings(max_examples=HISTORIES_MAX)
@given(HISTORIES)
def test_every_version_reads_back(history):
    """Every version of every variable is what was set, at its moment, in the log and in a copy."""
    with evstore.open(":memory:") as store, evstore.open(":memory:") as copy:
        lived = History(store)
        for which, step in history:
            lived.take(which, step)
        import_lines(copy, export_lines(store))
        for session, seq, name, value in lived.recorded:
            assert value == session.at(seq).variables[name]
        for each in (store, copy):
            assert [] == list(replay.verify(each, level="full"))
            assert [] == wrong_deltas(each)
            assert stored_bytes(each) <= 1.1 * full_bytes(each)
        assert list(export_lines(store)) == list(export_lines(copy))


def rows(store: evstore.Store, what: str = "id, encoding, delta, size, data") -> list[Any]:
    """The rows of the large variables."""
    with store.engine.database.snapshot() as cursor:
        found: list[Any] = cursor.execute(
            f"select {what} from event where kind = 1 and size >= {payload.ZSTD_FROM_BYTES}"
        ).fetchall()
    return found


def wrong_deltas(store: evstore.Store) -> list[Any]:
    """The deltas that are not against an earlier event of the same name, or read in many steps."""
    with store.engine.database.snapshot() as cursor:
        wrong: list[Any] = cursor.execute(
            "select event.id, event.delta from event left join event prefix"
            " on prefix.id = (event.id >> 32 << 32) + event.delta and prefix.id < event.id"
            " and prefix.kind = event.kind and prefix.name = event.name"
            " where event.delta is not null and prefix.id is null"
        ).fetchall()
    steps: dict[int, int] = {}
    for event_id, delta in rows(store, "id, delta"):
        steps[event_id] = 0 if delta is None else 1 + steps[(event_id >> 32 << 32) + delta]
    return wrong + [found for found in steps.items() if found[1] > 2 * deltas.LEVELS]


def stored_bytes(store: evstore.Store) -> int:
    """The bytes that all large variables take."""
    return sum(size for (size,) in rows(store, "octet_length(data)"))


def full_bytes(store: evstore.Store) -> int:
    """The bytes that they would take as full copies."""
    entries, position = [], 0
    while page := store.engine.changes(position):
        entries += [entry for batch in page for entry in batch.entries]
        position = page[-1].position
    texts = [entry.text or b"" for entry in entries if entry.kind == "variable.set"]
    return sum(len(payload.pack(text)[1]) for text in texts if len(text) >= payload.ZSTD_FROM_BYTES)


def forms(store: evstore.Store) -> list[Any]:
    """How the large variables are stored: encoding, prefix and size of each."""
    return rows(store, "encoding, delta, octet_length(data)")


def count_deltas(store: evstore.Store) -> int:
    """How many versions are stored as deltas."""
    return sum(encoding == payload.DELTA for encoding, _, _ in forms(store))


def calls_of(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[Any]:
    """A list of what a function is called with from now on."""
    real, calls = getattr(module, name), []

    def noted(*given: Any) -> Any:
        calls.append(given)
        return real(*given)

    monkeypatch.setattr(module, name, noted)
    return calls


def test_one_field_of_a_large_state_costs_little(store):
    """200 turns that change one field of 100 KB take 64 KB at most, also in a copy of the store."""
    random, session = Random(1), store.session("s")
    state: dict[str, Any] = {f"key{number}": [text(random, 1000), 0] for number in range(100)}
    session.variables["state"] = state
    before_bytes = store.stats().file_bytes
    for turn in range(200):
        key = f"key{random.randrange(100)}"
        session.variables["state"] = state = {**state, key: [state[key][0], turn]}
    assert store.stats().file_bytes - before_bytes <= 64 << 10
    assert 200 == count_deltas(store)
    assert [] == wrong_deltas(store)
    with evstore.open(":memory:") as copy:
        import_lines(copy, export_lines(store))
        assert 200 == count_deltas(copy)


def test_a_process_that_just_opened_the_file_goes_on_the_same_way():
    """Which form a version gets does not depend on what is cached."""
    found = []
    for is_cold in (False, True):
        lived, random = History(evstore.open(":memory:")), Random(2)
        for _ in range(400):
            change = random.choice((*CHANGES, *["edit"] * 20))
            lived.take(0, (change, "a", random.randrange(5)))
            if is_cold:
                lived.store.engine.database.forget()
        found.append(forms(lived.store))
        lived.store.close()
    assert found[0] == found[1]
    assert {payload.TEXT, payload.ZSTD, payload.DELTA} >= {form[0] for form in found[0]}


def test_random_bytes_are_seldom_compared(session, monkeypatch):
    """Where no version is like another, deltas are tried ever less often."""
    tried = calls_of(monkeypatch, payload, "delta")
    for number in range(520):
        session.variables["x"] = Random(number).randbytes(2000)
    assert 9 < len(tried) < 20
    value = text(Random(0), 5000)
    for number in range(2 * deltas.PATIENCE):
        session.variables["x"] = f"{value}{number}"
    assert len(tried) > deltas.PATIENCE / 2


def test_very_different_sizes_are_not_compared(session, monkeypatch):
    """A short value is not searched for in a long one, nor the other way round."""
    tried = calls_of(monkeypatch, payload, "delta")
    for number in range(8):
        session.variables["x"] = text(Random(number % 2), 20_000 if number % 2 else 1000)
    assert [] == tried


def worst_cases() -> Iterator[tuple[str, list[Any]]]:
    """Series of values that deltas are of no use for, or seem to be and are not."""
    numbers = Random(13)
    long = text(numbers, 50_000)
    records = [
        [{"id": at + 40 * each, "ok": bool(numbers.getrandbits(1))} for at in range(300)]
        for each in range(40)
    ]
    yield "rewritten", [text(numbers, 20_000) for _ in range(40)]
    yield "random", [numbers.randbytes(5000) for _ in range(40)]
    yield "random, then regular", [numbers.randbytes(20_000), *records]
    yield "regular", records
    yield "of any size", [text(numbers, 1 << numbers.randrange(10, 16)) for _ in range(40)]
    yield "cut anywhere", [long[: 1 << numbers.randrange(10, 16)] for _ in range(40)]
    yield "by turns", [long if number % 2 else long[:1000] for number in range(40)]


WORST_CASES = dict(worst_cases())


@pytest.mark.parametrize("case", WORST_CASES)
def test_the_worst_case_is_little_worse_than_full_copies(memory, case):
    """Whatever the series of values is, it takes 1.1 times the space of full copies at most."""
    session = memory.session("s")
    for value in WORST_CASES[case]:
        session.variables["x"] = value
    assert 0 < stored_bytes(memory) <= 1.1 * full_bytes(memory)


def test_a_delta_has_to_be_smaller_than_a_full_copy(memory):
    """That a text takes less space than the one before makes its delta no better."""
    session = memory.session("s")
    for value in WORST_CASES["random, then regular"]:
        session.variables["x"] = value
    assert 0 == count_deltas(memory)


def write_in_between(session: evstore.Session) -> None:
    session.variables["x"] = text(Random("another"), 4000)


def write_in_another_process(session: evstore.Session) -> None:
    given = text(Random("another"), 4000)
    command = [sys.executable, "-c", SETS, session._engine.path, "y"]
    subprocess.run(command, input=given, text=True, check=True, capture_output=True)


def roll_back(session: evstore.Session) -> None:
    session._engine.database.forget()


@pytest.mark.parametrize(
    "meanwhile", [write_in_between, write_in_another_process, roll_back], ids=lambda f: f.__name__
)
def test_what_was_prepared_too_early_is_done_again(store, session, monkeypatch, meanwhile):
    """A version is right, and a delta, whatever was written after it was prepared."""
    random, value = Random(3), text(Random(3), 4000)
    for _ in range(7):
        session.variables["x"] = value = edited(random, value)
    real = chains.encode

    def encode(*given: Any) -> Any:
        encoded = real(*given)
        monkeypatch.setattr(chains, "encode", real)
        meanwhile(session)
        return encoded

    monkeypatch.setattr(chains, "encode", encode)
    session.variables["x"] = last = edited(random, value)
    assert last == session.variables["x"]
    assert value == session.at(7).variables["x"]
    assert [] == wrong_deltas(store)
    assert [] == list(replay.verify(store, level="full"))


def test_a_text_that_was_taken_back_is_not_built_on(store, session, monkeypatch):
    """A seq that a transaction gave up may be another's: only what is in the log is a prefix."""
    session.variables["x"] = text(Random(4), 4000)
    lost, found = text(Random(5), 4000), text(Random(6), 4000)
    alike = "alike" + lost
    early: list[Any] = []
    real = chains.settle

    def settle(database: Any, cursor: Any, life: Any, base: Any, seq: Any, body: Any, *rest: Any):
        settled = real(database, cursor, life, base, seq, body, *rest)
        later = Body(body.kind, body.name, b'{"value":"%s"}' % alike.encode())
        early.append(chains.encode(database, life, later))
        return settled

    with monkeypatch.context() as patch, pytest.raises(Conflict), store.transaction() as both:
        patch.setattr(chains, "settle", settle)
        both.batch(session).variables["x"] = lost
        both.batch(store.session("other")).variables.set("y", 1, expect=99)
    assert [(payload.DELTA, 2)] == [(encoded.encoding, encoded.delta) for encoded in early]

    session.variables["x"] = found
    assert 2 == session.head
    with monkeypatch.context() as patch:
        patch.setattr(chains, "encode", lambda *_: early[0])
        session.variables["x"] = alike
    assert alike == session.variables["x"]
    assert [] == list(replay.verify(store, level="full"))


def test_processes_that_set_the_same_variable(path):
    """What each of several processes wrote to one variable reads back, and takes little space."""
    base = text(Random(8), 20_000)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", SETS, path, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(base)
        child.stdin.close()
    written: dict[int, str] = {}
    for child in children:
        assert child.stdout is not None
        written |= {int(line.split()[0]): line.split()[1] for line in child.stdout}
        child.stdout.close()
        assert 0 == child.wait(60)
    with evstore.open(path) as store:
        session = store.session("s")
        assert list(range(1, 121)) == sorted(written)
        for seq, digest in written.items():
            assert digest == sha256(session.at(seq).variables["x"].encode()).hexdigest()
        assert count_deltas(store) > 100
        assert [] == wrong_deltas(store)
        assert [] == list(replay.verify(store, level="full"))


def test_a_delta_stays_within_its_life(store, session):
    """Neither a fork nor the next life of an id builds on what it did not record itself."""
    value = text(Random(9), 4000)
    session.variables["x"] = value
    session.variables["x"] = value + "1"
    fork = session.fork("fork")
    fork.variables["x"] = value + "2"
    fork.variables["x"] = value + "3"
    store.delete("trip")
    again = store.session("trip")
    again.variables["x"] = value + "4"
    again.variables["x"] = value + "5"
    assert [None, 1, None, 3, None, 1] == [delta for _, delta, _ in forms(store)]


def test_a_damaged_version_keeps_nobody_from_writing(path):
    """Where the text to build on cannot be read, the next version is a full copy."""
    value = text(Random(10), 4000)
    with evstore.open(path) as store:
        store.session("s").variables["x"] = value
        with store.engine.database.writing("normal") as cursor:
            cursor.execute("update event set data = x'00'")  # as another encoding of the same text
    with evstore.open(path) as store:
        session = store.session("s")
        session.variables["x"] = value + "1"
        session.variables["x"] = value + "2"
        assert value + "1" == session.at(2).variables["x"]
        assert [None, None, 2] == [delta for _, delta, _ in forms(store)]
        with pytest.raises(Corrupt):
            _ = session.at(1).variables["x"]


def test_what_was_forgotten_is_not_built_on(store, session):
    """After a version whose full copy is gone comes a full copy."""
    value = text(Random(14), 4000)
    for number in range(3):
        session.variables["x"] = f"{value}{number}"
    with store.engine.database.writing("normal") as cursor:
        cursor.execute(
            "update event set encoding = 3, data = zeroblob(32), salt = null, name = null"
            " where id & 0xffffffff = 1"
        )
    store.engine.database.forget()
    session.variables["x"] = f"{value}3"
    assert [None, 1, 1, None] == [delta for _, delta, _ in forms(store)]
    assert f"{value}3" == session.variables["x"]


def test_what_is_kept_in_memory_is_bounded(memory):
    """The texts of many large variables, or of a huge one, do not stay in memory."""
    session = memory.session("s")
    value = text(Random(11), 500_000)
    for number in range(6):
        session.variables[f"x{number}"] = value
        session.variables[f"x{number}"] = value + "1"
    kept = memory.engine.database.cache("deltas")[""]
    assert 0 < kept._held_bytes <= deltas.CACHE_BYTES_MAX
    assert 6 == count_deltas(memory)
    assert value + "1" == session.variables["x0"]


def test_huge_values_are_full_copies(memory):
    """A text that is too large to be searched is stored in full."""
    with evstore.open(":memory:", limits=evstore.Limits(value_bytes_max=4 << 20)) as store:
        session, value = store.session("s"), text(Random(12), 2 << 20)
        session.variables["x"] = value
        session.variables["x"] = value + "1"
        assert 0 == count_deltas(store)
