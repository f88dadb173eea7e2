from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tuner.config.config import ModelConfig
from tuner.config.warmup import WarmUpInput, why_no_warm_up, with_warm_up

OWN = 'max_batch_size: 64  # the most\nbackend: "python"'
IMAGE = (WarmUpInput(name="IMAGE", data_type="TYPE_FP32", dims=(3, 224, 224)),)
TEXT = (
    WarmUpInput(name='a "quoted" name', data_type="TYPE_STRING", dims=(1,)),
    WarmUpInput(name="LENGTH", data_type="TYPE_INT64", dims=()),
)


def proto(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_every_other_byte_stays() -> None:
    config = with_warm_up(ModelConfig.parse(OWN, "own"), proto(OWN), [IMAGE], batch_size=1)
    assert config.text.startswith(OWN + "\nmodel_warmup {\n")
    assert config.text.endswith("}\n")


@pytest.mark.parametrize(
    ("batching", "request_size", "sizes"),
    [
        ("max_batch_size: 0", 1, [1]),
        # Without dynamic batching, each request is executed alone.
        ("max_batch_size: 64", 1, [1]),
        ("max_batch_size: 64", 4, [4]),
        ("max_batch_size: 64 dynamic_batching {}", 1, [1, 64]),
        ("max_batch_size: 64 dynamic_batching {}", 64, [64]),
        ("max_batch_size: 1 dynamic_batching {}", 1, [1]),
        ("max_batch_size: 64 dynamic_batching { preferred_batch_size: [16, 8] }", 1, [1, 8, 16, 64]),
        ("max_batch_size: 64 dynamic_batching { preferred_batch_size: [1, 2, 4, 64] }", 2, [2, 4, 64]),
        ("max_batch_size: 64 dynamic_batching { preferred_batch_size: [2, 4, 8, 16, 32] }", 1, [1, 16, 32, 64]),
    ],
)
def test_the_batch_sizes_that_matter(batching: str, request_size: int, sizes: list[int]) -> None:
    config = with_warm_up(ModelConfig.parse(OWN, "own"), proto(batching), [IMAGE], batch_size=request_size)
    assert [entry.batch_size for entry in config.proto.model_warmup] == sizes
    assert all(entry.inputs["IMAGE"].zero_data for entry in config.proto.model_warmup)


def test_each_shape_has_entries_with_names_of_their_own() -> None:
    shapes = [IMAGE, (IMAGE[0].model_copy(update={"dims": (3, 64, 64)}),), TEXT]
    config = with_warm_up(ModelConfig.parse(OWN, "own"), proto(f"{OWN} dynamic_batching {{}}"), shapes, batch_size=1)
    entries = list(config.proto.model_warmup)
    assert len({entry.name for entry in entries}) == len(entries) == 6
    assert [list(entry.inputs["IMAGE"].dims) for entry in entries[:4:2]] == [[3, 224, 224], [3, 64, 64]]
    texts = entries[4].inputs
    assert texts['a "quoted" name'].data_type == model_config_pb2.TYPE_STRING
    assert list(texts["LENGTH"].dims) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model_warmup { name: 'own' batch_size: 1 }", "of its own"),
        ("ensemble_scheduling { }", "ensemble"),
        ("sequence_batching { oldest { } }", "sequences"),
    ],
)
def test_why_none_can_be_made(text: str, reason: str) -> None:
    assert reason in why_no_warm_up(proto(text))


@pytest.mark.parametrize("text", ["", "dynamic_batching { }", "model_transaction_policy { decoupled: true }"])
def test_it_can_be_made_for_others(text: str) -> None:
    assert not why_no_warm_up(proto(text))
