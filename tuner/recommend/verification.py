"""Verified points: configs that were relaunched after the search.

The best of many noisy numbers is too good. So the reported numbers of a finalist come from rounds that had no part in
choosing it. The rounds are distributed over time, so that their spread includes changes of a shared machine.
"""

from __future__ import annotations

import math
from statistics import geometric_mean, median

from tuner.core.loads import Load
from tuner.core.record import Record
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint, limits_together, rounds_together
from tuner.stats.slo_verdict import SLOTest


class Verification(Record):
    """A config under one load, relaunched in rounds.

    Attributes:
        trial: The number of the trial of the config.
        load: The load.
        rounds: One point for each launch, in order of time; empty if the first launch failed.
        numbers: The number of the round of each point. Points of the same round ran side by side.
        choosing: The number of first rounds that had a part in choosing the best.
        failure: Why it failed, in one line; None: it did not.
    """

    trial: int
    load: Load
    rounds: tuple[OperatingPoint, ...] = ()
    numbers: tuple[int, ...] = ()
    choosing: int = 0
    failure: str | None = None

    @property
    def confirming(self) -> tuple[OperatingPoint, ...]:
        """The rounds after it was chosen."""
        return self.rounds[self.choosing :]

    @property
    def throughput(self) -> float:
        """Geometric mean of all rounds, in inferences/s; at least one round is needed."""
        return geometric_mean(point.throughput.value for point in self.rounds)

    def latency_ms(self, percentile: Percentile) -> float:
        """Median of all rounds, in ms, robust against a disturbed launch; at least one round is needed."""
        return math.exp(median(math.log(point.latency_ms[percentile].value) for point in self.rounds))

    @property
    def limits(self) -> tuple[SLOTest, ...]:
        """The pooled tests of all rounds; all rounds tested the same limits."""
        return limits_together(self.rounds)

    @property
    def confirms(self) -> bool:
        """Whether there are confirming rounds."""
        return bool(self.confirming)

    @property
    def point(self) -> OperatingPoint | None:
        """The confirming rounds as one point, or all rounds if there are none; None when it failed.

        The tests of limits use all rounds. They are valid at any time, so the choice does not bias them.
        """
        if self.failure or not self.rounds:
            return None
        return rounds_together(self.confirming or self.rounds).model_copy(update={"limits": self.limits})
