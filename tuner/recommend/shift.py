"""How launches after the search differ from those of the search, all of them alike.

The search takes the luckiest of many single launches, and a machine that is not alone may be another one later.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from tuner.core.slo import Percentile
from tuner.measure.trial import TrialResult
from tuner.recommend.curve import latency_ms_at, throughput_at
from tuner.recommend.verification import Verification

# Before any launch: the search's own numbers are those of the luckiest, one launch each, of many.
LUCK = 0.95


@dataclass(frozen=True)
class Shift:
    """What was measured again, over what the search saw under the same load.

    Attributes:
        throughput: As a factor.
        latency: The same of the latency, at the percentile that counts.
    """

    throughput: float = LUCK
    latency: float = 1.0

    @classmethod
    def of(cls, trials: Iterable[TrialResult], verified: Iterable[Verification], percentile: Percentile) -> Shift:
        """The medians over all that was measured again, and what is expected before any as one of them.

        Args:
            trials: Whose curves the search saw.
            verified: What was measured again.
            percentile: The one that counts.
        """
        curves = {trial.number: trial.curve for trial in trials}
        again = [(each, curves[each.trial]) for each in verified if each.rounds and curves.get(each.trial)]
        throughputs = [each.throughput / throughput_at(curve, each.load.level) for each, curve in again]
        latencies = [
            each.latency_ms(percentile) / latency_ms_at(curve, percentile, each.load.level) for each, curve in again
        ]
        return cls(_middle([*throughputs, LUCK]), _middle([*latencies, 1.0]))


def _middle(ratios: Iterable[float]) -> float:
    return math.exp(median(map(math.log, ratios)))
