"""Taking back: what has to happen so that a session is again as it was; nothing is ever lost."""

from collections.abc import Iterator

from evstore.events import (
    REDO,
    UNDO,
    VARIABLES,
    Body,
    Said,
    Writer,
    revert_messages,
    set_again,
)
from evstore.sqlite.found import Step
from evstore.sqlite.read import Moment


def bodies(writer: Writer, present: Moment, to: int) -> Said:
    """Return what makes variables and messages what they were at `to`; nothing where they are.

    A value that was forgotten stays forgotten.
    """
    past = present.at(to)
    now, then = present.variables(VARIABLES), past.variables(VARIABLES)
    said: list[Body] = [writer.delete(VARIABLES, name) for name in now if name not in then]
    for name, found in then.items():
        same = name in now and (now[name].text, now[name].operand) == (found.text, found.operand)
        if not same and found.text is not None:
            said.append(set_again(name, found.text, found.operand))
    if present.message_list().ranges != past.message_list().ranges:
        said.append(revert_messages(to))
    return said


def undo(writer: Writer, present: Moment) -> tuple[Said, str]:
    """Return what takes the newest batch back that is neither undo or redo nor undone, and a cause.

    Batches whose undoing changes nothing are passed over. Nothing is said where none is left.
    """
    bound = present.seq + 1  # An undo took back or passed over all from the batch that it names.
    for step, taken_back in _steps(present):
        if taken_back is not None:
            bound = min(bound, taken_back)
        elif step.changes and step.first < bound and not _is(step, UNDO, REDO):
            said = bodies(writer, present, step.first - 1)
            if said:
                return said, f"{UNDO}{step.first}"
    return (), UNDO


def redo(writer: Writer, present: Moment) -> tuple[Said, str]:
    """Return what takes the newest undo back, and a cause; nothing after another batch.

    An undo is passed over whose taking back changes nothing, as where a deadline has passed since.
    """
    for step, taken_back in _steps(present):
        if taken_back is not None:
            said = bodies(writer, present, step.first - 1)
            if said:
                return said, f"{REDO}{step.first}"
        elif not _is(step, UNDO, REDO):
            break
    return (), REDO


def _steps(present: Moment) -> Iterator[tuple[Step, int | None]]:
    """Yield the batches, the newest first, with what an undo that still holds has taken back."""
    bound = present.seq + 1  # A redo took back or passed over all undos from the one it names.
    for step in present.batches():
        if _is(step, REDO):
            bound = min(bound, _named(step))
        holds = _is(step, UNDO) and step.first < bound
        yield step, _named(step) if holds else None


def _is(step: Step, *causes: str) -> bool:
    """Tell whether a batch is an undo or redo; a cause from elsewhere may only look like one."""
    return (step.cause or "").startswith(causes) and (step.cause or "")[len(UNDO) :].isdecimal()


def _named(step: Step) -> int:
    """Return the sequence that the cause of an undo or redo names: where its batch begins."""
    return int((step.cause or "").partition(":")[2])
