from __future__ import annotations

import numpy as np
import pytest

from tuner.search.twin.error_model import ErrorModel, place
from tuner.search.twin.scheduling import Scheduling

ONE, TWO, FAR = Scheduling(1, 32), Scheduling(2, 32), Scheduling(8, 64, dynamic_batching=True, delay_us=8_000)


def errors(off: float = 0.2, surprise: tuple[float, ...] = (), unsure: float = 0.0) -> ErrorModel:
    places = np.array([place(ONE, 0, load) for load in (1, 4, 16)])
    return ErrorModel(places, np.zeros(3, int), np.full(3, off), np.full(3, unsure), surprise)


def test_what_was_off_is_put_right_and_what_lies_near_a_little() -> None:
    correction = errors().at(np.array([place(ONE, 0, 4), place(TWO, 0, 4), place(FAR, 0, 4)]))
    assert correction.mean[0] == pytest.approx(0.2, rel=0.15)
    assert 0.05 < correction.mean[1] < correction.mean[0]
    assert correction.mean[2] == pytest.approx(0.0, abs=0.01)


def test_it_is_less_sure_the_farther_it_is() -> None:
    told = errors()
    deviation = told.at(np.array([place(ONE, 0, 4), place(TWO, 0, 4), place(FAR, 0, 4)])).deviation
    assert (np.diff(deviation) > 0).all()
    assert deviation[2] == pytest.approx(told.amplitude, rel=0.01)


@pytest.mark.parametrize(
    ("surprise", "low", "high"), [((), 0.14, 0.16), ((0.02,) * 20, 0.03, 0.08), ((0.6,) * 6, 0.45, 0.6)]
)
def test_how_sure_it_is_comes_of_its_past(surprise: tuple[float, ...], low: float, high: float) -> None:
    assert low <= errors(surprise=surprise).amplitude <= high


def test_what_was_measured_badly_says_less() -> None:
    at = np.array([place(ONE, 0, 4)])
    well, badly = errors().at(at), errors(unsure=0.3).at(at)
    assert badly.mean[0] < 0.7 * well.mean[0]
    assert badly.deviation[0] > 2 * well.deviation[0]


def test_another_setting_is_another_place() -> None:
    correction = errors().at(np.array([place(ONE, 0, 4), place(ONE, 2, 4)]))
    assert correction.mean[1] < correction.mean[0]
