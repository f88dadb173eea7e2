"""How many instances of a model share its work."""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2


def instance_count(effective: model_config_pb2.ModelConfig) -> int:
    """Instances that execute requests, by an effective config; 0 where it names none, as an ensemble.

    A group has `count` of them on each of its GPUs (Triton's model configuration, "Instance Groups"); those of a
    passive group are given no request.
    """
    groups = (group for group in effective.instance_group if not group.passive)
    return sum(group.count * max(1, len(group.gpus)) for group in groups)
