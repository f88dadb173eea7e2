"""Fits a search space to a model and a machine: what Triton would refuse is not offered.

The laws are Triton's own: a model with `max_batch_size: 0` takes no batches; a model has one scheduler, so dynamic
batching excludes sequence batching; an instance on the CPU competes for the cores, and one on a GPU needs it there.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.errors import ConfigError, SpaceError
from tuner.machine import Machine
from tuner.models.config import EMPTY, ModelConfig, Value
from tuner.space.parameter import AS_IS, Parameter, is_number, ladder_with
from tuner.space.spec import OFF, ON, LadderValue, ParameterSpec, SpaceSpec

MAX_BATCH_SIZE = "max_batch_size"
DYNAMIC_BATCHING = "dynamic_batching"
PREFERRED_BATCH_SIZE = "dynamic_batching.preferred_batch_size"
INSTANCE_COUNT = "instance_group[*].count"

# What dynamic_batching may hold and still be switched off without a client noticing more than speed.
_PLAIN_BATCHING = {"preferred_batch_size", "max_queue_delay_microseconds"}


@dataclass(frozen=True)
class Bounded:
    """A space file's parameters, as far as they can vary here.

    Attributes:
        left_out: Why each of the others cannot, by name.
    """

    parameters: tuple[Parameter, ...]
    left_out: dict[str, str]


def bound(spec: SpaceSpec, effective: ModelConfig, machine: Machine) -> Bounded:
    """Fit the parameters of `spec` to a model whose config, completed by the server, is `effective`.

    Raises:
        SpaceError: a parameter names a field that a config.pbtxt does not have, or a value that it does not take.
    """
    parameters: list[Parameter] = []
    left_out: dict[str, str] = {}
    for name, item in spec.parameters.items():
        field = item.field or name
        try:
            base = _base_value(field, item, effective)
            if reason := _refused(field, effective):
                left_out[name] = reason
                continue
            _try_values(field, item, effective)
        except ConfigError as error:
            raise SpaceError(f"search space: {name}: {error}") from None
        allowed = tuple(v for v in item.values if _allowed(v, field, item, spec, effective, machine))
        ladder = ladder_with(allowed, base)
        if len(ladder) == 1:
            left_out[name] = f"it can only be {base}"
            continue
        when = {other: tuple(values) for other, values in item.when.items()}
        parameters.append(Parameter(name, field, ladder, base, when))
    return Bounded(tuple(parameters), left_out)


def _base_value(field: str, item: ParameterSpec, effective: ModelConfig) -> LadderValue:
    """The model's own value of a field.

    Raises:
        ConfigError: there is no such field, or it is a message with a ladder of other values than off and on.
    """
    found = effective.values(field)
    if ON in item.ladder:
        return ON if found else OFF
    values = tuple(value for value in found if value is not EMPTY)
    if len(values) < len(found):
        raise ConfigError(f"{field} is a message, whose ladder can only be [off, on]")
    if not values:
        return OFF
    if "[*]" in field:
        return values[0] if len(set(values)) == 1 else AS_IS
    return values[0] if len(values) == 1 else values


def _try_values(field: str, item: ParameterSpec, effective: ModelConfig) -> None:
    """Put every value of the ladder in once.

    Raises:
        ConfigError: the field takes no such value.
    """
    for value in item.values:
        effective.edited({field: as_edit(value)})


def as_edit(value: LadderValue) -> Value | None:
    """A ladder's value as an edit of a config."""
    return None if value == OFF else EMPTY if value == ON else value


def _refused(field: str, effective: ModelConfig) -> str:
    """Why a field cannot vary for this model at all; empty when it can."""
    config = effective.proto
    batching = field == MAX_BATCH_SIZE or (field + ".").startswith(DYNAMIC_BATCHING + ".")
    if batching and config.max_batch_size == 0:
        return "the model does not batch (max_batch_size is 0)"
    if batching and config.HasField("sequence_batching"):
        return "the model batches sequences"
    if field.endswith(".gpus") and not any(group.kind == group.KIND_GPU for group in config.instance_group):
        return "none of its instances is on a GPU"
    return ""


def _allowed(  # noqa: PLR0917 (it is called at one place, just above)
    value: LadderValue, field: str, item: ParameterSpec, spec: SpaceSpec, effective: ModelConfig, machine: Machine
) -> bool:
    config = effective.proto
    if field == DYNAMIC_BATCHING and value == OFF:
        # Priorities, queue policies and order are promises to clients, which the user made.
        return {field.name for field, _ in config.dynamic_batching.ListFields()} <= _PLAIN_BATCHING
    if field.endswith(".gpus") and machine.gpus:
        # By their places; where nobody tells of any, Triton will.
        places = value if isinstance(value, tuple) else (value,)
        return all(not is_number(place) or place < len(machine.gpus) for place in places)
    if not is_number(value):
        return True
    if field == MAX_BATCH_SIZE:
        preferred_varies = any((p.field or n) == PREFERRED_BATCH_SIZE for n, p in spec.parameters.items())
        preferred = config.dynamic_batching.preferred_batch_size
        return preferred_varies or value >= max(preferred, default=1)
    on_gpu = any(group.kind == group.KIND_GPU for group in config.instance_group)
    if on_gpu:
        return item.max_per_gpu is None or value <= item.max_per_gpu
    return item.max_per_cpu is None or machine.cpus is None or value <= item.max_per_cpu * machine.cpus
