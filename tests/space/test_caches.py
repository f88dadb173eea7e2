from __future__ import annotations

import pytest
from support.effective import EFFECTIVE

from tuner.config.config import ModelConfig
from tuner.space.caches import with_caches

ACCELERATOR = (
    "optimization { execution_accelerators { gpu_execution_accelerator [ "
    '{ name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } } ] } }\n'
)


def _parameters(text: str) -> dict[str, str]:
    (accelerator,) = ModelConfig.parse(text, "c").proto.optimization.execution_accelerators.gpu_execution_accelerator
    return dict(accelerator.parameters)


def test_tensorrt_of_onnx_runtime_keeps_its_engines() -> None:
    made = with_caches(EFFECTIVE["onnxruntime gpu"] + ACCELERATOR, "/run/caches")
    assert made.startswith(EFFECTIVE["onnxruntime gpu"])
    assert _parameters(made) == {
        "precision_mode": "FP16",
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": "/run/caches",
        "trt_timing_cache_enable": "true",
        "trt_timing_cache_path": "/run/caches",
    }
    assert with_caches(made, "/another") == made


def test_the_users_own_settings_stay() -> None:
    own = ACCELERATOR.replace('"precision_mode" value: "FP16"', '"trt_engine_cache_path" value: "/mine"')
    parameters = _parameters(with_caches(EFFECTIVE["onnxruntime gpu"] + own, "/run/caches"))
    assert parameters["trt_engine_cache_path"] == "/mine"
    assert parameters["trt_timing_cache_path"] == "/run/caches"


@pytest.mark.parametrize("key", ["onnxruntime gpu", "tensorrt", "python"])
def test_without_the_accelerator_nothing_changes(key: str) -> None:
    assert with_caches(EFFECTIVE[key], "/run/caches") == EFFECTIVE[key]


def test_other_accelerators_have_no_engines() -> None:
    config = EFFECTIVE["onnxruntime gpu"] + ACCELERATOR.replace("tensorrt", "cuda")
    assert with_caches(config, "/run/caches") == config
    config = EFFECTIVE["tensorflow gpu"] + ACCELERATOR
    assert with_caches(config, "/run/caches") == config
