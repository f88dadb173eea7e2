"""CPU load on this machine besides the server and the load generator."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from tuner.core.record import Record
from tuner.measure.sampling import Sample
from tuner.servers.usage import ServerUsage

_STATES = Path("/proc/stat")
# CPU times of all processors must equal wall time times cores, within this share. In some containers they do not.
_OFF = 0.2


class MachineLoad(Record):
    """The processors of this machine over the window of an operating point.

    Attributes:
        cores: Number of processors; those of the slot, if servers are pinned.
        idle_cores: Mean number of idle processors.
        elsewhere_cores: CPU seconds per second of other processes; None if the server's share is unknown.
        stolen_cores: CPU seconds per second that the hypervisor gave to other machines (steal time).
    """

    cores: int
    idle_cores: float
    elsewhere_cores: float | None
    stolen_cores: float


@dataclass(frozen=True)
class ProcessorTimes:
    """CPU seconds of all processors together since some moment (proc(5): `stat`).

    Attributes:
        cores: Number of processors.
        idle_s: Idle time, waiting for disks included.
        interrupts_s: Time in interrupts, which the load itself may cause.
        stolen_s: Steal time of the hypervisor.
        total_s: The sum of all times.
        own_s: CPU time of this process.
    """

    cores: int
    idle_s: float
    interrupts_s: float
    stolen_s: float
    total_s: float
    own_s: float


def processor_times(cores: Collection[int] = ()) -> ProcessorTimes | None:
    """The CPU times of the processors so far; None: not available. Takes some 0.05 ms.

    Args:
        cores: The processors; empty: all.
    """
    try:
        times = _times_of(cores) if cores else psutil.cpu_times()
    except (OSError, psutil.Error, ValueError, IndexError, TypeError):
        return None
    interrupts_s = times.irq + times.softirq
    total_s = times.user + times.nice + times.system + times.idle + times.iowait + interrupts_s + times.steal
    if total_s <= 0:
        return None
    return ProcessorTimes(
        cores=len(cores) or psutil.cpu_count() or 1,
        idle_s=times.idle + times.iowait,
        interrupts_s=interrupts_s,
        stolen_s=times.steal,
        total_s=total_s,
        own_s=time.process_time(),
    )


class _Times(NamedTuple):
    """Seconds in each state, as psutil has them."""

    user: float
    nice: float
    system: float
    idle: float
    iowait: float
    irq: float
    softirq: float
    steal: float


def _times_of(cores: Collection[int]) -> _Times:
    """The times of some processors together. psutil does not tell which processors its times are of.

    Raises:
        OSError, ValueError, TypeError: they are not reported.
    """
    names = {f"cpu{core}" for core in cores}
    lines = (line.split() for line in _STATES.read_text(encoding="ascii").splitlines())
    of_each = [list(map(int, line[1:9])) for line in lines if line and line[0] in names]
    if len(of_each) != len(names):
        raise ValueError("a processor is offline")
    return _Times(*(sum(ticks) / os.sysconf("SC_CLK_TCK") for ticks in zip(*of_each, strict=True)))


def machine_load(
    machine: Sequence[Sample[ProcessorTimes]],
    server: Sequence[Sample[ServerUsage]],
    *,
    workers_cores: float,
    server_elsewhere: bool,
) -> MachineLoad | None:
    """The machine's load over a window.

    Args:
        machine: Samples of all processors, including those just outside of the window.
        server: Samples of the server's usage; if there are at least two, they define the window.
        workers_cores: CPU seconds per second of the load generator's processes.
        server_elsewhere: Whether the server runs on another machine.

    Returns:
        None if there are too few samples, or the CPU times do not add up.
    """
    samples = server if len(server) > 1 else machine
    if len(machine) < 2 or len(samples) < 2:
        return None
    start_ns, end_ns = max(samples[0].at_ns, machine[0].at_ns), min(samples[-1].at_ns, machine[-1].at_ns)
    seconds = (end_ns - start_ns) / 1e9
    if seconds <= 0:
        return None

    def per_s(at_ns: Sequence[int], values: Sequence[float]) -> float:
        """The rate of a counter over the window, interpolated between its samples."""
        ends: npt.NDArray[np.float64] = np.interp([start_ns, end_ns], at_ns, values)
        return float(ends[1] - ends[0]) / seconds

    at_ns = [sample.at_ns for sample in machine]
    cores = machine[-1].answer.cores
    if abs(per_s(at_ns, [sample.answer.total_s for sample in machine]) - cores) > _OFF * cores:
        return None
    idle = per_s(at_ns, [sample.answer.idle_s for sample in machine])
    interrupts = per_s(at_ns, [sample.answer.interrupts_s for sample in machine])
    stolen = per_s(at_ns, [sample.answer.stolen_s for sample in machine])
    own = per_s(at_ns, [sample.answer.own_s for sample in machine]) + workers_cores
    servers: float | None = 0.0 if server_elsewhere else None
    if len(server) > 1:
        servers = per_s([sample.at_ns for sample in server], [sample.answer.cpu_s for sample in server])
    # Idle time is exact to 1 us; the times of processes are sampled at ticks.
    taken = cores - idle - interrupts - stolen
    return MachineLoad(
        cores=cores,
        idle_cores=min(max(0.0, idle), cores),
        elsewhere_cores=None if servers is None else max(0.0, taken - own - servers),
        stolen_cores=max(0.0, stolen),
    )


def loads_together(rounds: Iterable[MachineLoad | None]) -> MachineLoad | None:
    """Pool several measurements at one load, by their means."""
    loads = [load for load in rounds if load]
    if not loads:
        return None
    elsewhere = [load.elsewhere_cores for load in loads if load.elsewhere_cores is not None]
    return MachineLoad(
        cores=loads[0].cores,
        idle_cores=fmean(load.idle_cores for load in loads),
        elsewhere_cores=fmean(elsewhere) if elsewhere else None,
        stolen_cores=fmean(load.stolen_cores for load in loads),
    )


def is_of_this_machine(host: str) -> bool:
    """Whether a host name or address is this machine; True if it cannot be resolved."""
    try:
        addresses = {str(address[0]) for *_, address in socket.getaddrinfo(host, None)}
        own = {address.address for address in chain.from_iterable(psutil.net_if_addrs().values())}
    except (OSError, psutil.Error):
        return True
    return any(address in own or ipaddress.ip_address(address.split("%")[0]).is_loopback for address in addresses)
