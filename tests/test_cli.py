"""The verbs of the command line: tables for people, JSON for programs, one sentence for errors."""

import json
import subprocess
from pathlib import Path

import pytest

import evstore
from evstore.cli import terminal
from evstore.transfer import jsonlines
from tests.command_line import EVSTORE, damage, filled, run, shown, told


@pytest.fixture
def file(path: Path) -> str:
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(path)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what follows print for a person."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)


# Reading.


def test_ls_lists_sessions(file):
    """A pipe gets one object a session, with parent and counts; PREFIX and --limit choose."""
    trip, what_if = told("ls", file)
    assert ("trip", 5, 1, 2, None) == tuple(
        trip[name] for name in ("id", "head", "messages", "variables", "parent")
    )
    assert {"id": "trip", "uid": trip["uid"], "seq": 2} == what_if["parent"]
    assert [what_if] == told("ls", file, "wh")
    assert [trip] == told("ls", file, "--limit", "1")
    (gone,) = told("ls", file, "--deleted")
    assert "gone" == gone["id"]


def test_ls_shows_a_table(file, person):
    """A person sees columns, and for ended lives the uid that brings them back."""
    assert ["session", "head", "messages", "variables", "updated"] == (
        shown("ls", file).splitlines()[0].split()
    )
    assert "what-if  fork of trip at 2" in shown("ls", file)
    uid = json.loads(run("ls", file, "--deleted", "--json").stdout)["uid"]
    assert uid in shown("ls", file, "--deleted")


def test_show_says_all(file):
    """A pipe gets one object with the whole state, now or at a moment."""
    (now,) = told("show", file, "trip")
    assert {"budget": 1200, "city": "Rome"} == now["variables"]
    assert {"owner": "ada"} == now["metadata"]
    assert [{"role": "user", "content": "Rome!", "name": "Ada"}] == now["messages"]
    (then,) = told("show", file, "trip", "--at", "3")
    assert ({"budget": 1200}, 3, 5) == (then["variables"], then["seq"], then["head"])
    assert [{"role": "user", "content": "Rome?"}] == then["messages"]
    (early,) = told("show", file, "trip", "--at", "2000-01-01T00:00:00Z", "--limit", "0")
    assert (0, {}, []) == (early["seq"], early["variables"], early["messages"])


def test_show_reads_to_a_person(file, person):
    """A person sees variables as a table and messages as a conversation."""
    text = shown("show", file, "what-if")
    assert "at 3 of 3" in text
    assert "fork of trip at 2" in text
    text = shown("show", file, "trip")
    assert ["budget", "int", "1200"] == text.splitlines()[5].split()
    assert '{"name":"Ada"}' in text
    assert "1 before these" in shown("show", file, "trip", "--limit", "0")


def test_show_reads_long_conversations_in_pages(path):
    """Every message of a long conversation is there, and in order."""
    with evstore.open(path, durability="normal") as store:
        said = [{"role": "user", "content": str(number)} for number in range(450)]
        store.session("long").messages.extend(said)
    (long,) = told("show", str(path), "long")
    assert said == long["messages"]
    (tail,) = told("show", str(path), "long", "--limit", "201")
    assert said[-201:] == tail["messages"]


def test_log_lists_events(file):
    """A pipe gets every event as it is stored; the options choose which."""
    events = told("log", file, "trip")
    assert [1, 2, 3, 4, 5] == [event["seq"] for event in events]
    assert {"value": 1200} == events[1]["data"]
    assert "planner" == events[4]["actor"]
    assert [5, 4] == [
        event["seq"] for event in told("log", file, "trip", "--reverse", "--after", "3")
    ]
    assert [2] == [event["seq"] for event in told("log", file, "trip", "--name", "budget")]
    kind = told("log", file, "trip", "--kind", "message.added", "--limit", "3")
    assert [3] == [event["seq"] for event in kind]
    assert [1, 2] == [event["seq"] for event in told("log", file, "trip", "--at", "2")]
    assert ["trip", "trip", "what-if"] == [e["session"] for e in told("log", file, "what-if")]


def test_log_folds_events_for_a_person(file, person):
    """A person sees one line an event, under its day; of a batch the first has time and actor."""
    with evstore.open(file) as store:
        trip = store.session("trip")
        trip.messages.append({"role": "assistant", "tool_calls": [{"id": 1}]})
        trip.messages.append({"role": "user", "content": [{"type": "text"}], "x": 1})
        trip.messages.pop()
        trip.messages.clear()
        del trip.variables["city"]
    text = shown("log", file, "trip")
    for part in (
        "ada      metadata.set", "planner  variable.set", 'owner = "ada"', "user: Rome?",
        '3 by user: Rome! {"name":"Ada"',
        'assistant: {"tool_calls":[{"id"', 'user: [{"type":"text"}] {"x":1}', "message 7",
    ):  # fmt: skip
        assert part in text
    assert "[1]" in shown("log", file, "what-if")
    assert all(len(line) <= 80 for line in text.splitlines())


def test_log_shows_what_any_kind_says():
    """Kinds that no door writes yet, and forgotten events, have their line as well."""
    from evstore.cli.shown import event_line, text_of, told_event

    def event(kind: str, text: str | None) -> evstore.Event:
        return evstore.Event(1, 1, 1, kind, "n", text, None, None, "s", "u")

    assert "(forgotten)" == told_event(event("message.added", None)).text.plain
    assert "to 4" == told_event(event("messages.reverted", '{"to":4}')).text.plain
    assert "n = 3" == told_event(event("label.set", '{"at":3}')).text.plain
    assert None is json.loads(event_line(event("message.added", None)))["data"]
    assert b"null" == text_of(evstore.ERASED)


def test_get_prints_values(file, monkeypatch):
    """A pipe gets JSON, a person the text itself; without NAME all values come."""
    assert ["Rome"] == told("get", file, "trip", "city")
    assert [{"budget": 1200, "city": "Rome"}] == told("get", file, "trip")
    assert [{"owner": "ada"}] == told("get", file, "trip", "--metadata")
    assert [{"budget": 1200}] == told("get", file, "trip", "--at", "3")
    (gone,) = told("ls", file, "--deleted")
    assert [{"$set": [1, 2]}] == told("get", file, gone["uid"], "x")
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    assert "Rome\n" == shown("get", file, "trip", "city")
    assert "1200\n" == shown("get", file, "trip", "budget")
    assert ["city", "str", "Rome"] == shown("get", file, "trip").splitlines()[2].split()


def test_what_is_not_there_is_exit_1(file):
    """A missing variable, session, uid, moment and file is one sentence and exit code 1."""
    for arguments in (
        ("get", file, "trip", "nothing"),
        ("get", file, "trip", "nothing", "--metadata"),
        ("delete", file, "trip", "nothing"),
        ("delete", file, "trip", "nothing", "--metadata"),
        ("delete", file, "nobody"),
        ("show", file, "nobody"),
        ("show", file, "0" * 32),
        ("show", file, "trip", "--at", "99"),
        ("show", file, "trip", "--at", "yesterday"),
        ("restore", file, "0" * 32),
        ("ls", file + "x"),
        ("export", file, "nobody"),
        ("import", file, "/nowhere/at/all"),
    ):
        result = run(*arguments)
        assert 1 == result.exit_code, arguments
        assert "" == result.stdout
        assert 1 == len(result.stderr.splitlines())
        assert "Traceback" not in result.stderr


def test_misuse_is_exit_2(file):
    """A wrong verb, option, argument or value is one sentence and exit code 2."""
    for arguments in (
        ("fly", file),
        ("export", file, "-o", file),
        ("ls",),
        ("ls", file, "--limit", "-1"),
        ("show", file, "trip", "--at", "2026-01-31T12:00:00"),
        ("set", file, "trip", "n", "1", "--expect", "never"),
        ("set", file, "trip", "", "1", "--actor", "\0"),
        ("set", file, "trip", "n", '{"$date":"never"}'),
        ("set", file, "trip", "n", "\udcff"),
        ("say", file, "trip", "user", "hi", "--extra", "[]"),
        ("say", file, "trip", "user", "hi", "--extra", '{"role":1}'),
        ("delete", file, "trip", "--metadata"),
        ("restore", file, "nonsense"),
        ("fork", file, "trip", "what-if"),
        ("verify", file, "--level", "deep"),
        ("ls", "redis:6379"),
    ):
        result = run(*arguments)
        assert 2 == result.exit_code, arguments
        assert "" == result.stdout
        assert 1 == len(result.stderr.splitlines()), result.stderr
    assert 2 == run().exit_code


def test_what_looks_like_an_option_is_explained(file):
    """Who gives a negative number, or a text with dashes before it, learns what to put there."""
    for arguments in (("set", file, "trip", "x", "-5"), ("say", file, "trip", "me", "--ok?")):
        result = run(*arguments)
        assert (2, 1) == (result.exit_code, len(result.stderr.splitlines()))
        assert "put -- before it" in result.stderr
    told("set", file, "trip", "temperature", "--", "-5")
    assert [-5] == told("get", file, "trip", "temperature")
    assert "Did you mean" in run("ls", file, "--limti").stderr


@pytest.mark.parametrize("number", [2**63, 10**40])
def test_any_number_is_a_limit(file, number):
    """A limit beyond everything that a store can hold is as good as none."""
    for verb in (("ls",), ("log", "trip"), ("show", "trip"), ("history", "trip", "city")):
        given = (verb[0], file, *verb[1:])
        assert shown(*given) == shown(*given, "--limit", str(number))
    assert told("stats", file, "--limit", str(number))
    assert 1 == len(told("search", file, "Rome", "--limit", str(number)))


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        ("<&-", ("import",), 2),
        (">&-", ("set", "trip", "x", "1"), 0),
        ("2>&-", ("get", "trip", "city"), 0),
        ("<&- >&- 2>&-", ("verify",), 0),
    ],
)
def test_a_stream_that_is_closed_is_nobody(file, closed, arguments, code):
    """Without stdin there is nothing to read, and what is said to nobody is no failure."""
    command = [*EVSTORE, arguments[0], file, *arguments[1:]]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    done = subprocess.run(shell, capture_output=True, input=b"", check=False)
    assert code == done.returncode, done
    assert (b'"Rome"\n' if closed == "2>&-" else b"") == done.stdout
    assert (closed == "<&-") == (b"the end of the export is missing" in done.stderr)


def test_reading_changes_nothing(file):
    """No verb that reads changes a byte of the file, or creates one that is not there."""
    before = Path(file).read_bytes()
    for verb in ("ls", "stats", "verify", "export", "doctor"):
        assert 0 == run(verb, file).exit_code
    for verb in ("show", "log", "get"):
        assert 0 == run(verb, file, "trip").exit_code
    assert before == Path(file).read_bytes()
    for verb in ("ls", "stats", "verify", "export", "doctor", "rebuild"):
        assert 1 == run(verb, file + ".other").exit_code
    assert not Path(file + ".other").exists()


# Changing.


def test_set_takes_json_or_text(path):
    """What parses as JSON is JSON, the rest is text; what get prints is taken back as it was."""
    file = str(path)
    big = 123456789012345678901234567890
    for given, value in (
        ("1", 1), ("[1, {}]", [1, {}]), ("NaN", "NaN"), ("plain", "plain"), ('"1"', "1"),
        ("[" * 9999, "[" * 9999), (str(big), big),
        ('{"$set": [1]}', {1}), ('{"$dict": [["$x", 1]]}', {"$x": 1}), ("null", None),
    ):  # fmt: skip
        (event,) = told("set", file, "s", "v", "--", given)
        with evstore.open(path) as store:
            assert value == store.session("s").variables["v"]
            assert event["seq"] == store.session("s").head
    told("set", file, "s", "v", "1", "--string")
    assert ["1"] == told("get", file, "s", "v")
    told("set", file, "s", "v", "-", given="[1]\n")
    assert [[1]] == told("get", file, "s", "v")
    told("set", file, "s", "m", "1", "--metadata", "--actor", "eve")
    assert "eve" == told("log", file, "s", "--kind", "metadata.set")[0]["actor"]
    assert 2 == run("set", file, "s", "v", "-", given=b"\xff").exit_code


def test_expectations_are_kept(file):
    """Where somebody wrote first it is exit code 1, and nothing is written."""
    assert 1 == run("set", file, "trip", "budget", "1", "--expect", "1").exit_code
    assert 1 == run("set", file, "trip", "budget", "1", "--expect", "absent").exit_code
    assert 1 == run("say", file, "trip", "user", "hi", "--expect", "1").exit_code
    told("set", file, "trip", "budget", "1", "--expect", "2")
    told("set", file, "trip", "new", "1", "--expect", "absent")
    told("say", file, "trip", "user", "hi", "--expect", "7")
    assert 8 == told("show", file, "trip")[0]["head"]


def test_say_appends_messages(path):
    """A message has its role and text, and whatever else --extra says."""
    file = str(path)
    told("say", file, "s", "user", "Hello")
    told("say", file, "s", "tool", "-", "--extra", '{"tool_call_id": "x"}', given="out\n")
    assert [
        {"role": "user", "content": "Hello"},
        {"role": "tool", "content": "out", "tool_call_id": "x"},
    ] == told("show", file, "s")[0]["messages"]


def test_delete_restore_and_fork(file):
    """What is deleted can be restored, and a fork starts where it was asked to."""
    told("delete", file, "trip", "city")
    told("delete", file, "trip", "owner", "--metadata")
    assert [{"budget": 1200}] == told("get", file, "trip")
    (event,) = told("delete", file, "trip")
    assert ["what-if"] == [info["id"] for info in told("ls", file)]
    (back,) = told("restore", file, event["uid"])
    assert ("trip", 9) == (back["id"], back["head"])
    (forked,) = told("fork", file, "trip", "other", "--at", "3")
    assert ("other", 3) == (forked["id"], forked["head"])
    assert [{"budget": 1200}] == told("get", file, "other")


def test_changes_are_told_to_a_person(file, person):
    """A person reads in a line what was recorded."""
    assert "6  variable.set  budget = 2\n" == shown("set", file, "trip", "budget", "2")
    assert "7  message.added  user: hi\n" == shown("say", file, "trip", "user", "hi")
    assert "'f' is a fork of 'trip', at 7\n" == shown("fork", file, "trip", "f")
    text = shown("delete", file, "trip")
    uid = text.split()[-1]
    assert text.startswith("8  session.deleted\n")
    assert "'trip' is back, at 9\n" == shown("restore", file, uid)


# Care.


def test_stats_count(file, person):
    """A store counts what it holds, in bytes for programs and in units for people."""
    assert ["sessions", "2"] == shown("stats", file).splitlines()[1].split()
    assert 2 == json.loads(run("stats", file, "--json").stdout)["sessions"]
    assert ["0 B", "1,023 B", "1.0 KiB", "1.0 MiB", "1.0 GiB", "1.0 TiB", "2,048.0 TiB"] == [
        f"{int(shown_size[:-2]):,} B" if shown_size.endswith(" B") else shown_size
        for shown_size in map(terminal.size, (0, 1023, 1024, 1 << 20, 1 << 30, 1 << 40, 1 << 51))
    ]


def test_verify_says_ok_or_where(file, person):
    """A sound store is ok; in a changed one each finding is a line, and the exit code is 1."""
    for level in ("heads", "chain", "full"):
        assert "ok\n" == run("verify", file, "--level", level).stdout
    assert "" == run("verify", file, "--json").stdout
    damage(file)
    result = run("verify", file)
    assert (1, "") == (result.exit_code, result.stderr)
    assert " at 3: link: " in result.stdout
    finding = json.loads(run("verify", file, "--json").stdout.splitlines()[0])
    assert ["kind", "seq", "session", "what"] == sorted(finding)


def test_rebuild_tells_what_was_wrong(file, person):
    """A rebuilt store was ok, or each row that was not is a line, and the exit code is 1."""
    assert "ok\n" == run("rebuild", file).stdout
    assert "ok\n" == run("rebuild", file, "trip").stdout
    for arguments in ((), ("trip",)):
        with evstore.open(file) as store, store.engine.database.writing("normal") as cursor:
            cursor.execute("update variable set value = '7' where name = 'city'")
        result = run("rebuild", file, *arguments)
        assert (1, "") == (result.exit_code, result.stderr)
        assert "trip at 4: variable: 'city' is " in result.stdout
        assert "" == run("rebuild", file, "--json").stdout
    assert 1 == run("rebuild", file, "nobody").exit_code


def test_a_pipe_gets_json_alone(file):
    """In a pipe the verbs that look after a file print JSON Lines too, and no ok."""
    assert "" == shown("verify", file) == shown("rebuild", file)
    assert {"ok"} == {check["state"] for check in told("doctor", file)}
    assert ["after_bytes", "before_bytes", "events"] == sorted(told("compact", file)[0])
    damage(file)
    result = run("verify", file)
    assert 1 == result.exit_code
    assert 3 == json.loads(result.stdout.splitlines()[0])["seq"]


# Carrying over.


def test_export_and_import(file, tmp_path, person):
    """A store, or one session, is carried over through a file; the counts are told."""
    lines, copy = str(tmp_path / "lines"), str(tmp_path / "copy.db")
    assert "" == shown("export", file, "-o", lines)
    assert "added 3 sessions, 7 batches, 8 events\n" == shown("import", copy, lines)
    assert run("export", file).stdout == run("export", copy, "-o", "-").stdout
    one = str(tmp_path / "one.db")
    exported = run("export", file, "what-if").stdout
    assert [{"sessions": 2, "batches": 3, "events": 3}] == told(
        "import", one, "--json", given=exported
    )


def test_import_wants_something(file, monkeypatch):
    """Import never waits for a person to type an export, nor for a line without an end."""
    monkeypatch.setattr("evstore.cli.asking.is_piped_in", lambda: False)
    assert 2 == run("import", file).exit_code
    monkeypatch.undo()
    monkeypatch.setattr("evstore.cli.transfer.LINE_BYTES_MAX", 10)
    result = run("import", file, given="x" * 100)
    assert 2 == result.exit_code
    assert "a line takes" in result.stderr


def test_a_bad_line_is_named(file):
    """What cannot be imported is named by its line, in one sentence."""
    result = run("import", file, given='{"evstore":1}\n{"nonsense":1}\n')
    assert 2 == result.exit_code
    assert result.stderr.startswith("evstore: line 2 cannot be imported")


def test_chunks_are_as_documented():
    """An import commits at most 500 batches, or 8 MiB, at a time."""
    assert (500, 8 << 20) == (jsonlines.CHUNK_BATCHES_MAX, jsonlines.CHUNK_BYTES_MAX)
