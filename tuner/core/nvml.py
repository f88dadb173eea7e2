"""Queries NVML for the GPUs of this machine and their state. No other module uses NVML.

NVML is the driver's library, which `nvidia-smi` uses, too. `pynvml` of the package nvidia-ml-py calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pynvml

_Answer = TypeVar("_Answer")

# pynvml raises these: errors of the library, and a library of another version.
_ERRORS = (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError)

# By nvidia-smi's names (`clocks_event_reasons.*`). The reason "idle" is missing, as an idle GPU is not throttled.
_THROTTLE_REASONS = {
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "applications_clocks_setting",
    pynvml.nvmlClocksEventReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    pynvml.nvmlClocksEventReasonDisplayClockSetting: "display_clock_setting",
}


# Of 64 cores each; more than any machine has.
_CORE_WORDS = 64


class NoNvmlError(Exception):
    """NVML cannot be used: no driver, no library, or no permission. The message, a part of a line, says which."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that computes on a GPU.

    Attributes:
        pid: Its pid on the machine, which differs from that in a container.
        name: The name of its program; empty: unknown.
        memory_bytes: GPU memory that it uses; None: unknown.
    """

    pid: int
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class GpuReading:
    """The state of a GPU at one moment. None: not reported.

    Attributes:
        utilization_percent: Share of the driver's last sample period (1/6 s to 1 s) in which a kernel ran.
        memory_bytes: Memory in use by all processes, without the driver's reserve, as nvidia-smi shows it.
        power_w: Power of the board, in W; from Ampere on, the mean over a second.
        energy_j: Energy of the board since the driver was loaded, in J.
        temperature_c: Temperature of the chip, in degrees Celsius.
        sm_clock_mhz: Clock of the multiprocessors, in MHz.
        memory_clock_mhz: Clock of the memory, in MHz.
        throttle_reasons: Why clocks are reduced, by nvidia-smi's names; None: not reported.
    """

    utilization_percent: float | None = None
    memory_bytes: int | None = None
    power_w: float | None = None
    energy_j: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    throttle_reasons: frozenset[str] | None = None


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG instance of one. It can be read while NVML is open.

    Attributes:
        index: Its index in NVML and nvidia-smi, in order of the PCI bus.
        uuid: `GPU-...` or `MIG-...`.
        name: Its name, such as `NVIDIA H100 80GB HBM3`, or `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
        memory_bytes: Its memory; None: not reported, as for a chip that shares memory with the CPU.
        mig_index: The index of the MIG instance on its GPU; None for a GPU.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int | None
    mig_index: int | None = None
    _handle: Any = field(default=None, repr=False, compare=False)
    # NVML's handle of the GPU itself; differs from `_handle` for a MIG instance.
    _board: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[Gpu], tuple[Any, ...]]:
        """A copy for other processes. It cannot be read: NVML's handles mean nothing there."""
        return Gpu, (self.index, self.uuid, self.name, self.memory_bytes, self.mig_index)

    def __str__(self) -> str:
        return f"GPU {self.place} ({self.name})"

    @property
    def place(self) -> str:
        """Its index, with that of the MIG instance: `0`, `0:1`."""
        return f"{self.index}" if self.mig_index is None else f"{self.index}:{self.mig_index}"

    def read(self) -> GpuReading:
        """Read the GPU's state, which takes from 0.1 ms to a few ms.

        A MIG instance has the clocks and the temperature of its GPU. Its power, energy and utilisation are None, since
        NVML reports them only for all instances of the GPU together.
        """
        alone = self.mig_index is None
        utilization = _asked(pynvml.nvmlDeviceGetUtilizationRates, self._handle) if alone else None
        milliwatts = _asked(pynvml.nvmlDeviceGetPowerUsage, self._handle) if alone else None
        millijoules = _asked(pynvml.nvmlDeviceGetTotalEnergyConsumption, self._handle) if alone else None
        memory = _memory(self._handle)
        return GpuReading(
            utilization_percent=None if utilization is None else float(utilization.gpu),
            memory_bytes=None if memory is None else int(memory.used),
            power_w=None if milliwatts is None else milliwatts / 1e3,
            energy_j=None if millijoules is None else millijoules / 1e3,
            temperature_c=_asked(pynvml.nvmlDeviceGetTemperature, self._board, pynvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=_asked(pynvml.nvmlDeviceGetClockInfo, self._board, pynvml.NVML_CLOCK_SM),
            memory_clock_mhz=_asked(pynvml.nvmlDeviceGetClockInfo, self._board, pynvml.NVML_CLOCK_MEM),
            throttle_reasons=_throttle_reasons(self._board),
        )

    def memory_in_use(self) -> int | None:
        """Memory in use, in bytes, as `GpuReading.memory_bytes`."""
        memory = _memory(self._handle)
        return None if memory is None else int(memory.used)

    def processes(self) -> tuple[GpuProcess, ...]:
        """The processes that compute on it now; empty if they are not reported."""
        infos = _asked(pynvml.nvmlDeviceGetComputeRunningProcesses, self._handle) or []
        return tuple(GpuProcess(info.pid, _process_name(info.pid), info.usedGpuMemory) for info in infos)

    def nearest_cores(self) -> frozenset[int]:
        """The cores of the GPU's NUMA node; empty: not reported."""
        words = _asked(pynvml.nvmlDeviceGetCpuAffinity, self._board, _CORE_WORDS) or ()
        return frozenset(
            64 * place + bit for place, word in enumerate(words) for bit in range(64) if int(word) >> bit & 1
        )

    def mig_instances(self) -> tuple[Gpu, ...] | None:
        """Its MIG instances; None if MIG is off, as on most GPUs."""
        modes = _asked(pynvml.nvmlDeviceGetMigMode, self._handle)
        if self.mig_index is not None or modes is None or modes[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            return None
        places = _asked(pynvml.nvmlDeviceGetMaxMigDeviceCount, self._handle) or 0
        handles = [_asked(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, self._handle, place) for place in range(places)]
        instances = [(place, handle) for place, handle in enumerate(handles) if handle is not None]
        return tuple(_gpu(handle, self.index, mig_index=place, board=self._handle) for place, handle in instances)


@contextmanager
def opened() -> Iterator[None]:
    """Keep NVML open within the context; contexts may be nested.

    Raises:
        NoNvmlError: NVML cannot be opened.
    """
    try:
        pynvml.nvmlInit()
    except _ERRORS as error:
        raise NoNvmlError(_reason(error)) from error
    try:
        yield
    finally:
        with suppress(*_ERRORS):
            pynvml.nvmlShutdown()


def driver_version() -> str:
    """The version of the driver; empty if there is none."""
    try:
        with opened():
            return _asked(pynvml.nvmlSystemGetDriverVersion) or ""
    except NoNvmlError:
        return ""


def all_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine that this process may query, in NVML's order. NVML must be open.

    Raises:
        NoNvmlError: there are GPUs, but this process may query none of them.
    """
    gpus: list[Gpu] = []
    refusal = None
    try:
        count = pynvml.nvmlDeviceGetCount()
    except _ERRORS as error:
        raise NoNvmlError(_reason(error)) from error
    for index in range(count):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(_gpu(handle, index, board=handle))
        except _ERRORS as error:
            refusal = error  # not accessible to this process, as the GPUs of other containers
    if refusal and not gpus:
        raise NoNvmlError(_reason(refusal))
    return tuple(gpus)


def _gpu(handle: Any, index: int, *, board: Any, mig_index: int | None = None) -> Gpu:
    memory = _memory(handle)
    return Gpu(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=_asked(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        memory_bytes=None if memory is None else int(memory.total),
        mig_index=mig_index,
        _handle=handle,
        _board=board,
    )


def _asked(ask: Callable[..., _Answer], *arguments: Any) -> _Answer | None:
    """The result of a call of NVML; None if the GPU or the driver does not support it, or the user may not call it."""
    try:
        return ask(*arguments)
    except _ERRORS:
        return None


def _memory(handle: Any) -> Any | None:
    """Total, free and used bytes; by version 2 of the call if available, which excludes the driver's own share."""
    memory = _asked(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    return _asked(pynvml.nvmlDeviceGetMemoryInfo, handle) if memory is None else memory


def _throttle_reasons(handle: Any) -> frozenset[str] | None:
    bits = _asked(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if bits is None:  # the name of the call in drivers before 535
        bits = _asked(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return None if bits is None else frozenset(name for bit, name in _THROTTLE_REASONS.items() if bits & bit)


def _process_name(pid: int) -> str:
    path = _asked(pynvml.nvmlSystemGetProcessName, pid) or ""
    return path.split(" ")[0].rpartition("/")[2]


def _reason(error: Exception) -> str:
    """The error as a part of a line: `NVML error: Driver Not Loaded`."""
    if isinstance(error, pynvml.NVMLError_LibraryNotFound):
        return "no NVIDIA driver (NVML library not found)"
    if isinstance(error, pynvml.NVMLError_NoPermission):
        return "no permission to use NVML (Insufficient Permissions)"
    return f"NVML error: {error}"
