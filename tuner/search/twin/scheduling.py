"""The parameters of Triton's scheduler that the simulator models."""

from __future__ import annotations

from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from tuner.config.instances import instance_count
from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE, PREFERRED_BATCH_SIZE

QUEUE_DELAY = "dynamic_batching.max_queue_delay_microseconds"
FIELDS = frozenset({DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE, PREFERRED_BATCH_SIZE, QUEUE_DELAY})
"""The fields that the simulator models; the effect of any other field is learnt from trials."""


@dataclass(frozen=True)
class Scheduling:
    """How Triton assigns requests to instances.

    Attributes:
        instances: Number of model instances.
        max_batch_size: The most inferences in one execution.
        dynamic_batching: Whether requests are batched; else each is executed alone.
        preferred: Batch sizes that start at once (`preferred_batch_size`); empty: `max_batch_size` only.
        delay_us: The longest wait of a request for others, in microseconds (`max_queue_delay_microseconds`).
    """

    instances: int
    max_batch_size: int = 1
    dynamic_batching: bool = False
    preferred: tuple[int, ...] = ()
    delay_us: int = 0

    @classmethod
    def of(cls, config: model_config_pb2.ModelConfig) -> Scheduling:
        """The scheduling of a config; `why_not_simulated` says for which configs it is complete."""
        batching = config.dynamic_batching
        preferred = tuple(sorted(batching.preferred_batch_size))
        return cls(
            instances=instance_count(config),
            max_batch_size=max(1, config.max_batch_size),
            dynamic_batching=config.HasField("dynamic_batching") and config.max_batch_size > 0,
            # Without preferred sizes, the largest size is the preferred one.
            preferred=() if preferred == (config.max_batch_size,) else preferred,
            delay_us=batching.max_queue_delay_microseconds,
        )


def why_not_simulated(config: model_config_pb2.ModelConfig) -> str:
    """Why the simulator cannot model the scheduler of a config; empty: it can."""
    batching = config.dynamic_batching
    kinds = {group.kind for group in config.instance_group}
    unknown = {
        "it batches sequences": config.HasField("sequence_batching"),
        "it is an ensemble": config.HasField("ensemble_scheduling"),
        "it is decoupled (any number of responses to a request)": config.model_transaction_policy.decoupled,
        "it uses the response cache": config.response_cache.enable,
        "its requests have priorities": batching.priority_levels > 0,
        "its requests have queue policies": batching.HasField("default_queue_policy"),
        "it uses rate_limiter resources": any(g.HasField("rate_limiter") for g in config.instance_group),
        "its instance groups are of several kinds": len(kinds) > 1,
    }
    return next((reason for reason, applies in unknown.items() if applies), "")
