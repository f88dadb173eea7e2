from __future__ import annotations

import pytest

from tuner.search.stopping import Stopping


def test_goes_on_while_there_is_time_and_gain() -> None:
    assert Stopping(100).reason(launched=1, spent_s=50, next_trial_s=5, hypervolumes=[1, 2, 3]) is None


def test_ends_before_a_trial_that_has_no_time_left() -> None:
    assert Stopping(100).reason(launched=1, spent_s=96, next_trial_s=5, hypervolumes=[1]) == "the budget is spent"


def test_ends_when_all_trials_are_done() -> None:
    assert (
        Stopping(100, trials=3).reason(launched=3, spent_s=0, next_trial_s=5, hypervolumes=[1, 2, 3])
        == "all 3 trials are done"
    )


@pytest.mark.parametrize(
    ("hypervolumes", "ends"),
    [([10, 10, 10], False), ([10, 10, 10, 10.05], True), ([10, 10, 10, 10.2], False), ([9, 10, 10, 10, 10], True)],
)
def test_ends_when_the_last_launches_gained_nothing(hypervolumes: list[float], *, ends: bool) -> None:
    reason = Stopping(100, patience=3).reason(
        launched=len(hypervolumes), spent_s=0, next_trial_s=5, hypervolumes=hypervolumes
    )
    assert (reason == "the last 3 launches gained less than 1%") is ends


def test_what_an_earlier_run_measured_is_no_launch() -> None:
    known = [10.0, 20.0, 20.0, 20.0, 20.0]
    assert Stopping(100, trials=3, patience=3).reason(launched=2, spent_s=0, next_trial_s=5, hypervolumes=known) is None
