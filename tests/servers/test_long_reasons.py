"""A failure's reason may be as long as a model's traceback, or protobuf's list of what is wrong with a config."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tuner.core.errors import ServerError
from tuner.load.first_request import ask_once
from tuner.options.endpoint import Endpoint
from tuner.servers import grpc_channel as channel
from tuner.servers.client import TritonClient

REASON = "no such backend; " * 6_000


class _Refusing(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # the library has no types
    def RepositoryModelLoad(self, _request: object, context: grpc.ServicerContext) -> None:  # noqa: N802 (its name)
        context.abort(grpc.StatusCode.INTERNAL, REASON)

    ModelInfer = RepositoryModelLoad


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A server that refuses all, and says a lot about it."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Refusing(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield Endpoint(f"127.0.0.1:{port}")
        server.stop(None).wait()


def test_a_long_reason_is_had_over_grpc(endpoint: Endpoint) -> None:
    with TritonClient(endpoint) as client, pytest.raises(ServerError) as refused:
        client.load_model("m")
    assert str(refused.value) == REASON.strip()


def test_one_that_is_too_long_is_said_to_be(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CHANNEL_OPTIONS", ())
    with (
        TritonClient(endpoint) as client,
        pytest.raises(ServerError, match="^the server failed, and its message is too long"),
    ):
        client.load_model("m")


def test_a_request_may_fail_with_a_long_reason(endpoint: Endpoint) -> None:
    request = service_pb2.ModelInferRequest(model_name="m").SerializeToString()
    with pytest.raises(ServerError, match="no such backend; no such backend"):
        ask_once(endpoint, request, timeout_s=5.0)
