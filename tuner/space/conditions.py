"""The conditions under which a backend reads a parameter, decided for a model, a machine and a job."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.config.config import ModelConfig
from tuner.core.machine import Machine
from tuner.space.knowledge import COMMON, Backend, Inert, Needs
from tuner.space.place import Place

_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Terms:
    """What a job and its server allow.

    Attributes:
        version: Triton's version, such as 2.69.0; empty: unknown.
        arguments: The user's arguments of `tritonserver`.
        relaunches: Whether each candidate gets a server of its own; what a process keeps can vary.
        is_remote: Whether the server runs already, so that its arguments and variables cannot vary.
        shared_memory: The kind of shared memory of requests; empty: none.
        allow_numerics: Whether candidates may give other answers than the baseline.
    """

    version: str = ""
    arguments: tuple[str, ...] = ()
    relaunches: bool = True
    is_remote: bool = False
    shared_memory: str = ""
    allow_numerics: bool = False


@dataclass(frozen=True)
class Conditions:
    """What conditions are decided by.

    Attributes:
        effective: The effective config of the model.
        machine: The machine of the server.
        terms: What the job and its server allow.
    """

    effective: ModelConfig
    machine: Machine
    terms: Terms

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the user's own host policies."""
        settings = (text.partition("=")[2] for text in self.terms.arguments if text.startswith("--host-policy="))
        return tuple(dict.fromkeys(setting.partition(",")[0] for setting in settings))

    def inert(self, place: Place, files: Sequence[Backend]) -> str:
        """Why a field or argument has no effect for the model; empty: it has one, or nothing is known.

        Args:
            place: Where it is.
            files: What is known of the model's backend, and of all backends.
        """
        backend = files[0].backend
        path = _INDEX.sub("[*]", place.own_field) or place.server_arg
        if backend == COMMON or not path:
            return ""
        applying = (
            inert
            for file in files
            for inert in file.inert
            if _is_within(path, inert) and backend not in inert.unless and not self.unmet(inert.needs)
        )
        return next((inert.reason for inert in applying), "")

    def unmet(self, needs: Needs) -> str:
        """The first condition that is not met, as a reason; empty: all are met, or unknown."""
        decided = (*self._of_machine(needs), *self._of_config(needs), *self._of_terms(needs))
        return next((reason for met, reason in decided if not met), "")

    def _of_machine(self, needs: Needs) -> Iterator[tuple[bool, str]]:
        machine = self.machine
        if needs.cores and machine.cpus is not None:
            yield machine.cpus >= needs.cores, f"the machine has {_counted(machine.cpus, 'core')}"
        if needs.gpus:
            yield len(machine.gpus) >= needs.gpus, f"the machine has {_counted(len(machine.gpus), 'GPU')}"
        if needs.nodes and not self.policies:
            has = _counted(len(machine.nodes) or 1, "NUMA node")
            yield len(machine.nodes) >= needs.nodes, f"the machine has {has}"
        if needs.processor and machine.processor:
            yield machine.processor == needs.processor, f"it needs a processor of type {needs.processor}"

    def _of_config(self, needs: Needs) -> Iterator[tuple[bool, str]]:
        config = self.effective.proto
        on_gpu = [group.kind == group.KIND_GPU for group in config.instance_group]
        if needs.device == "gpu":
            yield any(on_gpu), "none of its instances is on a GPU"
        if needs.device == "cpu":
            yield not all(on_gpu) or not on_gpu, "its instances are on a GPU"
        if needs.platforms:
            yield config.platform in needs.platforms, f"it is for platform {' or '.join(needs.platforms)}"
        if needs.batching:
            yield config.max_batch_size > 0, "the model does not batch (max_batch_size is 0)"
        if needs.holds:
            yield self.effective.holds(needs.holds), f"the config has no {needs.holds}"

    def _of_terms(self, needs: Needs) -> Iterator[tuple[bool, str]]:
        terms = self.terms
        if needs.since and terms.version:
            yield _version(terms.version) >= _version(needs.since), f"it needs Triton {needs.since} or newer"
        if needs.until and terms.version:
            yield _version(terms.version) <= _version(needs.until), f"it needs Triton {needs.until} or older"
        if needs.server_arg:
            yield self._given(needs.server_arg), f"it needs --triton-arg={needs.server_arg}"
        if needs.without_server_arg:
            yield not self._given(needs.without_server_arg), f"it has no effect beside {needs.without_server_arg}"
        if needs.shared_memory:
            yield terms.shared_memory == needs.shared_memory, f"it needs --shared-memory {needs.shared_memory}"

    def _given(self, argument: str) -> bool:
        return any(text == argument or text.startswith(f"{argument}=") for text in self.terms.arguments)


def _is_within(path: str, inert: Inert) -> bool:
    return path == inert.field or path.startswith((f"{inert.field}.", f"{inert.field}["))


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _version(text: str) -> tuple[int, ...]:
    """The numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
