from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from support.builders import point, space, trial
from support.known_truth import LOADS, Truth

from tuner.core.record import Interval
from tuner.core.slo import SLO
from tuner.measure.points import OperatingPoint
from tuner.measure.trial import TrialResult
from tuner.search.expected_speeds import expected_speeds
from tuner.search.goal import Goal
from tuner.space.space import SearchSpace

SPACE = """
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 8, 16]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4]}
"""
GOAL = Goal(SLO({"p99": 100.0}), batch_size=1, max_concurrency=LOADS[-1])


@pytest.fixture(scope="module")
def built() -> SearchSpace:
    return space(SPACE)


def launched(built: SearchSpace, speeds: Sequence[float]) -> list[TrialResult]:
    """Trials of the baseline and of nine candidates, whose launches were quicker by factors."""
    truth = Truth(4.0, 0.2, cores=8, threads=1)
    candidates = [
        built.normalize({"dynamic_batching": "on", "max_batch_size": size, "instance_group.count": count})
        for count in (1, 2, 4)
        for size in (16, 8, 4)
    ]
    trials = []
    for number, (speed, each) in enumerate(zip(speeds, [built.baseline, *candidates], strict=False)):
        trial = truth.trial(built, number, each)
        curve = tuple(_quicker(point, speed) for point in trial.curve)
        trials.append(trial.model_copy(update={"curve": curve}))
    return trials


def _quicker(point: OperatingPoint, by: float) -> OperatingPoint:
    latency_ms = {name: _times(value, 1 / by) for name, value in point.latency_ms.items()}
    return point.model_copy(update={"throughput": _times(point.throughput, by), "latency_ms": latency_ms})


def _times(interval: Interval, factor: float) -> Interval:
    return Interval(value=interval.value * factor, low=interval.low * factor, high=interval.high * factor)


@pytest.mark.slow
def test_lucky_launches_are_expected_to_be_slower_the_next_time(built: SearchSpace) -> None:
    shares = []
    for seed in range(3):
        luck = 0.2 * np.random.default_rng(seed).standard_normal(10)
        speeds = expected_speeds(launched(built, np.exp(luck)), built, GOAL, seed=0)
        assert sorted(speeds) == list(range(10))
        wrong = luck + [speeds[number].mean for number in range(10)]
        shares.append(float(np.std(wrong)) / float(np.std(luck)))
        assert all(0 < speed.deviation < 0.5 for speed in speeds.values())
    assert np.mean(shares) < 0.8


def test_from_too_few_trials_or_without_execution_times_nothing_is_expected(built: SearchSpace) -> None:
    assert expected_speeds(launched(built, [1.0] * 3), built, GOAL, seed=0) == {}
    told_nothing = [
        trial(n, point(1, 100, 10), point(8, 300, 20), parameters=each.parameters).model_copy(
            update={"curve": tuple(p.model_copy(update={"server": None}) for p in (point(1), point(8, 300, 20)))}
        )
        for n, each in enumerate(launched(built, [1.0] * 7))
    ]
    assert expected_speeds(told_nothing, built, GOAL, seed=0) == {}
