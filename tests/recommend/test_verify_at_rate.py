from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from support.builders import point, trial

from tuner.core.errors import Cause, ServerDiedError
from tuner.core.loads import Load, RequestRate
from tuner.core.objectives import Objective
from tuner.core.slo import SLO, Statistic
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.recommend.recommend import Recommendation, recommend
from tuner.recommend.rounds import VerificationTerms
from tuner.recommend.verification import Verification
from tuner.recommend.verify_at_rate import verify_at_rate
from tuner.stats.slo_verdict import SLOTest

RATE = RequestRate(200.0)
QUICK = Objective.quickest(Statistic.parse("p99"), RATE.per_s)


@dataclass
class Machine:
    """Launches servers that do not exist, four seconds each, of which all is known.

    Attributes:
        p99_ms: What each trial truly gives; None: it dies.
        late: Trials that do not keep up.
        over: Requests over the limit, of 5,000, by trial.
    """

    p99_ms: Sequence[float | None]
    slo: SLO = field(default_factory=SLO)
    noise: float = 0.0
    late: tuple[int, ...] = ()
    over: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.wall_s = 0.0
        self.rounds: list[tuple[int, int]] = []
        self.notes: list[str] = []

    def __call__(self, trial: TrialResult, loads: Sequence[Load], number: int) -> Iterator[OperatingPoint]:
        assert list(loads) == [RATE]
        self.wall_s += 4.0
        self.rounds.append((number, trial.number))
        true_ms = self.p99_ms[trial.number]
        if true_ms is None:
            raise ServerDiedError("it died", cause=Cause.CRASHED)
        limits = tuple(
            SLOTest(
                percentile=limit.percentile,
                limit_ms=limit.limit_ms,
                requests=5_000,
                over=self.over.get(trial.number, 0),
                design_effect=2,
            )
            for limit in self.slo.limits
        )
        speed = float(np.exp(self.noise * self.rng.standard_normal()))
        made = point(RATE, 200, true_ms / speed, kept_up=trial.number not in self.late)
        yield made.model_copy(update={"limits": limits})

    def verify(
        self, *searched: float, within_s: float = 1e6, verified: Sequence[Verification] = ()
    ) -> tuple[Recommendation, tuple[Verification, ...]]:
        """Verify trials whose search measured these latencies, the baseline first."""
        trials = [trial(number, point(RATE, 200, p99, kept_up=True)) for number, p99 in enumerate(searched)]
        terms = VerificationTerms(
            slo=self.slo,
            until=self.wall_s + within_s,
            launch_s=4.0,
            now=lambda: self.wall_s,
            objective=QUICK,
        )
        told = verify_at_rate(trials, self, terms, verified=verified, note=self.notes.append)
        return recommend(trials, self.slo, told, objective=QUICK), told

    def launches_of(self, number: int) -> int:
        return sum(trial == number for _, trial in self.rounds)


def test_the_best_is_chosen_and_confirmed_beside_the_baseline() -> None:
    machine = Machine([40.0, 12.0, 10.0])
    # The search was lucky with trial 1.
    found, told = machine.verify(40.0, 9.0, 10.0)
    assert found.best is not None
    assert found.baseline is not None
    assert (found.best.trial.number, found.best.confirmed, found.baseline.verified) == (2, True, True)
    assert found.gain is not None
    assert found.gain.value == pytest.approx(4.0)
    assert found.pairs >= 3
    # Rounds that chose do not confirm.
    chosen = next(verification for verification in told if verification.trial == 2)
    assert (chosen.choosing, len(chosen.confirming)) == (2, 3)


def test_a_lucky_launch_is_not_chosen() -> None:
    machine = Machine([40.0, 30.0, 25.0, 10.0], noise=0.05)
    found, _ = machine.verify(40.0, 9.0, 9.5, 10.0)
    assert found.best is not None
    assert found.best.trial.number == 3


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (Machine([40.0, None, 20.0]), "crashed: it died"),
        (Machine([40.0, 10.0, 20.0], late=(1,)), "the server did not keep up"),
        (Machine([40.0, 10.0, 20.0], slo=SLO({"p99": 50.0}), over={1: 500}), "violates the SLO (99 % confidence)"),
    ],
)
def test_one_that_fails_late_or_breaks_the_slo_is_replaced(machine: Machine, reason: str) -> None:
    found, _ = machine.verify(40.0, 10.0, 20.0)
    assert found.best is not None
    assert (found.best.trial.number, found.best.confirmed) == (2, True)
    assert f"eliminated trial 1 at 200 requests/s: {reason}" in machine.notes
    assert machine.launches_of(1) == 1


def test_only_what_is_near_the_best_is_launched() -> None:
    machine = Machine([40.0, 10.0, 30.0])
    machine.verify(40.0, 10.0, 30.0)
    assert machine.launches_of(2) == 0
    # Nobody else to choose from: all rounds confirm.
    assert [sorted(trial for number, trial in machine.rounds if number == n) for n in (1, 2, 3)] == [[0, 1]] * 3


def test_the_baseline_may_be_the_best() -> None:
    machine = Machine([10.0, 14.0])
    found, _ = machine.verify(10.0, 9.8)
    assert found.best is not None
    assert found.best.trial.number == 0


def test_it_ends_in_time_and_goes_on_later() -> None:
    machine = Machine([40.0, 10.0])
    _, told = machine.verify(40.0, 10.0, within_s=9.0)
    before = len(machine.rounds)
    assert machine.wall_s <= 13.0
    found, told = machine.verify(40.0, 10.0, verified=told)
    assert [len(verification.rounds) for verification in sorted(told, key=lambda v: v.trial)] == [3, 3]
    assert len(machine.rounds) == 6 > before
    assert found.best is not None
    assert found.best.confirmed


def test_a_wide_interval_takes_more_rounds_but_not_forever() -> None:
    machine = Machine([40.0, 10.0], noise=0.5)
    machine.verify(40.0, 10.0)
    assert machine.launches_of(1) == 8


def test_without_a_candidate_that_holds_nothing_is_launched() -> None:
    machine = Machine([40.0, 30.0], slo=SLO({"p99": 5.0}))
    found, told = machine.verify(40.0, 30.0)
    assert (found.best, told, machine.rounds) == (None, (), [])
