"""The number of instances of a model."""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2


def instance_count(effective: model_config_pb2.ModelConfig) -> int:
    """The number of instances that execute requests, by an effective config; 0 for an ensemble, which has none.

    A group has `count` instances on each of its GPUs (Triton's model configuration, "Instance Groups"). Instances of a
    passive group execute no requests.
    """
    groups = (group for group in effective.instance_group if not group.passive)
    return sum(group.count * max(1, len(group.gpus)) for group in groups)
