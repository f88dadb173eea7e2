"""Shared memory regions that a server can open: POSIX shared memory, or GPU memory."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tuner.core.errors import JobError
from tuner.load.requests.registries import CudaRegion, SystemRegion

_DIRECTORY = Path("/dev/shm")  # noqa: S108 (the kernel's folder for shared memory, not for temporary files)


@contextmanager
def system_region(name: str, byte_size: int, contents: Sequence[bytes] = ()) -> Iterator[SystemRegion]:
    """POSIX shared memory, which is removed when the context is left.

    Args:
        name: The name of the region, and of its file.
        byte_size: Its size in bytes.
        contents: Its contents, one behind the other.

    Raises:
        JobError: there is not enough shared memory.
    """
    path = _DIRECTORY / name
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JobError(f"--shared-memory system: {path} cannot be created: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            _fill(descriptor, byte_size)
            file.writelines(contents)
        yield SystemRegion(name, byte_size, f"/{name}")
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def cuda_region(name: str, byte_size: int, contents: Sequence[bytes] = (), *, device: int = 0) -> Iterator[CudaRegion]:
    """GPU memory, which is freed when the context is left.

    Args:
        name: The name of the region.
        byte_size: Its size in bytes.
        contents: Its contents, one behind the other.
        device: The index of the GPU.

    Raises:
        JobError: CUDA libraries or the GPU are missing, or it has not enough memory.
    """
    cuda = _cuda()
    try:
        memory = cuda.create_shared_memory_region(name, byte_size, device)
    except cuda.CudaSharedMemoryException as error:
        raise _no_memory(device, error) from None
    try:
        try:
            if contents:
                cuda.set_shared_memory_region(memory, [np.frombuffer(b"".join(contents), np.uint8)])
            handle = base64.b64decode(cuda.get_raw_handle(memory))
        except cuda.CudaSharedMemoryException as error:
            raise _no_memory(device, error) from None
        yield CudaRegion(name, byte_size, handle, device)
    finally:
        cuda.destroy_shared_memory_region(memory)


def _fill(descriptor: int, byte_size: int) -> None:
    """Allocate the memory now, since a later write without free memory would kill the writing process."""
    try:
        os.posix_fallocate(descriptor, 0, byte_size)
    except OSError as error:
        size = f"{byte_size / 2**20:.1f} MiB"
        raise JobError(f"--shared-memory system: no room for {size} in {_DIRECTORY}: {error.strerror}") from None


def _cuda() -> Any:
    try:
        from tritonclient.utils import cuda_shared_memory  # noqa: PLC0415 (fails where there is no CUDA)
    except (ImportError, RuntimeError, OSError):
        raise JobError("--shared-memory cuda needs NVIDIA's cuda-python: pip install cuda-python") from None
    return cuda_shared_memory


def _no_memory(device: int, error: Exception) -> JobError:
    """The error with the cause of tritonclient's exception, if any; CUDA's messages are bytes."""
    reason = next(iter((error.__cause__ or error).args), "")
    words = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason or error)
    return JobError(
        f"--shared-memory cuda: cannot allocate memory on GPU {device}: {' '.join(words.split()) or 'unknown error'}"
    )
