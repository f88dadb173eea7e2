from __future__ import annotations

import pytest

from tuner.config.config import ModelConfig
from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError

TEXT = """\
name: "mlp"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 3, -1 ] }, { name: "S" data_type: TYPE_STRING optional: true } ]
output { name: "Y" data_type: TYPE_BF16 dims: 1 }
"""


def of(text: str) -> ModelInterface:
    return ModelInterface.of(ModelConfig.parse(text, "f").proto)


def test_it_is_what_the_config_says() -> None:
    assert of(TEXT) == ModelInterface(
        name="mlp",
        max_batch_size=8,
        inputs=(Tensor("X", "FP32", (3, -1)), Tensor("S", "BYTES", (), optional=True)),
        outputs=(Tensor("Y", "BF16", (1,)),),
    )


def test_with_a_max_batch_size_requests_carry_a_batch() -> None:
    assert of(TEXT).batched


def test_without_a_max_batch_size_requests_carry_no_batch() -> None:
    assert not of("name: 'x' max_batch_size: 0").batched
    assert not of("name: 'x'").batched


def test_a_data_type_of_a_newer_triton_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^X: data type 99 is unknown to the installed tritonclient$"):
        of("input { name: 'X' data_type: 99 }")
