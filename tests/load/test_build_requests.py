from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferInput, service_pb2

from tuner.load.inputs import InputTensor, make_inputs
from tuner.load.requests import build_requests
from tuner.models.interface import ModelInterface, Tensor


def parsed(serialised: bytes) -> Any:
    message = service_pb2.ModelInferRequest()
    message.ParseFromString(serialised)
    return message


def test_each_of_the_pool_becomes_a_request_that_names_the_model_and_its_inputs() -> None:
    model = ModelInterface("m", True, (Tensor("X", "FP32", (2, 2)), Tensor("Y", "INT8", (3,))), ())
    pool = make_inputs(model, shapes={}, pool=3, seed=0)
    messages = [parsed(request) for request in build_requests("m", pool)]
    assert [message.model_name for message in messages] == ["m"] * 3
    assert [(i.name, i.datatype, list(i.shape)) for i in messages[0].inputs] == [
        ("X", "FP32", [1, 2, 2]),
        ("Y", "INT8", [1, 3]),
    ]
    for message, request in zip(messages, pool, strict=True):
        assert list(message.raw_input_contents) == [tensor.values.tobytes() for tensor in request]


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("FP32", np.arange(6, dtype=np.float32).reshape(1, 2, 3)),
        ("FP32", np.arange(6, dtype=np.float32).reshape(3, 2).T),
        ("BOOL", np.array([[True, False]])),
        ("BYTES", np.array([[b"a", b"", b"long enough"]], dtype=np.object_)),
    ],
)
def test_tensors_are_laid_out_as_tritons_own_client_does(datatype: str, values: np.ndarray[Any, Any]) -> None:
    theirs = InferInput("X", list(values.shape), datatype)
    theirs.set_data_from_numpy(values)
    (ours,) = build_requests("m", [(InputTensor("X", datatype, values),)])
    assert parsed(ours).raw_input_contents[0] == theirs._get_content()


def test_bf16_keeps_its_two_bytes_an_element() -> None:
    values = np.array([[0x3F80, 0x0000]], dtype=np.uint16)
    (request,) = build_requests("m", [(InputTensor("X", "BF16", values),)])
    message = parsed(request)
    assert message.raw_input_contents[0] == b"\x80\x3f\x00\x00"
    assert list(message.inputs[0].shape) == [1, 2]
