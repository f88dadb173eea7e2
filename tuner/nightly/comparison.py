"""The comparison of two configs by pairs of launches, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance

from scipy import special

from tuner.core.loads import SteadyLoad
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.record import Interval, Record
from tuner.core.slo import SLO, Limit, Statistic, share_of
from tuner.measure.points import OperatingPoint, limits_together
from tuner.recommend.gain import paired_ratio
from tuner.stats.blocks import student
from tuner.stats.slo_verdict import CHANCE, Verdict, together

LEAST_PAIRS, MOST_PAIRS = 4, 10
"""Pairs before the first decision, and in all."""

LOOKS = (4, 6, 8, 10)
"""Numbers of pairs after which the gate may decide. Each look adds to the error probability."""

# Error probability on either side at each look, so that all looks together have 5 % (Bonferroni).
_TAIL = 0.025 / len(LOOKS)
# Typical standard deviation of the logarithm of latency between launches on one machine within an hour, and its weight
# in launches.
_TYPICAL_DEVIATION, _TYPICAL_LAUNCHES = 0.05, 3


class PairedLaunch(Record):
    """One launch of a pair.

    Attributes:
        points: A point for each load.
    """

    points: tuple[OperatingPoint, ...]

    def at(self, load: SteadyLoad) -> OperatingPoint | None:
        """The point under a load; None: it was not measured."""
        return next((point for point in self.points if point.load == load), None)


class Comparison(Record):
    """Deployed and candidate, side by side.

    Attributes:
        slo: The limits.
        objective: The objective, by which one is better.
        loads: The loads of the candidate, in descending order. At a lower load, a test may show that it holds the SLO.
        deployed: Launches of the deployed config, one for each pair. They include the candidate's load, for a fair
            comparison.
        candidate: Launches of the candidate, one for each pair.
        failure: Why the candidate failed, in one line; None: it did not.
    """

    slo: SLO
    loads: tuple[SteadyLoad, ...]
    deployed: tuple[PairedLaunch, ...] = ()
    candidate: tuple[PairedLaunch, ...] = ()
    failure: str | None = None
    objective: Objective = THROUGHPUT

    @property
    def pairs(self) -> int:
        """The number of complete pairs."""
        return min(len(self.deployed), len(self.candidate))

    @property
    def load(self) -> SteadyLoad:
        """The highest of the candidate's loads at which a test shows that it holds the SLO (99 % confidence).

        If there is none, the highest load at which no test shows a violation.
        """
        verdicts = {load: self._candidate_verdict(load) for load in self.loads}
        wanted = (Verdict.HOLDS, Verdict.OPEN, Verdict.BREAKS)
        return next(load for verdict in wanted for load in self.loads if verdicts[load] is verdict)

    @property
    def candidate_rounds(self) -> list[OperatingPoint]:
        """The candidate's points at its load."""
        return self.candidate_rounds_at(self.load)

    def candidate_rounds_at(self, load: SteadyLoad) -> list[OperatingPoint]:
        """The candidate's points at one of its loads."""
        return _rounds(self.candidate[: self.pairs], load)

    @property
    def deployed_load(self) -> SteadyLoad | None:
        """The deployed config's load of the most merit, among the loads at which no test shows a violation.

        If tests show this at all loads, the lowest one. An open test counts in favour of the deployed config.
        """
        loads = self._deployed_loads
        holding = [load for load in loads if _verdict(self.deployed_rounds(load), self.slo) is not Verdict.BREAKS]
        if not holding:
            return min(loads, key=lambda load: load.level, default=None)
        return max(holding, key=lambda load: self._mean_merit(self.deployed_rounds(load)))

    def deployed_rounds(self, load: SteadyLoad) -> list[OperatingPoint]:
        """The deployed config's points at a load."""
        return _rounds(self.deployed[: self.pairs], load)

    @property
    def gain(self) -> Interval | None:
        """The candidate's merit over the deployed config's; None with fewer than two pairs, or if it is unknown.

        The geometric mean over pairs with the t-interval of their logarithms. The interval covers all looks together,
        and is at least as wide as the measurements' own errors imply.
        """
        load = self.deployed_load
        if load is None or self.pairs < 2:
            return None
        merits = self._merits(self.candidate_rounds), self._merits(self.deployed_rounds(load))
        return sequential_ratio(list(zip(*merits, strict=True))) if all(merits) else None

    def _mean_merit(self, rounds: Sequence[OperatingPoint]) -> float:
        """The mean merit of points; 0 if one is unknown."""
        return fmean(merit.value for merit in merits) if (merits := self._merits(rounds)) else 0.0

    def _merits(self, rounds: Sequence[OperatingPoint]) -> list[Interval]:
        """The merits of points; empty if one is unknown."""
        known = all(point.value(self.objective) for point in rounds)
        return [point.merit(self.objective) for point in rounds] if known else []

    @property
    def verdict(self) -> Verdict:
        """Whether the candidate holds the SLO, by the pooled test of all its launches; without a limit it holds."""
        return self._candidate_verdict(self.load)

    def _candidate_verdict(self, load: SteadyLoad) -> Verdict:
        rounds = self.candidate_rounds_at(load)
        if not all(point.is_answered for point in rounds):
            return Verdict.BREAKS
        return _verdict(rounds, self.slo, among=len(self.loads)) if self.slo.root else Verdict.HOLDS

    @property
    def _deployed_loads(self) -> list[SteadyLoad]:
        sides = self.deployed[: self.pairs]
        everywhere = [{p.load for p in side.points if isinstance(p.load, SteadyLoad)} for side in sides]
        return sorted(set.intersection(*everywhere), key=lambda load: load.level) if everywhere else []


def sequential_ratio(pairs: Sequence[tuple[Interval, Interval]]) -> Interval:
    """The ratio of pairs, with a 95 % interval that is valid over all `LOOKS` together.

    Args:
        pairs: At least two.
    """
    return paired_ratio(pairs, _TAIL)


def _rounds(sides: Sequence[PairedLaunch], load: SteadyLoad) -> list[OperatingPoint]:
    return [point for side in sides if (point := side.at(load))]


def _verdict(rounds: Sequence[OperatingPoint], slo: SLO, among: int = 1) -> Verdict:
    """The verdict of the pooled tests of all launches; a limit that was not tested is open.

    Args:
        rounds: One point for each launch.
        slo: The limits.
        among: Number of loads tested, any of which may hold; the test is corrected for it.
    """
    if not rounds:
        return Verdict.OPEN
    verdicts = {test.limit: test.verdict_among(among) for test in limits_together(rounds)}
    verdict = together(verdicts.get(limit, Verdict.OPEN) for limit in slo.limits)
    chance = CHANCE / among / len(LOOKS)
    if verdict is Verdict.HOLDS and not all(launches_hold(rounds, limit, chance) for limit in slo.limits):
        return Verdict.OPEN
    return verdict


def launches_hold(rounds: Sequence[OperatingPoint], limit: Limit, chance: float) -> bool:
    """Whether the requests of all future launches together keep a limit, judged by a few launches.

    Most slow requests come from a few slow launches, and a small sample may contain none of these. So latency is
    modelled as log-normal between and within launches. The result allows for the interval of the mean. It also allows
    for the distance of the percentile of all requests from that of a typical launch. If requests within a launch are
    alike, this is a tolerance limit (noncentral t; Hahn and Meeker 1991, "Statistical Intervals").

    Args:
        rounds: One point for each launch, all under the same load.
        limit: The limit.
        chance: Error probability. With fewer than two launches, the result is false.
    """
    count = len(rounds)
    if count < 2:
        return False
    logs = [math.log(point.limitable_ms[limit.key].value) for point in rounds]
    freedom = count - 1 + _TYPICAL_LAUNCHES
    spread = math.sqrt(((count - 1) * variance(logs) + _TYPICAL_LAUNCHES * _TYPICAL_DEVIATION**2) / freedom)
    z = float(special.ndtri(share_of(limit.percentile)))
    of_mean = student(freedom + 1, chance) / math.sqrt(count)
    of_launch = float(special.nctdtrit(freedom, z * math.sqrt(count), 1 - chance)) / math.sqrt(count)
    middle = Statistic(limit.metric, "p50").key
    within = fmean(log - math.log(point.limitable_ms[middle].value) for log, point in zip(logs, rounds, strict=True))
    beyond = math.hypot(within, (of_launch - of_mean) * spread) - within
    return fmean(logs) + of_mean * spread + beyond <= math.log(limit.limit_ms)
