from __future__ import annotations

import pytest
from support.builders import MLP

from tuner.config.config import ModelConfig
from tuner.search.twin.scheduling import Scheduling, why_not_simulated


def of(more: str) -> Scheduling:
    return Scheduling.of(ModelConfig.parse(MLP + more, "config.pbtxt").proto)


def test_a_config_is_read() -> None:
    assert of("") == Scheduling(1, 32)
    batching = "dynamic_batching { preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 500 }"
    assert of(batching) == Scheduling(1, 32, dynamic_batching=True, preferred=(4, 8), delay_us=500)


def test_what_triton_prefers_by_itself_is_no_preference() -> None:
    assert of("dynamic_batching { preferred_batch_size: 32 }") == of("dynamic_batching { }")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("", ""),
        ("dynamic_batching { preserve_ordering: true }", ""),
        ("sequence_batching {}", "it batches sequences"),
        ("model_transaction_policy { decoupled: true }", "it is decoupled (any number of responses to a request)"),
        ("response_cache { enable: true }", "it uses the response cache"),
        ("dynamic_batching { priority_levels: 2 default_priority_level: 1 }", "its requests have priorities"),
        ("dynamic_batching { default_queue_policy { max_queue_size: 3 } }", "its requests have queue policies"),
        ("instance_group { kind: KIND_GPU count: 1 }", "its instance groups are of several kinds"),
        (
            "instance_group { kind: KIND_CPU rate_limiter { priority: 2 } }",
            "it uses rate_limiter resources",
        ),
    ],
)
def test_what_the_twin_does_not_know_is_said(more: str, reason: str) -> None:
    assert why_not_simulated(ModelConfig.parse(MLP + more, "config.pbtxt").proto) == reason
