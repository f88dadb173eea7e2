from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from support.builders import space

from tuner.search.twin.effects import Effects
from tuner.search.twin.factor_model import SAMPLES, FactorModel, Factors, Points

COUNT = 8
PARAMETERS = "\n".join(
    f"  p{number}: {{field: 'parameters[\"P{number}\"].string_value', ladder: [off, '1']}}" for number in range(COUNT)
)
EFFECTS = Effects(space(f"schema: 1\nparameters:\n{PARAMETERS}").parameters)
LOADS = 4


def points(settings: NDArray[np.int64]) -> Points:
    owners = np.repeat(np.arange(len(settings)), LOADS)
    places = np.zeros((len(owners), 6))
    places[:, 5] = np.tile(np.arange(LOADS), len(settings))
    return Points(places, np.zeros((len(owners), 2)), owners, settings)


def learnt(settings: NDArray[np.int64], logs: NDArray[np.float64], noise: float, seed: int = 0) -> FactorModel:
    """After one launch of each setting, whose throughput has these logarithms and whose latency the opposite."""
    random = np.random.default_rng(seed)
    launches = logs + random.normal(0, noise, len(logs))
    errors = np.repeat(launches, LOADS)[:, None] * [1.0, -1.0] + random.normal(0, noise / 2, (LOADS * len(logs), 2))
    return FactorModel(points(settings), EFFECTS, errors, np.full_like(errors, 0.02), seed)


def mean(factors: list[Factors]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    means = np.array([each.mean[::LOADS, 0] for each in factors])
    deviations = np.array([each.deviation[::LOADS, 0] for each in factors])
    return means.mean(axis=0), np.sqrt(np.square(deviations).mean(axis=0) + means.var(axis=0))


def alone() -> NDArray[np.int64]:
    return np.vstack([np.zeros(COUNT, np.int64), np.eye(COUNT, dtype=np.int64)])


def test_the_one_of_many_parameters_that_matters_is_found_in_few_launches() -> None:
    random = np.random.default_rng(3)
    settings = np.vstack([np.zeros((2, COUNT), np.int64), random.integers(0, 2, (6, COUNT))])
    model = learnt(settings, 0.8 * settings[:, 5], noise=0.04)
    expected, _ = mean(model.at(points(alone())))
    assert len(model.at(points(alone()))) == SAMPLES
    assert expected[6] == pytest.approx(0.8, abs=0.25)
    assert np.abs(np.delete(expected, 6)).max() < 0.2


def test_what_was_not_tried_may_change_all_by_a_factor_of_two() -> None:
    settings = np.zeros((3, COUNT), np.int64)
    _, deviation = mean(learnt(settings, np.zeros(3), noise=0.03).at(points(alone())))
    assert deviation[0] < 0.1
    assert deviation[1:].mean() > 2 * deviation[0]


def test_a_change_that_was_not_tried_is_more_often_a_loss() -> None:
    settings = np.zeros((3, COUNT), np.int64)
    errors = np.zeros((LOADS * 3, 2))
    model = FactorModel(points(settings), EFFECTS, errors, np.full_like(errors, 0.02), 0, better=(1.0, -1.0))
    factors = np.mean([each.mean[::LOADS] for each in model.at(points(alone()))], axis=0)
    assert factors[0] == pytest.approx(0.0, abs=0.01)
    assert (factors[1:, 0] < -0.03).all()
    assert (factors[1:, 1] > 0.03).all()


def test_what_gained_is_expected_to_gain_again() -> None:
    settings = np.vstack([np.zeros((2, COUNT), np.int64), alone()[1:3]])
    errors = np.repeat(0.4 * settings[:, 0], LOADS)[:, None] * [1.0, -1.0]
    model = FactorModel(points(settings), EFFECTS, errors, np.full_like(errors, 0.02), 0, better=(1.0, -1.0))
    factors = np.mean([each.mean[::LOADS] for each in model.at(points(alone()))], axis=0)
    assert factors[1] == pytest.approx([0.4, -0.4], abs=0.1)


def test_effects_add_up() -> None:
    settings = np.vstack([alone()[:3]] * 2)
    expected, _ = mean(
        learnt(settings, 0.5 * settings.sum(axis=1), noise=0.02).at(points(np.array([[1, 1] + [0] * 6])))
    )
    assert expected[0] == pytest.approx(1.0, abs=0.3)


def test_noise_between_launches_is_no_effect() -> None:
    settings = np.vstack([alone()] * 2)
    quiet, noisy = (
        mean(learnt(settings, np.zeros(len(settings)), noise=noise).at(points(alone()))) for noise in (0.03, 0.2)
    )
    assert np.abs(noisy[0]).max() < 0.2
    assert noisy[1].mean() > quiet[1].mean()


def test_the_same_seed_gives_the_same() -> None:
    settings = alone()[:4]
    one, other = (mean(learnt(settings, 0.3 * settings[:, 1], 0.05, 4).at(points(alone()))) for _ in range(2))
    assert (one[0] == other[0]).all()


def test_without_parameters_only_the_simulator_is_corrected() -> None:
    places = Points(np.zeros((3, 6)), np.zeros((3, 2)), np.arange(3), np.zeros((3, 0), np.int64))
    (factors, *_) = FactorModel(places, Effects(()), np.full((3, 2), 0.2), np.full((3, 2), 0.02), 0).at(places)
    assert 0.05 < factors.mean[0, 0] < 0.2
    assert not factors.effect.any()
