"""The verb demo: real conversations recorded, travelled through, forked, verified and rebuilt."""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import click
from rich.text import Text

import evstore
from evstore import replay
from evstore.cli import dialogues, terminal
from evstore.cli.asking import PLACE
from evstore.cli.care import finding_line
from evstore.cli.dialogues import Conversation
from evstore.cli.shown import LOG_COLUMNS, event_rows, one_line, said
from evstore.cli.terminal import Column
from evstore.errors import Refused
from evstore.session import Session
from evstore.store import Store
from evstore.view import View

DEFAULT_OUTPUT = "evstore-demo.db"
LOG_ROWS = 14
MESSAGES_WANTED = 12  # a conversation of about this length shows best
_SIDES = (Column("", 14, style="bold"), Column("then", 30), Column("now", 30))


@click.command(short_help="See it all at work on conversations.")
@click.argument("input", required=False)
@click.option(
    "-o",
    "--output",
    type=PLACE,
    metavar="FILE",
    help="Keep the store here; it must not exist yet.",
)
@click.pass_context
def demo(context: click.Context, input: str | None, output: Path | None) -> None:
    """Record conversations, travel back, fork, verify, and rebuild the present from the log.

    INPUT is a JSON or JSON Lines file of conversations: lists of messages with a role, or objects
    that hold such a list as "messages". Without it, dialogues that people wrote are recorded.
    """
    conversations = list(dialogues.corpus() if input is None else dialogues.from_file(input))
    if not conversations:
        raise Refused(f"{input} holds no conversation: give one with messages")
    path = _fresh(output)
    with evstore.open(path, durability="normal", actor="demo") as store:
        _record(store, conversations, "chatterbot-corpus" if input is None else input)
        chosen = max(conversations, key=lambda found: min(len(found.messages), MESSAGES_WANTED))
        session = store.session(chosen.id)
        _show_log(session)
        middle = _travel(session)
        _fork(session, middle)
        is_well = _verify(store) and _rebuild(store)
        store.flush()
    _say_goodbye(path, chosen.id, middle)
    if not is_well:
        context.exit(1)


def _fresh(output: Path | None) -> Path:
    """Return a path where no file is yet."""
    if output is not None:
        if output.exists():
            raise Refused(f"{output} is already there: give --output another name")
        return output
    stem, dot = os.path.splitext(DEFAULT_OUTPUT)
    names = (f"{stem}-{number}{dot}" for number in count(2))
    path = Path(DEFAULT_OUTPUT)
    while path.exists():
        path = Path(next(names))
    return path


def _title(number: int, text: str) -> None:
    terminal.say()
    terminal.say(Text.assemble((f"{number}  ", "dim"), (text, "bold")))


def _record(store: Store, conversations: list[Conversation], source: str) -> None:
    _title(1, "Record")
    started = time.perf_counter()
    with terminal.progress("recording", len(conversations)) as advance:
        for done, conversation in enumerate(conversations):
            _record_one(store, conversation)
            advance(done)
    seconds = time.perf_counter() - started
    stats = store.stats()
    messages = sum(len(conversation.messages) for conversation in conversations)
    terminal.say(
        f"{len(conversations):,} conversations of {terminal.harmless(source)}, {messages:,} "
        f"messages: {stats.events:,} events"
    )
    terminal.say(
        f"in {stats.batches:,} commits and {seconds:.1f} s ({stats.events / seconds:,.0f} events/s)"
        f", {terminal.size(stats.text_bytes)} of text"
    )


def _record_one(store: Store, conversation: Conversation) -> None:
    """Record one conversation as an agent would: every exchange is one batch."""
    session = store.session(conversation.id, metadata={"topic": conversation.topic})
    for turn, exchange in enumerate(_exchanges(conversation.messages), 1):
        with session.batch() as batch:
            batch.messages.extend(exchange)
            batch.variables["turn"] = turn
            batch.variables["last_speaker"] = exchange[-1]["role"]
            if turn == 1:
                batch.variables["topic"] = conversation.topic


def _exchanges(messages: list[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    """Yield what is said between one word of the user and the next."""
    start = 0
    for index in range(1, len(messages) + 1):
        if index == len(messages) or messages[index]["role"] == "user":
            yield messages[start:index]
            start = index


def _show_log(session: Session) -> None:
    _title(2, f"The log of {session.id}")
    terminal.print_table(LOG_COLUMNS, event_rows(session.events(limit=LOG_ROWS)), fit=True)
    if session.head > LOG_ROWS:
        terminal.say(f"… and {session.head - LOG_ROWS:,} more events", "dim")


def _travel(session: Session) -> int:
    """Show a moment of the past beside now, and return it."""
    batch_ends = [
        before.seq
        for before, after in _neighbours(session.events())
        if before.position != after.position
    ]
    middle = batch_ends[len(batch_ends) // 2] if batch_ends else session.head
    _title(3, f"Travel back: {session.id} at {middle} and at {session.head}")
    _compare(session.at(middle), session.view())
    return middle


def _neighbours(
    events: Iterator[evstore.Event],
) -> Iterator[tuple[evstore.Event, evstore.Event]]:
    before = next(events)
    for after in events:
        yield before, after
        before = after


def _compare(then: View, now: View) -> None:
    names = sorted({*then.variables, *now.variables})
    rows = [
        [name, *(one_line(view.variables.get(name, "-")) for view in (then, now))] for name in names
    ]
    rows.append(["messages", f"{len(then.messages):,}", f"{len(now.messages):,}"])
    rows.append(["the last one", *map(_last, (then, now))])
    terminal.print_table(_SIDES, rows)


def _last(view: View) -> str:
    return said(view.messages[-1]) if view.messages else "-"


def _fork(session: Session, at: int) -> None:
    fork = session.fork(f"{session.id}/what-if", at)
    with fork.batch(actor="you") as batch:
        batch.variables["last_speaker"] = "user"
        batch.variables["mood"] = "curious"
        batch.messages.append({"role": "user", "content": "And if we had gone another way?"})
    _title(4, f"Fork at {at}: {fork.id} has the same past, and its own future")
    terminal.print_table(LOG_COLUMNS, event_rows(fork.events(after=at)), fit=True)
    untouched = f"{session.id} is still at {session.head}, with {len(session.messages):,} messages"
    terminal.say(untouched, "dim")


def _verify(store: Store) -> bool:
    _title(5, "Verify every link, and all that is derived from the log")
    started = time.perf_counter()
    with terminal.progress("verifying"):
        findings = list(replay.verify(store, level="full"))
    for finding in findings:
        terminal.say(finding_line(finding), "bold red")
    if not findings:
        seconds = time.perf_counter() - started
        terminal.say(Text.assemble(("ok", "green"), f"  in {seconds:.1f} s"))
    return not findings


def _rebuild(store: Store) -> bool:
    _title(6, "Fold the log anew, and make the present what it says")
    before = replay.fingerprint(store)
    terminal.say(f"before  {before}")
    started = time.perf_counter()
    with terminal.progress("rebuilding"):
        replay.rebuild(store)
    seconds = time.perf_counter() - started
    after = replay.fingerprint(store)
    terminal.say(f"after   {after}")
    if before == after:
        terminal.say(Text.assemble(("the same", "green"), f"  in {seconds:.1f} s"))
    else:
        terminal.say("not the same: please report this", "bold red")
    return before == after


def _say_goodbye(path: Path, session_id: str, moment: int) -> None:
    terminal.say()
    terminal.say(f"The store is {terminal.harmless(str(path))}. Go on with", "bold")
    file, session = terminal.as_typed(str(path)), terminal.as_typed(str(path), session_id)
    program = _program()
    for command in (
        f"ls {file}",
        f"show {session}",
        f"show --at {moment} {session}",
        f"log {session}/what-if",
        f"export {file} | {program} import copy.db",
        f"doctor {file}",
    ):
        terminal.say(terminal.harmless(f"  {program} {command}"))


def _program() -> str:
    """Return how this program is called from here: by its name, or where it is not on PATH."""
    started = Path(sys.argv[0]).absolute()
    on_path = shutil.which("evstore")
    if started.name != "evstore" or (on_path and Path(on_path).absolute() == started):
        return "evstore"
    return os.path.relpath(started)
