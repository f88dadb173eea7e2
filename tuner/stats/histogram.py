"""How latencies are distributed, in logarithmic buckets that are the same for every measurement.

As in HdrHistogram, what a bucket holds is known to a share of it, at 1 ms as at 10 s, and histograms of several
measurements add up.
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
# Of a bucket, as a share of its upper end.
_MIDDLE = 2 ** (-1 / (2 * _BUCKETS_A_DOUBLING))
_UPPER_MS = _LOWEST_MS * 2 ** (np.arange(_DOUBLINGS * _BUCKETS_A_DOUBLING + 1) / _BUCKETS_A_DOUBLING)


class Histogram(Record):
    """Latencies by bucket.

    A latency lies at most 4.4 % below the upper end of its bucket; below 1 us and above 72 min it is in the first or
    the last bucket there is.

    Attributes:
        buckets: Those that are not empty, from low to high: the upper end in ms, which belongs to it, and how many
            latencies lie in it.
    """

    buckets: tuple[tuple[float, int], ...] = ()

    @classmethod
    def of(cls, latency_ms: npt.NDArray[np.float64]) -> Histogram:
        """The histogram of latencies in ms, in any order."""
        places = np.searchsorted(_UPPER_MS[:-1], latency_ms, side="left")
        counts = np.bincount(places, minlength=1)
        return cls(buckets=tuple((float(_UPPER_MS[place]), int(counts[place])) for place in counts.nonzero()[0]))

    @classmethod
    def together(cls, histograms: Iterable[Histogram]) -> Histogram:
        """All latencies of several histograms."""
        counts: Counter[float] = Counter()
        for histogram in histograms:
            counts.update(dict(histogram.buckets))
        return cls(buckets=tuple(sorted(counts.items())))

    @property
    def mean_ms(self) -> float | None:
        """The mean latency, as far as the buckets tell it: to some 2 %. None without any."""
        if not self.count:
            return None
        return sum(upper_ms * _MIDDLE * count for upper_ms, count in self.buckets) / self.count

    @property
    def count(self) -> int:
        """How many latencies there are."""
        return sum(count for _, count in self.buckets)
