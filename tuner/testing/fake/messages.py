"""What is asked and answered, whichever protocol it came by."""

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
"""Of an element, by the protocol's name of its type; `BYTES` has no fixed size."""

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
"""For `struct`."""


class Code(IntEnum):
    """gRPC's status codes, as far as Triton uses them."""

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
"""How Triton's log names them."""


class RefusedError(Exception):
    """What Triton answers with an error.

    Attributes:
        code: Its kind.
        text: Triton's words.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, order=True)
class Tensor:
    """A tensor.

    Attributes:
        datatype: As the protocol names it: `FP32`.
        shape: With the batch dimension, where the model has one.
        data: Its elements, as the protocol has them.
    """

    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Response:
    """One answer to a request.

    Attributes:
        outputs: By name.
        error: In the place of all outputs.
        final: Whether it is the last one.
        empty: Whether it only says that there is none any more.
    """

    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    error: RefusedError | None = None
    final: bool = True
    empty: bool = False


@dataclass(eq=False)
class Request:
    """An inference that is asked for.

    Attributes:
        model: Its name.
        version: As asked; empty: the server's choice.
        id: The client's own.
        inputs: By name.
        wanted: The outputs that are asked for; none: all.
        answer: Takes each response.
        sequence: Its number or name; 0: none.
        start: Whether it begins the sequence.
        end: Whether it ends it.
        arrived: When (`Timeline`).
        size: Inferences in it.
        form: See `batcher.Item`.
        cancelled: Whether nobody waits for the answer any more.
        on_cancel: Is called when that comes true.
        ready: Whether it is one at all; else it fills the place of a sequence that has sent nothing.
        rescheduled: Whether its model wants to execute it once more.
    """

    model: str
    inputs: dict[str, Tensor]
    answer: Callable[[Response], None]
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
        """Nobody waits for it any more."""
        if not self.cancelled:
            self.cancelled = True
            for call in self.on_cancel:
                call()


def texts_of(data: bytes) -> list[bytes]:
    """The elements of a tensor of type BYTES.

    Raises:
        ValueError: it is no such thing.
    """
    found, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("a length is cut off")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if at + length > len(data):
            raise ValueError("an element is cut off")
        found.append(data[at : at + length])
        at += length
    return found


def joined(texts: Sequence[bytes]) -> bytes:
    """Elements as a tensor of type BYTES."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def count_of(shape: Sequence[int]) -> int:
    """How many elements a shape has."""
    count = 1
    for length in shape:
        count *= length
    return count
