from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from support.certificates import Certificates
from support.repositories import ModelRepositoryFactory, config_text, stateful_config
from support.tritons import TwoPorts, https_triton, start_with_http
from tritonclient.grpc import service_pb2

from tuner.load.engine import WorkerEngine
from tuner.load.first_request import ask_once
from tuner.load.inputs.tensors import InputTensor, Step
from tuner.load.loads import Concurrency, Load, RequestRate
from tuner.load.protocols import Samples
from tuner.load.requests.build import RequestOptions, build_workload
from tuner.load.workload import DriverName, Plan, Request, Sequences, Workload
from tuner.models.interface import ModelInterface, Tensor
from tuner.servers.client import TritonClient
from tuner.servers.endpoint import Endpoint, Protocol
from tuner.servers.installation import TritonInstallation
from tuner.servers.protocols import Launch
from tuner.testing.engine_contract import LoadEngineContract, Serve, until_requests

pytestmark = pytest.mark.triton

LARGE_BYTES = 5 << 20


class TestContractOnTriton(LoadEngineContract):
    driver: ClassVar[DriverName] = "http"

    @pytest.fixture
    def serve(self, triton_serve: Serve) -> Serve:
        return triton_serve


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Of two versions of `identity`, with tensors of any length."""
    folder = tmp_path_factory.mktemp("http")
    factory = ModelRepositoryFactory(folder / "repository")
    config = config_text(max_batch_size=0, more="version_policy { all {} }").replace("dims: [ 4 ]", "dims: [ -1 ]")
    model = factory.path / factory.add("identity", config=config)
    (model / "2").mkdir()
    (model / "2" / "model.py").write_bytes((model / "1" / "model.py").read_bytes())
    return Launch(factory.path, "identity", folder / "log", 30)


@pytest.fixture(scope="module")
def triton(triton_installation: TritonInstallation, launch: Launch) -> Iterator[TwoPorts]:
    ports = start_with_http(triton_installation, launch)
    with ports.server:
        yield ports


def workload(protocol: Protocol, *lengths: int, version: str = "", expecting: float | None = None) -> Workload:
    """Requests with so many numbers each, and perhaps what the first of each answer is to be."""
    interface = ModelInterface("identity", 0, (Tensor("IN", "FP32", (-1,)),), (Tensor("OUT", "FP32", (-1,)),))
    steps = []
    for length in lengths:
        values = np.arange(length, dtype=np.float32)
        wanted = () if expecting is None else (InputTensor("OUT", "FP32", values + np.float32(expecting)),)
        steps.append(Step((InputTensor("IN", "FP32", values),), wanted))
    return build_workload(interface, [tuple(steps)], RequestOptions(version=version), protocol)


def offer(endpoint: Endpoint, load: Workload, *, requests: int = 40) -> Samples:
    with WorkerEngine(Plan("http", endpoint, load, 10)) as engine:
        return engine.offer(Concurrency(4), until_requests(requests), first_look_s=0.05)


def test_large_tensors_both_ways(triton: TwoPorts) -> None:
    samples = offer(triton.http, workload("http", LARGE_BYTES // 4, 10, expecting=0.0), requests=30)
    assert samples.ok.all()
    assert set((samples.received // LARGE_BYTES).tolist()) == {0, 1}


def test_an_answer_that_is_not_the_expected_one_is_an_error(triton: TwoPorts) -> None:
    samples = offer(triton.http, workload("http", 4, expecting=1.0), requests=10)
    assert not samples.ok.any()
    assert list(samples.errors) == ["DATA_LOSS: output OUT differs from what --input-data expects"]


def test_the_version_that_is_asked_for_is_the_one_that_answers(triton: TwoPorts) -> None:
    with TritonClient(triton.http) as client:
        counts = {version: client.statistics("identity", version).inference_count for version in ("1", "2")}
        assert offer(triton.http, workload("http", 4, version="1")).ok.all()
        assert client.statistics("identity", "1").inference_count > counts["1"]
        assert client.statistics("identity", "2").inference_count == counts["2"]


def test_its_answer_says_what_grpc_says(triton: TwoPorts) -> None:
    plan = Plan("http", triton.http, workload("http", 1000), 10)
    with WorkerEngine(plan) as engine:
        over_http = service_pb2.ModelInferResponse.FromString(engine.ask(plan.workload.requests[0]))
    raw, _ = ask_once(triton.grpc, workload("grpc", 1000).requests[0].body, timeout_s=10)
    over_grpc = service_pb2.ModelInferResponse.FromString(raw)
    assert over_http == over_grpc
    assert over_http.outputs[0].shape == [1000]


@pytest.mark.parametrize(
    ("request_of", "error"),
    [
        (Request(b"garbage"), "^INTERNAL: failed to parse the request JSON buffer"),
        (Request(b'{"inputs": []}'), "^INVALID_ARGUMENT: .*expected 1 inputs but got 0"),
        (Request(b'{"inputs": []}', json_length=99), "^INVALID_ARGUMENT: inference header size should be in range"),
    ],
)
def test_what_triton_refuses_is_said_in_its_words(triton: TwoPorts, request_of: Request, error: str) -> None:
    (said,) = offer(triton.http, Workload("identity", ((request_of,),)), requests=4).errors
    assert re.search(error, said)


def test_headers_go_with_every_request(triton_installation: TritonInstallation, launch: Launch, tmp_path: Path) -> None:
    restricted = ("--http-restricted-api=inference:who=me",)
    ports = start_with_http(triton_installation, replace(launch, log=tmp_path / "log"), *restricted)
    with ports.server:
        assert offer(replace(ports.http, headers=(("who", "me"),)), workload("http", 4)).ok.all()
        (said,) = offer(ports.http, workload("http", 4), requests=4).errors
    assert said == "PERMISSION_DENIED: This API is restricted, expecting header 'who'"


@pytest.mark.parametrize(("load", "text_ids"), [(Concurrency(3), True), (RequestRate(200), False)])
def test_sequences_are_in_order(
    triton_installation: TritonInstallation, tmp_path: Path, load: Load, *, text_ids: bool
) -> None:
    factory = ModelRepositoryFactory(tmp_path / "repository")
    batching = stateful_config("oldest { max_candidate_sequences: 16 }", "TYPE_STRING" if text_ids else "TYPE_UINT64")
    config = config_text(more=batching, diary=tmp_path / "diary")
    launch = Launch(factory.path, factory.add("stateful", config=config), tmp_path / "log", 30)
    interface = ModelInterface("stateful", 8, (Tensor("IN", "FP32", (4,)),), ())
    values = [np.array([[place, 3, 0, 0]], np.float32) for place in range(3)]
    stream = tuple(Step((InputTensor("IN", "FP32", value),)) for value in values)
    options = RequestOptions(sequences=Sequences(length=4, variation=0, live=3, first_id=50, text_ids=text_ids))
    ports = start_with_http(triton_installation, launch)
    with (
        ports.server,
        WorkerEngine(Plan("http", ports.http, build_workload(interface, [stream], options, "http"), 10)) as engine,
    ):
        assert engine.ask(engine._plan.workload.requests[0])
        samples = engine.offer(load, until_requests(60), first_look_s=0.05)
    assert samples.errors == {}
    ended = [line.split() for line in (tmp_path / "diary").read_text().splitlines()]
    assert (int(ended[0][0]), *ended[0][1:]) == (50, "1", "1")
    assert {length for _, length, _ in ended[1:-3]} == {"4"}
    assert len(ended) >= 15
    assert max(int(alive) for _, _, alive in ended) == 3


def test_a_model_that_is_not_there(triton: TwoPorts) -> None:
    load = replace(workload("http", 4), model="un/heard of")
    (said,) = offer(triton.http, load, requests=4).errors
    assert said.startswith("NOT_FOUND: Request for unknown model: 'un")


@pytest.fixture(scope="module")
def endpoint(triton_installation: TritonInstallation, launch: Launch, certificates: Certificates) -> Iterator[Endpoint]:
    """Over TLS; it asks for a certificate."""
    log = launch.log.with_name("tls.log")
    with https_triton(triton_installation, replace(launch, log=log), certificates, mutual=True) as endpoint:
        yield endpoint


class TestTls:
    def test_large_tensors_both_ways(self, endpoint: Endpoint) -> None:
        samples = offer(endpoint, workload("http", LARGE_BYTES // 4, expecting=0.0), requests=10)
        assert samples.ok.all()
        assert (samples.received > LARGE_BYTES).all()

    def test_a_name_that_is_not_that_of_the_address(self, endpoint: Endpoint, certificates: Certificates) -> None:
        tls = replace(certificates.mutual, server_name="triton.example")
        assert offer(replace(endpoint, tls=tls), workload("http", 4)).ok.all()

    @pytest.mark.parametrize(
        ("ca", "server_name"), [("other_ca", None), ("ca", "elsewhere.example")], ids=["another CA", "another name"]
    )
    def test_a_server_that_is_not_trusted(
        self, endpoint: Endpoint, certificates: Certificates, ca: str, server_name: str | None
    ) -> None:
        tls = replace(certificates.mutual, ca=getattr(certificates, ca), server_name=server_name)
        (said,) = offer(replace(endpoint, tls=tls), workload("http", 4), requests=4).errors
        assert said.startswith(f"UNAVAILABLE: cannot connect to {endpoint.address}, whose certificate is not trusted: ")

    def test_a_client_that_is_not_trusted(self, endpoint: Endpoint, certificates: Certificates) -> None:
        errors = offer(replace(endpoint, tls=certificates.trusting), workload("http", 4), requests=4).errors
        assert all(said.startswith("UNAVAILABLE: ") for said in errors)

    def test_a_server_in_the_clear(self, triton: TwoPorts, certificates: Certificates) -> None:
        errors = offer(replace(triton.http, tls=certificates.trusting), workload("http", 4), requests=4).errors
        assert all(said.startswith(f"UNAVAILABLE: cannot connect to {triton.http.address}: ") for said in errors)
