"""A finalist: a config of the shortlist, its relaunches, and the load to launch it under."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from statistics import fmean

from tuner.core.loads import Concurrency, Load
from tuner.core.quantities import format_size
from tuner.measure.points import OperatingPoint
from tuner.recommend.host_effects import NO_HOSTS, HostEffects
from tuner.recommend.shortlist import ShortlistEntry
from tuner.recommend.speed import Speed, Spread
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import CONFIDENCE, SLOTest, Verdict, together

# Confirming rounds: the fewest, and the most while its test is open or its interval too wide.
LEAST_ROUNDS, MOST_ROUNDS = 3, 8
# The lowest and the highest load to try next, over the last one. Launches under other loads do not count.
_DOWN, _UP = 0.5, 1.5
# A load within this share of one that was launched is replaced by it.
_STEADY = 0.1


class FinalistStatus(Enum):
    """The state of a finalist under a load: it may be the best, or why it is eliminated."""

    REMAINS = "may be the best"
    BREAKS_SLO = f"violates the SLO ({CONFIDENCE})"
    NEAR_LIMIT = "too near to the limit, as launches differ"
    FAILED = "failed"


class Finalist:
    """A config of the shortlist, relaunched round after round.

    Args:
        entry: The config and its curve.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
        before: Verifications of the config by earlier runs.

    Attributes:
        verifications: Its rounds, by load.
    """

    def __init__(
        self, entry: ShortlistEntry, max_gpu_memory: int | None = None, before: Iterable[Verification] = ()
    ) -> None:
        self.entry = entry
        self.verifications: dict[Load, Verification] = {verification.load: verification for verification in before}
        self._max_gpu_memory = max_gpu_memory
        self._merit, self._latency, self._spread = Speed(), Speed(), Spread()
        self._hosts = NO_HOSTS

    @property
    def number(self) -> int:
        """The number of its trial."""
        return self.entry.trial.number

    @property
    def launches(self) -> tuple[tuple[OperatingPoint, ...], ...]:
        """The points of each relaunch, in order of the rounds."""
        return tuple(tuple(points) for _, points in self._launches_on_hosts)

    @property
    def _launches_on_hosts(self) -> list[tuple[str, list[OperatingPoint]]]:
        by_round = defaultdict[tuple[int, str], list[OperatingPoint]](list)
        for each in self.verifications.values():
            for number, host, point in zip(each.numbers, each.hosts_of_rounds, each.rounds, strict=True):
                by_round[number, host].append(point)
        return [(host, by_round[number, host]) for number, host in sorted(by_round)]

    @property
    def _near_launches(self) -> list[tuple[str, list[OperatingPoint]]]:
        """The host and the points of each relaunch under nearly the last load; the curve may be wrong beyond."""
        last = self._last_load or 1.0
        near = [
            (host, [p for p in points if _DOWN <= p.load.level / last <= _UP])
            for host, points in self._launches_on_hosts
        ]
        return [(host, points) for host, points in near if points]

    @property
    def choosing(self) -> int:
        """The number of launches that had a part in choosing the best."""
        return len({n for each in self.verifications.values() for n in each.numbers[: each.choosing]})

    @property
    def merit_speeds(self) -> list[float]:
        """The speed in each relaunch, by merit, without the effects of hosts."""
        objective = self.entry.objective
        return [
            fmean(math.log(p.merit(objective).value) - float(self.entry.merit(p.load.level)) for p in points)
            - self._hosts.merit(host, objective).mean
            + self._searched.mean
            for host, points in self._near_launches
            if all(p.value(objective) and p.merit(objective).value > 0 for p in points)
        ]

    @property
    def latency_speeds(self) -> list[float]:
        """The speed in each relaunch, by the latency nearest to its limit, without the effects of hosts.

        Empty without limits.
        """
        if not self.entry.slo.limits:
            return []
        return [
            fmean(float(self.entry.latency(p.load.level)) - self.entry.excess(p) for p in points)
            + self._hosts.latency(host).mean
            - self._searched_latency
            for host, points in self._near_launches
        ]

    @property
    def _searched(self) -> Speed:
        """The effect on merit of the host of its launch in the search."""
        return self._hosts.merit(self.entry.trial.host, self.entry.objective)

    @property
    def _searched_latency(self) -> float:
        """The effect on latency of the host of its launch in the search."""
        return self._hosts.latency(self.entry.trial.host).mean

    @property
    def searched(self) -> Speed:
        """The logarithm of its best merit in the search, without the effect of its host, and the doubt about that."""
        return Speed(self.entry.best_value - self._searched.mean, self._searched.deviation)

    def compare(self, hosts: HostEffects) -> None:
        """Update the effects of hosts."""
        self._hosts = hosts

    def expect(self, merit: Speed, latency: Speed, spread: Spread) -> None:
        """Update its expected speeds, relative to its launch in the search without the effect of its host.

        Args:
            merit: Its speed by merit.
            latency: Its speed by latency.
            spread: The spread of latency between launches.
        """
        self._merit, self._latency, self._spread = merit, latency, spread

    def value(self, load: Load) -> Speed:
        """The logarithm of its expected merit under a load, and the standard deviation."""
        merit = float(self.entry.merit(load.level)) - self._searched.mean
        return Speed(merit + self._merit.mean, self._merit.deviation)

    @property
    def mean_latency_ms(self) -> float:
        """Mean latency of its relaunches at the SLO's percentile, in ms; infinite without relaunches."""
        points = [point for points in self.launches for point in points]
        return fmean(p.latency_ms[self.entry.slo.percentile].value for p in points) if points else math.inf

    def load(self, margin: float, *, steady: bool = False) -> Concurrency | None:
        """The load of its most merit within the SLO, below all eliminated ones; None: there is none.

        Args:
            margin: Margin to the limits, in standard deviations of the expected latency.
            steady: Whether to prefer a load that was launched, if it is nearly the same.
        """
        if any(verification.failure for verification in self.verifications.values()):
            return None
        remaining = {load: self.status(load) is FinalistStatus.REMAINS for load in self.verifications}
        below = min((load.level for load, remains in remaining.items() if not remains), default=math.inf)
        best = self.entry.best_load(self._slower, self._margin(margin), self._mixed, below)
        if best is None:
            return None
        best = self._in_steps(best, below)
        if not steady:
            return best
        launched = [load for load, remains in remaining.items() if remains and isinstance(load, Concurrency)]
        near = [load for load in launched if abs(math.log(load.level / best.level)) < _STEADY]
        return max(near, key=lambda load: len(self.verifications[load].rounds), default=best)

    def _in_steps(self, best: Concurrency, below: float) -> Concurrency:
        """A load between the last one and the best one, as the curve may be wrong far from the last one.

        Args:
            best: The best load, by the curve.
            below: The lowest eliminated load.
        """
        if (last := self._last_load) is None:
            return best
        least, most = math.floor(last * _DOWN), math.ceil(last * _UP)
        if last < below < math.inf:
            most = min(most, max(math.floor(math.sqrt(last * below)), math.ceil(last)))
        return Concurrency(max(1, min(max(best.requests, least), most)))

    @property
    def _last_load(self) -> float | None:
        return max((p.load.level for points in self.launches[-1:] for p in points), default=None)

    def is_near(self, load: Load, margin: float) -> bool:
        """Whether its expected latency under a load is within a margin (see `load`) of a limit, or above it."""
        return float(self.entry.latency(load.level, self._mixed)) + self._slower + self._margin(margin) > 0

    @property
    def _slower(self) -> float:
        """Logarithm of the factor on the latencies of its launch in the search, on a typical host."""
        return -self._latency.mean - self._searched_latency

    @property
    def _mixed(self) -> float:
        """Standard deviation of the logarithm of latency between launches on all hosts."""
        return math.hypot(self._spread.doubt * self._spread.deviation, self._hosts.on_latency.between)

    def _margin(self, deviations: float) -> float:
        return deviations * self._spread.doubt * self._latency.deviation

    def status(self, load: Load) -> FinalistStatus:
        """Its status under a load."""
        verification = self.verifications.get(load)
        if verification is None:
            return FinalistStatus.REMAINS
        if verification.failure:
            return FinalistStatus.FAILED
        verdict = together(test.verdict for test in verification.limits)
        if verdict is Verdict.BREAKS:
            return FinalistStatus.BREAKS_SLO
        is_open = len(verification.confirming) >= MOST_ROUNDS and not is_decided(verification)
        is_over = len(verification.rounds) >= LEAST_ROUNDS and self._is_over(verification)
        return FinalistStatus.NEAR_LIMIT if is_open or is_over else FinalistStatus.REMAINS

    def add(self, load: Load, number: int, point: OperatingPoint, *, choosing: bool, host: str = "") -> None:
        """Add a round with its number and host; `choosing`: whether it has a part in the choice."""
        so_far = self._verification(load)
        self.verifications[load] = so_far.with_round(point, number, host)
        self._update(load, failure=so_far.failure or self._fault(point))
        if choosing:
            self.choose(load)

    def fail(self, load: Load, reason: str) -> None:
        """Record a failure, which eliminates it under every load."""
        self._update(load, failure=reason)

    def choose(self, load: Load) -> None:
        """Mark its rounds under a load so far as choosing rounds."""
        self._update(load, choosing=len(self._verification(load).rounds))

    def _is_over(self, verification: Verification) -> bool:
        """Whether a mean latency is above its limit, or more requests than allowed are."""
        above = any(test.over > test.allowed * test.requests for test in verification.limits)
        return above or fmean(math.exp(self.entry.excess(point)) for point in verification.rounds) > 1

    def _fault(self, point: OperatingPoint) -> str | None:
        """Why a point eliminates it; None: it does not. The memory limit does not apply to the baseline."""
        if point.errors:
            return f"{point.errors} requests failed: {point.error}"
        limit, taken = self._max_gpu_memory, point.gpu.taken_bytes if point.gpu else None
        if self.number == 0 or limit is None or taken is None or taken <= limit:
            return None
        return f"took {format_size(taken)} of GPU memory (limit {format_size(limit)})"

    def _verification(self, load: Load) -> Verification:
        return self.verifications.get(load) or Verification(trial=self.number, load=load)

    def _update(self, load: Load, **changes: object) -> None:
        self.verifications[load] = self._verification(load).model_copy(update=changes)


def is_decided(verification: Verification) -> bool:
    """Whether a test shows that a config holds the SLO (99 % confidence), or no test can decide."""
    verdict = together(test.verdict for test in verification.limits)
    return verdict is Verdict.HOLDS or not is_decidable(verification)


def is_decidable(verification: Verification) -> bool:
    """Whether a test can show in `MOST_ROUNDS` that a config holds the SLO; a slow model may have too few requests."""
    times = math.ceil(MOST_ROUNDS / max(1, len(verification.rounds)))
    none_over = (tuple(test.model_copy(update={"over": 0}) for test in p.limits) for p in verification.rounds)
    by_limit = zip(*none_over, strict=True)
    return all(SLOTest.pooled(tests * times).verdict is Verdict.HOLDS for tests in by_limit)
