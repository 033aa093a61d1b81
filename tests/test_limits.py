"""Everything has a limit: what reaches it is taken, what passes it is refused with the numbers."""

from typing import Any

import attrs
import pytest

import evstore
from evstore.errors import BadName, Refused, TooLarge, TooMany
from evstore.limits import Limits

LIMITS = Limits(
    value_bytes_max=20,
    message_bytes_max=60,
    name_bytes_max=8,
    variables_max=3,
    metadata_bytes_max=30,
    session_id_characters_max=10,
)


@pytest.fixture
def trip():
    """A session with one event, under small limits."""
    with evstore.open(":memory:", limits=LIMITS) as store:
        session = store.session("trip")
        session.variables["a"] = 1
        yield session


@pytest.fixture(autouse=True)
def _nothing_else_is_written(request, trip):
    """After the test the log holds no more than the events that it tells of."""
    yield
    expected = getattr(request.node, "expected_head", 1)
    assert expected == trip.head
    assert expected == sum(1 for _ in trip.events())


def refused(error: type[Exception], act: Any, *arguments: Any, **named: Any) -> Any:
    """Return the error that a call raises."""
    with pytest.raises(error) as caught:
        act(*arguments, **named)
    return caught.value


def numbers(error: Any) -> tuple[int, int]:
    return error.size_bytes, error.size_bytes_max


def message(size_bytes: int) -> dict[str, str]:
    """Return a message whose stored text has this size."""
    return {"role": "user", "content": "x" * (size_bytes - len('{"role":"user","content":""}'))}


def test_the_limits_are_those_of_the_handle():
    """The defaults are the documented ones, and two handles of a file may have their own."""
    assert Limits(1 << 20, 4 << 20, 512, 10_000, 64 << 10, 255) == Limits()
    assert 6 == len(attrs.fields(Limits))


def test_values_have_a_size(request, trip):
    """A value of 20 bytes is stored, one of 21 is not; bytes count, not characters."""
    request.node.expected_head = 3
    trip.variables["b"] = "x" * 18
    trip.variables["b"] = "é" * 9
    assert (21, 20) == numbers(refused(TooLarge, trip.variables.set, "b", "x" * 19))
    assert (22, 20) == numbers(refused(TooLarge, trip.variables.set, "b", "é" * 10))
    assert (21, 20) == numbers(refused(TooLarge, trip.metadata.set, "b", "x" * 19))
    assert (21, 20) == numbers(refused(TooLarge, trip.variables.setdefault, "c", "x" * 19))
    assert (21, 20) == numbers(refused(TooLarge, trip.variables.update, b=1, c="x" * 19))
    assert "é" * 9 == trip.variables["b"]


def test_messages_have_a_size(request, trip):
    """A message of 60 bytes is stored, one of 61 is not, alone, among others or as replacement."""
    request.node.expected_head = 3
    messages = trip.messages
    messages.append(message(60))
    messages.replace(0, message(60))
    assert (61, 60) == numbers(refused(TooLarge, messages.append, message(61)))
    assert (61, 60) == numbers(refused(TooLarge, messages.extend, [message(30), message(61)]))
    assert (61, 60) == numbers(refused(TooLarge, messages.replace, 0, message(61)))


def test_reasons_have_a_size(request, trip):
    """The reason of a removal or replacement is as large as a message at most."""
    request.node.expected_head = 4
    messages = trip.messages
    messages.append(message(60))
    messages.replace(0, message(60), "x" * 58)
    assert (61, 60) == numbers(refused(TooLarge, messages.replace, 0, message(60), "x" * 59))
    assert (61, 60) == numbers(refused(TooLarge, messages.remove, 0, "x" * 59))
    messages.remove(0, "é" * 29)


def test_data_of_own_events_has_a_size(request, trip):
    """The data of an application's event is as large as a message at most."""
    request.node.expected_head = 2
    trip.record("app.x", "x" * 58)
    assert (61, 60) == numbers(refused(TooLarge, trip.record, "app.x", "x" * 59))


def test_names_have_a_size(request, trip):
    """A name of 8 bytes is taken, one of 9 is not, whatever it names."""
    request.node.expected_head = 2
    trip.variables["é" * 4] = 1
    assert (9, 8) == numbers(refused(TooLarge, trip.variables.set, "é" * 4 + "x", 1))
    assert (9, 8) == numbers(refused(TooLarge, trip.metadata.set, "x" * 9, 1))
    assert (9, 8) == numbers(refused(TooLarge, trip.record, "app.12345"))
    for what in ("actor", "cause", "key"):
        assert (9, 8) == numbers(refused(TooLarge, trip.batch, **{what: "x" * 9}))
        trip.batch(**{what: "x" * 8})


def test_names_have_a_form(trip):
    """A name is text without NUL and lone surrogates."""
    for name in ("a\0", "\ud800", 5, None, b"x"):
        assert name == refused(BadName, trip.variables.set, name, 1).name
        assert name == refused(BadName, trip.metadata.set, name, 1).name
    for kind in ("order", "app", "app.", "app.a b", "app.ä", "variable.set", 5):
        assert kind == refused(BadName, trip.record, kind).name


def test_variables_have_a_number(request, trip):
    """Three variables are taken, a fourth is not; setting one that is there always is."""
    request.node.expected_head = 7
    trip.variables["b"] = 1
    trip.variables["c"] = 1
    error = refused(TooMany, trip.variables.set, "d", 1)
    assert (4, 3) == (error.count, error.count_max)
    trip.variables["c"] = 2
    error = refused(TooMany, trip.variables.update, a=1, d=1, e=1)
    assert (5, 3) == (error.count, error.count_max)
    with trip.batch() as batch:
        del batch.variables["a"]
        batch.variables["d"] = 1
    trip.messages.append(message(30))
    assert ["b", "c", "d"] == list(trip.variables)


def test_a_batch_counts_its_variables(trip):
    """A batch that would leave too many variables is refused whole."""
    batch = trip.batch()

    def commit() -> None:
        with batch:
            batch.messages.append(message(30))
            for name in "bcd":
                batch.variables[name] = 1

    error = refused(TooMany, commit)
    assert (4, 3) == (error.count, error.count_max)
    assert [] == list(trip.messages)


def test_metadata_has_a_size_in_all(request, trip):
    """The names and values of a session's metadata take 30 bytes together, and not one more."""
    request.node.expected_head = 4
    trip.metadata["a"] = "x" * 12
    trip.metadata["b"] = "x" * 12
    assert (32, 30) == numbers(refused(TooLarge, trip.metadata.set, "c", 1))
    assert (31, 30) == numbers(refused(TooLarge, trip.metadata.set, "b", "x" * 13))
    del trip.metadata["a"]
    assert {"b": "x" * 12} == dict(trip.metadata)


def test_metadata_at_birth_has_a_size(trip):
    """Metadata that is given with a session is held to the same limits."""
    with evstore.open(":memory:", limits=LIMITS) as store:
        born = store.session("s", metadata={"a": "x" * 12, "b": "x" * 13})
        assert (31, 30) == numbers(refused(TooLarge, born.messages.append, message(30)))
        assert (0, 0) == (born.head, store.stats().batches)
        refused(TooLarge, store.session, "s", metadata={"a": "x" * 19})


def test_session_ids_have_a_length(trip):
    """An id of ten characters is taken, one of eleven is not; it holds no control characters."""
    with evstore.open(":memory:", limits=LIMITS) as store:
        store.session("é" * 10).messages.append(message(30))
        assert "shorten its 11 characters to 10" in refused(BadName, store.session, "x" * 11).rule
        for session_id in ("", "a\n", "a\x7f", "a\x85", "a\u2028", "a\u2029", "\ud800", "\0", 5):
            assert session_id == refused(BadName, store.session, session_id).name
        refused(BadName, store.session("é" * 10).fork, "x" * 11)
        assert 1 == store.stats().batches


def test_refusals_are_refused(trip):
    """Every limit is told by an error that is Refused, a ValueError, and ends with the remedy."""
    for act in (
        lambda: trip.variables.set("b", "x" * 30),
        lambda: trip.variables.update(b=1, c=1, d=1),
        lambda: trip.variables.set("\0", 1),
    ):
        error = refused(Refused, act)
        assert isinstance(error, ValueError)
        assert "allowed: " in str(error) or "leave out" in str(error)
