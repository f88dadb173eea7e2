from __future__ import annotations

import base64
import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tuner.load.inputs.tensors import DTYPES, InputTensor
from tuner.load.inputs.values import ElementError, flatten, from_array, from_base64, from_list

INTEGERS = [f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)]
FLOATS = ["FP16", "FP32", "FP64"]
LARGEST = {
    "FP16": 65504.0,
    "FP32": 3.4028234663852886e38,
    "FP64": 1.7976931348623157e308,
    "BF16": 3.3895313892515355e38,
}


def refusal(values: list[Any], datatype: str) -> tuple[int, str]:
    with pytest.raises(ElementError) as raised:
        from_list(values, datatype)
    assert "\n" not in str(raised.value)
    return raised.value.index, str(raised.value)


class TestFlatten:
    @given(hnp.arrays(np.int8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)))
    def test_lists_in_lists_become_a_row(self, array: np.ndarray[Any, Any]) -> None:
        assert flatten(array.tolist()) == (array.reshape(-1).tolist(), array.shape)

    def test_empty_lists_have_shapes_too(self) -> None:
        assert flatten([]) == ([], (0,))
        assert flatten([[], []]) == ([], (2, 0))

    @pytest.mark.parametrize("ragged", [[[1], [1, 2]], [1, [2]], [[1], 2], [[[1]], [2]], [[1], []]])
    def test_what_is_not_rectangular_is_refused(self, ragged: list[Any]) -> None:
        with pytest.raises(ValueError, match="ragged lists: all lists of one level must have the same length"):
            flatten(ragged)


class TestFromList:
    @pytest.mark.parametrize("datatype", INTEGERS)
    @given(data=st.data())
    def test_whole_numbers_within_the_range_are_kept(self, datatype: str, data: st.DataObject) -> None:
        limits = np.iinfo(DTYPES[datatype])
        numbers = data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), max_size=5))
        array = from_list(numbers, datatype)
        assert array.dtype == DTYPES[datatype]
        assert array.tolist() == numbers

    @pytest.mark.parametrize("datatype", INTEGERS)
    def test_whole_numbers_beyond_the_range_are_refused(self, datatype: str) -> None:
        limits = np.iinfo(DTYPES[datatype])
        least, most = int(limits.min), int(limits.max)
        what = f"is out of the range of {datatype}, {least} to {most}"
        assert from_list([least, most], datatype).tolist() == [least, most]
        assert refusal([0, most + 1], datatype) == (1, f"{most + 1} {what}")
        assert refusal([0, 0, least - 1, most + 1], datatype) == (2, f"{least - 1} {what}")

    @pytest.mark.parametrize("datatype", FLOATS)
    @given(data=st.data())
    def test_numbers_are_rounded_as_numpy_does(self, datatype: str, data: st.DataObject) -> None:
        largest = LARGEST[datatype]
        numbers = data.draw(st.lists(st.floats(-largest, largest) | st.integers(-1000, 1000), max_size=5))
        array = from_list(numbers, datatype)
        assert array.dtype == DTYPES[datatype]
        assert array.tobytes() == np.array(numbers, np.float64).astype(DTYPES[datatype]).tobytes()

    @given(st.lists(st.floats(width=32, allow_nan=False).filter(lambda x: math.isinf(x) or abs(x) <= LARGEST["BF16"])))
    def test_bf16_is_rounded_as_ml_dtypes_does(self, numbers: list[float]) -> None:
        expected = np.array(numbers, np.float32).astype(ml_dtypes.bfloat16)
        assert from_list(numbers, "BF16").tobytes() == expected.tobytes()

    @pytest.mark.parametrize("datatype", [*FLOATS, "BF16"])
    def test_nan_and_infinity_are_numbers(self, datatype: str) -> None:
        raw = from_list(json.loads("[NaN, Infinity, -Infinity]"), datatype)
        floats = (raw.astype(np.uint32) << 16).view(np.float32) if datatype == "BF16" else raw
        assert math.isnan(floats[0])
        assert floats[1:].tolist() == [math.inf, -math.inf]

    @pytest.mark.parametrize("datatype", [*FLOATS, "BF16"])
    def test_numbers_beyond_the_range_are_refused(self, datatype: str) -> None:
        largest = LARGEST[datatype]
        from_list([largest, -largest], datatype)
        assert refusal([0, 10**400], datatype)[0] == 1
        if datatype != "FP64":
            index, message = refusal([0.5, -1.01 * largest], datatype)
            assert index == 1
            assert message.endswith(f"is out of the range of {datatype}")

    def test_true_and_false_may_be_written_as_numbers(self) -> None:
        assert from_list([True, False, 1, 0], "BOOL").tolist() == [True, False, True, False]

    def test_texts_may_be_any_bytes(self) -> None:
        array = from_list(["é", "", {"b64": base64.b64encode(b"\xff\0").decode()}], "BYTES")
        assert array.tolist() == ["é".encode(), b"", b"\xff\0"]

    @pytest.mark.parametrize("datatype", DTYPES)
    def test_no_values_are_an_empty_array(self, datatype: str) -> None:
        array = from_list([], datatype)
        assert array.shape == (0,)
        assert array.dtype == DTYPES[datatype]

    @pytest.mark.parametrize(
        ("datatype", "value", "message"),
        [
            ("FP32", "1.5", '"1.5" is not a number'),
            ("FP32", True, "true is not a number"),
            ("FP32", None, "null is not a number"),
            ("BF16", "x", '"x" is not a number'),
            ("INT32", 1.5, "1.5 is not an integer"),
            ("INT32", 1.0, "1.0 is not an integer"),
            ("INT32", False, "false is not an integer"),
            ("INT32", math.nan, "NaN is not an integer"),
            ("UINT8", {"b64": ""}, '{"b64": ""} is not an integer'),
            ("BOOL", 2, "2 is neither true nor false"),
            ("BOOL", 1.0, "1.0 is neither true nor false"),
            ("BOOL", "true", '"true" is neither true nor false'),
            ("BOOL", {}, "{} is neither true nor false"),
            ("BYTES", 5, "5 is not a string"),
            ("BYTES", {"text": "x"}, '{"text": "x"} is not a string'),
            ("BYTES", {"b64": 5}, "5 is not a base64 string"),
            ("BYTES", {"b64": "a"}, '"a" is not base64'),
            ("BYTES", "\ud800", '"\\ud800" has a lone surrogate, which UTF-8 cannot encode'),
            ("FP32", "x" * 100, f'"{"x" * 36}... is not a number'),
        ],
    )
    def test_what_is_not_of_the_datatype_is_refused(self, datatype: str, value: object, message: str) -> None:
        right: Any = "a" if datatype == "BYTES" else 1
        assert refusal([right, right, value, right], datatype) == (2, message)


class TestFromBase64:
    @pytest.mark.parametrize("datatype", [name for name in DTYPES if name != "BYTES"])
    @given(data=st.data())
    def test_raw_bytes_come_back(self, datatype: str, data: st.DataObject) -> None:
        values = data.draw(hnp.arrays(DTYPES[datatype], st.integers(0, 5)))
        array = from_base64(base64.b64encode(values.tobytes()).decode(), datatype)
        assert array.dtype == DTYPES[datatype]
        assert array.tobytes() == values.tobytes()

    @given(st.lists(st.binary(max_size=5), max_size=5))
    def test_texts_come_back(self, texts: list[bytes]) -> None:
        raw = InputTensor(
            "X", "BYTES", from_list([{"b64": base64.b64encode(t).decode()} for t in texts], "BYTES")
        ).raw()
        assert from_base64(base64.b64encode(raw).decode(), "BYTES").tolist() == texts

    def test_broken_lines_are_no_fault(self) -> None:
        assert from_base64("AAAA\n  gD8=\r\n", "UINT8").tobytes() == b"\0\0\0\x80\x3f"

    @pytest.mark.parametrize("text", ["a", "====", "é", "AAA", "AAA$", "A=AA"])
    def test_what_is_not_base64_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="is not base64$"):
            from_base64(text, "UINT8")

    def test_half_a_value_is_refused(self) -> None:
        with pytest.raises(ValueError, match="^5 bytes are not a multiple of 4, the size of FP32$"):
            from_base64(base64.b64encode(b"12345").decode(), "FP32")

    def test_texts_without_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="each follows its length"):
            from_base64(base64.b64encode(b"text").decode(), "BYTES")


class TestFromArray:
    @pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in ("BYTES", "BF16")])
    @given(data=st.data())
    def test_arrays_of_the_datatype_are_kept(self, datatype: str, data: st.DataObject) -> None:
        values = data.draw(hnp.arrays(DTYPES[datatype], hnp.array_shapes(max_side=3)))
        array = from_array(values, datatype)
        assert array.dtype == DTYPES[datatype]
        assert array.shape == values.shape
        assert array.tobytes() == values.tobytes()

    @given(datatype=st.sampled_from(INTEGERS), other=st.sampled_from(INTEGERS), data=st.data())
    def test_other_whole_numbers_are_kept_or_refused(self, datatype: str, other: str, data: st.DataObject) -> None:
        held, wanted = np.iinfo(DTYPES[other]), np.iinfo(DTYPES[datatype])
        number = data.draw(st.integers(int(held.min), int(held.max)))
        array = np.array([[number]], DTYPES[other])
        if wanted.min <= number <= wanted.max:
            assert from_array(array, datatype).tolist() == [[number]]
        else:
            with pytest.raises(ValueError, match=f"^{number} is out of the range of {datatype}, "):
                from_array(array, datatype)

    def test_the_order_of_bytes_does_not_matter(self) -> None:
        big = np.array([1.5, 2], ">f8")
        assert from_array(big, "FP32").tobytes() == np.array([1.5, 2], "<f4").tobytes()
        assert from_array(np.array([258], ">i2"), "INT16").tobytes() == b"\2\1"

    def test_numbers_beyond_the_range_are_refused(self) -> None:
        with pytest.raises(ValueError, match="^70000 is out of the range of FP16$"):
            from_array(np.array([1, 70000], np.float64), "FP16")
        with pytest.raises(ValueError, match="^70000 is out of the range of FP16$"):
            from_array(np.array([[1, 70000]]), "FP16")

    def test_bf16_comes_from_floats_or_from_ml_dtypes(self) -> None:
        expected = np.array([[1.5, -2]], ml_dtypes.bfloat16)
        for array in (np.array([[1.5, -2]]), np.array([[1.5, -2]], np.float16), expected.view("V2")):
            assert from_array(array, "BF16").tobytes() == expected.tobytes()
            assert from_array(array, "BF16").shape == (1, 2)

    def test_texts_come_from_bytes_and_from_str(self) -> None:
        assert from_array(np.array([["é", ""]]), "BYTES").tolist() == [["é".encode(), b""]]
        assert from_array(np.array([[b"\xff", b"ab"]]), "BYTES").tolist() == [[b"\xff", b"ab"]]

    @pytest.mark.parametrize(
        ("array", "datatype"),
        [
            (np.array([1.0]), "INT32"),
            (np.array([True]), "INT32"),
            (np.array([True]), "FP32"),
            (np.array([1]), "BOOL"),
            (np.array([1j]), "FP32"),
            (np.array([1], np.uint16), "BF16"),
            (np.array(["1"]), "FP32"),
            (np.array([1]), "BYTES"),
            (np.array(["2020-01-01"], "M8[D]"), "INT64"),
        ],
    )
    def test_arrays_of_another_kind_are_refused(self, array: np.ndarray[Any, Any], datatype: str) -> None:
        with pytest.raises(ValueError, match=f"^an array of .* cannot be converted to {datatype}$"):
            from_array(array, datatype)
