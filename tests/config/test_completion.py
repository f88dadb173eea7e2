from __future__ import annotations

import pytest
from google.protobuf import text_format
from support.builders import MLP
from tritonclient.grpc import model_config_pb2

from tuner.config.completion import (
    batching_is_completed,
    described,
    fingerprint,
    served_fingerprint,
    stated,
    why_batching_stays,
)
from tuner.config.config import ModelConfig

# What Triton 2.51 makes of a Python model with inputs, outputs and `dynamic_batching { }`, less those.
COMPLETED = """\
name: "mlp"
version_policy { latest { num_versions: 1 } }
max_batch_size: 32
instance_group { name: "mlp_0" count: 1 kind: KIND_CPU }
dynamic_batching { preferred_batch_size: 32 }
optimization { input_pinned_memory { enable: true } output_pinned_memory { enable: true } }
backend: "python"
"""
# What ONNX Runtime makes of a folder without a config.pbtxt.
ONNX = """\
name: "ocr"
platform: "onnxruntime_onnx"
backend: "onnxruntime"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 5 ] }
instance_group { name: "ocr" count: 2 kind: KIND_CPU }
dynamic_batching { preferred_batch_size: 4 }
"""


def config(text: str) -> ModelConfig:
    return ModelConfig.parse(text, "test")


def meaning(told: ModelConfig) -> model_config_pb2.ModelConfig:
    return told.proto


def proto(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_what_core_derives_is_not_stated() -> None:
    own = config('backend: "python" max_batch_size: 32 dynamic_batching { }')
    assert meaning(stated(config(COMPLETED), own)) == proto(
        'max_batch_size: 32 instance_group { count: 1 kind: KIND_CPU } dynamic_batching { } backend: "python"'
    )


def test_what_the_file_says_itself_is_stated_though_core_would_derive_the_same() -> None:
    assert meaning(stated(config(COMPLETED), config(COMPLETED))) == proto(COMPLETED)


def test_what_a_backend_completes_is_stated() -> None:
    told = stated(config(ONNX), None).proto
    assert told.max_batch_size == 4
    assert told.HasField("dynamic_batching")
    assert list(told.dynamic_batching.preferred_batch_size) == []
    assert [each.name for each in told.input] == ["x"]


def test_preferred_sizes_of_sequences_and_their_idle_time_are_derived() -> None:
    effective = config(
        "max_batch_size: 8\n"
        "sequence_batching { oldest { preferred_batch_size: 8 } max_sequence_idle_microseconds: 1000000 }"
    )
    own = config("max_batch_size: 8 sequence_batching { oldest { } }")
    assert meaning(stated(effective, own)) == proto(own.text)
    long = config("sequence_batching { max_sequence_idle_microseconds: 5000000 }")
    assert meaning(stated(long, long)) == proto(long.text)


def test_sizes_that_are_not_the_limit_alone_are_nobodys_derivation() -> None:
    effective = config("max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 4, 8 ] }")
    assert stated(effective, None) is effective


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MLP + "dynamic_batching { }", MLP + "dynamic_batching { preferred_batch_size: [ 32 ] }"),
        (MLP + "dynamic_batching { max_queue_delay_microseconds: 0 }", MLP + "# a comment\ndynamic_batching { }"),
        ("max_batch_size: 8", 'name: "x" max_batch_size: 8 version_policy { latest { num_versions: 1 } }'),
        ("", "optimization { input_pinned_memory { enable: true } }"),
        (
            'backend: "python" max_batch_size: 32 dynamic_batching { } instance_group { count: 1 kind: KIND_CPU }',
            COMPLETED,
        ),
    ],
)
def test_of_equal_configs_one_fingerprint(one: str, other: str) -> None:
    assert fingerprint(config(one)) == fingerprint(config(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MLP, MLP + "dynamic_batching { }"),
        (MLP + "dynamic_batching { }", MLP + "dynamic_batching { preferred_batch_size: [ 16 ] }"),
        ("new_field: 1", "new_field: 2"),
    ],
)
def test_of_unlike_configs_two(one: str, other: str) -> None:
    assert fingerprint(config(one)) != fingerprint(config(other))


def test_a_server_does_not_tell_of_fields_that_the_schema_here_does_not_know() -> None:
    effective = config(MLP)
    one, other = config(MLP + "new_field: 1\n"), config(MLP + "new_field: 2\n")
    assert served_fingerprint(effective, one) != served_fingerprint(effective, other)
    assert served_fingerprint(effective, config(MLP + "# no field\n")) == fingerprint(effective)


def test_completed_batching_goes_where_a_backend_leaves_described_models_as_they_are() -> None:
    own, effective = config('backend: "onnxruntime"  # fast\nmax_batch_size: 16'), config(ONNX)
    assert batching_is_completed(effective, own)
    assert why_batching_stays(effective, own) == ""
    told = described(own, effective)
    assert told.text.startswith(own.text + "\n")
    assert meaning(told) == proto(
        'backend: "onnxruntime" max_batch_size: 16 '
        'input { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 5 ] }'
    )
    # Without a limit of its own, one that leaves nothing to be completed would not batch at all.
    assert described(config('backend: "onnxruntime"'), effective).proto.max_batch_size == 4


def test_completed_batching_that_no_file_switches_off() -> None:
    assert not batching_is_completed(config(ONNX), config("dynamic_batching { }"))
    python = config('backend: "python" max_batch_size: 8 dynamic_batching { }')
    assert why_batching_stays(python, config("max_batch_size: 8")) == "the model's auto_complete_config switches it on"
    own = config(MLP.replace("python", "other"))
    assert why_batching_stays(config(own.text + "dynamic_batching { }"), own) == "the backend other switches it on"
