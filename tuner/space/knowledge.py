"""What is known of a backend's parameters, from the YAML files in `search_spaces/backends`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tuner.config.config import ModelConfig
from tuner.core.errors import SpaceError, nearest
from tuner.core.yaml_files import load_yaml
from tuner.options.validation_errors import describe, first_fault
from tuner.space.spec import LawSpec, ParameterSpec, SpaceSpec, check_laws, load_space

AUTO = "auto"
"""In a space file: the backend of the tuned model."""

COMMON = "triton"
"""The file of parameters that do not depend on the backend."""

_SCHEDULING = "default"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Needs(_Strict):
    """The conditions under which a parameter has an effect."""

    device: Literal["cpu", "gpu"] | None = Field(None, description="Where the model has instances.")
    cores: int | None = Field(None, description="Fewest cores of the machine.")
    gpus: int | None = Field(None, description="Fewest GPUs of the machine.")
    nodes: int | None = Field(None, description="Fewest NUMA nodes of the machine.")
    processor: str = Field("", description="Architecture of the processor, such as x86_64.")
    platforms: list[str] = Field([], description="Values of the config's platform.")
    since: str = Field("", description="First version of Triton with it, such as 2.61.")
    until: str = Field("", description="Last version of Triton with it.")
    batching: bool = Field(default=False, description="Whether max_batch_size must be at least 1.")
    holds: str = Field("", description="Field that the model's config must have, such as sequence_batching.direct.")
    server_arg: str = Field("", description="Argument of tritonserver that must be given.")
    without_server_arg: str = Field("", description="Argument of tritonserver that must not be given.")
    shared_memory: str = Field("", description="Kind of shared memory of the job, such as cuda.")


class KnownParameter(ParameterSpec):
    """A parameter of a backend."""

    does: str = Field(description="What it does, in one line.")
    search: Literal["default", "on_request"] = Field(
        "on_request", description="Whether it is searched unless a space file leaves it out, or only if one names it."
    )
    needs: Needs = Needs()
    relaunch_only: bool = Field(default=False, description="Whether a loaded server keeps its first value.")
    each_node: bool = Field(
        default=False, description="Whether its values are the host policies node0, node1, ... of the NUMA nodes."
    )
    source: str = Field("", description="Where this is stated, if not in the file's source.")


class Inert(_Strict):
    """A field or argument without an effect."""

    field: str = Field(description="Its path, or the path of a message that holds such fields.")
    reason: str = Field(description="Why it has no effect.")
    unless: list[str] = Field([], description="Backends in which it has an effect.")
    needs: Needs = Field(Needs(), description="Conditions under which it has none.")


class Caches(_Strict):
    """Fields for caches that launches share, where the config has an accelerator."""

    where: str = Field(description="Path of the accelerator.")
    set: dict[str, str] = Field(description="Values by path below it; {cache} is the folder of the caches.")


class Backend(_Strict):
    """A file of `search_spaces/backends`."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    backend: str = Field(description="Value of `backend` in the model's config.")
    platforms: list[str] = Field([], description="Values of `platform` that mean this backend.")
    source: str = Field(description="The sources from which this was read.")
    parameters: dict[str, KnownParameter] = Field(
        {}, description="Parameters by name; those searched by default in order of the expected gain."
    )
    laws: list[LawSpec] = []
    inert: list[Inert] = []
    caches: list[Caches] = []

    @model_validator(mode="after")
    def _is_consistent(self) -> Backend:
        for name, parameter in self.parameters.items():
            has_values = parameter.ladder or parameter.each_node or name in scheduling().parameters
            if not has_values and parameter.search == "default":
                raise ValueError(f"parameters: {name}: ladder is missing")
        known = {**scheduling().parameters, **self.parameters}
        check_laws(self.laws, known)
        _check_conditions(self.parameters, known)
        return self


@functools.cache
def scheduling() -> SpaceSpec:
    """The space of Triton's scheduling, which `auto` joins with the backend's parameters."""
    return load_space(_SCHEDULING)


@functools.cache
def known_backends() -> tuple[str, ...]:
    """The backends with a file."""
    names = (f.name.removesuffix(".yaml") for f in files("search_spaces.backends").iterdir() if f.name[-5:] == ".yaml")
    return tuple(sorted(name for name in names if name != COMMON))


@functools.cache
def knowledge(name: str) -> Backend:
    """The file of a backend.

    Raises:
        SpaceError: the file is wrong.
    """
    text = files("search_spaces.backends").joinpath(f"{name}.yaml").read_text("utf-8")
    try:
        return Backend.model_validate(load_yaml(text))
    except ValidationError as error:
        fault = first_fault(error)
        where = ": ".join([f"backends/{name}.yaml", *map(str, fault["loc"])])
        raise SpaceError(f"{where}: {describe(fault)}") from None


def known_parameter(name: str, backend: str) -> KnownParameter:
    """A parameter of a backend, or of all backends.

    Raises:
        KeyError: neither has it.
    """
    own = knowledge(backend).parameters if backend else {}
    return own.get(name) or knowledge(COMMON).parameters[name]


def backend_of(config: ModelConfig) -> str:
    """The backend of a model with a file here, by its effective config; empty: there is none."""
    proto = config.proto
    for name in known_backends():
        if name == proto.backend or (not proto.backend and proto.platform in knowledge(name).platforms):
            return name
    return ""


def named_parameters(spec: SpaceSpec, source: str) -> dict[str, ParameterSpec]:
    """The parameters that a space file names, each with what its backend knows of it.

    Raises:
        SpaceError: the backend is unknown, or the file names a parameter that is neither its own nor the backend's.
    """
    if not spec.backend:
        return spec.parameters
    backends = known_backends() if spec.backend == AUTO else (spec.backend,)
    if unknown := [name for name in backends if name not in known_backends()]:
        raise SpaceError(
            f"{source}: backend: nothing is known of {unknown[0]!r}{nearest(unknown[0], [AUTO, *known_backends()])}"
        )
    known: dict[str, ParameterSpec] = {**scheduling().parameters}
    for name in (COMMON, *backends):
        known.update(knowledge(name).parameters)
    nobody = "no backend has a" if spec.backend == AUTO else f"the backend {spec.backend} has no"
    for name, parameter in spec.parameters.items():
        if parameter.ladder is None and name not in known:
            missing = f"ladder is missing, and {nobody} parameter of this name"
            raise SpaceError(f"{source}: parameters: {name}: {missing}{nearest(name, known)}")
    for name in spec.leave_out:
        if name not in known:
            raise SpaceError(f"{source}: leave_out: {nobody} parameter {name!r}{nearest(name, known)}")
    try:
        check_laws(spec.laws, {**known, **spec.parameters})
        _check_conditions(spec.parameters, {**known, **spec.parameters})
    except ValueError as error:
        raise SpaceError(f"{source}: {error}") from None
    named = {name: joined(known[name], own) if name in known else own for name, own in spec.parameters.items()}
    for name, parameter in named.items():
        if parameter.ladder is None and not getattr(parameter, "each_node", False):
            raise SpaceError(f"{source}: parameters: {name}: ladder is missing; this parameter has no usual values")
    return named


def joined(known: ParameterSpec, own: ParameterSpec) -> ParameterSpec:
    """A parameter with the keys that another one sets in place of its own; a ladder comes with its own limit."""
    values = {name: getattr(own, name) for name in own.model_fields_set if name in ParameterSpec.model_fields}
    return known.model_copy(update={"upto": None, **values} if own.ladder is not None else values)


def _check_conditions(parameters: Mapping[str, ParameterSpec], known: Iterable[str]) -> None:
    names = list(known)
    for name, parameter in parameters.items():
        for other in parameter.when:
            if other not in names:
                raise ValueError(f"{name}: when: this space has no parameter {other!r}{nearest(other, names)}")
