"""Telemetry: what evstore does, told to OpenTelemetry in spans and metrics, and never a value.

It is off until `start` is called, and then on for the whole process. It speaks to the API of
OpenTelemetry alone; where that is not installed, `start` is MissingExtra.
"""

from typing import TYPE_CHECKING

from evstore import observing
from evstore.errors import MissingExtra
from evstore.telemetry.access import ACCESSES
from evstore.telemetry.summary import Access, Growth, Summary, Writes, summary

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["Access", "Growth", "Summary", "Writes", "start", "stop", "summary"]


def start(
    tracer_provider: "TracerProvider | None" = None,
    meter_provider: "MeterProvider | None" = None,
    *,
    names: bool = False,
) -> None:
    """Tell these providers, or else the global ones, what evstore does in this process from now on.

    With `names` the spans carry the names of variables; metrics never do. To start again is to
    start anew. Raises MissingExtra where OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise MissingExtra("otel") from error
    from evstore.telemetry.instruments import of_provider
    from evstore.telemetry.names import SCOPE
    from evstore.telemetry.observer import Telemetry

    tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    meters = metrics.get_meter_provider() if meter_provider is None else meter_provider
    tracer = tracers.get_tracer(SCOPE)
    ACCESSES.clear()
    observing.observer = Telemetry(tracer, of_provider(meters), names=names)


def stop() -> None:
    """Tell nobody any more."""
    observing.observer = None
