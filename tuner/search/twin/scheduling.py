"""What Triton's scheduler goes by, as far as the twin knows its rules."""

from __future__ import annotations

from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from tuner.config.instances import instance_count
from tuner.space.bounds import DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE, PREFERRED_BATCH_SIZE

QUEUE_DELAY = "dynamic_batching.max_queue_delay_microseconds"
FIELDS = frozenset({DYNAMIC_BATCHING, INSTANCE_COUNT, MAX_BATCH_SIZE, PREFERRED_BATCH_SIZE, QUEUE_DELAY})
"""The fields whose effect the twin knows; what any other does it can only be shown."""


@dataclass(frozen=True)
class Scheduling:
    """How requests come to instances.

    Attributes:
        instances: That share the work.
        max_batch_size: The most inferences in one execution.
        dynamic_batching: Whether requests are put together; if not, each is an execution of its own.
        preferred: Sizes at which a batch goes at once; none: `max_batch_size` is the one.
        delay_us: How long a request may wait for others.
    """

    instances: int
    max_batch_size: int = 1
    dynamic_batching: bool = False
    preferred: tuple[int, ...] = ()
    delay_us: int = 0

    @classmethod
    def of(cls, config: model_config_pb2.ModelConfig) -> Scheduling:
        """That of a config; see `why_not_simulated` for which it can be told."""
        batching = config.dynamic_batching
        preferred = tuple(sorted(batching.preferred_batch_size))
        return cls(
            instances=instance_count(config),
            max_batch_size=max(1, config.max_batch_size),
            dynamic_batching=config.HasField("dynamic_batching") and config.max_batch_size > 0,
            # The limit alone is what Triton prefers where nothing is named.
            preferred=() if preferred == (config.max_batch_size,) else preferred,
            delay_us=batching.max_queue_delay_microseconds,
        )


def why_not_simulated(config: model_config_pb2.ModelConfig) -> str:
    """What of a config the twin does not know the rules of, in words; empty: nothing."""
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
