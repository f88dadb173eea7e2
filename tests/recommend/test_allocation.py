from __future__ import annotations

import numpy as np
import pytest

from tuner.recommend.allocation import worth
from tuner.recommend.speed import Speed


def test_a_launch_is_worth_what_the_better_choice_gains() -> None:
    """Simulated: the config whose expectation is the highest after one more launch is chosen."""
    values, spread, rng = [Speed(0.0, 0.1), Speed(-0.05, 0.2), Speed(-0.6, 0.1)], 0.15, np.random.default_rng(0)
    for n, (value, told) in enumerate(zip(values, worth(values, spread), strict=True)):
        truth = value.mean + value.deviation * rng.standard_normal(200_000)
        launched = truth + spread * rng.standard_normal(200_000)
        trust = value.deviation**2 / (value.deviation**2 + spread**2)
        after = value.mean + trust * (launched - value.mean)
        others = max(other.mean for m, other in enumerate(values) if m != n)
        assert told == pytest.approx(float(np.mean(np.maximum(after, others))), abs=5e-4)


def test_what_is_known_or_far_behind_is_worth_nothing() -> None:
    near, known, far = worth([Speed(0.0, 0.001), Speed(-0.1, 0.001), Speed(-3.0, 0.1)], 0.1)
    assert max(near, known, far) < 1e-6


def test_the_doubtful_one_of_two_alike_is_worth_more() -> None:
    known, doubtful = worth([Speed(0.0, 0.02), Speed(0.0, 0.1)], 0.08)
    assert doubtful > 3 * known
