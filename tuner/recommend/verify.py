"""Verification: relaunches the best candidates in rounds, until the result is precise enough.

The best of many noisy measurements overstates its candidate, and so does the best of a few re-measurements. So rounds
have two purposes. The first ones choose: each launches those configs for which another launch improves the choice most.
The later ones confirm: the chosen config and the baseline run side by side. Only these rounds are reported, since they
had no part in the choice. A config that turns out to be too near to a limit is tried under less load, and competes with
what it gives there.

The next round follows from the verifications alone, so that a resumed run goes on where an earlier one stopped.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from tuner.core.loads import Load
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.finals import Finals, Selection, UnderWay
from tuner.recommend.host_effects import HostRecord
from tuner.recommend.rounds import (
    Eliminated,
    Pace,
    Relaunch,
    RelaunchAndMeasure,
    Round,
    VerificationTerms,
    carry_out_rounds,
    noted,
)
from tuner.recommend.speed import Speed
from tuner.recommend.verification import Verification


def verify(
    trials: Sequence[TrialResult],
    measure: RelaunchAndMeasure,
    terms: VerificationTerms,
    *,
    expected: Mapping[int, Speed] = MappingProxyType({}),
    verified: Iterable[Verification] = (),
    keep: Callable[[Sequence[Verification]], None] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
    eliminated: Eliminated | None = None,
) -> tuple[Verification, ...]:
    """Choose among the best candidates, and confirm the choice, on one slot.

    Args:
        trials: The trials of a finished search, the baseline first.
        measure: Relaunches and measures a trial.
        terms: Its limits.
        expected: By trial, the speed that a model of all trials expects of later launches. Trials without one are
            compared with the mean of all trials.
        verified: Verifications of an earlier run; their rounds count, and are not repeated.
        keep: Called with all verifications, after each round and at the end, also after an interruption.
        note: Called with each message about the progress.
        eliminated: Called with each finalist that is eliminated; None: it is a note.

    Returns:
        All verifications; `tuner.recommend.recommend` chooses the best of them.
    """
    plan = FinalsPlan(trials, terms, expected=expected, verified=verified, note=note, eliminated=eliminated)
    carry_out_rounds(plan, measure, terms.now, keep)
    return plan.verifications


class FinalsPlan:
    """The rounds of the finalists of a search; a `tuner.recommend.rounds.VerificationPlan`.

    Args:
        trials: The trials of a search, the baseline first.
        terms: Its limits.
        expected: See `verify`.
        verified: See `verify`.
        hosts: The hosts of the study; empty: one.
        note: See `verify`.
        eliminated: See `verify`.
    """

    def __init__(
        self,
        trials: Sequence[TrialResult],
        terms: VerificationTerms,
        *,
        expected: Mapping[int, Speed] = MappingProxyType({}),
        verified: Iterable[Verification] = (),
        hosts: Sequence[HostRecord] = (),
        note: Callable[[str], None] = lambda _: None,
        eliminated: Eliminated | None = None,
    ) -> None:
        self._terms, self._note, self._eliminated = terms, note, eliminated or noted(note)
        self._under_way, self._pace = UnderWay(), Pace(terms)
        self._finals = self._finals_of(trials, expected, verified, hosts)
        self._round = max((number for v in self.verifications for number in v.numbers), default=0)
        self._confirms: tuple[int, Load] | None = None
        self._told = set[tuple[int, Load]]()

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """See `VerificationPlan`."""
        return self._finals.verifications

    def due(self, *, speculative: bool = False) -> Round | None:
        """See `VerificationPlan`."""
        if self._pace.is_over:
            return None
        has_time_for = self._pace.has_time_for
        selection = self._finals.next_round(has_time_for, slots=self._terms.slots, speculative=speculative)
        if selection is None:
            return None
        self._round += 1
        self._under_way.begin(self._round, selection)
        if not selection.choosing and (confirms := (selection.due[0][0].number, selection.due[0][1])) != self._confirms:
            self._confirms = confirms
            self._note(f"confirming {_name(*confirms)}")
        return Round(self._round, self._in_order(selection), selection.choosing)

    def _in_order(self, selection: Selection) -> tuple[Relaunch, ...]:
        """The launches of a round in random order, so that the first launch after a pause varies."""
        loads: dict[int, list[Load]] = {}
        trials = {finalist.number: finalist.entry.trial for finalist, _ in selection.due}
        for finalist, load in sorted(selection.due, key=lambda due: due[1].requests):
            loads.setdefault(finalist.number, []).append(load)
        order = random.Random(f"{self._terms.seed} {self._round}")  # noqa: S311 (no secret)
        return tuple(Relaunch(trials[n], tuple(loads[n])) for n in order.sample(list(loads), len(loads)))

    def begin(self, due: Round, launch: Relaunch) -> None:
        """See `VerificationPlan`."""
        number = launch.trial.number
        known = {verification.load for verification in self.verifications if verification.trial == number}
        for load in launch.loads:
            if load not in known and (due.choosing or number == 0):
                self._note(f"verifying {_name(number, load)}")

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
        for load, point in zip(launch.loads, points, strict=False):
            self._finals.add(due.number, number, load, point, host)
        if failure is not None:
            for load in launch.loads[len(points) :]:
                self._finals.fail(number, load, failure)
        self._under_way.received(due.number, number)
        self._pace.launched(took_s)

    def end(self, due: Round) -> None:
        """See `VerificationPlan`."""
        self._under_way.end(due.number)
        for launch in due.launches:
            for load in launch.loads:
                number = launch.trial.number
                if (number, load) not in self._told and (reason := self._finals.why_out(number, load)):
                    self._told.add((number, load))
                    self._eliminated(number, load, reason)

    def update(
        self,
        trials: Sequence[TrialResult],
        expected: Mapping[int, Speed] = MappingProxyType({}),
        hosts: Sequence[HostRecord] = (),
    ) -> None:
        """See `VerificationPlan`."""
        self._finals = self._finals_of(trials, expected, self.verifications, hosts)

    def _finals_of(
        self,
        trials: Sequence[TrialResult],
        expected: Mapping[int, Speed],
        verified: Iterable[Verification],
        hosts: Sequence[HostRecord],
    ) -> Finals:
        terms, under_way = self._terms, self._under_way
        return Finals(
            trials, terms.slo, terms.objective, terms.max_gpu_memory, expected, verified, under_way, tuple(hosts)
        )


def _name(trial: int, load: Load) -> str:
    return f"trial {trial} at {load}"
