from __future__ import annotations

import pytest

from tuner.models.config import ModelConfig
from tuner.models.tunable import why_not_tunable

STEPS = 'step { model_name: "pre" } step { model_name: "mlp" } step { model_name: "pre" }'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "max_batch_size: 0",
        "dynamic_batching { }",
        "model_transaction_policy { decoupled: true }",
        "sequence_batching { }",
        'platform: "onnxruntime_onnx"',
    ],
)
def test_most_models_can_be_tuned(text: str) -> None:
    assert why_not_tunable(ModelConfig.parse(text, "f").proto) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            f'platform: "ensemble" ensemble_scheduling {{ {STEPS} }}',
            "it is an ensemble; tune the models that it is composed of by their names: pre, mlp",
        ),
        ('platform: "ensemble"', "it is an ensemble; tune the models that it is composed of by their names"),
    ],
)
def test_some_models_cannot_be_tuned_and_one_line_says_why(text: str, reason: str) -> None:
    assert why_not_tunable(ModelConfig.parse(text, "f").proto) == reason
