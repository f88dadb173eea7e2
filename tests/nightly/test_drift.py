from __future__ import annotations

import random

import pytest
from support.builders import interval
from support.nights import measured, past

from tuner.core.record import Interval
from tuner.nightly.drift import NO_HISTORY, PastMeasurement, judge_drift, normal_nights
from tuner.nightly.measured import Measured, config_fingerprint


def test_the_first_night_has_nothing_to_compare_with() -> None:
    assert judge_drift(measured(), [], files="abc", min_regression=0.1) == NO_HISTORY
    other_load = past(100.0, concurrency=64)
    assert judge_drift(measured(50.0), other_load, files="abc", min_regression=0.1) == NO_HISTORY


def test_a_night_that_knows_next_to_nothing_is_no_regression() -> None:
    vague = measured().model_copy(update={"p99_ms": Interval(value=10, low=0, high=1e9)})
    drift = judge_drift(vague, past(100.0), files="abc", min_regression=0.1)
    assert not drift.regression
    assert drift.latency is not None
    assert drift.latency.high > 1e5


@pytest.mark.parametrize("nights", [1, 2, 3, 10])
def test_thirty_percent_slower_is_a_regression(nights: int) -> None:
    drift = judge_drift(measured(100 / 1.3, 13.0), past(*[100.0] * nights), files="new", min_regression=0.1)
    assert drift.regression
    assert drift.files_changed
    assert drift.reason.startswith("slower: 76.9 inferences/s at concurrency 8, -23%")
    assert "the model's files have changed since, its config has not" in drift.reason


@pytest.mark.parametrize("nights", [1, 2, 3, 10])
@pytest.mark.parametrize("now", [95.0, 100.0, 120.0])
def test_what_nights_differ_by_is_none(nights: int, now: float) -> None:
    drift = judge_drift(measured(now, 1000 / now), past(*[100.0] * nights), files="abc", min_regression=0.1)
    assert not drift.regression
    assert not drift.files_changed


def test_a_slowdown_below_the_least_that_is_worth_telling_is_none() -> None:
    steady = past(*[100.0] * 20)
    assert not judge_drift(measured(91.5, 10.9), steady, files="abc", min_regression=0.1).regression
    assert judge_drift(measured(91.5, 10.9), steady, files="abc", min_regression=0.05).regression


def test_nights_that_differ_much_hide_a_slowdown() -> None:
    wild = past(100.0, 60.0, 140.0, 80.0, 120.0)
    assert not judge_drift(measured(77.0, 13.0), wild, files="abc", min_regression=0.1).regression


def test_latency_alone_is_a_regression_too() -> None:
    drift = judge_drift(measured(100.0, 25.0), past(*[100.0] * 5), files="abc", min_regression=0.1)
    assert drift.regression
    assert "p99 25 ms, +150%" in drift.reason


def test_a_slower_machine_accounts_for_it() -> None:
    nights = past(*[100.0] * 5)
    drift = judge_drift(measured(75.0, 13.3, turns_per_us=60.0), nights, files="abc", min_regression=0.1)
    assert not drift.regression
    assert "the machine is 25% slower than then, which explains it" in drift.reason


def test_a_slower_machine_accounts_only_for_what_is_computed() -> None:
    nights = past(*[100.0] * 5, cpu_cores=0.1)
    now = measured(75.0, 13.3, turns_per_us=60.0, cpu_cores=0.1)
    assert judge_drift(now, nights, files="abc", min_regression=0.1).regression


def test_what_others_did_to_the_machine_is_not_blamed_on_the_config() -> None:
    nights = past(*[100.0] * 5)
    now = measured(50.0, 20.0, warnings=("load from elsewhere",))
    drift = judge_drift(now, nights, files="abc", min_regression=0.1)
    assert (drift.regression, drift.inconclusive, drift.suspected) == (False, True, True)
    assert drift.reason.startswith("inconclusive: machine busy with other load: 50 inferences/s")
    quiet = judge_drift(measured(50.0, 20.0, warnings=("drift",)), nights, files="abc", min_regression=0.1)
    assert (quiet.regression, quiet.inconclusive) == (True, False)
    fine = judge_drift(
        measured(100.0, 10.0, warnings=("load from elsewhere",)), nights, files="abc", min_regression=0.1
    )
    assert (fine.regression, fine.inconclusive) == (False, False)


def test_a_much_slower_machine_leaves_open_what_it_does_not_account_for() -> None:
    nights = past(*[100.0] * 5)
    drift = judge_drift(measured(50.0, 20.0, turns_per_us=60.0), nights, files="abc", min_regression=0.1)
    assert (drift.regression, drift.inconclusive) == (False, True)
    assert drift.reason.startswith("inconclusive: machine 25% slower than then: 50 inferences/s")
    nearly = judge_drift(measured(50.0, 20.0, turns_per_us=76.0), nights, files="abc", min_regression=0.1)
    assert nearly.regression


def test_a_faster_machine_accuses_nobody() -> None:
    nights = past(*[100.0] * 5)
    drift = judge_drift(measured(100.0, 10.0, turns_per_us=160.0), nights, files="abc", min_regression=0.1)
    assert not drift.regression


def test_steady_nights_raise_no_false_alarm() -> None:
    """Nights that differ by 4 %: in how many of them is there an alarm, at a threshold of nothing?"""
    dice = random.Random(3)  # noqa: S311 (no secret)
    alarms = 0
    for _ in range(300):
        nights = [100 * dice.lognormvariate(0, 0.04) for _ in range(dice.randint(2, 12))]
        now = 100 * dice.lognormvariate(0, 0.04)
        alarms += judge_drift(measured(now, 10.0), past(*nights), files="abc", min_regression=0.0).regression
    assert alarms / 300 <= 0.05


def test_a_slowdown_does_not_become_normal_at_once() -> None:
    good, bad = past(100.0, 101.0), past(70.0, files="new", regression=True)
    assert normal_nights([*good, *bad], "new") == good
    assert normal_nights([*good, *bad * 3], "new") == bad * 3
    assert normal_nights([*good, *bad * 3], "newer") == good


def test_nights_beside_others_count_only_where_there_are_no_better_ones() -> None:
    good, doubtful = past(100.0, 101.0), past(50.0, warnings=("load from elsewhere",))
    assert normal_nights([*good, *doubtful], "abc") == good
    assert normal_nights(doubtful, "abc") == doubtful
    drift = judge_drift(measured(99.0, warnings=("load from elsewhere",)), good, files="abc", min_regression=0.1)
    assert drift.reason.endswith("against 2 earlier nights (quality warning: load from elsewhere)")


def test_comments_and_white_space_are_no_other_config() -> None:
    assert config_fingerprint('# a\nname:  "x"\n') == config_fingerprint('name: "x" # b')
    assert config_fingerprint('name: "x"') != config_fingerprint('name: "y"')


def test_it_is_the_percentile_of_the_slo_that_got_slower() -> None:
    """p95 takes twice as long, and p99 as long as before."""

    def of(p95: float) -> Measured:
        return measured(percentile="p95", latency_ms={"p95": interval(p95, 0.05), "p99": interval(10.0, 0.05)})

    then = [PastMeasurement(f"2026-01-{number:02d}T03:00:00+00:00", of(4.0), "abc", False) for number in range(1, 5)]
    drift = judge_drift(of(8.0), then, files="abc", min_regression=0.1)
    assert drift.regression
    assert "p95 8 ms, +100%" in drift.reason
    assert not judge_drift(of(4.0), then, files="abc", min_regression=0.1).regression


def test_nights_of_older_versions_know_p99_alone() -> None:
    now = measured(p99=10.0, percentile="p95", latency_ms={"p95": interval(8.0), "p99": interval(10.0)})
    drift = judge_drift(now, past(100, 100, 100), files="abc", min_regression=0.1)
    assert "p99 10 ms, +0%" in drift.reason
