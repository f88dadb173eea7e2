"""Replaces Triton's module of the Python backend, with the parts that the tests' models use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from tuner.testing.fake.messages import BYTES, joined, texts_of

# The import of numpy takes most of the start-up time, and most servers of tests get no request.
if TYPE_CHECKING:
    from numpy.typing import NDArray

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2


@cache
def _types() -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415 (see above)

    return {
        "BOOL": np.bool_,
        "UINT8": np.uint8,
        "UINT16": np.uint16,
        "UINT32": np.uint32,
        "UINT64": np.uint64,
        "INT8": np.int8,
        "INT16": np.int16,
        "INT32": np.int32,
        "INT64": np.int64,
        "FP16": np.float16,
        "FP32": np.float32,
        "FP64": np.float64,
        BYTES: np.object_,
    }


@cache
def _names() -> dict[Any, str]:
    import numpy as np  # noqa: PLC0415 (see above)

    return {np.dtype(kind): name for name, kind in _types().items()}


class TritonModelException(Exception):  # noqa: N818 (its name)
    """An exception for models to raise."""


class TritonError:
    """The error of a response.

    Args:
        message: The message.
        code: Ignored.
    """

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        """The message."""
        return self._message

    def code(self) -> int:
        """The status code."""
        return self._code


class Tensor:
    """A named tensor.

    Args:
        name: Its name.
        values: Its elements.
    """

    def __init__(self, name: str, values: NDArray[Any]) -> None:
        import numpy as np  # noqa: PLC0415 (see above)

        if not isinstance(values, np.ndarray):
            raise TypeError("Tensor() takes a numpy array")
        self._name = name
        self._values = values

    def name(self) -> str:
        """Its name."""
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        """Its elements."""
        return self._values

    def shape(self) -> Sequence[int]:
        """Its shape."""
        return self._values.shape

    def is_cpu(self) -> bool:
        """Whether it is in host memory."""
        return True


class InferenceResponse:
    """The response of a model.

    Args:
        output_tensors: The outputs.
        error: The error, instead of outputs.
    """

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self._tensors = list(output_tensors)
        self._error = error

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""
        return self._tensors

    def has_error(self) -> bool:
        """Whether the response is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error."""
        return self._error


class ResponseSender:
    """Sends the responses of one request, at any time and from any thread."""

    def __init__(self, send: Callable[[InferenceResponse | None, int], None], cancelled: Callable[[], bool]) -> None:
        self._send = send
        self._cancelled = cancelled

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response; the flag marks the last one."""
        self._send(response, flags)

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled the request."""
        return self._cancelled()


class InferenceRequest:
    """A request to this model, or of this model to another one.

    Args:
        model_name: Name of the model to call.
        requested_output_names: Its outputs to return; empty: all.
        inputs: Its inputs.
        model_version: Its version; -1: the server's choice.
        request_id: The caller's id of the request.
        correlation_id: The sequence's id.
        flags: Whether the request begins or ends its sequence.
    """

    caller: Callable[[InferenceRequest], InferenceResponse] | None = None
    """Calls another model; set by the instance's process."""

    def __init__(
        self,
        *,
        model_name: str = "",
        requested_output_names: Sequence[str] = (),
        inputs: Sequence[Tensor] = (),
        model_version: int = -1,
        request_id: str = "",
        correlation_id: int | str = 0,
        flags: int = 0,
        **others: Any,  # noqa: ARG002 (ignored)
    ) -> None:
        self._inputs = list(inputs)
        self._model = model_name
        self._version = model_version
        self._asked: Mapping[str, Any] = {
            "id": request_id,
            "sequence": correlation_id,
            "flags": flags,
            "wanted": list(requested_output_names),
        }
        self._sender: ResponseSender | None = None
        self.release_flags = TRITONSERVER_REQUEST_RELEASE_ALL

    @classmethod
    def received(cls, inputs: Sequence[Tensor], asked: Mapping[str, Any], sender: ResponseSender) -> InferenceRequest:
        """A request received from the server."""
        request = cls(inputs=inputs)
        request._asked = asked
        request._sender = sender
        return request

    def exec(self) -> InferenceResponse:
        """Call the other model, and wait for its response."""
        if InferenceRequest.caller is None:
            raise TritonModelException("no other model can be asked here")
        return InferenceRequest.caller(self)

    def model_name(self) -> str:
        """Name of the called model."""
        return self._model

    def model_version(self) -> int:
        """Version of the called model."""
        return self._version

    def set_release_flags(self, flags: int) -> None:
        """Set whether the request is to be executed again."""
        self.release_flags = flags

    def inputs(self) -> list[Tensor]:
        """The inputs."""
        return self._inputs

    def request_id(self) -> str:
        """The client's id of the request."""
        return str(self._asked["id"])

    def correlation_id(self) -> Any:
        """The sequence's id."""
        return self._asked["sequence"]

    def flags(self) -> int:
        """Whether the request begins or ends its sequence."""
        return int(self._asked["flags"])

    def requested_output_names(self) -> list[str]:
        """The requested outputs."""
        return list(self._asked["wanted"])

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled the request."""
        return self._sender is not None and self._sender.is_cancelled()

    def get_response_sender(self) -> ResponseSender | None:
        """Its response sender; None for a request of this model to another one."""
        return self._sender


class ModelConfig:
    """A config for a model to complete.

    Args:
        config: The config as JSON.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def as_dict(self) -> dict[str, Any]:
        """The config as JSON."""
        return self._config

    def set_max_batch_size(self, value: int) -> None:
        """Set `max_batch_size`, unless the config has a larger one."""
        if self._config["max_batch_size"] > value:
            raise ValueError(
                f"configuration specified max_batch_size {self._config['max_batch_size']}, but in auto-complete-config"
                f" function for model '{self._config['name']}' specified max_batch_size {value}"
            )
        self._config["max_batch_size"] = value

    def set_dynamic_batching(self) -> None:
        """Enable dynamic batching."""
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, policy: Mapping[str, Any]) -> None:
        """Set the transaction policy."""
        self._config["model_transaction_policy"] = dict(policy)

    def add_input(self, tensor: Mapping[str, Any]) -> None:
        """Add an input, or the fields that the config lacks."""
        self._add("input", tensor)

    def add_output(self, tensor: Mapping[str, Any]) -> None:
        """Add an output, or the fields that the config lacks."""
        self._add("output", tensor)

    def _add(self, kind: str, tensor: Mapping[str, Any]) -> None:
        for present in self._config[kind]:
            if present["name"] == tensor["name"]:
                present.update({"data_type": tensor["data_type"], "dims": list(tensor["dims"])})
                return
        self._config[kind].append({**tensor, "dims": list(tensor["dims"])})


class Logger:
    """Writes to the server's log."""

    @staticmethod
    def log_info(text: str) -> None:
        """Log an information."""
        sys.stdout.write(f"I {text}\n")

    @staticmethod
    def log_warn(text: str) -> None:
        """Log a warning."""
        sys.stdout.write(f"W {text}\n")

    @staticmethod
    def log_error(text: str) -> None:
        """Log an error."""
        sys.stdout.write(f"E {text}\n")


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """An input by name; None: there is none."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(response: InferenceResponse, name: str) -> Tensor | None:
    """An output by name; None: there is none."""
    return next((tensor for tensor in response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(config: Mapping[str, Any], name: str) -> Any:
    """The config of an input."""
    return next((tensor for tensor in config.get("input", ()) if tensor["name"] == name), None)


def get_output_config_by_name(config: Mapping[str, Any], name: str) -> Any:
    """The config of an output."""
    return next((tensor for tensor in config.get("output", ()) if tensor["name"] == name), None)


def triton_string_to_numpy(name: str) -> Any:
    """NumPy's type for a config's data type, such as `TYPE_FP32`."""
    name = name.removeprefix("TYPE_")
    return _types()[BYTES if name == "STRING" else name]


def tensor_of(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """A tensor from the protocol's representation."""
    import numpy as np  # noqa: PLC0415 (see above)

    if datatype == BYTES:
        return Tensor(name, np.array(texts_of(data), np.object_).reshape(shape))
    return Tensor(name, np.frombuffer(data, _types()[datatype]).reshape(shape))


def as_protocol(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and serialised elements, as in the protocol."""
    import numpy as np  # noqa: PLC0415 (see above)

    values = tensor.as_numpy()
    if values.dtype.kind in "OSU":
        texts = [value if isinstance(value, bytes) else str(value).encode() for value in values.ravel()]
        return BYTES, values.shape, joined(texts)
    return _names()[values.dtype], values.shape, np.ascontiguousarray(values).tobytes()
