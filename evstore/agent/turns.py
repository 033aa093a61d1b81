"""Turns: how a message is answered, from its beginning in the log to an honest end."""

from functools import partial
from typing import Any

import attrs

from evstore.agent import decisions
from evstore.agent.decisions import Step
from evstore.agent.effects import Keep, Steps
from evstore.agent.journal import RUN_ENDED, Begun, Happened, Journal, Run
from evstore.agent.loop import (
    ANSWERED,
    CANCELLED,
    CUT_OFF,
    FAILED,
    NOT_STORABLE,
    Agent,
    Ending,
    Turn,
    failure,
    told,
)
from evstore.errors import Refused
from evstore.limits import Limits


@attrs.frozen
class AgentResult:
    """What came of a message: the answer, or why there is none.

    `reason` is answered, iterations (the model took too many), cancelled, cut_off (by the end of
    its process), model_error, not_storable (beyond a limit of the storage) or failed (an error of
    the agent itself, which was raised).
    """

    result: str
    steps: tuple[Step, ...]
    success: bool
    reason: str = ANSWERED


def send(
    journal: Journal, agent: Agent, text: str, max_iterations: int, key: str | None
) -> Steps[AgentResult]:
    """Answer a message; one whose key was seen goes on where it stood, or is answered again."""
    _check(text, max_iterations, key)
    yield Keep(journal.refresh)
    run: Run | None = None
    if key is not None:
        run = yield Keep(partial(journal.keyed, key))
    if run is None:
        tools = [tool.name for tool in agent.tools]
        begun = Begun(text, max_iterations, agent.model_name, tools, key)
        try:
            run = yield from _begin(journal, agent.prompt, begun)
        except (Exception, GeneratorExit):
            raise
        except BaseException:  # It may have begun just then, and would be resumed.
            yield from abandon(journal)
            raise
    elif run.text != text:
        raise Refused(f"the key {key!r} belongs to another message: give each message its own")
    return (yield from _go_on(journal, agent, run))


def cut_off(journal: Journal) -> str | None:
    """Return what was said in the turn that was cut off; None where there is none."""
    journal.refresh()
    run = journal.unfinished()
    return None if run is None else run.text


def resume(journal: Journal, agent: Agent) -> Steps[AgentResult | None]:
    """Finish the turn that was cut off; None where there is none."""
    yield Keep(journal.refresh)
    run: Run | None = yield Keep(journal.unfinished)
    return None if run is None else (yield from _go_on(journal, agent, run))


def abandon(journal: Journal) -> Steps[None]:
    """End the turn that was cut off as cancelled, if there is one."""
    yield Keep(journal.refresh)
    run: Run | None = yield Keep(journal.unfinished)
    if run is not None:
        yield _end(journal, run, _stopped(run, CANCELLED, "the turn was cancelled."))


def _check(text: Any, max_iterations: Any, key: Any) -> None:
    if not isinstance(text, str):
        raise Refused(f"a message is text, not {type(text).__name__}: give a str")
    if type(max_iterations) is not int or max_iterations < 1:
        raise Refused("max_iterations has to be a whole number of 1 or more")
    if key is not None:
        Limits().check_name("key", key)


def _begin(journal: Journal, prompt: str, begun: Begun) -> Steps[Run]:
    """Begin a run, after an end for one that was cut off; the prompt is said where it is new."""
    before: Run | None = yield Keep(journal.unfinished)
    if before is not None:
        yield _end(journal, before, _stopped(before, CUT_OFF, "the turn was cut off."))
    systems = (each for each in reversed(journal.messages) if each.get("role") == "system")
    is_known = not prompt or next(systems, {}).get("content") == prompt
    messages = [] if is_known else [{"role": "system", "content": prompt}]
    messages.append({"role": "user", "content": begun.text})
    run: Run = yield Keep(partial(journal.begin, begun, messages))
    return run


def _go_on(journal: Journal, agent: Agent, run: Run) -> Steps[AgentResult]:
    """Have the agent finish a run, and write its end down, whatever happens to it."""
    if run.ended is None:
        try:
            yield _end(journal, run, (yield from agent.run(Turn(journal, run))))
        except GeneratorExit:  # Nobody drives this any more: the storage has failed.
            raise
        except Refused as error:
            why = f"what was said cannot be stored: {told(error)}"
            run = yield from _fail(journal, run, NOT_STORABLE, why)
        except Exception as error:
            yield from _fail(journal, run, FAILED, f"the agent failed: {told(error)}")
            raise
        except BaseException:  # noqa: BLE001 - whoever drives this has it, and decides
            run = yield from _fail(journal, run, CANCELLED, "the turn was cancelled.")
    assert run.ended is not None
    steps = decisions.steps_of(run.own)
    return AgentResult(run.ended["result"], steps, run.ended["success"], run.ended["reason"])


def _fail(journal: Journal, run: Run, reason: str, why: str) -> Steps[Run]:
    """Write down how a run was ended from outside, unless it came to its end at that moment."""
    run = yield Keep(partial(journal.reread, run))
    if run.ended is None:
        yield _end(journal, run, _stopped(run, reason, why))
    return run


def _stopped(run: Run, reason: str, why: str) -> Ending:
    """Return the ending of a run that others stop; a tool may have been at work."""
    action = decisions.pending(run.own)
    return failure(reason, f"{why} What {action.name!r} has done is not known." if action else why)


def _end(journal: Journal, run: Run, ending: Ending) -> Keep:
    """Return the effect that writes an end down, with the messages that belong to it."""
    data = {"success": ending.success, "reason": ending.reason, "result": ending.result}
    return Keep(partial(journal.write, run, (*ending.entries, Happened(RUN_ENDED, data))))
