"""Requests whose tensors are in shared memory, so that they do not go over the network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from typing import Literal

from tuner.config.interface import ModelInterface
from tuner.core.errors import JobError, TritontuneError
from tuner.core.mark import Mark
from tuner.load.inputs.shapes import batch_dims
from tuner.load.inputs.tensors import RequestStep, Stream, fixed_bytes
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.requests.message import Places, Slice
from tuner.load.requests.regions import cuda_region, system_region
from tuner.load.requests.registries import Region, Registry
from tuner.load.workload import Workload
from tuner.options.endpoint import Protocol

MemoryKind = Literal["system", "cuda"]

# Alignment of tensors in bytes: none share a cache line, and GPUs copy aligned memory faster.
_ALIGNMENT = 256
# In s. For a moment after an answer, the server still uses the memory, and refuses to close it.
_IN_USE_S, _AGAIN_S = 5.0, 0.02


@contextmanager
def shared_workload(
    interface: ModelInterface,
    streams: Sequence[Stream],
    options: RequestOptions,
    protocol: Protocol,
    registry: Registry,
    *,
    kind: MemoryKind = "system",
    output_bytes: int = 102_400,
    device: int = 0,
) -> Iterator[Workload]:
    """Serialise every request, with its inputs and outputs in slices of shared memory.

    At the end of the context, the server closes the memory, and it is removed.

    Args:
        interface: The model's inputs and outputs.
        streams: The inputs of the requests.
        options: Their other contents.
        protocol: The protocol to serialise for.
        registry: The server's shared memory registry.
        kind: Memory of this machine (`system`), or of a GPU (`cuda`).
        output_bytes: Bytes for an output of one inference with variable dimensions or of BYTES.
        device: The index of the GPU.

    Raises:
        JobError: the memory cannot be created, the server cannot open it, or answers have expected outputs.
        ServerError: the server does not answer.
        InputError: see `build_workload`.
    """
    if any(step.expected for stream in streams for step in stream):
        raise JobError(
            f"--shared-memory {kind} and validation_data cannot be combined, because outputs are not read back; "
            "leave one of them out"
        )
    prefix = Mark.new().shared_memory_prefix
    inputs, outputs = _Layout(f"{prefix}inputs"), _Layout(f"{prefix}outputs")
    sizes = _output_sizes(interface, options, output_bytes)
    contents: list[bytes] = []

    def place(step: RequestStep) -> Places:
        placed = {}
        for tensor in step.inputs:
            raw = tensor.raw()
            if not raw:
                continue  # Triton takes no slice of 0 bytes; a tensor without elements goes over the network.
            placed[tensor.name] = inputs.take(len(raw))
            contents.extend((raw, bytes(-len(raw) % _ALIGNMENT)))
        return Places(placed, {name: outputs.take(size) for name, size in sizes.items()})

    places = [[place(step) for step in stream] for stream in streams]
    workload = build_workload(interface, streams, options, protocol, places)
    make: Callable[[str, int, Sequence[bytes]], AbstractContextManager[Region]] = (
        system_region if kind == "system" else partial(cuda_region, device=device)
    )
    with ExitStack() as stack:
        for layout, fill in ((inputs, contents), (outputs, ())):
            region = stack.enter_context(make(layout.region, max(layout.byte_size, _ALIGNMENT), fill))
            stack.callback(_forget, registry, region)
            registry.register(region)
        contents.clear()
        yield workload


class _Layout:
    """Allocates consecutive slices of a region."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.byte_size = 0

    def take(self, byte_size: int) -> Slice:
        """The next slice, of that many bytes."""
        taken = Slice(self.region, self.byte_size, byte_size)
        self.byte_size += byte_size + -byte_size % _ALIGNMENT
        return taken


def _output_sizes(interface: ModelInterface, options: RequestOptions, output_bytes: int) -> dict[str, int]:
    """Bytes for each output of a request."""
    count = math.prod(batch_dims(interface, options.batch_size))
    sizes = {tensor.name: fixed_bytes(tensor.datatype, tensor.shape) for tensor in interface.outputs}
    return {
        name: count * (output_bytes if size is None else size)
        for name, size in sizes.items()
        if not options.outputs or name in options.outputs
    }


def _forget(registry: Registry, region: Region) -> None:
    """Unregister a region. Errors are ignored, as they could hide an earlier one."""
    until = time.monotonic() + _IN_USE_S
    with suppress(TritontuneError):
        while True:
            try:
                return registry.unregister(region)
            except JobError:
                if time.monotonic() >= until:
                    raise
            time.sleep(_AGAIN_S)
