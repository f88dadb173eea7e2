"""Compares an answer with the expected outputs."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.load.failures import describe


def mismatch(answer: bytes, expected: Mapping[str, bytes]) -> str | None:
    """The fault of a serialised `ModelInferResponse`, as `CODE: message`; None: it is as expected.

    Args:
        answer: The response, with `raw_output_contents`.
        expected: Raw bytes by output name; other outputs are ignored.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 (most workers do without gRPC)
    from tritonclient.grpc import service_pb2  # noqa: PLC0415 (the same)

    try:
        response = service_pb2.ModelInferResponse.FromString(answer)
    except DecodeError:
        return describe("DATA_LOSS", "the answer is not a valid ModelInferResponse")
    contents = {output.name: raw for output, raw in zip(response.outputs, response.raw_output_contents, strict=False)}
    for name, wanted in expected.items():
        if name not in contents:
            return describe("DATA_LOSS", f"output {name} is missing, but --input-data expects it")
        if contents[name] != wanted:
            return describe("DATA_LOSS", f"output {name} differs from what --input-data expects")
    return None
