from __future__ import annotations

import pytest
from tritonclient.grpc import service_pb2

from tuner.load.validation import mismatch


def answer(**outputs: bytes) -> bytes:
    names = [service_pb2.ModelInferResponse.InferOutputTensor(name=name) for name in outputs]
    message = service_pb2.ModelInferResponse(model_name="m", outputs=names, raw_output_contents=list(outputs.values()))
    serialised: bytes = message.SerializeToString()
    return serialised


def test_what_is_expected_is_right_whatever_else_is_there() -> None:
    assert mismatch(answer(OUT=b"abc", OTHER=b""), {"OUT": b"abc"}) is None
    assert mismatch(answer(), {}) is None


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (answer(OUT=b"abd"), "DATA_LOSS: output OUT differs from what --input-data expects"),
        (answer(OTHER=b"abc"), "DATA_LOSS: output OUT is missing, but --input-data expects it"),
        (answer(), "DATA_LOSS: output OUT is missing, but --input-data expects it"),
        (b"\xff\xff", "DATA_LOSS: the answer is not a valid ModelInferResponse"),
    ],
)
def test_what_is_not_says_so(given: bytes, error: str) -> None:
    assert mismatch(given, {"OUT": b"abc"}) == error
