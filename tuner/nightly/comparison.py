"""What comparing two configs has told: pairs of launches, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tuner.core.loads import Concurrency
from tuner.core.record import Interval, Record
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.recommend.between_launches import launches_hold
from tuner.recommend.gain import paired_ratio
from tuner.recommend.verification import limits_together
from tuner.stats.limit_test import CHANCE, Verdict, together

LEAST_PAIRS, MOST_PAIRS = 4, 10
"""Pairs before the first look, and in all."""

LOOKS = (4, 6, 8, 10)
"""After so many pairs it is asked whether that is enough; who looks more often errs more often."""

# Each look may err so often that all of them together do in 5 % of cases (Bonferroni).
_TAIL = 0.025 / len(LOOKS)


class PairedLaunch(Record):
    """One launch.

    Attributes:
        points: Under each load that it was measured at.
    """

    points: tuple[OperatingPoint, ...]

    def at(self, load: Concurrency) -> OperatingPoint | None:
        """Under a load."""
        return next((point for point in self.points if point.load == load), None)


class Comparison(Record):
    """Deployed and candidate, side by side.

    Attributes:
        slo: What must hold.
        loads: Of the candidate, the highest first: where no test shows that it holds the SLO at one, it may at a lower.
        deployed: A launch a pair; each at the candidate's load, too, so that none is worse for having had less to do.
        candidate: A launch a pair.
        failure: Why there are no more pairs, in a line, where the candidate failed.
    """

    slo: SLO
    loads: tuple[Concurrency, ...]
    deployed: tuple[PairedLaunch, ...] = ()
    candidate: tuple[PairedLaunch, ...] = ()
    failure: str | None = None

    @property
    def pairs(self) -> int:
        """How many."""
        return min(len(self.deployed), len(self.candidate))

    @property
    def load(self) -> Concurrency:
        """The highest of the candidate's loads at which a test shows that it holds the SLO.

        Where there is none, the highest at which it does not surely break it.
        """
        told = {load: self._candidate_verdict(load) for load in self.loads}
        wanted = (Verdict.HOLDS, Verdict.OPEN, Verdict.BREAKS)
        return next(load for verdict in wanted for load in self.loads if told[load] is verdict)

    @property
    def candidate_rounds(self) -> list[OperatingPoint]:
        """The candidate's points at its load."""
        return self.candidate_rounds_at(self.load)

    def candidate_rounds_at(self, load: Concurrency) -> list[OperatingPoint]:
        """The candidate's points at one of its loads."""
        return _rounds(self.candidate[: self.pairs], load)

    @property
    def deployed_load(self) -> Concurrency | None:
        """The load under which the deployed config gives most, of those at which it does not surely break the SLO.

        Where it surely breaks it at all of them, the lowest. What is not sure counts for the deployed.
        """
        loads = self._deployed_loads
        holding = [load for load in loads if _verdict(self.deployed_rounds(load), self.slo) is not Verdict.BREAKS]
        if not holding:
            return min(loads, key=lambda load: load.requests, default=None)
        return max(holding, key=lambda load: fmean(p.throughput.value for p in self.deployed_rounds(load)))

    def deployed_rounds(self, load: Concurrency) -> list[OperatingPoint]:
        """The deployed config's points at a load."""
        return _rounds(self.deployed[: self.pairs], load)

    @property
    def gain(self) -> Interval | None:
        """The candidate's throughput over the deployed config's; None with fewer than two pairs.

        The geometric mean over pairs with the t-interval of their logarithms, wide enough for all looks together, and
        no narrower than what each measurement knows of itself.
        """
        load = self.deployed_load
        if load is None or self.pairs < 2:
            return None
        return sequential_ratio(
            [
                (above.throughput, below.throughput)
                for above, below in zip(self.candidate_rounds, self.deployed_rounds(load), strict=True)
            ]
        )

    @property
    def verdict(self) -> Verdict:
        """Whether the candidate holds the SLO, by the test over all its launches; without a limit it does."""
        return self._candidate_verdict(self.load)

    def _candidate_verdict(self, load: Concurrency) -> Verdict:
        rounds = self.candidate_rounds_at(load)
        if any(point.errors for point in rounds):
            return Verdict.BREAKS
        return _verdict(rounds, self.slo, among=len(self.loads)) if self.slo.root else Verdict.HOLDS

    @property
    def _deployed_loads(self) -> list[Concurrency]:
        sides = self.deployed[: self.pairs]
        everywhere = [{p.load for p in side.points if isinstance(p.load, Concurrency)} for side in sides]
        return sorted(set.intersection(*everywhere), key=lambda load: load.requests) if everywhere else []


def sequential_ratio(pairs: Sequence[tuple[Interval, Interval]]) -> Interval:
    """The ratio of pairs, with an interval that holds 95 % over all `LOOKS` together.

    Args:
        pairs: Two and more.
    """
    return paired_ratio(pairs, _TAIL)


def _rounds(sides: Sequence[PairedLaunch], load: Concurrency) -> list[OperatingPoint]:
    return [point for side in sides if (point := side.at(load))]


def _verdict(rounds: Sequence[OperatingPoint], slo: SLO, among: int = 1) -> Verdict:
    """Of the tests of all launches together; a limit that was not tested is open.

    Args:
        rounds: A point a launch.
        slo: The limits.
        among: Of how many loads, of which one that holds will do, this is one.
    """
    if not rounds:
        return Verdict.OPEN
    told = {test.limit: test.verdict_among(among) for test in limits_together(rounds)}
    verdict = together(told.get(limit, Verdict.OPEN) for limit in slo.limits)
    chance = CHANCE / among / len(LOOKS)
    if verdict is Verdict.HOLDS and not all(launches_hold(rounds, *limit, chance) for limit in slo.limits):
        return Verdict.OPEN
    return verdict
