from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.certificates import Certificates
from support.inference_peer import InferencePeer, request_for
from support.services import ON_BOTH, Services
from support.tritons import grpcs_triton
from tritonclient.grpc import service_pb2

from tuner.core.errors import Cause, ServerError, ServerHungError
from tuner.load.first_request import ask_once
from tuner.options.endpoint import Endpoint
from tuner.servers.installation import TritonInstallation
from tuner.servers.process import ProcessLauncher
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory, config_text


def request_to(model: str, *values: float) -> bytes:
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name="IN", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(np.array(values, np.float32).tobytes())
    message.parameters["triton_enable_empty_final_response"].bool_param = model.startswith("decoupled")
    serialised: bytes = message.SerializeToString()
    return serialised


def contents(answer: bytes) -> list[list[float]]:
    message = service_pb2.ModelInferResponse.FromString(answer)
    return [np.frombuffer(raw, np.float32).tolist() for raw in message.raw_output_contents]


def test_the_answer_comes_with_the_seconds_it_took(server: InferencePeer) -> None:
    request = request_for("sleep", b"x")
    answer, took_s = ask_once(Endpoint(server.address), request, timeout_s=5)
    assert answer == request
    assert took_s >= 0.01


def test_a_request_that_fails_says_why(server: InferencePeer) -> None:
    with pytest.raises(ServerError, match="^the first request failed: INTERNAL: the model says no$") as raised:
        ask_once(Endpoint(server.address), request_for("fail"), timeout_s=5)
    assert raised.value.cause is Cause.REQUESTS_FAILED


def test_a_request_that_is_not_answered_has_a_deadline(server: InferencePeer) -> None:
    with pytest.raises(ServerHungError, match="^the first request failed: DEADLINE_EXCEEDED: "):
        ask_once(Endpoint(server.address), request_for("hang"), timeout_s=0.3)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ServerError, match="UNAVAILABLE: ") as raised:
        ask_once(Endpoint("127.0.0.1:9"), request_for("echo"), timeout_s=5)
    assert raised.value.cause is Cause.CRASHED


@ON_BOTH
def test_a_decoupled_model_is_asked_for_its_first_response(services: Services) -> None:
    service = services.load("decoupled", config_text(more="model_transaction_policy { decoupled: true }"))
    endpoint, model = service.grpc, service.model
    answer, took_s = ask_once(endpoint, request_to(model, 60, 500, -1, 0), timeout_s=60)
    assert contents(answer) == [[60, 500, -1, 0]]
    # The last one comes after 30 s.
    assert 0.5 <= took_s < 20
    answer, _ = ask_once(endpoint, request_to(model, 0, 0, -1, 0), timeout_s=20)
    assert contents(answer) == []
    with pytest.raises(ServerError, match="UNKNOWN: the model says no"):
        ask_once(endpoint, request_to(model, 1, 0, 0, 0), timeout_s=20)
    with pytest.raises(ServerHungError):
        ask_once(endpoint, request_to(model, 1, 2_000, -1, 0), timeout_s=0.3)


def test_it_knows_tls_and_headers(
    fake_triton: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    certificates: Certificates,
) -> None:
    launch = Launch(model_repository.path, model_repository.add(), tmp_path / "log", 30)
    request = request_to("identity", 1, 2, 3, 4)
    with grpcs_triton(fake_triton, launch, certificates, mutual=True) as endpoint:
        answer, _ = ask_once(endpoint, request, timeout_s=5)
        assert contents(answer) == [[1, 2, 3, 4]]
    restricted = ProcessLauncher(fake_triton, ("--grpc-restricted-protocol=inference:key=secret",))
    with restricted.launch(launch) as server:
        endpoint = replace(server.endpoint, headers=(("triton-grpc-protocol-key", "secret"),))
        assert ask_once(endpoint, request, timeout_s=5)[0] == answer
