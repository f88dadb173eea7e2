"""Watches GPUs from before a server is launched until it has stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from types import TracebackType
from typing import TypeVar

import numpy as np
from tritonclient.grpc import model_config_pb2
from typing_extensions import Self

from tuner.core.nvml import Gpu, GpuReading
from tuner.measure.gpu_selection import gpus_in_use
from tuner.measure.gpu_view import GpuMemory, GpuUsage, GpuView
from tuner.measure.sampling import Sample, Sampling

_Readings = Mapping[Gpu, GpuReading]


class GpuWatch:
    """Samples GPUs while a server runs. Enter it before the launch, and leave it after the server has stopped.

    Args:
        visible: The GPUs that the server sees; empty: nothing is sampled.
        listener: Called with the model's effective config, once it is known.
    """

    def __init__(
        self, visible: Sequence[Gpu], listener: Callable[[model_config_pb2.ModelConfig], None] = lambda _config: None
    ) -> None:
        self._told = listener
        self._visible = tuple(visible)
        self._used: tuple[Gpu, ...] | None = None
        self._idle: dict[Gpu, int | None] = {}
        self._peaks: dict[Gpu, int] = {}
        self._sampling = Sampling(self._read)

    def __enter__(self) -> Self:
        self._idle = {gpu: gpu.memory_in_use() for gpu in self._visible}
        self._sampling.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sampling.__exit__(kind, error, trace)

    def use(self, effective: model_config_pb2.ModelConfig) -> None:
        """Restrict sampling to the GPUs that the instance groups of this effective config name."""
        self._used = gpus_in_use(effective, self._visible)
        self._told(effective)

    def view(self, start_ns: int, end_ns: int, inferences: int) -> GpuUsage | None:
        """GPU usage between two times with a number of successful inferences; None if no GPU is in use."""
        if not self._used:
            return None
        samples = self._sampling.between(start_ns, end_ns)
        seconds = (end_ns - start_ns) / 1e9
        views = tuple(self._view(gpu, samples, seconds) for gpu in self._used)
        energies = [view.energy_j for view in views]
        energy_j = math.fsum(joules for joules in energies if joules is not None)
        energy_known = inferences > 0 and None not in energies
        return GpuUsage(gpus=views, energy_per_inference_j=energy_j / inferences if energy_known else None)

    @property
    def memory(self) -> GpuMemory | None:
        """GPU memory taken so far, on the GPU with the most; None: unknown."""
        taken = [self._taken(gpu) for gpu in self._used or () if gpu in self._peaks]
        return max(taken, key=lambda memory: memory.peak_bytes, default=None)

    def _read(self) -> _Readings | None:
        readings = {gpu: gpu.read() for gpu in (self._visible if self._used is None else self._used)}
        for gpu, reading in readings.items():
            if reading.memory_bytes is not None:
                self._peaks[gpu] = max(self._peaks.get(gpu, 0), reading.memory_bytes)
        return readings or None

    def _taken(self, gpu: Gpu) -> GpuMemory:
        idle = self._idle[gpu] or 0
        return GpuMemory(
            gpu=str(gpu),
            peak_bytes=max(0, self._peaks[gpu] - idle),
            capacity_bytes=None if gpu.memory_bytes is None else max(0, gpu.memory_bytes - idle),
        )

    def _view(self, gpu: Gpu, samples: Sequence[Sample[_Readings]], seconds: float) -> GpuView:
        own = [Sample(sample.at_ns, sample.answer[gpu]) for sample in samples if gpu in sample.answer]
        readings = [sample.answer for sample in own]
        reasons = [reading.throttle_reasons for reading in readings if reading.throttle_reasons is not None]
        power_w = _power_by_energy_w(own)
        if power_w is None:
            power_w = _power_by_readings_w(own)
        return GpuView(
            gpu=str(gpu),
            uuid=gpu.uuid,
            utilization_percent=_mean(reading.utilization_percent for reading in readings),
            memory_bytes=_most(reading.memory_bytes for reading in readings),
            run_memory_bytes=self._peaks.get(gpu),
            idle_memory_bytes=self._idle[gpu],
            total_memory_bytes=gpu.memory_bytes,
            power_w=power_w,
            energy_j=None if power_w is None else power_w * seconds,
            temperature_c=_most(reading.temperature_c for reading in readings),
            sm_clock_mhz=_mean(reading.sm_clock_mhz for reading in readings),
            memory_clock_mhz=_mean(reading.memory_clock_mhz for reading in readings),
            throttle_reasons=tuple(sorted(frozenset().union(*reasons))) if reasons else None,
        )


def _power_by_energy_w(samples: Sequence[Sample[GpuReading]]) -> float | None:
    """The mean power, as the least-squares slope of the energy counter over time; None without a counter.

    The driver updates the counter every 20 to 100 ms. This affects a line through many samples less than a difference
    of two samples. Power readings are means over a second from Ampere on, so they lag in a short window.
    """
    readings = [
        (sample.at_ns / 1e9, sample.answer.energy_j) for sample in samples if sample.answer.energy_j is not None
    ]
    if len(readings) < 2:
        return None
    at_s, energy_j = np.array(readings).T
    at_s -= at_s.mean()
    slope_w = float(at_s @ (energy_j - energy_j.mean()) / (at_s @ at_s))
    return slope_w if slope_w >= 0 else None  # the counter restarts with the driver


def _power_by_readings_w(samples: Sequence[Sample[GpuReading]]) -> float | None:
    """The mean of the power readings over time (trapezoidal rule)."""
    readings = [(sample.at_ns, sample.answer.power_w) for sample in samples if sample.answer.power_w is not None]
    if len(readings) < 2:
        return readings[0][1] if readings else None
    joules = sum((later[0] - sooner[0]) * (later[1] + sooner[1]) / 2 for sooner, later in pairwise(readings))
    return joules / (readings[-1][0] - readings[0][0])


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


_Number = TypeVar("_Number", int, float)


def _most(values: Iterable[_Number | None]) -> _Number | None:
    return max((value for value in values if value is not None), default=None)
