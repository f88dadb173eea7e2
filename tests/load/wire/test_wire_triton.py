from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from support.certificates import Certificates
from support.services import ON_BOTH, Services, TritonService, on_fake, on_triton
from support.tritons import grpcs_triton, on_fake_server, on_real_server
from tritonclient.grpc import service_pb2

from tuner.core.errors import ServerError
from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.load.engine import WorkerEngine
from tuner.load.protocols import Samples
from tuner.load.workload import DriverName, Plan, Request, Workload
from tuner.options.endpoint import Endpoint
from tuner.servers.installation import TritonInstallation
from tuner.servers.protocols import Launch
from tuner.testing.engine_contract import LoadEngineContract, Serve, until_requests
from tuner.testing.repositories import ModelRepositoryFactory, config_text

# In FP32: 64 bytes, what fills a frame and a bit, and 5 MB.
LENGTHS = [16, 4_100, 1_250_000]


class TestContract(LoadEngineContract):
    driver: ClassVar[DriverName] = "wire"

    @pytest.fixture
    def serve(self, triton_serve: Serve) -> Serve:
        return triton_serve


# Tensors of any length.
LENGTHY = config_text(instances=2).replace("dims: [ 4 ]", "dims: [ -1 ]")


@pytest.fixture
def identity(services: Services) -> TritonService:
    return services.load("identity", LENGTHY)


def request_of(values: np.ndarray[tuple[int], np.dtype[np.float32]], model: str) -> Request:
    """What the model answers must be the same, byte for byte."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="IN", datatype="FP32", shape=[1, len(values)])
    raw = values.tobytes()
    message = service_pb2.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[raw])
    return Request(message.SerializeToString(), expected={"OUT": raw})


def plan_of(endpoint: Endpoint, model: str, *lengths: int) -> Plan:
    rng = np.random.default_rng(0)
    requests = tuple(request_of(rng.random(length, dtype=np.float32), model) for length in lengths)
    return Plan("wire", endpoint, Workload(model, (requests,)), 30)


def offer(plan: Plan, load: Load, requests: int) -> Samples:
    with WorkerEngine(plan) as engine:
        return engine.offer(load, until_requests(requests), first_look_s=0.05)


@pytest.mark.parametrize(
    ("services", "load", "lengths"),
    [
        on_fake(Concurrency(5), LENGTHS),
        on_fake(RequestRate(60), LENGTHS),
        on_triton(Concurrency(5), LENGTHS),
        on_triton(RequestRate(60), LENGTHS[-1:]),
    ],
    indirect=["services"],
)
def test_tensors_of_all_sizes_come_back_as_they_went(identity: TritonService, load: Load, lengths: list[int]) -> None:
    samples = offer(plan_of(identity.grpc, identity.model, *lengths), load, 15)
    assert samples.errors == {}
    assert (samples.received > 4 * min(lengths)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("installation", "mutual"),
    [on_fake_server(False), on_fake_server(True), on_real_server(True)],
    indirect=["installation"],
)
def test_over_tls_as_in_the_clear(
    installation: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    certificates: Certificates,
    *,
    mutual: bool,
) -> None:
    model = model_repository.add("identity", config=LENGTHY)
    launch = Launch(model_repository.path, model, tmp_path / "log", 30)
    with grpcs_triton(installation, launch, certificates, mutual=mutual) as endpoint:
        for load in (Concurrency(5), RequestRate(60)):
            assert offer(plan_of(endpoint, model, *LENGTHS), load, 9).errors == {}
        plan = plan_of(endpoint, model, 4)
        with WorkerEngine(plan) as engine:
            assert b"OUT" in engine.ask(plan.workload.requests[0])
        in_the_clear = offer(plan_of(replace(endpoint, tls=None), model, 16), Concurrency(1), 3)
        assert all(message.startswith("UNAVAILABLE: failed to connect to ") for message in in_the_clear.errors)
        assert not in_the_clear.ok.any()


@ON_BOTH
def test_tls_to_a_triton_in_the_clear(identity: TritonService, certificates: Certificates) -> None:
    endpoint = replace(identity.grpc, tls=certificates.trusting)
    samples = offer(plan_of(endpoint, identity.model, 16), Concurrency(1), 3)
    assert not samples.ok.any()
    for message in samples.errors:
        assert message.startswith(f"UNAVAILABLE: failed to connect to {endpoint.address}: TLS error")


@ON_BOTH
@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (request_of(np.zeros(4, np.float32), "nobody"), "NOT_FOUND: .*unknown model: 'nobody'"),
        (Request(b""), "NOT_FOUND: .*unknown model: ''"),
        (Request(b"\xff\xff"), "INTERNAL: "),
    ],
)
def test_triton_says_what_is_wrong_with_a_request(identity: TritonService, request_: Request, error: str) -> None:
    plan = plan_of(identity.grpc, identity.model, 4)
    with WorkerEngine(plan) as engine:
        with pytest.raises(ServerError, match=error):
            engine.ask(request_)
        # The connection is as good as before.
        assert engine.ask(plan.workload.requests[0])


@pytest.mark.slow
def test_several_connections_and_processes(identity: TritonService) -> None:
    plan = replace(plan_of(identity.grpc, identity.model, *LENGTHS), connections=3)
    with WorkerEngine(plan, processes=2) as engine:
        samples = engine.offer(Concurrency(8), until_requests(30), first_look_s=0.05)
    assert samples.errors == {}
    assert samples.processes == 2


@ON_BOTH
def test_a_server_that_is_stopped_kindly_says_so_first_and_is_gone_then(services: Services) -> None:
    service = services("doomed")
    stopped: list[bool] = []

    def watch(samples: Samples) -> float | None:
        if not stopped and len(samples) >= 50:
            os.kill(service.pid, signal.SIGTERM)
            stopped.append(True)
        gone = any(message.startswith("UNAVAILABLE: failed to connect") for message in samples.errors)
        return None if gone or samples.wall_s > 60 else 0.02

    with WorkerEngine(service.plan("wire", 5)) as engine:
        samples = engine.offer(Concurrency(4), watch, first_look_s=0.05)
    assert samples.ok[:50].all()
    assert not samples.ok[-1]
    # The model goes before its server.
    assert {message.partition(":")[0] for message in samples.errors} <= {"NOT_FOUND", "UNAVAILABLE", "CANCELLED"}
