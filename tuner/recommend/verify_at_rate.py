"""Verification at a fixed rate: relaunches the quickest candidates in rounds, all under the same arrivals.

As in `tuner.recommend.verify`, the first rounds choose, and the later ones confirm the choice beside the baseline.
There is one load, so no candidate is tried under another one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tuner.core.errors import ServerError
from tuner.core.loads import RequestRate
from tuner.core.objectives import Objective
from tuner.core.quantities import format_size
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import usable_points
from tuner.recommend.recommend import holds
from tuner.recommend.verification import Verification
from tuner.recommend.verify import Eliminated, RelaunchAndMeasure, VerificationTerms, noted
from tuner.stats.slo_verdict import CONFIDENCE, Verdict, together

# Finalists that run side by side to choose among them, and rounds of each.
_TOP, _CHOOSING_ROUNDS = 3, 2
# A candidate is launched only if its expected merit is at least this share of the best one's.
_NEAR = 0.7
# Confirming rounds: the fewest, and the most while a test is open or the interval of latency is wider than this share.
_LEAST_ROUNDS, _MOST_ROUNDS, _PRECISE = 3, 8, 0.1


def verify_at_rate(
    trials: Sequence[TrialResult],
    objective: Objective,
    measure: RelaunchAndMeasure,
    terms: VerificationTerms,
    *,
    verified: Iterable[Verification] = (),
    keep: Callable[[Sequence[Verification]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    eliminated: Eliminated | None = None,
) -> tuple[Verification, ...]:
    """Choose among the quickest candidates, and confirm the choice beside the baseline.

    Args:
        trials: The trials of a finished search at one rate, the baseline first.
        objective: The latency to minimize, with its rate.
        measure: Relaunches and measures a trial.
        terms: Its limits.
        verified: Verifications of an earlier run; their rounds count, and are not repeated.
        keep: Called with all verifications, after each round.
        note: Called with each message about the progress.
        eliminated: Called with each finalist that is eliminated; None: it is a note.

    Returns:
        All verifications; `tuner.recommend.recommend` chooses the best of them.
    """
    finals = _Finals(trials, objective, measure, terms, verified, keep, note, eliminated or noted(note))
    while finals.has_time_for(0) and (due := finals.due()).trials:
        finals.play(due)
    return finals.verifications


@dataclass(frozen=True)
class _Round:
    """The trials to launch side by side.

    Attributes:
        trials: Their numbers; empty: the result is known.
        chooses: Whether the round has a part in the choice of the best.
    """

    trials: tuple[int, ...]
    chooses: bool = False


class _Finals:
    """The finalists, by number of the trial, and their rounds."""

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        trials: Sequence[TrialResult],
        objective: Objective,
        measure: RelaunchAndMeasure,
        terms: VerificationTerms,
        verified: Iterable[Verification],
        keep: Callable[[Sequence[Verification]], None],
        note: Callable[[str], None],
        eliminated: Eliminated,
    ) -> None:
        self._objective, self._measure, self._terms, self._keep, self._note = objective, measure, terms, keep, note
        self._eliminated = eliminated
        self._load = RequestRate(objective.rate or 0.0)
        self._trials = {trial.number: trial for trial in trials}
        points = [p for p in usable_points(trials, (), terms.max_gpu_memory, objective) if holds(p, terms.slo)]
        self._expected = {p.trial.number: p.merit(objective).value for p in points}
        self._by_trial = {v.trial: v for v in verified if v.load == self._load}
        self._order = random.Random(terms.seed)  # noqa: S311 (no secret)
        self._round = max((number for v in self._by_trial.values() for number in v.numbers), default=0)
        self._launches, self._took_s = 1, terms.launch_s

    @property
    def verifications(self) -> tuple[Verification, ...]:
        return tuple(self._by_trial.values())

    def has_time_for(self, launches: int) -> bool:
        return self._terms.now() + launches * self._took_s / self._launches <= self._terms.until

    def due(self) -> _Round:
        """The next round."""
        remaining = sorted((n for n in self._expected if self._why_out(n) is None), key=self._merit, reverse=True)
        if not remaining:
            return _Round(())
        near = [n for n in remaining if self._merit(n) >= _NEAR * self._merit(remaining[0])][:_TOP]
        if not any(self._verification(n).confirms for n in near):
            choosing = tuple(n for n in near if len(self._verification(n).rounds) < _CHOOSING_ROUNDS)
            if len(near) > 1 and choosing and self.has_time_for(len(choosing) + 2 * _LEAST_ROUNDS):
                return _Round(choosing, chooses=True)
        chosen, confirming = remaining[0], self._verification(remaining[0]).confirming
        pair = tuple({chosen: None, **({0: None} if self._why_out(0) is None else {})})
        late = len(confirming) > 0 and not self.has_time_for(len(pair))
        return _Round(() if late or self._is_known(chosen) else pair)

    def play(self, due: _Round) -> None:
        """Launch the trials of a round in random order."""
        self._round += 1
        for number in self._order.sample(list(due.trials), len(due.trials)):
            self._launch(number, choosing=due.chooses)
        for number in due.trials:
            if reason := self._why_out(number):
                self._eliminated(number, self._load, reason)
        self._keep(self.verifications)

    def _launch(self, number: int, *, choosing: bool) -> None:
        before = self._verification(number)
        if not before.rounds:
            self._note(f"verifying trial {number} at {self._load}")
        began = self._terms.now()
        try:
            for point in self._measure(self._trials[number], [self._load], self._round):
                after = before.model_copy(
                    update={"rounds": (*before.rounds, point), "numbers": (*before.numbers, self._round)}
                )
                if choosing:
                    after = after.model_copy(update={"choosing": len(after.rounds)})
                self._by_trial[number] = after.model_copy(update={"failure": self._fault(number, point)})
        except ServerError as error:
            self._by_trial[number] = before.model_copy(update={"failure": f"{error.cause.value}: {error}"})
        self._launches += 1
        self._took_s += self._terms.now() - began

    def _verification(self, number: int) -> Verification:
        return self._by_trial.get(number) or Verification(trial=number, load=self._load)

    def _merit(self, number: int) -> float:
        """The geometric mean of its rounds; without rounds, that of the search."""
        if rounds := self._verification(number).rounds:
            return math.exp(fmean(math.log(point.merit(self._objective).value) for point in rounds))
        return self._expected.get(number, 0.0)

    def _why_out(self, number: int) -> str | None:
        """Why a trial is eliminated; None: it is not."""
        verification = self._verification(number)
        if verification.failure:
            return verification.failure
        slo, rounds = self._terms.slo, verification.rounds
        if together(test.verdict for test in verification.limits) is Verdict.BREAKS:
            return f"violates the SLO ({CONFIDENCE})"
        if len(rounds) >= _LEAST_ROUNDS and verification.point and not verification.point.holds(slo):
            return "violates the SLO in the mean of its launches"
        return None

    def _is_known(self, number: int) -> bool:
        verification = self._verification(number)
        rounds, point = len(verification.confirming), verification.point
        if rounds >= _MOST_ROUNDS:
            return True
        if rounds < _LEAST_ROUNDS or point is None:
            return False
        is_open = together(test.verdict for test in verification.limits) is Verdict.OPEN
        return not is_open and point.merit(self._objective).log_half_width <= _PRECISE

    def _fault(self, number: int, point: OperatingPoint) -> str | None:
        """Why a point eliminates its trial. The memory limit does not apply to the baseline."""
        if point.errors:
            return f"{point.errors} requests failed: {point.error}"
        if point.kept_up is False:
            return "the server did not keep up"
        limit, taken = self._terms.max_gpu_memory, point.gpu.taken_bytes if point.gpu else None
        if number == 0 or limit is None or taken is None or taken <= limit:
            return None
        return f"took {format_size(taken)} of GPU memory (limit {format_size(limit)})"
