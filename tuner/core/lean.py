"""Imports Triton's protobuf messages without the rest of tritonclient, whose numpy takes 0.1 s of CPU time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_PACKAGE = "tritonclient.grpc"


def spare_client() -> None:
    """Make `tritonclient.grpc.service_pb2` importable without its package, in a process that runs only our code."""
    spec = importlib.util.find_spec("tritonclient")
    if spec is None or spec.origin is None or _PACKAGE in sys.modules:
        return
    package = ModuleType(_PACKAGE)
    package.__path__ = [str(Path(spec.origin).parent / "grpc")]
    sys.modules[_PACKAGE] = package
