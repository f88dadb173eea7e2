"""The processor and GPU time of executions, which limits their rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

# The least standard deviation of the logarithm of device time between levels of one config (clocks, caches, spinning).
_LEAST_SPREAD = 0.05
# Weight, in fully loaded levels, of the prior that the factor of a setting is 1.
_PRIOR_LEVELS = 1.0


@dataclass(frozen=True)
class Work:
    """The use of one kind of device by the executions of one load level.

    Attributes:
        setting: Number of the setting of the parameters that are not modelled.
        batch_size: Mean inferences in an execution.
        instances: Number of model instances.
        device_ms: Mean device time of an execution, in ms.
        devices: Mean number of busy devices.
    """

    setting: int
    batch_size: float
    instances: int
    device_ms: float
    devices: float


class DeviceDemand:
    """The device time of an execution: (a + c * batch size) * factor of the setting.

    Levels that keep the devices busy with many instances get the largest weights, since idle cores and GPUs may run
    slower or spin.

    Args:
        seen: The measured levels, at least one.
        capacity: The number of devices.
    """

    def __init__(self, seen: Sequence[Work], capacity: float) -> None:
        self._capacity = capacity
        sizes = np.array([work.batch_size for work in seen])
        device_ms = np.array([work.device_ms for work in seen])
        most = max(work.instances for work in seen)
        weights = np.array([min(1.0, work.devices / capacity) ** 2 * (work.instances / most) ** 2 for work in seen])
        rows = np.stack([np.ones_like(sizes), sizes], axis=1)
        root = np.sqrt(weights)
        (self._fixed_ms, self._item_ms), _ = nnls(rows * (root / device_ms)[:, None], root)
        off = np.log(device_ms / np.maximum(rows @ [self._fixed_ms, self._item_ms], 1e-9))
        self._factors: dict[int, float] = {}
        for setting in {work.setting for work in seen}:
            own = np.array([work.setting == setting for work in seen])
            mean = float(weights[own] @ off[own]) / (float(weights[own].sum()) + _PRIOR_LEVELS)
            self._factors[setting] = math.exp(mean)
            off[own] -= mean
        self.spread = max(_LEAST_SPREAD, math.sqrt(float(weights @ np.square(off)) / float(weights.sum())))
        """Standard deviation of the logarithm of device time around the fit."""

    def least_ms(self, setting: int, largest: int, instances: int) -> NDArray[np.float64]:
        """Least execution time in ms, by batch size (rows, 0 to `largest`) and busy instances (columns, from 1)."""
        busy = np.arange(1, instances + 1)[None]
        least: NDArray[np.float64] = self._device_ms(setting, np.arange(largest + 1)[:, None]) * busy / self._capacity
        return least

    def most_per_s(self, setting: int, largest: int) -> float:
        """The highest rate that the devices allow in batches of `largest`, in inferences/s."""
        return largest / float(self._device_ms(setting, np.array(largest))) * self._capacity * 1e3

    def off(self, work: Work) -> float:
        """The logarithm of a level's device time over that of the first setting."""
        return math.log(work.device_ms / max(1e-9, float(self._device_ms(0, np.array(work.batch_size)))))

    def _device_ms(self, setting: int, sizes: NDArray[np.generic]) -> NDArray[np.float64]:
        device_ms: NDArray[np.float64] = self._factors.get(setting, 1.0) * (self._fixed_ms + self._item_ms * sizes)
        return device_ms
