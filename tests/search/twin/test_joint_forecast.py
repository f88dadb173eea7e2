from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.builders import space
from support.known_truth import LOADS, Truth

from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.effects import Effects
from tuner.search.twin.forecast import Curves
from tuner.search.twin.joint_forecast import JointForecast
from tuner.search.twin.observed_trial import ObservedTrial, observed_trial
from tuner.search.twin_sampler import calibrations
from tuner.space.candidate import Assignment
from tuner.space.space import SearchSpace

CORES = 8
SPACE = """
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 16]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4, 8]}
  THREADS: {field: 'parameters["THREADS"].string_value', ladder: [off, '1', '2']}
  useless: {field: 'parameters["NOTHING"].string_value', ladder: [off, a, b]}
"""


MANY: Assignment = {"dynamic_batching": "on", "max_batch_size": 16, "instance_group.count": 8, "THREADS": "1"}
ONE: Assignment = {**MANY, "instance_group.count": 1}


def truth(assignment: Assignment) -> Truth:
    """By default, each instance keeps all cores busy, of which it makes as much as of two."""
    threads = CORES if assignment["THREADS"] == "off" else int(str(assignment["THREADS"]))
    slower = 2 / min(threads, 2)
    return Truth(4.0 * slower, 0.2 * slower, cores=CORES, threads=threads)


@pytest.fixture(scope="module")
def built() -> SearchSpace:
    return space(SPACE)


@pytest.fixture(scope="module")
def after_one(built: SearchSpace) -> JointForecast:
    return forecast(built, ONE)


def forecast(built: SearchSpace, *launched: Assignment) -> JointForecast:
    schedulings = SchedulingMap(built)
    first = [built.baseline, *calibrations(built), *map(built.normalize, launched)]
    trials = []
    for number, each in enumerate(first):
        observed = observed_trial(truth(each).trial(built, number, each), "p99", schedulings.of(each)[1])
        assert observed
        trials.append((observed, each))
    return JointForecast(trials, Effects(schedulings.unknown), "p99", 1, cores=None, seed=0)


def most(curves: list[Curves]) -> tuple[float, float]:
    """The highest expected throughput, and the deviation of its logarithm."""
    highest = np.array([np.nanmax(each.throughput[0]) for each in curves])
    deviations = [np.nanmax(each.throughput_deviation[0]) for each in curves]
    return float(np.exp(highest.mean())), float(np.hypot(np.mean(deviations), highest.std()))


def told(built: SearchSpace, by: JointForecast, assignment: Assignment) -> tuple[float, float, float]:
    """Expected and true throughput, and the deviation."""
    settled = built.normalize(assignment)
    scheduling, _ = SchedulingMap(built).of(settled)
    expected, deviation = most(by.curves([(scheduling, settled)], LOADS[-1]))
    return expected, truth(settled).point(scheduling, LOADS[-1]).throughput.value, deviation


def test_one_launch_with_other_values_tells_how_many_instances_fit(
    built: SearchSpace, after_one: JointForecast
) -> None:
    expected, measured, deviation = told(built, after_one, MANY)
    assert expected == pytest.approx(measured, rel=0.3)
    assert abs(np.log(expected / measured)) < 2 * deviation


def test_what_was_not_launched_it_is_less_sure_of(built: SearchSpace, after_one: JointForecast) -> None:
    _, _, unsure = told(built, after_one, {**ONE, "THREADS": "2", "useless": "a"})
    _, _, sure = told(built, after_one, ONE)
    assert unsure > 1.5 * sure


def test_what_was_launched_is_surest(built: SearchSpace) -> None:
    by = forecast(built, MANY)
    _, _, deviation = told(built, by, MANY)
    assert deviation < 0.2
    assert by.errors(*_trial(built, MANY))[0] < 0.1


def test_it_foresees_what_the_simulator_alone_would(built: SearchSpace, after_one: JointForecast) -> None:
    own: Assignment = {"dynamic_batching": "on", "max_batch_size": 4, "instance_group.count": 2}
    expected, measured, _ = told(built, after_one, own)
    assert expected == pytest.approx(measured, rel=0.1)


def test_instances_beyond_the_cores_are_expected_to_lose(built: SearchSpace) -> None:
    # By default, one instance keeps all cores busy.
    alone = JointForecast([_trial(built, built.baseline)], Effects(()), "p99", 1, cores=CORES, seed=0)
    one, two, four = (
        most(alone.curves([(SchedulingMap(built).of(built.normalize({"instance_group.count": count}))[0], {})], 64))
        for count in (1, 2, 4)
    )
    assert one[0] > two[0] > four[0]
    assert one[1] < two[1] < four[1]


def test_larger_batches_than_there_are_requests_change_nothing(built: SearchSpace, after_one: JointForecast) -> None:
    sizes = [built.normalize({**ONE, "max_batch_size": size, "THREADS": "off"}) for size in (4, 16)]
    candidates = [(SchedulingMap(built).of(each)[0], each) for each in sizes]
    for each in after_one.curves(candidates, LOADS[-1]):
        small = each.concurrency <= 4
        for values in (each.throughput, each.throughput_deviation, each.latency):
            assert values[0, small] == pytest.approx(values[1, small], rel=0.02, abs=0.02)


def _trial(built: SearchSpace, assignment: Assignment) -> tuple[ObservedTrial, Assignment]:
    settled = built.normalize(assignment)
    observed = observed_trial(truth(settled).trial(built, 9, settled), "p99", 1)
    assert observed
    return observed, settled


def test_loads_that_no_trial_was_measured_under_are_left_out(built: SearchSpace) -> None:
    scheduling, _ = SchedulingMap(built).of(built.baseline)

    def loads(*measured: int) -> list[float]:
        observed = _trial(built, built.baseline)[0]
        some = tuple(level for level in observed.levels if level.concurrency in measured)
        few = JointForecast([(replace(observed, levels=some), {})], Effects(()), "p99", 1, cores=CORES, seed=0)
        return list(few.curves([(scheduling, {})], 64)[0].concurrency)

    assert loads(1, 4, 16) == [1, 4, 16, 32, 64]
    assert loads(4, 8) == [1, 2, 4, 8, 16, 32, 64]
    assert loads(*LOADS) == [1, 2, 4, 8, 16, 32, 64]
