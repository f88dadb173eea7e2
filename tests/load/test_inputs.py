from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import InputError
from tuner.load.inputs import make_inputs
from tuner.models.interface import ModelInterface, Tensor

INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")


def interface(*inputs: Tensor, batched: bool = True) -> ModelInterface:
    return ModelInterface(name="bert", batched=batched, inputs=inputs, outputs=())


def refusal(model: ModelInterface, **shapes: tuple[int, ...]) -> str:
    with pytest.raises(InputError) as raised:
        make_inputs(model, shapes=shapes, pool=1, seed=0)
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
    (request,) = make_inputs(interface(Tensor("X", datatype, (3, 4))), shapes={}, pool=1, seed=0)
    assert [(tensor.name, tensor.datatype) for tensor in request] == [("X", datatype)]
    assert request[0].values.shape == (1, 3, 4)
    assert request[0].values.dtype == dtype


def test_a_model_without_batching_gets_no_batch_dimension() -> None:
    ((tensor,),) = make_inputs(interface(Tensor("X", "FP32", (3,)), batched=False), shapes={}, pool=1, seed=0)
    assert tensor.values.shape == (3,)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_floats_lie_between_0_and_1_and_differ(datatype: str) -> None:
    ((tensor,),) = make_inputs(interface(Tensor("X", datatype, (20_000,))), shapes={}, pool=1, seed=0)
    assert 0 <= tensor.values.min() < 0.01
    assert 0.99 < tensor.values.max() < 1
    assert len(np.unique(tensor.values)) > 1_000


def test_bf16_holds_the_upper_half_of_floats_between_0_and_1() -> None:
    ((tensor,),) = make_inputs(interface(Tensor("X", "BF16", (20_000,))), shapes={}, pool=1, seed=0)
    floats = (tensor.values.astype(np.uint32) << 16).view(np.float32)
    assert 0 <= floats.min() < 0.01
    assert 0.98 < floats.max() < 1


@pytest.mark.parametrize("datatype", ["BOOL", *INTEGERS])
def test_integers_are_0_or_1_so_that_they_are_valid_as_token_type_and_mask(datatype: str) -> None:
    ((tensor,),) = make_inputs(interface(Tensor("X", datatype, (100,))), shapes={}, pool=1, seed=0)
    assert set(tensor.values.reshape(-1).tolist()) == {0, 1}


def test_bytes_are_short_ascii() -> None:
    ((tensor,),) = make_inputs(interface(Tensor("X", "BYTES", (2, 2))), shapes={}, pool=1, seed=0)
    texts = tensor.values.reshape(-1).tolist()
    assert all(isinstance(text, bytes) and text.isalpha() and len(text) == 8 for text in texts)
    assert len(set(texts)) == 4


def test_each_request_of_the_pool_is_fresh_and_the_seed_repeats_it() -> None:
    model = interface(Tensor("X", "FP32", (8,)), Tensor("Y", "INT64", (32,)))
    pool = make_inputs(model, shapes={}, pool=5, seed=1)
    again = make_inputs(model, shapes={}, pool=5, seed=1)
    other = make_inputs(model, shapes={}, pool=5, seed=2)
    seen = [request[0].values.tobytes() for request in pool]
    assert len(set(seen)) == 5
    assert seen == [request[0].values.tobytes() for request in again]
    assert not set(seen) & {request[0].values.tobytes() for request in other}


def test_a_shape_fills_variable_dimensions() -> None:
    model = interface(Tensor("TOKENS", "INT32", (-1, 128)))
    ((tensor,),) = make_inputs(model, shapes={"TOKENS": (7, 128)}, pool=1, seed=0)
    assert tensor.values.shape == (1, 7, 128)


def test_a_shape_that_says_what_the_config_says_is_welcome() -> None:
    ((tensor,),) = make_inputs(interface(Tensor("X", "FP32", (3, 4))), shapes={"X": (3, 4)}, pool=1, seed=0)
    assert tensor.values.shape == (1, 3, 4)


def test_optional_inputs_are_left_out_unless_a_shape_is_given() -> None:
    model = interface(Tensor("X", "FP32", (4,)), Tensor("MASK", "BOOL", (-1,), optional=True))
    (without,) = make_inputs(model, shapes={}, pool=1, seed=0)
    (with_mask,) = make_inputs(model, shapes={"MASK": (4,)}, pool=1, seed=0)
    assert [tensor.name for tensor in without] == ["X"]
    assert [tensor.name for tensor in with_mask] == ["X", "MASK"]


def test_a_variable_dimension_without_a_shape_is_asked_for() -> None:
    assert refusal(interface(Tensor("TOKENS", "INT32", (-1, 128)))) == (
        "input 'TOKENS' of model 'bert' has shape [-1, 128]; say which with --shape TOKENS:D1,128"
    )
    assert refusal(interface(Tensor("T", "INT32", (-1, 3, -1)))).endswith("--shape T:D1,3,D3")


def test_a_shape_for_an_unknown_input_names_the_nearest() -> None:
    message = refusal(interface(Tensor("TOKENS", "INT32", (-1,))), TOKEN=(3,))
    assert message == "model 'bert' has no input 'TOKEN'; did you mean 'TOKENS'?"


def test_a_shape_of_the_wrong_rank_is_refused_and_the_batch_dimension_explained() -> None:
    message = refusal(interface(Tensor("T", "INT32", (-1,))), T=(1, 128))
    assert message == (
        "input 'T' of model 'bert' has shape [-1], so --shape T:1,128 has the wrong number of dimensions "
        "(without the batch dimension)"
    )
    assert "batch" not in refusal(interface(Tensor("T", "INT32", (-1,)), batched=False), T=(1, 128))


def test_a_shape_that_contradicts_a_fixed_dimension_is_refused() -> None:
    message = refusal(interface(Tensor("T", "INT32", (-1, 128))), T=(4, 64))
    assert "[-1, 128]" in message
    assert "--shape T:4,64 contradicts" in message


def test_a_datatype_without_values_is_refused() -> None:
    assert "datatype INVALID" in refusal(interface(Tensor("T", "INVALID", (4,))))


@given(
    shape=st.lists(st.integers(1, 4) | st.just(-1), max_size=4).map(tuple),
    fill=st.integers(1, 5),
    batch=st.sampled_from([(), (1,)]),
)
def test_whatever_fits_the_config_is_made_as_asked(shape: tuple[int, ...], fill: int, batch: tuple[int, ...]) -> None:
    asked = tuple(fill if dim == -1 else dim for dim in shape)
    model = interface(Tensor("X", "UINT8", shape), batched=bool(batch))
    ((tensor,),) = make_inputs(model, shapes={"X": asked}, pool=1, seed=0)
    assert tensor.values.shape == batch + asked
