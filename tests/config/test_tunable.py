from __future__ import annotations

from pathlib import Path

import pytest

from tuner.config.config import ModelConfig
from tuner.config.repository import ModelFolder, ModelRepository
from tuner.config.tunable import why_not_loadable, why_not_tunable
from tuner.core.errors import ConfigError

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
            "it is an ensemble; tune its composing models instead: pre, mlp",
        ),
        ('platform: "ensemble"', "it is an ensemble; tune its composing models instead"),
    ],
)
def test_some_models_cannot_be_tuned_and_one_line_says_why(text: str, reason: str) -> None:
    assert why_not_tunable(ModelConfig.parse(text, "f").proto) == reason


def model(folder: Path, config: str | None, *versions: str) -> ModelFolder:
    for version in versions:
        (folder / "m" / version).mkdir(parents=True)
    if config is not None:
        (folder / "m").mkdir(exist_ok=True)
        (folder / "m/config.pbtxt").write_text(config, encoding="utf-8")
    return ModelRepository.open(folder).model("m")


@pytest.mark.parametrize(
    ("config", "versions"),
    [
        (None, ["1"]),
        ('name: "m" max_batch_size: 8 dynamic_batching { preferred_batch_size: [4, 8] }', ["1", "3"]),
        ("", ["2", "2_old", "1_old"]),
        ("", ["0"]),
        ("version_policy { specific { versions: [1] } }", ["1", "2_old"]),
        ("version_policy { latest { num_versions: 2 } }", ["1_old", "2", "3"]),
        ("version_policy { all { } }", ["1", "0", "latest", "07"]),
    ],
)
def test_what_triton_loads(config: str | None, versions: list[str], tmp_path: Path) -> None:
    assert why_not_loadable(model(tmp_path, config, *versions)) is None


@pytest.mark.parametrize(
    ("config", "versions", "reason"),
    [
        ("", ["1", "2_old"], "{m}/2_old: Triton takes it for version 2, but then looks for a folder 2; rename"),
        ("version_policy { all { } }", ["2", "-4"], "{m}/-4: Triton takes it for version -4, "),
        ("version_policy { latest { num_versions: 2 } }", ["1_old", "2"], "{m}/1_old: Triton takes it for version 1, "),
        (
            "",
            ["1", "9" * 20],
            "{m}/" + "9" * 20 + ": version above 2^63 - 1, at which Triton crashes; rename the folder",
        ),
        ("", [], "{m}: no folder of a version, such as 1"),
        (
            "version_policy { specific { versions: [7] } }",
            ["1"],
            "{m}: no folder that its version_policy",
        ),
        ('name: "other"', ["1"], "{m}: its config has name 'other', which must be the folder's; write "),
        ("max_batch_size: -1", ["1"], "m: max_batch_size: must be >= 0, got -1"),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: [2, 8] }",
            ["1"],
            "m: dynamic_batching.preferred_batch_size: must be <= max_batch_size 4, got 8",
        ),
    ],
)
def test_what_triton_would_not_load_is_said_before_it_is_tried(
    config: str, versions: list[str], reason: str, tmp_path: Path
) -> None:
    told = why_not_loadable(model(tmp_path, config, *versions))
    assert told
    assert told.startswith(reason.format(m=tmp_path / "m"))


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        why_not_loadable(model(tmp_path, "max_batch_size: : 1", "1"))
