from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import get_args

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from support.repositories import ModelRepositoryFactory, config_text
from support.tritons import start_with_http
from support.web_peer import Asked, Reply, WebPeer

from tuner.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.servers.client import TritonClient
from tuner.servers.endpoint import Endpoint, Protocol
from tuner.servers.installation import TritonInstallation
from tuner.servers.ports import free_port
from tuner.servers.protocols import Launch

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


@pytest.fixture(scope="module")
def endpoints(
    triton_installation: TritonInstallation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Protocol, Endpoint]]:
    """Of a server with two versions of `identity`, and `slow`, which is not loaded."""
    folder = tmp_path_factory.mktemp("client")
    repository = ModelRepositoryFactory(folder / "model_repository")
    repository.add("identity", config=config_text(max_batch_size=4, more="version_policy { all {} }"))
    model = repository.path / "identity"
    (model / "12").mkdir()
    (model / "12" / "model.py").write_bytes((model / "1" / "model.py").read_bytes())
    repository.add("slow")
    ports = start_with_http(triton_installation, Launch(repository.path, "identity", folder / "log", 30))
    with ports.server:
        yield {"grpc": ports.grpc, "http": ports.http}


def infer(endpoint: Endpoint, *, version: str, items: int) -> None:
    tensor = triton.InferInput("IN", (items, 4), "FP32")
    tensor.set_data_from_numpy(np.zeros((items, 4), np.float32))
    with triton.InferenceServerClient(endpoint.address) as client:
        client.infer("identity", [tensor], model_version=version, client_timeout=10)


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestWithAServer:
    @pytest.fixture
    def client(self, endpoints: dict[Protocol, Endpoint], protocol: Protocol) -> Iterator[TritonClient]:
        with TritonClient(endpoints[protocol]) as client:
            yield client

    def test_server(self, client: TritonClient) -> None:
        info = client.server()
        assert info.name.startswith("tritontune-")
        assert info.version.count(".") == 2
        assert "statistics" in info.extensions

    def test_models(self, client: TritonClient) -> None:
        assert client.models() == {"identity": "READY", "slow": ""}

    def test_readiness(self, client: TritonClient) -> None:
        assert client.is_model_ready("identity")
        assert client.is_model_ready("identity", "12")
        assert not client.is_model_ready("identity", "2")
        assert not client.is_model_ready("slow")
        assert not client.is_model_ready("unheard-of")

    def test_effective_config(self, client: TritonClient) -> None:
        config = client.model_config("identity")
        assert (config.name, config.backend, config.max_batch_size) == ("identity", "python", 4)
        assert config.instance_group[0].name == "identity_0"  # filled in by the server
        assert client.model_config("identity", "1") == config

    def test_statistics_are_of_the_version_that_is_asked_for(
        self, client: TritonClient, endpoints: dict[Protocol, Endpoint]
    ) -> None:
        before = {version: client.statistics("identity", version) for version in ("1", "12")}
        infer(endpoints["grpc"], version="1", items=3)
        deadline = time.monotonic() + 5
        while client.statistics("identity", "1").inference_count == before["1"].inference_count:
            assert time.monotonic() < deadline  # it answers before it counts
            time.sleep(0.001)
        after = client.statistics("identity", "1")
        assert after.inference_count - before["1"].inference_count == 3
        assert after.execution_count - before["1"].execution_count == 1
        assert after.inference_stats.success.ns > before["1"].inference_stats.success.ns
        assert [batch.batch_size for batch in after.batch_stats] == [3]
        assert client.statistics("identity", "12") == before["12"]

    def test_statistics_without_a_version_are_of_the_latest(self, client: TritonClient) -> None:
        assert client.statistics("identity").version == "12"

    @pytest.mark.parametrize(
        "ask",
        [
            lambda client: client.model_config("unheard-of"),
            lambda client: client.statistics("unheard-of"),
            lambda client: client.statistics("identity", "7"),
        ],
    )
    def test_what_is_not_there_is_the_servers_own_error(
        self, client: TritonClient, ask: Callable[[TritonClient], object]
    ) -> None:
        with pytest.raises(ServerError, match="'unheard-of' is not|not available for model 'identity'") as caught:
            ask(client)
        assert type(caught.value) is ServerError
        assert caught.value.cause is Cause.REQUESTS_FAILED


@pytest.mark.triton
def test_both_protocols_say_the_same(endpoints: dict[Protocol, Endpoint]) -> None:
    with TritonClient(endpoints["grpc"]) as one, TritonClient(endpoints["http"]) as other:
        assert one.server() == other.server()
        assert one.model_config("identity") == other.model_config("identity")
        assert one.statistics("identity") == other.statistics("identity")


@pytest.mark.triton
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_died(
    triton_installation: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    protocol: Protocol,
) -> None:
    launch = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30)
    ports = start_with_http(triton_installation, launch)
    with ports.server, TritonClient(ports.grpc if protocol == "grpc" else ports.http) as client:
        assert client.is_model_ready("identity")
        ports.server.stop()
        with pytest.raises(ServerDiedError, match="no Triton answers at .*: Connection refused"):
            client.is_model_ready("identity")


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestWithoutAServer:
    def test_nobody_there(self, protocol: Protocol) -> None:
        endpoint = Endpoint(f"127.0.0.1:{free_port()}", protocol)
        with (
            TritonClient(endpoint) as client,
            pytest.raises(ServerDiedError, match=f"^no Triton answers at {endpoint.address}: Connection refused$"),
        ):
            client.server()

    def test_a_host_that_nobody_knows(self, protocol: Protocol) -> None:
        with (
            TritonClient(Endpoint("triton.invalid:8001", protocol)) as client,
            pytest.raises(ServerDiedError, match="^no Triton answers at triton.invalid:8001: "),
        ):
            client.server()

    def test_closing_twice_is_harmless(self, protocol: Protocol) -> None:
        client = TritonClient(Endpoint("127.0.0.1:1", protocol))
        client.close()
        client.close()


@pytest.mark.parametrize("scheme", ["grpc", "grpcs", "http", "https"])
def test_no_answer_in_time(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint.parse(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with (
            TritonClient(endpoint, timeout_s=0.2) as client,
            pytest.raises(ServerHungError, match=f"^{endpoint.address} gave no answer in 0.2 s$") as caught,
        ):
            client.is_model_ready("identity")
    assert caught.value.cause is Cause.HUNG
    assert time.monotonic() - began < 2


def test_an_answer_that_comes_in_drops_is_none_in_time() -> None:
    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not over.wait(0.05):
                connection.sendall(b" ")

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        endpoint = Endpoint(f"127.0.0.1:{listener.getsockname()[1]}", "http")
        with (
            TritonClient(endpoint, timeout_s=0.3) as client,
            pytest.raises(ServerHungError, match="no answer in 0.3 s"),
        ):
            client.server()
        over.set()
        thread.join()


@contextmanager
def grpc_peer(asked: list[dict[str, str]]) -> Iterator[Endpoint]:
    """A gRPC server that notes the metadata of each call, and answers with nothing."""

    class Noting(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
            asked.append({str(name): str(value) for name, value in details.invocation_metadata})
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Noting(),))
    endpoint = Endpoint(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield endpoint
    finally:
        server.stop(None).wait()


class TestEveryCall:
    HEADERS = (("authorization", "Bearer abc"), ("x-tenant", "a"))

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
        """The headers of each call, made while the environment names a proxy where nobody is."""
        for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
            monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
        asked: list[dict[str, str]] = []
        return asked

    def ask(self, endpoint: Endpoint) -> None:
        with TritonClient(replace(endpoint, headers=self.HEADERS)) as client:
            client.server()
            client.statistics("m")
            client.is_model_ready("m")

    def test_over_grpc(self, asked: list[dict[str, str]]) -> None:
        with grpc_peer(asked) as endpoint, pytest.raises(ServerError, match="no statistics"):
            self.ask(endpoint)
        assert len(asked) == 2
        assert all(set(self.HEADERS) <= headers.items() for headers in asked)

    def test_over_http(self, asked: list[dict[str, str]]) -> None:
        def answer(request: Asked) -> Reply:
            asked.append(dict(request.headers))
            return Reply(body=b'{"name": "triton", "model_stats": [{"name": "m", "version": "1"}]}')

        with WebPeer(answer) as peer:
            self.ask(Endpoint(peer.address, "http"))
        assert len(asked) == 3
        assert all(set(self.HEADERS) <= headers.items() for headers in asked)

    def test_below_a_path(self) -> None:
        with WebPeer(lambda _: Reply(body=b'{"name": "triton", "model_stats": [{"version": "1"}]}')) as peer:
            self.ask(Endpoint(peer.address, "http", path="/some/prefix"))
        assert [asked.line for asked in peer.asked] == [
            "GET /some/prefix/v2",
            "GET /some/prefix/v2/models/m/stats",
            "GET /some/prefix/v2/models/m/ready",
        ]
