from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tuner.load.inputs.tensors import DTYPES, InputTensor, text_array
from tuner.load.outputs import read_outputs


def answer(*tensors: InputTensor) -> service_pb2.ModelInferResponse:
    response = service_pb2.ModelInferResponse(model_name="m", id="7")
    for tensor in tensors:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.raw())
    return response


@pytest.mark.parametrize("datatype", DTYPES)
def test_each_datatype_comes_out_as_it_went_in(datatype: str) -> None:
    values: Any = np.arange(6).astype(DTYPES[datatype]).reshape(2, 3)
    if datatype == "BYTES":
        values = text_array([b"a", b"", b"\x00\xff", b"dddd", b"e", b"f"], (2, 3))
    (read,) = read_outputs(answer(InputTensor("y", datatype, values)).SerializeToString())
    assert (read.name, read.datatype, read.shape) == ("y", datatype, (2, 3))
    assert (read.values == values).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_a_scalar_and_nothing_are_tensors(shape: tuple[int, ...]) -> None:
    (read,) = read_outputs(answer(InputTensor("y", "FP32", np.zeros(shape, np.float32))).SerializeToString())
    assert read.shape == shape


def test_what_is_no_answer_is_said_in_one_line() -> None:
    whole = answer(InputTensor("y", "FP32", np.zeros(4, np.float32)))
    short, nothing, strange, texts = (service_pb2.ModelInferResponse() for _ in range(4))
    for copy in (short, nothing, strange, texts):
        copy.CopyFrom(whole)
    short.raw_output_contents[0] = bytes(15)
    del nothing.raw_output_contents[:]
    strange.outputs[0].datatype = "FP4"
    texts.outputs[0].datatype = "BYTES"
    texts.raw_output_contents[0] = bytes(12)
    for wrong, complaint in (
        (short, "output 'y': 15 bytes do not fit FP32 of shape [4]"),
        (nothing, "names 1 outputs, but holds 0"),
        (strange, "has unsupported datatype FP4"),
        (texts, "do not fit BYTES of shape"),
    ):
        with pytest.raises(ValueError) as raised:  # noqa: PT011 (the text is looked at below)
            read_outputs(wrong.SerializeToString())
        assert complaint in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="not a valid ModelInferResponse"):
        read_outputs(b"\xff\xff")
