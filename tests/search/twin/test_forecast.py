from __future__ import annotations

import numpy as np
import pytest
from support.builders import space
from support.known_truth import LOADS, Truth

from tuner.search.scheduling_map import SchedulingMap
from tuner.search.twin.forecast import Curves, Forecast, ForecastErrors
from tuner.search.twin.observed_trial import ObservedTrial, observed_trial
from tuner.search.twin.scheduling import Scheduling
from tuner.search.twin_sampler import calibrations
from tuner.space.space import SearchSpace

TRUTH = Truth(fixed_ms=4.0, item_ms=0.3, neighbour=0.4)


def calibrated(built: SearchSpace, truth: Truth = TRUTH) -> list[ObservedTrial]:
    first = [built.baseline, *calibrations(built)]
    told = [observed_trial(truth.trial(built, number, each), "p99") for number, each in enumerate(first)]
    return [each for each in told if each]


@pytest.fixture(scope="module")
def built() -> SearchSpace:
    return space(cpus=2)


@pytest.fixture(scope="module")
def forecast(built: SearchSpace) -> Forecast:
    return Forecast(calibrated(built), "p99", 1, ForecastErrors())


def test_three_launches_tell_of_all_others(forecast: Forecast) -> None:
    others = [
        Scheduling(2, 32),
        Scheduling(2, 8, dynamic_batching=True),
        Scheduling(3, 64, dynamic_batching=True, delay_us=1_000),
        Scheduling(1, 16, dynamic_batching=True, preferred=(4, 8), delay_us=2_000),
    ]
    curves = forecast.curves([(each, 0) for each in others], 128)
    off = []
    for row, scheduling in enumerate(others):
        for column, load in enumerate(LOADS):
            if not np.isnan(curves.throughput[row, column]):
                truth = TRUTH.point(scheduling, load)
                measured = np.log([truth.throughput.value, truth.latency_ms["p99"].value])
                off.append(np.abs(measured - [curves.throughput[row, column], curves.latency[row, column]]))
    assert len(off) > 20
    assert (np.median(off, axis=0) < (0.05, 0.1)).all()
    # Few requests can be in step with each other, or not, for as long as nothing disturbs them.
    assert (np.quantile(off, 0.9, axis=0) < 0.25).all()


def test_what_was_measured_is_surest(built: SearchSpace, forecast: Forecast) -> None:
    schedulings = SchedulingMap(built)
    measured, other = schedulings.of(built.baseline), (Scheduling(2, 8, dynamic_batching=True), 0)
    curves = forecast.curves([measured, other], 16)
    assert np.nanmax(curves.throughput_deviation[0]) < np.nanmin(curves.throughput_deviation[1])


def test_a_twin_that_was_wrong_is_less_sure(built: SearchSpace) -> None:
    told = calibrated(built)
    sure, unsure = (
        Forecast(told, "p99", 1, ForecastErrors([off] * 4, [off] * 4)).curves([(Scheduling(2, 64), 0)], 8)
        for off in (0.02, 0.5)
    )
    assert np.nanmean(unsure.throughput_deviation) > 3 * np.nanmean(sure.throughput_deviation)


def test_surprises_are_what_was_not_expected(built: SearchSpace, forecast: Forecast) -> None:
    forecast_errors = ForecastErrors()
    scheduling = Scheduling(2, 16, dynamic_batching=True)
    for factor in (1.0, 2.0):
        points = [TRUTH.point(scheduling, load, factor) for load in LOADS]
        config = "max_batch_size: 16 instance_group { kind: KIND_CPU count: 2 } dynamic_batching {}"
        told = observed_trial(
            Truth(1, 1)
            .trial(built, 0, built.baseline)
            .model_copy(update={"curve": tuple(points), "effective_config": config}),
            "p99",
        )
        assert told
        forecast.compare_with(told, forecast_errors)
    assert forecast_errors.throughput[0] < 0.2
    assert forecast_errors.throughput[1] > 0.5
    assert forecast_errors.typical == pytest.approx(np.expm1(np.mean(forecast_errors.throughput)))


def test_loads_beyond_use_are_left_out(forecast: Forecast) -> None:
    curves: Curves = forecast.curves([(Scheduling(1, 32), 0), (Scheduling(4, 64, dynamic_batching=True), 0)], 1_024)
    assert np.isnan(curves.throughput[0, -1])
    assert not np.isnan(curves.throughput[1]).any()


def test_an_open_loop_that_is_too_quick_has_no_latency(forecast: Forecast) -> None:
    random = np.random.default_rng(0)
    slow, quick = (np.cumsum(random.exponential(gap, 2_000)) for gap in (50.0, 0.2))
    latency_ms, deviation = forecast.latency_ms(Scheduling(1, 32), 0, slow, keeps_up=0.97)
    assert 4 < latency_ms < 15
    assert deviation > 0
    assert forecast.latency_ms(Scheduling(1, 32), 0, quick, keeps_up=0.97)[0] == np.inf


WIDE = """
schema: 1
parameters:
  dynamic_batching: {ladder: [off, on]}
  max_batch_size: {ladder: [4, 16, 64]}
  instance_group.count: {field: "instance_group[*].count", ladder: [1, 2, 4, 8, 16]}
"""


@pytest.mark.parametrize(
    ("truth", "launches"),
    [
        (Truth(5.0, 0.2, cores=2, threads=1.8), 2),
        (Truth(5.0, 0.2, cores=2, threads=1.8), 3),
        (Truth(5.0, 0.2, cores=2, threads=1.0), 3),
        (Truth(5.0, 0.2, gpu=0.8), 2),
    ],
    ids=["one instance fills the cores", "so do two", "two instances fill the cores", "one fills the GPU"],
)
def test_instances_beyond_those_launched_get_no_more_than_the_machine_has(truth: Truth, launches: int) -> None:
    built = space(WIDE)
    first = [built.baseline, *calibrations(built)][:launches]
    told = [observed_trial(truth.trial(built, number, each), "p99") for number, each in enumerate(first)]
    forecast = Forecast([each for each in told if each], "p99", 1, ForecastErrors(), truth.cores)
    schedulings = [Scheduling(instances, 64, dynamic_batching=True) for instances in (4, 16)]
    curves = forecast.curves([(each, 0) for each in schedulings], 256)
    bound = truth.most_per_s(64)
    assert np.nanmax(np.exp(curves.throughput)) <= 1.05 * bound
    assert np.exp(curves.most) == pytest.approx([bound, bound], rel=0.2)
    for row, scheduling in enumerate(schedulings):
        measured = np.log([truth.point(scheduling, int(load)).throughput.value for load in curves.concurrency])
        off = np.abs(measured - curves.throughput[row])
        assert (off <= 1.96 * curves.throughput_deviation[row]).mean() >= 0.9


def test_the_further_beyond_what_was_launched_the_less_is_known(forecast: Forecast) -> None:
    counts = (2, 4, 8, 16)
    curves = forecast.curves([(Scheduling(count, 32, dynamic_batching=True), 0) for count in counts], 128)
    deviations = curves.throughput_deviation[:, -1]
    # Two were launched; each doubling may gain everything or nothing.
    assert np.diff(deviations).min() > 0.1
    assert deviations[-1] > 0.4 * np.log(16 / 2)
    # One request keeps one instance busy, however many there are.
    assert curves.throughput_deviation[-1, 0] < 0.3


def test_of_devices_that_nobody_watched_nothing_is_known(forecast: Forecast) -> None:
    assert np.isinf(forecast.curves([(Scheduling(2, 32), 0)], 16).most).all()


@pytest.mark.parametrize("limit_ms", [6.0, 15.0, 40.0, 120.0])
def test_throughput_within_a_limit_lies_between_the_curve_at_the_loads_around_it(
    forecast: Forecast, limit_ms: float
) -> None:
    candidates = [
        (Scheduling(1, 32), 0),
        (Scheduling(2, 8, dynamic_batching=True), 0),
        (Scheduling(3, 64, dynamic_batching=True, delay_us=1_000), 0),
        # A single request waits for 20 ms, and four do not.
        (Scheduling(1, 4, dynamic_batching=True, delay_us=20_000), 0),
    ]
    curves = forecast.curves(candidates, 1_024)
    reached = forecast.reached(candidates, limit_ms, 1_024)
    for row in range(len(candidates)):
        holds = curves.latency[row] <= np.log(limit_ms)
        if not holds.any():
            assert reached[row] == -np.inf
        else:
            best = curves.throughput[row][holds].max()
            # The curve has each twofold load, and so may miss the limit by half of the throughput.
            assert best - 0.3 < reached[row] < best + np.log(2)
    assert np.isfinite(reached[3]) == (limit_ms > 6)


def test_a_forecast_may_take_over_the_variation_of_an_earlier_one(built: SearchSpace, forecast: Forecast) -> None:
    variation = 0.5, (0.05, 2.0)
    given = Forecast(calibrated(built), "p99", 1, ForecastErrors(), variation=variation)
    assert given.twin.variation == variation != forecast.twin.variation
