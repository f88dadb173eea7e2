"""Throughput and latency percentiles with 95 % intervals, from completions that depend on each other.

Batch-mates end together, and in a closed loop each request waits for those before it. So blocks of time are taken as
independent, never single requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from tuner.measure.record import Interval
from tuner.measure.window import Window
from tuner.slo import PERCENTILES, Percentile

_MOST_BLOCKS, _FEWEST_BLOCKS = 16, 4
_GROWTH_BLOCKS = 8
# Fewer completions have no spread to speak of; they are taken as those of a memoryless server.
_FEW = 8
_TAIL = 0.025
# So few blocks cannot tell a stronger correlation from a trend.
_STRONGEST_CORRELATION = 0.8
# Where the design effect is looked at, for all percentiles together: one tail alone holds too few requests.
_BODY = (0.3, 0.5, 0.7, 0.85)
_FEWEST_ABOVE = 5
# Independent requests from which the tail's decay is judged, when it must be.
_TAIL_REQUESTS = 10.0

_Floats = npt.NDArray[np.float64]


def throughput(window: Window) -> Interval:
    """Completions a second, counted from one completion to another: (N_k - N_j) / (t_k - t_j).

    A count over a time that begins and ends with completions is not off by a batch at either end. The interval is
    that of a ratio estimated from blocks of time, by Student's t, its variance widened by (1 + rho) / (1 - rho) for
    the correlation rho of neighbouring blocks. Very few completions, or blocks that hold any, are taken as a
    Poisson process.

    Raises:
        ValueError: the window is empty.
    """
    count, length_s = _count(window), window.length_s
    rate = count / length_s
    edges = _edges(window)
    events = len(edges) - 1
    if count < _FEW or events < _FEWEST_BLOCKS:
        low, high = _gamma(_TAIL, events) / events, _gamma(1 - _TAIL, events + 1) / events
        return Interval(value=rate, low=rate * low, high=rate * high)
    ends_ns = np.concatenate([[window.start_ns], window.done_ns[edges[1:] - 1]])
    residuals = np.diff(edges) - rate * np.diff(ends_ns) / 1e9
    half = _student(len(residuals)) * math.sqrt(_variance_of_sum(residuals)) / length_s
    return Interval(value=rate, low=max(0.0, rate - half), high=rate + half)


def poisson_rate(count: int, length_s: float) -> Interval:
    """Events a second, of so many in so long, with the exact interval of a Poisson process (Garwood 1936)."""
    low = _gamma(_TAIL, count) if count else 0.0
    return Interval(value=count / length_s, low=low / length_s, high=_gamma(1 - _TAIL, count + 1) / length_s)


def percentiles(window: Window) -> Mapping[Percentile, Interval]:
    """Latency percentiles in ms, each with the interval that follows from that of the share of requests below it.

    Woodruff's method (1952): the share below the true percentile q is like that of n' independent requests, so those
    at the ends of its interval bound the percentile. n' is n over the design effect (Kish 1965), the variance of
    shares between blocks over that of independent requests, made smaller for the few blocks that it comes from (Korn
    and Graubard 1998). Where n' requests are too few to bound q from above, the tail is taken as exponential.

    Raises:
        ValueError: the window is empty.
    """
    _count(window)
    ordered = np.sort(window.latency_ms)
    found: dict[Percentile, Interval] = {}
    if len(ordered) < _FEW:
        estimates = [_memoryless(ordered, share_of(name)) for name in PERCENTILES]
    else:
        blocks = _Blocks.of(window, ordered)
        estimates = [blocks.percentile(share_of(name)) for name in PERCENTILES]
    low = high = 0.0
    for name, estimate in zip(PERCENTILES, estimates, strict=True):
        # A higher percentile lies no lower, and neither do the ends of its interval.
        low, high = max(low, estimate.low), max(high, estimate.high)
        found[name] = Interval(value=estimate.value, low=low, high=high)
    return found


def growth(window: Window) -> Interval:
    """How fast latency grows, in seconds a second: 0 when requests are answered as fast as they come.

    The slope of a line through the mean latencies of blocks of equally many requests, by least squares, with Student's
    t for the few blocks, its variance widened as that of `throughput`. Too few requests for that grow by nothing that
    is known.
    """
    if len(window) < _GROWTH_BLOCKS * _FEW:
        return Interval(value=0.0, low=-math.inf, high=math.inf)
    blocks = np.linspace(0, len(window), _GROWTH_BLOCKS + 1).astype(np.intp)[:-1]
    sizes = np.diff(blocks, append=len(window))
    latency_s = np.add.reduceat(window.latency_ms, blocks) / sizes / 1e3
    at_s = np.add.reduceat((window.done_ns - window.start_ns) / 1e9, blocks) / sizes
    at_s -= at_s.mean()
    square = max(float(at_s @ at_s), 1e-18)
    slope = float(at_s @ latency_s) / square
    residuals = latency_s - latency_s.mean() - slope * at_s
    variance = float(residuals @ residuals) / (_GROWTH_BLOCKS - 2) / square * inflation(residuals)
    half = _student(_GROWTH_BLOCKS - 1) * math.sqrt(variance)
    return Interval(value=slope, low=slope - half, high=slope + half)


def share_of(name: Percentile) -> float:
    """The share of requests that are no slower: 0.99 for `p99`."""
    return int(name.removeprefix("p")) / 100


@dataclass(frozen=True)
class _Blocks:
    """Latencies by blocks of time, and how much the requests within one are alike.

    Attributes:
        latency_ms: (n,) in order of time.
        ordered: (n,) the same in order of size.
        edges: (blocks + 1,) where in `latency_ms` the blocks begin and end.
        body_effect: The design effect over the body of the distribution.
    """

    latency_ms: _Floats
    ordered: _Floats
    edges: npt.NDArray[np.intp]
    body_effect: float

    @classmethod
    def of(cls, window: Window, ordered: _Floats) -> _Blocks:
        edges = _edges(window)
        effects = [
            _design_effect(window.latency_ms, edges, float(ordered[int(share * len(ordered))])) for share in _BODY
        ]
        return cls(window.latency_ms, ordered, edges, sum(effects) / len(effects))

    def percentile(self, share: float) -> Interval:
        value = float(np.quantile(self.ordered, share))
        effect = self._effect(share, value)
        independent = max(1.0, len(self.ordered) / effect)
        below = share * independent
        low = float(np.quantile(self.ordered, special.betaincinv(below, independent - below + 1, _TAIL)))
        if share**independent <= _TAIL:
            bound = special.betaincinv(below + 1, independent - below, 1 - _TAIL)
            high = float(np.quantile(self.ordered, bound))
        else:
            high = self._beyond(share, independent)
        return Interval(value=value, low=min(low, value), high=max(high, value))

    def _effect(self, share: float, value: float) -> float:
        blocks = len(self.edges) - 1
        if blocks < 2:
            return float(len(self.ordered))
        effect = self.body_effect
        if (1 - share) * len(self.ordered) >= _FEWEST_ABOVE:
            effect = (effect + _design_effect(self.latency_ms, self.edges, value)) / 2
        return max(1.0, effect) * (_student(blocks) / _student(len(self.ordered))) ** 2

    def _beyond(self, share: float, independent: float) -> float:
        """The upper end where all requests seen may lie below the percentile; never below the largest of them.

        It takes the tail from a threshold well below the percentile as exponential, with the upper bound of its mean.
        """
        count = len(self.ordered)
        above = min(max(_TAIL_REQUESTS, 3 * independent * (1 - share)), independent / 2)
        first = count - min(max(1, round(above * count / independent)), count // 2)
        threshold = float(self.ordered[first - 1])
        excess = float(self.ordered[first:].mean()) - threshold
        depth = max(0.0, math.log((count - first) / count / (1 - share)))
        return max(threshold + excess * depth * above / _gamma(_TAIL, above), float(self.ordered[-1]))


def _memoryless(ordered: _Floats, share: float) -> Interval:
    """A percentile of so few latencies that only their mean is worth anything, with the bounds of an exponential."""
    count, value = len(ordered), float(np.quantile(ordered, share))
    depth = float(ordered.sum()) * -math.log1p(-share)
    low, high = depth / _gamma(1 - _TAIL, count), depth / _gamma(_TAIL, count)
    return Interval(value=value, low=min(low, value), high=max(high, value))


def _count(window: Window) -> int:
    if not len(window):
        raise ValueError("no request has ended within the window")
    return len(window)


def _edges(window: Window) -> npt.NDArray[np.intp]:
    """Where among the completions the blocks of time begin and end; blocks without one are left out.

    A block is no shorter than a typical request, so that its requests have little to do with those before it.
    """
    typical_s = max(float(np.median(window.latency_ms)) / 1e3, 1e-9)
    blocks = int(np.clip(window.length_s / typical_s, _FEWEST_BLOCKS, _MOST_BLOCKS))
    times = np.linspace(window.start_ns, window.done_ns[-1], blocks + 1)
    edges = np.searchsorted(window.done_ns, times, side="right")
    edges[0], edges[-1] = 0, len(window)
    distinct: npt.NDArray[np.intp] = np.unique(edges)
    return distinct


def _design_effect(latency_ms: _Floats, edges: npt.NDArray[np.intp], limit_ms: float) -> float:
    """The variance of the share of requests above a limit, as blocks show it, over that of independent requests."""
    count = len(latency_ms)
    passed = np.concatenate([[0], np.cumsum(latency_ms > limit_ms)])
    above = np.diff(passed[edges])
    share = float(passed[-1]) / count
    if not 0 < share < 1 or len(above) < 2:
        return 1.0
    return _variance_of_sum(above - share * np.diff(edges)) / (count * share * (1 - share))


def _variance_of_sum(residuals: _Floats) -> float:
    """The variance of a sum of residuals of mean 0, each of a block, when neighbouring blocks are correlated."""
    blocks = len(residuals)
    variance = blocks / (blocks - 1) * float(residuals @ residuals)
    return variance * inflation(residuals)


def inflation(residuals: _Floats) -> float:
    """How much larger the variance of a mean is where neighbouring blocks are correlated: (1 + rho) / (1 - rho)."""
    spread = residuals - residuals.mean()
    square = float(spread @ spread)
    rho = float(spread[1:] @ spread[:-1]) / square if square > 0 else 0.0
    # Blocks that alternate would narrow the interval, on little evidence.
    rho = min(max(rho, 0.0), _STRONGEST_CORRELATION)
    return (1 + rho) / (1 - rho)


def _student(count: int) -> float:
    """The two-sided 95 % quantile of Student's t for the mean of `count` values."""
    return float(special.stdtrit(count - 1, 1 - _TAIL))


def _gamma(probability: float, shape: float) -> float:
    """The quantile of a gamma distribution: how many of a Poisson process's mean gaps `shape` gaps take."""
    return float(special.gammaincinv(shape, probability))
