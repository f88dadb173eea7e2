"""Closed-loop load over grpc.aio, with request and response left as bytes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent import futures
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
from typing_extensions import Self

from tuner.load.failures import describe, failed
from tuner.load.protocols import Concurrency, Samples, Watch
from tuner.load.recorder import Recorder
from tuner.servers.channel import CHANNEL_OPTIONS

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
# Long enough for most requests under way to end, so that they do not weigh on what is measured next.
_DRAIN_S = 1.0
# What cancelling and closing may take before it is given up on.
_PATIENCE_S = 5.0
# One failure is retried at once; a row of them waits longer each time, so that a dead server costs no CPU.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25

_T = TypeVar("_T")


def ask_once(address: str, request: bytes, *, timeout_s: float) -> float:
    """Send one request and say how long its answer took, in seconds, connecting included.

    Raises:
        ServerHungError: no answer within `timeout_s`.
        ServerError: the request failed; the message has its code and reason.
    """
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
        began = time.monotonic()
        try:
            infer(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise failed("the first request failed", describe(error.code(), error.details())) from None
        return time.monotonic() - began


class GrpcAioEngine:
    """A `LoadEngine` that keeps one task a request under way, on an event loop in a thread of its own.

    The caller's thread only waits and watches, so what a signal handler raises there (Ctrl-C) never strikes the loop.
    The connection stays open between offers.

    Args:
        address: `host:port` of the gRPC endpoint.
        requests: Serialised `ModelInferRequest`s, sent in rotation.
        request_timeout_s: Deadline of each request; past it, the request has failed.
    """

    def __init__(self, address: str, requests: Sequence[bytes], *, request_timeout_s: float) -> None:
        if not requests:
            raise ValueError("there is no request to send")
        self._rotation = itertools.cycle(requests)
        self._timeout_s = request_timeout_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="load", daemon=True)
        self._thread.start()
        self._channel = self._start(_connect(address)).result(_PATIENCE_S)
        self._infer: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_METHOD)

    def offer(self, load: Concurrency, watch: Watch, *, first_look_s: float) -> Samples:
        """See `LoadEngine.offer`. `watch` is called in the caller's thread while the load goes on."""
        with _no_garbage_collection():
            offer = _Offer()
            running = self._start(self._serve(offer, load.requests))
            drain_s = 0.0
            try:
                pause_s: float | None = first_look_s
                while pause_s is not None:
                    if running in futures.wait([running], timeout=pause_s).done:
                        break
                    pause_s = watch(offer.recorder.samples())
                drain_s = _DRAIN_S
            finally:
                self._loop.call_soon_threadsafe(offer.end, drain_s)
                running.result(drain_s + _PATIENCE_S)
        return offer.recorder.samples()

    def close(self) -> None:
        """See `LoadEngine.close`."""
        if self._loop.is_closed():
            return
        self._start(self._shut_down()).result(2 * _PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_S)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, work: Coroutine[Any, Any, _T]) -> futures.Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _serve(self, offer: _Offer, concurrency: int) -> None:
        """Hold the load until the offer ends; leave nothing under way."""
        workers = [asyncio.create_task(self._keep_one_under_way(offer)) for _ in range(concurrency)]
        ended = asyncio.create_task(offer.ended.wait())
        # A worker ends before the offer only by an error of our own making, which must not be waited out.
        await asyncio.wait([ended, *workers], return_when=asyncio.FIRST_COMPLETED)
        offer.end(0.0)
        await asyncio.wait(workers, timeout=offer.drain_s)
        await _cancel([ended, *workers])
        for worker in workers:
            if not worker.cancelled():
                worker.result()

    async def _keep_one_under_way(self, offer: _Offer) -> None:
        infer, timeout_s, rotation, recorder = self._infer, self._timeout_s, self._rotation, offer.recorder
        clock = time.monotonic_ns
        failures = 0
        while offer.open:
            sent_ns = clock()
            try:
                await infer(next(rotation), timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                failures += 1
                if offer.open:
                    recorder.failure(sent_ns, clock(), describe(error.code(), error.details()))
                    if failures > 1:
                        await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(failures - 2, 10)))
            else:
                failures = 0
                if offer.open:
                    recorder.success(sent_ns, clock())

    async def _shut_down(self) -> None:
        await self._channel.close()
        await _cancel([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])


class _Offer:
    """One offer as its workers see it. All but `recorder.samples` belongs to the loop's thread."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.open = True
        self.ended = asyncio.Event()
        self.drain_s = 0.0

    def end(self, drain_s: float) -> None:
        """Count nothing from now on, and let what is under way end within `drain_s`; again changes nothing."""
        if self.open:
            self.open = False
            self.drain_s = drain_s
            self.recorder.stop()
            self.ended.set()


async def _connect(address: str) -> grpc.aio.Channel:
    """A channel belongs to the loop that runs where it is made."""
    return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_PATIENCE_S)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a window would look like a slow request."""
    enabled = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
