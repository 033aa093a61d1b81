"""What telemetry exports, read back: all spans, all points of all metrics, all log lines."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from evstore import telemetry


class Exports:
    """What was exported so far."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._registry = CollectorRegistry()
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader, PrometheusMetricReader(registry=self._registry)])
        self.logged: list[str] = []

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """The spans whose names begin so, in the order in which they ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith(name)]

    def told(self, name: str) -> list[dict[str, Any]]:
        """The attributes of the spans of a name."""
        return [dict(span.attributes or {}) for span in self.spans(name)]

    def points(self, name: str) -> list[Any]:
        """The points of a metric."""
        return [
            point
            for resource in self._collected().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def metrics(self) -> dict[str, str]:
        """The names of all metrics, and their units."""
        return {
            metric.name: metric.unit
            for resource in self._collected().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def _collected(self) -> Any:
        return self._reader.get_metrics_data()

    def prometheus(self) -> str:
        """What Prometheus would read."""
        return generate_latest(self._registry).decode()

    def everything(self) -> str:
        """All that was exported and logged, in one text."""
        data = self._collected()
        parts = [span.to_json() for span in self.spans()]
        parts += [] if data is None else [data.to_json()]
        return "\n".join([*parts, self.prometheus(), *self.logged])


class _Logged(logging.Handler):
    def __init__(self, exports: Exports) -> None:
        super().__init__()
        self._exports = exports
        self.setFormatter(logging.Formatter())  # which appends what was raised

    def emit(self, record: logging.LogRecord) -> None:
        self._exports.logged.append(self.format(record))


@contextmanager
def exporting(*, names: bool = False) -> Iterator[Exports]:
    """Yield what is exported and logged while the block runs."""
    exports, logger = Exports(), logging.getLogger("evstore")
    handler, level = _Logged(exports), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    telemetry.start(exports.tracers, exports.meters, names=names)
    try:
        yield exports
    finally:
        telemetry.stop()
        logger.removeHandler(handler)
        logger.setLevel(level)
        exports.tracers.shutdown()
        exports.meters.shutdown()
