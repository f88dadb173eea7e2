from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from support.certificates import Certificates
from support.repositories import ModelRepositoryFactory, config_text
from support.services import TritonService
from support.tritons import grpcs_triton
from tritonclient.grpc import service_pb2

from tuner.errors import ServerError
from tuner.load.engine import WorkerEngine
from tuner.load.loads import Concurrency, Load, RequestRate
from tuner.load.protocols import Samples
from tuner.load.workload import DriverName, Plan, Request, Workload
from tuner.servers.endpoint import Endpoint
from tuner.servers.installation import TritonInstallation
from tuner.servers.process import ProcessLauncher
from tuner.servers.process_server import ProcessServer
from tuner.servers.protocols import Launch
from tuner.testing.engine_contract import LoadEngineContract, Serve, until_requests

pytestmark = pytest.mark.triton

# In FP32: 64 bytes, what fills a frame and a bit, and 5 MB.
LENGTHS = [16, 4_100, 1_250_000]


class TestContract(LoadEngineContract):
    driver: ClassVar[DriverName] = "wire"

    @pytest.fixture
    def serve(self, triton_serve: Serve) -> Serve:
        return triton_serve


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An identity model of any length."""
    factory = ModelRepositoryFactory(tmp_path_factory.mktemp("repository"))
    factory.add("identity", config=config_text(instances=2).replace("dims: [ 4 ]", "dims: [ -1 ]"))
    return factory.path


@pytest.fixture(scope="module")
def launch(repository: Path) -> Launch:
    return Launch(repository, "identity", repository.with_suffix(".log"), 30)


@pytest.fixture(scope="module")
def server(triton_installation: TritonInstallation, launch: Launch) -> Iterator[ProcessServer]:
    with ProcessLauncher(triton_installation).launch(launch) as server:
        assert isinstance(server, ProcessServer)
        yield server


def request_of(values: np.ndarray[tuple[int], np.dtype[np.float32]], *, model: str = "identity") -> Request:
    """What the model answers must be the same, byte for byte."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="IN", datatype="FP32", shape=[1, len(values)])
    raw = values.tobytes()
    message = service_pb2.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[raw])
    return Request(message.SerializeToString(), expected={"OUT": raw})


def plan_of(endpoint: Endpoint, *lengths: int) -> Plan:
    rng = np.random.default_rng(0)
    requests = tuple(request_of(rng.random(length, dtype=np.float32)) for length in lengths)
    return Plan("wire", endpoint, Workload("identity", (requests,)), 30)


def offer(plan: Plan, load: Load, requests: int) -> Samples:
    with WorkerEngine(plan) as engine:
        return engine.offer(load, until_requests(requests), first_look_s=0.05)


@pytest.mark.parametrize("load", [Concurrency(5), RequestRate(60)])
@pytest.mark.parametrize("lengths", [LENGTHS, [1_250_000]])
def test_tensors_of_all_sizes_come_back_as_they_went(server: ProcessServer, load: Load, lengths: list[int]) -> None:
    samples = offer(plan_of(server.endpoint, *lengths), load, 30)
    assert samples.errors == {}
    assert (samples.received > 4 * min(lengths)).all()


@pytest.mark.parametrize("mutual", [False, True])
def test_over_tls_as_in_the_clear(
    triton_installation: TritonInstallation, launch: Launch, certificates: Certificates, *, mutual: bool
) -> None:
    with grpcs_triton(triton_installation, launch, certificates, mutual=mutual) as endpoint:
        for load in (Concurrency(5), RequestRate(60)):
            assert offer(plan_of(endpoint, *LENGTHS), load, 30).errors == {}
        with WorkerEngine(plan_of(endpoint, 4)) as engine:
            assert b"OUT" in engine.ask(plan_of(endpoint, 4).workload.requests[0])
        in_the_clear = offer(plan_of(replace(endpoint, tls=None), 16), Concurrency(1), 3)
        assert all(message.startswith("UNAVAILABLE: failed to connect to ") for message in in_the_clear.errors)
        assert not in_the_clear.ok.any()


def test_tls_to_a_triton_in_the_clear(server: ProcessServer, certificates: Certificates) -> None:
    samples = offer(plan_of(replace(server.endpoint, tls=certificates.trusting), 16), Concurrency(1), 3)
    assert not samples.ok.any()
    address = server.endpoint.address
    for message in samples.errors:
        assert message.startswith(f"UNAVAILABLE: failed to connect to {address}: the server does not keep to TLS")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (request_of(np.zeros(4, np.float32), model="nobody"), "NOT_FOUND: .*unknown model: 'nobody'"),
        (Request(b""), "NOT_FOUND: .*unknown model: ''"),
        (Request(b"\xff\xff"), "INTERNAL: "),
    ],
)
def test_triton_says_what_is_wrong_with_a_request(server: ProcessServer, request_: Request, error: str) -> None:
    with WorkerEngine(plan_of(server.endpoint, 4)) as engine:
        with pytest.raises(ServerError, match=error):
            engine.ask(request_)
        # The connection is as good as before.
        assert engine.ask(plan_of(server.endpoint, 4).workload.requests[0])


def test_several_connections_and_processes(server: ProcessServer) -> None:
    plan = replace(plan_of(server.endpoint, *LENGTHS), connections=3)
    with WorkerEngine(plan, processes=2) as engine:
        samples = engine.offer(Concurrency(8), until_requests(60), first_look_s=0.05)
    assert samples.errors == {}
    assert samples.processes == 2


def test_a_server_that_is_stopped_kindly_says_so_first_and_is_gone_then(triton_serve: Serve) -> None:
    service = triton_serve("doomed")
    assert isinstance(service, TritonService)
    server = service.ports.server
    assert isinstance(server, ProcessServer)
    stopped: list[bool] = []

    def watch(samples: Samples) -> float | None:
        if not stopped and len(samples) >= 50:
            os.kill(server.pid, signal.SIGTERM)
            stopped.append(True)
        gone = any(message.startswith("UNAVAILABLE: failed to connect") for message in samples.errors)
        return None if gone or samples.wall_s > 60 else 0.02

    with WorkerEngine(service.plan("wire", 5)) as engine:
        samples = engine.offer(Concurrency(4), watch, first_look_s=0.05)
    assert samples.ok[:50].all()
    assert not samples.ok[-1]
    # The model goes before its server.
    assert {message.partition(":")[0] for message in samples.errors} <= {"NOT_FOUND", "UNAVAILABLE", "CANCELLED"}
