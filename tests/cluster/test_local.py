"""Slots of this machine, each in a process, on the fake Triton; a case on the real one."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuner.cluster import slot_locks
from tuner.cluster.executor import Executor
from tuner.cluster.local import LocalExecutor, local_executor
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slots import Slot
from tuner.core.mark import VARIABLE, marks_on_files
from tuner.servers.installation import TritonInstallation
from tuner.testing.executor_contract import Kill, LossContract, ParallelContract, Traces

pytestmark = pytest.mark.slow

_SOURCE = """
from pathlib import Path
from tuner.cluster import slot_locks
from tuner.cluster.local import local_executor
slot_locks._FOLDER = Path({folder!r})
def opened(recipe):
    return local_executor(recipe, note=lambda _: None)
"""


@pytest.fixture(scope="class")
def own_folder() -> Iterator[Path]:
    """A folder for all temporary files and locks of these tests, as others run at the same time."""
    # Its path must be short, for sockets in it.
    with tempfile.TemporaryDirectory(prefix="slots-") as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", name)
        patch.setattr(tempfile, "tempdir", None)
        patch.setattr(slot_locks, "_FOLDER", Path(name))
        yield Path(name)


@pytest.fixture
def traces(own_folder: Path) -> Traces:
    ours: set[str] = set()

    def find() -> set[str]:
        processes = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                if environment.get("TMPDIR", "").startswith(str(own_folder)):
                    processes.add(f"process {process.pid} {process.name()}")
                    ours.add(environment.get(VARIABLE, ""))
        files = {str(file) for file in own_folder.glob("*tritontune-*-*")}
        return processes | files | {str(mark) for mark in marks_on_files() if str(mark) in ours}

    return find


class _Local:
    @pytest.fixture(scope="class")
    @classmethod
    def triton(cls, fake_triton: TritonInstallation) -> Path:
        return fake_triton.root

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, own_folder: Path) -> Callable[[SlotRecipe], AbstractContextManager[Executor]]:
        assert own_folder.exists()
        return lambda recipe: local_executor(recipe, note=lambda _: None)

    @classmethod
    def options(cls) -> dict[str, Any]:
        return {"parallel": 2}


class TestWork(_Local, ParallelContract):
    """Work on slots that stay."""


class TestLosses(_Local, LossContract):
    @pytest.fixture
    def opened_source(self, own_folder: Path) -> str:
        return _SOURCE.format(folder=str(own_folder))

    @pytest.fixture
    def kill(self) -> Kill:
        def end(executor: Executor, slot: Slot) -> None:
            assert isinstance(executor, LocalExecutor)
            (place,) = [place for place in executor._places if place.slot == slot]
            os.kill(place.process.pid, signal.SIGKILL)

        return end
