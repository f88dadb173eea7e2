"""Latency histograms with fixed logarithmic buckets.

As in HdrHistogram, the relative error is the same at 1 ms and at 10 s, and histograms can be added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tuner.core.record import Record

# Each bucket ends 2 ** (1 / 16) = 1.044 times as high as the one before, from 1 us to 72 min.
_BUCKETS_A_DOUBLING = 16
_DOUBLINGS = 32
_LOWEST_MS = 1e-3
# The geometric middle of a bucket, as a share of its upper end.
_MIDDLE = 2 ** (-1 / (2 * _BUCKETS_A_DOUBLING))
_UPPER_MS = _LOWEST_MS * 2 ** (np.arange(_DOUBLINGS * _BUCKETS_A_DOUBLING + 1) / _BUCKETS_A_DOUBLING)


class Histogram(Record):
    """A latency histogram.

    A latency is at most 4.4 % below the upper end of its bucket. Latencies below 1 us and above 72 min are in the first
    and the last bucket.

    Attributes:
        buckets: The buckets that are not empty, in ascending order: (upper end in ms, inclusive; count).
    """

    buckets: tuple[tuple[float, int], ...] = ()

    @classmethod
    def of(cls, latency_ms: npt.NDArray[np.float64]) -> Histogram:
        """The histogram of latencies in ms, shape (n,), in any order."""
        places = np.searchsorted(_UPPER_MS[:-1], latency_ms, side="left")
        counts = np.bincount(places, minlength=1)
        return cls(buckets=tuple((float(_UPPER_MS[place]), int(counts[place])) for place in counts.nonzero()[0]))

    @classmethod
    def together(cls, histograms: Iterable[Histogram]) -> Histogram:
        """The sum of several histograms."""
        counts: Counter[float] = Counter()
        for histogram in histograms:
            counts.update(dict(histogram.buckets))
        return cls(buckets=tuple(sorted(counts.items())))

    @property
    def mean_ms(self) -> float | None:
        """The mean latency in ms, to some 2 %; None for an empty histogram."""
        if not self.count:
            return None
        return sum(upper_ms * _MIDDLE * count for upper_ms, count in self.buckets) / self.count

    @property
    def count(self) -> int:
        """Number of latencies."""
        return sum(count for _, count in self.buckets)
