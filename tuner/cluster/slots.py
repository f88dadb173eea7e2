"""Hosts and their slots: what one piece of work has for itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

from tuner.core import nvml
from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.core.nvml import NoNvmlError
from tuner.core.record import Record
from tuner.measure.gpu_selection import visible_devices
from tuner.options.environment import resolved
from tuner.options.gpus import ALL, NONE, gpus_of_runtime, shown_by_cuda
from tuner.options.placement import AUTO
from tuner.options.tune_job import TuneJob
from tuner.servers.pins import core_list

_PROCESSORS = Path("/proc/cpuinfo")
_TOPOLOGY = Path("/sys/devices/system/cpu")


class HostFacts(Record):
    """What must be equal for measurements of two hosts to be compared.

    Attributes:
        gpus: The names of the GPUs of one slot.
        driver: The version of the NVIDIA driver; empty: none or unknown.
        processor: The name of the processor.
        cores: The cores of one slot; 0: unknown.
        server: The Triton: version, or digest of the image.
    """

    gpus: tuple[str, ...]
    driver: str
    processor: str
    cores: int
    server: str

    @classmethod
    def here(cls, machine: Machine, server: str) -> HostFacts:
        """The facts of this host.

        Args:
            machine: What one slot of it has.
            server: The description of its Triton.
        """
        return cls(
            gpus=tuple(gpu.name for gpu in machine.gpus),
            driver=nvml.driver_version(),
            processor=processor_name(),
            cores=machine.cpus or 0,
            server=server,
        )


@dataclass(frozen=True)
class Slot:
    """A part of a host, for one piece of work at a time.

    Attributes:
        name: Its name, unique in the run, such as `worker-2/gpu:0` or `worker-2/cores:0-3`.
        host: The name of its host.
        gpus: The UUIDs of its GPUs; empty: none.
        cores: The cores of its server; empty: the server is not pinned.
        load_cores: The cores of its load generator; empty: the load generator is not pinned.
    """

    name: str
    host: str
    gpus: tuple[str, ...] = ()
    cores: frozenset[int] = frozenset()
    load_cores: frozenset[int] = frozenset()

    @property
    def parts(self) -> frozenset[str]:
        """The names of the GPUs and cores that nothing else may use."""
        return frozenset((*self.gpus, *(f"core-{core}" for core in self.cores | self.load_cores)))


@dataclass(frozen=True)
class Host:
    """A machine that launches servers.

    Attributes:
        name: Its name, unique in the run.
        facts: What must be equal for comparisons.
        machine: What one slot of it has, which bounds the search.
        description: Its Triton, and how it is launched.
        slots: Its slots.
        host_class: The class of hosts that it is compared with; empty: that of the reference host.
    """

    name: str
    facts: HostFacts
    machine: Machine
    description: str
    slots: tuple[Slot, ...]
    host_class: str = ""


@dataclass(frozen=True)
class Device:
    """A GPU or a MIG instance.

    Attributes:
        place: Its index, with that of the instance: `0`, `0:1`.
        uuid: Its UUID.
        near: The cores of its NUMA node; empty: unknown.
    """

    place: str
    uuid: str
    near: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Parts:
    """What slots of a machine are made of.

    Attributes:
        devices: Its GPUs and MIG instances.
        cores: Its cores, in an order in which neighbours share caches.
    """

    devices: tuple[Device, ...]
    cores: tuple[int, ...]

    @classmethod
    def here(cls, job: TuneJob, environment: Mapping[str, str] = os.environ) -> Parts:
        """Those of this machine that a job and this process may use.

        Args:
            job: Its `gpus`, and the variables that select GPUs.
            environment: Its `CUDA_VISIBLE_DEVICES` restricts the GPUs.

        Raises:
            JobError: the variables for NVIDIA's runtime cannot be read.
        """
        variables = resolved(job.env)
        selection = shown_by_cuda(
            job.gpus or gpus_of_runtime(variables) or ALL, variables if job.gpus else {**environment, **variables}
        )
        devices = () if selection == NONE else _devices(selection)
        cores = neighbours(os.sched_getaffinity(0))
        # A container may have fewer cores than it sees.
        return cls(devices, cores[: Machine.here().cpus])

    def without(self, used: Collection[str]) -> Parts:
        """The parts that are not used.

        Args:
            used: Names, as in `Slot.parts`.
        """
        return Parts(
            tuple(device for device in self.devices if device.uuid not in used),
            tuple(core for core in self.cores if f"core-{core}" not in used),
        )


@dataclass(frozen=True)
class Shape:
    """The size of each slot.

    Attributes:
        gpus: GPUs; 0: slots are sets of cores.
        cores: Cores of the server; 0: it is not pinned.
        load_cores: Cores of the load generator; 0: it uses those of the server.
        most: The largest number of slots.
    """

    gpus: int
    cores: int
    load_cores: int
    most: int

    @classmethod
    def of(cls, job: TuneJob, parts: Parts) -> Shape:
        """The size of the slots that a job asks for.

        Args:
            job: Its `parallel`, `cores_per_slot` and `gpus_per_slot`.
            parts: The parts of the machine.

        Raises:
            JobError: the machine has too few parts.
        """
        gpus = _gpus_of_each(job, parts.devices)
        number = None if job.parallel == AUTO else int(job.parallel)
        if gpus:
            there_are = len(parts.devices) // gpus
            if number is not None and number > there_are:
                raise JobError(
                    f"--parallel {number}: needs {number * gpus} GPUs ({gpus} for each slot), this machine has "
                    f"{len(parts.devices)}; use --parallel {there_are} or less"
                )
            if number is None:
                number = min(there_are, len(parts.cores) // (job.cores_per_slot or 1) or there_are)
        return cls(gpus, *_cores_of_each(job, len(parts.cores), number, alone=not gpus))

    def slots(self, host: str, parts: Parts) -> tuple[Slot, ...]:
        """As many slots as there are parts for, but at most `most`.

        Args:
            host: The name of the host.
            parts: The free parts of the machine.
        """
        return tuple(islice(self._slots(host, parts), self.most))

    def _slots(self, host: str, parts: Parts) -> Iterator[Slot]:
        left = list(parts.cores)
        if not self.gpus and not self.cores:
            yield Slot(f"{host}/all", host)
            return
        groups: Iterable[Sequence[Device]] = _groups(parts.devices, self.gpus) if self.gpus else repeat(())
        for devices in groups:
            cores = self._take(left, frozenset().union(*(device.near for device in devices)))
            if cores is None:
                return
            server, load = cores
            places = ",".join(device.place for device in devices)
            name = f"gpu:{places}" if devices else f"cores:{core_list(server)}"
            yield Slot(f"{host}/{name}", host, tuple(device.uuid for device in devices), server, load or server)

    def _take(self, left: list[int], near: Collection[int]) -> tuple[frozenset[int], frozenset[int]] | None:
        """The cores of the next slot, taken from those that are left; None: they are too few."""
        if len(left) < self.cores + self.load_cores:
            return None
        ordered = sorted(left, key=lambda core: core not in near) if near else list(left)
        server = ordered[: self.cores]
        load = ordered[self.cores : self.cores + self.load_cores]
        for core in (*server, *load):
            left.remove(core)
        return frozenset(server), frozenset(load)


def _gpus_of_each(job: TuneJob, devices: Sequence[Device]) -> int:
    """The GPUs of each slot; 0: there are none.

    Raises:
        JobError: there are too few.
    """
    if job.gpus_per_slot is None:
        return 1 if devices else 0
    if not devices:
        raise JobError("--gpus-per-slot: this machine has no GPU that the job may use")
    if job.gpus_per_slot > 1 and any(device.uuid.startswith("MIG-") for device in devices):
        raise JobError("--gpus-per-slot: must be 1 with MIG, as a process uses one instance")
    if job.gpus_per_slot > len(devices):
        raise JobError(f"--gpus-per-slot: must be <= {len(devices)}, the number of GPUs, got {job.gpus_per_slot}")
    return job.gpus_per_slot


def _cores_of_each(job: TuneJob, there: int, number: int | None, *, alone: bool) -> tuple[int, int, int]:
    """The cores of each server and each load generator, and the number of slots.

    Args:
        job: The job.
        there: The number of cores of this machine.
        number: The number of slots that is asked for; None: as many as there can be.
        alone: Whether slots have no GPUs.

    Raises:
        JobError: there are too few cores.
    """
    asked = job.cores_per_slot
    if asked is None:
        if number is None or number == 1:
            return 0, 0, 1
        each = there // number
        if not alone and each <= 1:
            return 0, 0, number
        if each == 0:
            raise JobError(f"--parallel {number}: this machine has {there} cores; use --parallel {there} or less")
        load = max(1, each // 3) if each > 1 else 0
        return each - load, load, number
    usual = max(1, asked // 2)
    if number is None:
        number = there // (asked + usual) or there // asked
    if not number or number * asked > there:
        needed = f"--parallel {number} --cores-per-slot {asked}" if number else f"--cores-per-slot {asked}"
        raise JobError(f"{needed}: needs {max(1, number) * asked} cores, this machine has {there}; use fewer")
    return asked, min(usual, there // number - asked), number


def _groups(devices: Sequence[Device], size: int) -> Iterator[Sequence[Device]]:
    for first in range(0, len(devices) - size + 1, size):
        yield devices[first : first + size]


def shares_cores(slots: Iterable[Slot]) -> bool:
    """Whether load generators use the cores of their servers, as there are too few."""
    return any(slot.cores and slot.cores & slot.load_cores for slot in slots)


def _devices(selection: str) -> tuple[Device, ...]:
    try:
        with nvml.opened():
            gpus = nvml.all_gpus()
            return tuple(Device(gpu.place, gpu.uuid, gpu.nearest_cores()) for gpu in visible_devices(selection, gpus))
    except NoNvmlError:
        return ()


def processor_name(file: Path = _PROCESSORS) -> str:
    """The name of the processor, such as `AMD EPYC 9654 96-Core Processor`; its architecture if it has none."""
    with suppress(OSError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.machine()


def neighbours(cores: Iterable[int], folder: Path = _TOPOLOGY) -> tuple[int, ...]:
    """Cores in an order in which neighbours share a processor, and hardware threads of one core follow each other.

    Args:
        cores: The cores.
        folder: The folder with `cpu0/topology`, ....

    Source: https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-devices-system-cpu
    """

    def place(core: int) -> tuple[int, int, int]:
        topology = folder / f"cpu{core}" / "topology"
        package = _first_number(topology / "physical_package_id", 0)
        return package, _first_number(topology / "thread_siblings_list", core), core

    return tuple(sorted(cores, key=place))


def _first_number(file: Path, default: int) -> int:
    """The first number of a list such as `3,67` or `3-4`."""
    try:
        return int(file.read_text(encoding="ascii").replace("-", ",").partition(",")[0])
    except (OSError, ValueError):
        return default


def note_on(slots: Sequence[Slot], note: Callable[[str], None]) -> None:
    """Note what disturbs measurements in some slots."""
    if shares_cores(slots):
        note("load generators share the cores of their servers, as there are too few; latencies may be higher")
    elif len(slots) > 1 and not all(slot.cores for slot in slots):
        note("slots share the cores of this machine, as there are too few; their measurements may disturb each other")
