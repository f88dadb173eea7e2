"""What a client says when its endpoint is not that of a Triton, or not of that protocol."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from support.certificates import Certificates
from support.tls_proxy import tls_proxy
from support.tritons import on_fake_server, on_real_server, start_with_http
from support.web_peer import Reply, WebPeer

from tuner.core.errors import Cause, ServerError
from tuner.options.endpoint import Endpoint
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory


def refusal(endpoint: Endpoint) -> str:
    """The one line that a client says."""
    with TritonClient(endpoint, timeout_s=2) as client, pytest.raises(ServerError) as caught:
        client.server()
    assert type(caught.value) is ServerError
    assert caught.value.cause is Cause.REQUESTS_FAILED
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def addresses(
    request: pytest.FixtureRequest, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Of one Triton, by scheme; a proxy speaks TLS for its HTTP port."""
    installation: TritonInstallation = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("misdirected")
    repository = ModelRepositoryFactory(folder / "model_repository")
    launch = Launch(repository.path, repository.add("identity"), folder / "log", 30)
    ports = start_with_http(installation, launch)
    with ports.server, tls_proxy(ports.http.address, certificates.serving()) as https:
        yield {"grpc": ports.grpc.address, "http": ports.http.address, "https": https}


@pytest.mark.parametrize(
    ("addresses", "asked", "found", "words"),
    [
        on_fake_server("grpc", "http", "speaks HTTP, not gRPC"),
        on_fake_server("grpcs", "http", "speaks HTTP, not gRPC over TLS"),
        on_fake_server("https", "http", "speaks HTTP, not HTTP over TLS"),
        on_fake_server("http", "grpc", "speaks gRPC, not HTTP"),
        on_fake_server("grpcs", "grpc", "speaks gRPC, not gRPC over TLS"),
        on_fake_server("https", "grpc", "speaks gRPC, not HTTP over TLS"),
        on_fake_server("grpc", "https", "speaks HTTP over TLS, not gRPC"),
        on_fake_server("http", "https", "speaks HTTP over TLS, not HTTP"),
        on_fake_server("grpcs", "https", "speaks HTTP over TLS, not gRPC over TLS"),
        on_real_server("grpc", "http", "speaks HTTP, not gRPC"),
        on_real_server("http", "grpc", "speaks gRPC, not HTTP"),
        on_real_server("grpcs", "grpc", "speaks gRPC, not gRPC over TLS"),
    ],
    indirect=["addresses"],
)
def test_the_other_port(
    addresses: dict[str, str], certificates: Certificates, asked: str, found: str, words: str
) -> None:
    address = addresses[found]
    tls = certificates.trusting if asked.endswith("s") else None
    said = refusal(Endpoint.parse(f"{asked}://{address}", tls=tls))
    assert said == f"{address} {words}: use {found}://{address}"


class TestOtherWebServers:
    @pytest.mark.parametrize(
        ("reply", "what"),
        [
            (Reply(404, b"<html>Not here"), "404 Not Found"),
            (Reply(404, b'{"error": "Not Found"}'), "404 Not Found"),
            (Reply(404, b'{"detail": "Not Found"}'), "404 Not Found"),
            (Reply(405, b'{"error": "METHOD NOT ALLOWED"}'), "405 Method Not Allowed"),
            (
                Reply(301, headers={"location": "https://triton.example/v2"}),
                "301 Moved Permanently, see https://triton.example/v2",
            ),
            (Reply(200, b"<html>Welcome"), "200 OK"),
            (Reply(200, b"{}"), "200 OK"),
            (Reply(200, b"[1]"), "200 OK"),
            (Reply(200, b'{"name": 7}'), "200 OK"),
            (Reply(200, b"\xff"), "200 OK"),
            (Reply(502, b"no healthy upstream"), "502 Bad Gateway"),
        ],
    )
    def test_an_answer_that_no_triton_gives(self, reply: Reply, what: str) -> None:
        with WebPeer(lambda _: reply) as peer:
            said = refusal(Endpoint(peer.address, "http"))
        assert said == f"{peer.address} is not a Triton: it answers /v2 with {what}"

    def test_one_that_wants_tls(self) -> None:
        reply = Reply(400, b"<html>The plain HTTP request was sent to HTTPS port")
        with WebPeer(lambda _: reply) as peer:
            said = refusal(Endpoint(peer.address, "http"))
        assert said == f"{peer.address} speaks HTTP over TLS, not HTTP: use https://{peer.address}"

    def test_one_that_says_no_in_the_form_of_a_triton(self) -> None:
        with WebPeer(lambda _: Reply(401, b'{"error": "who\\n are you?"}')) as peer:
            assert refusal(Endpoint(peer.address, "http")) == "who are you?"

    def test_asked_over_grpc(self) -> None:
        with WebPeer(lambda _: Reply(404)) as peer:
            said = refusal(Endpoint(peer.address))
        assert said == f"{peer.address} speaks HTTP, not gRPC: use http://{peer.address}"

    @pytest.mark.parametrize("raw", [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort", b"220 mail ESMTP\r\n"])
    def test_what_is_hardly_one(self, raw: bytes) -> None:
        with (
            WebPeer(lambda _: Reply(raw=raw)) as peer,
            TritonClient(Endpoint(peer.address, "http"), timeout_s=2) as client,
            pytest.raises(ServerError, match=f"^no Triton answers at {peer.address}$"),
        ):
            client.server()


def test_another_grpc_server() -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        said = refusal(Endpoint(address))
    finally:
        server.stop(None).wait()
    assert said == f"{address} does not implement Triton's gRPC service: 'Method not found!'"
