"""The verbs of the past: some tell of it (label, diff, blame, history), the others return to it."""

import json
from pathlib import Path

import pytest

import evstore
from evstore.cli import terminal
from tests.command_line import filled, process, run, shown, told
from tests.test_terminal import NASTY, on_a_terminal

MINUS = "\N{MINUS SIGN}"


@pytest.fixture
def file(path: Path) -> str:
    """A store with a conversation, a fork, and a session that was deleted."""
    return filled(path)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what follows print for a person."""
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)


# Labels and moments.


def test_a_label_names_a_moment(file):
    """A moment that got a label is found by it, by every verb that takes a moment."""
    (event,) = told("label", file, "trip", "asked", "--at", "3", "--actor", "eve")
    assert ("label.set", "asked", {"at": 3}, "eve") == tuple(
        event[field] for field in ("kind", "name", "data", "actor")
    )
    assert 3 == told("show", file, "trip", "--at", "asked")[0]["seq"]
    assert [{"budget": 1200}] == told("get", file, "trip", "--at", "asked")
    assert 3 == len(told("log", file, "trip", "--at", "asked"))
    assert 3 == told("fork", file, "trip", "other", "--at", "asked")[0]["head"]
    assert told("diff", file, "trip", "3") == told("diff", file, "trip", "asked")


def test_labels_are_listed(file):
    """Without a name the labels come in order of time, now or as they were at a moment."""
    told("label", file, "trip", "now")
    told("label", file, "trip", "start", "--at", "0")
    told("label", file, "trip", "asked", "--at", "3")
    times = {event["seq"]: event["time"] for event in told("log", file, "trip")}
    assert [
        {"label": "start", "seq": 0, "time": None},
        {"label": "asked", "seq": 3, "time": times[3]},
        {"label": "now", "seq": 5, "time": times[5]},
    ] == told("label", file, "trip")
    assert ["now"] == [line["label"] for line in told("label", file, "trip", "--at", "6")]
    told("label", file, "trip", "now", "--at", "2")
    assert 2 == told("label", file, "trip")[1]["seq"]
    assert [] == told("label", file, "what-if")


def test_labels_are_a_table_for_a_person(file, person):
    """A person reads which event was recorded, and the labels as a table."""
    assert "6  label.set  now = 5\n" == shown("label", file, "trip", "now")
    assert "7  label.set  start = 0\n" == shown("label", file, "trip", "start", "--at", "0")
    titles, start, now = shown("label", file, "trip").splitlines()
    assert ["label", "seq", "time"] == titles.split()
    assert ["start", "0"] == start.split()
    assert ["now", "5"] == now.split()[:2]


# Who, and when.


def test_blame_finds_the_event(file):
    """A variable is blamed on the event that set it last, or had set it last at a moment."""
    told("set", file, "trip", "budget", "900", "--actor", "eve")
    log = {event["seq"]: event for event in told("log", file, "trip")}
    assert [log[6]] == told("blame", file, "trip", "budget")
    assert [log[2]] == told("blame", file, "trip", "budget", "--at", "5")
    (shared,) = told("blame", file, "what-if", "budget")
    assert ("trip", 2) == (shared["session"], shared["seq"])


def facts_of(text: str) -> dict[str, str]:
    """The facts that stand one pair a line."""
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    return {name: fact.strip() for name, fact in pairs}


def test_blame_reads_to_a_person(file, person):
    """A person sees which event it was, when, by whom, why, whose, and the value."""
    facts = facts_of(shown("blame", file, "trip", "city"))
    assert ["event", "time", "by", "value"] == list(facts)
    assert ("4", "planner", '"Rome"') == (facts["event"], facts["by"], facts["value"])
    assert "trip" == facts_of(shown("blame", file, "what-if", "budget"))["session"]
    shown("set", file, "trip", "budget", "x" * 5000)
    text = shown("blame", file, "trip", "budget")
    assert text.rstrip().endswith("x…")
    assert terminal.CELL_CHARACTERS_MAX + 100 > text.count("x")
    assert all(len(line) <= 80 for line in text.splitlines())
    shown("undo", file, "trip")
    facts = facts_of(shown("blame", file, "trip", "budget"))
    assert ("undo:6", "-") == (facts["cause"], facts["by"])


def test_history_tells_all_about_a_variable(file):
    """Every value and deletion comes, the newest first; --limit and --at choose."""
    told("set", file, "trip", "city", '{"$set": [1]}')
    told("delete", file, "trip", "city")
    told("undo", file, "trip")
    log = {event["seq"]: event for event in told("log", file, "trip")}
    assert [log[8], log[7], log[6], log[4]] == told("history", file, "trip", "city")
    assert [log[8]] == told("history", file, "trip", "city", "--limit", "1")
    assert [log[6], log[4]] == told("history", file, "trip", "city", "--at", "6")
    assert [] == told("history", file, "trip", "city", "--limit", "0")
    assert [log[2]] == told("history", file, "what-if", "budget")


def test_history_is_a_table_for_a_person(file, person):
    """A person sees by whom, why, and each value in its line."""
    shown("set", file, "trip", "city", '{"$set": [1]}', "--actor", "eve")
    shown("delete", file, "trip", "city")
    shown("undo", file, "trip", "--actor", "eve")
    shown("set", file, "trip", "city", "[" + "1," * 500 + "1]")
    titles, *rows = shown("history", file, "trip", "city").splitlines()
    assert ["seq", "time", "by", "value"] == titles.split()
    assert ["9", "8", "7", "6", "4"] == [row.split()[0] for row in rows]
    assert rows[0].endswith("1,1…  1003 B")
    assert rows[1].endswith('eve undo:7        {"$set":[1]}')
    assert rows[2].endswith("(deleted)")
    assert rows[3].endswith('eve               {"$set":[1]}')
    assert all(len(row) <= 80 for row in rows)


def test_forgotten_values_have_their_line():
    """A value that was forgotten is shown as just that, wherever it would stand."""
    from evstore.cli import diff, past

    event = evstore.Event(1, 1, 1, "variable.set", "n", None, None, None, "s", "u")
    assert "(forgotten)" == past._value(event)
    assert "(forgotten)" == diff._text(evstore.ERASED)


def test_a_log_shows_values_as_they_are_stored(file, person):
    """What a person reads in a log is what `set` would take back."""
    shown("set", file, "trip", "when", '{"$date": "2026-01-31"}')
    assert 'when = {"$date":"2026-01-31"}' in shown("log", file, "trip", "--after", "5")


# What is other.


def test_diff_tells_what_changed(file):
    """A pipe gets a line for each variable, piece of metadata and message, values as stored."""
    told("set", file, "trip", "budget", '{"$set": [1]}')
    told("set", file, "trip", "empty", "null")
    told("delete", file, "trip", "owner", "--metadata")
    said = {"role": "user", "content": "Rome?"}
    instead = {"role": "user", "content": "Rome!", "name": "Ada"}
    budget = {"what": "variable", "name": "budget"}
    assert [
        {"change": "changed", **budget, "before": 1200, "after": {"$set": [1]}},
        {"change": "added", "what": "variable", "name": "city", "after": "Rome"},
        {"change": "added", "what": "variable", "name": "empty", "after": None},
        {"change": "removed", "what": "metadata", "name": "owner", "before": "ada"},
        {"change": "removed", "what": "message", "message": said},
        {"change": "added", "what": "message", "message": instead},
    ] == told("diff", file, "trip", "3")
    (back,) = told("diff", file, "trip", "2", "1")
    assert {"change": "removed", **budget, "before": 1200} == back
    assert [] == told("diff", file, "trip", "3", "3")


def test_diff_compares_two_sessions(file):
    """With another session, each side is now unless its moment is given."""
    said = {"what": "message", "message": {"role": "user", "content": "Rome?"}}
    assert [{"change": "removed", **said}] == told("diff", file, "trip", "3", "--with", "what-if")
    assert ["city", None] == [
        line.get("name") for line in told("diff", file, "trip", "--with", "what-if")
    ]
    assert [] == told("diff", file, "trip", "2", "--with", "what-if")
    assert ["owner"] == [
        line["name"] for line in told("diff", file, "trip", "0", "1", "--with", "what-if")
    ]
    (gone,) = told("ls", file, "--deleted")
    assert "x" == told("diff", file, "trip", "1", "--with", gone["uid"])[0]["name"]


def test_diff_reads_to_a_person(file, person):
    """A person sees which moments, and what went and came, message by message in a line."""
    shown("set", file, "trip", "budget", "1300")
    shown("set", file, "trip", "topic", "travel", "--metadata")
    shown("say", file, "trip", "user", "two\nlines " + "x" * 100)
    lines = [line.rstrip() for line in shown("diff", file, "trip", "3").splitlines()]
    assert lines[0].startswith("--- trip at 3  20")
    assert lines[1].startswith("+++ trip at 8  20")
    assert ["", "variables", "~ budget  1200 → 1300", '+ city    "Rome"'] == lines[2:6]
    assert [
        "",
        "metadata",
        '+ topic  "travel"',
        "",
        "messages",
        "\N{MINUS SIGN} user: Rome?",
    ] == lines[6:12]
    assert '+ user: Rome! {"name":"Ada"}' == lines[12]
    assert "+ user: two ↵ lines xxxx" == lines[13][:24]
    assert (80, "x…  139 B") == (len(lines[13]), lines[13][-9:])
    assert "--- trip at 0\n" in shown("diff", file, "trip", "0")
    assert "nothing differs" == shown("diff", file, "trip", "3", "3").splitlines()[-1]


def test_diff_aligns_what_changed(file, person):
    """Old and new values stand beside each other, below those of the other variables."""
    for value in ("1", "[100,200]"):
        shown("set", file, "trip", "numbers", value)
    shown("set", file, "trip", "budget", "9")
    shown("delete", file, "trip", "city")
    lines = shown("diff", file, "trip", "6").splitlines()[4:]
    assert [
        "~ budget   1200 → 9",
        '\N{MINUS SIGN} city     "Rome"',
        "~ numbers  1    → [100,200]",
    ] == lines


def test_diff_folds_what_is_long(file, person):
    """A long value takes a line that ends with its size, and begins shortly before it differs."""
    name = "a-name-that-is-longer-than-its-column"
    before = [{"walk": number} for number in range(400)]
    after = [*before[:200], {"rest": True}, *before[201:]]
    shown("set", file, "trip", name, json.dumps(before))
    shown("set", file, "trip", name, json.dumps(after))
    lines = shown("diff", file, "trip", "6").splitlines()[4:]
    begun = '…,{"walk":199},{"'
    assert [f"~ a-name-that-is-longer-tha…  {begun}", f"{'→ ':>30}{begun}"] == [
        line[: 30 + len(begun)] for line in lines
    ]
    assert [True, True] == [line.endswith("…  5.0 KiB") for line in lines]
    assert ["walk", "rest"] == [line[30 + len(begun) :][:4] for line in lines]
    assert [80, 80] == [len(line) for line in lines]
    (added,) = shown("diff", file, "trip", "5").splitlines()[4:]
    assert added.startswith('+ a-name-that-is-longer-tha…  [{"walk":0},')
    assert added.endswith("…  5.0 KiB")


def test_diff_shows_forgotten_messages(person, capsys):
    """A message whose content was forgotten has its line."""
    from evstore.cli import diff

    diff._show(evstore.Diff({}, {}, [], [evstore.ERASED]))
    assert "\nmessages\n\N{MINUS SIGN} (forgotten)\n" == capsys.readouterr().out


def test_a_real_terminal_gets_a_coloured_diff(file):
    """On a terminal what went is red and what came is green, and what differs in it is bold."""
    told("set", file, "trip", "budget", "1300")
    code, output = on_a_terminal("diff", file, "trip", "3")
    assert 0 == code
    assert "\x1b[31m1\x1b[0m\x1b[1;31m2\x1b[0m\x1b[31m00" in output
    assert "\x1b[32m1\x1b[0m\x1b[1;32m3\x1b[0m\x1b[32m00" in output
    assert "\x1b[31m\N{MINUS SIGN} \x1b[0m\x1b[1;31muser\x1b[0m\x1b[31m: Rome?" in output


# Going back.


def test_undo_and_redo_take_steps(file):
    """A step takes the newest batch back, or the newest undo; the new events are told."""
    (city, messages) = told("undo", file, "trip", "--actor", "eve")
    assert ("variable.deleted", "undo:4", "eve") == tuple(
        city[field] for field in ("kind", "cause", "actor")
    )
    assert ("messages.reverted", 7) == (messages["kind"], messages["seq"])
    assert [] == told("diff", file, "trip", "3")
    assert ["redo:6"] * 2 == [event["cause"] for event in told("redo", file, "trip")]
    assert [] == told("diff", file, "trip", "5")
    assert ["undo:4", "undo:4", "undo:3"] == [
        event["cause"] for event in told("undo", file, "trip", "--steps", "2")
    ]
    assert [] == told("diff", file, "trip", "2")
    assert 3 == len(told("redo", file, "trip", "--steps", "2"))
    assert [] == told("diff", file, "trip", "5")


def test_undo_ends_where_nothing_is_left(file):
    """Where there is nothing more to take back it is exit code 1; the steps before it hold."""
    result = run("undo", file, "trip", "--steps", "9")
    assert 1 == result.exit_code
    assert ["undo:4", "undo:4", "undo:3", "undo:1"] == [
        json.loads(line)["cause"] for line in result.stdout.splitlines()
    ]
    assert result.stderr.startswith("evstore: nothing to undo after 3 of 9 steps: ")
    for session, verb in (("trip", "undo"), ("what-if", "redo")):
        result = run(verb, file, session)
        assert (1, "") == (result.exit_code, result.stdout)
        assert result.stderr.startswith(f"evstore: nothing to {verb}: ")


def test_steps_are_told_to_a_person(file, person):
    """A person reads in a line which batch was taken or brought back, whose, and where it is now.

    In a fork it may be a batch of the shared past.
    """
    taken = "took back 4 to 5 by planner: 2 events recorded, now at 7\n"
    assert taken == shown("undo", file, "trip")
    brought = "brought back 4 to 5 by planner: 2 events recorded, now at 9\n"
    assert brought == shown("redo", file, "trip")
    with evstore.open(file) as store:
        store.session("nobody").variables["x"] = 1
    assert "took back 1: 1 event recorded, now at 2\n" == shown("undo", file, "nobody")
    shared = "took back 1 to 2 by ada: 1 event recorded, now at 4\n"
    assert shared == shown("undo", file, "what-if")


def test_revert_returns_to_a_moment(file):
    """The session is again as it was at a moment; where it is that already, nothing is written."""
    told("label", file, "trip", "asked", "--at", "3")
    events = told("revert", file, "trip", "asked", "--actor", "eve")
    assert [("revert:3", "eve")] * 2 == [(event["cause"], event["actor"]) for event in events]
    assert [] == told("diff", file, "trip", "3")
    assert [] == told("revert", file, "trip", "3")
    assert 8 == told("show", file, "trip")[0]["head"]
    assert 2 == len(told("undo", file, "trip"))
    assert [] == told("diff", file, "trip", "5")


def test_a_revert_is_told_to_a_person(file, person):
    """A person reads in a line where the session is, and how it got there."""
    recorded = "'trip' is as it was at 3: 2 events recorded, now at 7\n"
    assert recorded == shown("revert", file, "trip", "3")
    nothing = "'trip' is as it was at 3: nothing to revert, still at 7\n"
    assert nothing == shown("revert", file, "trip", "3")


# Where it cannot.


def test_what_is_not_there_is_exit_1(file):
    """A missing variable, moment, session and file is one sentence and exit code 1."""
    told("delete", file, "trip", "city")
    for arguments in (
        ("blame", file, "trip", "city"),
        ("blame", file, "trip", "nothing"),
        ("blame", file, "trip", "city", "--at", "4x"),
        ("blame", file, "trip", "budget", "--at", "1"),
        ("history", file, "trip", "nothing"),
        ("history", file, "trip", "budget", "--at", "1"),
        ("history", file, "nobody", "budget"),
        ("diff", file, "trip", "99"),
        ("diff", file, "trip", "--with", "nobody"),
        ("diff", file, "trip", "5", "4", "--with", "what-if"),
        ("label", file, "nobody", "new"),
        ("label", file, "nobody"),
        ("label", file, "trip", "new", "--at", "99"),
        ("revert", file, "trip", "nowhere"),
        ("undo", file, "nobody"),
        ("redo", file + "x", "trip"),
    ):
        result = run(*arguments)
        assert 1 == result.exit_code, arguments
        assert "" == result.stdout
        assert 1 == len(result.stderr.splitlines())
    assert not Path(file + "x").exists()


def test_misuse_is_exit_2(file):
    """A wrong argument, and a change of a life that has ended, is one sentence and exit code 2."""
    (gone,) = told("ls", file, "--deleted")
    for arguments in (
        ("diff", file, "trip"),
        ("diff", file, "trip", "2026-01-31"),
        ("diff", file, "trip", "9" * 19),
        ("label", file, "trip", "12"),
        ("label", file, "trip", "2026-01-31"),
        ("label", file, "trip", "a\0b"),
        ("label", file, "trip", "\udcff"),
        ("label", file, "trip", "--actor", "eve"),
        ("label", file, gone["uid"], "new"),
        ("blame", file, "trip", "\udcff"),
        ("history", file, "trip", "\udcff"),
        ("log", file, "trip", "--name", "\udcff"),
        ("show", file, "trip", "--at", "\udcff"),
        ("revert", file, "trip", "2026-01-31T12:00:00"),
        ("revert", file, "trip"),
        ("undo", file, "trip", "--steps", "0"),
        ("undo", file, gone["uid"]),
        ("redo", file, "trip", "--actor", "\0"),
    ):
        result = run(*arguments)
        assert 2 == result.exit_code, arguments
        assert "" == result.stdout
        assert 1 == len(result.stderr.splitlines()), result.stderr


def test_telling_of_the_past_changes_nothing(file):
    """No verb that only tells of the past changes a byte of the file."""
    told("label", file, "trip", "now")
    before = Path(file).read_bytes()
    told("blame", file, "trip", "city")
    told("history", file, "trip", "city")
    told("diff", file, "trip", "now", "2")
    told("label", file, "trip")
    assert before == Path(file).read_bytes()


def test_the_past_cannot_harm_a_terminal(path, person):
    """What names, values, actors, labels and messages hold never reaches a terminal raw."""
    with evstore.open(path, actor=NASTY) as store:
        session = store.session("s\u202e")
        session.variables[NASTY] = NASTY
        session.messages.append({"role": NASTY, "content": NASTY})
        session.label("l\u202e")
    printed = [
        shown(verb, str(path), "s\u202e", *arguments, *more)
        for verb, *arguments in (
            ("blame", NASTY),
            ("history", NASTY),
            ("diff", "0"),
            ("diff", "l\u202e", "0"),
            ("label",),
            ("undo",),
            ("redo",),
            ("revert", "0"),
        )
        for more in ((), ("--json",) if verb not in {"undo", "redo"} else ("--steps", "1"))
    ]
    for text in printed:
        assert not set(text) & set(NASTY) - {"a", "[", "3", "1", "m", "\n", "\t"}


def test_the_program_travels(file):
    """As a program: what is done is on stdout as JSON, what cannot be done on stderr alone."""
    done = process("label", file, "trip", "here")
    assert (0, b"") == (done.returncode, done.stderr)
    assert "label.set" == json.loads(done.stdout)["kind"]
    assert 2 == len(process("revert", file, "trip", "3").stdout.splitlines())
    assert 2 == len(process("undo", file, "trip").stdout.splitlines())
    assert (0, b"") == (process("diff", file, "trip", "here").returncode, done.stderr)
    done = process("blame", file, "trip", b"\xff".decode(errors="surrogateescape"))
    assert (2, b"", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
