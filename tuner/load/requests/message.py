"""A request before it is serialised for a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.options.parameters import Parameter


@dataclass(frozen=True)
class Slice:
    """A part of a shared memory region.

    Attributes:
        region: The name of the region on the server.
        offset: The start of the part, in bytes.
        byte_size: Its length in bytes.
    """

    region: str
    offset: int
    byte_size: int

    @property
    def parameters(self) -> Mapping[str, str | int]:
        """The parameters of a tensor in this slice, for gRPC and HTTP."""
        return {
            "shared_memory_region": self.region,
            "shared_memory_offset": self.offset,
            "shared_memory_byte_size": self.byte_size,
        }


@dataclass(frozen=True)
class Places:
    """The slices of a request's tensors in shared memory, by name; other tensors go over the network."""

    inputs: Mapping[str, Slice] = field(default_factory=dict)
    outputs: Mapping[str, Slice] = field(default_factory=dict)


@dataclass(frozen=True)
class MessageInput:
    """An input: its description, and its raw bytes or their slice of shared memory."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: bytes | Slice


@dataclass(frozen=True)
class RequestMessage:
    """A whole request.

    Attributes:
        outputs: The requested outputs, with their slices (None: in the answer); empty: all, in the answer.
    """

    model: str
    version: str
    parameters: Mapping[str, Parameter]
    inputs: tuple[MessageInput, ...]
    outputs: Mapping[str, Slice | None]
