"""Verification at a fixed rate: relaunches the quickest candidates in rounds, all under the same arrivals.

As in `tuner.recommend.verify`, the first rounds choose, and the later ones confirm the choice beside the baseline.
There is one load, so no candidate is tried under another one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import sub
from statistics import fmean
from types import MappingProxyType

from tuner.core.loads import RequestRate
from tuner.core.quantities import format_size
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.front import usable_points
from tuner.recommend.host_effects import HostEffects, HostRecord
from tuner.recommend.recommend import holds
from tuner.recommend.rounds import (
    Eliminated,
    Pace,
    Relaunch,
    RelaunchAndMeasure,
    Round,
    VerificationPlan,
    VerificationTerms,
    carry_out_rounds,
    noted,
)
from tuner.recommend.speed import Speed
from tuner.recommend.verification import Verification
from tuner.recommend.verify import FinalsPlan
from tuner.stats.slo_verdict import CONFIDENCE, Verdict, together

# Finalists that run side by side to choose among them, and rounds of each.
_TOP, _CHOOSING_ROUNDS = 3, 2
# A candidate is launched only if its expected merit is at least this share of the best one's.
_NEAR = 0.7
# Confirming rounds: the fewest, and the most while a test is open or the interval of latency is wider than this share.
_LEAST_ROUNDS, _MOST_ROUNDS, _PRECISE = 3, 8, 0.1


def verify_at_rate(
    trials: Sequence[TrialResult],
    measure: RelaunchAndMeasure,
    terms: VerificationTerms,
    *,
    verified: Iterable[Verification] = (),
    keep: Callable[[Sequence[Verification]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    eliminated: Eliminated | None = None,
) -> tuple[Verification, ...]:
    """Choose among the quickest candidates, and confirm the choice beside the baseline, on one slot.

    Args:
        trials: The trials of a finished search at one rate, the baseline first.
        measure: Relaunches and measures a trial.
        terms: Its limits, and the latency to minimize, with its rate.
        verified: Verifications of an earlier run; their rounds count, and are not repeated.
        keep: Called with all verifications, after each round and at the end, also after an interruption.
        note: Called with each message about the progress.
        eliminated: Called with each finalist that is eliminated; None: it is a note.

    Returns:
        All verifications; `tuner.recommend.recommend` chooses the best of them.
    """
    plan = FinalsAtRatePlan(trials, terms, verified=verified, note=note, eliminated=eliminated)
    carry_out_rounds(plan, measure, terms.now, keep)
    return plan.verifications


def verification_plan(
    trials: Sequence[TrialResult],
    terms: VerificationTerms,
    *,
    expected: Mapping[int, Speed] = MappingProxyType({}),
    verified: Iterable[Verification] = (),
    hosts: Sequence[HostRecord] = (),
    note: Callable[[str], None] = lambda _: None,
    eliminated: Eliminated | None = None,
) -> VerificationPlan:
    """The plan for an objective, at a fixed rate or under any load; see `tuner.recommend.verify.FinalsPlan`."""
    if terms.objective.rate is None:
        return FinalsPlan(
            trials, terms, expected=expected, verified=verified, hosts=hosts, note=note, eliminated=eliminated
        )
    return FinalsAtRatePlan(trials, terms, verified=verified, hosts=hosts, note=note, eliminated=eliminated)


@dataclass(frozen=True)
class _Selection:
    """The trials to launch side by side.

    Attributes:
        trials: Their numbers; empty: the result is known.
        chooses: Whether the round has a part in the choice of the best.
    """

    trials: tuple[int, ...]
    chooses: bool = False


class FinalsAtRatePlan:
    """The rounds of the quickest candidates at one rate; a `tuner.recommend.rounds.VerificationPlan`.

    Args:
        trials: The trials of a search at one rate, the baseline first.
        terms: Its limits.
        verified: See `verify_at_rate`.
        hosts: The hosts of the study; empty: one.
        note: See `verify_at_rate`.
        eliminated: See `verify_at_rate`.
    """

    def __init__(
        self,
        trials: Sequence[TrialResult],
        terms: VerificationTerms,
        *,
        verified: Iterable[Verification] = (),
        hosts: Sequence[HostRecord] = (),
        note: Callable[[str], None] = lambda _: None,
        eliminated: Eliminated | None = None,
    ) -> None:
        self._terms, self._note, self._eliminated = terms, note, eliminated or noted(note)
        self._objective = terms.objective
        self._load = RequestRate(terms.objective.rate or 0.0)
        self._by_trial = {v.trial: v for v in verified if v.load == self._load}
        self._order = random.Random(terms.seed)  # noqa: S311 (no secret)
        self._round = max((number for v in self._by_trial.values() for number in v.numbers), default=0)
        self._under_way: dict[int, _Selection] = {}
        self._told = set[int]()
        self._pace = Pace(terms)
        self.update(trials, hosts=hosts)

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """See `VerificationPlan`."""
        return tuple(self._by_trial.values())

    def update(
        self,
        trials: Sequence[TrialResult],
        expected: Mapping[int, Speed] = MappingProxyType({}),
        hosts: Sequence[HostRecord] = (),
    ) -> None:
        """See `VerificationPlan`."""
        del expected
        terms, self._records = self._terms, tuple(hosts)
        self._trials = {trial.number: trial for trial in trials}
        points = [p for p in usable_points(trials, (), terms.max_gpu_memory, self._objective) if holds(p, terms.slo)]
        self._searched = {p.trial.number: p.merit(self._objective).value for p in points}
        self._learn()

    def _learn(self) -> None:
        """Update the effects of hosts, and the merit that the search alone expects of a typical host."""
        trials, percentile = tuple(self._trials.values()), self._objective.percentile_for(self._terms.slo)
        self._hosts = HostEffects.of(self._records, trials, self.verifications, percentile)
        self._expected = {
            number: value * math.exp(-self._hosts.merit(self._trials[number].host, self._objective).mean)
            for number, value in self._searched.items()
        }

    def due(self, *, speculative: bool = False) -> Round | None:
        """See `VerificationPlan`."""
        selection = _Selection(()) if self._pace.is_over else self._next(speculative=speculative)
        if not selection.trials:
            return None
        self._round += 1
        self._under_way[self._round] = selection
        order = self._order.sample(list(selection.trials), len(selection.trials))
        launches = tuple(Relaunch(self._trials[number], (self._load,)) for number in order)
        return Round(self._round, launches, selection.chooses)

    def _next(self, *, speculative: bool) -> _Selection:
        remaining = sorted((n for n in self._expected if self._why_out(n) is None), key=self._merit, reverse=True)
        if not remaining:
            return _Selection(())
        near = [n for n in remaining if self._merit(n) >= _NEAR * self._merit(remaining[0])][:_TOP]
        if not any(self._verification(n).confirms for n in near):
            rounds = _CHOOSING_ROUNDS // 2 if speculative else _CHOOSING_ROUNDS
            choosing = tuple(n for n in near if len(self._verification(n).rounds) + self._coming(n) < rounds)
            confirming_launches = 2 * math.ceil(_LEAST_ROUNDS / self._terms.slots)
            if len(near) > 1 and choosing and self._pace.has_time_for(len(choosing) + confirming_launches):
                return _Selection(choosing, chooses=True)
        if speculative or any(selection.chooses for selection in self._under_way.values()):
            return _Selection(())
        chosen = remaining[0]
        rounds = len(self._verification(chosen).confirming) + self._coming(chosen)
        pair = tuple({chosen: None, **({0: None} if self._why_out(0) is None else {})})
        late = rounds > 0 and not self._pace.has_time_for(len(pair))
        return _Selection(() if late or self._is_known(chosen) else pair)

    def _coming(self, number: int) -> int:
        """The number of launches of a trial that are under way."""
        return sum(number in selection.trials for selection in self._under_way.values())

    def begin(self, due: Round, launch: Relaunch) -> None:
        """See `VerificationPlan`."""
        del due
        if not self._verification(launch.trial.number).rounds:
            self._note(f"verifying trial {launch.trial.number} at {self._load}")

    def receive(  # noqa: PLR0917 (the result of one launch)
        self,
        due: Round,
        launch: Relaunch,
        points: Sequence[OperatingPoint],
        failure: str | None = None,
        host: str = "",
        took_s: float | None = None,
    ) -> None:
        """See `VerificationPlan`."""
        number = launch.trial.number
        for point in points:
            before = self._verification(number)
            after = before.with_round(point, due.number, host)
            if due.choosing:
                after = after.model_copy(update={"choosing": len(after.rounds)})
            fault = before.failure or self._fault(number, point)
            self._by_trial[number] = after.model_copy(update={"failure": fault})
        if failure is not None:
            self._by_trial[number] = self._verification(number).model_copy(update={"failure": failure})
        trials = tuple(n for n in self._under_way[due.number].trials if n != number)
        self._under_way[due.number] = _Selection(trials, due.choosing)
        self._pace.launched(took_s)
        self._learn()

    def end(self, due: Round) -> None:
        """See `VerificationPlan`."""
        del self._under_way[due.number]
        for number in (launch.trial.number for launch in due.launches):
            if number not in self._told and (reason := self._why_out(number)):
                self._told.add(number)
                self._eliminated(number, self._load, reason)

    def _verification(self, number: int) -> Verification:
        return self._by_trial.get(number) or Verification(trial=number, load=self._load)

    def _merit(self, number: int) -> float:
        """The geometric mean of its rounds, without the effects of hosts; without rounds, that of the search."""
        verification = self._verification(number)
        if verification.rounds:
            merits = (math.log(point.merit(self._objective).value) for point in verification.rounds)
            effects = (self._hosts.merit(host, self._objective).mean for host in verification.hosts_of_rounds)
            return math.exp(fmean(map(sub, merits, effects)))
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
        """Whether no further round of a trial is due, if those under way confirm what is known."""
        verification = self._verification(number)
        rounds, coming, point = len(verification.confirming), self._coming(number), verification.point
        if rounds + coming >= _MOST_ROUNDS:
            return True
        if rounds < _LEAST_ROUNDS or point is None:
            return rounds + coming >= _LEAST_ROUNDS
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
