"""Work in this process, by the contract of executors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tuner.cluster.executor import Executor
from tuner.cluster.in_process import InProcessExecutor
from tuner.cluster.slot_context import SlotRecipe, open_slot
from tuner.servers.installation import TritonInstallation
from tuner.testing.executor_contract import WorkContract


@contextmanager
def _opened(recipe: SlotRecipe) -> Iterator[Executor]:
    with open_slot(recipe, None, lambda _: None) as context, InProcessExecutor(context) as executor:
        yield executor


class TestInProcessExecutor(WorkContract):
    @pytest.fixture(scope="class")
    @classmethod
    def triton(cls, fake_triton: TritonInstallation) -> Path:
        return fake_triton.root

    @pytest.fixture(scope="class")
    @classmethod
    def opened(cls) -> Callable[[SlotRecipe], AbstractContextManager[Executor]]:
        return _opened
