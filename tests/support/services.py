"""Servers with models, as the contract of load engines wants them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.inference_peer import InferencePeer, request_for
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
from tuner.testing.engine_contract import Serve, Service

_SHARED = {
    "echo": ("identity", config_text()),
    "sleep": ("slow", config_text(instances=2, sleep_ms=10)),
    "flaky": ("fails_requests", config_text(fail_every=3, message="the model says no")),
    "fail": ("fails_requests", config_text(message="the model says no")),
    "hang": ("hangs", config_text()),
}
_DOOMED = "doomed"


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
    """A model of a Triton as a service of the contract."""

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
    """Starts a Triton with all models but `doomed` when the first is asked for; for that, a new one each time.

    They speak gRPC and HTTP, and are stopped in the end.
    """
    factory = ModelRepositoryFactory(folder)
    for name, (source, config) in _SHARED.items():
        factory.add(source, name=name, config=config)
    factory.add(name=_DOOMED)
    shared: list[TwoPorts] = []
    with ExitStack() as servers:

        def start(model: str, *others: str) -> TwoPorts:
            launch = Launch(folder, model, folder.with_suffix(f".{model}.log"), 30)
            ports = start_with_http(installation, launch, *(f"--load-model={other}" for other in others))
            servers.callback(ports.server.stop, grace_s=0.5)
            return ports

        def serve(model: str) -> Service:
            if model == _DOOMED:
                return TritonService(start(model), model)
            if not shared:
                shared.append(start(*_SHARED))
            return TritonService(shared[0], model)

        yield serve
