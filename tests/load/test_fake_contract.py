"""The load engines hold their contract on the fake Triton, as they do on the real one."""

from __future__ import annotations

from typing import ClassVar

import pytest

from tuner.load.workload import DriverName
from tuner.testing.engine_contract import LoadEngineContract, Serve


class TestWire(LoadEngineContract):
    driver: ClassVar[DriverName] = "wire"

    @pytest.fixture
    def serve(self, fake_serve: Serve) -> Serve:
        return fake_serve


class TestGrpcio(LoadEngineContract):
    driver: ClassVar[DriverName] = "grpcio"

    @pytest.fixture
    def serve(self, fake_serve: Serve) -> Serve:
        return fake_serve


class TestHttp(LoadEngineContract):
    driver: ClassVar[DriverName] = "http"

    @pytest.fixture
    def serve(self, fake_serve: Serve) -> Serve:
        return fake_serve
