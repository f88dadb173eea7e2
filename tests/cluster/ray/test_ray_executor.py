"""The contract of executors, on a real Ray cluster of two nodes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.ray_cluster import PATIENCE, RayCluster

from tuner.cluster.executor import Executor
from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.slot_context import SlotRecipe
from tuner.cluster.slots import Slot
from tuner.servers.installation import TritonInstallation
from tuner.testing.executor_contract import LossContract, Opened, ParallelContract

pytestmark = [pytest.mark.faults, pytest.mark.slow]

_OPENED = """
from tuner.cluster.ray.executor import RayExecutor
from tuner.cluster.ray.messages import Patience

def opened(recipe):
    return RayExecutor(recipe, note=lambda _: None)
"""


class _OnRay:
    @classmethod
    def options(cls) -> dict[str, Any]:
        return {"executor": "ray", "parallel": "auto", "server": "auto"}

    @pytest.fixture(scope="class")
    @classmethod
    def triton(cls, fake_triton: TritonInstallation) -> Path:
        return fake_triton.binary.parent.parent

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls, connected: RayCluster) -> Opened:
        del connected

        def opened(recipe: SlotRecipe) -> AbstractContextManager[Executor]:
            return RayExecutor(recipe, note=lambda _: None, patience=PATIENCE)

        return opened


class TestWork(_OnRay, ParallelContract):
    """Work on the slots of several hosts."""


@pytest.mark.faults
class TestLoss(_OnRay, LossContract):
    """Slots that are lost, and the end of an executor."""

    @pytest.fixture
    @classmethod
    def opened_source(cls) -> str:
        return _OPENED

    @pytest.fixture
    def kill(self, ray_cluster: RayCluster) -> Callable[[Executor, Slot], None]:
        def kill(_executor: Executor, slot: Slot) -> None:
            for process in ray_cluster.node(slot.host).slot_processes():
                process.kill()

        return kill

    @pytest.fixture
    def traces(self, ray_cluster: RayCluster) -> Callable[[], set[str]]:
        def traces() -> set[str]:
            drivers = [process.pid for process in psutil.process_iter() if _is_driver(process, ray_cluster.address)]
            found = {f"driver {pid}" for pid in drivers}
            return found.union(*(node.traces() for node in ray_cluster.nodes))

        return traces


def _is_driver(process: psutil.Process, address: str) -> bool:
    try:
        is_ours = "tuner.cluster.ray.driver" in " ".join(process.cmdline())
        return is_ours and process.environ().get("RAY_ADDRESS") == address
    except psutil.Error:  # it has ended meanwhile, or is another user's
        return False
