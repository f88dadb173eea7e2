"""The user's options for each container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tuner.core.quantities import format_size
from tuner.core.redaction import without_secrets
from tuner.options.environment import in_words
from tuner.options.gpus import CONTAINER_DEVICES, VISIBLE_DEVICES
from tuner.options.mounts import UserMount
from tuner.servers.pins import NO_PINS, Pins

_SHM_BYTES = 1 << 30
# Docker's default.
_CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class ContainerOptions:
    """The user's options for each container.

    Attributes:
        gpus: `all`, `none`, or a list of indices and UUIDs; None: no GPUs are requested.
        shm_bytes: Size of /dev/shm, through which the Python backend passes tensors.
        memory_bytes: Memory limit, without swap; None: no limit.
        mounts: Additional mounts.
        environment: Environment variables; None passes on the value from this process.
        network: The Docker network; None: the engine's default.
        user: The user that it runs as; None: the user of this process.
        more: Further keywords for docker-py's `containers.create`.
        pins: What they may use of the engine's machine, beside the user's limits.
    """

    gpus: str | None = None
    shm_bytes: int = _SHM_BYTES
    memory_bytes: int | None = None
    mounts: tuple[UserMount, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    network: str | None = None
    user: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    pins: Pins = NO_PINS

    @property
    def on_host_network(self) -> bool:
        """Whether it uses the host network, so that its ports are ports of the machine."""
        return self.network == "host"

    @property
    def devices(self) -> str | None:
        """The GPUs to request: the pinned ones, else the user's."""
        return self.pins.gpus or self.gpus

    @property
    def variables(self) -> Mapping[str, str | None]:
        """The environment; pinned GPUs leave no selection to it."""
        selecting = {VISIBLE_DEVICES, CONTAINER_DEVICES} if self.pins.gpus else set()
        return {name: value for name, value in self.environment.items() if name not in selecting}

    @property
    def keywords(self) -> Mapping[str, Any]:
        """The further keywords, with the pinned cores."""
        return {**self.more, "cpuset_cpus": self.pins.core_list} if self.pins.cores else self.more

    def with_variables(self, variables: Mapping[str, str]) -> ContainerOptions:
        """The options with further environment variables, which replace those of the same name."""
        return replace(self, environment={**self.environment, **variables})

    def cores(self, there: int) -> int:
        """The cores that a container may use by the user's limits, rounded, on a machine with `there` cores."""
        allowed = [float(there)]
        if isinstance(nano := self.more.get("nano_cpus"), int) and nano > 0:
            allowed.append(nano / 1e9)
        if isinstance(quota := self.more.get("cpu_quota"), int) and quota > 0:
            period = self.more.get("cpu_period")
            allowed.append(quota / (period if isinstance(period, int) and period > 0 else _CPU_PERIOD_US))
        if cpus := _cpus_of(str(self.keywords.get("cpuset_cpus", ""))):
            allowed.append(cpus)
        return max(1, round(min(allowed)))

    def words(self) -> Iterator[str]:
        """The options that differ from the default, for the record of a study, without secrets."""
        if self.gpus:
            yield f"GPUs {self.gpus}"
        if self.shm_bytes != _SHM_BYTES:
            yield f"shm {format_size(self.shm_bytes)}"
        if self.memory_bytes is not None:
            yield f"memory {format_size(self.memory_bytes)}"
        yield from (f"mount {mount}" for mount in self.mounts)
        yield from in_words(self.environment)
        if self.network:
            yield f"network {self.network}"
        if self.user:
            yield f"user {self.user}"
        yield from (f"{name} {without_secrets(str(value))}" for name, value in sorted(self.more.items()))


def _cpus_of(text: str) -> int:
    """The number of processors in a list such as `0-3,6`; 0 for an invalid list, which the engine will refuse."""
    try:
        ranges = [(int(first), int(last or first)) for first, _, last in (r.partition("-") for r in text.split(","))]
    except ValueError:
        return 0
    return sum(max(0, last - first + 1) for first, last in ranges)
