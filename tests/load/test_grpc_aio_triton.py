from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from support.load_engine_contract import LoadEngineContract, Serve, Service
from support.repositories import ModelRepositoryFactory, config_text

from tuner.errors import Cause, ServerError
from tuner.load.grpc_aio import GrpcAioEngine, ask_once
from tuner.load.inputs import make_inputs
from tuner.load.requests import build_requests
from tuner.models.interface import ModelInterface, Tensor
from tuner.servers.client import TritonClient
from tuner.servers.process import ProcessLauncher
from tuner.servers.process_server import ProcessServer
from tuner.servers.protocols import Launch

pytestmark = pytest.mark.triton

_MODELS = {
    "echo": ("identity", config_text()),
    "doomed": ("identity", config_text()),
    "sleep": ("slow", config_text(instances=2, sleep_ms=10)),
    "flaky": ("fails_requests", config_text(fail_every=3, message="the model says no")),
    "fail": ("fails_requests", config_text(message="the model says no")),
    "hang": ("hangs", config_text()),
}


@dataclass(frozen=True)
class Triton:
    """A Triton with one model as a service of the contract."""

    server: ProcessServer
    model: str

    @property
    def address(self) -> str:
        return self.server.grpc_address

    @property
    def requests(self) -> tuple[bytes, ...]:
        interface = ModelInterface(self.model, True, (Tensor("IN", "FP32", (4,)),), ())
        return build_requests(self.model, make_inputs(interface, shapes={}, pool=3, seed=0))

    def successes(self) -> int:
        with TritonClient(self.address) as client:
            return int(client.statistics(self.model).inference_stats.success.count)

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def serve(triton_launcher: ProcessLauncher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts a server for each model once, and stops them in the end."""
    path = tmp_path_factory.mktemp("engine")
    factory = ModelRepositoryFactory(path)
    running: dict[str, Service] = {}
    with ExitStack() as servers:

        def start(model: str) -> Service:
            if model not in running:
                source, config = _MODELS[model]
                factory.add(source, name=model, config=config)
                server = triton_launcher.launch(Launch(path, model, path.with_suffix(f".{model}.log"), 30))
                assert isinstance(server, ProcessServer)
                servers.callback(server.stop, grace_s=0.5)
                running[model] = Triton(server, model)
            return running[model]

        yield start


class TestContractOnTriton(LoadEngineContract):
    def make_engine(self, address: str, requests: tuple[bytes, ...], request_timeout_s: float) -> GrpcAioEngine:
        return GrpcAioEngine(address, requests, request_timeout_s=request_timeout_s)


def test_tritons_own_reason_is_told_when_the_first_request_fails(serve: Serve) -> None:
    service = serve("echo")
    interface = ModelInterface("echo", True, (Tensor("IN", "FP32", (7,)),), ())
    (wrong,) = build_requests("echo", make_inputs(interface, shapes={}, pool=1, seed=0))
    with pytest.raises(ServerError) as raised:
        ask_once(service.address, wrong, timeout_s=5)
    assert "INVALID_ARGUMENT" in str(raised.value)
    assert "unexpected shape for input 'IN'" in str(raised.value)
    assert raised.value.cause is Cause.REQUESTS_FAILED
