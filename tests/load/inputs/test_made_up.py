from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.errors import InputError
from tuner.load.inputs import made_up
from tuner.load.inputs.made_up import make_inputs, pool_of
from tuner.load.inputs.tensors import InputTensor

INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")


def interface(*inputs: Tensor, max_batch_size: int = 8) -> ModelInterface:
    return ModelInterface(name="bert", max_batch_size=max_batch_size, inputs=inputs, outputs=())


def made(model: ModelInterface, shapes: Mapping[str, tuple[int, ...]] = {}, **options: Any) -> InputTensor:
    """The one input of one request."""
    (step,) = make_inputs(model, shapes=shapes, pool=1, seed=0, **options)
    (tensor,) = step.inputs
    return tensor


def refusal(model: ModelInterface, *, batch_size: int = 1, **shapes: tuple[int, ...]) -> str:
    with pytest.raises(InputError) as raised:
        make_inputs(model, shapes=shapes, pool=1, seed=0, batch_size=batch_size)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("BOOL", np.bool_),
        *((name, np.dtype(name.lower())) for name in INTEGERS),
        ("FP16", np.float16),
        ("FP32", np.float32),
        ("FP64", np.float64),
        ("BF16", np.uint16),
        ("BYTES", np.object_),
    ],
)
def test_makes_each_datatype_with_the_batch_in_front(datatype: str, dtype: np.dtype[np.generic]) -> None:
    tensor = made(interface(Tensor("X", datatype, (3, 4))))
    assert (tensor.name, tensor.datatype) == ("X", datatype)
    assert tensor.shape == (1, 3, 4)
    assert tensor.values.dtype == dtype


def test_a_request_carries_as_many_inferences_as_asked() -> None:
    tensor = made(interface(Tensor("X", "FP32", (3,))), batch_size=8)
    assert tensor.shape == (8, 3)
    assert len(np.unique(tensor.values)) == 24


def test_a_model_without_batching_gets_no_batch_dimension() -> None:
    tensor = made(interface(Tensor("X", "FP32", (3,)), max_batch_size=0))
    assert tensor.shape == (3,)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_floats_lie_between_0_and_1_and_differ(datatype: str) -> None:
    tensor = made(interface(Tensor("X", datatype, (20_000,))))
    assert 0 <= tensor.values.min() < 0.01
    assert 0.99 < tensor.values.max() < 1
    assert len(np.unique(tensor.values)) > 1_000


def test_bf16_holds_the_upper_half_of_floats_between_0_and_1() -> None:
    tensor = made(interface(Tensor("X", "BF16", (20_000,))))
    floats = (tensor.values.astype(np.uint32) << 16).view(np.float32)
    assert 0 <= floats.min() < 0.01
    assert 0.98 < floats.max() < 1


@pytest.mark.parametrize("datatype", ["BOOL", *INTEGERS])
def test_integers_are_0_or_1_so_that_they_are_valid_as_token_type_and_mask(datatype: str) -> None:
    tensor = made(interface(Tensor("X", datatype, (100,))))
    assert set(tensor.values.reshape(-1).tolist()) == {0, 1}


def test_bytes_are_short_ascii() -> None:
    tensor = made(interface(Tensor("X", "BYTES", (2, 2))))
    texts = tensor.values.reshape(-1).tolist()
    assert all(isinstance(text, bytes) and text.isalpha() and len(text) == 8 for text in texts)
    assert len(set(texts)) == 4


def test_bytes_are_as_long_as_asked() -> None:
    texts = made(interface(Tensor("X", "BYTES", (3,))), string_length=20).values.reshape(-1).tolist()
    assert [len(text) for text in texts] == [20, 20, 20]
    assert len(set(texts)) == 3
    assert made(interface(Tensor("X", "BYTES", (2,))), string_length=0).values.reshape(-1).tolist() == [b"", b""]


@pytest.mark.parametrize("zero", [False, True])
def test_bytes_are_the_one_text_that_is_given(*, zero: bool) -> None:
    tensor = made(interface(Tensor("X", "BYTES", (2, 2))), string_data="é", string_length=20, zero=zero)
    assert tensor.values.reshape(-1).tolist() == ["é".encode()] * 4


@pytest.mark.parametrize("datatype", ["BOOL", *INTEGERS, "FP16", "FP32", "FP64", "BF16"])
def test_zeros_are_zero_in_every_request(datatype: str) -> None:
    model = interface(Tensor("X", datatype, (2, 3)))
    pool = make_inputs(model, shapes={}, pool=3, seed=0, zero=True, batch_size=2)
    assert len(pool) == 3
    for step in pool:
        assert step.inputs[0].shape == (2, 2, 3)
        assert step.inputs[0].values.dtype == made(model).values.dtype
        assert not step.inputs[0].values.any()


def test_zero_texts_are_empty() -> None:
    assert made(interface(Tensor("X", "BYTES", (2,))), zero=True).values.tolist() == [[b"", b""]]


def test_nothing_is_expected_of_the_answers() -> None:
    (step,) = make_inputs(interface(Tensor("X", "FP32", (8,))), shapes={}, pool=1, seed=1)
    assert step.expected == ()


def test_each_request_of_the_pool_is_fresh_and_the_seed_repeats_it() -> None:
    model = interface(Tensor("X", "FP32", (8,)), Tensor("Y", "INT64", (32,)))
    pool = make_inputs(model, shapes={}, pool=5, seed=1)
    again = make_inputs(model, shapes={}, pool=5, seed=1)
    other = make_inputs(model, shapes={}, pool=5, seed=2)
    seen = [request.inputs[0].raw() for request in pool]
    assert len(set(seen)) == 5
    assert seen == [request.inputs[0].raw() for request in again]
    assert not set(seen) & {request.inputs[0].raw() for request in other}


def test_a_shape_fills_variable_dimensions() -> None:
    model = interface(Tensor("TOKENS", "INT32", (-1, 128)))
    tensor = made(model, {"TOKENS": (7, 128)})
    assert tensor.shape == (1, 7, 128)


def test_a_shape_that_says_what_the_config_says_is_welcome() -> None:
    tensor = made(interface(Tensor("X", "FP32", (3, 4))), {"X": (3, 4)})
    assert tensor.shape == (1, 3, 4)


def test_optional_inputs_are_left_out_unless_a_shape_is_given() -> None:
    model = interface(Tensor("X", "FP32", (4,)), Tensor("MASK", "BOOL", (-1,), optional=True))
    (without,) = make_inputs(model, shapes={}, pool=1, seed=0)
    (with_mask,) = make_inputs(model, shapes={"MASK": (4,)}, pool=1, seed=0)
    assert [tensor.name for tensor in without.inputs] == ["X"]
    assert [tensor.name for tensor in with_mask.inputs] == ["X", "MASK"]


def test_a_variable_dimension_without_a_shape_is_asked_for() -> None:
    assert refusal(interface(Tensor("TOKENS", "INT32", (-1, 128)))) == (
        "input 'TOKENS' of model 'bert' has variable shape [-1, 128]; set it by --shape TOKENS:D1,128"
    )
    assert refusal(interface(Tensor("T", "INT32", (-1, 3, -1)))).endswith("--shape T:D1,3,D3")


def test_a_shape_for_an_unknown_input_names_the_nearest() -> None:
    message = refusal(interface(Tensor("TOKENS", "INT32", (-1,))), TOKEN=(3,))
    assert message == "model 'bert' has no input 'TOKEN'; did you mean 'TOKENS'?"


def test_a_shape_of_the_wrong_rank_is_refused_and_the_batch_dimension_explained() -> None:
    message = refusal(interface(Tensor("T", "INT32", (-1,))), T=(1, 128))
    assert message == (
        "--shape T:1,128: wrong number of dimensions; "
        "input 'T' of model 'bert' has shape [-1] (without the batch dimension)"
    )
    assert "batch" not in refusal(interface(Tensor("T", "INT32", (-1,)), max_batch_size=0), T=(1, 128))


def test_a_shape_that_contradicts_a_fixed_dimension_is_refused() -> None:
    message = refusal(interface(Tensor("T", "INT32", (-1, 128))), T=(4, 64))
    assert "[-1, 128]" in message
    assert message.startswith("--shape T:4,64: ")


def test_a_batch_that_the_model_does_not_take_is_refused() -> None:
    assert refusal(interface(Tensor("T", "INT32", (4,))), batch_size=9) == (
        "batch size must be <= 8 (max_batch_size of model 'bert'), got 9"
    )


def test_what_no_memory_holds_is_refused() -> None:
    for dims in ((2**62,), (2**62, 2**62)):
        message = refusal(interface(Tensor("T", "FP32", (-1,) * len(dims))), T=dims)
        assert message == f"not enough memory for requests to model 'bert' with T {[1, *dims]}"


def test_a_datatype_without_values_is_refused() -> None:
    assert "datatype INVALID" in refusal(interface(Tensor("T", "INVALID", (4,))))


@given(
    shape=st.lists(st.integers(1, 4) | st.just(-1), max_size=4).map(tuple),
    fill=st.integers(1, 5),
    batch=st.sampled_from([(), (1,), (3,)]),
)
def test_whatever_fits_the_config_is_made_as_asked(shape: tuple[int, ...], fill: int, batch: tuple[int, ...]) -> None:
    asked = tuple(fill if dim == -1 else dim for dim in shape)
    model = interface(Tensor("X", "UINT8", shape), max_batch_size=4 if batch else 0)
    tensor = made(model, {"X": asked}, batch_size=math.prod(batch))
    assert tensor.shape == batch + asked


@pytest.mark.parametrize(
    ("size", "pool"), [(16, 16), (16 << 20, 16), (17 << 20, 15), (200 << 20, 1), (5 << 30, 1), (0, 16)]
)
def test_of_large_requests_there_are_fewer(size: int, pool: int) -> None:
    assert pool_of(size, 16) == pool


def test_the_pool_is_bound_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_up, "_POOL_BYTES", 100)
    model = interface(Tensor("X", "FP32", (5,)), Tensor("T", "BYTES", (1,)))
    # 20 bytes of floats, and 4 and 8 of a text; or 4 and none.
    assert len(make_inputs(model, shapes={}, pool=16, seed=0)) == 100 // 32
    assert len(make_inputs(model, shapes={}, pool=16, seed=0, zero=True)) == 100 // 24
    assert len(make_inputs(model, shapes={}, pool=16, seed=0, string_data="abc")) == 100 // 27


def test_the_size_is_that_of_the_request() -> None:
    sizes: list[int] = []
    model = interface(Tensor("X", "FP64", (5,)), Tensor("B", "BF16", (3,)), Tensor("T", "BYTES", (2,)))
    stream = make_inputs(model, shapes={}, pool=1, seed=0, batch_size=4, check_size=sizes.append)
    assert sizes == [sum(len(tensor.raw()) for tensor in stream[0].inputs)]


def test_a_request_that_is_too_large_is_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(size: int) -> None:
        raise InputError(f"{size} bytes")

    monkeypatch.setattr(made_up, "_values", lambda *_: pytest.fail("values were made"))
    with pytest.raises(InputError, match="^2400000000 bytes$"):
        make_inputs(
            interface(Tensor("X", "FP32", (-1,))), shapes={"X": (600_000_000,)}, pool=16, seed=0, check_size=refuse
        )


def test_what_memory_cannot_hold_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_up, "_values", lambda *_: pytest.fail("values were made"))
    said = refusal(interface(Tensor("X", "FP32", (-1,))), X=(10**12,))
    assert said == "not enough memory for requests to model 'bert' with X [1, 1000000000000]"
