"""A driver over grpcio, for streams, sequences and compression, which our own framing does not support."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
import grpc.aio

from tuner.load.aio.caller import Caller, Outcome, Reply
from tuner.load.aio.driver import AsyncioDriver
from tuner.load.aio.grpc_requests import in_sequence
from tuner.load.aio.grpcio_streams import StreamCaller
from tuner.load.drivers import Answer
from tuner.load.failures import describe
from tuner.load.validation import mismatch
from tuner.load.workload import Plan, Request
from tuner.servers.grpc_channel import channel_credentials, channel_options

_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_COMPRESSIONS: Final = {
    None: grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}


class GrpcioDriver(AsyncioDriver):
    """A `Driver` over gRPC's own library, with requests and responses as bytes.

    Args:
        plan: The requests, and where to send them.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, _connect, in_sequence)


def _connect(plan: Plan) -> Caller:
    channels = [_open_channel(plan) for _ in range(plan.connections)]
    return StreamCaller(plan, channels) if plan.workload.decoupled else _UnaryCaller(plan, channels)


def _open_channel(plan: Plan) -> grpc.aio.Channel:
    endpoint = plan.endpoint
    options, compression = channel_options(endpoint), _COMPRESSIONS[plan.compression]
    if endpoint.tls is None:
        return grpc.aio.insecure_channel(endpoint.address, options, compression)
    return grpc.aio.secure_channel(endpoint.address, channel_credentials(endpoint.tls), options, compression)


class _UnaryCaller:
    """A caller for models with one response to a request."""

    def __init__(self, plan: Plan, channels: list[grpc.aio.Channel]) -> None:
        self._channels = channels
        self._infer: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
            channel.unary_unary(_METHOD) for channel in channels
        ]
        self._headers = plan.endpoint.headers

    async def call(self, slot: int, request: Request) -> Outcome:
        try:
            answer = await self._infer[slot % len(self._infer)](request.body, metadata=self._headers)
        except grpc.aio.AioRpcError as error:
            return Outcome(describe(error.code().name, error.details()))
        wrong = mismatch(answer, request.expected) if request.expected else None
        return Outcome(wrong, len(answer))

    async def ask(self, request: Request) -> Answer:
        try:
            return Answer(await self._infer[0](request.body, metadata=self._headers))
        except grpc.aio.AioRpcError as error:
            return Answer(b"", describe(error.code().name, error.details()))

    async def ask_whole(self, slot: int, request: Request) -> Reply:  # noqa: ARG002 (any number may be under way)
        return Reply.of(await self.ask(request))

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))
