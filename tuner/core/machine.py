"""Processor cores and GPUs of this machine, which bound a search."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tuner.core import nvml
from tuner.core.nvml import Gpu, NoNvmlError

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_NODES = Path("/sys/devices/system/node")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


@dataclass(frozen=True)
class NumaNode:
    """A NUMA node with cores.

    Attributes:
        number: Its number.
        cpus: Its cores as the kernel lists them, such as `0-3,8-11`.
    """

    number: int
    cpus: str


@dataclass(frozen=True)
class Machine:
    """The machine that the server runs on.

    Attributes:
        cpus: Usable cores, by affinity and container limits; None: unknown.
        gpus: Its GPUs; empty without an NVIDIA driver.
        processor: The processor's architecture.
        nodes: Its NUMA nodes with cores; empty: unknown.
    """

    cpus: int | None
    gpus: tuple[Gpu, ...]
    processor: str
    nodes: tuple[NumaNode, ...] = ()

    @classmethod
    def here(cls, cores: Collection[int] = ()) -> Machine:
        """Detect the cores, GPUs and processor of this machine.

        Args:
            cores: The cores that the server may use; empty: those of this process.
        """
        usable = cores or os.sched_getaffinity(0)
        return cls(
            cpus=_usable_cpus(len(usable)),
            gpus=_gpus(),
            processor=platform.machine(),
            nodes=numa_nodes(usable=usable),
        )

    def __str__(self) -> str:
        gpus = ", ".join(gpu.name for gpu in self.gpus) or "no GPU"
        cpus = "an unknown number of" if self.cpus is None else self.cpus
        return f"{cpus} CPU cores, {gpus}"


def numa_nodes(folder: Path = _NODES, usable: Collection[int] | None = None) -> tuple[NumaNode, ...]:
    """The NUMA nodes that have cores, from sysfs; empty if it is not there.

    Args:
        folder: The folder with `node0`, `node1`, ...; each has a file `cpulist`.
        usable: The cores that a server may use; nodes without any of them are left out. None: all.

    Source: https://www.kernel.org/doc/Documentation/ABI/stable/sysfs-devices-node
    """
    nodes = []
    for file in folder.glob("node*/cpulist"):
        number = file.parent.name.removeprefix("node")
        with suppress(OSError):
            cpus = file.read_text().strip()
            # Nodes of memory alone have no cores.
            if number.isdigit() and cpus and (usable is None or _cores_in(cpus) & set(usable)):
                nodes.append(NumaNode(int(number), cpus))
    return tuple(sorted(nodes, key=lambda node: node.number))


def _cores_in(text: str) -> set[int]:
    """The cores in a list of the kernel, such as `0-3,8-11`; empty if it is none."""
    ends = (part.partition("-") for part in text.split(",") if part)
    with suppress(ValueError):
        return {core for first, _, last in ends for core in range(int(first), int(last or first) + 1)}
    return set()


def _usable_cpus(cpus: int) -> int:
    quota = _quota()
    return max(1, min(cpus, round(quota))) if quota else cpus


def _quota() -> float | None:
    """Cores that the container's cgroup grants, or None without a limit."""
    try:
        if _CGROUP_V2.exists():
            limit, period = _CGROUP_V2.read_text().split()
        else:
            limit, period = (path.read_text().strip() for path in _CGROUP_V1)
        return None if limit == "max" or int(limit) <= 0 else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _gpus() -> tuple[Gpu, ...]:
    try:
        with nvml.opened():
            return nvml.all_gpus()
    except NoNvmlError:
        return ()
