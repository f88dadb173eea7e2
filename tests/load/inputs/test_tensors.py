from __future__ import annotations

import contextlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import InferInput

from tuner.core.errors import InputError
from tuner.load.inputs.tensors import DTYPES, InputTensor, dtype_of, fixed_bytes, split_texts, text_array

NUMBERS = [name for name in DTYPES if name not in ("BYTES", "BF16")]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def theirs(datatype: str, values: np.ndarray[Any, Any]) -> bytes:
    """What Triton's own client sends."""
    tensor = InferInput("X", list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    content: bytes = tensor._get_content()
    return content


@pytest.mark.parametrize("datatype", NUMBERS)
@given(data=st.data())
def test_numbers_are_laid_out_as_tritons_own_client_does(datatype: str, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(DTYPES[datatype], SHAPES))
    if data.draw(st.booleans()):
        values = values.T
    assert InputTensor("X", datatype, values).raw() == theirs(datatype, values)


@given(hnp.arrays(np.uint16, SHAPES))
def test_bf16_is_laid_out_as_tritons_own_client_does(bits: np.ndarray[Any, Any]) -> None:
    assert InputTensor("X", "BF16", bits).raw() == theirs("BF16", bits.view(ml_dtypes.bfloat16))


@given(texts=st.lists(st.binary(max_size=20), max_size=12))
def test_texts_are_laid_out_as_tritons_own_client_does(texts: list[bytes]) -> None:
    values = text_array(texts, (len(texts), 1))
    raw = InputTensor("X", "BYTES", values).raw()
    assert raw == theirs("BYTES", values)
    assert split_texts(raw) == texts


def test_texts_of_a_transposed_array_are_in_row_major_order() -> None:
    values = text_array([b"a", b"b", b"c", b"d"], (2, 2)).T
    assert split_texts(InputTensor("X", "BYTES", values).raw()) == [b"a", b"c", b"b", b"d"]


@given(st.binary(max_size=40))
def test_whatever_is_read_as_texts_is_what_they_look_like(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        texts = split_texts(raw)
        assert InputTensor("X", "BYTES", text_array(texts, (len(texts),))).raw() == raw


@pytest.mark.parametrize("raw", [b"\1", b"\0\0\0", b"\1\0\0\0", b"\0\0\0\0\1\0\0\0", b"\xff\xff\xff\xff"])
def test_texts_that_end_too_early_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="each follows its length"):
        split_texts(raw)


@given(texts=st.lists(st.binary(max_size=3), min_size=4, max_size=4))
def test_texts_of_one_length_stay_texts(texts: list[bytes]) -> None:
    array = text_array(texts, (2, 2))
    assert array.dtype == np.object_
    assert array.tolist() == [texts[:2], texts[2:]]


@pytest.mark.parametrize("datatype", NUMBERS)
def test_the_bytes_of_a_fixed_shape_are_known(datatype: str) -> None:
    values = np.zeros((2, 3), DTYPES[datatype])
    assert fixed_bytes(datatype, (2, 3)) == len(InputTensor("X", datatype, values).raw())
    assert fixed_bytes(datatype, ()) == values.itemsize
    assert fixed_bytes(datatype, (2, -1)) is None


def test_the_bytes_of_texts_are_not_known() -> None:
    assert fixed_bytes("BYTES", (2,)) is None
    assert fixed_bytes("BF16", (2,)) == 4
    assert fixed_bytes("NEWER", (2,)) is None


def test_a_datatype_that_is_not_known_names_those_that_are() -> None:
    assert dtype_of("input 'X'", "FP32") == np.float32
    with pytest.raises(InputError, match=r"^input 'X' has unsupported datatype FP8 \(supported: FP16, .*, BYTES\)$"):
        dtype_of("input 'X'", "FP8")
