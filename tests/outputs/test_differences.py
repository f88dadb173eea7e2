from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tuner.load.inputs.tensors import DTYPES, InputTensor, text_array
from tuner.outputs.differences import Difference, Response, Tolerance, differences, scales_of

TENTH_OF_A_PERCENT = Tolerance(1e-3)
EXACT = Tolerance(0)


def tensor(values: Any, datatype: str = "FP32", name: str = "y") -> InputTensor:
    if datatype == "BYTES":
        return InputTensor(name, datatype, text_array(values, (len(values),)))
    if datatype == "BF16":
        return InputTensor(name, datatype, (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16))
    return InputTensor(name, datatype, np.array(values, DTYPES[datatype]))


def differ(
    before: Sequence[Response], after: Sequence[Response], tolerance: Tolerance = TENTH_OF_A_PERCENT
) -> list[Difference]:
    return list(differences(before, after, tolerance, scales_of(before)))


def one(was: InputTensor, now: InputTensor, tolerance: Tolerance = TENTH_OF_A_PERCENT) -> Difference | None:
    found = differ([(was,)], [(now,)], tolerance)
    assert len(found) <= 1
    return found[0] if found else None


def test_the_worst_element_is_named_with_what_is_allowed() -> None:
    found = one(tensor([[1.0, 0.642], [3.0, 4.0]]), tensor([[1.0, 0.731], [3.0, 4.1]]))
    assert found
    assert (found.output, found.was, found.now) == ("y", "0.642", "0.731")
    assert found.detail == "element [0, 1]; 13.9 % off, 0.1 % allowed"
    assert found.excess == pytest.approx(0.089 / (0.000642 + 1e-5 * math.sqrt((1 + 0.642**2 + 9 + 16) / 4)), rel=1e-3)


def test_a_value_near_zero_may_be_off_by_the_rounding_of_the_others() -> None:
    assert one(tensor([5.0, 1e-6]), tensor([5.0, -3e-5])) is None
    found = one(tensor([5.0, 1e-6]), tensor([5.0, 1e-4]))
    assert found
    assert found.detail == "element [1]; off by 9.9e-05, 3.54e-05 allowed"


def test_words_tell_apart_what_is_nearly_the_same() -> None:
    found = one(tensor([1.0], "FP64"), tensor([1.0 + 1e-7], "FP64"), Tolerance(1e-9))
    assert found
    assert (found.was, found.now) == ("1", "1.0000001")


@pytest.mark.parametrize(
    ("datatype", "epsilon"), [("FP16", 2**-10), ("BF16", 2**-7), ("FP32", 2**-23), ("FP64", 2**-52)]
)
def test_two_steps_of_the_datatype_are_always_allowed_but_where_it_must_be_exact(datatype: str, epsilon: float) -> None:
    was, near = tensor([1.0], datatype), tensor([1.0 + 2 * epsilon], datatype)
    assert one(was, near, Tolerance(1e-30)) is None
    assert one(was, tensor([1.0 + 8 * epsilon], datatype), Tolerance(1e-30)) is not None
    assert one(was, near, EXACT) is not None


def test_what_is_not_finite_must_be_the_same() -> None:
    odd = tensor([math.nan, math.inf, -math.inf, 0.0])
    assert one(odd, tensor([math.nan, math.inf, -math.inf, -0.0]), EXACT) is None
    for place, value, words in ((0, 1.0, "1"), (1, -math.inf, "-inf"), (3, math.nan, "nan"), (3, math.inf, "inf")):
        values = odd.values.copy()
        values[place] = value
        found = one(odd, tensor(values))
        assert found
        assert (found.now, found.detail, found.excess) == (words, f"element [{place}]", math.inf)


@pytest.mark.parametrize(
    ("datatype", "was", "now", "words"),
    [
        ("INT64", [1, 2, 3], [1, 4, -3], ("3", "-3", "element [2]; 2 of 3 elements differ")),
        ("UINT64", [0, 2**64 - 1], [0, 0], (str(2**64 - 1), "0", "element [1]")),
        ("UINT8", [255, 0], [0, 0], ("255", "0", "element [0]")),
        ("BOOL", [True, False], [True, True], ("False", "True", "element [1]")),
        ("BYTES", [b"cat", b"dog"], [b"cat", b"cow"], ("'dog'", "'cow'", "element [1]")),
        ("BYTES", [b"\xff\x00"], [b""], ("'\\\\xff\\x00'", "''", "element [0]")),
    ],
)
def test_all_but_floats_are_exact(datatype: str, was: Any, now: Any, words: tuple[str, str, str]) -> None:
    found = one(tensor(was, datatype), tensor(now, datatype), Tolerance(0.9))
    assert found
    assert (found.was, found.now, found.detail) == words
    assert one(tensor(was, datatype), tensor(was, datatype)) is None


def test_of_long_texts_the_part_is_quoted_that_differs() -> None:
    found = one(tensor([b"a" * 500 + b"end"], "BYTES"), tensor([b"a" * 500 + b"End" + b"b" * 500], "BYTES"))
    assert found
    assert found.was == "...'" + "a" * 20 + "end'"
    assert found.now.startswith("...'" + "a" * 20 + "Endb")
    assert found.now.endswith("b'...")


def test_a_scalar_has_no_element_to_name() -> None:
    found = one(tensor(1.0), tensor(2.0))
    assert found
    assert found.detail == "100 % off, 0.1 % allowed"


@pytest.mark.parametrize(
    ("after", "was", "now"),
    [
        ([(tensor([[1.0]]),)], "shape [1]", "shape [1, 1]"),
        ([(tensor([1.0], "FP64"),)], "FP32", "FP64"),
        ([()], "FP32 of shape [1]", "nothing"),
        ([], "1 response", "0 responses"),
        ([(tensor([1.0]),)] * 2, "1 response", "2 responses"),
    ],
)
def test_what_is_there_must_be_what_was_there(after: list[Response], was: str, now: str) -> None:
    (found,) = differ([(tensor([1.0]),)], after)
    assert (found.was, found.now, found.excess) == (was, now, math.inf)


def test_an_output_too_many_differs_too() -> None:
    (found,) = differ([(tensor([1.0]),)], [(tensor([1.0]), tensor([1], "INT32", "z"))])
    assert (found.output, found.was, found.now) == ("z", "nothing", "INT32 of shape [1]")


def test_each_output_of_each_response_is_looked_at() -> None:
    before = [(tensor([1.0]), tensor([7], "INT8", "z")), (tensor([2.0]), tensor([8], "INT8", "z"))]
    after = [(tensor([7], "INT8", "z"), tensor([1.0])), (tensor([3.0]), tensor([9], "INT8", "z"))]
    assert [(found.output, found.response) for found in differ(before, after)] == [("y", 1), ("z", 1)]


def test_scales_are_of_all_that_an_output_has_and_do_not_overflow() -> None:
    huge = [(tensor([3e300, math.nan], "FP64"),), (tensor([4e300, math.inf], "FP64"),)]
    assert scales_of(huge)["y"] == pytest.approx(5e300 / math.sqrt(2))
    assert scales_of([(tensor([0.0]), tensor([1], "INT8", "z"))]) == {"y": 0.0}
    assert one(tensor([0.0]), tensor([1e-30])) is not None


floats = arrays.arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=True))
shares = st.floats(1e-6, 0.5)


@given(floats, shares)
def test_nothing_differs_from_itself(values: Any, relative: float) -> None:
    for tolerance in (EXACT, Tolerance(relative)):
        assert one(tensor(values), tensor(values.copy()), tolerance) is None


@given(floats, shares, st.floats(-0.99, 0.99))
def test_what_is_off_by_less_than_the_tolerance_never_differs(values: Any, relative: float, part: float) -> None:
    finite = values[np.isfinite(values)].astype(np.float64)
    was = tensor(finite, "FP64")
    assert one(was, tensor(finite * (1 + part * relative), "FP64"), Tolerance(relative)) is None


@given(
    arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(1, 1e6)),
    shares,
    st.floats(1.1, 3),
    st.integers(0, 19),
)
def test_what_is_off_by_more_than_value_and_scale_allow_always_does(
    values: Any, relative: float, times: float, place: int
) -> None:
    at = place % len(values)
    scale = scales_of([(tensor(values, "FP64"),)])["y"]
    now = values.copy()
    now[at] += times * (relative * values[at] + 0.01 * relative * scale)
    found = one(tensor(values, "FP64"), tensor(now, "FP64"), Tolerance(relative))
    assert found
    assert f"element [{at}]" in found.detail
    assert found.excess == pytest.approx(times, rel=1e-3)
