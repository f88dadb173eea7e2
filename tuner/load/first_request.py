"""The first request to a freshly loaded model, sent with gRPC's own library."""

from __future__ import annotations

import time
from typing import Final

import grpc
from tritonclient.grpc import service_pb2

from tuner.load.failures import describe, failed
from tuner.options.endpoint import Endpoint
from tuner.servers.grpc_channel import open_channel

_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_STREAM_METHOD: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
_WHAT = "the first request failed"


def ask_once(endpoint: Endpoint, request: bytes, *, timeout_s: float) -> tuple[bytes, float]:
    """Send one request, and wait for its answer, or the first of several responses.

    Args:
        endpoint: A gRPC endpoint.
        request: A serialised `ModelInferRequest`.
        timeout_s: Deadline in seconds, including connecting.

    Returns:
        The serialised `ModelInferResponse`, and the seconds that it took, including connecting.

    Raises:
        ServerHungError: no answer within `timeout_s`.
        ServerError: the request failed; the message has its code and reason.
    """
    began = time.monotonic()
    with open_channel(endpoint) as channel:
        try:
            answer = _ask(channel, endpoint, request, timeout_s)
        except grpc.RpcError as error:
            # Triton returns this code for a decoupled model, which needs a stream.
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise _failure(error) from None
            answer = _ask_stream(channel, endpoint, request, timeout_s)
    return answer, time.monotonic() - began


def _ask(channel: grpc.Channel, endpoint: Endpoint, request: bytes, timeout_s: float) -> bytes:
    infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
    return infer(request, timeout=timeout_s, metadata=endpoint.headers)


def _ask_stream(channel: grpc.Channel, endpoint: Endpoint, request: bytes, timeout_s: float) -> bytes:
    infer: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(_STREAM_METHOD)
    try:
        raw = next(infer(iter((request,)), timeout=timeout_s, metadata=endpoint.headers), None)
    except grpc.RpcError as error:
        raise _failure(error) from None
    if raw is None:
        raise failed(_WHAT, describe("UNAVAILABLE", "the server ended the stream"))
    message = service_pb2.ModelStreamInferResponse.FromString(raw)
    if message.error_message:
        raise failed(_WHAT, describe("UNKNOWN", message.error_message))
    serialised: bytes = message.infer_response.SerializeToString()
    return serialised


def _failure(error: grpc.RpcError) -> Exception:
    return failed(_WHAT, describe(error.code().name, error.details()))
