"""The finalists of a search, and which of them to launch next, as far as it follows from their verifications."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tuner.core.loads import Concurrency, Load
from tuner.core.objectives import Objective
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.allocation import worth
from tuner.recommend.finalist import LEAST_ROUNDS, MOST_ROUNDS, Finalist, FinalistStatus, is_decided
from tuner.recommend.gain import paired_ratio, pairs_of
from tuner.recommend.host_effects import HostEffects, HostRecord
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
class Selection:
    """Configs to launch side by side under some loads; `choosing`: whether they have a part in the choice."""

    due: tuple[Due, ...]
    choosing: bool


class UnderWay:
    """The launches of rounds under way: they count as coming, so that no information is bought twice.

    They are known by the trial's number, as finalists are made anew when the search has more trials.
    """

    def __init__(self) -> None:
        self._rounds: dict[int, dict[tuple[int, Load], bool]] = {}
        """By round, trial and load: whether the launch has a part in the choice."""

    def begin(self, number: int, selection: Selection) -> None:
        """A round begins."""
        self._rounds[number] = {(finalist.number, load): selection.choosing for finalist, load in selection.due}

    def received(self, number: int, trial: int) -> None:
        """The result of a launch is known."""
        self._rounds[number] = {due: chooses for due, chooses in self._rounds[number].items() if due[0] != trial}

    def end(self, number: int) -> None:
        """A round is over."""
        del self._rounds[number]

    def chooses(self, number: int, trial: int, load: Load) -> bool:
        """Whether a launch has a part in the choice."""
        return self._rounds[number][trial, load]

    def choose(self, trial: int, load: Load) -> None:
        """Give a finalist up: its launches under way have a part in the choice of the next one."""
        for due in self._rounds.values():
            if (trial, load) in due:
                due[trial, load] = True

    def launches(self, trial: int) -> int:
        """The number of launches of a trial."""
        return sum(any(number == trial for number, _ in due) for due in self._rounds.values())

    @property
    def choosing(self) -> int:
        """The number of launches that have a part in the choice."""
        return sum(len({trial for (trial, _), chooses in due.items() if chooses}) for due in self._rounds.values())

    def confirming(self, trial: int) -> Counter[Load]:
        """By load, the number of launches of a trial that have no part in the choice."""
        open_ = (item for due in self._rounds.values() for item in due.items())
        return Counter(load for (number, load), chooses in open_ if number == trial and not chooses)


class Finals:
    """The finalists of a search.

    Args:
        trials: The trials of a search, the baseline first.
        slo: The limits; may be empty.
        objective: The objective.
        max_gpu_memory: Limit on the memory of each GPU, in bytes; None: no limit.
        expected: See `tuner.recommend.verify.verify`.
        verified: Verifications of an earlier run.
        under_way: The launches under way.
        hosts: The hosts of the study.

    Attributes:
        baseline: The baseline; None: it violates the SLO at every load.
        spread: The spread of merit between launches on one host.
    """

    def __init__(  # noqa: PLR0917 (constructed at one place)
        self,
        trials: Sequence[TrialResult],
        slo: SLO,
        objective: Objective,
        max_gpu_memory: int | None,
        expected: Mapping[int, Speed],
        verified: Iterable[Verification],
        under_way: UnderWay | None = None,
        hosts: Sequence[HostRecord] = (),
    ) -> None:
        self._slo, self._objective, self._max_gpu_memory, self._expected = slo, objective, max_gpu_memory, expected
        self._under_way, self._hosts, self._trials = under_way or UnderWay(), hosts, trials
        self._before = {(v.trial, v.load): v for v in verified}
        self._finalists = [self._finalist(entry) for entry in shortlist(trials, slo, max_gpu_memory, objective)]
        self.baseline = next((f for f in self._finalists if f.number == 0), None)
        # The gain is relative to the baseline, even if it exceeds the GPU memory limit.
        if self.baseline is None and trials and (own := ShortlistEntry.of(trials[0], slo, objective)):
            self.baseline = self._finalist(own)
        self._by_number = {finalist.number: finalist for finalist in self.all}
        self._learn()

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """The verifications of all finalists that were launched, in this run or an earlier one."""
        now = {(v.trial, v.load): v for finalist in self.all for v in finalist.verifications.values()}
        return tuple({**self._before, **now}.values())

    def next_round(self, has_time_for: HasTimeFor, *, slots: int = 1, speculative: bool = False) -> Selection | None:
        """The next round; None when the result is precise enough, or no other is due now, or there is no time for it.

        Args:
            has_time_for: Whether there is time for so many launches, one after the other.
            slots: Number of rounds that can be carried out at a time.
            speculative: See `tuner.recommend.rounds.VerificationPlan.due`.
        """
        self._learn()
        confirming_launches = 2 * math.ceil(LEAST_ROUNDS / slots)
        choosing = self._choosing_round(has_time_for, confirming_launches, speculative=speculative)
        if choosing or speculative or self._under_way.choosing:
            return choosing
        return self._confirming_round(has_time_for)

    def _choosing_round(
        self, has_time_for: HasTimeFor, confirming_launches: int, *, speculative: bool
    ) -> Selection | None:
        """The finalists whose launch improves the choice most; None when none is worth it, or time is short."""
        most_each, most = (part // 2 if speculative else part for part in (_MOST_EACH, _MOST_CHOOSING))
        remaining = {f: load for f in self._open if (load := f.load(_CHOOSE, steady=True))}
        if len(remaining) < 2 or sum(f.choosing for f in self.all) + self._under_way.choosing >= most:
            return None
        chosen, _ = self._confirming() or (None, None)
        gains = worth([self._coming(f, load) for f, load in remaining.items()], self.spread.deviation)
        ranked = sorted(zip(gains, remaining.items(), strict=True), key=lambda pair: pair[0], reverse=True)
        best = max(remaining, key=lambda f: f.value(remaining[f]).mean)
        # The first launch of the best one tells which load to confirm it under.
        unsure = best if self._slo.limits and not self._launches(best) and not chosen else None
        least = _WORTH_STILL if chosen else _WORTH
        due = tuple(
            due
            for gain, due in ranked
            if (gain >= least or due[0] is unsure) and self._launches(due[0]) < most_each and due[0] is not chosen
        )[:_SIDE_BY_SIDE]
        in_time = has_time_for(len(due) + confirming_launches)
        return Selection(due, choosing=True) if due and in_time else None

    def _confirming_round(self, has_time_for: HasTimeFor) -> Selection | None:
        """The chosen finalist and the baseline; None when the result is precise enough, or time is up."""
        chosen = self._confirming() or self._choice()
        if chosen is None:
            return None
        finalist, load = chosen
        verification = finalist.verifications.get(load) or Verification(trial=finalist.number, load=load)
        beside = [] if finalist is self.baseline else self._beside(load)
        coming = self._under_way.confirming(finalist.number)[load]
        rounds = len(verification.confirming) + coming
        precise = False
        if rounds >= LEAST_ROUNDS:
            if rounds - coming < LEAST_ROUNDS:
                return None  # those under way tell how many more it takes
            precise = self._is_precise(verification, beside)
            sure = is_decided(verification) and not finalist.is_near(load, _CONFIRM)
            if rounds >= MOST_ROUNDS or (precise and sure):
                return None
        due = (chosen,) if precise else (chosen, *beside)
        late = rounds > 0 and not has_time_for(len({f for f, _ in due}))
        return None if late else Selection(due, choosing=False)

    def _coming(self, finalist: Finalist, load: Load) -> Speed:
        """Its value as if the launches under way had confirmed what is expected (kriging believer)."""
        value, launches = finalist.value(load), self._under_way.launches(finalist.number)
        if not launches or not value.deviation:
            return value
        precision = value.deviation**-2 + launches * self.spread.deviation**-2
        return Speed(value.mean, precision**-0.5)

    def _launches(self, finalist: Finalist) -> int:
        return len(finalist.launches) + self._under_way.launches(finalist.number)

    def add(self, number: int, trial: int, load: Load, point: OperatingPoint, host: str = "") -> None:
        """Count the point of a launch of a round."""
        choosing = self._under_way.chooses(number, trial, load)
        if finalist := self._by_number.get(trial):
            finalist.add(load, number, point, choosing=choosing, host=host)
            return
        # It is no finalist any more.
        so_far = self._before.get((trial, load)) or Verification(trial=trial, load=load)
        after = so_far.with_round(point, number, host)
        self._before[trial, load] = after.model_copy(update={"choosing": len(after.rounds)})

    def fail(self, trial: int, load: Load, reason: str) -> None:
        """Record a failure."""
        if finalist := self._by_number.get(trial):
            finalist.fail(load, reason)
            return
        so_far = self._before.get((trial, load)) or Verification(trial=trial, load=load)
        self._before[trial, load] = so_far.model_copy(update={"failure": reason})

    def why_out(self, trial: int, load: Load) -> str | None:
        """Why a finalist is eliminated under a load; None: it is not."""
        finalist = self._by_number.get(trial)
        status = finalist.status(load) if finalist else FinalistStatus.REMAINS
        if finalist is None or status is FinalistStatus.REMAINS:
            return None
        return finalist.verifications[load].failure or status.value

    @property
    def _open(self) -> list[Finalist]:
        """The finalists that may be launched, so that it ends however much time there is."""
        began = [f for f in self._finalists if self._launches(f)]
        if sum(self._launches(f) for f in began) >= _MOST_LAUNCHES:
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
            if load in chosen.verifications:
                chosen.choose(load)
            self._under_way.choose(chosen.number, load)
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
        coming = self._under_way.confirming(baseline.number)
        rounds = {at: len(verification.rounds) for at, verification in baseline.verifications.items()}
        confirmed = {at: rounds.get(at, 0) + coming[at] for at in self._confirmed(baseline) if at != but}
        return max(confirmed, key=lambda at: confirmed[at], default=baseline.load(_CHOOSE))

    def _confirmed(self, finalist: Finalist) -> list[Concurrency]:
        """The remaining loads with confirming rounds, those under way included."""
        confirmed = [load for load, verification in finalist.verifications.items() if verification.confirms]
        return [
            load
            for load in dict.fromkeys([*confirmed, *self._under_way.confirming(finalist.number)])
            if isinstance(load, Concurrency) and finalist.status(load) is FinalistStatus.REMAINS
        ]

    def _learn(self) -> None:
        """Update what is expected of each finalist."""
        hosts = HostEffects.of(self._hosts, self._trials, self.verifications, self._objective.percentile_for(self._slo))
        for finalist in self.all:
            finalist.compare(hosts)
        merits, latencies = [f.merit_speeds for f in self.all], [f.latency_speeds for f in self.all]
        self.spread, latency_spread = Spread.of(merits), Spread.of(latencies)
        alone = after_search([f.searched.mean for f in self.all], self.spread)
        expected = [self._expects(f, hosts, by_itself) for f, by_itself in zip(self.all, alone, strict=True)]
        by_merit = after_launches(expected, merits, self.spread)
        by_latency = after_launches(expected, latencies, latency_spread)
        for finalist, merit, latency in zip(self.all, by_merit, by_latency, strict=True):
            finalist.expect(merit, latency, latency_spread)

    def _expects(self, finalist: Finalist, hosts: HostEffects, alone: Speed) -> Speed:
        """The expected speed of a finalist, relative to its launch in the search without the effect of its host."""
        model = self._expected.get(finalist.number)
        if model is None:
            return Speed(alone.mean, math.hypot(alone.deviation, finalist.searched.deviation))
        host = hosts.merit(finalist.entry.trial.host, self._objective)
        return Speed(model.mean + host.mean, max(model.deviation, _LEAST_DEVIATION * self.spread.deviation))

    def _finalist(self, entry: ShortlistEntry) -> Finalist:
        before = [v for v in self._before.values() if v.trial == entry.trial.number]
        return Finalist(entry, self._max_gpu_memory, before)

    @property
    def all(self) -> list[Finalist]:
        """The finalists, and the baseline."""
        return list(dict.fromkeys([*self._finalists, *filter(None, [self.baseline])]))

    def _is_precise(self, verification: Verification, beside: Sequence[Due]) -> bool:
        """Whether the gain over the baseline beside it is known, or the objective, where there is no baseline.

        Pairs under way count as if they were known.

        The spread between all launches decides, not that of these rounds: they may agree by chance.
        """
        launch = Z95 * self.spread.deviation
        coming = self._under_way.confirming(verification.trial)[verification.load]
        if not beside:
            return launch / math.sqrt(len(verification.confirming) + coming) <= _PRECISE
        rounds = (baseline.verifications[load] for baseline, load in beside if load in baseline.verifications)
        pairs = max((pairs_of(verification, each, self._objective) for each in rounds), key=len, default=())
        coming = min(coming, sum(self._under_way.confirming(0).values()))
        if len(pairs) < 2 or len(pairs) + coming < LEAST_ROUNDS:
            return False
        gain = abs(math.log(paired_ratio(pairs).value))
        return launch * math.sqrt(2 / (len(pairs) + coming)) <= max(_PRECISE, _GAIN_PRECISE * gain)
