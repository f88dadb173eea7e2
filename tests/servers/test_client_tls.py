from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.certificates import Certificates
from support.tritons import grpcs_triton, https_triton

from tuner.core.errors import JobError, ServerError
from tuner.options.endpoint import Endpoint
from tuner.options.tls import Tls
from tuner.servers.client import TritonClient
from tuner.servers.installation import TritonInstallation
from tuner.servers.protocols import Launch
from tuner.testing.repositories import ModelRepositoryFactory


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    folder = tmp_path_factory.mktemp("tls")
    repository = ModelRepositoryFactory(folder / "model_repository")
    return Launch(repository.path, repository.add("identity"), folder / "log", 30)


SERVERS = {"grpcs": grpcs_triton, "https": https_triton}


@pytest.fixture(scope="module", params=SERVERS)
def endpoint(
    request: pytest.FixtureRequest, fake_triton: TritonInstallation, launch: Launch, certificates: Certificates
) -> Iterator[Endpoint]:
    """Asks nobody for a certificate."""
    with SERVERS[request.param](fake_triton, launch, certificates, mutual=False) as endpoint:
        yield endpoint


# How a server refuses a client is its own; over HTTP, with any Triton, that is the proxy.
@pytest.fixture(
    scope="module",
    params=[
        ("fake_triton", "grpcs"),
        ("fake_triton", "https"),
        pytest.param(("triton_installation", "grpcs"), marks=pytest.mark.triton),
    ],
    ids=["grpcs", "https", "grpcs of the real one"],
)
def mutual_endpoint(request: pytest.FixtureRequest, launch: Launch, certificates: Certificates) -> Iterator[Endpoint]:
    """Asks for a certificate."""
    installation, server = request.param
    with SERVERS[server](request.getfixturevalue(installation), launch, certificates, mutual=True) as endpoint:
        yield endpoint


def version(endpoint: Endpoint, tls: Tls | None = None) -> str:
    with TritonClient(replace(endpoint, tls=tls or endpoint.tls)) as client:
        return client.server().version


class TestTrust:
    def test_by_its_ca(self, endpoint: Endpoint) -> None:
        assert version(endpoint).count(".") == 2

    def test_by_its_name(self, endpoint: Endpoint) -> None:
        assert version(replace(endpoint, address=f"localhost:{endpoint.port}"))

    def test_by_another_name_that_it_has(self, endpoint: Endpoint, certificates: Certificates) -> None:
        assert version(endpoint, Tls(certificates.ca, server_name="triton.example"))

    def test_by_a_name_that_it_has_not(self, endpoint: Endpoint, certificates: Certificates) -> None:
        said = f"^the certificate of {endpoint.address} is not trusted: .*not valid for 'elsewhere.example'$"
        with pytest.raises(ServerError, match=said):
            version(endpoint, Tls(certificates.ca, server_name="elsewhere.example"))

    @pytest.mark.parametrize("whose", ["another's", "the system's"])
    def test_by_another_ca(self, endpoint: Endpoint, certificates: Certificates, whose: str) -> None:
        tls = Tls(certificates.other_ca) if whose == "another's" else Tls()
        said = f"^the certificate of {endpoint.address} is not trusted: (unable to get|self-signed) .*certif"
        with pytest.raises(ServerError, match=said):
            version(endpoint, tls)

    def test_with_a_certificate_that_nobody_asked_for(self, endpoint: Endpoint, certificates: Certificates) -> None:
        assert version(endpoint, certificates.mutual)

    def test_with_a_file_that_is_not_there(self, endpoint: Endpoint, tmp_path: Path) -> None:
        with pytest.raises(JobError, match="cannot be read"):
            version(endpoint, Tls(tmp_path / "ca"))


class TestMutualTrust:
    def test_with_a_certificate(self, mutual_endpoint: Endpoint) -> None:
        assert version(mutual_endpoint)

    def test_without_one(self, mutual_endpoint: Endpoint, certificates: Certificates) -> None:
        address = mutual_endpoint.address
        said = f"{address} (closed .*: it may require a client certificate|refused .*: certificate required)$"
        with pytest.raises(ServerError, match=said):
            version(mutual_endpoint, certificates.trusting)

    def test_with_a_certificate_of_another_ca(
        self, mutual_endpoint: Endpoint, certificates: Certificates, tmp_path: Path
    ) -> None:
        stranger = Certificates.make(tmp_path)
        address = mutual_endpoint.address
        said = f"{address} (closed .*: it may not trust the client certificate|refused .*: unknown ca)$"
        with pytest.raises(ServerError, match=said):
            version(mutual_endpoint, Tls(certificates.ca, stranger.client, stranger.client_key))
