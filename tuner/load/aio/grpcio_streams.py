"""Requests to decoupled models, over gRPC streams that stay open."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from typing import Final

import grpc.aio
from tritonclient.grpc import service_pb2

from tuner.load.aio.caller import Outcome, Reply
from tuner.load.aio.grpc_requests import with_id
from tuner.load.drivers import Answer
from tuner.load.failures import describe
from tuner.load.validation import mismatch
from tuner.load.workload import Plan, Request

_METHOD: Final = "/inference.GRPCInferenceService/ModelStreamInfer"
_ENDED = "the server ended the stream"
# grpc.aio's message for a write to a broken stream, before it has read the reason.
_WRITE_FAILED = "Internal error from Core"
# The slot of single requests; other slots begin at 0.
_NO_SLOT = -1
# Longest time for a stream to end by itself, in s.
_PATIENCE_S = 2.0


class StreamCaller:
    """Sends the requests of each slot over its own stream, which stays open between requests.

    A request ends with its final response, which Triton must mark (the request asks for it), or with its first error.
    Of an error, Triton sends only the text.

    Args:
        plan: The requests, and where to send them.
        channels: The channels, among which streams are distributed; closed with the caller.
    """

    def __init__(self, plan: Plan, channels: list[grpc.aio.Channel]) -> None:
        self._headers = plan.endpoint.headers
        self._channels = channels
        self._infer: list[grpc.aio.StreamStreamMultiCallable[bytes, bytes]] = [
            channel.stream_stream(_METHOD) for channel in channels
        ]
        self._streams: dict[int, _Stream] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)

    async def call(self, slot: int, request: Request) -> Outcome:
        """See `Caller.call`."""
        stream, number = self._stream(slot), next(self._numbers)
        times_ns: list[int] = []
        received, error, final = 0, None, False
        try:
            await stream.send(request, number)
            while not final:
                response, came_ns = await stream.receive(number)
                final = is_final(response)
                if not response.outputs:
                    continue
                times_ns.append(came_ns)
                received += response.ByteSize()
                if request.expected and not error:
                    error = mismatch(response.SerializeToString(), request.expected)
        except StreamError as failure:
            error = str(failure)
        except asyncio.CancelledError:
            self._leave(stream)
            raise
        if request.expected and not error and not times_ns:
            error = mismatch(b"", request.expected)
        return Outcome(error, received, times_ns)

    async def ask(self, request: Request) -> Answer:
        """See `Caller.ask`."""
        stream, number = self._stream(_NO_SLOT), next(self._numbers)
        try:
            await stream.send(request, number)
            response, _ = await stream.receive(number)
            return Answer(response.SerializeToString())
        except StreamError as failure:
            return Answer(b"", str(failure))
        finally:
            # Leaving the stream discards further responses.
            self._leave(stream)

    async def ask_whole(self, slot: int, request: Request) -> Reply:
        """See `Caller.ask_whole`."""
        stream, number = self._stream(slot), next(self._numbers)
        responses: list[bytes] = []
        final = False
        try:
            await stream.send(request, number)
            while not final:
                response, _ = await stream.receive(number)
                final = is_final(response)
                if response.outputs:
                    responses.append(response.SerializeToString())
        except StreamError as failure:
            return Reply((), str(failure))
        except asyncio.CancelledError:
            self._leave(stream)
            raise
        return Reply(tuple(responses))

    async def close(self) -> None:
        """See `Caller.close`."""
        for stream in self._streams.values():
            if not stream.over:
                self._leave(stream)
        if self._leaving:
            await asyncio.wait(self._leaving)
        await asyncio.gather(*(channel.close() for channel in self._channels))

    def _stream(self, slot: int) -> _Stream:
        """The slot's stream, or a new one if it has ended."""
        stream = self._streams.get(slot)
        if stream is None or stream.over:
            call = self._infer[slot % len(self._infer)](metadata=self._headers)
            self._streams[slot] = stream = _Stream(call)
        return stream

    def _leave(self, stream: _Stream) -> None:
        task = asyncio.get_running_loop().create_task(stream.leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


class StreamError(Exception):
    """A request has failed; the text is `CODE: message`."""


def is_final(response: service_pb2.ModelInferResponse) -> bool:
    """Whether no more responses to the request follow."""
    return "triton_final_response" in response.parameters and response.parameters["triton_final_response"].bool_param


class _Stream:
    """A stream that carries one request after another.

    It is not cancelled while answers are pending, but only after 2 s without an answer: Triton 2.51 and older sometimes
    crash on a cancelled stream (https://github.com/triton-inference-server/server/issues/7368).
    """

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._call = call
        self._broken = False
        # Responses with their times.
        self._came: asyncio.Queue[tuple[bytes | StreamError, int]] = asyncio.Queue()
        # A separate task, as grpc.aio cancels the whole call if its reader is cancelled.
        self._reader = asyncio.get_running_loop().create_task(self._read())

    @property
    def over(self) -> bool:
        """Whether no more requests can be sent."""
        return self._broken or self._reader.done() or self._call.done()

    async def send(self, request: Request, number: int) -> None:
        """Send a request with a number as its id.

        Raises:
            StreamError: the stream has broken.
        """
        try:
            await self._call.write(request.body + with_id(number))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._failure(error) from None

    async def receive(self, number: int) -> tuple[service_pb2.ModelInferResponse, int]:
        """The next response to the request with a number, and its time on the monotonic clock, in ns.

        Raises:
            StreamError: the response is an error, or the stream has broken.
        """
        wanted = str(number)
        while True:
            raw, came_ns = await self._came.get()
            if isinstance(raw, StreamError):
                raise raw
            message = service_pb2.ModelStreamInferResponse.FromString(raw)
            # Other messages belong to requests that have failed already.
            if message.error_message and message.infer_response.id in (wanted, ""):
                # The id is removed, as it makes every error message unique.
                text = message.error_message.replace(f"[request id: {wanted}] ", "")
                raise StreamError(describe("UNKNOWN", text))
            if message.infer_response.id == wanted:
                return message.infer_response, came_ns

    async def leave(self) -> None:
        """Close the sending side, and wait until the server ends the stream; then cancel it."""
        self._broken = True
        # Times out if the server does not end the stream, or has not accepted it.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.TimeoutError):
            await asyncio.wait_for(self._end(), _PATIENCE_S)
        self._call.cancel()

    async def _end(self) -> None:
        await self._call.done_writing()
        await asyncio.wait({self._reader})

    async def _read(self) -> None:
        error: grpc.aio.AioRpcError | None = None
        try:
            while isinstance(raw := await self._call.read(), bytes):
                self._came.put_nowait((raw, time.monotonic_ns()))
        except grpc.aio.AioRpcError as failure:
            error = failure
        self._came.put_nowait((self._failure(error), time.monotonic_ns()))

    def _failure(self, error: BaseException | None) -> StreamError:
        self._broken = True
        if isinstance(error, grpc.aio.AioRpcError) and error.details() != _WRITE_FAILED:
            return StreamError(describe(error.code().name, error.details()))
        return StreamError(describe("UNAVAILABLE", _ENDED))
