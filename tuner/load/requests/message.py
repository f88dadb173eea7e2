"""A request before it takes the form of a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.options.parameters import Parameter


@dataclass(frozen=True)
class Slice:
    """A part of a shared memory region.

    Attributes:
        region: The name under which the server knows it.
        offset: Where the part begins, in bytes.
        byte_size: How long it is.
    """

    region: str
    offset: int
    byte_size: int

    @property
    def parameters(self) -> Mapping[str, str | int]:
        """What a tensor that lies there says of it, over gRPC and HTTP alike."""
        return {
            "shared_memory_region": self.region,
            "shared_memory_offset": self.offset,
            "shared_memory_byte_size": self.byte_size,
        }


@dataclass(frozen=True)
class Places:
    """Where tensors of a request lie in shared memory, by name; what is not named goes over the network."""

    inputs: Mapping[str, Slice] = field(default_factory=dict)
    outputs: Mapping[str, Slice] = field(default_factory=dict)


@dataclass(frozen=True)
class MessageInput:
    """An input: its description, and its raw bytes or where they are."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    content: bytes | Slice


@dataclass(frozen=True)
class Message:
    """A whole request.

    Attributes:
        outputs: Those to ask for, and where to put them (None: into the answer); none named: all, into the answer.
    """

    model: str
    version: str
    parameters: Mapping[str, Parameter]
    inputs: tuple[MessageInput, ...]
    outputs: Mapping[str, Slice | None]
