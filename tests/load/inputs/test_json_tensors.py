from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tuner.config.interface import Tensor
from tuner.core.errors import InputError
from tuner.load.inputs.json_tensors import JsonStep, Side
from tuner.load.inputs.tensors import DTYPES, InputTensor, text_array


def read(tensor: Tensor, value: object, *, kind: str = "input", shape: tuple[int, ...] | None = None) -> InputTensor:
    """What stands for the one tensor of a model, as JSON."""
    side = Side(kind, "m", (tensor,), {} if shape is None else {tensor.name: shape})
    (result,) = side.read(JsonStep("f: data[3]", {tensor.name: json.loads(json.dumps(value))}))
    return result


def refusal(tensor: Tensor, value: object, *, kind: str = "input", shape: tuple[int, ...] | None = None) -> str:
    with pytest.raises(InputError) as raised:
        read(tensor, value, kind=kind, shape=shape)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def refused(side: Side, tensors: Mapping[str, Any]) -> str:
    with pytest.raises(InputError) as raised:
        side.read(JsonStep("f: data[3]", tensors))
    return str(raised.value)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


MATRIX = Tensor("X", "INT32", (2, 3))
ANY_MATRIX = Tensor("X", "INT32", (-1, 3))
ANY_ROW = Tensor("X", "INT32", (-1,))
ROWS = [[1, 2, 3], [4, 5, 6]]
FLAT = [1, 2, 3, 4, 5, 6]
RAW = np.array(FLAT, np.int32).tobytes()


@pytest.mark.parametrize(
    "value",
    [
        FLAT,
        ROWS,
        {"content": FLAT},
        {"content": ROWS},
        {"content": FLAT, "shape": [2, 3]},
        {"content": ROWS, "shape": [2, 3]},
        {"b64": b64(RAW)},
        {"b64": b64(RAW), "shape": [2, 3]},
        {"content": {"b64": b64(RAW)}},
        {"content": {"b64": b64(RAW)}, "shape": [2, 3]},
    ],
)
def test_all_forms_say_the_same(value: object) -> None:
    tensor = read(MATRIX, value)
    assert (tensor.name, tensor.datatype) == ("X", "INT32")
    assert tensor.values.dtype == np.int32
    assert tensor.values.tolist() == ROWS


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in ("BYTES", "BF16")])
@given(data=st.data())
def test_what_json_says_of_an_array_comes_back(datatype: str, data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(DTYPES[datatype], hnp.array_shapes(max_dims=3, max_side=3)))
    said = np.nan_to_num(values, posinf=0, neginf=0) if values.dtype.kind == "f" else values
    tensor = Tensor("X", datatype, data.draw(st.sampled_from([said.shape, (-1,) * said.ndim])))
    nested = read(tensor, said.tolist())
    raw = read(tensor, {"b64": b64(said.tobytes()), "shape": list(said.shape)})
    assert nested.raw() == raw.raw() == said.tobytes()
    assert nested.shape == raw.shape == said.shape


@given(texts=st.lists(st.text(max_size=5), min_size=1, max_size=5))
def test_texts_come_back(texts: list[str]) -> None:
    encoded = [text.encode() for text in texts]
    raw = InputTensor("X", "BYTES", text_array(encoded, (len(encoded),))).raw()
    for value in (texts, {"b64": b64(raw)}, [{"b64": b64(text)} for text in encoded]):
        assert read(Tensor("X", "BYTES", (len(texts),)), value).values.tolist() == encoded


class TestShape:
    def test_the_shape_of_the_step_comes_first(self) -> None:
        assert read(ANY_MATRIX, {"content": FLAT, "shape": [2, 3]}, shape=(4, 3)).shape == (2, 3)

    def test_then_that_of_its_lists(self) -> None:
        assert read(ANY_MATRIX, ROWS, shape=(4, 3)).shape == (2, 3)

    def test_then_that_of_the_option(self) -> None:
        assert read(ANY_MATRIX, FLAT, shape=(2, 3)).shape == (2, 3)
        assert refusal(ANY_ROW, [1, 2, 3], shape=(4,)) == "f: data[3].X: shape [4] needs 4 values, got 3"

    def test_a_row_has_its_own_length(self) -> None:
        assert read(ANY_ROW, [1, 2, 3]).shape == (3,)
        assert read(ANY_ROW, []).shape == (0,)
        assert read(ANY_ROW, {"b64": b64(RAW)}).shape == (6,)

    def test_a_single_value_may_have_no_dimensions(self) -> None:
        assert read(Tensor("X", "INT32", ()), [7]).values.tolist() == 7

    def test_a_variable_dimension_that_nothing_tells_is_asked_for(self) -> None:
        for value in (FLAT, {"content": FLAT}, {"b64": b64(RAW)}):
            assert refusal(ANY_MATRIX, value) == (
                'f: data[3].X: shape unknown, because the model has [-1, 3]; add "shape" or --shape X:D1,3'
            )
        assert refusal(ANY_MATRIX, FLAT, kind="output").endswith('; add "shape"')

    def test_the_number_of_values_must_be_that_of_the_shape(self) -> None:
        message = "f: data[3].X: shape [2, 3] needs 6 values, got 5"
        assert refusal(MATRIX, FLAT[:5]) == message
        assert refusal(MATRIX, {"b64": b64(RAW[:20])}) == message
        assert refusal(ANY_MATRIX, {"content": FLAT[:5], "shape": [2, 3]}) == message

    @pytest.mark.parametrize(
        "value", [{"content": FLAT, "shape": [3, 2]}, [[1, 2], [3, 4], [5, 6]], {"b64": b64(RAW), "shape": [3, 2]}]
    )
    def test_a_shape_that_the_model_does_not_take_is_refused(self, value: object) -> None:
        assert refusal(MATRIX, value) == "f: data[3].X: shape must be [2, 3], got [3, 2]"
        assert refusal(ANY_MATRIX, value) == "f: data[3].X: shape must be [-1, 3], got [3, 2]"

    def test_a_batch_dimension_is_refused(self) -> None:
        message = "f: data[3].X: shape must be [2, 3] (without the batch dimension), got [1, 2, 3]"
        assert refusal(MATRIX, [ROWS]) == message

    def test_lists_that_contradict_the_shape_are_refused(self) -> None:
        message = 'f: data[3].X: lists have shape [2, 3], but "shape" is [3, 2]'
        assert refusal(MATRIX, {"content": ROWS, "shape": [3, 2]}) == message

    @pytest.mark.parametrize("shape", [6, "2,3", [2, "3"], [2, -3], [2.0, 3], [True, 6], None])
    def test_a_shape_that_is_none_is_refused(self, shape: object) -> None:
        message = "f: data[3].X.shape: must be a list of integers >= 0"
        assert refusal(MATRIX, {"content": FLAT, "shape": shape}) == message


class TestForm:
    @pytest.mark.parametrize("value", [5, "AAAA", None, True])
    def test_what_is_no_tensor_is_refused(self, value: object) -> None:
        assert refusal(MATRIX, value) == (
            'f: data[3].X: a tensor must be [...], {"content": [...], "shape": [...]} or {"b64": "...", "shape": [...]}'
        )

    def test_a_key_that_is_not_known_names_the_nearest(self) -> None:
        assert refusal(MATRIX, {"contents": FLAT}) == ("f: data[3].X: unknown key 'contents'; did you mean 'content'?")

    @pytest.mark.parametrize("value", [{}, {"shape": [2, 3]}, {"content": FLAT, "b64": b64(RAW)}])
    def test_there_is_one_content(self, value: object) -> None:
        assert refusal(MATRIX, value) == 'f: data[3].X: needs either "content" or "b64"'

    @pytest.mark.parametrize("content", [5, "AAAA", None, {}, {"b64": "", "shape": [0]}])
    def test_content_is_a_list_or_base64(self, content: object) -> None:
        assert refusal(MATRIX, {"content": content}) == ('f: data[3].X.content: must be a list, or {"b64": "..."}')

    def test_ragged_lists_are_refused(self) -> None:
        assert refusal(MATRIX, [[1, 2, 3], [4, 5]]).startswith("f: data[3].X: ragged lists: all lists of one level")

    def test_bad_base64_is_refused(self) -> None:
        assert refusal(MATRIX, {"b64": "AAA"}) == 'f: data[3].X: "AAA" is not base64'
        assert refusal(MATRIX, {"b64": 5}) == "f: data[3].X: 5 is not a base64 string"
        assert refusal(MATRIX, {"b64": "AAAA"}) == ("f: data[3].X: 3 bytes are not a multiple of 4, the size of INT32")


class TestValues:
    def test_a_wrong_value_is_named_by_its_place(self) -> None:
        pixels = Tensor("X", "UINT8", (2, 2))
        message = "300 is out of the range of UINT8, 0 to 255"
        assert refusal(pixels, [1, 2, 300, 4]) == f"f: data[3].X[2]: {message}"
        assert refusal(pixels, [[1, 2], [300, 4]]) == f"f: data[3].X[1][0]: {message}"
        assert refusal(pixels, {"content": [1, 300, 3, 4]}) == f"f: data[3].X[1]: {message}"

    def test_text_is_no_number(self) -> None:
        assert refusal(Tensor("X", "FP32", (1,)), ["1"]) == 'f: data[3].X[0]: "1" is not a number'


class TestNames:
    INPUTS = Side("input", "m", (Tensor("X", "INT8", (1,)), Tensor("MASK", "BOOL", (1,), optional=True)))
    OUTPUTS = Side("output", "m", (Tensor("Y", "INT8", (1,)), Tensor("Z", "INT8", (1,))))

    def test_tensors_come_in_the_order_of_the_config(self) -> None:
        tensors = self.INPUTS.read(JsonStep("", {"MASK": [True], "X": [1]}))
        assert [tensor.name for tensor in tensors] == ["X", "MASK"]

    def test_optional_inputs_may_be_missing(self) -> None:
        assert [tensor.name for tensor in self.INPUTS.read(JsonStep("", {"X": [1]}))] == ["X"]

    def test_other_inputs_may_not(self) -> None:
        assert refused(self.INPUTS, {"MASK": [True]}) == "f: data[3]: input 'X' is missing"

    def test_any_output_may(self) -> None:
        assert [tensor.name for tensor in self.OUTPUTS.read(JsonStep("", {"Z": [1]}))] == ["Z"]
        assert self.OUTPUTS.read(JsonStep("", {})) == ()

    def test_a_name_that_is_not_known_names_the_nearest(self) -> None:
        assert refused(self.INPUTS, {"X": [1], "MASKS": [True]}) == (
            "f: data[3]: model 'm' has no input 'MASKS'; did you mean 'MASK'?"
        )
        assert refused(self.OUTPUTS, {"X": [1]}) == "f: data[3]: model 'm' has no output 'X' (available: Y, Z)"
