"""The observer that OpenTelemetry is told by: sizes, durations and outcomes, and never a value.

A span is made once its step is over, with the times at which it began and ended, and with the span
of its caller as its parent. Of an error only the type is told, since its sentence may hold a name.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from opentelemetry import context
from opentelemetry.trace import Span, Status, StatusCode, Tracer

from evstore import values
from evstore.errors import Corrupt, EvstoreError
from evstore.events import (
    KINDS,
    MESSAGE_ADDED,
    RESERVED_CAUSES,
    VARIABLE_DELETED,
    VARIABLE_SET,
    VARIABLES,
    Body,
    value_text,
)
from evstore.merge import Decision
from evstore.sides import Decided, Found
from evstore.sqlite import statistics
from evstore.sqlite.engine import Engine
from evstore.sqlite.group import Member
from evstore.sqlite.read import Moment
from evstore.sqlite.recorded import Recorded
from evstore.sqlite.write import Draft
from evstore.telemetry import names
from evstore.telemetry.access import ACCESSES
from evstore.telemetry.instruments import NS_PER_S, Attributes, Instruments

Result = TypeVar("Result")
_log = logging.getLogger("evstore")
_AROUND_BYTES = len('{"message":}')  # that the event of a message has around its text
_APPLICATION = "app"  # kinds of an application may be many, and named as it likes


class Telemetry:
    """What tells OpenTelemetry; `names` says whether spans carry the names of variables."""

    def __init__(self, tracer: Tracer, instruments: Instruments, *, names: bool) -> None:
        self.tracer = tracer
        self.instruments = instruments
        self.names = names

    def serialize(self, direction: str, act: Callable[[], Result]) -> Result:
        """Return what `act` returns, and measure how long that takes."""
        started_ns = time.perf_counter_ns()
        result = act()
        took_ns = time.perf_counter_ns() - started_ns
        with _harmless():
            told = {names.DIRECTION: direction}
            self.instruments.duration(names.SERIALIZATION_DURATION, took_ns, told)
        return result

    def read(self, family: int, name: object, find: Callable[[], Result]) -> Result:
        """Return what `find` finds, and measure that; reads are too short for spans."""
        step = names.VARIABLE_GET_STEP if family == VARIABLES else names.METADATA_GET_STEP
        started_ns = time.perf_counter_ns()
        try:
            found: Any = find()
        except Exception as error:
            with _harmless():
                self.instruments.failed(step, type(error).__name__)
            raise
        took_ns = time.perf_counter_ns() - started_ns
        if found is not None and family == VARIABLES:
            ACCESSES.count(str(name))
        with _harmless():
            self._tell_read(step, found, took_ns)
        return found  # type: ignore[no-any-return] # as it came

    def _tell_read(self, step: str, found: Found | None, took_ns: int) -> None:
        told: dict[str, str | bool] = {names.FOUND: found is not None}
        if found is not None and found.text is not None:
            told[names.VARIABLE_TYPE] = _type_of(found.text)
            self.instruments.size(names.SIZE.format(step), len(found.text.encode()), told)
        self.instruments.duration(names.DURATION.format(step), took_ns, told)

    def append(self, engine: Engine, drafts: Sequence[Draft]) -> list[Recorded]:
        """Have an engine append drafts in one transaction; return what was recorded."""
        observed = self.begin(engine, drafts)
        recorded: list[Recorded] = []
        try:
            work = observed.joining(engine.prepare(drafts))
            recorded = engine.database.commit(work, engine.durability(drafts))
        except BaseException as error:
            observed.end([], error, observed.took_ns())
            raise
        observed.end(recorded, None, observed.took_ns())
        return engine.noted(recorded)

    def begin(self, engine: Engine, drafts: Sequence[Draft]) -> "Append":
        """Watch an append whose caller has to await it."""
        return Append(self, engine, drafts)

    def fork(self, session_id: str, act: Callable[[], Result]) -> Result:
        """Return what `act` returns, which forks a session."""
        step = Step(self)
        error: BaseException | None = None
        try:
            return act()
        except BaseException as raised:
            error = raised
            raise
        finally:
            step.tell(names.FORK_STEP, {names.CONVERSATION_ID: session_id}, {}, error)

    def group(self, members: Sequence[Member]) -> None:
        """Tell each append of ours with how many it shares its commit, and how long it waited.

        The lock is held: all that is told of it is told later.
        """
        for number, member in enumerate(members):
            if isinstance(member.work, Work):
                member.work.append.joined(
                    len(members), time.monotonic() - member.since_s, leads=number == 0
                )


class Step:
    """One step that is being watched."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self._context = context.get_current()
        self._began_ns = time.time_ns()
        self._started_ns = time.perf_counter_ns()

    def took_ns(self) -> int:
        """Return how long it has taken so far."""
        return time.perf_counter_ns() - self._started_ns

    def tell(
        self,
        step: str,
        told: dict[str, Any],
        metered: Attributes,
        error: BaseException | None,
        took_ns: int | None = None,
    ) -> None:
        """Tell of the step: `told` goes to its span alone, and `metered` to metrics as well."""
        took_ns = self.took_ns() if took_ns is None else took_ns
        with _harmless():
            self._tell(step, told, metered, error, took_ns)

    def _tell(
        self,
        step: str,
        told: dict[str, Any],
        metered: Attributes,
        error: BaseException | None,
        took_ns: int,
    ) -> None:
        span = self.telemetry.tracer.start_span(
            step, self._context, start_time=self._began_ns, attributes={**told, **metered}
        )
        metered = {**metered, **self._failure(step, span, error)}
        span.end(self._began_ns + took_ns)
        self.telemetry.instruments.duration(names.DURATION.format(step), took_ns, metered)

    def _failure(self, step: str, span: Span, error: BaseException | None) -> Attributes:
        if error is None:
            return {}
        error_type = type(error).__name__
        span.set_attribute(names.ERROR_TYPE, error_type)
        span.set_status(Status(StatusCode.ERROR))
        self.telemetry.instruments.failed(step, error_type)
        return {names.ERROR_TYPE: error_type}


class Work:
    """The work of an append, as the group gets it."""

    def __init__(self, append: "Append", work: Callable[[Any], Any]) -> None:
        self.append = append
        self._work = work

    def __call__(self, cursor: Any) -> Any:
        """Do the work."""
        return self._work(cursor)


class Append(Step):
    """An append that is being watched; what is told of it is found out once it is over."""

    def __init__(self, telemetry: Telemetry, engine: Engine, drafts: Sequence[Draft]) -> None:
        super().__init__(telemetry)
        self._engine = engine
        self._drafts = drafts
        self._group_size = 0  # as long as it has not come to a group
        self._waited_s = 0.0
        self._leads = False

    def joining(self, work: Callable[[Any], Any]) -> Work:
        """Return the same work, so that the group that does it can say so."""
        return Work(self, work)

    def joined(self, group_size: int, waited_s: float, *, leads: bool) -> None:
        """Take in with how many it shares a commit, and how long it waited for that."""
        self._group_size, self._waited_s, self._leads = group_size, waited_s, leads

    def end(self, recorded: Sequence[Recorded], error: BaseException | None, took_ns: int) -> None:
        """Tell what came of it; may look into the file for what it left there."""
        with _harmless():
            self._end(recorded, error, took_ns)

    def _end(self, recorded: Sequence[Recorded], error: BaseException | None, took_ns: int) -> None:
        bodies = [body for batch in recorded for body, *_ in batch.prepared]
        step = self._step(bodies)
        told, metered = self._told(recorded), self._metered(step, bodies, error)
        if names.FOUND in metered:
            error = None  # What is absent cannot be deleted: that is an answer.
        if len(bodies) == 1:
            told |= self._told_of(bodies[0])
        with suppress(EvstoreError):  # It may have been closed meanwhile, or be damaged.
            left = [self._left_by(batch) for batch in recorded]
            if len(left) == 1 and left[0] is not None:
                told[names.VARIABLE_COUNT] = left[0]
        self._count(bodies)
        self.tell(step, told, metered, error, took_ns)

    def _step(self, recorded: Sequence[Body]) -> str:
        """Return what to call it: an event alone lends its name, several of them are a batch."""
        if len(self._drafts) > 1:
            return names.TRANSACTION_STEP
        (draft,) = self._drafts
        if (draft.cause or "").startswith(RESERVED_CAUSES):
            return names.STEP_OF_CAUSE.format((draft.cause or "").partition(":")[0])
        if isinstance(draft.say, Decided):
            return names.STEPS[draft.say.kind]
        said = recorded or ([] if callable(draft.say) else draft.say)
        if len(said) > 1:
            return names.BATCH_STEP
        kinds = [(body(1) if callable(body) else body).kind for body in said]
        return names.STEPS.get(kinds[0], names.RECORD_STEP) if kinds else names.BATCH_STEP

    def _told(self, recorded: Sequence[Recorded]) -> dict[str, Any]:
        """Return what a span tells of the whole: whose it is, how much, and in which group."""
        told: dict[str, Any] = {names.EVENT_COUNT: sum(len(batch.prepared) for batch in recorded)}
        if len(self._drafts) == 1:
            told[names.CONVERSATION_ID] = self._drafts[0].terms.session_id
        else:
            told[names.SESSION_COUNT] = len(self._drafts)
        if any(batch.seen for batch in recorded):
            told[names.REPLAYED] = True
        decided = self._drafts[0].say
        if isinstance(decided, Decision):
            told[names.CONFLICT_COUNT] = len(decided.conflicts)
        if self._group_size:
            told[names.GROUP_SIZE] = self._group_size
            told[names.GROUP_WAIT] = self._waited_s
        return told

    def _told_of(self, body: Body) -> dict[str, Any]:
        """Return what a span tells of its only event."""
        told: dict[str, Any] = {}
        if body.kind == VARIABLE_SET:
            told[names.SIZE_BYTES] = len(value_text(body.text, body.operand))
        if body.kind == MESSAGE_ADDED:
            told[names.SIZE_BYTES] = len(body.text) - _AROUND_BYTES
        if self.telemetry.names and body.kind in (VARIABLE_SET, VARIABLE_DELETED):
            told[names.VARIABLE_NAME] = body.name
        return told

    @staticmethod
    def _metered(
        step: str, bodies: Sequence[Body], error: BaseException | None
    ) -> dict[str, str | bool]:
        """Return what both the span and the metrics tell of a variable."""
        if step == names.VARIABLE_DELETE_STEP and (error is None or type(error) is KeyError):
            return {names.FOUND: bool(bodies)}
        if step == names.VARIABLE_SET_STEP and len(bodies) == 1:
            return {names.VARIABLE_TYPE: _type_of(value_text(bodies[0].text, bodies[0].operand))}
        return {}

    def _left_by(self, batch: Recorded) -> int | None:
        """Return how many variables a batch left, and measure how well it was compressed.

        None is one that concerns no variables.
        """
        kinds = {body.kind for body, *_ in batch.prepared}
        is_compressed = any(encoded is not None for _, encoded, *_ in batch.prepared)
        concerns_variables = not kinds.isdisjoint((VARIABLE_SET, VARIABLE_DELETED))
        if batch.life is None or not (is_compressed or concerns_variables):
            return None
        database, instruments = self._engine.database, self.telemetry.instruments
        with database.snapshot() as cursor:
            if is_compressed:
                last = batch.first + len(batch.prepared) - 1
                ratio = statistics.compression(cursor, batch.life, batch.first, last)
                instruments.ratio(names.COMPRESSION_RATIO, ratio)
            if not concerns_variables:
                return None
            moment = Moment(database, cursor, batch.life, now_us=self._engine.clock())
            variables = moment.count(VARIABLES)
        instruments.count(names.VARIABLES, "{variable}", variables)
        return variables

    def _count(self, bodies: Sequence[Body]) -> None:
        """Measure the events that were recorded, and the group they went into."""
        instruments = self.telemetry.instruments
        with suppress(EvstoreError):
            instruments.databases.add(self._engine.database)
        if self._group_size:
            instruments.duration(names.GROUP_WAIT, round(self._waited_s * NS_PER_S), {})
        if self._leads:
            instruments.count(names.GROUP_SIZE, "{append}", self._group_size)
        kinds = Counter(body.kind if body.kind in KINDS else _APPLICATION for body in bodies)
        for kind, number in kinds.items():
            instruments.recorded(kind, number)
        for body in bodies:
            if body.kind == VARIABLE_SET:
                text = value_text(body.text, body.operand)
                told = {names.VARIABLE_TYPE: _type_of(text)}
                instruments.size(names.SIZE.format(names.VARIABLE_SET_STEP), len(text), told)
            elif body.kind == MESSAGE_ADDED:
                step = names.SIZE.format(names.MESSAGE_APPEND_STEP)
                instruments.size(step, len(body.text) - _AROUND_BYTES, {})


@contextmanager
def _harmless() -> Iterator[None]:
    """Let nothing that goes wrong with telling reach those whose work was done."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - an exporter is somebody else's code
        _log.warning("telemetry failed: %s", type(error).__name__)


def _type_of(text: str | bytes) -> str:
    """Return the type of a stored value; one that is damaged is told by whoever decodes it."""
    try:
        return values.type_name(text)
    except Corrupt:
        return "damaged"
