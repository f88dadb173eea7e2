"""Servers with models, as the contract of load engines wants them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from support.inference_peer import InferencePeer, request_for
from support.tritons import TwoPorts, start_with_http

from tuner.config.interface import ModelInterface
from tuner.load.inputs.made_up import make_inputs
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.workload import DriverName, Plan, Request, Workload
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.process_server import ProcessServer
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory, config_text

_MARKS = (pytest.mark.triton, pytest.mark.xdist_group("triton_serve"))


def on_triton(*values: object) -> ParameterSet:
    """The parameters of a test whose first one is the fixture `services`: there, that of a real Triton."""
    return pytest.param("triton_serve", *values, marks=_MARKS)


def on_fake(*values: object) -> ParameterSet:
    """The same with that of the fake one, which a test has that says nothing."""
    return pytest.param("fake_serve", *values)


ON_BOTH = pytest.mark.parametrize("services", [on_fake(), on_triton()], indirect=True)
ON_TRITON = pytest.mark.parametrize("services", [on_triton()], indirect=True)

_CONTRACT = {
    "echo": ("identity", config_text()),
    "sleep": ("slow", config_text(instances=2, sleep_ms=10)),
    "flaky": ("fails_requests", config_text(fail_every=3, message="the model says no")),
    "fail": ("fails_requests", config_text(message="the model says no")),
    "hang": ("hangs", config_text()),
}
_DOOMED = "doomed"
_DEADLINE_S = 60


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

    @property
    def grpc(self) -> Endpoint:
        return self.ports.grpc

    @property
    def http(self) -> Endpoint:
        return self.ports.http

    @property
    def pid(self) -> int:
        assert isinstance(self.ports.server, ProcessServer)
        return self.ports.server.pid

    def plan(self, driver: DriverName, request_timeout_s: float) -> Plan:
        with TritonClient(self.grpc) as client:
            interface = ModelInterface.of(client.model_config(self.model))
        inputs = make_inputs(interface, shapes={}, pool=3, seed=0)
        endpoint = self.http if driver == "http" else self.grpc
        workload = build_workload(interface, (inputs,), RequestOptions(), endpoint.protocol)
        return Plan(driver, endpoint, workload, request_timeout_s)

    def successes(self) -> int:
        with TritonClient(self.grpc) as client:
            return int(client.statistics(self.model).inference_stats.success.count)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Services:
    """One Triton, which loads the models that tests ask for, and others of their own where that is what matters.

    They speak gRPC and HTTP.

    Args:
        installation: Which Triton.
        folder: An empty one to work in.
    """

    def __init__(self, installation: TritonInstallation, folder: Path) -> None:
        self._installation = installation
        self._folder = folder
        self._servers = ExitStack()
        self._shared: TwoPorts | None = None
        self._models: dict[tuple[str, str, int], TritonService] = {}
        self._number = 0

    def __call__(self, model: str) -> TritonService:
        """A model of the contract; `doomed` has a server of its own each time."""
        if model == _DOOMED:
            return self.start("identity", config_text())
        return self.load(*_CONTRACT[model])

    def load(self, source: str, config: str, *, versions: int = 1) -> TritonService:
        """A model of `tuner/testing/models` on the one server, the same one for the same config."""
        key = source, config, versions
        if key not in self._models:
            repository, model = self._added(source, config, versions)
            if self._shared is None:
                self._shared = self._started(repository, model)
            else:
                with TritonClient(self._shared.grpc, timeout_s=_DEADLINE_S) as client:
                    client.load_model(model)
            self._models[key] = TritonService(self._shared, model)
        return self._models[key]

    def start(self, source: str, config: str, *arguments: str) -> TritonService:
        """A model on a server of its own, perhaps with arguments."""
        folder = self._folder / f"own_{self._number}"
        repository, model = self._added(source, config, 1, folder)
        return TritonService(self._started(repository, model, *arguments), model)

    def close(self) -> None:
        self._servers.close()

    def _added(self, source: str, config: str, versions: int, folder: Path | None = None) -> tuple[Path, str]:
        factory = ModelRepositoryFactory(folder or self._folder / "shared")
        self._number += 1
        model = factory.add(source, name=f"{source}_{self._number}", config=config)
        code = (factory.path / model / "1/model.py").read_bytes()
        for version in range(2, versions + 1):
            (factory.path / model / str(version)).mkdir()
            (factory.path / model / str(version) / "model.py").write_bytes(code)
        return factory.path, model

    def _started(self, repository: Path, model: str, *arguments: str) -> TwoPorts:
        launch = Launch(repository, model, self._folder / f"{model}.log", _DEADLINE_S)
        ports = start_with_http(self._installation, launch, *arguments)
        self._servers.callback(ports.server.stop, grace_s=0.5)
        return ports


@contextmanager
def triton_services(installation: TritonInstallation, folder: Path) -> Iterator[Services]:
    """What is started is stopped in the end."""
    services = Services(installation, folder)
    try:
        yield services
    finally:
        services.close()
