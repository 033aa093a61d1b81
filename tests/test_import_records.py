"""Foreign JSON is read one bounded record at a time, and a broken one is told in its place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evstore.transfer import Reported, records
from evstore.transfer.branches import paths

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(params=[1, 7, 1 << 20])
def pieces(request, monkeypatch):
    """Files are taken in by pieces of some characters."""
    monkeypatch.setattr(records, "_PIECE_CHARACTERS", request.param)


def reasons(found):
    """What is reported among what was found."""
    return [(item.where, item.reason) for item in found if isinstance(item, Reported)]


@given(
    given_values=st.lists(values, max_size=5),
    indent=st.sampled_from([None, 2]),
    size=st.integers(1, 40),
)
def test_elements_are_those_of_the_array(tmp_path_factory, given_values, indent, size):
    """An array read by pieces has the elements that it has when it is read whole."""
    path = tmp_path_factory.mktemp("elements") / "a.json"
    path.write_text(json.dumps(given_values, indent=indent, ensure_ascii=False), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_PIECE_CHARACTERS", size)
        assert given_values == list(records.elements(str(path)))
        path.write_text("\n".join(map(json.dumps, [{}, *given_values])), "utf-8")
        assert [{}, *given_values] == list(records.elements(str(path)))


@given(text=st.text('[]{},:"\\ 0tn1e-.u\u20ac', max_size=40))
def test_no_text_is_too_broken(tmp_path_factory, text):
    """Whatever a file holds, what comes before the fault is given, and the fault is told."""
    path = tmp_path_factory.mktemp("broken") / "a.json"
    path.write_text(text, "utf-8")
    found = list(records.elements(str(path)))
    assert not any(isinstance(item, Reported) for item in found[:-1])
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if type(whole) is list:
        assert whole == found


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (b'[{"a": 1}, {"a": ', 1),
        (b'[{"a": 1}', 1),
        (b'[{"a": 1} {"b": 2}]', 1),
        (b'[{"a": 1}, nonsense, {"b": 2}]', 1),
        (b'[1, 2, "no end', 2),
        (b"[1, " + b"9" * 5000 + b"]", 1),
        (b"[1, " + b"[" * 100_000, 1),
        (b"{", 0),
        (b"]", 0),
        (b"\x00\xff", 0),
    ],
)
def test_a_broken_array_gives_what_comes_before(tmp_path, pieces, text, count):
    """A file that was cut off, or holds a fault, gives its elements up to there."""
    path = tmp_path / "a.json"
    path.write_bytes(text)
    found = list(records.elements(str(path)))
    assert count == len(found) - len(reasons(found))
    ((where, reason),) = reasons(found)
    assert where in (f"element {count}", f"element {count + 1}")
    assert text.startswith(b"[") == ("what follows it in the array is left out" in reason)


def test_an_array_may_be_empty_or_marked(tmp_path, pieces):
    """Nothing is nothing, and a mark of the byte order is no part of it."""
    path = tmp_path / "a.json"
    for text in (b"", b" \n", b"[ ]", b"\xef\xbb\xbf[]"):
        path.write_bytes(text)
        assert [] == list(records.elements(str(path)))


def test_an_element_without_end_is_not_read_to_it(tmp_path, monkeypatch):
    """An element beyond the bound is told, and what comes before it is given."""
    monkeypatch.setattr(records, "RECORD_BYTES_MAX", 100)
    monkeypatch.setattr(records, "_PIECE_CHARACTERS", 10)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["short", "x" * 1000]))
    short, found = records.elements(str(path))
    assert ("short", "element 2") == (short, found.where)
    assert "split it" in found.reason


def test_lines_are_bounded_and_told(tmp_path, monkeypatch):
    """A line that is broken or beyond the bound is told by its number, and the next one is read."""
    monkeypatch.setattr(records, "RECORD_BYTES_MAX", 50)
    monkeypatch.setattr(records, "_PIECE_CHARACTERS", 7)
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n"' + b"x" * 200 + b'"\n[2]\n"cut' + b"y" * 90
    )
    found = list(records.lines(str(path)))
    kept = [line for line in found if isinstance(line, records.Line)]
    assert [(1, {"a": 1}), (5, [2])] == [(line.number, line.value) for line in kept]
    assert ["line 3", "line 4", "line 6"] == [where for where, _ in reasons(found)]
    again = records.lines_at(str(path), [line.offset for line in kept])
    assert [{"a": 1}, [2]] == [line.value for line in again if isinstance(line, records.Line)]


def test_a_whole_file_is_bounded(tmp_path, monkeypatch):
    """A file that is one value is told where it is too large or no JSON."""
    path = tmp_path / "a.json"
    path.write_text("[1]")
    assert [1] == records.whole(str(path))
    path.write_text("[" * 100_000)
    assert isinstance(records.whole(str(path)), Reported)
    monkeypatch.setattr(records, "RECORD_BYTES_MAX", 10)
    assert "more than" in records.whole(str(path)).reason


trees = st.lists(st.integers(-1, 12), min_size=1, max_size=12)


@given(tree=trees, tip=st.integers(0, 12))
def test_a_tree_is_its_paths(tree, tip):
    """Every node that hangs on a root is in one path, whose nodes follow one another."""
    parents = {f"n{node}": f"n{parent}" for node, parent in enumerate(tree)}
    found = list(paths(parents, f"n{tip}"))
    nodes = [node for path in found for node in path.nodes]
    assert len(nodes) == len(set(nodes))
    for number, path in enumerate(found):
        before = path.after if number else None
        for node in path.nodes:
            assert before == (parents[node] if parents[node] in parents else None)
            before = node
        if path.parent is not None:
            assert path.parent < number
            assert path.after is None or path.after in found[path.parent].nodes
    reached = {node for node in parents if _hangs(parents, node)}
    assert set(nodes) == (reached if f"n{tip}" in reached else set())


def _hangs(parents, node):
    steps = 0
    while node in parents and steps <= len(parents):
        node, steps = parents[node], steps + 1
    return node not in parents
