"""The process of a Python instance: a fork of the server, with the command line of Triton's stub."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.util
import itertools
import json
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuner.testing.fake import triton_python_backend_utils as pb_utils
from tuner.testing.fake.pipe import ChildEnd

NAME = "triton_python_backend_stub"
_MODULE = "triton_python_backend_utils"
_forks = itertools.count()


def fork_stub(sock: socket.socket, model_file: Path, work: Callable[[ChildEnd], None]) -> int:
    """Fork a process that runs a function and ends. Returns its pid."""
    if next(_forks):
        import numpy  # noqa: F401, ICN001, PLC0415 (imported once, before forks)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _become_stub(sock, model_file)
        work(ChildEnd(sock))
        code = 0
    except BaseException:  # noqa: BLE001 (the fork must not return into the server's code)
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _become_stub(sock: socket.socket, model_file: Path) -> None:
    gc.freeze()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Close the server's descriptors, so that its ports are free as soon as the server ends.
    os.closerange(3, sock.fileno())
    os.closerange(sock.fileno() + 1, 4096)
    Path("/proc/self/comm").write_text(NAME, encoding="ascii")
    _rename([NAME, str(model_file)])


def _rename(arguments: list[str]) -> None:
    """Overwrite the server's command line, as far as there is room."""
    fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    text = b"\0".join(map(os.fsencode, arguments))[: end - begin - 1]
    ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def load_class(model_file: Path) -> Any:
    """The class `TritonPythonModel` of a model's code."""
    sys.modules[_MODULE] = pb_utils
    sys.path[:0] = [str(model_file.parent), str(model_file.parent.parent)]
    spec = importlib.util.spec_from_file_location("model", model_file)
    if spec is None or spec.loader is None:
        raise ImportError(f"no code in {model_file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    spec.loader.exec_module(module)
    return module.TritonPythonModel


def as_stub_says(error: BaseException) -> str:
    """An exception as the Python backend formats it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}testing{os.sep}fake{os.sep}" not in frame.filename]
    places = "".join(f"  {frame.filename}({frame.lineno}): {frame.name}\n" for frame in reversed(own))
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return f"{name}: {error}\n\nAt:\n{places}"


def complete_config(end: ChildEnd, model_file: Path, config: dict[str, Any]) -> None:
    """Let a model complete its config, and send the result."""
    try:
        model = load_class(model_file)
        if complete := getattr(model, "auto_complete_config", None):
            config = complete(pb_utils.ModelConfig(config)).as_dict()
    except Exception as error:  # noqa: BLE001 (any code of a model)
        end.send(("failed", as_stub_says(error)))
    else:
        end.send(("completed", json.dumps(config)))


class StubLoop:
    """Runs an instance until the server ends it.

    Args:
        end: The process's end of the pipe.
        model_file: The model's code.
        arguments: The arguments of `initialize`.
        decoupled: Whether the model is decoupled.
    """

    def __init__(self, end: ChildEnd, model_file: Path, arguments: dict[str, str], *, decoupled: bool) -> None:
        self._end = end
        self._model_file = model_file
        self._arguments = arguments
        self._decoupled = decoupled
        self._asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._calls: dict[int, queue.SimpleQueue[Any]] = {}
        self._lock = threading.Lock()
        self._last = 0
        pb_utils.InferenceRequest.caller = self._call

    def run(self) -> None:
        """Initialise the model, execute requests, and finalise."""
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            model = load_class(self._model_file)()
            if hasattr(model, "initialize"):
                model.initialize(self._arguments)
        except Exception as error:  # noqa: BLE001 (any code of a model)
            self._end.send(("failed", as_stub_says(error)))
            return
        self._end.send(("ready",))
        while (message := self._asked.get())[0] == "execute":
            self._execute(model, message[1])
        if hasattr(model, "finalize"):
            model.finalize()
        sys.stdout.flush()
        self._end.send(("finalized",))

    def _listen(self) -> None:
        while (messages := self._end.receive()) is not None:
            for message in messages:
                if message[0] == "called":
                    self._calls.pop(message[1]).put(message[2])
                elif message[0] == "cancel":
                    self._cancelled.add(message[1])
                else:
                    self._asked.put(message)
        # The server has ended, and so do its instances.
        os._exit(0)

    def _execute(self, model: Any, asked: list[dict[str, Any]]) -> None:
        requests = [self._request(request) for request in asked]
        try:
            responses = model.execute(requests)
        except Exception as error:  # noqa: BLE001 (any code of a model)
            self._end.send(("done", [], as_stub_says(error)))
            return
        if self._decoupled:
            again = [request.release_flags == pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE for request in requests]
            self._end.send(("done", again, None))
            return
        try:
            packed = [_packed(response) for response in responses]
        except Exception as error:  # noqa: BLE001 (the model's answers may be invalid)
            self._end.send(("done", [], as_stub_says(error)))
            return
        self._end.send(("done", packed, None))

    def _request(self, asked: dict[str, Any]) -> pb_utils.InferenceRequest:
        number = asked["number"]

        def send(response: pb_utils.InferenceResponse | None, flags: int) -> None:
            packed = None if response is None else _packed(response)
            self._end.send(("response", number, packed, bool(flags & pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)))

        inputs = [pb_utils.tensor_of(name, *tensor) for name, tensor in asked["inputs"].items()]
        sender = pb_utils.ResponseSender(send, lambda: number in self._cancelled)
        return pb_utils.InferenceRequest.received(inputs, asked, sender)

    def _call(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        """Call another model of the server; several threads may do so."""
        with self._lock:
            self._last += 1
            number = self._last
            answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
            self._calls[number] = answer
        message = {
            "number": number,
            "model": request.model_name(),
            "version": request.model_version(),
            "id": request.request_id(),
            "sequence": request.correlation_id(),
            "flags": request.flags(),
            "wanted": request.requested_output_names(),
            "inputs": {tensor.name(): pb_utils.as_protocol(tensor) for tensor in request.inputs()},
        }
        self._end.send(("call", message))
        outputs, error = answer.get()
        if error is not None:
            return pb_utils.InferenceResponse([], pb_utils.TritonError(error))
        return pb_utils.InferenceResponse([pb_utils.tensor_of(name, *parts) for name, parts in outputs.items()])


def _packed(response: pb_utils.InferenceResponse) -> tuple[dict[str, Any], str | None]:
    error = response.error()
    if error is not None:
        return {}, error.message()
    return {tensor.name(): pb_utils.as_protocol(tensor) for tensor in response.output_tensors()}, None
