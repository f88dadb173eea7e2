"""A finalist: its rounds so far, and whether it is eliminated."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import Enum
from statistics import fmean

from tuner.core.quantities import format_size
from tuner.core.slo import SLO, Percentile
from tuner.measure.points import OperatingPoint
from tuner.recommend.search_bias import SearchBias
from tuner.recommend.shortlist import ShortlistEntry
from tuner.recommend.verification import Verification
from tuner.stats.slo_verdict import CONFIDENCE, SLOTest, Verdict, together

# Confirming rounds: the fewest, and the most while its test is open or its interval too wide.
LEAST_ROUNDS, MOST_ROUNDS = 3, 8
# Rounds after which a finalist near the limit is eliminated if `MOST_ROUNDS` could not show that it holds the SLO.
_LEAST_DECIDING_ROUNDS = 2
# Margin to the limit for a lower load, in standard deviations between launches; 1 launch in 40 exceeds it.
_MARGIN = 2.0
# The same for the first load of a finalist, which has less margin, as it may still be lowered.
_FIRST_MARGIN = 1.0
# The least standard deviation of the logarithm of latency between launches.
_LEAST_SPREAD = 0.02
# Smallest and largest factor on the load when it is lowered.
_STEP = (0.5, 0.95)


class FinalistStatus(Enum):
    """The state of a finalist: it may be the best, or why it is eliminated."""

    REMAINS = "may be the best"
    BREAKS_SLO = f"violates the SLO ({CONFIDENCE})"
    INCONCLUSIVE = "too near to the limit for a test to show that it holds the SLO"
    FAILED = "failed"


class Finalist:
    """A shortlist entry, relaunched round after round.

    Args:
        entry: The config and its load.
        slo: The limits; may be empty.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
        before: Its rounds of earlier runs; None: there are none.
    """

    def __init__(
        self, entry: ShortlistEntry, slo: SLO, max_gpu_memory: int | None = None, before: Verification | None = None
    ) -> None:
        self.entry = entry
        self.verification = before or Verification(trial=entry.trial.number, load=entry.load)
        self._slo = slo
        self._max_gpu_memory = max_gpu_memory
        # Estimates from relaunches have no search bias.
        self._bias = SearchBias() if entry.searched else SearchBias(1.0, 1.0)

    def __str__(self) -> str:
        return f"trial {self.entry.trial.number} at {self.entry.load}"

    @property
    def began(self) -> bool:
        """Whether it was launched."""
        return bool(self.verification.rounds or self.verification.failure)

    @property
    def rounds(self) -> int:
        """The number of its rounds."""
        return len(self.verification.rounds)

    @property
    def throughput(self) -> float:
        """Expected throughput in inferences/s: the mean of its rounds; without rounds, by the search and its bias."""
        if not self.rounds:
            return self.entry.throughput * self._bias.throughput
        return self.verification.throughput

    @property
    def mean_latency_ms(self) -> float:
        """Mean latency of its rounds at the SLO's percentile, in ms; infinite without rounds."""
        rounds = self.verification.rounds
        return fmean(point.latency_ms[self._slo.percentile].value for point in rounds) if rounds else math.inf

    def add(self, number: int, point: OperatingPoint, *, choosing: bool) -> None:
        """Add a round with its number; `choosing`: whether it has a part in the choice."""
        so_far = self.verification
        self._update(rounds=(*so_far.rounds, point), numbers=(*so_far.numbers, number), failure=self._fault(point))
        if choosing:
            self.choose()

    def fail(self, reason: str) -> None:
        """Record a failure, which eliminates it."""
        self._update(failure=reason)

    def choose(self) -> None:
        """Mark its rounds so far as choosing rounds."""
        self._update(choosing=self.rounds)

    def status(self, spread: float) -> FinalistStatus:
        """Its status after the rounds so far.

        Args:
            spread: Standard deviation of latency's logarithm from launch to launch.
        """
        if self.verification.failure:
            return FinalistStatus.FAILED
        if together(test.verdict for test in self.verification.limits) is Verdict.BREAKS:
            return FinalistStatus.BREAKS_SLO
        over = self.rounds >= LEAST_ROUNDS and self._is_over
        near = self.rounds >= _LEAST_DECIDING_ROUNDS and self._headroom(spread) < 1
        # Away from the limit, an open test does not eliminate it.
        inconclusive = over or (near and self.decidable and not self._will_hold)
        return FinalistStatus.INCONCLUSIVE if inconclusive else FinalistStatus.REMAINS

    @property
    def decidable(self) -> bool:
        """Whether a test can show that it holds the SLO; a slow model may have too few requests."""
        none_over = [
            tuple(test.model_copy(update={"over": 0}) for test in point.limits) for point in self.verification.rounds
        ]
        return all(test.verdict is Verdict.HOLDS for test in _continued(none_over))

    @property
    def is_decided(self) -> bool:
        """Whether a test shows that it holds the SLO (99 % confidence), or no test can decide."""
        verdict = together(test.verdict for test in self.verification.limits)
        return verdict is Verdict.HOLDS or not self.decidable

    def expect(self, bias: SearchBias, spread: float) -> None:
        """Update its expectation from the search bias, and lower its first load if the SLO would not hold.

        Args:
            bias: The bias of the search.
            spread: As for `lower`.
        """
        if self.entry.searched:
            self._bias = bias
        while not self.began and self._headroom(spread, _FIRST_MARGIN) < 1 and (lower := self.lower(spread)):
            self.entry = lower
            self.verification = Verification(trial=lower.trial.number, load=lower.load)

    def lower(self, spread: float) -> ShortlistEntry | None:
        """The same config under a lower load that probably holds the SLO; None: there is no lower load.

        Args:
            spread: Standard deviation of latency's logarithm from launch to launch.
        """
        entry = self.entry
        if self.rounds:
            latency_ms = {name: self._latency_ms(name) for name in entry.latency_ms}
            entry = replace(entry, throughput=self.throughput, latency_ms=latency_ms, searched=False)
        low, high = _STEP
        return entry.lower(min(max(self._headroom(spread), low), high))

    @property
    def deviations(self) -> tuple[float, ...]:
        """Deviations of each round's logarithm of latency, at the SLO's percentile, from the mean of all rounds.

        They are scaled to the size of deviations from the true mean.
        """
        logs = self._logs(self._slo.percentile)
        if len(logs) < 2:
            return ()
        return tuple((log - fmean(logs)) * math.sqrt(len(logs) / (len(logs) - 1)) for log in logs)

    def _headroom(self, spread: float, deviations: float = _MARGIN) -> float:
        """The smallest ratio of a limit to the latency of a launch slower by `deviations`; at least 1: has margin."""
        slow = math.exp(deviations * max(spread, _LEAST_SPREAD))
        ratios = (limit_ms / (self._latency_ms(name) * slow) for _, name, limit_ms in self._slo.limits)
        return min(ratios, default=math.inf)

    def _latency_ms(self, name: Percentile) -> float:
        """Expected latency of a launch, in ms."""
        if self.rounds:
            return self.verification.latency_ms(name)
        return self.entry.latency_ms[name] * self._bias.latency

    def _logs(self, percentile: Percentile) -> list[float]:
        return [math.log(point.latency_ms[percentile].value) for point in self.verification.rounds]

    @property
    def _will_hold(self) -> bool:
        """Whether a test shows that it holds the SLO after `MOST_ROUNDS`, if further rounds are like those so far."""
        rounds = [point.limits for point in self.verification.rounds]
        return all(test.verdict is Verdict.HOLDS for test in _continued(rounds))

    @property
    def _is_over(self) -> bool:
        """Whether its mean latency is above a limit."""
        rounds = self.verification.rounds
        return any(fmean(p.latency_ms[name].value for p in rounds) > limit_ms for _, name, limit_ms in self._slo.limits)

    def _fault(self, point: OperatingPoint) -> str | None:
        """Why a point eliminates it; None: it does not. The memory limit does not apply to the baseline."""
        if point.errors:
            return f"{point.errors} requests failed: {point.error}"
        limit, taken = self._max_gpu_memory, point.gpu.taken_bytes if point.gpu else None
        if self.entry.trial.number == 0 or limit is None or taken is None or taken <= limit:
            return None
        return f"took {format_size(taken)} of GPU memory (limit {format_size(limit)})"

    def _update(self, **changes: object) -> None:
        self.verification = self.verification.model_copy(update=changes)


def _continued(rounds: list[tuple[SLOTest, ...]]) -> list[SLOTest]:
    """The pooled tests after `MOST_ROUNDS` if further rounds are like those so far."""
    times = math.ceil(MOST_ROUNDS / max(1, len(rounds)))
    return [SLOTest.pooled(tests * times) for tests in zip(*rounds, strict=True)]
