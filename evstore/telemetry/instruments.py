"""Instruments: what is measured, in the units of OpenTelemetry: seconds, bytes, and counts."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation

from evstore.telemetry import names

if TYPE_CHECKING:
    from evstore.sqlite.database import Database

Attributes = Mapping[str, str | bool]
NS_PER_S = 1_000_000_000
# From a read of a short value to a writer that waited as long as one may.
_SECONDS = (5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.1, 1, 30)
_BYTES = (64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 10000)
_RATIOS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1)


class Instruments:
    """The instruments of one provider of meters, made when they are first needed."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._histograms: dict[str, Histogram] = {}
        self.databases: WeakSet[Database] = WeakSet()  # whose logs are measured
        counter = meter.create_counter
        self._events = counter(names.EVENTS, "{event}", "Events recorded")
        self._errors = counter(names.ERRORS, "{error}", "Steps that failed, conflicts and Busy too")
        meter.create_observable_gauge(
            names.WAL_SIZE, [self._wal_size], "By", "Size of the write-ahead logs written to"
        )

    def duration(self, name: str, took_ns: int, attributes: Attributes) -> None:
        """Record how long something took."""
        self._histogram(name, "s", _SECONDS).record(took_ns / NS_PER_S, attributes)

    def size(self, name: str, size_bytes: int, attributes: Attributes) -> None:
        """Record how large something is."""
        self._histogram(name, "By", _BYTES).record(size_bytes, attributes)

    def count(self, name: str, unit: str, number: int) -> None:
        """Record how many of something there are."""
        self._histogram(name, unit, _COUNTS).record(number)

    def ratio(self, name: str, ratio: float) -> None:
        """Record which part of something is left."""
        self._histogram(name, "1", _RATIOS).record(ratio)

    def recorded(self, kind: str, number: int) -> None:
        """Count events that were recorded."""
        self._events.add(number, {names.EVENT_KIND: kind})

    def failed(self, step: str, error_type: str) -> None:
        """Count a step that failed."""
        self._errors.add(1, {names.OPERATION: step, names.ERROR_TYPE: error_type})

    def _histogram(self, name: str, unit: str, bounds: tuple[float, ...]) -> Histogram:
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = self._meter.create_histogram(
                name, unit, explicit_bucket_boundaries_advisory=bounds
            )
        return histogram

    def _wal_size(self, _options: CallbackOptions) -> Iterable[Observation]:
        paths = [f"{database.path}-wal" for database in self.databases if database.usable]
        yield Observation(sum(os.path.getsize(path) for path in paths if os.path.exists(path)))


# A meter has each instrument once, however often telemetry is started.
_made: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()


def of_provider(provider: MeterProvider) -> Instruments:
    """Return the instruments of a provider of meters."""
    if provider not in _made:
        _made[provider] = Instruments(provider.get_meter(names.SCOPE))
    return _made[provider]
