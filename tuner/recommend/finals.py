"""The finalists of a search, and which of them to launch next, as far as it follows from their verifications."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.core.loads import Concurrency, Load
from tuner.core.objectives import Objective
from tuner.core.slo import SLO
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
_CHOOSE, _CONFIRM, _KEEP = 0.7, 1.9, 1.1
# A load of the baseline at which it probably violates the SLO by this margin is not launched.
_BROKEN = -3.0
# Share of the most merit that counts as equal; among these the lowest latency decides.
_ALIKE = 0.99
# Another candidate replaces the chosen one when its expected merit is higher by this factor.
_BETTER = 1.05
# More load is worth new rounds when it gives more throughput by this factor.
_RISE = 1.012
# Half width of the 95 % interval of the gain, as a logarithm, at which it is known; and as a share of the gain.
_PRECISE, _GAIN_PRECISE = 0.05, 0.2

# The least standard deviation of what a model of the trials expects, over that between launches.
_LEAST_DEVIATION = 0.5

Due = tuple[Finalist, Concurrency]
"""A finalist to launch, and the load."""
HasTimeFor = Callable[[int], bool]
"""Whether there is time for so many launches."""


@dataclass(frozen=True)
class Round:
    """Configs to launch side by side under some loads; `choosing`: whether they have a part in the choice."""

    due: tuple[Due, ...]
    choosing: bool


class Finals:
    """The finalists of a search.

    Args:
        trials: The trials of a finished search, the baseline first.
        slo: The limits; may be empty.
        objective: The objective.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
        expected: See `tuner.recommend.verify.verify`.
        verified: Verifications of an earlier run.

    Attributes:
        baseline: The baseline; None: it violates the SLO at every load.
    """

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        trials: Sequence[TrialResult],
        slo: SLO,
        objective: Objective,
        max_gpu_memory: int | None,
        expected: Mapping[int, Speed],
        verified: Iterable[Verification],
    ) -> None:
        self._slo, self._objective, self._max_gpu_memory, self._expected = slo, objective, max_gpu_memory, expected
        self._before = {(v.trial, v.load): v for v in verified}
        self._finalists = [self._finalist(entry) for entry in shortlist(trials, slo, max_gpu_memory, objective)]
        self.baseline = next((f for f in self._finalists if f.number == 0), None)
        # The gain is relative to the baseline, even if it exceeds the GPU memory limit.
        if self.baseline is None and trials and (own := ShortlistEntry.of(trials[0], slo, objective)):
            self.baseline = self._finalist(own)
        self.learn()

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """The verifications of all finalists that were launched, in this run or an earlier one."""
        now = {(v.trial, v.load): v for finalist in self.all for v in finalist.verifications.values()}
        return tuple({**self._before, **now}.values())

    def next_round(self, has_time_for: HasTimeFor) -> Round | None:
        """The next round; None when the result is precise enough, or there is no time for another."""
        return self._choosing_round(has_time_for) or self._confirming_round(has_time_for)

    def _choosing_round(self, has_time_for: HasTimeFor) -> Round | None:
        """The finalists whose launch improves the choice most; None when none is worth it, or time is short."""
        remaining = {f: load for f in self._open if (load := f.load(_CHOOSE, steady=True))}
        if len(remaining) < 2 or sum(f.choosing for f in self.all) >= _MOST_CHOOSING:
            return None
        chosen, _ = self._confirming() or (None, None)
        gains = worth([f.value(load) for f, load in remaining.items()], self._spread.deviation)
        ranked = sorted(zip(gains, remaining.items(), strict=True), key=lambda pair: pair[0], reverse=True)
        best = max(remaining, key=lambda f: f.value(remaining[f]).mean)
        # The first launch of the best one tells which load to confirm it under.
        unsure = best if self._slo.limits and not best.launches and not chosen else None
        least = _WORTH_STILL if chosen else _WORTH
        due = tuple(
            due
            for gain, due in ranked
            if (gain >= least or due[0] is unsure) and len(due[0].launches) < _MOST_EACH and due[0] is not chosen
        )[:_SIDE_BY_SIDE]
        in_time = has_time_for(len(due) + 2 * LEAST_ROUNDS)
        return Round(due, choosing=True) if due and in_time else None

    def _confirming_round(self, has_time_for: HasTimeFor) -> Round | None:
        """The chosen finalist and the baseline; None when the result is precise enough, or time is up."""
        chosen = self._confirming() or self._choice()
        if chosen is None:
            return None
        finalist, load = chosen
        verification = finalist.verifications.get(load)
        beside = [] if finalist is self.baseline else self._beside(load)
        precise = False
        if verification and len(verification.confirming) >= LEAST_ROUNDS:
            precise = self._is_precise(verification, beside)
            sure = is_decided(verification) and not finalist.is_near(load, _CONFIRM)
            if len(verification.confirming) >= MOST_ROUNDS or (precise and sure):
                return None
        due = (chosen,) if precise else (chosen, *beside)
        late = verification and verification.confirms and not has_time_for(len({f for f, _ in due}))
        return None if late else Round(due, choosing=False)

    @property
    def _open(self) -> list[Finalist]:
        """The finalists that may be launched, so that it ends however much time there is."""
        began = [f for f in self._finalists if f.launches]
        if sum(len(f.launches) for f in began) >= _MOST_LAUNCHES:
            return []
        return began if len(began) >= _MOST_FINALISTS else self._finalists

    def _confirming(self) -> Due | None:
        """The finalist that was chosen, and its load, unless it is eliminated or another one is better.

        The rounds of one that is given up had a part in the choice of the next one.
        """
        confirming = [(f, load) for f in self._finalists for load in self._confirmed(f) if f is not self.baseline]
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

    def _choice(self) -> Due | None:
        """The most promising finalist, and the load to confirm it under."""
        loads = ((f, self._own_load(f) if f is self.baseline else f.load(_CONFIRM)) for f in self._open)
        remaining = {f: load for f, load in loads if load}
        values = {f: f.value(load).mean for f, load in remaining.items()}
        alike = [f for f, value in values.items() if value >= max(values.values()) + math.log(_ALIKE)]
        best = min(alike, key=lambda f: (f.mean_latency_ms, -values[f]), default=None)
        return (best, remaining[best]) if best else None

    def _beside(self, load: Concurrency) -> list[Due]:
        """The baseline at its own load, and under the load of the chosen finalist, if it may hold the SLO there."""
        baseline = self.baseline
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

    def learn(self) -> None:
        """Update what is expected of each finalist."""
        merits, latencies = [f.merit_speeds for f in self.all], [f.latency_speeds for f in self.all]
        self._spread, latency_spread = Spread.of(merits), Spread.of(latencies)
        least = _LEAST_DEVIATION * self._spread.deviation
        expected = [
            Speed(model.mean, max(model.deviation, least)) if (model := self._expected.get(finalist.number)) else alone
            for finalist, alone in zip(
                self.all, after_search([f.entry.best_value for f in self.all], self._spread), strict=True
            )
        ]
        by_merit = after_launches(expected, merits, self._spread)
        by_latency = after_launches(expected, latencies, latency_spread)
        for finalist, merit, latency in zip(self.all, by_merit, by_latency, strict=True):
            finalist.expect(merit, latency, latency_spread)

    def _finalist(self, entry: ShortlistEntry) -> Finalist:
        before = [v for v in self._before.values() if v.trial == entry.trial.number]
        return Finalist(entry, self._max_gpu_memory, before)

    @property
    def all(self) -> list[Finalist]:
        """The finalists, and the baseline."""
        return list(dict.fromkeys([*self._finalists, *filter(None, [self.baseline])]))

    def _is_precise(self, verification: Verification, beside: Sequence[Due]) -> bool:
        """Whether the gain over the baseline beside it is known, or the objective, where there is no baseline.

        The spread between all launches decides, not that of these rounds: they may agree by chance.
        """
        launch = Z95 * self._spread.deviation
        if not beside:
            return launch / math.sqrt(len(verification.confirming)) <= _PRECISE
        rounds = (baseline.verifications[load] for baseline, load in beside if load in baseline.verifications)
        pairs = max((pairs_of(verification, each, self._objective) for each in rounds), key=len, default=())
        if len(pairs) < LEAST_ROUNDS:
            return False
        gain = abs(math.log(paired_ratio(pairs).value))
        return launch * math.sqrt(2 / len(pairs)) <= max(_PRECISE, _GAIN_PRECISE * gain)
