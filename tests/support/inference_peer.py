"""A gRPC server in this process that answers inference requests as its models are named, and counts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import grpc
from tritonclient.grpc import service_pb2
from typing_extensions import Self

_THREADS = 64


def request_for(model: str, content: bytes = b"") -> bytes:
    """A serialised request without a tensor's worth of ceremony."""
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[content] if content else [])
    serialised: bytes = message.SerializeToString()
    return serialised


class InferencePeer:
    """Answers `sleep` after 10 ms, `flaky` two times of three, `fail` never, `hang` not at all, and all others at once.

    Leaving the context stops it.
    """

    def __init__(self) -> None:
        self.successes: Counter[str] = Counter()
        self.under_way = 0
        self.most_under_way = 0
        self.contents: set[bytes] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._stopping = threading.Event()
        self._calls = 0
        self._pool = ThreadPoolExecutor(_THREADS)
        self._server = grpc.server(
            self._pool, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        )
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._infer)
        service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})
        self._server.add_generic_rpc_handlers((service,))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Whether nothing was under way any more within the time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.under_way == 0, timeout_s)

    def stop(self) -> None:
        """End every call and the server, at once; again is harmless."""
        self._stopping.set()
        self._server.stop(None).wait(10)
        self._pool.shutdown()

    def _infer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._changed:
            self._calls += 1
            call = self._calls
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return self._answer(request, call, context)
        finally:
            with self._changed:
                self.under_way -= 1
                self._changed.notify_all()

    def _answer(self, request: bytes, call: int, context: grpc.ServicerContext) -> bytes:
        message = service_pb2.ModelInferRequest.FromString(request)
        if message.model_name == "hang":
            while context.is_active() and not self._stopping.wait(0.01):
                pass
            context.abort(grpc.StatusCode.CANCELLED, "stopped")
        if message.model_name == "fail" or (message.model_name == "flaky" and call % 3 == 0):
            context.abort(grpc.StatusCode.INTERNAL, "the model says no")
        if message.model_name == "sleep":
            time.sleep(0.01)
        with self._lock:
            self.successes[message.model_name] += 1
            self.contents.update(message.raw_input_contents)
        return request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
