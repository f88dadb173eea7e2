from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from support.tritons import start_with_http
from support.web_peer import Asked, Reply, WebPeer

from tuner.core.errors import Cause, ServerDiedError, ServerError, ServerHungError
from tuner.options.endpoint import Endpoint, Protocol
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.ports import free_port
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory
from tuner.testing.server_contract import LOADED, PROTOCOLS, AskedContract, InferenceContract, write_models


@pytest.fixture(scope="module")
def endpoints_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[Protocol, Endpoint]]]:
    """Starts a Triton with the models of the contract; all are stopped in the end."""
    with ExitStack() as servers:

        def start(installation: TritonInstallation) -> dict[Protocol, Endpoint]:
            folder = tmp_path_factory.mktemp("client")
            repository = ModelRepositoryFactory(folder / "model_repository")
            write_models(repository)
            launch = Launch(repository.path, LOADED[0], folder / "log", 60)
            ports = start_with_http(installation, launch, *(f"--load-model={name}" for name in LOADED[1:]))
            servers.callback(ports.server.stop)
            return {"grpc": ports.grpc, "http": ports.http}

        yield start


@pytest.fixture(scope="module")
def of_triton(
    endpoints_of: Callable[..., dict[Protocol, Endpoint]], triton_installation: TritonInstallation
) -> dict[Protocol, Endpoint]:
    return endpoints_of(triton_installation)


@pytest.fixture(scope="module")
def of_fake(
    endpoints_of: Callable[..., dict[Protocol, Endpoint]], fake_triton: TritonInstallation
) -> dict[Protocol, Endpoint]:
    return endpoints_of(fake_triton)


@pytest.mark.triton
class TestTritonAsked(AskedContract):
    @pytest.fixture
    def endpoints(self, of_triton: dict[Protocol, Endpoint]) -> dict[Protocol, Endpoint]:
        return of_triton


@pytest.mark.triton
class TestTritonInfers(InferenceContract):
    @pytest.fixture
    def endpoints(self, of_triton: dict[Protocol, Endpoint]) -> dict[Protocol, Endpoint]:
        return of_triton


class TestFakeAsked(AskedContract):
    @pytest.fixture
    def endpoints(self, of_fake: dict[Protocol, Endpoint]) -> dict[Protocol, Endpoint]:
        return of_fake


class TestFakeInfers(InferenceContract):
    @pytest.fixture
    def endpoints(self, of_fake: dict[Protocol, Endpoint]) -> dict[Protocol, Endpoint]:
        return of_fake


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_died(
    fake_triton: TritonInstallation,
    model_repository: ModelRepositoryFactory,
    tmp_path: Path,
    protocol: Protocol,
) -> None:
    launch = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "log", 30)
    ports = start_with_http(fake_triton, launch)
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
            pytest.raises(ServerHungError, match=f"^no answer from {endpoint.address} within 0.2 s$") as caught,
        ):
            client.is_model_ready("identity")
    assert caught.value.cause is Cause.HUNG
    assert time.monotonic() - began < 30


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
            pytest.raises(ServerHungError, match="no answer from .* within 0.3 s"),
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
