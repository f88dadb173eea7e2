"""GPU usage under one load, and GPU memory taken by a launch. Stored with the study."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from tuner.core.record import Record


class GpuView(Record):
    """One GPU, or MIG instance, over the window of an operating point. None: not reported by NVML.

    Attributes:
        gpu: Its display name: `GPU 0 (NVIDIA H100 80GB HBM3)`.
        uuid: `GPU-...` or `MIG-...`.
        utilization_percent: Mean share of time in which a kernel ran, in percent.
        memory_bytes: Peak memory in use by all processes, as nvidia-smi shows it.
        run_memory_bytes: Peak memory in use since the server was launched.
        idle_memory_bytes: Memory in use before the launch, by other processes.
        total_memory_bytes: Memory of the GPU.
        power_w: Mean power of the board, in W.
        energy_j: Energy of the board over the window, in J.
        temperature_c: Highest temperature, in degrees Celsius.
        sm_clock_mhz: Mean clock of the multiprocessors, in MHz.
        memory_clock_mhz: Mean clock of the memory, in MHz.
        throttle_reasons: All reasons for reduced clocks in the window, by nvidia-smi's names.
    """

    gpu: str
    uuid: str
    utilization_percent: float | None = None
    memory_bytes: int | None = None
    run_memory_bytes: int | None = None
    idle_memory_bytes: int | None = None
    total_memory_bytes: int | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: tuple[str, ...] | None = None

    @property
    def taken_bytes(self) -> int | None:
        """Peak memory since the launch, less the memory in use before it, in bytes."""
        if self.run_memory_bytes is None:
            return None
        return max(0, self.run_memory_bytes - (self.idle_memory_bytes or 0))


class GpuUsage(Record):
    """All GPUs in use, over the window of an operating point.

    Attributes:
        gpus: One view for each GPU.
        energy_per_inference_j: Energy of all GPUs per inference, in J; None if one does not report its energy.
    """

    gpus: tuple[GpuView, ...]
    energy_per_inference_j: float | None = None

    @property
    def utilization_percent(self) -> float | None:
        """Mean over the GPUs that report it, in percent."""
        percents = [gpu.utilization_percent for gpu in self.gpus if gpu.utilization_percent is not None]
        return fmean(percents) if percents else None

    @property
    def memory_bytes(self) -> int | None:
        """Peak memory of the fullest GPU, in bytes."""
        return max((gpu.memory_bytes for gpu in self.gpus if gpu.memory_bytes is not None), default=None)

    @property
    def taken_bytes(self) -> int | None:
        """Memory taken since the launch, of the GPU with the most, in bytes."""
        return max((gpu.taken_bytes for gpu in self.gpus if gpu.taken_bytes is not None), default=None)

    @property
    def power_w(self) -> float | None:
        """Sum over all GPUs, in W; None if one does not report it."""
        powers_w = [gpu.power_w for gpu in self.gpus if gpu.power_w is not None]
        return sum(powers_w) if powers_w and len(powers_w) == len(self.gpus) else None

    @property
    def temperature_c(self) -> float | None:
        """Temperature of the hottest GPU, in degrees Celsius."""
        return max((gpu.temperature_c for gpu in self.gpus if gpu.temperature_c is not None), default=None)

    @property
    def sm_clock_mhz(self) -> float | None:
        """Clock of the slowest GPU, in MHz."""
        return min((gpu.sm_clock_mhz for gpu in self.gpus if gpu.sm_clock_mhz is not None), default=None)

    @property
    def memory_clock_mhz(self) -> float | None:
        """Clock of the slowest GPU, in MHz."""
        return min((gpu.memory_clock_mhz for gpu in self.gpus if gpu.memory_clock_mhz is not None), default=None)

    @property
    def throttle_reasons(self) -> tuple[str, ...]:
        """Throttle reasons of all GPUs."""
        return tuple(sorted({reason for gpu in self.gpus for reason in gpu.throttle_reasons or ()}))


class GpuMemory(Record):
    """GPU memory taken by a launch, on the GPU with the most.

    Attributes:
        gpu: The display name of that GPU.
        peak_bytes: Peak memory since the launch, less the memory that other processes used before it.
        capacity_bytes: Memory that was free before the launch; None: unknown.
    """

    gpu: str
    peak_bytes: int
    capacity_bytes: int | None = None


def usage_together(rounds: Iterable[GpuUsage | None]) -> GpuUsage | None:
    """Pool several measurements at one load: the mean of means, and the maximum of peaks."""
    usages = [usage for usage in rounds if usage]
    if not usages:
        return None
    by_gpu: dict[str, list[GpuView]] = {}
    for view in (view for usage in usages for view in usage.gpus):
        by_gpu.setdefault(view.uuid, []).append(view)
    energies = [usage.energy_per_inference_j for usage in usages if usage.energy_per_inference_j is not None]
    return GpuUsage(
        gpus=tuple(_view_together(views) for views in by_gpu.values()),
        energy_per_inference_j=fmean(energies) if energies else None,
    )


_MEANS = ("utilization_percent", "power_w", "sm_clock_mhz", "memory_clock_mhz")
_MOST = ("memory_bytes", "run_memory_bytes", "temperature_c")


def _view_together(views: list[GpuView]) -> GpuView:
    def values(name: str) -> list[float]:
        return [value for view in views if (value := getattr(view, name)) is not None]

    reasons = [view.throttle_reasons for view in views if view.throttle_reasons is not None]
    return views[0].model_copy(
        update={
            **{name: fmean(values(name)) if values(name) else None for name in _MEANS},
            **{name: max(values(name), default=None) for name in _MOST},
            "energy_j": sum(values("energy_j")) if values("energy_j") else None,
            "idle_memory_bytes": min(values("idle_memory_bytes"), default=None),
            "throttle_reasons": tuple(sorted({name for names in reasons for name in names})) if reasons else None,
        }
    )
