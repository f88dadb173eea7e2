"""What looks best is launched again, in rounds, until it is sure enough what is best.

The best of many noisy numbers is too good, and so is the best of a few that were measured again. So the rounds have
two parts. Those of the first choose: the top candidates run side by side, and what surely breaks the SLO makes way.
Those of the second confirm: the chosen one and the baseline run side by side, and what is reported comes from these,
which had no say in the choice. One that does not hold up in them makes way for the next.
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

# So many run side by side, so many rounds, to choose among them.
_TOP, _CHOOSING_ROUNDS = 3, 2
# So many are launched at all, those that took the place of others included.
_MOST_FINALISTS = 10
# What is expected to give less than this share of the best's throughput is not worth a launch.
_NEAR = 0.8
# Throughput that differs by less does not; then the lower latency decides.
_ALIKE = 0.98
# The chosen one makes way for another when that is expected to give so much more.
_BETTER = 1.05
# The median absolute deviation of a normal distribution whose standard deviation is 1.
_MAD = 0.6745
# Half width of throughput's interval, as a share of it, that asks for no further round.
_PRECISE = 0.05


class RelaunchAndMeasure(Protocol):
    """Launches a trial's config anew, and measures it under some loads."""

    def __call__(self, trial: TrialResult, loads: Sequence[Load], number: int) -> Iterator[OperatingPoint]:
        """Measure; each point comes as soon as it is known, so that a later failure loses none.

        Args:
            trial: Whose config.
            loads: What to offer, one after the other.
            number: Of the round.

        Raises:
            ServerError: it failed this time.
        """


@dataclass(frozen=True)
class Terms:
    """What holds for all rounds.

    Attributes:
        until: By when the rounds are to end, by `now`; only the first that confirms may begin before and end after it.
        launch_s: Seconds that a launch is expected to take, measuring included.
        seed: Of the order within rounds.
        max_gpu_memory: Bytes that a server may take of each GPU; None: all that there is.
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
    terms: Terms,
    *,
    verified: Iterable[Verification] = (),
    keep: Callable[[Sequence[Verification]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Verification, ...]:
    """Choose among the top candidates, and confirm the choice.

    Args:
        trials: Of a finished search, the baseline first.
        measure: Launches and measures.
        terms: On all of it.
        verified: What was verified before; it is not repeated.
        keep: Is given all that is verified, after each round and in the end, even when it is interrupted.
        note: Is told what happens.

    Returns:
        All that is verified; what is best of it, `tuner.recommend.recommend` says.
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
        terms: Terms,
        *,
        verified: Iterable[Verification],
        keep: Callable[[Sequence[Verification]], None],
        note: Callable[[str], None],
    ) -> None:
        self._measure, self._terms, self._keep, self._note = measure, terms, keep, note
        self._beside: list[Finalist] = []
        self._order = random.Random(terms.seed)  # noqa: S311 (no secret)
        self._trials = trials
        self._before = {(each.trial, each.load): each for each in verified}
        self._finalists = [self._first(each) for each in shortlist(trials, terms.slo, terms.max_gpu_memory)]
        # The gain is against the baseline, whatever memory that takes, at the load at which it gives most.
        own = ShortlistEntry.at_most(trials[0], terms.slo) if trials else None
        self._baselines = [self._shared(self._first(own))] if own else []
        for each in self._all():
            self._replace(each)
        self._learn()
        self._round = max((number for each in self._before.values() for number in each.numbers), default=0)
        self._launches, self._took_s = 1, terms.launch_s

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """Of all that were launched, now or before."""
        began = (f.verification for f in (*self._beside, *self._all()) if f.began)
        known = {**self._before, **{(v.trial, v.load): v for v in began}}
        return tuple(known.values())

    def choose(self) -> None:
        """Measure the top candidates, and those that take their places, as often as there is time to confirm one."""
        while len(top := self._top()) > 1:
            due = [each for each in top if each.rounds < _CHOOSING_ROUNDS]
            if not due or not self._has_time_for(len(due) + LEAST_ROUNDS * 2):
                return
            self._play(due, choosing=True)

    def confirm(self) -> None:
        """Measure the chosen one beside the baseline, until it is known well enough or makes way for another."""
        chosen = self._chosen_before()
        while self._terms.now() < self._terms.until:
            before, chosen = chosen, self._choice(chosen)
            if chosen is None:
                return
            if chosen is not before:
                self._switch(before, chosen)
            baseline = next((each for each in self._baselines if self._remains(each)), chosen)
            late = chosen.verification.confirms and not self._has_time_for(len({chosen, baseline}))
            at_equal_load = self._at_load_of(chosen, baseline)
            if late or _is_known(chosen, beside=at_equal_load or baseline):
                return
            due = [each for each in (chosen, baseline, at_equal_load) if each]
            self._play(list(dict.fromkeys(due)), choosing=False)

    def _at_load_of(self, chosen: Finalist, baseline: Finalist) -> Finalist | None:
        """The baseline under the load of the chosen one, as long as it does not surely break the SLO there."""
        load = chosen.entry.load
        if chosen.entry.trial.number == baseline.entry.trial.number or load == baseline.entry.load:
            return None
        known = next((f for f in (*self._baselines, *self._beside) if f.entry.load == load), None)
        if known is None:
            known = self._finalist(replace(baseline.entry, load=load))
            self._beside.append(known)
        return None if known.status(self._spread()) in {FinalistStatus.FAILED, FinalistStatus.BREAKS_SLO} else known

    def _has_time_for(self, launches: int) -> bool:
        return self._terms.now() + launches * self._took_s / self._launches <= self._terms.until

    def _chosen_before(self) -> Finalist | None:
        """What an earlier run was confirming, which is never the baseline where there is another."""
        confirmed = [each for each in self._remaining() if each.verification.confirms and each.began]
        return min(confirmed, key=lambda each: each.entry.trial.number == 0, default=None)

    def _choice(self, chosen: Finalist | None) -> Finalist | None:
        """The most promising one, which is the one before unless another is clearly more so."""
        remaining = [each for each in self._remaining() if each.began or len(self._began()) < _MOST_FINALISTS]
        most = max((each.throughput for each in remaining), default=0.0)
        if chosen in remaining and chosen and chosen.throughput * _BETTER >= most:
            return chosen
        alike = [each for each in remaining if each.throughput >= _ALIKE * most]
        return min(alike, key=lambda each: (each.mean_latency_ms, -each.throughput), default=None)

    def _switch(self, before: Finalist | None, chosen: Finalist) -> None:
        """What was measured so far led to this choice, so it does not confirm it."""
        for each in (before, chosen):
            # One that was struck off was not chosen by its throughput, and of the baseline all rounds are as true.
            if each and not (each is before and (each in self._baselines or not self._remains(each))):
                each.choose()
        self._note(f"confirming {chosen}")

    def _play(self, finalists: Sequence[Finalist], *, choosing: bool) -> None:
        """One round, in random order, so that none always comes first after a pause."""
        self._round += 1
        launches: dict[int, list[Finalist]] = {}
        for each in sorted(finalists, key=lambda each: each.entry.load.requests):
            launches.setdefault(each.entry.trial.number, []).append(each)
        for group in self._order.sample(list(launches.values()), len(launches)):
            self._launch(group, choosing=choosing)
        for each in finalists:
            if each not in self._beside and not self._remains(each):
                reason = each.verification.failure or each.status(self._spread()).value
                self._note(f"eliminated {each}: {reason}")
            self._replace(each)
        self._learn()
        self._keep(self.verifications)

    def _launch(self, finalists: Sequence[Finalist], *, choosing: bool) -> None:
        """Launch a trial once, and measure it under the load of each of some finalists, the lowest first."""
        for each in finalists:
            if not each.began and (choosing or each in self._baselines):
                self._note(f"verifying {each}")
        began, open_ = self._terms.now(), list(finalists)
        try:
            loads = [each.entry.load for each in finalists]
            for point in self._measure(finalists[0].entry.trial, loads, self._round):
                open_.pop(0).add(self._round, point, choosing=choosing)
        except ServerError as error:
            for each in open_:
                each.fail(f"{error.cause.value}: {error}")
        self._launches += 1
        self._took_s += self._terms.now() - began

    def _replace(self, finalist: Finalist) -> None:
        """One that is struck off makes way for the same config under less load, if that is what it takes."""
        status, spread = finalist.status(self._spread()), self._spread()
        if status in {FinalistStatus.REMAINS, FinalistStatus.FAILED} or not (entry := finalist.lower(spread)):
            return
        known = (f for f in (*self._all(), *self._beside) if f.entry.trial.number == entry.trial.number)
        lower = next((f for f in known if f.entry.load == entry.load), None) or self._finalist(entry)
        for group in (self._finalists, self._baselines):
            if finalist in group and lower not in group:
                group.append(lower)
                self._beside = [each for each in self._beside if each is not lower]
                self._replace(lower)

    def _learn(self) -> None:
        """Expect of those that were not launched again what those that were tell."""
        bias, spread = SearchBias.of(self._trials, self.verifications, self._terms.slo.percentile), self._spread()
        for each in self._all():
            each.expect(bias, spread)

    def _spread(self) -> float:
        """Between the launches of a finalist, as all of them tell: the standard deviation of log latency.

        By the median absolute deviation, which is not moved by a round in which somebody else needed the machine.
        """
        deviations = [abs(deviation) for each in self._began() for deviation in each.deviations]
        return median(deviations) / _MAD if deviations else 0.0

    def _first(self, entry: ShortlistEntry) -> Finalist:
        """A trial's first finalist: as the search saw it, or under the load that an earlier run began with.

        The baseline may have been measured under more, which was the load of another.
        """
        most = entry.load.level
        began = [load.level for trial, load in self._before if trial == entry.trial.number and load.level <= most]
        first = Concurrency(int(max(began, default=most)))
        return self._finalist(entry if first == entry.load else entry.under(first))

    def _shared(self, finalist: Finalist) -> Finalist:
        """The finalist that is the same config under the same load, if there is one."""
        told = finalist.verification
        same = (f for f in self._finalists if (f.verification.trial, f.verification.load) == (told.trial, told.load))
        return next(same, finalist)

    def _finalist(self, entry: ShortlistEntry) -> Finalist:
        before = self._before.get((entry.trial.number, entry.load))
        return Finalist(entry, self._terms.slo, self._terms.max_gpu_memory, before)

    def _top(self) -> list[Finalist]:
        """Those that may be the best: near enough to the most promising one."""
        remaining = [each for each in self._remaining() if each.began or len(self._began()) < _MOST_FINALISTS]
        most = max((each.throughput for each in remaining), default=0.0)
        near = (each for each in remaining if each.throughput >= _NEAR * most)
        return sorted(near, key=lambda each: each.throughput, reverse=True)[:_TOP]

    def _remaining(self) -> list[Finalist]:
        return [each for each in self._finalists if self._remains(each)]

    def _remains(self, finalist: Finalist) -> bool:
        return finalist.status(self._spread()) is FinalistStatus.REMAINS

    def _began(self) -> list[Finalist]:
        return [each for each in self._all() if each.began]

    def _all(self) -> list[Finalist]:
        return list(dict.fromkeys([*self._finalists, *self._baselines]))


def _is_known(finalist: Finalist, *, beside: Finalist) -> bool:
    """Whether no further round is needed to say how good it is, and what the baseline is beside it."""
    told = finalist.verification
    rounds = len(told.confirming)
    if rounds < LEAST_ROUNDS or told.point is None:
        return False
    precise = told.point.throughput.relative_half_width <= _PRECISE and beside.rounds >= LEAST_ROUNDS
    return rounds >= MOST_ROUNDS or (finalist.is_sure and precise)
