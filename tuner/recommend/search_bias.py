"""The bias of the search: the difference of its numbers from those of later launches of the same configs.

The search picks the best of many single launches, so its best numbers are too good (winner's curse). A shared machine
may also have become faster or slower since.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from tuner.core.objectives import Objective
from tuner.core.slo import Percentile
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import latency_ms_at, throughput_at
from tuner.recommend.verification import Verification

WINNERS_CURSE = 0.95
"""Prior ratio of relaunched over searched throughput; `benchmarks/picks.py` measures the picks that it leads to."""


@dataclass(frozen=True)
class SearchBias:
    """Ratios of relaunched to searched numbers of the same configs under the same loads.

    Attributes:
        throughput: Ratio of throughputs.
        latency: Ratio of latencies at the SLO's percentile.
    """

    throughput: float = WINNERS_CURSE
    latency: float = 1.0

    def of_merit(self, objective: Objective) -> float:
        """Ratio of the merits of an objective; see `OperatingPoint.merit`."""
        return self.throughput if objective.maximizes else 1 / self.latency

    @classmethod
    def of(cls, trials: Iterable[TrialResult], verified: Iterable[Verification], percentile: Percentile) -> SearchBias:
        """The median ratios over all relaunched points, with the prior as an additional point.

        Args:
            trials: The trials of the search, with their curves.
            verified: The relaunched points.
            percentile: The SLO's latency percentile.
        """
        curves = {trial.number: trial.curve for trial in trials}
        relaunched = [(point, curves[point.trial]) for point in verified if point.rounds and curves.get(point.trial)]
        throughputs = [point.throughput / throughput_at(curve, point.load.level) for point, curve in relaunched]
        latencies = [
            point.latency_ms(percentile) / latency_ms_at(curve, percentile, point.load.level)
            for point, curve in relaunched
        ]
        return cls(_median([*throughputs, WINNERS_CURSE]), _median([*latencies, 1.0]))


def _median(ratios: Iterable[float]) -> float:
    return math.exp(median(map(math.log, ratios)))
