"""Rounds of verification: which launches are due, and their results, whoever carries them out.

A plan tells the next round while others are under way, so that several slots may carry out rounds at a time. A round
belongs on one slot, as its launches are compared with each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from tuner.core.errors import ServerError
from tuner.core.loads import Load
from tuner.core.objectives import THROUGHPUT, Objective
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.host_effects import HostRecord
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
        slots: Number of rounds that can be carried out at a time.
    """

    slo: SLO
    until: float
    launch_s: float
    seed: int = 0
    max_gpu_memory: int | None = None
    now: Callable[[], float] = time.monotonic
    objective: Objective = THROUGHPUT
    slots: int = 1


@dataclass(frozen=True)
class Relaunch:
    """One launch of a round.

    Attributes:
        trial: The trial whose config is launched.
        loads: The loads to offer, one after the other, the lowest first.
    """

    trial: TrialResult
    loads: tuple[Load, ...]


@dataclass(frozen=True)
class Round:
    """Launches to carry out on one slot, one after the other.

    Attributes:
        number: Its number, which no other round of the study has.
        launches: The launches, in order.
        choosing: Whether it has a part in choosing the best.
    """

    number: int
    launches: tuple[Relaunch, ...]
    choosing: bool


class VerificationPlan(Protocol):
    """The rounds of a verification. It is no generator, as several rounds may be under way.

    For each round that `due` returns: call `begin` before and `receive` after each launch, in any order with those of
    other rounds, and `end` at the end. Call `due` again after each `end`, and while slots are free.
    """

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """The verifications so far, in this run or an earlier one."""

    def due(self, *, speculative: bool = False) -> Round | None:
        """The next round, which counts as under way from now on.

        Args:
            speculative: Whether the search is still going on. Then only rounds that choose are due, and at most half
                of their number.

        Returns:
            The round. None: none is due; if rounds are under way, one may be due when they have ended.
        """

    def begin(self, due: Round, launch: Relaunch) -> None:
        """Say that a launch of a round begins."""

    def receive(  # noqa: PLR0917 (the result of one launch)
        self,
        due: Round,
        launch: Relaunch,
        points: Sequence[OperatingPoint],
        failure: str | None = None,
        host: str = "",
        took_s: float | None = None,
    ) -> None:
        """Count the result of a launch.

        Args:
            due: Its round.
            launch: The launch.
            points: The points of the first loads, in order of `launch.loads`; fewer if it failed, or was cut short.
            failure: Why the config failed, in one line; None: it did not. A lost host is no failure.
            host: The host that carried it out.
            took_s: Its duration in seconds; None: it was cut short.
        """

    def end(self, due: Round) -> None:
        """A round is over, complete or not."""

    def update(
        self,
        trials: Sequence[TrialResult],
        expected: Mapping[int, Speed] = MappingProxyType({}),
        hosts: Sequence[HostRecord] = (),
    ) -> None:
        """Continue with more trials or hosts, while rounds may be under way.

        Args:
            trials: All trials so far, the baseline first.
            expected: See `tuner.recommend.verify.verify`.
            hosts: All hosts so far; empty: one.
        """


def carry_out_rounds(
    plan: VerificationPlan,
    measure: RelaunchAndMeasure,
    now: Callable[[], float],
    keep: Callable[[Sequence[Verification]], None],
) -> None:
    """Carry out the rounds of a plan, one after the other, on one slot.

    Args:
        plan: The plan.
        measure: Relaunches and measures a trial.
        now: The clock, in seconds.
        keep: Called with all verifications, after each round and at the end, also after an interruption.
    """
    try:
        while due := plan.due():
            for launch in due.launches:
                _carry_out(plan, due, launch, measure, now)
            plan.end(due)
            keep(plan.verifications)
    finally:
        keep(plan.verifications)


def _carry_out(
    plan: VerificationPlan, due: Round, launch: Relaunch, measure: RelaunchAndMeasure, now: Callable[[], float]
) -> None:
    plan.begin(due, launch)
    began = now()
    points: list[OperatingPoint] = []
    failure, took_s = None, None
    try:
        for point in measure(launch.trial, launch.loads, due.number):
            points.append(point)  # noqa: PERF402 (those before a failure count)
        took_s = now() - began
    except ServerError as error:
        failure, took_s = f"{error.cause.value}: {error}", now() - began
    finally:
        plan.receive(due, launch, points, failure, took_s=took_s)


class Pace:
    """Whether there is time for launches that take as long as those so far.

    Args:
        terms: The terms of a verification.
    """

    def __init__(self, terms: VerificationTerms) -> None:
        self._terms = terms
        self._launches, self._took_s = 1, terms.launch_s

    @property
    def is_over(self) -> bool:
        """Whether the deadline has passed."""
        return self._terms.now() >= self._terms.until

    def launched(self, took_s: float | None) -> None:
        """Count a launch with its duration."""
        if took_s is not None:
            self._launches += 1
            self._took_s += took_s

    def has_time_for(self, launches: int) -> bool:
        """Whether there is time for so many launches, one after the other."""
        return self._terms.now() + launches * self._took_s / self._launches <= self._terms.until
