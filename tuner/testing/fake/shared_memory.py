"""System shared memory registered by clients."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.testing.fake.messages import Code, RefusedError


@dataclass(frozen=True)
class Region:
    """A registered region.

    Attributes:
        key: Its name for `shm_open`, with a leading slash.
        offset: Start of the region in the file, in bytes.
        byte_size: Its size in bytes.
        memory: The mapped file.
    """

    key: str
    offset: int
    byte_size: int
    memory: mmap.mmap


class SharedMemory:
    """The regions of a server."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Register a region.

        Raises:
            RefusedError: the region is registered already, or its file is missing or too short.
        """
        if name in self._regions:
            raise RefusedError(Code.ALREADY_EXISTS, f"shared memory region '{name}' already in manager")
        try:
            file = os.open(f"/dev/shm/{key.lstrip('/')}", os.O_RDWR)  # noqa: S108 (where the kernel has it)
        except OSError as error:
            raise RefusedError(Code.INTERNAL, f"Unable to open shared memory region: '{key}'") from error
        try:
            if os.fstat(file).st_size < offset + byte_size:
                raise RefusedError(Code.INTERNAL, f"Invalid shared memory region: '{key}'")
            memory = mmap.mmap(file, 0)
        finally:
            os.close(file)
        self._regions[name] = Region(key, offset, byte_size, memory)

    def unregister(self, name: str) -> None:
        """Unregister a region, or all regions; an unknown one is no error."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str) -> Mapping[str, Region]:
        """A region, or all regions, by name.

        Raises:
            RefusedError: the region is unknown.
        """
        if not name:
            return dict(self._regions)
        if name not in self._regions:
            raise RefusedError(Code.NOT_FOUND, f"Unable to find system shared memory region: '{name}'")
        return {name: self._regions[name]}

    def read(self, name: str, offset: int, byte_size: int) -> bytes:
        """Read from a region.

        Raises:
            RefusedError: the region is unknown or too short.
        """
        region, at = self._place(name, offset, byte_size)
        return region.memory[at : at + byte_size]

    def check(self, name: str, offset: int, byte_size: int) -> None:
        """Check that a region is registered and large enough.

        Raises:
            RefusedError: the region is unknown or too short.
        """
        self._place(name, offset, byte_size)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write into a region.

        Raises:
            RefusedError: the region is unknown or too short.
        """
        region, at = self._place(name, offset, len(data))
        region.memory[at : at + len(data)] = data

    def _place(self, name: str, offset: int, byte_size: int) -> tuple[Region, int]:
        region = self._regions.get(name)
        if region is None:
            raise RefusedError(Code.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        if offset + byte_size > region.byte_size:
            text = f"Invalid offset + byte size for shared memory region: '{name}'"
            raise RefusedError(Code.INVALID_ARGUMENT, text)
        return region, region.offset + offset
