from __future__ import annotations

import math
import time

import numpy as np
import pytest

from tuner.core.record import Interval
from tuner.measure.machine_speed import MachineSpeed, machine_speed, speeds_together, us_per_turn
from tuner.measure.sampling import Sample

SECOND = 10**9


def samples(costs: list[float], *, each_s: float = 0.1) -> list[Sample[float]]:
    return [Sample(round(place * each_s * SECOND), cost) for place, cost in enumerate(costs)]


def test_work_is_counted_in_cpu_time_and_not_in_the_time_of_the_clock() -> None:
    before = [us_per_turn() for _ in range(20)]
    assert all(cost > 0 for cost in before)
    began, used = time.monotonic(), time.thread_time()
    time.sleep(0.05)
    assert time.monotonic() - began > 5 * (time.thread_time() - used)
    assert np.median([us_per_turn() for _ in range(20)]) == pytest.approx(np.median(before), rel=3)


def test_a_steady_machine_does_not_wander_however_noisy_its_samples() -> None:
    noisy = np.random.default_rng(1).normal(0.01, 0.0005, 100)
    found = machine_speed(samples(list(noisy)))
    assert found is not None
    assert found.turns_per_us == pytest.approx(100, rel=0.02)
    assert found.wander < 0.015


def test_a_sample_that_had_to_wait_says_nothing_of_the_machine() -> None:
    rng = np.random.default_rng(1)
    disturbed = np.where(rng.random(100) < 0.1, 0.1, rng.normal(0.01, 0.0005, 100))
    found = machine_speed(samples(list(disturbed)))
    assert found is not None
    assert found.turns_per_us == pytest.approx(100, rel=0.03)
    assert found.wander < 0.02


def test_speed_that_changes_from_second_to_second_wanders() -> None:
    rng = np.random.default_rng(1)
    seconds = np.repeat(rng.normal(1, 0.1, 40), 10) * 0.01
    found = machine_speed(samples(list(seconds)))
    assert found is not None
    assert found.wander == pytest.approx(0.1, rel=0.3)


def test_a_short_window_has_shorter_moments() -> None:
    half = machine_speed(samples([0.01] * 10 + [0.02] * 10))
    assert half is not None
    assert half.wander > 0.2


@pytest.mark.parametrize("costs", [[], [0.01] * 7, [0.01] * 9])
def test_too_few_samples_say_nothing(costs: list[float]) -> None:
    assert machine_speed(samples(costs)) is None


def test_samples_that_come_in_bursts_are_not_counted_as_moments() -> None:
    bursts = [Sample(at * SECOND + within, 0.01) for at in (0, 3, 7) for within in range(5)]
    assert machine_speed(bursts) is None


def test_an_interval_allows_for_another_speed_later() -> None:
    narrow = Interval(value=100, low=97, high=103)
    steady = MachineSpeed(turns_per_us=100, wander=0.0)
    assert steady.allowed_for(narrow, None) == narrow
    wide = MachineSpeed(turns_per_us=100, wander=0.1).allowed_for(narrow, None)
    further = 1.96 * 1.6 * 0.65 * 0.1
    assert math.log(wide.high / 100) == pytest.approx(math.hypot(math.log(1.03), further))
    assert math.log(100 / wide.low) == pytest.approx(math.hypot(math.log(100 / 97), further))
    assert wide.value == 100


def test_a_server_that_mostly_waits_depends_little_on_it() -> None:
    interval, speed = Interval(value=100, low=97, high=103), MachineSpeed(turns_per_us=100, wander=0.1)
    widths = [speed.allowed_for(interval, cores).high for cores in (0.0, 0.1, 1.0, 1.9, None)]
    assert widths[0] == 103
    assert widths[1] == pytest.approx(103.7, abs=0.1)
    assert widths[1] < widths[2] == widths[3] == widths[4]


def test_however_much_it_wanders_nothing_takes_no_time() -> None:
    speed = MachineSpeed(turns_per_us=100, wander=0.9)
    assert 0 < speed.allowed_for(Interval(value=10, low=9, high=11), None).low < 2
    open_below = speed.allowed_for(Interval(value=10, low=0, high=11), None)
    assert (open_below.low, open_below.high > 11) == (0, True)


def test_rounds_together_know_what_lies_between_them() -> None:
    alike = [MachineSpeed(turns_per_us=100, wander=0.1)] * 3
    together = speeds_together([*alike, None])
    assert together is not None
    assert together.wander == pytest.approx(0.1)
    unlike = speeds_together([MachineSpeed(turns_per_us=speed, wander=0.0) for speed in (90, 110)])
    assert unlike is not None
    assert (unlike.turns_per_us, unlike.wander) == pytest.approx((100, 0.1))
    assert speeds_together([None]) is None
