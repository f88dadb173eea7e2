"""What executions take of the processors and the GPUs, and so how many of them there can be a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

# What differs between the levels of one config: spinning threads, clocks, caches. As a logarithm.
_LEAST_SPREAD = 0.05
# A factor of 1 counts as much as so many full levels when a setting's own factor is fitted.
_ALIKE_WORTH = 1.0


@dataclass(frozen=True)
class Work:
    """What the executions of one level took of one kind of device.

    Attributes:
        setting: Which setting of the parameters that the twin does not know.
        batch_size: Inferences in each, in the mean.
        instances: Of the config.
        device_ms: Time on devices that each took, in the mean.
        devices: How many devices were busy, in the mean.
    """

    setting: int
    batch_size: float
    instances: int
    device_ms: float
    devices: float


class DeviceDemand:
    """The device time of an execution as a + c * batch size, times a factor of the setting.

    Levels that keep the devices busy with many instances count most: an idle core or GPU can be slow or spin.

    Args:
        seen: What was measured, at least one.
        capacity: How many devices there are.
    """

    def __init__(self, seen: Sequence[Work], capacity: float) -> None:
        self._capacity = capacity
        sizes = np.array([each.batch_size for each in seen])
        device_ms = np.array([each.device_ms for each in seen])
        most = max(each.instances for each in seen)
        weights = np.array([min(1.0, each.devices / capacity) ** 2 * (each.instances / most) ** 2 for each in seen])
        rows = np.stack([np.ones_like(sizes), sizes], axis=1)
        root = np.sqrt(weights)
        (self._fixed_ms, self._item_ms), _ = nnls(rows * (root / device_ms)[:, None], root)
        off = np.log(device_ms / np.maximum(rows @ [self._fixed_ms, self._item_ms], 1e-9))
        self._factors: dict[int, float] = {}
        for setting in {each.setting for each in seen}:
            own = np.array([each.setting == setting for each in seen])
            mean = float(weights[own] @ off[own]) / (float(weights[own].sum()) + _ALIKE_WORTH)
            self._factors[setting] = math.exp(mean)
            off[own] -= mean
        self.spread = max(_LEAST_SPREAD, math.sqrt(float(weights @ np.square(off)) / float(weights.sum())))
        """Standard deviation of the logarithm of what levels took, around what is fitted."""

    def least_ms(self, setting: int, largest: int, instances: int) -> NDArray[np.float64]:
        """The least time of an execution by batch size (rows, 0 to `largest`) and busy instances (columns, from 1)."""
        busy = np.arange(1, instances + 1)[None]
        least: NDArray[np.float64] = self._device_ms(setting, np.arange(largest + 1)[:, None]) * busy / self._capacity
        return least

    def most_per_s(self, setting: int, largest: int) -> float:
        """The most inferences a second that the devices allow, in batches of `largest`."""
        return largest / float(self._device_ms(setting, np.array(largest))) * self._capacity * 1e3

    def _device_ms(self, setting: int, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        told: NDArray[np.float64] = self._factors.get(setting, 1.0) * (self._fixed_ms + self._item_ms * sizes)
        return told
