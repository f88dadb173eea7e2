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
from tuner.recommend.finalist import Finalist, FinalistStatus
from tuner.recommend.finals import Due, Finals, Round
from tuner.recommend.speed import Speed
from tuner.recommend.verification import Verification


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


Eliminated = Callable[[int, Load, str], None]
"""Called with a finalist that cannot win any more: its trial, the load, and the reason."""


def elimination_in_words(trial: int, load: Load, reason: str) -> str:
    """A message that a finalist cannot win any more under a load."""
    return f"eliminated trial {trial} at {load}: {reason}"


def noted(note: Callable[[str], None]) -> Eliminated:
    """Makes a note of each eliminated finalist."""
    return lambda trial, load, reason: note(elimination_in_words(trial, load, reason))


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
    eliminated: Eliminated | None = None,
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
        eliminated: Called with each finalist that is eliminated; None: it is a note.

    Returns:
        All verifications; `tuner.recommend.recommend` chooses the best of them.
    """
    finals = Finals(trials, terms.slo, terms.objective, terms.max_gpu_memory, expected, verified)
    launches = _Launches(finals, measure, terms, note, eliminated or noted(note))
    try:
        while due := launches.next_round():
            launches.play(due)
            keep(finals.verifications)
    finally:
        keep(finals.verifications)
    return finals.verifications


class _Launches:
    """Launches the rounds of the finalists.

    Attributes:
        finals: The finalists.
    """

    def __init__(
        self,
        finals: Finals,
        measure: RelaunchAndMeasure,
        terms: VerificationTerms,
        note: Callable[[str], None],
        eliminated: Eliminated,
    ) -> None:
        self.finals, self._measure, self._terms, self._note = finals, measure, terms, note
        self._eliminated = eliminated
        self._round = max((number for v in finals.verifications for number in v.numbers), default=0)
        self._launches, self._took_s = 1, terms.launch_s
        self._confirms: Due | None = None

    def next_round(self) -> Round | None:
        """See `Finals.next_round`."""
        return self.finals.next_round(self._has_time_for) if self._terms.now() < self._terms.until else None

    def play(self, game: Round) -> None:
        """Launch one round in random order, so that the first launch after a pause varies."""
        self._round += 1
        if not game.choosing and game.due[0] != self._confirms:
            self._confirms = game.due[0]
            self._note(f"confirming {_name(*self._confirms)}")
        launches: dict[Finalist, list[Concurrency]] = {}
        for finalist, load in sorted(game.due, key=lambda due: due[1].requests):
            launches.setdefault(finalist, []).append(load)
        order = random.Random(f"{self._terms.seed} {self._round}")  # noqa: S311 (no secret)
        for finalist, loads in order.sample(list(launches.items()), len(launches)):
            self._launch(finalist, loads, choosing=game.choosing)
        self.finals.learn()
        for finalist, load in game.due:
            status = finalist.status(load)
            if status is not FinalistStatus.REMAINS:
                self._eliminated(finalist.number, load, finalist.verifications[load].failure or status.value)

    def _launch(self, finalist: Finalist, loads: Sequence[Concurrency], *, choosing: bool) -> None:
        """Launch a config, and measure it under some loads, the lowest first."""
        for load in loads:
            if load not in finalist.verifications and (choosing or finalist is self.finals.baseline):
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

    def _has_time_for(self, launches: int) -> bool:
        return self._terms.now() + launches * self._took_s / self._launches <= self._terms.until


def _name(finalist: Finalist, load: Load) -> str:
    return f"trial {finalist.number} at {load}"
