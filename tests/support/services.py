"""Servers with one model each, as the contract of load engines wants them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.inference_peer import InferencePeer, request_for
from support.load_engine_contract import Serve, Service
from support.repositories import ModelRepositoryFactory, config_text
from support.tritons import TwoPorts, start_with_http

from tuner.load.inputs.made_up import make_inputs
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.workload import DriverName, Plan, Request, Workload
from tuner.models.interface import ModelInterface
from tuner.servers.client import TritonClient
from tuner.servers.endpoint import Endpoint
from tuner.servers.installation import TritonInstallation
from tuner.servers.process_server import ProcessServer
from tuner.servers.protocols import Launch

_MODELS = {
    "echo": ("identity", config_text()),
    "doomed": ("identity", config_text()),
    "sleep": ("slow", config_text(instances=2, sleep_ms=10)),
    "flaky": ("fails_requests", config_text(fail_every=3, message="the model says no")),
    "fail": ("fails_requests", config_text(message="the model says no")),
    "hang": ("hangs", config_text()),
}


@dataclass(frozen=True)
class InProcess:
    """A model of an `InferencePeer` as a service of the contract."""

    server: InferencePeer
    model: str

    def plan(self, driver: DriverName, request_timeout_s: float) -> Plan:
        requests = tuple(Request(request_for(self.model, bytes([number]))) for number in range(1, 4))
        return Plan(driver, Endpoint(self.server.address), Workload(self.model, (requests,)), request_timeout_s)

    def successes(self) -> int:
        return self.server.successes[self.model]

    def kill(self) -> None:
        self.server.stop()


@dataclass(frozen=True)
class TritonService:
    """A Triton with one model as a service of the contract."""

    ports: TwoPorts
    model: str

    def plan(self, driver: DriverName, request_timeout_s: float) -> Plan:
        with TritonClient(self.ports.grpc) as client:
            interface = ModelInterface.of(client.model_config(self.model))
        inputs = make_inputs(interface, shapes={}, pool=3, seed=0)
        endpoint = self.ports.http if driver == "http" else self.ports.grpc
        workload = build_workload(interface, (inputs,), RequestOptions(), endpoint.protocol)
        return Plan(driver, endpoint, workload, request_timeout_s)

    def successes(self) -> int:
        with TritonClient(self.ports.grpc) as client:
            return int(client.statistics(self.model).inference_stats.success.count)

    def kill(self) -> None:
        assert isinstance(self.ports.server, ProcessServer)
        os.kill(self.ports.server.pid, signal.SIGKILL)


@contextmanager
def triton_services(installation: TritonInstallation, folder: Path) -> Iterator[Serve]:
    """Starts a Triton for each model when it is asked for, with gRPC and HTTP, and stops all in the end."""
    factory = ModelRepositoryFactory(folder)
    running: dict[str, Service] = {}
    with ExitStack() as servers:

        def start(model: str) -> Service:
            if model not in running or model == "doomed":
                source, config = _MODELS[model]
                if not (folder / model).exists():
                    factory.add(source, name=model, config=config)
                ports = start_with_http(installation, Launch(folder, model, folder.with_suffix(f".{model}.log"), 30))
                servers.callback(ports.server.stop, grace_s=0.5)
                running[model] = TritonService(ports, model)
            return running[model]

        yield start
