from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from support.certificates import Certificates
from support.services import ON_BOTH, Services, TritonService, on_fake, on_triton
from support.tritons import https_triton
from tritonclient.grpc import service_pb2

from tuner.config.interface import ModelInterface, Tensor
from tuner.core.loads import Concurrency, Load, RequestRate
from tuner.load.engine import WorkerEngine
from tuner.load.first_request import ask_once
from tuner.load.inputs.tensors import InputTensor, RequestStep
from tuner.load.protocols import Samples
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.workload import DriverName, Plan, Request, Sequences, Workload
from tuner.options.endpoint import Endpoint, Protocol
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.protocols import Launch
from tuner.testing.engine_contract import LoadEngineContract, Serve, until_requests
from tuner.testing.repositories import ModelRepositoryFactory, config_text, stateful_config

LARGE_BYTES = 5 << 20


class TestContractOnTriton(LoadEngineContract):
    driver: ClassVar[DriverName] = "http"

    @pytest.fixture
    def serve(self, triton_serve: Serve) -> Serve:
        return triton_serve


@pytest.fixture
def identity(services: Services) -> TritonService:
    """Two versions of `identity`, with tensors of any length."""
    config = config_text(max_batch_size=0, more="version_policy { all {} }").replace("dims: [ 4 ]", "dims: [ -1 ]")
    return services.load("identity", config, versions=2)


def workload(
    protocol: Protocol, *lengths: int, model: str, version: str = "", expecting: float | None = None
) -> Workload:
    """Requests with so many numbers each, and perhaps what the first of each answer is to be."""
    interface = ModelInterface(model, 0, (Tensor("IN", "FP32", (-1,)),), (Tensor("OUT", "FP32", (-1,)),))
    steps = []
    for length in lengths:
        values = np.arange(length, dtype=np.float32)
        wanted = () if expecting is None else (InputTensor("OUT", "FP32", values + np.float32(expecting)),)
        steps.append(RequestStep((InputTensor("IN", "FP32", values),), wanted))
    return build_workload(interface, [tuple(steps)], RequestOptions(version=version), protocol)


def offer(endpoint: Endpoint, load: Workload, *, requests: int = 40) -> Samples:
    with WorkerEngine(Plan("http", endpoint, load, 10)) as engine:
        return engine.offer(Concurrency(4), until_requests(requests), first_look_s=0.05)


def test_large_tensors_both_ways(identity: TritonService) -> None:
    load = workload("http", LARGE_BYTES // 4, 10, model=identity.model, expecting=0.0)
    samples = offer(identity.http, load, requests=30)
    assert samples.ok.all()
    assert set((samples.received // LARGE_BYTES).tolist()) == {0, 1}


def test_an_answer_that_is_not_the_expected_one_is_an_error(identity: TritonService) -> None:
    samples = offer(identity.http, workload("http", 4, model=identity.model, expecting=1.0), requests=10)
    assert not samples.ok.any()
    assert list(samples.errors) == ["DATA_LOSS: output OUT differs from what --input-data expects"]


def test_the_version_that_is_asked_for_is_the_one_that_answers(identity: TritonService) -> None:
    model = identity.model
    with TritonClient(identity.http) as client:
        counts = {version: client.statistics(model, version).inference_count for version in ("1", "2")}
        assert offer(identity.http, workload("http", 4, model=model, version="1")).ok.all()
        assert client.statistics(model, "1").inference_count > counts["1"]
        assert client.statistics(model, "2").inference_count == counts["2"]


@ON_BOTH
def test_its_answer_says_what_grpc_says(identity: TritonService) -> None:
    plan = Plan("http", identity.http, workload("http", 1000, model=identity.model), 10)
    with WorkerEngine(plan) as engine:
        over_http = service_pb2.ModelInferResponse.FromString(engine.ask(plan.workload.requests[0]))
    request = workload("grpc", 1000, model=identity.model).requests[0]
    over_grpc = service_pb2.ModelInferResponse.FromString(ask_once(identity.grpc, request.body, timeout_s=10)[0])
    assert over_http == over_grpc
    assert over_http.outputs[0].shape == [1000]


@ON_BOTH
@pytest.mark.parametrize(
    ("request_of", "error"),
    [
        (Request(b"garbage"), "^INTERNAL: failed to parse the request JSON buffer"),
        (Request(b'{"inputs": []}'), "^INVALID_ARGUMENT: .*expected 1 inputs but got 0"),
        (Request(b'{"inputs": []}', json_length=99), "^INVALID_ARGUMENT: inference header size should be in range"),
    ],
)
def test_what_triton_refuses_is_said_in_its_words(identity: TritonService, request_of: Request, error: str) -> None:
    (said,) = offer(identity.http, Workload(identity.model, ((request_of,),)), requests=4).errors
    assert re.search(error, said)


@ON_BOTH
def test_a_model_that_is_not_there(identity: TritonService) -> None:
    (said,) = offer(identity.http, workload("http", 4, model="un/heard of"), requests=4).errors
    assert said.startswith("NOT_FOUND: Request for unknown model: 'un")


def test_headers_go_with_every_request(services: Services) -> None:
    service = services.start("identity", config_text(), "--http-restricted-api=inference:who=me")
    load = service.plan("http", 10).workload
    assert offer(replace(service.http, headers=(("who", "me"),)), load).ok.all()
    (said,) = offer(service.http, load, requests=4).errors
    assert said == "PERMISSION_DENIED: This API is restricted, expecting header 'who'"


@pytest.mark.parametrize(
    ("services", "load", "text_ids"),
    [on_fake(Concurrency(3), True), on_fake(RequestRate(200), False), on_triton(Concurrency(3), True)],
    indirect=["services"],
)
def test_sequences_are_in_order(services: Services, tmp_path: Path, load: Load, *, text_ids: bool) -> None:
    batching = stateful_config("oldest { max_candidate_sequences: 16 }", "TYPE_STRING" if text_ids else "TYPE_UINT64")
    service = services.load("stateful", config_text(more=batching, diary=tmp_path / "diary"))
    interface = ModelInterface(service.model, 8, (Tensor("IN", "FP32", (4,)),), ())
    values = [np.array([[place, 3, 0, 0]], np.float32) for place in range(3)]
    stream = tuple(RequestStep((InputTensor("IN", "FP32", value),)) for value in values)
    options = RequestOptions(sequences=Sequences(length=4, variation=0, live=3, first_id=50, text_ids=text_ids))
    plan = Plan("http", service.http, build_workload(interface, [stream], options, "http"), 10)
    with WorkerEngine(plan) as engine:
        assert engine.ask(plan.workload.requests[0])
        samples = engine.offer(load, until_requests(60), first_look_s=0.05)
    assert samples.errors == {}
    ended = [line.split() for line in (tmp_path / "diary").read_text().splitlines()]
    assert (int(ended[0][0]), *ended[0][1:]) == (50, "1", "1")
    assert {length for _, length, _ in ended[1:-3]} == {"4"}
    assert len(ended) >= 15
    assert max(int(alive) for _, _, alive in ended) == 3


@pytest.fixture(scope="module")
def tls_launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    factory = ModelRepositoryFactory(tmp_path_factory.mktemp("tls"))
    config = config_text(max_batch_size=0).replace("dims: [ 4 ]", "dims: [ -1 ]")
    return Launch(factory.path, factory.add("identity", config=config), factory.path.with_suffix(".log"), 30)


@pytest.fixture(scope="module")
def endpoint(fake_triton: TritonInstallation, tls_launch: Launch, certificates: Certificates) -> Iterator[Endpoint]:
    """Over TLS; it asks for a certificate. Triton itself speaks none over HTTP, so this is a proxy's."""
    with https_triton(fake_triton, tls_launch, certificates, mutual=True) as endpoint:
        yield endpoint


def floats(*lengths: int, expecting: float | None = None) -> Workload:
    return workload("http", *lengths, model="identity", expecting=expecting)


class TestTls:
    def test_large_tensors_both_ways(self, endpoint: Endpoint) -> None:
        samples = offer(endpoint, floats(LARGE_BYTES // 4, expecting=0.0), requests=10)
        assert samples.ok.all()
        assert (samples.received > LARGE_BYTES).all()

    def test_a_name_that_is_not_that_of_the_address(self, endpoint: Endpoint, certificates: Certificates) -> None:
        tls = replace(certificates.mutual, server_name="triton.example")
        assert offer(replace(endpoint, tls=tls), floats(4)).ok.all()

    @pytest.mark.parametrize(
        ("ca", "server_name"), [("other_ca", None), ("ca", "elsewhere.example")], ids=["another CA", "another name"]
    )
    def test_a_server_that_is_not_trusted(
        self, endpoint: Endpoint, certificates: Certificates, ca: str, server_name: str | None
    ) -> None:
        tls = replace(certificates.mutual, ca=getattr(certificates, ca), server_name=server_name)
        (said,) = offer(replace(endpoint, tls=tls), floats(4), requests=4).errors
        assert said.startswith(f"UNAVAILABLE: cannot connect to {endpoint.address}: certificate not trusted: ")

    def test_a_client_that_is_not_trusted(self, endpoint: Endpoint, certificates: Certificates) -> None:
        errors = offer(replace(endpoint, tls=certificates.trusting), floats(4), requests=4).errors
        assert all(said.startswith("UNAVAILABLE: ") for said in errors)

    def test_a_server_in_the_clear(self, identity: TritonService, certificates: Certificates) -> None:
        errors = offer(replace(identity.http, tls=certificates.trusting), floats(4), requests=4).errors
        assert all(said.startswith(f"UNAVAILABLE: cannot connect to {identity.http.address}: ") for said in errors)
