"""Latency percentiles with 95 % intervals, and tests of limits, from requests that depend on each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.core.record import Interval
from tuner.core.slo import PERCENTILES, SLO, Percentile, share_of
from tuner.stats.blocks import TAIL, block_edges, gamma, half_width_of_sum, student
from tuner.stats.slo_verdict import SLOTest
from tuner.stats.window import Window

# With fewer completions, an exponential distribution is assumed.
_FEW = 8
# Percentiles at which the design effect is averaged, as a single tail has too few requests.
_BODY = (0.5, 0.7, 0.85, 0.95)
_FEWEST_ABOVE = 5
# Independent requests from which the tail's decay is estimated.
_TAIL_REQUESTS = 10.0
# Shrinkage of the estimated shape, and bounds of the squared coefficient of variation.
_SHAPE_SHARE = 0.6
_SQUARED_VARIATION = (0.4, 4.0)

_Floats = npt.NDArray[np.float64]


def percentiles(window: Window) -> Mapping[Percentile, Interval]:
    """Latency percentiles in ms, each with a 95 % interval.

    Woodruff's method (1952): the interval of a percentile follows from that of the share of requests below it. This is
    the Jeffreys interval (Brown, Cai and DasGupta 2001) with the effective sample size n'. n' is n over the design
    effect (Kish 1965): the variance of shares between blocks over that of independent requests, corrected for few
    blocks (Korn and Graubard 1998). If n' is too small for an upper bound, the tail is modelled by a generalised Pareto
    distribution.

    Raises:
        ValueError: the window is empty.
    """
    ordered = _ordered(window)
    if len(ordered) < _FEW:
        estimates = [_memoryless(ordered, share_of(name)) for name in PERCENTILES]
    else:
        blocks = _Blocks.of(window, ordered)
        estimates = [blocks.percentile(share_of(name)) for name in PERCENTILES]
    intervals: dict[Percentile, Interval] = {}
    low = high = 0.0
    for name, estimate in zip(PERCENTILES, estimates, strict=True):
        # A higher percentile, and the ends of its interval, cannot be lower.
        low, high = max(low, estimate.low), max(high, estimate.high)
        intervals[name] = Interval(value=estimate.value, low=low, high=high)
    return intervals


def slo_tests(window: Window, slo: SLO) -> tuple[SLOTest, ...]:
    """The test of each limit: the number of requests over it, and the design effect.

    Raises:
        ValueError: the window is empty.
    """
    if not slo.root:
        return ()
    ordered = _ordered(window)
    blocks = _Blocks.of(window, ordered) if len(ordered) >= _FEW else None
    return tuple(
        SLOTest(
            metric=limit.metric,
            percentile=limit.percentile,
            limit_ms=limit.limit_ms,
            requests=len(ordered),
            over=int(np.count_nonzero(ordered > limit.limit_ms)),
            design_effect=blocks.effect(share_of(limit.percentile), limit.limit_ms) if blocks else float(len(ordered)),
        )
        for limit in slo.limits
    )


@dataclass(frozen=True)
class _Blocks:
    """Latencies in blocks of time, for the design effect.

    Attributes:
        latency_ms: (n,) in order of completion.
        ordered: (n,) sorted.
        edges: (blocks + 1,) indices in `latency_ms` at which blocks begin and end.
        body_effect: The mean design effect over the body of the distribution.
    """

    latency_ms: _Floats
    ordered: _Floats
    edges: npt.NDArray[np.intp]
    body_effect: float

    @classmethod
    def of(cls, window: Window, ordered: _Floats) -> _Blocks:
        edges = block_edges(window)
        effects = [
            _design_effect(window.latency_ms, edges, float(ordered[int(share * len(ordered))])) for share in _BODY
        ]
        return cls(window.latency_ms, ordered, edges, sum(effects) / len(effects))

    def percentile(self, share: float) -> Interval:
        value = float(np.quantile(self.ordered, share))
        independent = max(1.0, len(self.ordered) / self.effect(share, value))
        below, above = share * independent + 0.5, (1 - share) * independent + 0.5
        low = float(np.quantile(self.ordered, special.betaincinv(below, above, TAIL)))
        if share**independent <= TAIL:
            high = float(np.quantile(self.ordered, special.betaincinv(below, above, 1 - TAIL)))
        else:
            high = self._beyond(share, independent)
        return Interval(value=value, low=min(low, value), high=max(high, value))

    def effect(self, share: float, value: float) -> float:
        """The design effect for the share of requests above a value; at least 1."""
        if len(self.edges) < 3:
            return float(len(self.ordered))
        effect = self.body_effect
        if (1 - share) * len(self.ordered) >= _FEWEST_ABOVE:
            effect = (effect + _design_effect(self.latency_ms, self.edges, value)) / 2
        return max(1.0, effect)

    def _beyond(self, share: float, independent: float) -> float:
        """The upper bound of a percentile that may exceed all measured latencies; at least the largest latency.

        Above a threshold well below the percentile, the tail is a generalised Pareto distribution, with the upper bound
        of its mean excess. Its shape is estimated from the variation of the excesses (Hosking and Wallis 1987). As the
        excesses are few, it is shrunk towards an exponential tail, as of queues.
        """
        count = len(self.ordered)
        above = min(max(_TAIL_REQUESTS, 3 * independent * (1 - share)), independent / 2)
        first = count - min(max(1, round(above * count / independent)), count // 2)
        threshold, largest = float(self.ordered[first - 1]), float(self.ordered[-1])
        excess_ms = self.ordered[first:] - threshold
        mean_ms = float(excess_ms.mean())
        depth = (count - first) / count / (1 - share)
        if mean_ms <= 0 or depth <= 1:
            return largest
        squared_variation = float(np.clip(excess_ms.var() / mean_ms**2, *_SQUARED_VARIATION))
        shape = _SHAPE_SHARE * (1 - 1 / squared_variation) / 2
        reach = math.expm1(shape * math.log(depth)) / shape if shape else math.log(depth)
        events = above / squared_variation
        return max(largest, threshold + mean_ms * (1 - shape) * reach * events / gamma(TAIL, events))


def _memoryless(ordered: _Floats, share: float) -> Interval:
    """A percentile of very few latencies, with bounds from an exponential distribution."""
    count, value = len(ordered), float(np.quantile(ordered, share))
    depth = float(ordered.sum()) * -math.log1p(-share)
    low, high = depth / gamma(1 - TAIL, count), depth / gamma(TAIL, count)
    return Interval(value=value, low=min(low, value), high=max(high, value))


def _ordered(window: Window) -> _Floats:
    if not len(window):
        raise ValueError("no request ended within the window")
    return np.sort(window.latency_ms)


def _design_effect(latency_ms: _Floats, edges: npt.NDArray[np.intp], limit_ms: float) -> float:
    """The variance of the share of requests above a limit, from blocks, over that of independent requests."""
    count = len(latency_ms)
    passed = np.concatenate([[0], np.cumsum(latency_ms > limit_ms)])
    above = np.diff(passed[edges])
    share = float(passed[-1]) / count
    if not 0 < share < 1 or len(above) < 2:
        return 1.0
    half = half_width_of_sum(above - share * np.diff(edges))
    return (half / student(count)) ** 2 / (count * share * (1 - share))
