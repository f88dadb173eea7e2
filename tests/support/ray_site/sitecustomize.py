"""On the path of Ray's workers in tests: gives the slots of each node a folder of locks of its own.

Nodes of a test share a machine with each other, and with other tests.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_MODULE = "tuner.cluster.slot_locks"


class _Finder:
    """Finds the module of locks, and changes it when it is loaded."""

    @classmethod
    def find_spec(
        cls, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            module._FOLDER = Path(os.environ["TRITONTUNE_TEST_LOCKS"])  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


if "TRITONTUNE_TEST_LOCKS" in os.environ:
    sys.meta_path.insert(0, _Finder)
