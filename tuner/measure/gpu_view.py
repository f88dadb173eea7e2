"""What the GPUs in use have to do under one load, and what memory a launch took of them. Stored with the study."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from tuner.core.record import Record


class GpuView(Record):
    """One GPU, or MIG instance, over the window of an operating point. None is what NVML does not tell of it.

    Attributes:
        gpu: Its name for people: `GPU 0 (NVIDIA H100 80GB HBM3)`.
        uuid: `GPU-...` or `MIG-...`.
        utilization_percent: Mean share of time in which a kernel ran.
        memory_bytes: The most that was in use, by all: what nvidia-smi shows.
        run_memory_bytes: The same since the server was launched.
        idle_memory_bytes: What was in use before the server was launched, by others.
        total_memory_bytes: That it has.
        power_w: Mean draw of the board.
        energy_j: That the board drew over the window.
        temperature_c: The highest.
        sm_clock_mhz: Mean clock of the multiprocessors.
        memory_clock_mhz: Mean clock of the memory.
        throttle_reasons: Why its clocks were held down at any moment, in nvidia-smi's words.
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
        """The most that was in use since the launch, without what was before."""
        if self.run_memory_bytes is None:
            return None
        return max(0, self.run_memory_bytes - (self.idle_memory_bytes or 0))


class GpuUsage(Record):
    """All GPUs in use, over the window of an operating point.

    Attributes:
        gpus: Each of them.
        energy_per_inference_j: Of all of them together; None where one does not tell its energy.
    """

    gpus: tuple[GpuView, ...]
    energy_per_inference_j: float | None = None

    @property
    def utilization_percent(self) -> float | None:
        """Mean over the GPUs that tell it."""
        told = [gpu.utilization_percent for gpu in self.gpus if gpu.utilization_percent is not None]
        return fmean(told) if told else None

    @property
    def memory_bytes(self) -> int | None:
        """Of the fullest GPU."""
        return max((gpu.memory_bytes for gpu in self.gpus if gpu.memory_bytes is not None), default=None)

    @property
    def taken_bytes(self) -> int | None:
        """Since the launch, of the GPU of which the server took most."""
        return max((gpu.taken_bytes for gpu in self.gpus if gpu.taken_bytes is not None), default=None)

    @property
    def power_w(self) -> float | None:
        """Of all of them together; None where one does not tell."""
        told = [gpu.power_w for gpu in self.gpus if gpu.power_w is not None]
        return sum(told) if told and len(told) == len(self.gpus) else None

    @property
    def temperature_c(self) -> float | None:
        """Of the hottest."""
        return max((gpu.temperature_c for gpu in self.gpus if gpu.temperature_c is not None), default=None)

    @property
    def sm_clock_mhz(self) -> float | None:
        """Of the slowest."""
        return min((gpu.sm_clock_mhz for gpu in self.gpus if gpu.sm_clock_mhz is not None), default=None)

    @property
    def memory_clock_mhz(self) -> float | None:
        """Of the slowest."""
        return min((gpu.memory_clock_mhz for gpu in self.gpus if gpu.memory_clock_mhz is not None), default=None)

    @property
    def throttle_reasons(self) -> tuple[str, ...]:
        """Of any of them."""
        return tuple(sorted({reason for gpu in self.gpus for reason in gpu.throttle_reasons or ()}))


class GpuMemory(Record):
    """What a launch took of the GPU of which it took most.

    Attributes:
        gpu: Which, for people.
        peak_bytes: The most since before the launch, without what others had in use then.
        capacity_bytes: What there was to take; None where that is not known.
    """

    gpu: str
    peak_bytes: int
    capacity_bytes: int | None = None


def usage_together(rounds: Iterable[GpuUsage | None]) -> GpuUsage | None:
    """Several measurements of the same load as one: means of what is a mean, the most of what is a peak."""
    told = [each for each in rounds if each]
    if not told:
        return None
    by_gpu: dict[str, list[GpuView]] = {}
    for view in (view for usage in told for view in usage.gpus):
        by_gpu.setdefault(view.uuid, []).append(view)
    energies = [each.energy_per_inference_j for each in told if each.energy_per_inference_j is not None]
    return GpuUsage(
        gpus=tuple(_view_together(views) for views in by_gpu.values()),
        energy_per_inference_j=fmean(energies) if energies else None,
    )


_MEANS = ("utilization_percent", "power_w", "sm_clock_mhz", "memory_clock_mhz")
_MOST = ("memory_bytes", "run_memory_bytes", "temperature_c")


def _view_together(views: list[GpuView]) -> GpuView:
    def told(name: str) -> list[float]:
        return [value for view in views if (value := getattr(view, name)) is not None]

    reasons = [view.throttle_reasons for view in views if view.throttle_reasons is not None]
    return views[0].model_copy(
        update={
            **{name: fmean(told(name)) if told(name) else None for name in _MEANS},
            **{name: max(told(name), default=None) for name in _MOST},
            "energy_j": sum(told("energy_j")) if told("energy_j") else None,
            "idle_memory_bytes": min(told("idle_memory_bytes"), default=None),
            "throttle_reasons": tuple(sorted({name for each in reasons for name in each})) if reasons else None,
        }
    )
