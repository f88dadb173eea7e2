"""Verified points: configs that were relaunched after the search.

The best of many noisy numbers is too good. So the reported numbers of a finalist come from rounds that had no part in
choosing it. The rounds are distributed over time, so that their spread includes changes of a shared machine.
"""

from __future__ import annotations

import math
from statistics import geometric_mean, median
from typing import TypeVar

from tuner.core.loads import Load
from tuner.core.record import Record
from tuner.core.slo import Percentile
from tuner.measure.points import OperatingPoint, limits_together, rounds_together
from tuner.stats.slo_verdict import SLOTest

_T = TypeVar("_T")


class Verification(Record):
    """A config under one load, relaunched in rounds.

    Attributes:
        trial: The number of the trial of the config.
        load: The load.
        rounds: One point for each launch, in order of the rounds; empty if the first launch failed.
        numbers: The number of the round of each point. Points of the same round ran side by side.
        hosts: The host of each point; empty: all are from the machine of the run.
        choosing: The number of first rounds that had a part in choosing the best.
        failure: Why it failed, in one line; None: it did not.
    """

    trial: int
    load: Load
    rounds: tuple[OperatingPoint, ...] = ()
    numbers: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()
    choosing: int = 0
    failure: str | None = None

    @property
    def hosts_of_rounds(self) -> tuple[str, ...]:
        """The host of each point; empty: the machine of the run."""
        return self.hosts or ("",) * len(self.rounds)

    def with_round(self, point: OperatingPoint, number: int, host: str = "") -> Verification:
        """The same with one more round; rounds that were carried out at a time may end in any order."""
        at = sum(before < number for before in self.numbers)
        hosts = _inserted(self.hosts_of_rounds, at, host)
        return self.model_copy(
            update={
                "rounds": _inserted(self.rounds, at, point),
                "numbers": _inserted(self.numbers, at, number),
                "hosts": hosts if any(hosts) else (),
            }
        )

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


def _inserted(values: tuple[_T, ...], at: int, value: _T) -> tuple[_T, ...]:
    return (*values[:at], value, *values[at:])
