"""Parses, completes and validates configs as Triton's core does (`model_config_utils.cc`, observed on 2.51)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2 as pb

from tuner.testing.fake.log import raw
from tuner.testing.fake.messages import Code, RefusedError

CONFIG = "config.pbtxt"
COMPLETION = "model.fake"
"""The name of a config in a version's folder, from which the backend `fake` completes the model's config."""

_SOURCE = (
    "/tmp/tritonbuild/tritonserver/build/_deps/repo-third-party-build/grpc-repo/src/grpc/third_party/protobuf"  # noqa: S108 (as Triton has it)
    "/src/google/protobuf/text_format.cc:337"
)
_NO_FIELD = re.compile(r'no field named "(?P<word>[^"]*)"')
_NO_VALUE = re.compile(r'Enum type "[^"]*" has no value named (?P<word>\S+?)\.?$')


def refuse(text: str, code: Code = Code.INVALID_ARGUMENT) -> RefusedError:
    """The error for an invalid config."""
    return RefusedError(code, text)


def read_config(path: Path) -> pb.ModelConfig:
    """Parse a config.pbtxt, which may be missing.

    Raises:
        RefusedError: the file has a syntax error, which is also logged.
    """
    config = pb.ModelConfig()
    if not path.exists():
        return config
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        where = _as_protobuf_says(error) if isinstance(error, text_format.ParseError) else "1:1: Invalid UTF-8"
        raw(f"[libprotobuf ERROR {_SOURCE}] Error parsing text-format inference.ModelConfig: {where}")
        raise refuse(f"failed to read text proto from {path}") from error
    return config


def _as_protobuf_says(error: text_format.ParseError) -> str:
    """A Python protobuf error in the words of the C++ library."""
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    reason = str(error).removeprefix(f"{line}:{column} : ")
    if match := _NO_FIELD.search(reason):
        column += len(match["word"])
    elif match := _NO_VALUE.search(reason):
        word = match["word"].strip('"')
        return f'{line}:{column + len(word)}: Unknown enumeration value of "{word}" for field "data_type".'
    return f"{line}:{column}: {reason}"


def parse_override(text: str) -> pb.ModelConfig:
    """Parse the config of a load request.

    Raises:
        RefusedError: the text is not a valid config.
    """
    from google.protobuf import json_format  # noqa: PLC0415 (most servers never need it)

    config = pb.ModelConfig()
    try:
        json_format.Parse(text, config)
    except json_format.ParseError as error:
        unknown = re.search(r'has no field named "([^"]*)"', str(error))
        reason = f"{unknown[1]}: Cannot find field." if unknown else str(error)
        raise refuse(f"Invalid config override: {reason}") from error
    return config


def add_missing(config: pb.ModelConfig, completion: pb.ModelConfig) -> None:
    """Copy the fields that a config lacks from another config."""
    for descriptor, _ in completion.ListFields():
        if descriptor.name == "parameters":
            for key, value in completion.parameters.items():
                if key not in config.parameters:
                    config.parameters[key].CopyFrom(value)
        elif not _is_set(config, descriptor):
            part = pb.ModelConfig()
            part.CopyFrom(completion)
            for other, _ in completion.ListFields():
                if other.name != descriptor.name:
                    part.ClearField(other.name)
            config.MergeFrom(part)


def _is_set(config: pb.ModelConfig, descriptor: FieldDescriptor) -> bool:
    if descriptor.containing_oneof is not None:
        return config.WhichOneof(descriptor.containing_oneof.name) is not None
    return any(other.name == descriptor.name for other, _ in config.ListFields())


def complete(config: pb.ModelConfig, name: str) -> None:
    """Complete a config as core does for every backend."""
    if not config.name:
        config.name = name
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    if config.platform == "ensemble":
        config.model_transaction_policy.SetInParent()
        return
    config.optimization.input_pinned_memory.enable = True
    config.optimization.output_pinned_memory.enable = True
    if config.HasField("dynamic_batching") and not config.dynamic_batching.preferred_batch_size:
        if config.max_batch_size > 0:
            config.dynamic_batching.preferred_batch_size.append(config.max_batch_size)
    elif config.HasField("sequence_batching"):
        _complete_sequences(config)
    if config.backend == "python" and not config.default_model_filename:
        config.default_model_filename = "model.py"
    _complete_instances(config, name)


def _complete_instances(config: pb.ModelConfig, name: str) -> None:
    if not config.instance_group:
        config.instance_group.add().name = name
    for number, group in enumerate(config.instance_group):
        group.name = group.name or f"{name}_{number}"
        group.count = max(1, group.count)
        if group.kind == pb.ModelInstanceGroup.KIND_AUTO:
            group.kind = pb.ModelInstanceGroup.KIND_CPU


def _complete_sequences(config: pb.ModelConfig) -> None:
    batching = config.sequence_batching
    if batching.WhichOneof("strategy_choice") is None:
        batching.direct.SetInParent()
    if batching.max_sequence_idle_microseconds == 0:
        batching.max_sequence_idle_microseconds = 1_000_000
    if batching.HasField("oldest") and not batching.oldest.preferred_batch_size and config.max_batch_size > 0:
        batching.oldest.preferred_batch_size.append(config.max_batch_size)


def validate(config: pb.ModelConfig, name: str) -> None:
    """Check a config as core does.

    Raises:
        RefusedError: core rejects the config.
    """
    if config.name and config.name != name:
        raise refuse(
            f"unexpected directory name '{name}' for model '{config.name}', directory name must equal model name"
        )
    if config.max_batch_size < 0:
        raise refuse(f"'max_batch_size' must be non-negative value for {name}")
    if config.platform != "ensemble" and not config.backend:
        raise refuse(f"unexpected platform type '{config.platform}' for {name}")
    for what, batching in (("dynamic batching", config.dynamic_batching), ("oldest", config.sequence_batching.oldest)):
        for size in batching.preferred_batch_size:
            if size <= 0:
                raise refuse(f"{what} preferred size must be positive for {name}")
            if config.max_batch_size and size > config.max_batch_size:
                raise refuse(f"{what} preferred size must be <= max batch size for {name}")
    for kind, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            _validate_tensor(kind, tensor, name)


def _validate_tensor(kind: str, tensor: Any, name: str) -> None:
    if not tensor.name:
        raise refuse(f"model {kind} must specify 'name' for {name}")
    if not tensor.data_type:
        raise refuse(f"model {kind} must specify 'data_type' for {name}")
    if not tensor.dims and not tensor.HasField("reshape"):
        raise refuse(f"model {kind} must specify 'dims' for {name}")
    if any(dim < 1 and dim != -1 for dim in tensor.dims):
        raise refuse(f"model {kind} dimension must be integer >= 1, or -1 to indicate a variable-size dimension")


def validate_instances(config: pb.ModelConfig, name: str) -> None:
    """Check that the instances can run on a machine without a GPU.

    Raises:
        RefusedError: the instances need a GPU.
    """
    for group in config.instance_group:
        if group.kind == pb.ModelInstanceGroup.KIND_GPU:
            text = f"instance group {group.name} of model {name} has kind KIND_GPU but no GPUs are available"
            raise refuse(text)


def versions_to_load(config: pb.ModelConfig, present: Sequence[int]) -> list[int]:
    """The versions that the version policy selects, the latest last.

    Raises:
        RefusedError: the policy selects none.
    """
    policy, ordered = config.version_policy, sorted(present)
    if policy.HasField("specific"):
        chosen = [version for version in ordered if version in policy.specific.versions]
    elif policy.HasField("all"):
        chosen = ordered
    else:
        chosen = ordered[-max(1, policy.latest.num_versions) :]
    if not chosen:
        raise refuse(f"at least one version must be available under the version policy of model '{config.name}'")
    return chosen


def instance_names(config: pb.ModelConfig) -> list[str]:
    """The names of all instances, in order."""
    return [f"{group.name}_{number}" for group in config.instance_group for number in range(group.count)]


def datatype(value: int) -> str:
    """The protocol's name of a config's data type, such as `FP32`."""
    name: str = pb.DataType.Name(value).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def string_parameters(config: pb.ModelConfig) -> Mapping[str, str]:
    """The `parameters` of a config, as strings."""
    return {key: value.string_value for key, value in config.parameters.items()}


def as_json(message: Any) -> dict[str, Any]:
    """A message as Triton's JSON: fields with default values are included, and 64-bit integers are numbers."""
    fields: dict[str, Any] = {}
    for descriptor in message.DESCRIPTOR.fields:
        value = getattr(message, descriptor.name)
        if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
            kind = descriptor.message_type.fields_by_name["value"]
            fields[descriptor.name] = {key: _value(kind, item) for key, item in value.items()}
        elif descriptor.label == FieldDescriptor.LABEL_REPEATED:
            fields[descriptor.name] = [_value(descriptor, item) for item in value]
        elif not descriptor.has_presence or message.HasField(descriptor.name):
            fields[descriptor.name] = _value(descriptor, value)
    return fields


def _value(descriptor: FieldDescriptor, value: Any) -> Any:
    if descriptor.message_type:
        return as_json(value)
    if descriptor.enum_type:
        return descriptor.enum_type.values_by_number[value].name
    return value
