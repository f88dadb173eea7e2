"""Hosts and their slots: what one piece of work has for itself."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.core.machine import Machine
from tuner.core.record import Record


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

    def difference(self, other: HostFacts) -> str:
        """The name of the first field that differs; empty: all are equal."""
        return next((name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)), "")


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
