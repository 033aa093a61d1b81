"""The verb import takes in what others recorded, and tells what it cannot."""

import json

import pytest

import evstore
from evstore.transfer import FORMATS
from tests.command_line import filled, run, told
from tests.foreign import json_file, lines_file, said, texts


@pytest.fixture
def file(tmp_path):
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(tmp_path / "other.db")


@pytest.fixture
def source(tmp_path):
    """A file with a conversation and a line that is broken."""
    return str(lines_file(tmp_path / "a.jsonl", {"id": "trip", "messages": [said("a")]}, b"{\n"))


def test_the_formats_are_in_the_help():
    """Whoever asks for help learns which formats there are."""
    shown = run("import", "--help").stdout
    assert all(name in shown for name in FORMATS)


def test_a_program_gets_reports_and_counts(path, source):
    """Each report is a line of JSON, and the counts are the last; the exit code says that."""
    result = run("import", str(path), source, "--from", "openai-jsonl", "--prefix", "old/")
    report, counts = map(json.loads, result.stdout.splitlines())
    assert (1, "") == (result.exit_code, result.stderr)
    assert ("line 2", "a record") == (report["where"], report["what"])
    assert {"sessions": 1, "batches": 1, "events": 1, "kept": 0, "reported": 1} == counts
    with evstore.open(path) as store:
        assert {"old/trip": ["a"]} == texts(store)


def test_reports_can_be_printed_whatever_they_are_about(path, tmp_path):
    """Ids that are no text, or have no end, are reported in words that are."""
    lines = [{"id": name, "messages": [said("\ud800")]} for name in ("\ud800", "x" * 10_000)]
    source = lines_file(tmp_path / "a.jsonl", *lines)
    result = run("import", str(path), str(source), "--from", "openai-jsonl")
    strange, long, counts = map(json.loads, result.stdout.splitlines())
    assert (1, 2) == (result.exit_code, counts["reported"])
    assert ("\\ud800, item 1", 500) == (strange["where"], len(long["where"]))


def test_a_person_gets_sentences(path, source, monkeypatch):
    """On a terminal the reports are sentences on stderr, and the counts one on stdout."""
    monkeypatch.setattr("evstore.cli.terminal.is_terminal", lambda: True)
    result = run("import", str(path), source, "--from", "openai-jsonl")
    assert 1 == result.exit_code
    assert result.stderr.startswith("evstore: line 2: a record: it is cut off, or no JSON")
    assert "added 1 session, 1 batch, 1 event, 0 of them kept raw\n" == result.stdout


def test_a_mapping_is_a_file(path, tmp_path):
    """The mapping for json is read from a file, and one that is no JSON is refused."""
    source = str(json_file(tmp_path / "a.json", [{"turns": [said("a")]}]))
    mapping = json_file(tmp_path / "m.json", {"messages": "turns"})
    command = ("import", str(path), source, "--from", "json", "--mapping", str(mapping))
    assert 1 == told(*command)[0]["sessions"]
    mapping.write_text("{")
    result = run(*command)
    assert (2, True) == (result.exit_code, "is no JSON" in result.stderr)
    result = run("import", str(path), source, "--from", "json")
    assert (2, True) == (result.exit_code, "mapping" in result.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("x.jsonl", "--prefix", "a"), "go with --from"),
        (("x.jsonl", "--mapping", "a"), "go with --from"),
        (("--from", "chatgpt"), "name it"),
        (("x", "--from", "word"), "openai-jsonl"),
    ],
)
def test_what_makes_no_sense_is_misuse(path, arguments, words):
    """Options without their format, and a format without its file, are refused in a sentence."""
    result = run("import", str(path), *arguments)
    assert (2, True) == (result.exit_code, words in result.stderr)
    assert not path.exists()


def test_a_missing_source_makes_no_store(path, tmp_path):
    """Where nothing can be read, nothing is created."""
    result = run("import", str(path), str(tmp_path / "no"), "--from", "chatgpt")
    assert (1, True) == (result.exit_code, "No such file" in result.stderr)
    assert not path.exists()


def test_a_life_that_comes_twice_is_counted_once(file, path):
    """Exports may be joined, and the counts tell what was added."""
    exported = run("export", file).stdout
    (counts,) = told("import", str(path), given=exported + exported)
    assert {"sessions": 3, "batches": 7, "events": 8} == counts


@pytest.mark.parametrize("given", ["", "\n", "no export\n", '\n{"birth":1}\n', '{"evstore":9}\n'])
def test_what_is_no_export_makes_no_store(path, given):
    """Lines that do not begin as an export does are refused before the file is created."""
    result = run("import", str(path), given=given)
    assert result.exit_code in (1, 2)
    assert 1 == len(result.stderr.splitlines())
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "adk"), "is no SQLite database"),
        (("--from", "json"), "mapping"),
        (("--from", "chatgpt", "--mapping", "mapping.json"), "a mapping is for the format 'json'"),
    ],
)
def test_what_is_of_another_format_makes_no_store(tmp_path, monkeypatch, path, arguments, words):
    """A source or mapping that cannot be used is refused before the file is created."""
    monkeypatch.chdir(tmp_path)
    json_file(tmp_path / "mapping.json", {})
    result = run("import", str(path), "mapping.json", *arguments)
    assert (True, "") == (words in result.stderr, result.stdout)
    assert not path.exists()
