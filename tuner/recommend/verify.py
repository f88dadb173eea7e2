"""Verification: relaunches the best candidates in rounds, until the result is precise enough.

The best of many noisy measurements overstates its candidate, and so does the best of a few re-measurements. So rounds
have two purposes. The first ones choose: the top candidates run side by side, and those that violate the SLO (99 %
confidence) are eliminated. The later ones confirm: the chosen candidate and the baseline run side by side. Only these
rounds are reported, since they had no part in the choice. A chosen candidate that is eliminated in them is replaced by
the next one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from tuner.core.errors import ServerError
from tuner.core.loads import Concurrency, Load
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.finalist import LEAST_ROUNDS, MOST_ROUNDS, Finalist, FinalistStatus
from tuner.recommend.search_bias import SearchBias
from tuner.recommend.shortlist import ShortlistEntry, shortlist
from tuner.recommend.verification import Verification

# Finalists that run side by side to choose among them, and rounds of each.
_TOP, _CHOOSING_ROUNDS = 3, 2
# Finalists that are launched at most, replacements included.
_MOST_FINALISTS = 10
# A candidate is launched only if its expected throughput is at least this share of the best one's.
_NEAR = 0.8
# Shares of the best throughput that count as equal; among these the lowest latency decides.
_ALIKE = 0.98
# Another candidate replaces the chosen one when its expected throughput is higher by this factor.
_BETTER = 1.05
# Median absolute deviation of the standard normal distribution.
_MAD = 0.6745
# Half width of throughput's 95 % interval, as a share of throughput, at which no further round is needed.
_PRECISE = 0.05


class RelaunchAndMeasure(Protocol):
    """Relaunches a trial's config, and measures it under some loads."""

    def __call__(self, trial: TrialResult, loads: Sequence[Load], number: int) -> Iterator[OperatingPoint]:
        """Measure, and yield each point as soon as it is known, so that a later failure loses no point.

        Args:
            trial: The trial whose config is launched.
            loads: The loads to offer, one after the other.
            number: Number of the round.

        Raises:
            ServerError: the launch or a measurement failed.
        """


@dataclass(frozen=True)
class VerificationTerms:
    """Limits of a verification.

    Attributes:
        slo: The limits; may be empty.
        until: Deadline, by `now`. No round begins that would end later, except the first confirming round, which begins
            before it.
        launch_s: Expected seconds of a launch, measurements included.
        seed: Seed of the order of launches within a round.
        max_gpu_memory: GPU memory in bytes that a server may take of each GPU; None: all of it.
        now: The clock, in seconds.
    """

    slo: SLO
    until: float
    launch_s: float
    seed: int = 0
    max_gpu_memory: int | None = None
    now: Callable[[], float] = time.monotonic


def verify(
    trials: Sequence[TrialResult],
    measure: RelaunchAndMeasure,
    terms: VerificationTerms,
    *,
    verified: Iterable[Verification] = (),
    keep: Callable[[Sequence[Verification]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Verification, ...]:
    """Choose among the top candidates, and confirm the choice.

    Args:
        trials: The trials of a finished search, the baseline first.
        measure: Relaunches and measures a trial.
        terms: Its limits.
        verified: Verifications of an earlier run; their rounds count, and are not repeated.
        keep: Called with all verifications, after each round and at the end, also after an interruption.
        note: Called with each message about the progress.

    Returns:
        All verifications; `tuner.recommend.recommend` chooses the best of them.
    """
    finals = _Finals(trials, measure, terms, verified=verified, keep=keep, note=note)
    try:
        finals.choose()
        finals.confirm()
    finally:
        keep(finals.verifications)
    return finals.verifications


class _Finals:
    """The finalists and their rounds."""

    def __init__(
        self,
        trials: Sequence[TrialResult],
        measure: RelaunchAndMeasure,
        terms: VerificationTerms,
        *,
        verified: Iterable[Verification],
        keep: Callable[[Sequence[Verification]], None],
        note: Callable[[str], None],
    ) -> None:
        self._measure, self._terms, self._keep, self._note = measure, terms, keep, note
        self._beside: list[Finalist] = []
        self._order = random.Random(terms.seed)  # noqa: S311 (no secret)
        self._trials = trials
        self._before = {(v.trial, v.load): v for v in verified}
        self._finalists = [self._first(entry) for entry in shortlist(trials, terms.slo, terms.max_gpu_memory)]
        # The gain is relative to the baseline at its load of highest throughput, even if it exceeds the GPU memory
        # limit.
        own = ShortlistEntry.at_most(trials[0], terms.slo) if trials else None
        self._baselines = [self._shared(self._first(own))] if own else []
        for finalist in self._all():
            self._replace(finalist)
        self._learn()
        self._round = max((number for v in self._before.values() for number in v.numbers), default=0)
        self._launches, self._took_s = 1, terms.launch_s

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """The verifications of all finalists that were launched, in this run or an earlier one."""
        began = (f.verification for f in (*self._beside, *self._all()) if f.began)
        latest = {**self._before, **{(v.trial, v.load): v for v in began}}
        return tuple(latest.values())

    def choose(self) -> None:
        """Measure the top candidates and their replacements, while there is time to confirm one afterwards."""
        while len(top := self._top()) > 1:
            due = [f for f in top if f.rounds < _CHOOSING_ROUNDS]
            if not due or not self._has_time_for(len(due) + LEAST_ROUNDS * 2):
                return
            self._play(due, choosing=True)

    def confirm(self) -> None:
        """Measure the chosen finalist beside the baseline, until the result is precise enough or time is up."""
        chosen = self._chosen_before()
        while self._terms.now() < self._terms.until:
            before, chosen = chosen, self._choice(chosen)
            if chosen is None:
                return
            if chosen is not before:
                self._switch(before, chosen)
            baseline = next((f for f in self._baselines if self._remains(f)), chosen)
            late = chosen.verification.confirms and not self._has_time_for(len({chosen, baseline}))
            at_equal_load = self._at_load_of(chosen, baseline)
            if late or _is_known(chosen, beside=at_equal_load or baseline):
                return
            due = [f for f in (chosen, baseline, at_equal_load) if f]
            self._play(list(dict.fromkeys(due)), choosing=False)

    def _at_load_of(self, chosen: Finalist, baseline: Finalist) -> Finalist | None:
        """The baseline under the load of the chosen finalist; None once it fails or violates the SLO (99 %) there."""
        load = chosen.entry.load
        if chosen.entry.trial.number == baseline.entry.trial.number or load == baseline.entry.load:
            return None
        existing = next((f for f in (*self._baselines, *self._beside) if f.entry.load == load), None)
        if existing is None:
            existing = self._finalist(replace(baseline.entry, load=load))
            self._beside.append(existing)
        eliminated = existing.status(self._spread()) in {FinalistStatus.FAILED, FinalistStatus.BREAKS_SLO}
        return None if eliminated else existing

    def _has_time_for(self, launches: int) -> bool:
        return self._terms.now() + launches * self._took_s / self._launches <= self._terms.until

    def _chosen_before(self) -> Finalist | None:
        """The finalist that an earlier run was confirming; the baseline only if there is no other."""
        confirmed = [f for f in self._remaining() if f.verification.confirms and f.began]
        return min(confirmed, key=lambda f: f.entry.trial.number == 0, default=None)

    def _choice(self, chosen: Finalist | None) -> Finalist | None:
        """The most promising finalist; `chosen` itself, unless another finalist is better by `_BETTER`."""
        if chosen in self._within(1 / _BETTER):
            return chosen
        alike = self._within(_ALIKE)
        return min(alike, key=lambda f: (f.mean_latency_ms, -f.throughput), default=None)

    def _switch(self, before: Finalist | None, chosen: Finalist) -> None:
        """Mark the rounds so far as choosing rounds of a new choice, since they cannot confirm it."""
        chosen.choose()
        # The rounds are unbiased if the finalist was eliminated, which does not depend on throughput, and for the
        # baseline, which is never chosen.
        if before and before not in self._baselines and self._remains(before):
            before.choose()
        self._note(f"confirming {chosen}")

    def _play(self, finalists: Sequence[Finalist], *, choosing: bool) -> None:
        """Launch one round in random order, so that the first launch after a pause varies."""
        self._round += 1
        launches: dict[int, list[Finalist]] = {}
        for finalist in sorted(finalists, key=lambda f: f.entry.load.requests):
            launches.setdefault(finalist.entry.trial.number, []).append(finalist)
        for group in self._order.sample(list(launches.values()), len(launches)):
            self._launch(group, choosing=choosing)
        for finalist in finalists:
            if finalist not in self._beside and not self._remains(finalist):
                reason = finalist.verification.failure or finalist.status(self._spread()).value
                self._note(f"eliminated {finalist}: {reason}")
            self._replace(finalist)
        self._learn()
        self._keep(self.verifications)

    def _launch(self, finalists: Sequence[Finalist], *, choosing: bool) -> None:
        """Launch the config that some finalists share, and measure it under the load of each, the lowest first."""
        for finalist in finalists:
            if not finalist.began and (choosing or finalist in self._baselines):
                self._note(f"verifying {finalist}")
        began, open_ = self._terms.now(), list(finalists)
        try:
            loads = [f.entry.load for f in finalists]
            for point in self._measure(finalists[0].entry.trial, loads, self._round):
                open_.pop(0).add(self._round, point, choosing=choosing)
        except ServerError as error:
            for finalist in open_:
                finalist.fail(f"{error.cause.value}: {error}")
        self._launches += 1
        self._took_s += self._terms.now() - began

    def _replace(self, finalist: Finalist) -> None:
        """Replace an eliminated finalist by the same config under less load, where that may hold the SLO."""
        status, spread = finalist.status(self._spread()), self._spread()
        if status in {FinalistStatus.REMAINS, FinalistStatus.FAILED} or not (entry := finalist.lower(spread)):
            return
        existing = (f for f in (*self._all(), *self._beside) if f.entry.trial.number == entry.trial.number)
        lower = next((f for f in existing if f.entry.load == entry.load), None) or self._finalist(entry)
        for group in (self._finalists, self._baselines):
            if finalist in group and lower not in group:
                group.append(lower)
                self._beside = [f for f in self._beside if f is not lower]
                self._replace(lower)

    def _learn(self) -> None:
        """Correct the expectations of finalists without a relaunch by the search bias of those with one."""
        bias, spread = SearchBias.of(self._trials, self.verifications, self._terms.slo.percentile), self._spread()
        for finalist in self._all():
            finalist.expect(bias, spread)

    def _spread(self) -> float:
        """Standard deviation of log latency between launches of one finalist, pooled over all finalists.

        It is computed from the median absolute deviation, so that one disturbed round does not change it.
        """
        deviations = [abs(deviation) for f in self._began() for deviation in f.deviations]
        return median(deviations) / _MAD if deviations else 0.0

    def _first(self, entry: ShortlistEntry) -> Finalist:
        """The first finalist of a trial: at the search's load, or at the load with which an earlier run began.

        Higher loads of an earlier run are left out: there the baseline ran beside another finalist.
        """
        most = entry.load.level
        began = [load.level for trial, load in self._before if trial == entry.trial.number and load.level <= most]
        first = Concurrency(int(max(began, default=most)))
        return self._finalist(entry if first == entry.load else entry.under(first))

    def _shared(self, finalist: Finalist) -> Finalist:
        """The finalist of the same config under the same load, if there is one; else this one."""
        key = finalist.verification.trial, finalist.verification.load
        return next((f for f in self._finalists if (f.verification.trial, f.verification.load) == key), finalist)

    def _finalist(self, entry: ShortlistEntry) -> Finalist:
        before = self._before.get((entry.trial.number, entry.load))
        return Finalist(entry, self._terms.slo, self._terms.max_gpu_memory, before)

    def _top(self) -> list[Finalist]:
        """The finalists that may be the best one."""
        return sorted(self._within(_NEAR), key=lambda f: f.throughput, reverse=True)[:_TOP]

    def _within(self, share: float) -> list[Finalist]:
        """The remaining finalists, launched or not, with at least this share of the best throughput."""
        remaining = [f for f in self._remaining() if f.began or len(self._began()) < _MOST_FINALISTS]
        most = max((f.throughput for f in remaining), default=0.0)
        return [f for f in remaining if f.throughput >= share * most]

    def _remaining(self) -> list[Finalist]:
        return [f for f in self._finalists if self._remains(f)]

    def _remains(self, finalist: Finalist) -> bool:
        return finalist.status(self._spread()) is FinalistStatus.REMAINS

    def _began(self) -> list[Finalist]:
        return [f for f in self._all() if f.began]

    def _all(self) -> list[Finalist]:
        return list(dict.fromkeys([*self._finalists, *self._baselines]))


def _is_known(finalist: Finalist, *, beside: Finalist) -> bool:
    """Whether no further round is needed to report a finalist, and the baseline beside it."""
    verification = finalist.verification
    rounds = len(verification.confirming)
    if rounds < LEAST_ROUNDS or verification.point is None:
        return False
    precise = verification.point.throughput.relative_half_width <= _PRECISE and beside.rounds >= LEAST_ROUNDS
    return rounds >= MOST_ROUNDS or (finalist.is_decided and precise)
