"""Slots of a host, and which job starts when.

A slot is a GPU, or a set of cores on a host without GPUs. Two jobs never share one, as they would disturb each other's
measurements.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuner.client.resources import JobKind
from tuner.core import nvml
from tuner.core.errors import JobError
from tuner.core.machine import Machine
from tuner.core.nvml import NoNvmlError
from tuner.measure.gpu_selection import visible_devices
from tuner.options.endpoint import Endpoint
from tuner.options.gpus import ALL, CONTAINER_DEVICES, NONE, VISIBLE_DEVICES, parse_gpus, shown_by_cuda
from tuner.servers.pins import core_list

RAY = "ray"
"""The executor of jobs that run on a Ray cluster."""

AUTO = "auto"
"""The value of `parallel` for all slots."""

# In the words for what a job waits for.
_MOST_OBSTACLES = 4


@dataclass(frozen=True)
class HostSlot:
    """A part of a host that one job uses at a time.

    Attributes:
        name: `gpu:0`, `gpu:0:1` for a MIG instance, or `cpu:0`.
        description: What it is.
        gpu: The UUID of its GPU; None: it has none.
        cores: The cores of a CPU slot; empty: all cores.
    """

    name: str
    description: str
    gpu: str | None = None
    cores: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Need:
    """What a job holds while it runs.

    Attributes:
        named: Names that it needs all of: slots, and things that only one job may use, such as `server HOST:PORT`.
        any_of: Slots of which it needs `count`, in order of preference; empty: none.
        count: Number of these, at most all.
    """

    named: frozenset[str] = frozenset()
    any_of: tuple[str, ...] = ()
    count: int = 1


@dataclass(frozen=True)
class Obstacle:
    """Why a job has to wait.

    Attributes:
        name: What it waits for.
        job: The job that holds it, or for which it is reserved.
        reserved: Whether it is only reserved.
    """

    name: str
    job: int
    reserved: bool = False


@dataclass(frozen=True)
class Plan:
    """What happens to the queue now.

    Attributes:
        starts: The jobs to start, with the names that each holds from then on.
        waits: The first obstacles of the other jobs: of a job that needs any of several slots, all of them.
    """

    starts: Mapping[int, frozenset[str]]
    waits: Mapping[int, tuple[Obstacle, ...]]


def plan_starts(queue: Iterable[tuple[int, Need]], held: Mapping[str, int]) -> Plan:
    """Which jobs of a queue start now.

    Jobs start in the order of the queue; a later one may start before an earlier one that has to wait. What the
    earlier one needs by name is reserved for it, even if it is free, and so are as many slots as it needs, the free
    ones first. So a job that needs several GPUs starts when enough jobs that hold them now have ended; later jobs
    cannot starve it. Only jobs before it in the queue, such as those of a higher priority, can.

    Args:
        queue: Ids of jobs with their needs, the first to start first.
        held: The names in use, with their jobs.
    """
    taken, reserved = dict(held), dict[str, int]()
    starts: dict[int, frozenset[str]] = {}
    waits: dict[int, tuple[Obstacle, ...]] = {}
    for job, need in queue:
        obstacles = tuple(_obstacles(sorted(need.named), taken, reserved))
        free = [slot for slot in need.any_of if slot not in {*taken, *reserved, *need.named}]
        count = min(need.count, len(need.any_of))
        if not obstacles and len(free) >= count:
            starts[job] = need.named | set(free[:count])
            taken.update(dict.fromkeys(starts[job], job))
        else:
            waits[job] = obstacles or tuple(_obstacles(need.any_of, taken, reserved))
            # One slot needs no reservation: it is taken as soon as it is free.
            several = list(dict.fromkeys((*free, *need.any_of)))[:count] if count > 1 else []
            for name in (*need.named, *several):
                reserved.setdefault(name, job)
    return Plan(starts, waits)


def _obstacles(names: Iterable[str], taken: Mapping[str, int], reserved: Mapping[str, int]) -> Iterator[Obstacle]:
    for name in names:
        if name in taken:
            yield Obstacle(name, taken[name])
        elif name in reserved:
            yield Obstacle(name, reserved[name], reserved=True)


def wait_in_words(obstacles: Sequence[Obstacle], about: Mapping[int, str]) -> str:
    """What a job waits for: `GPU 0 is held by job 12 (mlp, running since 14:05 UTC)`.

    Args:
        obstacles: See `Plan`.
        about: What the jobs are, in words, if that is known.
    """
    lines = [_in_words(obstacle, about.get(obstacle.job, "")) for obstacle in obstacles[:_MOST_OBSTACLES]]
    more = len(obstacles) - len(lines)
    return "; ".join([*lines, f"and {more} more"] if more > 0 else lines)


def _in_words(obstacle: Obstacle, about: str) -> str:
    how = "is reserved for" if obstacle.reserved else "is held by"
    return f"{shown(obstacle.name)} {how} job {obstacle.job}{f' ({about})' if about else ''}"


def shown(name: str) -> str:
    """The name of a slot for people: `GPU 0` for `gpu:0`."""
    return f"GPU {name.removeprefix('gpu:')}" if name.startswith("gpu:") else name


@dataclass(frozen=True)
class LocalHost:
    """This machine, with its slots.

    Attributes:
        name: Its host name.
        description: Its processors and GPUs.
        slots: Its slots, at least one.
        jobs_per_cluster: Most jobs at once on a Ray cluster.
    """

    name: str
    description: str
    slots: tuple[HostSlot, ...]
    jobs_per_cluster: int = 1

    @classmethod
    def here(
        cls,
        cores_per_slot: int | None = None,
        environment: Mapping[str, str] = os.environ,
        *,
        jobs_per_cluster: int = 1,
    ) -> LocalHost:
        """This machine: a slot for each GPU or MIG instance, or CPU slots if there is no GPU.

        Args:
            cores_per_slot: Cores of each CPU slot; cores that remain stay free. None: one slot with all cores.
            environment: Its `CUDA_VISIBLE_DEVICES` restricts the GPUs.
            jobs_per_cluster: Most jobs at once on a Ray cluster.

        Raises:
            JobError: `cores_per_slot` is more than this machine has.
        """
        machine = Machine.here()
        slots = _gpu_slots(environment) or cpu_slots(sorted(os.sched_getaffinity(0)), cores_per_slot)
        return cls(socket.gethostname(), str(machine), slots, jobs_per_cluster)

    @property
    def gpu_slots(self) -> tuple[HostSlot, ...]:
        """The slots with a GPU; empty on a host without GPUs."""
        return tuple(slot for slot in self.slots if slot.gpu)

    def need(self, kind: JobKind, options: Mapping[str, Any], target: str | None) -> Need:
        """What a job holds while it runs.

        Options that cannot be read are no error here: the job starts, and says so.

        Args:
            kind: The kind of the job.
            options: Its options, as submitted.
            target: The target that it is for.
        """
        exclusive = set()
        if url := options.get("url"):
            exclusive.add(f"server {_address(str(url))}")
        if kind == "nightly":
            exclusive.add(f"nights of {target or options.get('repository')}")
        if options.get("executor") == RAY:
            cluster = f"cluster {options.get('ray_address')}"
            shares = tuple(f"{cluster} ({number})" for number in range(1, self.jobs_per_cluster + 1))
            return Need(frozenset(exclusive), shares if len(shares) > 1 else (cluster,))
        if named := self._named(_wanted_gpus(options)):
            return Need(frozenset({*exclusive, *(slot.name for slot in named)}))
        return Need(frozenset(exclusive), tuple(slot.name for slot in self.slots), self._count(options))

    def _count(self, options: Mapping[str, Any]) -> int:
        """The number of slots for the trials that a job runs at once."""
        parallel = str(options.get("parallel", 1)).strip()
        if parallel == AUTO:
            return len(self.slots)
        size = str(options.get("gpus_per_slot") or 1) if self.gpu_slots else "1"
        return max(1, int(parallel) * int(size)) if parallel.isdecimal() and size.isdecimal() else 1

    def _named(self, gpus: str | None) -> Sequence[HostSlot]:
        """The slots of some GPUs; empty: no GPU is named, or none of this host."""
        if gpus is None or gpus == NONE:
            return ()
        wanted = gpus.split(",")
        return [slot for slot in self.gpu_slots if gpus == ALL or any(_is_of(slot, name) for name in wanted)]

    def sharing(self, cores: frozenset[int]) -> tuple[str, ...]:
        """The CPU slots that have any of these cores; one of all cores has them, too."""
        return tuple(
            slot.name for slot in self.slots if not slot.gpu and cores and (not slot.cores or slot.cores & cores)
        )

    def gpus_for(self, names: Iterable[str], options: Mapping[str, Any]) -> str | None:
        """The option `gpus` of a job that got slots by choice of the host; None: its own options say it.

        Args:
            names: The names that it holds.
            options: Its options, as submitted.
        """
        if "url" in options or _wanted_gpus(options) is not None:
            return None
        held = set(names)
        return ",".join(slot.gpu for slot in self.slots if slot.name in held and slot.gpu) or None

    def cores_for(self, names: Iterable[str]) -> frozenset[int]:
        """The cores of a job that holds these names; empty: all cores."""
        held = set(names)
        return frozenset(core for slot in self.slots if slot.name in held for core in slot.cores)


def cpu_slots(cores: Sequence[int], cores_per_slot: int | None) -> tuple[HostSlot, ...]:
    """CPU slots of a host with some cores; see `LocalHost.here`.

    Raises:
        JobError: the host has fewer cores than a slot.
    """
    if cores_per_slot is None:
        return (HostSlot("cpu:0", "all CPU cores"),)
    if cores_per_slot > len(cores):
        raise JobError(f"cores_per_slot: must be <= {len(cores)}, the number of this machine's cores")
    sets = [
        cores[first : first + cores_per_slot] for first in range(0, len(cores) - cores_per_slot + 1, cores_per_slot)
    ]
    return tuple(
        HostSlot(f"cpu:{number}", f"CPU cores {core_list(own)}", cores=frozenset(own))
        for number, own in enumerate(sets)
    )


def _gpu_slots(environment: Mapping[str, str]) -> tuple[HostSlot, ...]:
    try:
        with nvml.opened():
            devices = visible_devices(shown_by_cuda(ALL, environment), nvml.all_gpus())
            return tuple(HostSlot(f"gpu:{device.place}", device.name, device.uuid) for device in devices)
    except NoNvmlError:
        return ()


def _is_of(slot: HostSlot, name: str) -> bool:
    """Whether a slot is a named GPU, or a MIG instance of it."""
    if name.isdecimal():
        return slot.name.split(":")[1] == str(int(name))
    return bool(slot.gpu and slot.gpu.startswith(name))


def _wanted_gpus(options: Mapping[str, Any]) -> str | None:
    """The GPUs that a job names: `all`, `none`, or a list; None: it names none, or cannot be read."""
    gpus = options.get("gpus")
    if gpus is None:
        gpus = next((value for name, value in _variables(options.get("env")) if name == VISIBLE_DEVICES), None)
    if gpus is None:
        gpus = next((value for name, value in _variables(options.get("env")) if name == CONTAINER_DEVICES), None)
    if gpus is None:
        return None
    if not str(gpus).strip():
        return NONE
    try:
        return parse_gpus(gpus)
    except ValueError:
        return ALL


def _variables(env: Any) -> Iterator[tuple[str, str]]:
    """The variables that a job sets, from a mapping or from texts `NAME=VALUE`."""
    if isinstance(env, Mapping):
        yield from ((str(name), str(value)) for name, value in env.items() if value is not None)
    elif isinstance(env, str | list | tuple):
        for text in [env] if isinstance(env, str) else env:
            name, equals, value = str(text).partition("=")
            if equals:
                yield name, value


def _address(url: str) -> str:
    """Host and port of a running Triton."""
    try:
        return Endpoint.parse(url).address.lower()
    except JobError:
        return url
