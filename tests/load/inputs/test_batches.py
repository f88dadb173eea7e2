from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.config.interface import ModelInterface
from tuner.core.errors import InputError
from tuner.load.inputs.batches import PlacedStep, join_batches
from tuner.load.inputs.tensors import InputTensor, RequestStep, text_array


def interface(max_batch_size: int = 100) -> ModelInterface:
    return ModelInterface("m", max_batch_size, (), ())


def tensor(name: str, *values: Any) -> InputTensor:
    return InputTensor(name, "INT32", np.array(values, np.int32))


def stream(count: int) -> list[PlacedStep]:
    """Steps that say which they are."""
    return [PlacedStep(f"data[{n}]", RequestStep((tensor("X", n, 10 * n),), (tensor("Y", -n),))) for n in range(count)]


def refusal(*steps: RequestStep) -> str:
    with pytest.raises(InputError) as raised:
        join_batches(interface(), [PlacedStep(f"f: data[{n}]", step) for n, step in enumerate(steps)], len(steps))
    return str(raised.value)


def test_a_batch_of_one_gets_its_dimension() -> None:
    joined = join_batches(interface(), stream(2), 1)
    assert [step.inputs[0].values.tolist() for step in joined] == [[[0, 0]], [[1, 10]]]
    assert [step.expected[0].values.tolist() for step in joined] == [[[0]], [[-1]]]


def test_a_model_without_batches_gets_no_dimension() -> None:
    joined = join_batches(interface(0), stream(2), 1)
    assert [step.inputs[0].values.tolist() for step in joined] == [[0, 0], [1, 10]]


def test_consecutive_steps_make_a_request() -> None:
    first, second = join_batches(interface(), stream(4), 2)
    assert first.inputs[0].values.tolist() == [[0, 0], [1, 10]]
    assert second.inputs[0].values.tolist() == [[2, 20], [3, 30]]
    assert second.expected[0].values.tolist() == [[-2], [-3]]


@given(count=st.integers(1, 12), batch_size=st.integers(1, 12))
def test_every_step_is_sent_and_the_last_request_is_filled_from_the_beginning(count: int, batch_size: int) -> None:
    joined = join_batches(interface(), stream(count), batch_size)
    sent = [row[0] for step in joined for row in step.inputs[0].values.tolist()]
    assert all(step.inputs[0].shape == (batch_size, 2) for step in joined)
    assert sent == [n % count for n in range(len(sent))]
    assert count <= len(sent) < count + batch_size


def test_texts_are_joined_as_they_are() -> None:
    steps = [
        PlacedStep("", RequestStep((InputTensor("X", "BYTES", text_array(texts, (2,))),)))
        for texts in ([b"a", b"bb"], [b"", b"c"])
    ]
    (joined,) = join_batches(interface(), steps, 2)
    assert joined.inputs[0].values.tolist() == [[b"a", b"bb"], [b"", b"c"]]
    assert joined.inputs[0].datatype == "BYTES"


def test_steps_of_different_shapes_make_no_request() -> None:
    assert refusal(RequestStep((tensor("X", 1, 2),)), RequestStep((tensor("X", 1),))) == (
        "f: data[1]: X has shape [1], but has shape [2] in f: data[0]; "
        "steps of one request (batch size 2) must have the same inputs and shapes"
    )


def test_steps_of_different_inputs_make_no_request() -> None:
    with_mask, without = RequestStep((tensor("X", 1), tensor("MASK", 1))), RequestStep((tensor("X", 1),))
    assert refusal(with_mask, without).startswith("f: data[1]: MASK is missing, but has shape [1] in f: data[0]; ")
    assert refusal(without, with_mask).startswith("f: data[1]: MASK has shape [1], but is missing in f: data[0]; ")


def test_steps_of_different_expectations_make_no_request() -> None:
    known, unknown = RequestStep((tensor("X", 1),), (tensor("Y", 1),)), RequestStep((tensor("X", 1),))
    assert refusal(known, unknown).startswith("f: data[1]: Y is missing, but has shape [1] in f: data[0]; ")


def test_a_batch_that_the_model_does_not_take_is_refused() -> None:
    with pytest.raises(InputError, match="max_batch_size of model 'm'"):
        join_batches(interface(4), stream(8), 8)
