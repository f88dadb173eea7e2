"""Adds fields to a serialised `ModelInferRequest`: protobuf merges a message that is appended to another."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from tritonclient.grpc import service_pb2

from tuner.load.aio.sequencing import Place
from tuner.load.workload import Request


def in_sequence(request: Request, place: Place) -> Request:
    """The request with sequence parameters."""
    return replace(request, body=request.body + _parameters_of(place))


def with_id(number: int) -> bytes:
    """Bytes to append to a request to give it an id, which each response repeats."""
    serialised: bytes = service_pb2.ModelInferRequest(id=str(number)).SerializeToString()
    return serialised


# Requests of a sequence, except for the first and the last, have equal parameters.
@lru_cache(maxsize=4_096)
def _parameters_of(place: Place) -> bytes:
    request = service_pb2.ModelInferRequest()
    if isinstance(place.sequence, str):
        request.parameters["sequence_id"].string_param = place.sequence
    else:
        request.parameters["sequence_id"].int64_param = place.sequence
    request.parameters["sequence_start"].bool_param = place.start
    request.parameters["sequence_end"].bool_param = place.end
    serialised: bytes = request.SerializeToString()
    return serialised
