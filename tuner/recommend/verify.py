"""Verification: relaunches the best candidates in rounds, until the result is precise enough.

The best of many noisy measurements overstates its candidate, and so does the best of a few re-measurements. So rounds
have two purposes. The first ones choose: each launches those configs for which another launch improves the choice most.
The later ones confirm: the chosen config and the baseline run side by side. Only these rounds are reported, since they
had no part in the choice. A config that turns out to be too near to a limit is tried under less load, and competes with
what it gives there.

The next round follows from the verifications alone, so that a resumed run goes on where an earlier one stopped.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from tuner.core.errors import ServerError
from tuner.core.loads import Concurrency, Load
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.allocation import worth
from tuner.recommend.finalist import LEAST_ROUNDS, MOST_ROUNDS, Finalist, FinalistStatus, is_decided
from tuner.recommend.gain import paired_ratio, pairs_of
from tuner.recommend.shortlist import ShortlistEntry, shortlist
from tuner.recommend.speed import Speed, Spread, after_launches, after_search
from tuner.recommend.verification import Verification
from tuner.stats.blocks import Z95

# To choose among the finalists: the least expected gain by a launch that is worth it, and the most launches of one
# finalist and of all.
_WORTH, _MOST_EACH, _MOST_CHOOSING = 0.0005, 4, 18
# The least expected gain that is worth a launch of another finalist while one is confirmed.
_WORTH_STILL = 0.002
# Finalists that are launched at a time to choose among them, finalists in all, and launches after which none is chosen.
_SIDE_BY_SIDE, _MOST_FINALISTS, _MOST_LAUNCHES = 3, 10, 60
# Margins to the limits, in standard deviations of the expected latency: of the load to choose and to confirm a finalist
# under, and below which a confirming load is given up. `benchmarks/picks.py` measures their effect.
_CHOOSE, _CONFIRM, _KEEP = 0.7, 2.0, 1.2
# A load of the baseline at which it probably violates the SLO by this margin is not launched.
_BROKEN = -3.0
# Share of the most merit that counts as equal; among these the lowest latency decides.
_ALIKE = 0.99
# Another candidate replaces the chosen one when its expected merit is higher by this factor.
_BETTER = 1.05
# More load is worth new rounds when it gives more throughput by this factor.
_RISE = 1.015
# Half width of the 95 % interval of the gain, as a logarithm, at which it is known; and as a share of the gain.
_PRECISE, _GAIN_PRECISE = 0.05, 0.2

# The least standard deviation of what a model of the trials expects, over that between launches.
_LEAST_DEVIATION = 0.5

_Due = tuple[Finalist, Concurrency]


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
        objective: The objective.
    """

    slo: SLO
    until: float
    launch_s: float
    seed: int = 0
    max_gpu_memory: int | None = None
    now: Callable[[], float] = time.monotonic
    objective: Objective = THROUGHPUT


def verify(
    trials: Sequence[TrialResult],
    measure: RelaunchAndMeasure,
    terms: VerificationTerms,
    *,
    expected: Mapping[int, Speed] = MappingProxyType({}),
    verified: Iterable[Verification] = (),
    keep: Callable[[Sequence[Verification]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[Verification, ...]:
    """Choose among the best candidates, and confirm the choice.

    Args:
        trials: The trials of a finished search, the baseline first.
        measure: Relaunches and measures a trial.
        terms: Its limits.
        expected: By trial, the speed that a model of all trials expects of later launches. Trials without one are
            compared with the mean of all trials.
        verified: Verifications of an earlier run; their rounds count, and are not repeated.
        keep: Called with all verifications, after each round and at the end, also after an interruption.
        note: Called with each message about the progress.

    Returns:
        All verifications; `tuner.recommend.recommend` chooses the best of them.
    """
    finals = _Finals(trials, measure, terms, expected, verified, note)
    try:
        while due := finals.next_choosing() or finals.next_confirming():
            finals.play(due)
            keep(finals.verifications)
    finally:
        keep(finals.verifications)
    return finals.verifications


@dataclass(frozen=True)
class _Round:
    """Configs to launch side by side under some loads; `choosing`: whether they have a part in the choice."""

    due: tuple[_Due, ...]
    choosing: bool


class _Finals:
    """The finalists and their rounds."""

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        trials: Sequence[TrialResult],
        measure: RelaunchAndMeasure,
        terms: VerificationTerms,
        expected: Mapping[int, Speed],
        verified: Iterable[Verification],
        note: Callable[[str], None],
    ) -> None:
        self._measure, self._terms, self._expected, self._note = measure, terms, expected, note
        self._before = {(v.trial, v.load): v for v in verified}
        entries = shortlist(trials, terms.slo, terms.max_gpu_memory, terms.objective)
        self._finalists = [self._finalist(entry) for entry in entries]
        self._baseline = next((f for f in self._finalists if f.number == 0), None)
        # The gain is relative to the baseline, even if it exceeds the GPU memory limit.
        if self._baseline is None and trials and (own := ShortlistEntry.of(trials[0], terms.slo, terms.objective)):
            self._baseline = self._finalist(own)
        self._round = max((number for v in self._before.values() for number in v.numbers), default=0)
        self._launches, self._took_s = 1, terms.launch_s
        self._confirms: _Due | None = None
        self._learn()

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """The verifications of all finalists that were launched, in this run or an earlier one."""
        return tuple(
            {**self._before, **{(v.trial, v.load): v for f in self._all for v in f.verifications.values()}}.values()
        )

    def next_choosing(self) -> _Round | None:
        """The finalists whose launch improves the choice most; None when none is worth it, or time is short."""
        remaining = {f: load for f in self._open if (load := f.load(_CHOOSE, steady=True))}
        if len(remaining) < 2 or sum(f.choosing for f in self._all) >= _MOST_CHOOSING:
            return None
        chosen, _ = self._confirming() or (None, None)
        gains = worth([f.value(load) for f, load in remaining.items()], self._spread.deviation)
        ranked = sorted(zip(gains, remaining.items(), strict=True), key=lambda pair: pair[0], reverse=True)
        best = max(remaining, key=lambda f: f.value(remaining[f]).mean)
        # The first launch of the best one tells which load to confirm it under.
        unsure = best if self._terms.slo.limits and not best.launches and not chosen else None
        least = _WORTH_STILL if chosen else _WORTH
        due = tuple(
            due
            for gain, due in ranked
            if (gain >= least or due[0] is unsure) and len(due[0].launches) < _MOST_EACH and due[0] is not chosen
        )[:_SIDE_BY_SIDE]
        in_time = self._has_time_for(len(due) + 2 * LEAST_ROUNDS)
        return _Round(due, choosing=True) if due and in_time else None

    def next_confirming(self) -> _Round | None:
        """The chosen finalist and the baseline; None when the result is precise enough, or time is up."""
        chosen = self._confirming() or self._choice()
        if chosen is None or self._terms.now() >= self._terms.until:
            return None
        if chosen != self._confirms:
            self._note(f"confirming {_name(*chosen)}")
            self._confirms = chosen
        finalist, load = chosen
        verification = finalist.verifications.get(load)
        beside = [] if finalist is self._baseline else self._beside(load)
        precise = False
        if verification and len(verification.confirming) >= LEAST_ROUNDS:
            precise = self._is_precise(verification, beside)
            sure = is_decided(verification) and not finalist.is_near(load, _CONFIRM)
            if len(verification.confirming) >= MOST_ROUNDS or (precise and sure):
                return None
        due = (chosen,) if precise else (chosen, *beside)
        late = verification and verification.confirms and not self._has_time_for(len({f for f, _ in due}))
        return None if late else _Round(due, choosing=False)

    def play(self, game: _Round) -> None:
        """Launch one round in random order, so that the first launch after a pause varies."""
        self._round += 1
        launches: dict[Finalist, list[Concurrency]] = {}
        for finalist, load in sorted(game.due, key=lambda due: due[1].requests):
            launches.setdefault(finalist, []).append(load)
        order = random.Random(f"{self._terms.seed} {self._round}")  # noqa: S311 (no secret)
        for finalist, loads in order.sample(list(launches.items()), len(launches)):
            self._launch(finalist, loads, choosing=game.choosing)
        self._learn()
        for finalist, load in game.due:
            status = finalist.status(load)
            if status is not FinalistStatus.REMAINS:
                self._note(
                    f"eliminated {_name(finalist, load)}: {finalist.verifications[load].failure or status.value}"
                )

    def _launch(self, finalist: Finalist, loads: Sequence[Concurrency], *, choosing: bool) -> None:
        """Launch a config, and measure it under some loads, the lowest first."""
        for load in loads:
            if load not in finalist.verifications and (choosing or finalist is self._baseline):
                self._note(f"verifying {_name(finalist, load)}")
        began, open_ = self._terms.now(), list(loads)
        try:
            for point in self._measure(finalist.entry.trial, loads, self._round):
                finalist.add(open_.pop(0), self._round, point, choosing=choosing)
        except ServerError as error:
            for load in open_:
                finalist.fail(load, f"{error.cause.value}: {error}")
        self._launches += 1
        self._took_s += self._terms.now() - began

    @property
    def _open(self) -> list[Finalist]:
        """The finalists that may be launched, so that it ends however much time there is."""
        began = [f for f in self._finalists if f.launches]
        if sum(len(f.launches) for f in began) >= _MOST_LAUNCHES:
            return []
        return began if len(began) >= _MOST_FINALISTS else self._finalists

    def _has_time_for(self, launches: int) -> bool:
        return self._terms.now() + launches * self._took_s / self._launches <= self._terms.until

    def _confirming(self) -> _Due | None:
        """The finalist that was chosen, and its load, unless it is eliminated or another one is better.

        The rounds of one that is given up had a part in the choice of the next one.
        """
        confirming = [(f, load) for f in self._finalists for load in self._confirmed(f) if f is not self._baseline]
        for chosen, load in sorted(confirming, key=lambda due: due[1].requests, reverse=True):
            others = [f.value(at).mean for f in self._open if f is not chosen and (at := f.load(_CONFIRM))]
            overtaken = max(others, default=-math.inf) > chosen.value(load).mean + math.log(_BETTER)
            if not overtaken and not chosen.is_near(load, _KEEP) and not self._may_rise(chosen, load):
                return chosen, load
            chosen.choose(load)
        return None

    def _may_rise(self, chosen: Finalist, load: Concurrency) -> bool:
        """Whether the launches so far show that more load gives more within the SLO."""
        higher = chosen.load(_CONFIRM)
        return (
            len(chosen.launches) < MOST_ROUNDS
            and higher is not None
            and chosen.value(higher).mean > chosen.value(load).mean + math.log(_RISE)
        )

    def _choice(self) -> _Due | None:
        """The most promising finalist, and the load to confirm it under."""
        loads = ((f, self._own_load(f) if f is self._baseline else f.load(_CONFIRM)) for f in self._open)
        remaining = {f: load for f, load in loads if load}
        values = {f: f.value(load).mean for f, load in remaining.items()}
        alike = [f for f, value in values.items() if value >= max(values.values()) + math.log(_ALIKE)]
        best = min(alike, key=lambda f: (f.mean_latency_ms, -values[f]), default=None)
        return (best, remaining[best]) if best else None

    def _beside(self, load: Concurrency) -> list[_Due]:
        """The baseline at its own load, and under the load of the chosen finalist, if it may hold the SLO there."""
        baseline = self._baseline
        if baseline is None or (own := self._own_load(baseline, but=load)) is None:
            return []
        remains = baseline.status(load) is FinalistStatus.REMAINS and not baseline.is_near(load, _BROKEN)
        return [(baseline, at) for at in ([own, load] if remains and load != own else [own])]

    def _own_load(self, baseline: Finalist, but: Load | None = None) -> Concurrency | None:
        """The load of the baseline, which stays the same until it is eliminated."""
        confirmed = {at: len(baseline.verifications[at].rounds) for at in self._confirmed(baseline) if at != but}
        return max(confirmed, key=lambda at: confirmed[at], default=baseline.load(_CHOOSE))

    @staticmethod
    def _confirmed(finalist: Finalist) -> list[Concurrency]:
        """The remaining loads with confirming rounds."""
        return [
            load
            for load, verification in finalist.verifications.items()
            if isinstance(load, Concurrency)
            and verification.confirms
            and finalist.status(load) is FinalistStatus.REMAINS
        ]

    def _learn(self) -> None:
        """Update what is expected of each finalist."""
        merits, latencies = [f.merit_speeds for f in self._all], [f.latency_speeds for f in self._all]
        self._spread, latency_spread = Spread.of(merits), Spread.of(latencies)
        least = _LEAST_DEVIATION * self._spread.deviation
        expected = [
            Speed(model.mean, max(model.deviation, least)) if (model := self._expected.get(finalist.number)) else alone
            for finalist, alone in zip(
                self._all, after_search([f.entry.best_value for f in self._all], self._spread), strict=True
            )
        ]
        by_merit = after_launches(expected, merits, self._spread)
        by_latency = after_launches(expected, latencies, latency_spread)
        for finalist, merit, latency in zip(self._all, by_merit, by_latency, strict=True):
            finalist.expect(merit, latency, latency_spread)

    def _finalist(self, entry: ShortlistEntry) -> Finalist:
        before = [v for v in self._before.values() if v.trial == entry.trial.number]
        return Finalist(entry, self._terms.max_gpu_memory, before)

    @property
    def _all(self) -> list[Finalist]:
        return list(dict.fromkeys([*self._finalists, *filter(None, [self._baseline])]))

    def _is_precise(self, verification: Verification, beside: Sequence[_Due]) -> bool:
        """Whether the gain over the baseline beside it is known, or the objective, where there is no baseline.

        The spread between all launches decides, not that of these rounds: they may agree by chance.
        """
        launch = Z95 * self._spread.deviation
        if not beside:
            return launch / math.sqrt(len(verification.confirming)) <= _PRECISE
        rounds = (baseline.verifications[load] for baseline, load in beside if load in baseline.verifications)
        pairs = max((pairs_of(verification, each, self._terms.objective) for each in rounds), key=len, default=())
        if len(pairs) < LEAST_ROUNDS:
            return False
        gain = abs(math.log(paired_ratio(pairs).value))
        return launch * math.sqrt(2 / len(pairs)) <= max(_PRECISE, _GAIN_PRECISE * gain)


def _name(finalist: Finalist, load: Load) -> str:
    return f"trial {finalist.number} at {load}"
