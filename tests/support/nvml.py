"""A stand-in for `libnvidia-ml.so.1`, the driver's library, on a machine without a GPU.

It takes the place of the shared object below `pynvml`, whose own code so stays in the game: its structures, its errors,
its way of asking twice. It answers as the NVML API reference says that GPUs do, MIG instances included.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
import pynvml

GIB = 1 << 30
# The counter of energy moves in steps.
_ENERGY_STEP_S = 0.02
_FIRST_HANDLE = 0x1000


@dataclass
class StandInGpu:
    """A GPU, or a MIG instance; what it answers may change while it is asked.

    Attributes:
        used: Bytes in use, without the driver's own; or what says so at the moment.
        reserved: The driver's own bytes, which the first version of the call counts as used.
        power_w: Drawn at every moment.
        reasons: Bits of the clocks' event reasons.
        processes: Those that compute on it: pid, and bytes or None.
        cores: Those near it.
        mig: Its instances by place, where MIG is on; a place may be empty.
        refusals: Error codes by the name of a call, as `nvmlDeviceGetPowerUsage`.
    """

    uuid: str = "GPU-aaaaaaaa-0000-0000-0000-000000000000"
    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * GIB
    used: int | Callable[[], int] = 2 * GIB
    reserved: int = GIB // 2
    utilization: int = 73
    power_w: float = 350.0
    temperature: int = 61
    clocks: tuple[int, int] = (1755, 2619)
    reasons: int = 0
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    cores: tuple[int, ...] = ()
    mig: list[StandInGpu | None] | None = None
    refusals: dict[str, int] = field(default_factory=dict)

    @property
    def used_now(self) -> int:
        return self.used if isinstance(self.used, int) else self.used()


def mig_instance(number: int, **more: Any) -> StandInGpu:
    """An instance of 10 GB."""
    return StandInGpu(f"MIG-{number}aaaaaaa-0000", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", total=10 * GIB, **more)


def memory_of_instances() -> Callable[[], int]:
    """A GiB for each instance of a Python model in the servers that this process starts from here on.

    As if it had its weights there. A server that other tests share may run already, in this process, too.
    """
    before = _stubs()
    return lambda: GIB * len(_stubs() - before)


def _stubs() -> set[psutil.Process]:
    return {each for each in psutil.Process().children(recursive=True) if _is_stub(each)}


def _is_stub(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("triton_python") and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


# What NVML does not say of one MIG instance.
_NOT_OF_MIG = {
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetClockInfo",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
}

_Function = Callable[..., int]


class StandInLibrary:
    """The library, with some GPUs.

    Args:
        gpus: In NVML's order.
        init: What its opening returns.
        missing: Calls that a driver of another age does not have.
    """

    def __init__(
        self, *gpus: StandInGpu, init: int = pynvml.NVML_SUCCESS, missing: frozenset[str] = frozenset()
    ) -> None:
        self.gpus = gpus
        self.opened = 0
        self.asked: list[str] = []
        self._init = init
        self._missing = missing
        self._began = time.monotonic()
        # A handle is an address; these are of nothing, and only compared.
        self._handles: dict[int, StandInGpu] = {}
        self._parents: dict[int, StandInGpu] = {}
        for gpu in gpus:
            self._add(gpu, None)
            for instance in gpu.mig or ():
                if instance:
                    self._add(instance, gpu)

    def _add(self, gpu: StandInGpu, parent: StandInGpu | None) -> None:
        handle = _FIRST_HANDLE + 16 * len(self._handles)
        self._handles[handle] = gpu
        if parent:
            self._parents[handle] = parent

    def __getattr__(self, name: str) -> _Function:
        function: _Function | None = getattr(type(self), f"_{name}", None)
        if not name.startswith("nvml") or name in self._missing or function is None:
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.asked.append(name)
            if not self.opened and name not in {"nvmlInitWithFlags", "nvmlErrorString"}:
                return int(pynvml.NVML_ERROR_UNINITIALIZED)
            if name.startswith("nvmlDevice") and name not in {"nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2"}:
                handle = ctypes.cast(arguments[0], ctypes.c_void_p).value or 0
                gpu = self._handles[handle]
                if name in gpu.refusals:
                    return gpu.refusals[name]
                if handle in self._parents and name in _NOT_OF_MIG:
                    return int(pynvml.NVML_ERROR_NOT_SUPPORTED)
                arguments = (gpu, *arguments[1:])
            return int(function(self, *arguments) or pynvml.NVML_SUCCESS)

        return call

    def _nvmlInitWithFlags(self, _flags: int) -> int:
        self.opened += self._init == pynvml.NVML_SUCCESS
        return self._init

    def _nvmlShutdown(self) -> None:
        self.opened -= 1

    def _nvmlErrorString(self, code: int) -> bytes:
        return f"error {code}".encode()

    def _nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count._obj.value = len(self.gpus)

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int | None:
        gpu = self.gpus[_number(index)]
        if refusal := gpu.refusals.get("nvmlDeviceGetHandleByIndex_v2"):
            return refusal
        self._hand_out(gpu, handle)
        return None

    def _hand_out(self, gpu: StandInGpu, handle: Any) -> None:
        address = next(address for address, each in self._handles.items() if each is gpu)
        ctypes.c_void_p.from_buffer(handle._obj).value = address

    def _nvmlDeviceGetUUID(self, gpu: StandInGpu, text: Any, _length: Any) -> None:
        text.value = gpu.uuid.encode()

    def _nvmlDeviceGetName(self, gpu: StandInGpu, text: Any, _length: Any) -> None:
        text.value = gpu.name.encode()

    def _nvmlDeviceGetMemoryInfo(self, gpu: StandInGpu, memory: Any) -> None:
        memory._obj.total = gpu.total
        memory._obj.used = gpu.used_now + gpu.reserved
        memory._obj.free = gpu.total - gpu.used_now - gpu.reserved

    def _nvmlDeviceGetMemoryInfo_v2(self, gpu: StandInGpu, memory: Any) -> int | None:
        if memory._obj.version != pynvml.nvmlMemory_v2:
            return int(pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
        memory._obj.reserved = gpu.reserved
        self._nvmlDeviceGetMemoryInfo(gpu, memory)
        memory._obj.used -= gpu.reserved
        return None

    def _nvmlDeviceGetUtilizationRates(self, gpu: StandInGpu, rates: Any) -> None:
        rates._obj.gpu, rates._obj.memory = gpu.utilization, gpu.utilization // 2

    def _nvmlDeviceGetPowerUsage(self, gpu: StandInGpu, milliwatts: Any) -> None:
        milliwatts._obj.value = round(gpu.power_w * 1e3)

    def _nvmlDeviceGetTotalEnergyConsumption(self, gpu: StandInGpu, millijoules: Any) -> None:
        steps = (time.monotonic() - self._began) // _ENERGY_STEP_S
        millijoules._obj.value = 10**12 + round(steps * _ENERGY_STEP_S * gpu.power_w * 1e3)

    def _nvmlDeviceGetTemperature(self, gpu: StandInGpu, sensor: Any, degrees: Any) -> int | None:
        if _number(sensor) != pynvml.NVML_TEMPERATURE_GPU:
            return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        degrees._obj.value = gpu.temperature
        return None

    def _nvmlDeviceGetClockInfo(self, gpu: StandInGpu, kind: Any, megahertz: Any) -> None:
        megahertz._obj.value = gpu.clocks[_number(kind) == pynvml.NVML_CLOCK_MEM]

    def _nvmlDeviceGetCurrentClocksEventReasons(self, gpu: StandInGpu, bits: Any) -> None:
        bits._obj.value = gpu.reasons

    _nvmlDeviceGetCurrentClocksThrottleReasons = _nvmlDeviceGetCurrentClocksEventReasons

    def _nvmlDeviceGetComputeRunningProcesses_v3(self, gpu: StandInGpu, count: Any, found: Any) -> int | None:
        if found is None and gpu.processes:
            count._obj.value = len(gpu.processes)
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        count._obj.value = len(gpu.processes)
        for place, (pid, used) in enumerate(gpu.processes):
            found[place].pid = pid
            nobody_knows = pynvml.NVML_VALUE_NOT_AVAILABLE_ulonglong.value
            found[place].usedGpuMemory = nobody_knows if used is None else used
        return None

    def _nvmlDeviceGetCpuAffinity(self, gpu: StandInGpu, _size: Any, words: Any) -> None:
        for core in gpu.cores:
            words._obj[core // 64] |= 1 << core % 64

    def _nvmlSystemGetDriverVersion(self, text: Any, _length: Any) -> None:
        text.value = b"560.35.03"

    def _nvmlSystemGetProcessName(self, pid: Any, text: Any, _length: Any) -> None:
        text.value = f"/usr/bin/program{_number(pid)} --of somebody".encode()

    def _nvmlDeviceGetMigMode(self, gpu: StandInGpu, current: Any, pending: Any) -> None:
        current._obj.value = pending._obj.value = gpu.mig is not None

    def _nvmlDeviceGetMaxMigDeviceCount(self, gpu: StandInGpu, count: Any) -> None:
        count._obj.value = 7 if gpu.mig is not None else 0

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: StandInGpu, place: Any, handle: Any) -> int | None:
        instances = [*(gpu.mig or []), *[None] * 7]
        if (instance := instances[_number(place)]) is None:
            return int(pynvml.NVML_ERROR_NOT_FOUND)
        self._hand_out(instance, handle)
        return None


@contextmanager
def installed(library: StandInLibrary) -> Iterator[StandInLibrary]:
    """Put the library where `pynvml` has loaded the driver's; in the end it must be closed as often as opened."""
    before, pynvml.nvmlLib = pynvml.nvmlLib, library
    pynvml._nvmlGetFunctionPointer_cache.clear()
    try:
        yield library
    finally:
        pynvml.nvmlLib = before
        pynvml._nvmlGetFunctionPointer_cache.clear()
    assert library.opened == 0


def _number(value: Any) -> int:
    """Of a C integer, or of Python's."""
    return int(getattr(value, "value", value))
