from __future__ import annotations

import base64
import importlib.util
import os
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.web_peer import Reply, WebPeer

from tuner.core.errors import JobError
from tuner.core.mark import Mark
from tuner.load.requests.regions import cuda_region, system_region
from tuner.load.requests.registries import CudaRegion, HttpRegistry, SystemRegion
from tuner.options.endpoint import Endpoint

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where the kernel has it)


@pytest.fixture
def name() -> str:
    return f"{Mark.new().shared_memory_prefix}test"


class TestSystem:
    def test_it_is_there_while_it_is_needed(self, name: str) -> None:
        file = SHARED_MEMORY / name
        with system_region(name, 1_000, [b"abc", b"", b"de"]) as region:
            assert region == SystemRegion(name, 1_000, f"/{name}")
            assert file.read_bytes() == b"abcde".ljust(1_000, b"\0")
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            # What is taken now is not missing later.
            assert file.stat().st_blocks * 512 >= 1_000
        assert not file.exists()

    def test_it_may_begin_empty(self, name: str) -> None:
        with system_region(name, 10) as region:
            assert (SHARED_MEMORY / name).read_bytes() == bytes(10)
            assert region.byte_size == 10

    @pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
    def test_it_is_gone_after_an_error(self, name: str, kind: type[BaseException]) -> None:
        with pytest.raises(kind), system_region(name, 10):
            raise kind
        assert not (SHARED_MEMORY / name).exists()

    def test_somebody_may_have_removed_it(self, name: str) -> None:
        with system_region(name, 10):
            (SHARED_MEMORY / name).unlink()

    def test_more_than_there_is_is_refused(self, name: str) -> None:
        size = os.statvfs(SHARED_MEMORY).f_frsize * os.statvfs(SHARED_MEMORY).f_blocks + 2**20
        message = f"^--shared-memory system: no room for .* MiB in /dev/shm: {os.strerror(28)}$"
        with pytest.raises(JobError, match=message), system_region(name, size):
            pass
        assert not (SHARED_MEMORY / name).exists()

    def test_what_belongs_to_another_is_left_alone(self, name: str) -> None:
        file = SHARED_MEMORY / name
        file.write_bytes(b"mine")
        try:
            message = f"^--shared-memory system: /dev/shm/{name} cannot be created: File exists$"
            with pytest.raises(JobError, match=message), system_region(name, 10):
                pass
            assert file.read_bytes() == b"mine"
        finally:
            file.unlink()


class _CudaError(Exception):
    pass


class _Cuda(SimpleNamespace):
    """What tritonclient has for CUDA, on a machine without."""

    CudaSharedMemoryException = _CudaError

    def __init__(self, failing: str = "") -> None:
        super().__init__(failing=failing, alive=[], content=b"")

    def create_shared_memory_region(self, name: str, byte_size: int, device: int) -> object:
        self._may_fail("create")
        self.alive.append((name, byte_size, device))
        return self.alive[-1]

    def set_shared_memory_region(self, _memory: object, values: list[np.ndarray[Any, Any]]) -> None:
        self._may_fail("set")
        self.content = b"".join(array.tobytes() for array in values)

    def get_raw_handle(self, _memory: object) -> bytes:
        return base64.b64encode(b"handle")

    def destroy_shared_memory_region(self, memory: object) -> None:
        self.alive.remove(memory)

    def _may_fail(self, step: str) -> None:
        if self.failing == step:
            raise _CudaError("unable to") from Exception(b"out of\nmemory")


class TestCuda:
    @pytest.mark.skipif(importlib.util.find_spec("cuda") is not None, reason="cuda-python is here")
    def test_without_its_libraries_it_is_refused(self) -> None:
        message = "^--shared-memory cuda needs NVIDIA's cuda-python: pip install cuda-python$"
        with pytest.raises(JobError, match=message), cuda_region("x", 10):
            pass

    def test_it_is_there_while_it_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = self.pretend(monkeypatch, _Cuda())
        with cuda_region("x", 10, [b"abc", b"", b"de"], device=3) as region:
            assert region == CudaRegion("x", 10, b"handle", 3)
            assert cuda.alive == [("x", 10, 3)]
            assert cuda.content == b"abcde"
        assert cuda.alive == []

    def test_it_is_gone_after_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = self.pretend(monkeypatch, _Cuda())
        with pytest.raises(KeyboardInterrupt), cuda_region("x", 10):
            raise KeyboardInterrupt
        assert cuda.alive == []

    @pytest.mark.parametrize("failing", ["create", "set"])
    def test_a_gpu_that_gives_none_is_named_with_its_reason(
        self, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        cuda = self.pretend(monkeypatch, _Cuda(failing))
        message = "^--shared-memory cuda: cannot allocate memory on GPU 1: out of memory$"
        with pytest.raises(JobError, match=message), cuda_region("x", 10, [b"abc"], device=1):
            pass
        assert cuda.alive == []

    def pretend(self, monkeypatch: pytest.MonkeyPatch, cuda: _Cuda) -> _Cuda:
        import tritonclient.utils  # noqa: PLC0415 (only where it is changed)

        monkeypatch.setitem(sys.modules, "tritonclient.utils.cuda_shared_memory", cuda)
        monkeypatch.setattr(tritonclient.utils, "cuda_shared_memory", cuda, raising=False)
        return cuda


def test_over_http_a_region_is_registered_below_the_path_of_the_endpoint() -> None:
    with WebPeer(lambda _: Reply()) as peer:
        registry = HttpRegistry(Endpoint(peer.address, "http", path="/prefix"))
        registry.unregister(SystemRegion("region", 4, "/key"))
        registry.close()
    assert [asked.line for asked in peer.asked] == ["POST /prefix/v2/systemsharedmemory/region/region/unregister"]
