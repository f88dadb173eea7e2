"""How far the twin is off, and so how far it will be: learnt from its own past."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from tuner.search.twin.scheduling import Scheduling

# A Gaussian process on the logarithm of measured over predicted. What is measured twice differs by some percent, of a
# launch as a whole and of each of its levels, beside what the measurement says of itself.
_LAUNCH, _LEVEL = 0.04, 0.04
# What is expected before the twin has been wrong, and how many trials' errors that is worth.
_EXPECTED, _WORTH = 0.15, 3.0
_LEAST = 0.03


@dataclass(frozen=True)
class Correction:
    """What is to be added to the logarithm of what the twin foresees, and the standard deviation of what is left."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


class ErrorModel:
    """The errors of one quantity over candidates and loads.

    Args:
        places: Of what was measured, rows of `place`.
        trials: The trial that each is of.
        errors: Logarithms of measured over predicted, by the twin as it is now.
        unsure: Standard deviations of what was measured, as logarithms.
        surprise: By how much each trial was off when nothing of it was known, as a logarithm.
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
            _LEAST,
            math.sqrt((_WORTH * _EXPECTED**2 + sum(s**2 for s in surprise)) / (_WORTH + len(surprise))),
        )
        noise = _LAUNCH**2 * (trials[:, None] == trials[None]) + np.diag(_LEVEL**2 + np.square(unsure))
        self._factor = cho_factor(self._kernel(places) + noise)
        self._weights = cho_solve(self._factor, errors)

    def at(self, places: NDArray[np.float64]) -> Correction:
        """What is to be expected elsewhere."""
        across = self._kernel(places)
        known = np.einsum("ij,ji->i", across, cho_solve(self._factor, across.T))
        deviation = np.sqrt(np.maximum(self.amplitude**2 - known, 0.0))
        return Correction(across @ self._weights, deviation)

    def _kernel(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        apart = np.sum(np.square(places[:, None] - self._places[None]), axis=2)
        covariance: NDArray[np.float64] = self.amplitude**2 * np.exp(-0.5 * apart)
        return covariance


def place(scheduling: Scheduling, setting: int, concurrency: int) -> tuple[float, ...]:
    """Where a candidate under a load lies: what is nearer than 1 behaves alike."""
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
