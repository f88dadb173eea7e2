"""The fields that Triton completes when it loads a config.

Triton's core derives some values from other fields, for every backend: an empty `preferred_batch_size` becomes
`[max_batch_size]`, and so on (`NormalizeModelConfig` in model_config_utils.cc). Derived values change with those
fields. A backend, or a Python model's `auto_complete_config`, may complete more: inputs, outputs, `max_batch_size` and
`dynamic_batching`. These values count as if the user had written them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tuner.config.config import ModelConfig

_SEQUENCE_IDLE_US = 1_000_000
_PINNED = ("input_pinned_memory", "output_pinned_memory")
# If one of these is missing, ONNX Runtime, OpenVINO and TensorFlow complete other fields, too.
_TENSORS = ("input", "output")


def stated(effective: ModelConfig, own: ModelConfig | None) -> ModelConfig:
    """An effective config without values that Triton's core derives from other fields.

    Args:
        effective: The config as the server completed it.
        own: The launched config, whose values are kept. None: the model had no file.
    """
    config = effective.proto
    said = own.proto if own else model_config_pb2.ModelConfig()
    for message, also in _with_preferred_sizes(config, said):
        if list(message.preferred_batch_size) == [config.max_batch_size] and not also.preferred_batch_size:
            message.ClearField("preferred_batch_size")
    _without_defaults(config, said)
    if not said.name:
        config.ClearField("name")
    for place, group in enumerate(config.instance_group):
        if place >= len(said.instance_group) or not said.instance_group[place].name:
            group.ClearField("name")
    return effective if config == effective.proto else ModelConfig.parse(_text(config), effective.source)


def fingerprint(config: ModelConfig) -> str:
    """A hash that is equal for configs with the same effective config, completed or not."""
    proto = config.proto
    _derive(proto)
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    if config.unknown_fields:
        # Unknown fields are compared by text.
        digest.update(config.text.encode())
    return digest.hexdigest()


def served_fingerprint(effective: ModelConfig, launched: ModelConfig) -> str:
    """The fingerprint of the launched config if it has unknown fields, else of the effective config."""
    return fingerprint(launched) if launched.unknown_fields else fingerprint(effective)


def batching_is_completed(effective: ModelConfig, own: ModelConfig) -> bool:
    """Whether Triton added dynamic batching that the file does not have."""
    return effective.proto.HasField("dynamic_batching") and not own.proto.HasField("dynamic_batching")


def why_batching_stays(effective: ModelConfig, own: ModelConfig) -> str:
    """Why the file cannot switch off dynamic batching that Triton adds; empty: `described` may switch it off."""
    config, said = effective.proto, own.proto
    if config.backend == "python":
        return "the model's auto_complete_config switches it on"
    if all(getattr(said, name) for name in _TENSORS):
        return f"the backend {config.backend or config.platform} switches it on"
    return ""


def described(own: ModelConfig, effective: ModelConfig) -> ModelConfig:
    """A config with inputs, outputs and `max_batch_size`, which backends then do not complete.

    Source: `ModelState::AutoCompleteConfig` of the ONNX Runtime backend: "inputs and outputs already specified".
    """
    said, completed = own.proto, effective.proto
    missing = model_config_pb2.ModelConfig()
    if not own.holds("max_batch_size"):
        missing.max_batch_size = completed.max_batch_size
    for name in _TENSORS:
        if not getattr(said, name):
            getattr(missing, name).MergeFrom(getattr(completed, name))
    newline = "" if not own.text or own.text.endswith("\n") else "\n"
    return ModelConfig.parse(f"{own.text}{newline}{_text(missing)}", own.source)


def _without_defaults(config: model_config_pb2.ModelConfig, said: model_config_pb2.ModelConfig) -> None:
    """Remove the defaults that Triton's core gave to unset fields."""
    idle = "max_sequence_idle_microseconds"
    sequences = config.sequence_batching
    if getattr(sequences, idle) == _SEQUENCE_IDLE_US and not getattr(said.sequence_batching, idle):
        sequences.ClearField(idle)
    if config.HasField("optimization") and not said.HasField("optimization"):
        for name in _PINNED:
            config.optimization.ClearField(name)
        if not config.optimization.ListFields():
            config.ClearField("optimization")
    if not said.HasField("version_policy") and config.version_policy.latest.num_versions == 1:
        config.ClearField("version_policy")


def _with_preferred_sizes(config: Any, said: Any) -> Iterator[tuple[Any, Any]]:
    """Each message of a config that has preferred batch sizes, with its counterpart in another config."""
    if config.HasField("dynamic_batching"):
        yield config.dynamic_batching, said.dynamic_batching
    if config.sequence_batching.HasField("oldest"):
        yield config.sequence_batching.oldest, said.sequence_batching.oldest


def _derive(config: model_config_pb2.ModelConfig) -> None:
    """Complete a config as core does, and remove names, which have no effect."""
    for message, _ in _with_preferred_sizes(config, config):
        if not message.preferred_batch_size and config.max_batch_size > 0:
            message.preferred_batch_size.append(config.max_batch_size)
    if config.HasField("sequence_batching") and not config.sequence_batching.max_sequence_idle_microseconds:
        config.sequence_batching.max_sequence_idle_microseconds = _SEQUENCE_IDLE_US
    if not config.HasField("ensemble_scheduling"):
        for name in _PINNED:
            if not config.optimization.HasField(name):
                getattr(config.optimization, name).enable = True
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    config.ClearField("name")
    for group in config.instance_group:
        group.ClearField("name")


def _text(config: model_config_pb2.ModelConfig) -> str:
    return text_format.MessageToString(config, as_utf8=True, use_short_repeated_primitives=True)
