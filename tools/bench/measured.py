"""Works take turns in shuffled rounds, and every figure carries its spread.

A busy machine, a disk that gets slower and a processor that changes its frequency lie to a
benchmark. So works that are compared run beside each other, round by round, and a ratio is taken
inside a round before anything is averaged: what slows a round slows both sides of it.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

Work = Callable[[], object]
_SPIN_STEPS = 20_000


class Spread(NamedTuple):
    """A median, and the quartiles between which the middle half lies."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> "Spread":
        """Return the same in another unit."""
        return Spread(*(value * factor for value in self))


class Summary(NamedTuple):
    """What one work took, in µs, over all its rounds."""

    calls: int
    mean_us: float
    low_us: float
    median_us: float
    high_us: float
    p99_us: float


def spread(values: Iterable[float]) -> Spread:
    """Return the median and the quartiles of some values."""
    ordered = sorted(values)
    return Spread(*(quantile(ordered, share) for share in (0.5, 0.25, 0.75)))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which a share of some ordered values lies, between neighbours."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


class Rounds:
    """What some works took, call by call and round by round."""

    def __init__(self, rounds: list[dict[str, list[float]]]) -> None:
        self._rounds = rounds

    def each(self, name: str) -> Spread:
        """Return the time of one call of a work, in µs."""
        return spread(self._all(name))

    def ratio(self, name: str, base: str) -> Spread:
        """Return how many times as long as another work it takes, compared within each round."""
        return self._compared(name, base, lambda mine, other: mine / other)

    def difference(self, name: str, base: str) -> Spread:
        """Return how much longer than another work it takes, in µs, within each round."""
        return self._compared(name, base, lambda mine, other: mine - other)

    def summaries(self) -> dict[str, Summary]:
        """Return the figures of every work, for those who want to look closer."""
        return {name: _summary(self._all(name)) for name in self._rounds[0]}

    def rate(self, name: str) -> Spread:
        """Return how often a second a work is done, which has to pay for its slow calls too."""
        return spread(1e6 / statistics.fmean(each[name]) for each in self._rounds)

    def _compared(self, name: str, base: str, compare: Callable[[float, float], float]) -> Spread:
        return spread(
            compare(statistics.median(each[name]), statistics.median(each[base]))
            for each in self._rounds
        )

    def _all(self, name: str) -> list[float]:
        return [took for each in self._rounds for took in each[name]]


def _summary(took: list[float]) -> Summary:
    median, low, high = spread(took)
    p99 = quantile(sorted(took), 0.99)
    return Summary(len(took), statistics.fmean(took), low, median, high, p99)


def microseconds(work: Work, times: int) -> list[float]:
    """Return how long each of some calls took."""
    found = []
    for _ in range(times):
        start = time.perf_counter_ns()
        work()
        found.append((time.perf_counter_ns() - start) / 1000)
    return found


def interleave(
    works: Mapping[str, Work],
    rounds: int,
    times: int,
    before: Mapping[str, Work] | None = None,
) -> Rounds:
    """Run all works in each round, in a new order, after one round that warms up and is forgotten.

    `before` names what is done, untimed, before a work has its turn.
    """
    gc.collect()
    gc.freeze()  # so that a collection inside a work walks over the work's objects alone
    order, found = list(works), []
    for _ in range(rounds + 1):
        random.shuffle(order)
        took = {}
        for name in order:
            (before or {}).get(name, _nothing)()
            took[name] = microseconds(works[name], times)
        found.append(took)
    gc.unfreeze()
    return Rounds(found[1:])


def _nothing() -> None:
    """Prepare nothing."""


def spin_us() -> float:
    """Return how long a fixed piece of arithmetic takes now: the processor's speed as felt."""
    (took,) = microseconds(lambda: sum(range(_SPIN_STEPS)), 1)
    return took
