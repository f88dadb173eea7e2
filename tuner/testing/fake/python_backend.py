"""The Python backend: the server's side of the processes that run `model.py`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from tuner.testing.fake.log import raw, say
from tuner.testing.fake.messages import Code, InferRequest, InferResponse, RawTensor, RefusedError
from tuner.testing.fake.pipe import Unpacker, packed

# In s: Triton needs 1 s for each request to detect that the process of an instance has ended.
_UNHEALTHY_S = 0.1


class StubProcess(asyncio.Protocol):
    """One process of a model.

    Args:
        on_message: Takes each of its messages.
        on_end: Called when it has ended.
    """

    def __init__(self, on_message: Callable[[Any], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._unpacker = Unpacker()
        self._transport: asyncio.WriteTransport | None = None
        self.pid = 0
        self.ended = asyncio.Event()

    async def start(self, model_file: Path, work: Callable[[Any], None]) -> None:
        """Fork the process."""
        from tuner.testing.fake.stub import fork_stub  # noqa: PLC0415 (most servers have no such model)

        ours, theirs = socket.socketpair()
        self.pid = fork_stub(theirs, model_file, work)
        theirs.close()
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        for message in self._unpacker.feed(data):
            self._on_message(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """See `asyncio.Protocol`."""
        self.ended.set()
        self._on_end()

    def send(self, message: Any) -> None:
        """Send a message, which is lost if the process has ended."""
        if self._transport:
            self._transport.write(packed(message))

    def collect(self) -> None:
        """Reap a process that has ended normally; a crashed one stays visible as a zombie."""
        if self._transport:
            self._transport.close()
        os.waitpid(self.pid, 0)


async def completed_by_model(model_file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """A config completed by a model's `auto_complete_config`.

    Raises:
        RefusedError: `auto_complete_config` raises.
    """
    answer: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    def take(message: tuple[str, str]) -> None:
        answer.set_result(message)

    def ended() -> None:
        if not answer.done():
            answer.set_result(("failed", "Stub process is not healthy."))

    stub = StubProcess(take, ended)

    def work(end: Any) -> None:
        from tuner.testing.fake.stub import complete_config  # noqa: PLC0415 (see above)

        complete_config(end, model_file, config)

    await stub.start(model_file, work)
    kind, text = await answer
    await stub.ended.wait()
    stub.collect()
    if kind == "failed":
        raise RefusedError(Code.INTERNAL, text)
    completed: dict[str, Any] = json.loads(text)
    return completed


class PythonInstance:
    """One instance; a `batcher.Instance`.

    Args:
        name: Name of the instance, such as `identity_0_0`.
        model: Name of the model.
        version: Version of the model.
        model_file: Its `model.py`.
        config: Its config, as JSON.
        decoupled: Whether the model is decoupled.
        clock: Returns the time, in s of the timeline.
        finished: See `native.NativeModel.instances`; without responses for a decoupled model.
        answered: Takes a request and a response of a decoupled model.
        infer: Runs an inference of another model of the server.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str,
        version: int,
        model_file: Path,
        config: dict[str, Any],
        decoupled: bool,
        clock: Callable[[], float],
        finished: Callable[..., None],
        answered: Callable[[InferRequest, InferResponse], None],
        infer: Callable[[InferRequest], None],
    ) -> None:
        self._name = name
        self._model = model
        self._model_file = model_file
        self._arguments = {
            "model_config": json.dumps(config),
            "model_instance_kind": "CPU",
            "model_instance_name": name,
            "model_instance_device_id": "0",
            "model_repository": str(model_file.parent.parent),
            "model_version": str(version),
            "model_name": model,
        }
        self._decoupled = decoupled
        self._clock = clock
        self._finished = finished
        self._answered = answered
        self._infer = infer
        self._stub = StubProcess(self._take, self._on_end)
        self._loaded: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._batch: Sequence[InferRequest] = ()
        self._began = 0.0
        self._done: Callable[[float], None] | None = None
        self._open: dict[int, InferRequest] = {}
        self._number = 0

    @property
    def unhealthy(self) -> str:
        """Triton's error for an instance whose process has ended."""
        return f"Stub process '{self._name}' is not healthy."

    async def start(self) -> None:
        """Start the process, and return when the model is initialised.

        Raises:
            RefusedError: `initialize` raises, or the process ends.
        """
        say("I", "python_be.cc:2249", f"TRITONBACKEND_ModelInstanceInitialize: {self._name} (CPU device 0)")
        if " " in str(self._model_file):
            # As with Triton, the process gets an invalid command line, and the server waits for it without end.
            await self._stub.start(self._model_file, lambda _: os._exit(1))
            await asyncio.Event().wait()
        if not self._model_file.is_file():
            text = f"Failed to preinitialize Python stub: Python model file not found in '{self._model_file}'"
            raw(f"I0000 00:00:00.000000 {os.getpid()} pb_stub.cc:2105]  {text}")
            # Triton waits without end for a process that does not exist.
            await asyncio.Event().wait()
        await self._stub.start(self._model_file, self._work)
        if (error := await self._loaded) is not None:
            if error != self.unhealthy:
                say("I", "pb_stub.cc:366", f"Failed to initialize Python stub: {error}")
                await self._stub.ended.wait()
                self._stub.collect()
            say("E", "backend_model.cc:692", f"ERROR: Failed to create instance: {error}")
            raise RefusedError(Code.INTERNAL, error)

    async def stop(self) -> None:
        """Finalise the model, and wait until the process has ended; this blocks while it hangs."""
        if self._stub.ended.is_set():
            return
        self._stub.send(("finalize",))
        await self._stub.ended.wait()
        self._stub.collect()

    def execute(self, batch: Sequence[Any], at: float, done: Callable[[float], None]) -> None:
        """See `batcher.Instance`."""
        self._batch, self._began, self._done = batch, at, done
        if self._stub.ended.is_set():
            asyncio.get_running_loop().call_later(_UNHEALTHY_S, self._fail, self.unhealthy)
            return
        self._stub.send(("execute", [self._packed(request) for request in batch]))

    def _work(self, end: Any) -> None:
        from tuner.testing.fake.stub import StubLoop  # noqa: PLC0415 (see above)

        StubLoop(end, self._model_file, self._arguments, decoupled=self._decoupled).run()

    def _packed(self, request: InferRequest) -> dict[str, Any]:
        self._number += 1
        number = self._number
        if self._decoupled:
            self._open[number] = request
        request.on_cancel.append(lambda: self._stub.send(("cancel", number)))
        return {
            "number": number,
            "id": request.id,
            "sequence": request.sequence,
            "flags": request.start + 2 * request.end,
            "wanted": list(request.wanted),
            "inputs": {name: (tensor.datatype, tensor.shape, tensor.data) for name, tensor in request.inputs.items()},
        }

    def _take(self, message: Any) -> None:
        if message[0] == "ready":
            self._loaded.set_result(None)
        elif message[0] == "failed":
            self._loaded.set_result(message[1])
        elif message[0] == "done":
            self._on_done(message[1], message[2])
        elif message[0] == "response":
            self._on_response(message[1], message[2], final=message[3])
        elif message[0] == "call":
            self._on_call(message[1])

    def _on_done(self, results: Sequence[Any], error: str | None) -> None:
        """Handle the end of an execution: its responses; if decoupled, whether to execute each request again."""
        if error is not None:
            self._fail(f"Failed to process the request(s) for model '{self._name}', message: {error}")
        elif self._decoupled:
            for request, again in zip(self._batch, results, strict=True):
                request.rescheduled = again
                if again:
                    self._open = {number: other for number, other in self._open.items() if other is not request}
            self._finish(None)
        else:
            self._finish([_response(result) for result in results])

    def _on_response(self, number: int, packed_response: Any, *, final: bool) -> None:
        request = self._open[number]
        if final:
            del self._open[number]
        if packed_response is None:
            self._answered(request, InferResponse(final=final, empty=True))
        else:
            self._answered(request, _response(packed_response, final=final))

    def _on_call(self, call: dict[str, Any]) -> None:
        """Handle a call of the model to another model."""

        def answer(response: InferResponse) -> None:
            outputs = {name: (tensor.datatype, tensor.shape, tensor.data) for name, tensor in response.outputs.items()}
            error = response.error.text if response.error else None
            self._stub.send(("called", call["number"], (outputs, error)))

        request = InferRequest(
            call["model"],
            {name: RawTensor(*parts) for name, parts in call["inputs"].items()},
            answer,
            version="" if call["version"] < 0 else str(call["version"]),
            id=call["id"],
            wanted=call["wanted"],
            sequence=call["sequence"],
            start=bool(call["flags"] & 1),
            end=bool(call["flags"] & 2),
        )
        try:
            self._infer(request)
        except RefusedError as error:
            text = error.text
            if error.code == Code.NOT_FOUND:
                text = f"Failed for execute the inference request. Model '{call['model']}' is not ready."
            answer(InferResponse(error=RefusedError(Code.INTERNAL, text)))

    def _on_end(self) -> None:
        if not self._loaded.done():
            self._loaded.set_result(self.unhealthy)
        for request in self._open.values():
            self._answered(request, InferResponse(error=RefusedError(Code.INTERNAL, self.unhealthy)))
        self._open.clear()
        if self._done:
            self._fail(self.unhealthy)

    def _fail(self, text: str) -> None:
        for number in [number for number, request in self._open.items() if request in self._batch]:
            del self._open[number]
        self._finish([InferResponse(error=RefusedError(Code.INTERNAL, text)) for _ in self._batch])

    def _finish(self, responses: Sequence[InferResponse] | None) -> None:
        batch, done, self._batch, self._done = self._batch, self._done, (), None
        if done is None:
            return
        now = self._clock()
        self._finished(batch, responses, self._began, now)
        done(now)


def _response(packed_response: tuple[dict[str, Any], str | None], *, final: bool = True) -> InferResponse:
    outputs, error = packed_response
    if error is not None:
        return InferResponse(error=RefusedError(Code.INTERNAL, error), final=final)
    return InferResponse({name: RawTensor(*parts) for name, parts in outputs.items()}, final=final)
