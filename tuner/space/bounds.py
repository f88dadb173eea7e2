"""Fits a search space to a model, a machine and a job, so that it has no values that Triton would refuse.

The rules are Triton's. A model with `max_batch_size: 0` takes no batches. A model has one scheduler, so dynamic
batching excludes sequence batching. No request, warm-up or preferred batch may be larger than `max_batch_size`.
Instances on the CPU compete for its cores, and an instance on a GPU needs that GPU.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuner.config.completion import batching_is_completed, why_batching_stays
from tuner.config.config import ModelConfig
from tuner.config.patch import NO_CHANGES, Patch
from tuner.core.errors import ConfigError, SpaceError
from tuner.core.machine import Machine
from tuner.space.knowledge import AUTO, backend_of, named_parameters
from tuner.space.laws import checked_laws, laws_of
from tuner.space.parameter import Parameter, is_number, ladder_with
from tuner.space.place import AS_IS, Place, edited, edited_file, value_at
from tuner.space.spec import OFF, ON, LadderValue, ParameterSpec, SpaceSpec

MAX_BATCH_SIZE = "max_batch_size"
DYNAMIC_BATCHING = "dynamic_batching"
PREFERRED_BATCH_SIZE = "dynamic_batching.preferred_batch_size"
INSTANCE_COUNT = "instance_group[*].count"

# dynamic_batching with only these fields may be switched off, as clients then notice only the speed.
_PLAIN_BATCHING = {"preferred_batch_size", "max_queue_delay_microseconds"}
_INDEX = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Bounded:
    """The parameters of a space file that can vary for a model, a machine and a job.

    Attributes:
        parameters: The parameters that can vary.
        left_out: Why each other parameter cannot vary, by name.
        notes: Values that are left out, with the reason, one line each.
        fixed: The only value of parameters that can have one value.
    """

    parameters: tuple[Parameter, ...]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()
    fixed: dict[str, LadderValue] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Surroundings:
    """The model, machine and job that a space is fitted to.

    Attributes:
        own: The user's config; None: the model has no file.
        effective: The effective config, without values that Triton derives from other fields; see `stated`.
        machine: The machine that the server runs on.
        batch_size: Inferences in each request of the job.
        model: The model's name.
        originals: The user's own values at places other than the model's config.pbtxt.
    """

    own: ModelConfig | None
    effective: ModelConfig
    machine: Machine
    batch_size: int = 1
    model: str = ""
    originals: Patch = NO_CHANGES


def bound(spec: SpaceSpec, to: Surroundings) -> Bounded:
    """Fit the parameters of `spec` to a model, a machine and a job.

    Raises:
        SpaceError: a parameter names a field that a config.pbtxt does not have, or a value that it does not take.
    """
    parameters: list[Parameter] = []
    left_out: dict[str, str] = {}
    notes: list[str] = []
    fixed: dict[str, LadderValue] = {}
    for name, item in spec.parameters.items():
        place = Place.of(name, item)
        field = place.own_field
        try:
            base = _base(place, item, to)
            if reason := _refused(field, to.effective):
                left_out[name] = reason
                continue
            if field:
                _try_values(field, item, to.effective)
        except ConfigError as error:
            raise SpaceError(_fault("search space", name, str(place), error)) from None
        without = {value: reason for value in item.values if (reason := _too_small(value, field, spec, to))}
        allowed = tuple(v for v in item.values if v not in without and _allowed(v, field, item, to))
        if without:
            values = ", ".join(map(str, without))
            notes.append(f"{name}: {values} left out: {' and '.join(dict.fromkeys(without.values()))}")
        ladder = ladder_with(allowed, base)
        if len(ladder) == 1:
            left_out[name] = f"it can only be {base}{_why_only(field, to)}"
            fixed[name] = base
            continue
        when = {other: tuple(values) for other, values in item.when.items()}
        marked = tuple(value for value in ladder if value != base and item.may_differ(value))
        parameters.append(
            Parameter(
                name, place, ladder, base, when, item.arguments, marked, item.try_alone, item.slow_launch, item.does
            )
        )
    for limit in [p for p in parameters if p.field == MAX_BATCH_SIZE and not _can_batch(parameters, to.effective)]:
        parameters.remove(limit)
        left_out[limit.name] = (
            "without dynamic batching each request is executed alone; add dynamic_batching to the search space"
        )
    return Bounded(tuple(parameters), left_out, tuple(notes), fixed)


def _base(place: Place, item: ParameterSpec, to: Surroundings) -> LadderValue:
    """The user's own value at a place.

    Raises:
        ConfigError: the field does not exist.
    """
    may_be_on = ON in item.values
    if place.own_field:
        return value_at(place.own_field, to.effective, may_be_on=may_be_on, has_numbers=place.has_numbers)
    return place.value(to.originals, to.model, may_be_on=may_be_on)


def check_places(spec: SpaceSpec, originals: Patch, model: str, source: str) -> None:
    """Check, before any launch, each parameter that is not a field of the tuned model's config.pbtxt.

    Args:
        spec: The space file.
        originals: The user's own values.
        model: The name of the tuned model.
        source: The file's name, for the message.

    Raises:
        SpaceError: a field does not exist, or does not take a value of the ladder.
    """
    for name, item in named_parameters(spec, source).items():
        place = Place.of(name, item)
        if place.own_field:
            continue
        try:
            place.value(originals, model, may_be_on=ON in item.values)
            if path := place.path(model):
                for value in item.values:
                    edited_file(path, originals.files[path], {place.field: value})
        except ConfigError as error:
            raise SpaceError(_fault(source, name, str(place), error)) from None


def check_fields(spec: SpaceSpec, configs: Iterable[ModelConfig], source: str) -> None:
    """Check, before any launch, that each parameter names a field of config.pbtxt, with values that it takes.

    Indices in field paths are not checked, as only the effective config shows which exist.

    Args:
        spec: The space file.
        configs: The models' configs, whose text may have fields unknown here.
        source: The file's name, for the message.

    Raises:
        SpaceError: a field or a value is wrong for all configs, the file names something that its backend does not
            have, or its laws contradict each other.
    """
    parameters = named_parameters(spec, source)
    configs = tuple(configs)
    for config in configs:
        has = backend_of(config) or config.proto.backend
        if has and spec.backend not in {"", AUTO, has}:
            raise SpaceError(f"{source}: backend: {spec.backend!r} is not the model's backend, which is {has!r}")
    _check_laws(spec, parameters, source)
    all_configs = (ModelConfig.parse("max_batch_size: 1\n", source), *configs)
    for name, item in parameters.items():
        if not (field := Place.of(name, item).own_field):
            continue
        anywhere = _INDEX.sub("[*]", field)
        faults = []
        for config in all_configs:
            if (fault := _field_fault(anywhere, item, config)) is None:
                break
            faults.append(fault)
        else:
            raise SpaceError(_fault(source, name, anywhere, faults[0]))


def _check_laws(spec: SpaceSpec, named: Mapping[str, ParameterSpec], source: str) -> None:
    """Check the laws of a space file with the values in it alone; the machine may contradict more of them.

    Raises:
        SpaceError: no values keep them.
    """
    parameters = [
        # A parameter with a condition may have no effect, and then breaks no law.
        Parameter(name, Place.of(name, item), (*((OFF,) if item.when else ()), *item.values), AS_IS, {})
        for name, item in named.items()
    ]

    def combined(varying: Sequence[Parameter]) -> Iterator[dict[str, LadderValue]]:
        names = [p.name for p in varying]
        return (dict(zip(names, values, strict=True)) for values in itertools.product(*(p.ladder for p in varying)))

    laws = laws_of(spec.laws, parameters, Machine(None, (), ""))
    checked_laws(laws, tuple(map(str, spec.laws)), parameters, combined, source)


def _field_fault(field: str, item: ParameterSpec, config: ModelConfig) -> ConfigError | None:
    try:
        value_at(field, config, may_be_on=ON in item.values)
        _try_values(field, item, config)
    except ConfigError as error:
        return error
    return None


def _fault(source: str, name: str, field: str, error: ConfigError) -> str:
    """The message for a wrong parameter, with its name once."""
    message = str(error)
    return f"{source}: {message}" if name == field and message.startswith(name) else f"{source}: {name}: {message}"


def _try_values(field: str, item: ParameterSpec, effective: ModelConfig) -> None:
    """Try every value of the ladder.

    Raises:
        ConfigError: the field does not take a value.
    """
    for value in item.values:
        edited(effective, {field: value})


def _refused(field: str, effective: ModelConfig) -> str:
    """Why a field cannot vary for this model; empty: it can."""
    config = effective.proto
    batching = field == MAX_BATCH_SIZE or (field + ".").startswith(DYNAMIC_BATCHING + ".")
    if batching and config.max_batch_size == 0:
        return "the model does not batch (max_batch_size is 0)"
    if batching and config.HasField("sequence_batching"):
        return "the model batches sequences"
    if field.endswith(".gpus") and not any(group.kind == group.KIND_GPU for group in config.instance_group):
        return "none of its instances is on a GPU"
    return ""


def _too_small(value: LadderValue, field: str, spec: SpaceSpec, to: Surroundings) -> str:
    """Why a value of max_batch_size is too small; empty: it is large enough."""
    if field != MAX_BATCH_SIZE or not is_number(value):
        return ""
    config = to.effective.proto
    preferred_varies = any(Place.of(n, p).own_field == PREFERRED_BATCH_SIZE for n, p in spec.parameters.items())
    preferred = 0 if preferred_varies else max(config.dynamic_batching.preferred_batch_size, default=0)
    largest = {
        f"requests hold {to.batch_size} {'inference' if to.batch_size == 1 else 'inferences'} (-b)": to.batch_size,
        "the model's warm-up sends batches of {}": max(
            (warmup.batch_size for warmup in config.model_warmup), default=0
        ),
        "the model prefers batches of {}": preferred,
    }
    return next((reason.format(size) for reason, size in largest.items() if value < size), "")


def _allowed(value: LadderValue, field: str, item: ParameterSpec, to: Surroundings) -> bool:
    config, machine = to.effective.proto, to.machine
    if field == DYNAMIC_BATCHING and value == OFF:
        # Clients depend on priorities, queue policies and order.
        plain = {field.name for field, _ in config.dynamic_batching.ListFields()} <= _PLAIN_BATCHING
        return plain and not _stays_on(to)
    if field.endswith(".gpus") and machine.gpus:
        # GPU indices; if the machine's GPUs are unknown, Triton checks them.
        places = value if isinstance(value, tuple) else (value,)
        return all(not is_number(place) or place < len(machine.gpus) for place in places)
    if not is_number(value) or field == MAX_BATCH_SIZE:
        return True
    on_gpu = any(group.kind == group.KIND_GPU for group in config.instance_group)
    if on_gpu:
        return item.max_per_gpu is None or value <= item.max_per_gpu
    return item.max_per_cpu is None or machine.cpus is None or value <= item.max_per_cpu * machine.cpus


def _stays_on(to: Surroundings) -> str:
    """Why dynamic batching that Triton adds cannot be switched off; empty: it can be, or the user's config has it."""
    own = to.own or ModelConfig.parse("", "no config.pbtxt")
    return why_batching_stays(to.effective, own) if batching_is_completed(to.effective, own) else ""


def _why_only(field: str, to: Surroundings) -> str:
    reason = _stays_on(to) if field == DYNAMIC_BATCHING else ""
    return f": {reason}" if reason else ""


def _can_batch(parameters: list[Parameter], effective: ModelConfig) -> bool:
    """Whether any candidate, or the baseline, batches dynamically."""
    return effective.holds(DYNAMIC_BATCHING) or any(
        (p.field + ".").startswith(DYNAMIC_BATCHING + ".") for p in parameters
    )
