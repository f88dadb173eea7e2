"""One finalist: what was measured of it so far, and whether it may still be the best."""

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
from tuner.stats.limit_test import LimitTest, Verdict, together

# Rounds that confirm what was chosen: at least, and at most while it is not sure or not precise enough.
LEAST_ROUNDS, MOST_ROUNDS = 3, 8
# From so many rounds on it is asked whether the most that there may be can be enough.
_DOUBT_ROUNDS = 2
# Standard deviations between launches that a lower load leaves to the limit: one launch in forty is slower.
_ROOM = 2.0
# The same of a load to begin with, which may be slowed by less than that: it is tried before it is given up.
_HOPE = 1.0
# Launches differ by so much at the least, however alike a few of them were.
_LEAST_SPREAD = 0.02
# How much lower to go when it breaks a limit: never by less, never by more.
_STEP = (0.5, 0.95)


class FinalistStatus(Enum):
    """Whether a finalist may still be the best."""

    REMAINS = "may be the best"
    BREAKS_SLO = "violates the SLO (99 % confidence)"
    INCONCLUSIVE = "too near to the limit for a test to show that it holds the SLO"
    FAILED = "failed"


class Finalist:
    """A shortlist entry, relaunched round after round.

    Args:
        entry: What is measured.
        slo: The limits, maybe none.
        max_gpu_memory: Bytes that its server may take of each GPU; None: all that there is.
        before: What was measured of it before.
    """

    def __init__(
        self, entry: ShortlistEntry, slo: SLO, max_gpu_memory: int | None = None, before: Verification | None = None
    ) -> None:
        self.entry = entry
        self.verification = before or Verification(trial=entry.trial.number, load=entry.load)
        self._slo = slo
        self._max_gpu_memory = max_gpu_memory
        # Where launches after the search tell of it, nothing is left to expect.
        self._bias = SearchBias() if entry.searched else SearchBias(1.0, 1.0)

    def __str__(self) -> str:
        return f"trial {self.entry.trial.number} at {self.entry.load}"

    @property
    def began(self) -> bool:
        """Whether there has been a round."""
        return bool(self.verification.rounds or self.verification.failure)

    @property
    def rounds(self) -> int:
        """How many there have been."""
        return len(self.verification.rounds)

    @property
    def throughput(self) -> float:
        """Inferences/s that are to be expected of it: the mean of its rounds, or what seems likely before them."""
        if not self.rounds:
            return self.entry.throughput * self._bias.throughput
        return self.verification.throughput

    @property
    def mean_latency_ms(self) -> float:
        """At the percentile that counts, over its rounds; infinite without any."""
        rounds = self.verification.rounds
        return fmean(point.latency_ms[self._slo.percentile].value for point in rounds) if rounds else math.inf

    def add(self, number: int, point: OperatingPoint, *, choosing: bool) -> None:
        """Another round, by its number among all, and whether it has a say in the choice."""
        told = self.verification
        self._update(rounds=(*told.rounds, point), numbers=(*told.numbers, number), failure=self._fault(point))
        if choosing:
            self.choose()

    def fail(self, reason: str) -> None:
        """It failed, and gets no further round."""
        self._update(failure=reason)

    def choose(self) -> None:
        """Its rounds so far have had a say in the choice."""
        self._update(choosing=self.rounds)

    def status(self, spread: float) -> FinalistStatus:
        """What its rounds say.

        Args:
            spread: Standard deviation of latency's logarithm from launch to launch.
        """
        told = self.verification
        if told.failure:
            return FinalistStatus.FAILED
        if together(test.verdict for test in told.limits) is Verdict.BREAKS:
            return FinalistStatus.BREAKS_SLO
        over = self.rounds >= LEAST_ROUNDS and self._is_over
        near = self.rounds >= _DOUBT_ROUNDS and self._room(spread) < 1
        # Away from the limit, requests that were too few to tell are no reason to doubt it.
        inconclusive = over or (near and self.decidable and not self._will_hold)
        return FinalistStatus.INCONCLUSIVE if inconclusive else FinalistStatus.REMAINS

    @property
    def decidable(self) -> bool:
        """Whether a test can show that it holds its limits: of a slow model there may be too few requests for one."""
        none_over = [
            tuple(test.model_copy(update={"over": 0}) for test in point.limits) for point in self.verification.rounds
        ]
        return all(test.verdict is Verdict.HOLDS for test in _gone_on(none_over))

    @property
    def is_sure(self) -> bool:
        """Whether a test shows that it holds its limits, or none ever can."""
        verdict = together(test.verdict for test in self.verification.limits)
        return verdict is Verdict.HOLDS or not self.decidable

    def expect(self, bias: SearchBias, spread: float) -> None:
        """Expect of it what launches of others say, and less load where the search expected too much.

        Args:
            bias: Between the search and the launches after it.
            spread: As for `lower`.
        """
        if self.entry.searched:
            self._bias = bias
        while not self.began and self._room(spread, _HOPE) < 1 and (lower := self.lower(spread)):
            self.entry = lower
            self.verification = Verification(trial=lower.trial.number, load=lower.load)

    def lower(self, spread: float) -> ShortlistEntry | None:
        """The same config under so much less load that it is likely to hold; None: there is no lower.

        Args:
            spread: Standard deviation of latency's logarithm from launch to launch.
        """
        known = self.entry
        if self.rounds:
            latency_ms = {name: self._latency_ms(name) for name in known.latency_ms}
            known = replace(known, throughput=self.throughput, latency_ms=latency_ms, searched=False)
        low, high = _STEP
        return known.lower(min(max(self._room(spread), low), high))

    @property
    def deviations(self) -> tuple[float, ...]:
        """Of the logarithm of each round's latency, at the percentile that counts, from their mean.

        They are as large as they would be from the true mean.
        """
        logs = self._logs(self._slo.percentile)
        if len(logs) < 2:
            return ()
        return tuple((log - fmean(logs)) * math.sqrt(len(logs) / (len(logs) - 1)) for log in logs)

    def _room(self, spread: float, deviations: float = _ROOM) -> float:
        """The limit over what so slow a launch may give, of the limit that is nearest; 1 and more is away from it."""
        slow = math.exp(deviations * max(spread, _LEAST_SPREAD))
        rooms = (limit_ms / (self._latency_ms(name) * slow) for name, limit_ms in self._slo.limits)
        return min(rooms, default=math.inf)

    def _latency_ms(self, name: Percentile) -> float:
        """What is to be expected of a launch."""
        if self.rounds:
            return self.verification.latency_ms(name)
        return self.entry.latency_ms[name] * self._bias.latency

    def _logs(self, percentile: Percentile) -> list[float]:
        return [math.log(point.latency_ms[percentile].value) for point in self.verification.rounds]

    @property
    def _will_hold(self) -> bool:
        """Whether a test shows that it holds, if all rounds that there may be are like those so far."""
        rounds = [point.limits for point in self.verification.rounds]
        return all(test.verdict is Verdict.HOLDS for test in _gone_on(rounds))

    @property
    def _is_over(self) -> bool:
        """Whether it breaks a limit by its mean."""
        rounds = self.verification.rounds
        return any(fmean(p.latency_ms[name].value for p in rounds) > limit_ms for name, limit_ms in self._slo.limits)

    def _fault(self, point: OperatingPoint) -> str | None:
        """What speaks against it, if anything; the baseline may take the memory that it takes."""
        if point.errors:
            return f"{point.errors} requests failed: {point.error}"
        limit, taken = self._max_gpu_memory, point.gpu.taken_bytes if point.gpu else None
        if self.entry.trial.number == 0 or limit is None or taken is None or taken <= limit:
            return None
        return f"took {format_size(taken)} of GPU memory (limit {format_size(limit)})"

    def _update(self, **changes: object) -> None:
        self.verification = self.verification.model_copy(update=changes)


def _gone_on(rounds: list[tuple[LimitTest, ...]]) -> list[LimitTest]:
    """The tests of as many rounds as there may be, when they go on as they did."""
    times = math.ceil(MOST_ROUNDS / max(1, len(rounds)))
    return [LimitTest.pooled(tests * times) for tests in zip(*rounds, strict=True)]
