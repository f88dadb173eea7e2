"""Requests and responses, independent of the protocol."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

BYTES = "BYTES"

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "FP32": 4,
    "FP64": 8,
    "BF16": 2,
}
"""Bytes of an element, by the protocol's name of its type; `BYTES` has no fixed size."""

FORMATS: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
"""Format characters for `struct`, by the protocol's name of the type."""


class Code(IntEnum):
    """gRPC's status codes that Triton uses."""

    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


WORDS: Mapping[Code, str] = {
    Code.UNKNOWN: "Unknown",
    Code.INVALID_ARGUMENT: "Invalid argument",
    Code.NOT_FOUND: "Not found",
    Code.ALREADY_EXISTS: "Already exists",
    Code.PERMISSION_DENIED: "Permission denied",
    Code.UNIMPLEMENTED: "Unsupported",
    Code.INTERNAL: "Internal",
    Code.UNAVAILABLE: "Unavailable",
}
"""The names of the codes in Triton's log."""


class RefusedError(Exception):
    """An error response of Triton.

    Attributes:
        code: The status code.
        text: Triton's message.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, order=True)
class RawTensor:
    """A tensor.

    Attributes:
        datatype: The protocol's name of its type, such as `FP32`.
        shape: Its shape, with the batch dimension if the model has one.
        data: Its elements, serialised as in the protocol.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class InferResponse:
    """One response to a request.

    Attributes:
        outputs: Outputs by name.
        error: The error, instead of outputs.
        final: Whether it is the last response.
        empty: Whether it only marks the end (an empty final response).
    """

    outputs: Mapping[str, RawTensor] = field(default_factory=dict)
    error: RefusedError | None = None
    final: bool = True
    empty: bool = False


@dataclass(eq=False)
class InferRequest:
    """An inference request.

    Attributes:
        model: Name of the model.
        version: Requested version; empty: the server's choice.
        id: The client's id of the request.
        inputs: Inputs by name.
        wanted: Requested outputs; empty: all.
        answer: Takes each response.
        sequence: Number or name of the sequence; 0: none.
        start: Whether it begins the sequence.
        end: Whether it ends the sequence.
        arrived: Arrival time, in s of the `Timeline`.
        size: Number of inferences.
        form: See `batcher.Item`.
        cancelled: Whether the client has cancelled it.
        on_cancel: Called when it is cancelled.
        ready: False if it only fills the batch slot of a sequence without a request.
        rescheduled: Whether the model asks to execute it again.
    """

    model: str
    inputs: dict[str, RawTensor]
    answer: Callable[[InferResponse], None]
    version: str = ""
    id: str = ""
    wanted: Sequence[str] = ()
    sequence: int | str = 0
    start: bool = False
    end: bool = False
    arrived: float = 0.0
    size: int = 1
    form: object = None
    cancelled: bool = False
    on_cancel: list[Callable[[], None]] = field(default_factory=list)
    ready: bool = True
    rescheduled: bool = False

    def cancel(self) -> None:
        """Cancel the request."""
        if not self.cancelled:
            self.cancelled = True
            for call in self.on_cancel:
                call()


def texts_of(data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor.

    Raises:
        ValueError: the data is not a valid BYTES tensor.
    """
    texts, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("a length is cut off")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise ValueError("an element is cut off")
        texts.append(data[at : at + length])
        at += length
    return texts


def joined(texts: Sequence[bytes]) -> bytes:
    """Elements serialised as a BYTES tensor."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def count_of(shape: Sequence[int]) -> int:
    """Number of elements of a shape."""
    count = 1
    for length in shape:
        count *= length
    return count
