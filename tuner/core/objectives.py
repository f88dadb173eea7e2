"""The objective of tuning: the metric to maximize within the SLO, or the latency to minimize at a fixed rate."""

from __future__ import annotations

import math
from typing import Literal, get_args

from tuner.core.record import Interval, Record
from tuner.core.slo import LATENCY, SLO, Percentile, Statistic

Maximized = Literal["throughput", "throughput_per_gpu", "inferences_per_joule"]
MAXIMIZED: tuple[Maximized, ...] = get_args(Maximized)

_WORDS = {
    "throughput": "throughput",
    "throughput_per_gpu": "throughput per GPU",
    "inferences_per_joule": "inferences per joule",
}
_UNITS = {
    "throughput": "inferences/s",
    "throughput_per_gpu": "inferences/s per GPU",
    "inferences_per_joule": "inferences/J",
}


class Objective(Record):
    """What the best config is the best at, among those that hold the SLO.

    Attributes:
        metric: A metric of `MAXIMIZED`, or `latency`, which is minimized.
        percentile: The latency percentile to minimize; None for the other metrics.
        rate: The rate of Poisson arrivals that must be held while latency is minimized, in requests/s; None: the load
            rises, and each config counts at its best load.
    """

    metric: Literal["throughput", "throughput_per_gpu", "inferences_per_joule", "latency"] = "throughput"
    percentile: Percentile | None = None
    rate: float | None = None

    @classmethod
    def quickest(cls, statistic: Statistic, rate: float) -> Objective:
        """The lowest latency at a rate in requests/s."""
        return cls(metric="latency", percentile=statistic.percentile, rate=rate)

    @property
    def maximizes(self) -> bool:
        """Whether more is better."""
        return self.percentile is None

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """`maximize` or `minimize`."""
        return "maximize" if self.maximizes else "minimize"

    @property
    def name(self) -> str:
        """Its name in options and files: `throughput`, `latency.p99`."""
        return self.metric if self.percentile is None else f"{LATENCY.name}.{self.percentile}"

    @property
    def unit(self) -> str:
        """The unit of its values."""
        return _UNITS.get(self.metric, "ms")

    @property
    def words(self) -> str:
        """Its name in messages: `throughput`, `p99 latency`."""
        return _WORDS.get(self.metric) or f"{self.percentile} latency"

    @property
    def upward(self) -> Objective:
        """The metric of the upward axis of plots against latency: itself, or throughput beside a latency."""
        return self if self.maximizes else THROUGHPUT

    def value_of(self, merit: float) -> float:
        """The value in its unit from a merit, of which more is better; see `OperatingPoint.merit`."""
        return merit if self.maximizes else 1e3 / merit

    def percentile_for(self, slo: SLO) -> Percentile:
        """The latency percentile that decides beside it: the minimized one, else the SLO's."""
        return self.percentile or slo.percentile

    def __str__(self) -> str:
        at = "" if self.rate is None else f" at {self.rate:g} requests/s"
        return f"{self.direction} {self.words}{at}"


def inverse(latency_ms: Interval) -> Interval:
    """The merit of a latency: its inverse, in 1/s, of which more is better."""
    high = 1e3 / latency_ms.low if latency_ms.low else math.inf
    return Interval(value=1e3 / latency_ms.value, low=1e3 / latency_ms.high, high=high)


THROUGHPUT = Objective()
"""The default."""
