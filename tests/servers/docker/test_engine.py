from __future__ import annotations

import gc
import shutil
import socket
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException
from support.certificates import Certificates
from support.docker_image import IMAGE
from support.engine_cable import Cable
from support.tls_proxy import tls_proxy

from tuner.core.errors import TuningError
from tuner.servers.docker import engine as engine_module
from tuner.servers.docker.engine import connect, explain
from tuner.servers.docker.launcher import DockerLauncher, engine_problem
from tuner.servers.docker.server import DockerServer
from tuner.servers.protocols import Launch
from tuner.testing.launcher_contract import await_death
from tuner.testing.repositories import ModelRepositoryFactory


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where, for us, the engine's socket is."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def assert_problem(expected: str) -> None:
    problem = engine_problem("any")
    assert problem is not None
    assert expected in problem
    assert "\n" not in problem
    with pytest.raises(TuningError) as caught:
        connect(timeout_s=1)
    assert str(caught.value) == problem


def test_no_socket(path: Path) -> None:
    assert_problem(f"no Docker engine: {path} does not exist")


def test_a_socket_on_which_nobody_listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as forgotten:
        forgotten.bind(str(path))
        assert_problem(f"the Docker engine does not answer at {path}: Connection refused")


@pytest.mark.slow
def test_an_engine_that_does_not_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_ASK_S", 1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        assert_problem("the Docker engine does not answer")


def test_a_socket_that_is_not_for_us(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)  # root may do anything
    assert_problem(f"no permission to use the Docker engine: {path} is for root")


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("nonsense://x", "the Docker engine cannot be used: "),
        ("ssh://someone@elsewhere", "DOCKER_HOST=ssh://... needs paramiko: pip install"),
    ],
)
def test_an_address_that_leads_nowhere(host: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert_problem(complaint)


def test_what_ssh_needs_is_named_as_ours() -> None:
    error = DockerException("Install paramiko package to enable ssh:// support")
    error.__cause__ = NameError("SSHHTTPAdapter")  # as docker-py has it
    assert explain(error) == ("DOCKER_HOST=ssh://... needs paramiko: pip install 'tritontune[ssh]'")


def test_a_machine_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere.invalid:2375")
    assert_problem("the Docker engine does not answer at tcp://elsewhere.invalid:2375: ")


def test_a_machine_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    assert_problem(f"the Docker engine does not answer at tcp://127.0.0.1:{port}: Connection refused")


@pytest.mark.docker
def test_an_image_that_can_be_used(engine: docker.DockerClient) -> None:
    assert engine.ping()
    assert engine_problem(IMAGE) is None


@pytest.mark.docker
def test_an_image_that_is_not_there(engine: docker.DockerClient) -> None:
    assert engine.ping()
    assert engine_problem("tritontune-absent:1") == (
        "image 'tritontune-absent:1' is not on this machine; get it with: docker pull tritontune-absent:1"
    )


@pytest.mark.docker
@pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning"
)  # docker-py leaves one whenever it cannot connect
def test_an_engine_that_goes_away_under_a_server(
    engine: docker.DockerClient, path: Path, model_repository: ModelRepositoryFactory, tmp_path: Path
) -> None:
    request = Launch(model_repository.path, model_repository.add("identity"), tmp_path / "server.log", 60)
    with Cable.at_file(path):
        server = DockerLauncher(IMAGE).launch(request)
    assert isinstance(server, DockerServer)
    death = await_death(server)
    assert str(death) == "Triton can no longer be watched: the Docker engine does not answer"
    assert "Started GRPCInferenceService" in death.last_words
    with pytest.raises(TuningError, match="the Docker engine does not answer"):
        server.stop()
    with pytest.raises(TuningError, match="the Docker engine does not answer"):
        DockerLauncher(IMAGE).launch(request)

    path.unlink()
    with Cable.at_file(path):
        server.stop()
    with pytest.raises(docker.errors.NotFound):
        engine.containers.get(str(server.mark))
    gc.collect()  # of those sockets, while they may be complained about


@pytest.mark.docker
def test_an_engine_over_tls(
    engine: docker.DockerClient, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.ping()
    files = {"ca.pem": certificates.ca, "cert.pem": certificates.client, "key.pem": certificates.client_key}
    for name, source in files.items():
        shutil.copy(str(source), tmp_path / name)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.other_ca))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    serving = certificates.serving(mutual=True)
    with Cable.over_tcp() as host, tls_proxy(host.removeprefix("tcp://"), serving) as address:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://localhost:{address.rpartition(':')[2]}")
        assert engine_problem(IMAGE) is None
        shutil.copy(certificates.other_ca, tmp_path / "ca.pem")
        assert_problem("TLS with the Docker engine failed: ")
