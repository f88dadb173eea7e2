"""The error of the simulator: a correction with its uncertainty, learnt from past predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from tuner.search.twin.scheduling import Scheduling

# Noise of the Gaussian process on the logarithm of measured over predicted values, in addition to that of the
# measurements: standard deviations between launches, and between the load levels of a launch.
_LAUNCH_NOISE, _LEVEL_NOISE = 0.04, 0.04
# Prior standard deviation of the simulator's error, its weight in trials, and the least standard deviation.
_PRIOR_ERROR, _PRIOR_TRIALS = 0.15, 3.0
_LEAST_ERROR = 0.03


@dataclass(frozen=True)
class Correction:
    """A correction of the logarithm of a prediction, and the standard deviation of the remaining error."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


class ErrorModel:
    """The errors of one quantity over candidates and loads.

    Args:
        places: (n, 7) coordinates of the measured points; see `place`.
        trials: (n,) the trial of each point.
        errors: (n,) logarithms of measured over predicted values, with the current fit of the simulator.
        unsure: (n,) standard deviations of the logarithms of measured values, by their intervals.
        surprise: Error of each trial's prediction from earlier trials, as a logarithm.
    """

    def __init__(
        self,
        places: NDArray[np.float64],
        trials: NDArray[np.int64],
        errors: NDArray[np.float64],
        unsure: NDArray[np.float64],
        surprise: Sequence[float],
    ) -> None:
        self._places = places
        self.amplitude = max(
            _LEAST_ERROR,
            math.sqrt(
                (_PRIOR_TRIALS * _PRIOR_ERROR**2 + sum(s**2 for s in surprise)) / (_PRIOR_TRIALS + len(surprise))
            ),
        )
        noise = _LAUNCH_NOISE**2 * (trials[:, None] == trials[None]) + np.diag(_LEVEL_NOISE**2 + np.square(unsure))
        self._factor = cho_factor(self._kernel(places) + noise)
        self._weights = cho_solve(self._factor, errors)

    def mean(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """The corrections at other coordinates, (m, 7), without their deviations."""
        mean: NDArray[np.float64] = self._kernel(places) @ self._weights
        return mean

    def at(self, places: NDArray[np.float64]) -> Correction:
        """The corrections at other coordinates, (m, 7)."""
        across = self._kernel(places)
        explained = np.einsum("ij,ji->i", across, cho_solve(self._factor, across.T))
        deviation = np.sqrt(np.maximum(self.amplitude**2 - explained, 0.0))
        return Correction(across @ self._weights, deviation)

    def _kernel(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        squared_distances = np.sum(np.square(places[:, None] - self._places[None]), axis=2)
        covariance: NDArray[np.float64] = self.amplitude**2 * np.exp(-0.5 * squared_distances)
        return covariance


def place(scheduling: Scheduling, setting: int, concurrency: int) -> tuple[float, ...]:
    """Coordinates of a candidate under a load, scaled so that points closer than 1 have similar errors."""
    largest = scheduling.max_batch_size if scheduling.dynamic_batching else 1
    preferred = max(scheduling.preferred, default=largest) if scheduling.dynamic_batching else 1
    return (
        1.5 * math.log2(scheduling.instances) / 2,
        math.log2(largest) / 2.5,
        math.log2(min(preferred, largest)) / 2.5,
        0.8 * scheduling.dynamic_batching,
        math.log2(1 + scheduling.delay_us / 250) / 3,
        math.log2(concurrency) / 3,
        0.7 * setting,
    )
